/* Dropped-out residual sums, RMS norms of rows, and their gradients. A warp
 * takes a row; gradients of weights gather by warp, in scratch by block, and
 * are added in order. */
#include "e4m3.cuh"
#include "gemm.cuh"

enum { NORM_WARPS = 8, NORM_CACHE = 48 * 1024 };

/* Where value j of group g of a row lies in shared memory: without bank
 * conflicts for a warp that takes 32 groups, four values at a time. */
static __device__ __forceinline__ int slot_of(int g, int j) {
  return g / 32 * 256 + j / 4 * 128 + g % 32 * 4 + j % 4;
}

/* Floats that a row of `width` values takes there. */
static int64_t slots_of(int64_t width) {
  return cuda_pieces(width, 256) * 256;
}

/* Warps of a block whose rows need `slots` floats each. */
static int warps_of(int64_t slots) {
  int64_t most = NORM_CACHE / (slots * 4);
  return (int)cuda_larger(1, cuda_smaller(NORM_WARPS, most));
}

/* --- residual ------------------------------------------------------------- */

/* u: x, v: delta */
struct residual_map {
  drops d;
  template <bool exact>
  __device__ void apply(const drawer &w, int64_t i, float u[8],
                        float v[8]) const {
    drops_apply(w, i, v);
#pragma unroll
    for (int j = 0; j < 8; j++) u[j] += v[j];
  }
  template <int T>
  __device__ __forceinline__ uint4 packed(float factor, uint4 x, uint4 z,
                                          uint4 mask) const {
    float u[8], v[8];
    unpack8(T, x, u);
    unpack8(T, masked(z, mask), v);
#pragma unroll
    for (int j = 0; j < 8; j++) u[j] += v[j] * factor;
    return pack8(T, u);
  }
};

lk_status cuda_residual(lk_context *context, const lk_call *call) {
  int64_t count = lk_tensor_count(&call->in[0]);
  residual_map f = {drops_of(&call->in[2], &call->attr, count)};
  return cuda_map(context, call, view_of(&call->in[0]),
                  view_of(&call->in[1]), view_of(&call->out[0]), count, f);
}

/* --- rmsnorm and residual_norm -------------------------------------------- */

typedef struct norm_args {
  view x, delta, w, h, y; /* delta, h: absent without a residual */
  float *rstd, *scales;
  uint8_t *codes;         /* of y in e4m3, with `scales`; or NULL */
  drops d;
  int64_t rows, width;
  float eps;
  bool whole;
} norm_args;

/* A group of the row that is normed: x, or h = x + dropout(delta). */
static __device__ __forceinline__ void norm_take(const norm_args &a,
                                                 int64_t at, int n,
                                                 bool whole, float v[8]) {
  view_load(a.x, at, n, whole, v);
  if (a.h.data == NULL) return;
  float b[8];
  view_load(a.delta, at, n, whole, b);
  drops_apply(drops_open(a.d), at, b);
#pragma unroll
  for (int j = 0; j < 8; j++) v[j] = view_round(a.h, v[j] + b[j]);
  view_store(a.h, at, n, whole, v);
}

/* The same for whole rows of a 16-bit type, up to G · 256 wide: the row stays
 * in registers, w is f32. */
template <int T, int G>
static __global__ void __launch_bounds__(NORM_WARPS * 32)
    k_norm_fast(norm_args a) {
  int lane = (int)threadIdx.x % 32, width = (int)a.width;
  int64_t row = (int64_t)blockIdx.x * NORM_WARPS + threadIdx.x / 32;
  if (row >= a.rows) return;
  const uint4 *x = (const uint4 *)((const uint16_t *)a.x.data + row * width);
  const uint4 *delta =
      (const uint4 *)((const uint16_t *)a.delta.data + row * width);
  uint4 *h = (uint4 *)((uint16_t *)a.h.data + row * width);
  uint4 *y = (uint4 *)((uint16_t *)a.y.data + row * width);
  uint4 kept[G], added[G], mask[G];
  float sum = 0, v[8], u[8];
#pragma unroll
  for (int k = 0; k < G; k++) {
    int g = lane + 32 * k;
    if (g * 8 < width) kept[k] = x[g];
    if (g * 8 < width && a.h.data) added[k] = delta[g];
  }
  drawer w = drops_open(a.d);
  if (a.h.data) drops_masks<G>(w, row * width + lane * 8, 256, mask);
#pragma unroll
  for (int k = 0; k < G; k++) {
    int g = lane + 32 * k;
    if (g * 8 >= width) break;
    unpack8(T, kept[k], v);
    if (a.h.data) {
      unpack8(T, masked(added[k], mask[k]), u);
#pragma unroll
      for (int j = 0; j < 8; j++) v[j] += u[j] * w.factor;
      kept[k] = pack8(T, v);
      h[g] = kept[k];
      unpack8(T, kept[k], v);
    }
#pragma unroll
    for (int j = 0; j < 8; j++) sum += v[j] * v[j];
  }
  float rstd = 1.0f / sqrtf(warp_sum(sum) / (float)width + a.eps);
  if (lane == 0) a.rstd[row] = rstd;
#pragma unroll
  for (int k = 0; k < G; k++) {
    int g = lane + 32 * k;
    if (g * 8 >= width) break;
    unpack8(T, kept[k], v);
    view_load(a.w, g * 8, 8, true, u);
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] = v[j] * rstd * u[j];
    y[g] = kept[k] = pack8(T, v);
  }
  if (a.codes)
    warp_codes<T, G>(a.codes, a.scales, row, lane, width / 8, kept);
}

