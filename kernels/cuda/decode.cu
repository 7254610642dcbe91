/* Attention of new positions through a cache of keys and values: for
 * generating text. A warp takes one query head of one new position: a lane
 * makes one score of 32, then the lanes share out the columns of the values.
 *
 * Against: tensor cores. One new position reads the cache once and computes
 * little; a prompt is computed once. */
#include "device.cuh"

enum { CACHED_WARPS = 4, CACHED_THREADS = CACHED_WARPS * 32,
       CACHED_WIDTH = 1024 };

typedef struct cached_args {
  view qkv, o, cache;
  const int32_t *positions;
  int rows;                 /* new positions of a sequence */
  int heads, kv_heads, width;
  int64_t total;            /* rows of all sequences */
  int64_t most;             /* positions that the cache has room for */
  int64_t values;           /* elements before the cache's values */
  float scale;
} cached_args;

/* Elements before the place of a position among keys or values. */
__device__ int64_t cached_place(const cached_args &a, int64_t b, int kv,
                                int64_t position) {
  return ((b * a.kv_heads + kv) * a.most + position) * a.width;
}

/* Grid: an element of the keys of a row a thread. */
__global__ void k_cached_put(const cached_args a) {
  const int64_t at = (int64_t)blockIdx.x * CUDA_THREADS + threadIdx.x;
  const int64_t columns = (int64_t)a.kv_heads * a.width;
  if (at >= a.total * columns) return;
  const int64_t r = at / columns, c = at % columns;
  const int64_t from = (r * (a.heads + 2 * a.kv_heads) + a.heads) * a.width;
  const int64_t to = cached_place(a, r / a.rows, (int)(c / a.width),
                                  a.positions[r % a.rows]) + c % a.width;
  view_set(a.cache, to, view_get(a.qkv, from + c));
  view_set(a.cache, a.values + to, view_get(a.qkv, from + columns + c));
}

/* o[width] += Σ over the warp's lanes l < n: p_l · rows[l] */
__device__ void cached_gather(const cached_args &a, float *o, float p,
                              int64_t rows, int n) {
  const int lane = threadIdx.x & 31;
  for (int d = lane; d - lane < a.width; d += 32) {
    float sum = 0;
    for (int l = 0; l < n; l++) {
      float pl = __shfl_sync(~0u, p, l);
      if (d < a.width)
        sum = fmaf(pl, view_get(a.cache, rows + l * a.width + d), sum);
    }
    if (d < a.width) o[d] += sum;
  }
}

/* Grid: a query head of a row a warp. */
__global__ void k_cached_attend(const cached_args a) {
  extern __shared__ float floats[];
  const int lane = threadIdx.x & 31;
  float *q = floats + threadIdx.x / 32 * 2 * a.width, *o = q + a.width;
  const int64_t at = (int64_t)blockIdx.x * CACHED_WARPS + threadIdx.x / 32;
  if (at >= a.total * a.heads) return;
  const int64_t r = at / a.heads;
  const int h = (int)(at % a.heads), kv = h / (a.heads / a.kv_heads);
  const int64_t row = r * (a.heads + 2 * a.kv_heads) + h;
  for (int d = lane; d < a.width; d += 32) {
    q[d] = view_get(a.qkv, row * a.width + d);
    o[d] = 0;
  }
  __syncwarp();
  const int seen = a.positions[r % a.rows] + 1;
  const int64_t start = cached_place(a, r / a.rows, kv, 0);
  float most = -INFINITY, sum = 0;
  for (int j0 = 0; j0 < seen; j0 += 32) {
    const int n = min(32, seen - j0);
    const int64_t key = start + (int64_t)(j0 + lane) * a.width;
    float s = -INFINITY;
    if (lane < n) {
      s = 0;
      for (int d = 0; d < a.width; d++)
        s = fmaf(q[d], view_get(a.cache, key + d), s);
      s *= a.scale;
    }
    float top = fmaxf(most, warp_max(s)), shrink = expf(most - top);
    float p = lane < n ? expf(s - top) : 0.0f;
    sum = sum * shrink + warp_sum(p);
    most = top;
    for (int d = lane; d < a.width; d += 32) o[d] *= shrink;
    cached_gather(a, o, p, a.values + start + (int64_t)j0 * a.width, n);
  }
  for (int d = lane; d < a.width; d += 32)
    view_set(a.o, at * a.width + d, o[d] / sum);
}

lk_status cuda_attention_cached(lk_context *context, const lk_call *call) {
  const lk_attr *t = &call->attr;
  cached_args a = {view_of(&call->in[0]), view_of(&call->out[0]),
                   view_of(&call->out[1]),
                   (const int32_t *)call->in[1].data,
                   (int)call->in[1].shape.dim[0], (int)t->heads,
                   (int)t->kv_heads, (int)t->width,
                   call->in[0].shape.dim[0], call->out[1].shape.dim[3],
                   lk_tensor_count(&call->out[1]) / 2, (float)t->scale};
  int64_t put = cuda_pieces(a.total * t->kv_heads * t->width, CUDA_THREADS);
  int64_t attend = cuda_pieces(a.total * t->heads, CACHED_WARPS);
  if (t->width > CACHED_WIDTH || put > INT32_MAX || attend > INT32_MAX)
    return lk_fail(&context->error, LK_UNSUPPORTED,
                   "attention_cached: width %lld of %lld rows is too large for "
                   "a device (width at most %d)", (long long)t->width,
                   (long long)a.total, CACHED_WIDTH);
  cudaStream_t stream = cuda_stream(context);
  size_t shared = CACHED_WARPS * 2 * (size_t)t->width * sizeof(float);
  k_cached_put<<<(unsigned)put, CUDA_THREADS, 0, stream>>>(a);
  k_cached_attend<<<(unsigned)attend, CACHED_THREADS, shared, stream>>>(a);
  return cuda_launched(context, call);
}
