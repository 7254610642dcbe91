/* Dropped-out residual sums, RMS norms of rows and of heads, and their
 * gradients. A warp takes a row; gradients of weights gather in shared memory
 * by warp, in scratch by block, and are added in order. */
#include "device.cuh"
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

struct residual_each {
  view x, delta, h;
  drops d;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    float a[8], b[8];
    view_load(x, i, n, whole, a);
    view_load(delta, i, n, whole, b);
    drops_apply(d, i, b);
    for (int j = 0; j < 8; j++) a[j] += b[j];
    view_store(h, i, n, whole, a);
  }
};

lk_status cuda_residual(lk_context *context, const lk_call *call) {
  int64_t count = lk_tensor_count(&call->in[0]);
  residual_each f = {view_of(&call->in[0]), view_of(&call->in[1]),
                     view_of(&call->out[0]),
                     drops_of(&call->in[2], &call->attr, count)};
  bool whole = view_whole(f.x) && view_whole(f.delta) && view_whole(f.h);
  return cuda_each(context, call, count, whole, f);
}

/* --- rmsnorm and residual_norm -------------------------------------------- */

typedef struct norm_args {
  view x, delta, w, h, y; /* delta, h: absent without a residual */
  float *rstd;
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
  drops_apply(a.d, at, b);
#pragma unroll
  for (int j = 0; j < 8; j++) v[j] = view_round(a.h, v[j] + b[j]);
  view_store(a.h, at, n, whole, v);
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

static lk_status norm_run(lk_context *context, const lk_call *call,
                          norm_args a) {
  int64_t slots = slots_of(a.width);
  int warps = warps_of(slots);
  a.rows = lk_tensor_count(&call->in[0]) / a.width;
  a.eps = (float)call->attr.eps;
  a.whole = a.width % 8 == 0 && view_whole(a.x) && view_whole(a.delta) &&
            view_whole(a.w) && view_whole(a.h) && view_whole(a.y);
  int64_t bytes = warps * slots * 4;
  LK_TRY(cuda_shared(context, call, (const void *)k_norm, bytes));
  k_norm<<<(unsigned)cuda_pieces(a.rows, warps), (unsigned)warps * 32,
           (size_t)bytes, cuda_stream(context)>>>(a, (int)slots);
  return cuda_launched(context, call);
}

lk_status cuda_rmsnorm(lk_context *context, const lk_call *call) {
  norm_args a = {};
  a.x = view_of(&call->in[0]);
  a.w = view_of(&call->in[1]);
  a.y = view_of(&call->out[0]);
  a.rstd = (float *)call->out[1].data;
  a.width = cuda_columns(&call->in[0]);
  return norm_run(context, call, a);
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
  return norm_run(context, call, a);
}

/* --- gradient --------------------------------------------------------------- */

typedef struct norm_backward_args {
  view dy, x, w, extra, dx;
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
    }
    view_store(a.dx, at, n, a.whole, x);
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

lk_status cuda_rmsnorm_backward(lk_context *context, const lk_call *call) {
  norm_backward_args a = {};
  a.dy = view_of(&call->in[0]);
  a.x = view_of(&call->in[1]);
  a.w = view_of(&call->in[2]);
  a.rstd = (const float *)call->in[3].data;
  a.extra = view_of(&call->in[4]);
  a.dx = view_of(&call->out[0]);
  a.part = (float *)call->scratch;
  a.width = lk_tensor_count(&call->in[2]);
  a.rows = lk_tensor_count(&call->in[0]) / a.width;
  a.parts = (int)lk_row_parts_of(context->profile, a.rows);
  a.whole = a.width % 8 == 0 && view_whole(a.dy) && view_whole(a.x) &&
            view_whole(a.w) && view_whole(a.extra) && view_whole(a.dx);
  int64_t slots = slots_of(a.width);
  int warps = warps_of(slots);
  int64_t bytes = warps * slots * 4;
  LK_TRY(cuda_shared(context, call, (const void *)k_norm_backward, bytes));
  k_norm_backward<<<(unsigned)a.parts, (unsigned)warps * 32, (size_t)bytes,
                    cuda_stream(context)>>>(a, (int)slots);
  cuda_parts_add(context, a.part, a.parts, a.width, a.width,
                 call->attr.accumulate, (float *)call->out[1].data);
  return cuda_launched(context, call);
}

/* --- norms of the q and k heads of a qkv row -------------------------------- */

enum { HEAD_MOST = 256, HEAD_TURNS = HEAD_MOST / 32 };

typedef struct head_args {
  view x, wq, wk, dy, y; /* y: dx in the gradient */
  float *rstd, *part;
  int64_t rows;
  int heads, kv_heads, width, parts;
  float eps;
} head_args;

/* The warp's head of a row; v heads are copied. */
static __global__ void __launch_bounds__(CUDA_THREADS) k_head_norm(
    head_args a) {
  int normed = a.heads + a.kv_heads, all = normed + a.kv_heads;
  int64_t unit = (int64_t)blockIdx.x * (CUDA_THREADS / 32) + threadIdx.x / 32;
  int64_t row = unit / all, at = unit * a.width;
  int h = (int)(unit % all), lane = (int)threadIdx.x % 32;
  if (row >= a.rows) return;
  float sum = 0, rstd = 1;
  for (int d = lane; d < a.width; d += 32) {
    float v = view_get(a.x, at + d);
    sum += v * v;
  }
  if (h < normed)
    rstd = 1.0f / sqrtf(warp_sum(sum) / (float)a.width + a.eps);
  if (h < normed && lane == 0) a.rstd[row * normed + h] = rstd;
  for (int d = lane; d < a.width; d += 32) {
    float v = view_get(a.x, at + d);
    if (h < normed) v = v * rstd * view_get(h < a.heads ? a.wq : a.wk, d);
    view_set(a.y, at + d, v);
  }
}

static lk_status head_open(lk_context *context, const lk_call *call, int x,
                           head_args *a) {
  *a = head_args{};
  a->x = view_of(&call->in[x]);
  a->wq = view_of(&call->in[x + 1]);
  a->wk = view_of(&call->in[x + 2]);
  a->y = view_of(&call->out[0]);
  a->heads = (int)call->attr.heads;
  a->kv_heads = (int)call->attr.kv_heads;
  a->width = (int)call->attr.width;
  a->eps = (float)call->attr.eps;
  a->rows = lk_tensor_count(&call->in[x]) /
            ((int64_t)(a->heads + 2 * a->kv_heads) * a->width);
  if (a->width <= HEAD_MOST) return LK_OK;
  return lk_fail(&context->error, LK_UNSUPPORTED,
                 "%s: heads are %d wide, the cuda backend takes up to %d",
                 lk_op_info_of(call->op)->name, a->width, HEAD_MOST);
}

lk_status cuda_head_norm(lk_context *context, const lk_call *call) {
  head_args a;
  LK_TRY(head_open(context, call, 0, &a));
  a.rstd = (float *)call->out[1].data;
  int64_t units = a.rows * (a.heads + 2 * a.kv_heads);
  k_head_norm<<<(unsigned)cuda_pieces(units, CUDA_THREADS / 32), CUDA_THREADS,
                0, cuda_stream(context)>>>(a);
  return cuda_launched(context, call);
}

/* One head: dx, and its share of dw into the lanes' sums. */
static __device__ __forceinline__ void head_backward(const head_args &a,
                                                     int64_t at, view w,
                                                     float rstd,
                                                     float dw[HEAD_TURNS]) {
  int lane = (int)threadIdx.x % 32;
  float dot = 0;
  for (int d = lane; d < a.width; d += 32)
    dot += view_get(a.dy, at + d) * view_get(w, d) * view_get(a.x, at + d);
  float pull = rstd * rstd * rstd * warp_sum(dot) / (float)a.width;
#pragma unroll
  for (int t = 0; t < HEAD_TURNS; t++) {
    int d = lane + 32 * t;
    if (d >= a.width) break;
    float dy = view_get(a.dy, at + d), x = view_get(a.x, at + d);
    dw[t] += dy * (x * rstd);
    view_set(a.y, at + d, dy * (view_get(w, d) * rstd) - x * pull);
  }
}

static __global__ void __launch_bounds__(CUDA_THREADS) k_head_norm_backward(
    head_args a) {
  __shared__ float sums[CUDA_THREADS / 32][2][HEAD_MOST];
  int normed = a.heads + a.kv_heads, all = normed + a.kv_heads;
  int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
  int64_t p = blockIdx.x, last = (p + 1) * a.rows / a.parts;
  float dwq[HEAD_TURNS] = {0}, dwk[HEAD_TURNS] = {0};
  for (int64_t r = p * a.rows / a.parts + warp; r < last;
       r += CUDA_THREADS / 32)
    for (int h = 0; h < all; h++) {
      int64_t at = (r * all + h) * a.width;
      if (h < a.heads)
        head_backward(a, at, a.wq, a.rstd[r * normed + h], dwq);
      else if (h < normed)
        head_backward(a, at, a.wk, a.rstd[r * normed + h], dwk);
      else
        for (int d = lane; d < a.width; d += 32)
          view_set(a.y, at + d, view_get(a.dy, at + d));
    }
#pragma unroll
  for (int t = 0; t < HEAD_TURNS; t++) {
    sums[warp][0][lane + 32 * t] = dwq[t];
    sums[warp][1][lane + 32 * t] = dwk[t];
  }
  __syncthreads();
  for (int i = (int)threadIdx.x; i < 2 * a.width; i += CUDA_THREADS) {
    float sum = 0;
    for (int k = 0; k < CUDA_THREADS / 32; k++)
      sum += sums[k][i / a.width][i % a.width];
    a.part[p * 2 * a.width + i] = sum;
  }
}

lk_status cuda_head_norm_backward(lk_context *context, const lk_call *call) {
  head_args a;
  LK_TRY(head_open(context, call, 1, &a));
  a.dy = view_of(&call->in[0]);
  a.rstd = (float *)call->in[4].data;
  a.part = (float *)call->scratch;
  a.parts = (int)lk_row_parts_of(context->profile, a.rows);
  k_head_norm_backward<<<(unsigned)a.parts, CUDA_THREADS, 0,
                         cuda_stream(context)>>>(a);
  for (int i = 0; i < 2; i++)
    cuda_parts_add(context, a.part + i * a.width, a.parts, 2 * a.width,
                   a.width, call->attr.accumulate,
                   (float *)call->out[1 + i].data);
  return cuda_launched(context, call);
}