static __global__ void __launch_bounds__(NORM_WARPS * 32)
    k_norm(norm_args a, int slots) {
  extern __shared__ float cache[];
  int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
  int64_t row = (int64_t)blockIdx.x * (blockDim.x / 32) + warp;
  float *mine = cache + warp * slots, sum = 0, v[8], w[8];
  if (row >= a.rows) return;
  int groups = (int)((a.width + 7) / 8);
  for (int g = lane; g < groups; g += 32) {
    int n = (int)(a.width - g * 8 < 8 ? a.width - g * 8 : 8);
    norm_take(a, row * a.width + g * 8, n, a.whole, v);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      if (j < n) sum += v[j] * v[j];
      mine[slot_of(g, j)] = v[j];
    }
  }
  float rstd = 1.0f / sqrtf(warp_sum(sum) / (float)a.width + a.eps);
  if (lane == 0) a.rstd[row] = rstd;
  for (int g = lane; g < groups; g += 32) {
    int n = (int)(a.width - g * 8 < 8 ? a.width - g * 8 : 8);
    view_load(a.w, g * 8, n, a.whole, w);
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] = mine[slot_of(g, j)] * rstd * w[j];
    view_store(a.y, row * a.width + g * 8, n, a.whole, v);
  }
}

/* How many groups a lane has of a row that a fast kernel takes; 0: none does.
 * Rows are whole, activations x 16 bits wide, weights w f32. */
static int fast_groups(bool whole, view x, view w, int64_t width) {
  if (!whole || x.dtype == LK_F32 || w.dtype != LK_F32) return 0;
  static const int made[] = {2, 3, 4, 5, 8};
  for (int i = 0; i < 5; i++)
    if (width <= made[i] * 256) return made[i];
  return 0;
}

/* `launch`(T, G) for a type and a number of groups chosen at run time. */
#define NORM_FAST(launch, dtype, groups)                                 \
  do {                                                                   \
    bool bf16 = (dtype) == LK_BF16;                                      \
    switch (groups) {                                                    \
      case 2: if (bf16) launch(LK_BF16, 2); else launch(LK_F16, 2); break; \
      case 3: if (bf16) launch(LK_BF16, 3); else launch(LK_F16, 3); break; \
      case 4: if (bf16) launch(LK_BF16, 4); else launch(LK_F16, 4); break; \
      case 5: if (bf16) launch(LK_BF16, 5); else launch(LK_F16, 5); break; \
      default: if (bf16) launch(LK_BF16, 8); else launch(LK_F16, 8);     \
    }                                                                    \
  } while (0)

/* `y`: which result is the normed one; codes follow its rstd. */
static lk_status norm_run(lk_context *context, const lk_call *call,
                          norm_args a, int y) {
  int64_t slots = slots_of(a.width);
  int warps = warps_of(slots);
  a.rows = lk_tensor_count(&call->in[0]) / a.width;
  a.eps = (float)call->attr.eps;
  a.whole = a.width % 8 == 0 && view_whole(a.x) && view_whole(a.delta) &&
            view_whole(a.w) && view_whole(a.h) && view_whole(a.y);
  int groups = fast_groups(a.whole, a.x, a.w, a.width);
  if (groups > 0) {
    a.codes = (uint8_t *)call->out[y + 2].data;
    a.scales = (float *)call->out[y + 3].data;
#define LAUNCH(T, G)                                                     \
  k_norm_fast<T, G><<<(unsigned)cuda_pieces(a.rows, NORM_WARPS),         \
                      NORM_WARPS * 32, 0, cuda_stream(context)>>>(a)
    NORM_FAST(LAUNCH, a.x.dtype, groups);
#undef LAUNCH
    return cuda_launched(context, call);
  }
  int64_t bytes = warps * slots * 4;
  LK_TRY(cuda_shared(context, call, (const void *)k_norm, bytes));
  k_norm<<<(unsigned)cuda_pieces(a.rows, warps), (unsigned)warps * 32,
           (size_t)bytes, cuda_stream(context)>>>(a, (int)slots);
  LK_TRY(cuda_launched(context, call));
  return cuda_give_codes(context, call, y, y + 2);
}

