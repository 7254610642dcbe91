/* The output projection fused with cross-entropy, a chunk of rows at a time,
 * and the running metrics. */
#include "gemm.cuh"

enum { LOSS_THREADS = 512 };

typedef struct loss_args {
  view logits;            /* [rows, width]; become their gradient */
  const int32_t *targets;
  float *loss;
  int32_t *correct;
  const float *control;   /* NULL: no gradient */
  float value;
  int64_t width;
  bool whole, cached;     /* cached: a row fits in shared memory */
} loss_args;

/* Group g of the block's row, from shared memory if it is there. */
static __device__ __forceinline__ void loss_group(const loss_args &a,
                                                  const uint4 *cache,
                                                  int64_t row, int64_t g,
                                                  float v[8]) {
  int64_t c = g * 8, left = a.width - c;
  int n = left < 8 ? (int)left : 8;
  if (a.cached) {
    memcpy(v, &cache[2 * g], 16);
    memcpy(v + 4, &cache[2 * g + 1], 16);
  } else {
    view_load(a.logits, row * a.width + c, n, a.whole, v);
  }
}

/* The row's largest value; fills the cache. Threads own groups threadIdx.x,
 * + LOSS_THREADS, …: each reads only what it wrote. */
static __device__ float loss_most(const loss_args &a, uint4 *cache,
                                  int64_t row, float *room) {
  int64_t groups = (a.width + 7) / 8;
  const uint4 *from = (const uint4 *)view_from(a.logits, row * a.width).data;
  float most = -INFINITY, v[8];
#pragma unroll 4
  for (int64_t g = threadIdx.x; g < groups; g += LOSS_THREADS) {
    if (a.cached)
      for (int w = 0; w < 2; w++) cache[2 * g + w] = from[2 * g + w];
    loss_group(a, cache, row, g, v);
#pragma unroll
    for (int j = 0; j < 8; j++)
      if (g * 8 + j < a.width) most = fmaxf(most, v[j]);
  }
  return block_max(most, room);
}

static __device__ __forceinline__ float loss_exp(bool exact, float x) {
  return exact ? lk_expf_negative(x) : __expf(x);
}

/* Loss and hit of one row; its logits become their gradient. Padding has none;
 * a target outside the vocabulary gives NaN. */
static __global__ void __launch_bounds__(LOSS_THREADS, 2)
    k_loss(loss_args a) {
  extern __shared__ uint4 cache[];
  __shared__ float room[33];
  int64_t row = blockIdx.x, groups = (a.width + 7) / 8;
  int32_t target = a.targets[row];
  bool exact = a.logits.dtype == LK_F32;
  float v[8], sum = 0, goal = NAN;
  if (target >= 0 && target < a.width)
    goal = view_get(a.logits, row * a.width + target);
  float most = loss_most(a, cache, row, room);
  int earlier = 0;
#pragma unroll 2
  for (int64_t g = threadIdx.x; g < groups; g += LOSS_THREADS) {
    loss_group(a, cache, row, g, v);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      if (g * 8 + j >= a.width) break;
      sum += loss_exp(exact, v[j] - most);
      earlier |= v[j] == most && g * 8 + j < target;
    }
  }
  sum = block_sum(sum, room);
  earlier = __syncthreads_or(earlier);
  if (threadIdx.x == 0) {
    a.loss[row] = target < 0 ? 0.0f : lk_logf(sum) + (most - goal);
    a.correct[row] = target >= 0 && goal == most && !earlier;
  }
  if (a.control == NULL) return;
  float factor = a.control[LK_CONTROL_LOSS_SCALE] * a.value;
  float scale = target < 0 ? 0.0f : factor / sum;
#pragma unroll 2
  for (int64_t g = threadIdx.x; g < groups; g += LOSS_THREADS) {
    int n = a.width - g * 8 < 8 ? (int)(a.width - g * 8) : 8;
    loss_group(a, cache, row, g, v);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      v[j] = loss_exp(exact, v[j] - most) * scale;
      if (g * 8 + j == target) v[j] -= factor;
    }
    view_store(a.logits, row * a.width + g * 8, n, a.whole, v);
  }
}

/* --- the same for rows of a 16-bit type that fit in shared memory --------- */