lk_status cuda_rmsnorm(lk_context *context, const lk_call *call) {
  norm_args a = {};
  a.x = view_of(&call->in[0]);
  a.w = view_of(&call->in[1]);
  a.y = view_of(&call->out[0]);
  a.rstd = (float *)call->out[1].data;
  a.width = cuda_columns(&call->in[0]);
  return norm_run(context, call, a, 0);
}

lk_status cuda_residual_norm(lk_context *context, const lk_call *call) {
  norm_args a = {};
  a.x = view_of(&call->in[0]);
  a.delta = view_of(&call->in[1]);
  a.w = view_of(&call->in[2]);
  a.h = view_of(&call->out[0]);
  a.y = view_of(&call->out[1]);
  a.rstd = (float *)call->out[2].data;
  a.width = cuda_columns(&call->in[0]);
  a.d = drops_of(&call->in[3], &call->attr, lk_tensor_count(&call->in[0]));
  return norm_run(context, call, a, 1);
}

/* --- gradient ------------------------------------------------------------ */

typedef struct norm_backward_args {
  view dy, x, w, extra, dx, dropped; /* dropped: dropout(dx), may be absent */
  drops d;
  const float *rstd;
  float *part;
  int64_t rows, width;
  int parts;
  bool whole;
} norm_backward_args;

/* rstd³ · mean(dy · w · x) of a row. */
static __device__ __forceinline__ float norm_pull(const norm_backward_args &a,
                                                  int64_t row, int lane,
                                                  float rstd) {
  float dot = 0, dy[8], x[8], w[8];
#pragma unroll 2
  for (int64_t c = lane * 8; c < a.width; c += 256) {
    int n = (int)(a.width - c < 8 ? a.width - c : 8);
    view_load(a.dy, row * a.width + c, n, a.whole, dy);
    view_load(a.x, row * a.width + c, n, a.whole, x);
    view_load(a.w, c, n, a.whole, w);
#pragma unroll
    for (int j = 0; j < 8; j++) dot += dy[j] * w[j] * x[j];
  }
  return rstd * rstd * rstd * warp_sum(dot) / (float)a.width;
}

/* dx = rstd · w · dy − x · pull (+ extra), and dw += dy · x · rstd. */
static __device__ __forceinline__ void norm_backward_row(
    const norm_backward_args &a, int64_t row, int lane, float *dw) {
  float rstd = a.rstd[row], pull = norm_pull(a, row, lane, rstd);
  float dy[8], x[8], w[8], e[8] = {0};
#pragma unroll 2
  for (int64_t c = lane * 8; c < a.width; c += 256) {
    int n = (int)(a.width - c < 8 ? a.width - c : 8);
    int64_t at = row * a.width + c;
    view_load(a.dy, at, n, a.whole, dy);
    view_load(a.x, at, n, a.whole, x);
    view_load(a.w, c, n, a.whole, w);
    if (a.extra.data) view_load(a.extra, at, n, a.whole, e);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      dw[slot_of((int)(c / 8), j)] += dy[j] * (x[j] * rstd);
      x[j] = e[j] + (dy[j] * (w[j] * rstd) - x[j] * pull);
      x[j] = view_round(a.dx, x[j]);
    }
    view_store(a.dx, at, n, a.whole, x);
    if (a.dropped.data == NULL) continue;
    drops_apply(drops_open(a.d), at, x);
    view_store(a.dropped, at, n, a.whole, x);
  }
}