/* The larger of two pairs. */
template <int T>
static __device__ __forceinline__ uint32_t pair_max(uint32_t a, uint32_t b) {
  uint32_t most;
  if (T == LK_BF16) {
    __nv_bfloat162 x, y;
    memcpy(&x, &a, 4), memcpy(&y, &b, 4);
    x = __hmax2(x, y);
    memcpy(&most, &x, 4);
  } else {
    __half2 x, y;
    memcpy(&x, &a, 4), memcpy(&y, &b, 4);
    x = __hmax2(x, y);
    memcpy(&most, &x, 4);
  }
  return most;
}

/* 2^x by the hardware. */
static __device__ __forceinline__ float loss_power(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* e^(v − most) of eight logits; most2 = most · log2 e. */
template <int T>
static __device__ __forceinline__ void loss_powers(uint4 word, float most2,
                                                   float v[8]) {
  unpack8(T, word, v);
#pragma unroll
  for (int j = 0; j < 8; j++)
    v[j] = loss_power(fmaf(v[j], 1.44269504f, -most2));
}

/* Whether a place before `target` has the value `most`. */
template <int T>
static __device__ int loss_earlier(const uint4 *cache, int target,
                                   float most) {
  int earlier = 0;
  float v[8];
  for (int g = (int)threadIdx.x; g * 8 < target; g += LOSS_THREADS) {
    unpack8(T, cache[g], v);
#pragma unroll
    for (int j = 0; j < 8; j++)
      earlier |= v[j] == most && g * 8 + j < target;
  }
  return __syncthreads_or(earlier);
}

/* The row into the cache; its largest value. */
template <int T>
static __device__ float loss_take(const uint4 *line, uint4 *cache, int groups,
                                  float *room) {
  uint32_t most = T == LK_BF16 ? 0xFF80FF80u : 0xFC00FC00u; /* −∞ twice */
  float v[2];
#pragma unroll 6
  for (int g = (int)threadIdx.x; g < groups; g += LOSS_THREADS) {
    uint4 w = line[g];
    cache[g] = w;
    most = pair_max<T>(most, pair_max<T>(pair_max<T>(w.x, w.y),
                                         pair_max<T>(w.z, w.w)));
  }
  unpack2(T, most, v);
  return block_max(fmaxf(v[0], v[1]), room);
}

/* In bf16 the powers take the logits' place in the cache: rounded as the
 * gradient will be. f16 has too little range for that. */
template <int T>
static __global__ void __launch_bounds__(LOSS_THREADS, 2)
    k_loss_fast(loss_args a) {
  extern __shared__ uint4 cache[];
  __shared__ float room[33];
  int groups = (int)a.width / 8, target = a.targets[blockIdx.x];
  view mine = view_from(a.logits, blockIdx.x * a.width);
  uint4 *line = (uint4 *)mine.data;
  float goal = target >= 0 && target < a.width ? view_get(mine, target) : NAN;
  float most = loss_take<T>(line, cache, groups, room), sum = 0, v[8];
  float most2 = most * 1.44269504f;
  int first = goal == most && !loss_earlier<T>(cache, target, most);
  for (int g = (int)threadIdx.x; g < groups; g += LOSS_THREADS) {
    loss_powers<T>(cache[g], most2, v);
    sum += ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
    if (T == LK_BF16) cache[g] = pack8(T, v);
  }
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) {
    a.loss[blockIdx.x] = target < 0 ? 0.0f : lk_logf(sum) + (most - goal);
    a.correct[blockIdx.x] = first;
  }
  if (a.control == NULL) return;
  float factor = a.control[LK_CONTROL_LOSS_SCALE] * a.value;
  float scale = target < 0 ? 0.0f : factor / sum;
  for (int g = (int)threadIdx.x; g < groups; g += LOSS_THREADS) {
    if (T == LK_BF16) unpack8(T, cache[g], v);
    else loss_powers<T>(cache[g], most2, v);
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] *= scale;
    if (g == target / 8)
#pragma unroll
      for (int j = 0; j < 8; j++) v[j] -= j == target % 8 ? factor : 0.0f;
    line[g] = pack8(T, v);
  }
}