/* Block p's rows, a warp after the other; the warps' sums in order to part. */
static __global__ void __launch_bounds__(NORM_WARPS * 32)
    k_norm_backward(norm_backward_args a, int slots) {
  extern __shared__ float cache[];
  int warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
  int64_t p = blockIdx.x, last = (p + 1) * a.rows / a.parts;
  for (int i = (int)threadIdx.x; i < warps * slots; i += (int)blockDim.x)
    cache[i] = 0;
  __syncthreads();
  for (int64_t r = p * a.rows / a.parts + warp; r < last; r += warps)
    norm_backward_row(a, r, (int)threadIdx.x % 32, cache + warp * slots);
  __syncthreads();
  for (int c = (int)threadIdx.x; c < a.width; c += (int)blockDim.x) {
    float sum = 0;
    for (int i = 0; i < warps; i++)
      sum += cache[i * slots + slot_of(c / 8, c % 8)];
    a.part[p * a.width + c] = sum;
  }
}

/* dropout of group k of dx, with its draws made. */
template <int T, int G>
static __device__ __forceinline__ uint4 norm_dropped(uint4 dx, int k,
                                                     const uint32_t bits[],
                                                     float factor) {
  float v[8];
  const uint4 mask = make_uint4(drops_pair<G>(bits, 4 * k),
                                drops_pair<G>(bits, 4 * k + 1),
                                drops_pair<G>(bits, 4 * k + 2),
                                drops_pair<G>(bits, 4 * k + 3));
  unpack8(T, masked(dx, mask), v);
#pragma unroll
  for (int j = 0; j < 8; j++) v[j] *= factor;
  return pack8(T, v);
}

/* A warp's next row on its way to shared memory: [3, G, 32] groups of dy, x
 * and extra, each read by the lane that copies it. */
template <int G> struct norm_stage {
  uint4 *lane; /* its first group of dy */

  /* Rows `row` of `from`, to array `which`. */
  __device__ __forceinline__ void copy(int which, view from, int64_t row,
                                       int width) const {
    const uint4 *line =
        (const uint4 *)((const uint16_t *)from.data + row * width);
    int first = (int)threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < G; k++)
      if ((first + 32 * k) * 8 < width)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                         (uint32_t)__cvta_generic_to_shared(
                             lane + (which * G + k) * 32)),
                     "l"(line + first + 32 * k)
                     : "memory");
  }
  __device__ __forceinline__ void commit() const {
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  /* All but what was committed last is there. */
  __device__ __forceinline__ void wait() const {
    asm volatile("cp.async.wait_group 1;" ::: "memory");
  }
  __device__ __forceinline__ uint4 get(int which, int k) const {
    return lane[(which * G + k) * 32];
  }
};

/* The same for whole rows of a 16-bit type: rows and sums in registers, the
 * next row (if it is below `last`) on its way meanwhile. */
template <int T, int G>
static __device__ __forceinline__ void norm_backward_row_fast(
    const norm_backward_args &a, const drawer &draws,
    const norm_stage<G> &stage, int64_t row, int64_t last, int lane,
    float dw[G][8]) {
  int width = (int)a.width;
  int64_t next = row + NORM_WARPS;
  uint4 *dx = (uint4 *)((uint16_t *)a.dx.data + row * width);
  uint4 *dropped = (uint4 *)((uint16_t *)a.dropped.data + row * width);
  uint4 dys[G], xs[G];
  uint32_t bits[(G + 3) / 4];
  float dot = 0, rstd = a.rstd[row], u[8], v[8], w[8], e[8] = {0};
  stage.wait();
#pragma unroll
  for (int k = 0; k < G; k++) dys[k] = stage.get(0, k), xs[k] = stage.get(1, k);
  if (next < last) stage.copy(0, a.dy, next, width);
  if (next < last) stage.copy(1, a.x, next, width);
  stage.commit();
  if (a.dropped.data)
    drops_bits<G>(draws, row * width + lane * 8, 256, bits);
#pragma unroll
  for (int k = 0; k < G; k++) {
    int g = lane + 32 * k;
    if (g * 8 >= width) break;
    unpack8(T, dys[k], u);
    unpack8(T, xs[k], v);
    view_load(view_f32(a.w.data), g * 8, 8, true, w);
#pragma unroll
    for (int j = 0; j < 8; j++) dot = fmaf(u[j] * w[j], v[j], dot);
  }
  float pull = rstd * rstd * rstd * warp_sum(dot) / (float)width;
  stage.wait();
#pragma unroll
  for (int k = 0; k < G; k++) {
    int g = lane + 32 * k;
    if (g * 8 >= width) break;
    if (a.extra.data) unpack8(T, stage.get(2, k), e);
    unpack8(T, dys[k], u);
    unpack8(T, xs[k], v);
    view_load(view_f32(a.w.data), g * 8, 8, true, w);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      dw[k][j] = fmaf(u[j], v[j] * rstd, dw[k][j]);
      u[j] = fmaf(u[j], w[j] * rstd, fmaf(-v[j], pull, e[j]));
    }
    dys[k] = pack8(T, u);
    dx[g] = dys[k];
    if (a.dropped.data)
      dropped[g] = norm_dropped<T, G>(dys[k], k, bits, draws.factor);
  }
  if (next < last && a.extra.data) stage.copy(2, a.extra, next, width);
  stage.commit();
}