/* Rows [first, first + rows) from their logits in scratch. */
static lk_status loss_rows(lk_context *context, const lk_call *call,
                           int64_t first, int64_t rows) {
  const lk_tensor *x = &call->in[0];
  loss_args a = {};
  bool train = call->op == LK_OP_head_loss_train;
  a.logits.data = call->scratch;
  a.logits.dtype = (int)x->dtype;
  a.targets = (const int32_t *)call->in[2].data + first;
  a.loss = (float *)call->out[0].data + first;
  a.correct = (int32_t *)call->out[1].data + first;
  a.control = train ? (const float *)call->in[3].data : NULL;
  a.value = (float)call->attr.value;
  a.width = call->in[1].shape.dim[0];
  a.whole = a.width % 8 == 0;
  int64_t bytes = lk_dtype_bytes(x->dtype, a.width);
  a.cached = a.whole && bytes + 1024 <= cuda_of(context)->shared_most;
  if (!a.cached) bytes = 0;
  bool fast = a.cached && x->dtype != LK_F32;
  void (*kernel)(loss_args) = !fast ? k_loss
                              : x->dtype == LK_BF16 ? k_loss_fast<LK_BF16>
                                                    : k_loss_fast<LK_F16>;
  LK_TRY(cuda_shared(context, call, (const void *)kernel, bytes));
  kernel<<<(unsigned)rows, LOSS_THREADS, (size_t)bytes,
           cuda_stream(context)>>>(a);
  return cuda_launched(context, call);
}

/* dx and (added to, but for the first chunk of a fresh one) dw. */
static lk_status loss_gradients(lk_context *context, const lk_call *call,
                                int64_t first, int64_t rows) {
  const lk_tensor *x = &call->in[0], *w = &call->in[1];
  int64_t width = x->shape.dim[1], words = w->shape.dim[0];
  int64_t offset = lk_dtype_bytes(x->dtype, first * width);
  gemm dx = gemm_dense(x->dtype, x->dtype, false, false, rows, width, words,
                       1);
  dx.a = call->scratch;
  dx.b = w->data;
  dx.d = (char *)call->out[2].data + offset;
  LK_TRY(gemm_run(context, &dx, "head_loss_train: dx"));
  gemm dw = gemm_dense(x->dtype, LK_F32, true, false, words, width, rows, 1);
  dw.a = call->scratch;
  dw.b = (const char *)x->data + offset;
  dw.c = dw.d = call->out[3].data;
  dw.beta = call->attr.accumulate || first > 0 ? 1 : 0;
  return gemm_run(context, &dw, "head_loss_train: dw");
}

static lk_status loss_run(lk_context *context, const lk_call *call) {
  const lk_tensor *x = &call->in[0], *w = &call->in[1];
  int64_t count = x->shape.dim[0], width = x->shape.dim[1];
  int64_t chunk = cuda_smaller(call->attr.chunk, count);
  for (int64_t first = 0; first < count; first += chunk) {
    int64_t rows = cuda_smaller(chunk, count - first);
    gemm g = gemm_dense(x->dtype, x->dtype, false, true, rows,
                        w->shape.dim[0], width, 1);
    g.a = (const char *)x->data + lk_dtype_bytes(x->dtype, first * width);
    g.b = w->data;
    g.d = call->scratch;
    LK_TRY(gemm_run(context, &g, "head_loss: logits"));
    LK_TRY(loss_rows(context, call, first, rows));
    if (call->op == LK_OP_head_loss_train)
      LK_TRY(loss_gradients(context, call, first, rows));
  }
  return LK_OK;
}

lk_status cuda_head_loss(lk_context *context, const lk_call *call) {
  return loss_run(context, call);
}

lk_status cuda_head_loss_train(lk_context *context, const lk_call *call) {
  return loss_run(context, call);
}

/* --- metrics ------------------------------------------------------------- */

static __global__ void __launch_bounds__(1024)
    k_metrics(const float *loss, const int32_t *correct, int64_t count,
              float *metrics) {
  __shared__ double room[33];
  double sum = 0, hits = 0;
#pragma unroll 4
  for (int64_t n = threadIdx.x; n < count; n += 1024) {
    sum += (double)loss[n];
    hits += (double)correct[n];
  }
  sum = block_sum(sum, room);
  hits = block_sum(hits, room);
  if (threadIdx.x != 0) return;
  metrics[0] = (float)((double)metrics[0] + sum);
  metrics[1] = (float)((double)metrics[1] + hits);
  metrics[2] = (float)((double)metrics[2] + (double)count);
}

lk_status cuda_metrics(lk_context *context, const lk_call *call) {
  k_metrics<<<1, 1024, 0, cuda_stream(context)>>>(
      (const float *)call->in[0].data, (const int32_t *)call->in[1].data,
      lk_tensor_count(&call->in[0]), (float *)call->out[0].data);
  return cuda_launched(context, call);
}