template <int T, int G>
static __global__ void __launch_bounds__(NORM_WARPS * 32, G <= 5 ? 2 : 1)
    k_norm_backward_fast(norm_backward_args a) {
  extern __shared__ float4 room[];
  float *cache = (float *)room;
  int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
  int64_t p = blockIdx.x, last = (p + 1) * a.rows / a.parts;
  int64_t row = p * a.rows / a.parts + warp;
  float dw[G][8] = {{0}};
  const drawer draws = drops_open(a.d);
  const norm_stage<G> stage = {(uint4 *)room + warp * 3 * G * 32 + lane};
  if (row < last) {
    stage.copy(0, a.dy, row, (int)a.width);
    stage.copy(1, a.x, row, (int)a.width);
  }
  stage.commit();
  if (row < last && a.extra.data) stage.copy(2, a.extra, row, (int)a.width);
  stage.commit();
  for (; row < last; row += NORM_WARPS)
    norm_backward_row_fast<T, G>(a, draws, stage, row, last, lane, dw);
  __syncthreads(); /* what follows lies where rows were */
#pragma unroll
  for (int k = 0; k < G; k++)
#pragma unroll
    for (int j = 0; j < 8; j++)
      cache[warp * G * 256 + slot_of(lane + 32 * k, j)] = dw[k][j];
  __syncthreads();
  for (int c = (int)threadIdx.x; c < a.width; c += NORM_WARPS * 32) {
    float sum = 0;
    for (int i = 0; i < NORM_WARPS; i++)
      sum += cache[i * G * 256 + slot_of(c / 8, c % 8)];
    a.part[p * a.width + c] = sum;
  }
}

static lk_status norm_backward_fast(lk_context *context, const lk_call *call,
                                    const norm_backward_args &a, int groups) {
  int64_t bytes = (int64_t)NORM_WARPS * groups * 3 * 32 * 16;
#define LAUNCH(T, G)                                                        \
  do {                                                                      \
    LK_TRY(cuda_shared(context, call,                                       \
                       (const void *)k_norm_backward_fast<T, G>, bytes));   \
    k_norm_backward_fast<T, G><<<(unsigned)a.parts, NORM_WARPS * 32,        \
                                 (size_t)bytes, cuda_stream(context)>>>(a); \
  } while (0)
  NORM_FAST(LAUNCH, a.x.dtype, groups);
#undef LAUNCH
  return cuda_launched(context, call);
}

lk_status cuda_rmsnorm_backward(lk_context *context, const lk_call *call) {
  norm_backward_args a = {};
  a.dy = view_of(&call->in[0]);
  a.x = view_of(&call->in[1]);
  a.w = view_of(&call->in[2]);
  a.rstd = (const float *)call->in[3].data;
  a.extra = view_of(&call->in[4]);
  a.dx = view_of(&call->out[0]);
  a.dropped = view_of(&call->out[2]);
  a.d = drops_of(&call->in[5], &call->attr, lk_tensor_count(&call->in[1]));
  a.part = (float *)call->scratch;
  a.width = lk_tensor_count(&call->in[2]);
  a.rows = lk_tensor_count(&call->in[0]) / a.width;
  a.parts = (int)lk_row_parts_of(context->profile, a.rows);
  a.whole = a.width % 8 == 0 && view_whole(a.dy) && view_whole(a.x) &&
            view_whole(a.w) && view_whole(a.extra) && view_whole(a.dx) &&
            view_whole(a.dropped);
  int groups = fast_groups(a.whole, a.x, a.w, a.width);
  int64_t slots = slots_of(a.width);
  int warps = warps_of(slots);
  int64_t bytes = warps * slots * 4;
  if (groups > 0) {
    LK_TRY(norm_backward_fast(context, call, a, groups));
  } else {
    LK_TRY(cuda_shared(context, call, (const void *)k_norm_backward, bytes));
    k_norm_backward<<<(unsigned)a.parts, (unsigned)warps * 32, (size_t)bytes,
                      cuda_stream(context)>>>(a, (int)slots);
  }
  cuda_parts_add(context, a.part, a.parts, a.width, a.width,
                 call->attr.accumulate, (float *)call->out[1].data);
  return cuda_launched(context, call);
}
