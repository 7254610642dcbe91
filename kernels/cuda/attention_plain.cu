/* Attention without tensor cores: any dtype, width, scale and length, a warp a
 * row; correct, not fast. And the statistics that both backwards start from.
 *
 * A warp takes 32 keys (or queries) at a time: first a lane makes one score,
 * then the lanes share out the columns of what the scores weigh. */
#include "attention.cuh"
#include "device.cuh"

enum { PLAIN_WARPS = 4, PLAIN_THREADS = PLAIN_WARPS * 32 };

__device__ __forceinline__ float value_of(float x) { return x; }
__device__ __forceinline__ float value_of(__half x) { return __half2float(x); }
__device__ __forceinline__ float value_of(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
__device__ __forceinline__ void put(float *y, float x) { *y = x; }
__device__ __forceinline__ void put(__half *y, float x) {
  *y = __float2half_rn(x);
}
__device__ __forceinline__ void put(__nv_bfloat16 *y, float x) {
  *y = __float2bfloat16_rn(x);
}

/* Σ x[d] · y[d], x in shared memory. */
template <typename T>
__device__ float dot(const float *x, const T *y, int width) {
  float sum = 0;
  for (int d = 0; d < width; d++) sum = fmaf(x[d], value_of(y[d]), sum);
  return sum;
}

template <typename T>
__device__ void widen(float *y, const T *x, int width) {
  for (int d = threadIdx.x & 31; d < width; d += 32) y[d] = value_of(x[d]);
}

/* What the element (i, j) of head (b, h) is multiplied with. */
__device__ float plain_keep(const attention_args &a, int b, int h, int i,
                            int j) {
  if (a.threshold == 0) return 1.0f;
  const uint32_t *c = a.clock;
  uint64_t seed = clock_seed(c), seq = (uint64_t)a.seq;
  uint64_t sequence = (uint64_t)c[LK_CLOCK_MICRO] * (uint64_t)a.batch +
                      (uint64_t)b;
  uint64_t row = (sequence * (uint64_t)a.heads + (uint64_t)h) * seq +
                 (uint64_t)i;
  uint32_t draw = lk_rng_draw16(seed, row * seq + (uint64_t)j, a.stream,
                                c[LK_CLOCK_STEP]);
  return draw < a.threshold ? 0.0f : a.factor;
}

/* One word of what is kept, layout of core/attention.h. */
__global__ void __launch_bounds__(PLAIN_THREADS)
    k_attention_kept(const attention_args a, int64_t words, int64_t count) {
  int64_t at = (int64_t)blockIdx.x * PLAIN_THREADS + threadIdx.x;
  if (at >= count) return;
  int b = (int)(at / words / a.heads), h = (int)(at / words % a.heads);
  uint32_t word = 0;
  for (int bit = 0; bit < 32; bit++) {
    lk_attention_kept_place p = lk_attention_kept_at(at % words, bit);
    bool keeps = plain_keep(a, b, h, (int)p.query, (int)p.key) != 0.0f;
    word |= (uint32_t)keeps << bit;
  }
  a.kept[at] = word;
}

cudaError_t attention_kept(const attention_args *a, cudaStream_t stream) {
  int64_t words = lk_attention_kept_words(a->seq);
  int64_t count = words * a->batch * a->heads;
  int64_t grid = (count + PLAIN_THREADS - 1) / PLAIN_THREADS;
  if (grid > INT32_MAX) return cudaErrorInvalidConfiguration;
  k_attention_kept<<<(unsigned)grid, PLAIN_THREADS, 0, stream>>>(*a, words,
                                                                 count);
  return cudaGetLastError();
}

/* Pointers to one head's rows 0. */
template <typename T> struct plain_head {
  const T *q, *k, *v;
  int64_t pitch;

  __device__ plain_head(const attention_args &a, int b, int h) {
    pitch = (int64_t)(a.heads + 2 * a.kv_heads) * a.width;
    const T *row = (const T *)a.qkv + (int64_t)b * a.seq * pitch;
    q = row + h * a.width;
    k = row + (a.heads + h / (a.heads / a.kv_heads)) * a.width;
    v = k + a.kv_heads * a.width;
  }
};

/* acc[width] += Σ over the warp's lanes l < n: x_l · rows[l] */
template <typename T>
__device__ void gather(float *acc, float x, const T *rows, int64_t pitch,
                       int n, int width) {
  for (int d = threadIdx.x & 31; d - (int)(threadIdx.x & 31) < width;
       d += 32) {
    float sum = 0;
    for (int l = 0; l < n; l++) {
      float xl = __shfl_sync(~0u, x, l);
      if (d < width) sum = fmaf(xl, value_of(rows[l * pitch + d]), sum);
    }
    if (d < width) acc[d] += sum;
  }
}

template <typename T>
__global__ void k_attention_plain(const attention_args a) {
  extern __shared__ float floats[];
  const int lane = threadIdx.x & 31, width = a.width;
  float *q = floats + threadIdx.x / 32 * 2 * width, *o = q + width;
  const int64_t at = (int64_t)blockIdx.x * PLAIN_WARPS + threadIdx.x / 32;
  if (at >= (int64_t)a.batch * a.heads * a.seq) return;
  const int i = (int)(at % a.seq), h = (int)(at / a.seq % a.heads);
  const int b = (int)(at / a.seq / a.heads);
  const plain_head<T> head(a, b, h);
  widen(q, head.q + i * head.pitch, width);
  for (int d = lane; d < width; d += 32) o[d] = 0;
  __syncwarp();
  float most = -INFINITY, sum = 0;
  for (int j0 = 0; j0 <= i; j0 += 32) {
    const int n = min(32, i + 1 - j0), j = j0 + lane;
    float s = -INFINITY;
    if (lane < n) s = a.scale * dot(q, head.k + j * head.pitch, width);
    float top = fmaxf(most, warp_max(s)), shrink = expf(most - top);
    float p = lane < n ? expf(s - top) : 0.0f;
    sum = sum * shrink + warp_sum(p);
    most = top;
    if (lane < n) p *= plain_keep(a, b, h, i, j);
    for (int d = lane; d < width; d += 32) o[d] *= shrink;
    gather(o, p, head.v + j0 * head.pitch, head.pitch, n, width);
  }
  T *out = (T *)a.o + ((int64_t)b * a.seq + i) * a.heads * width + h * width;
  for (int d = lane; d < width; d += 32) put(out + d, o[d] / sum);
  if (lane == 0) a.lse[at] = most + logf(sum);
}

/* One score's probability (not dropped out) and what its gradient is. */
struct plain_pair {
  float kept, ds;
};

/* s = q · k, dp = d_o · v of element (i, j). */
__device__ plain_pair plain_gradient(const attention_args &a, int b, int h,
                                     int i, int j, float s, float dp) {
  const float2 stat = a.stats[((int64_t)b * a.heads + h) * a.seq + i];
  float p = expf(a.scale * s - stat.x * LN_2);
  float keep = plain_keep(a, b, h, i, j);
  return {p * keep, p * (dp * keep - stat.y * a.factor) * a.scale};
}

/* dq of one row a warp. */
template <typename T>
__global__ void k_attention_plain_dq(const attention_args a) {
  extern __shared__ float floats[];
  const int lane = threadIdx.x & 31, width = a.width;
  float *q = floats + threadIdx.x / 32 * 3 * width, *d_o = q + width;
  float *dq = d_o + width;
  const int64_t at = (int64_t)blockIdx.x * PLAIN_WARPS + threadIdx.x / 32;
  if (at >= (int64_t)a.batch * a.heads * a.seq) return;
  const int i = (int)(at % a.seq), h = (int)(at / a.seq % a.heads);
  const int b = (int)(at / a.seq / a.heads);
  const plain_head<T> head(a, b, h);
  widen(q, head.q + i * head.pitch, width);
  widen(d_o, (const T *)a.d_o + ((int64_t)b * a.seq + i) * a.heads * width +
                 h * width, width);
  for (int d = lane; d < width; d += 32) dq[d] = 0;
  __syncwarp();
  for (int j0 = 0; j0 <= i; j0 += 32) {
    const int n = min(32, i + 1 - j0);
    const int64_t j = j0 + lane;
    plain_pair x = {0, 0};
    if (lane < n)
      x = plain_gradient(a, b, h, i, (int)j,
                         dot(q, head.k + j * head.pitch, width),
                         dot(d_o, head.v + j * head.pitch, width));
    gather(dq, x.ds, head.k + j0 * head.pitch, head.pitch, n, width);
  }
  T *out = (T *)a.dqkv + (head.q - (const T *)a.qkv) + i * head.pitch;
  for (int d = lane; d < width; d += 32) put(out + d, dq[d]);
}

/* dk and dv of one key of one key/value head a warp. */
template <typename T>
__global__ void k_attention_plain_dkv(const attention_args a) {
  extern __shared__ float floats[];
  const int lane = threadIdx.x & 31, width = a.width;
  float *k = floats + threadIdx.x / 32 * 4 * width, *v = k + width;
  float *dk = v + width, *dv = dk + width;
  const int64_t at = (int64_t)blockIdx.x * PLAIN_WARPS + threadIdx.x / 32;
  if (at >= (int64_t)a.batch * a.kv_heads * a.seq) return;
  const int j = (int)(at % a.seq), kv = (int)(at / a.seq % a.kv_heads);
  const int b = (int)(at / a.seq / a.kv_heads), group = a.heads / a.kv_heads;
  const plain_head<T> own(a, b, kv * group);
  widen(k, own.k + j * own.pitch, width);
  widen(v, own.v + j * own.pitch, width);
  for (int d = lane; d < width; d += 32) dk[d] = dv[d] = 0;
  __syncwarp();
  const int64_t o_pitch = (int64_t)a.heads * width;
  for (int h = kv * group; h < (kv + 1) * group; h++) {
    const plain_head<T> head(a, b, h);
    const T *d_o = (const T *)a.d_o + (int64_t)b * a.seq * o_pitch +
                   h * width;
    for (int64_t i0 = j; i0 < a.seq; i0 += 32) {
      const int n = (int)min((int64_t)32, a.seq - i0);
      const int64_t i = i0 + lane;
      plain_pair x = {0, 0};
      if (lane < n)
        x = plain_gradient(a, b, h, (int)i, j,
                           dot(k, head.q + i * head.pitch, width),
                           dot(v, d_o + i * o_pitch, width));
      gather(dv, x.kept, d_o + i0 * o_pitch, o_pitch, n, width);
      gather(dk, x.ds, head.q + i0 * head.pitch, head.pitch, n, width);
    }
  }
  T *out = (T *)a.dqkv + (own.k - (const T *)a.qkv) + j * own.pitch;
  for (int d = lane; d < width; d += 32) {
    put(out + d, dk[d]);
    put(out + a.kv_heads * width + d, dv[d]);
  }
}

/* --- statistics ----------------------------------------------------------- */

enum { STATS_LANES = 8, STATS_ROWS = 32, STATS_THREADS = 256 };

/* Σ o · d_o over a row's elements that the lane has. */
template <typename T>
__device__ __forceinline__ float stats_dot(const T *o, const T *d_o,
                                           int width) {
  constexpr int PIECE = 16 / sizeof(T);
  const bool whole = width % PIECE == 0;
  float sum = 0;
  for (int d = threadIdx.x % STATS_LANES * PIECE; d < width;
       d += STATS_LANES * PIECE) {
    __align__(16) T x[PIECE], y[PIECE];
    if (whole) {
      *(uint4 *)x = *(const uint4 *)(o + d);
      *(uint4 *)y = *(const uint4 *)(d_o + d);
    }
#pragma unroll
    for (int i = 0; i < PIECE; i++)
      if (whole)
        sum = fmaf(value_of(x[i]), value_of(y[i]), sum);
      else if (d + i < width)
        sum = fmaf(value_of(o[d + i]), value_of(d_o[d + i]), sum);
  }
  return sum;
}

/* Grid: STATS_ROWS rows of a head a block, head after head. */
template <typename T>
__global__ void __launch_bounds__(STATS_THREADS)
    k_attention_stats(const attention_args a, unsigned blocks,
                      int64_t tiles) {
  const int64_t thread = (int64_t)blockIdx.x * STATS_THREADS + threadIdx.x;
  if (thread < tiles) a.dq_turns[thread] = 0;
  const unsigned bh = blockIdx.x / blocks;
  const unsigned b = bh / (unsigned)a.heads, h = bh % (unsigned)a.heads;
  const int t = (int)(blockIdx.x % blocks) * STATS_ROWS +
                (int)threadIdx.x / STATS_LANES;
  const bool there = bh < (unsigned)(a.batch * a.heads) && t < a.seq;
  float sum = 0;
  if (there) {
    const int64_t row = (((int64_t)b * a.seq + t) * a.heads + h) * a.width;
    sum = stats_dot((const T *)a.o + row, (const T *)a.d_o + row, a.width);
  }
#pragma unroll
  for (int i = STATS_LANES / 2; i > 0; i /= 2)
    sum += __shfl_xor_sync(~0u, sum, i);
  if (!there || threadIdx.x % STATS_LANES) return;
  const int64_t at = (int64_t)bh * a.seq + t;
  a.stats[at] = make_float2(a.lse[at] * LOG2_E, sum / a.factor);
}

template <typename T>
static cudaError_t launch_stats(const attention_args *a, int64_t tiles,
                                cudaStream_t stream) {
  int64_t blocks = (a->seq + STATS_ROWS - 1) / STATS_ROWS;
  int64_t grid = blocks * a->batch * a->heads;
  int64_t needed = (tiles + STATS_THREADS - 1) / STATS_THREADS;
  if (grid < needed) grid = needed;
  if (grid > INT32_MAX) return cudaErrorInvalidConfiguration;
  k_attention_stats<T><<<(unsigned)grid, STATS_THREADS, 0, stream>>>(
      *a, (unsigned)blocks, tiles);
  return cudaGetLastError();
}

cudaError_t attention_stats(const attention_args *a, int64_t tiles,
                            cudaStream_t stream) {
  switch (a->dtype) {
    case LK_BF16: return launch_stats<__nv_bfloat16>(a, tiles, stream);
    case LK_F16: return launch_stats<__half>(a, tiles, stream);
    default: return launch_stats<float>(a, tiles, stream);
  }
}

/* --- launches ------------------------------------------------------------- */

/* One warp for each of `rows`, with `vectors` of the width in shared memory. */
static cudaError_t launch(void (*kernel)(const attention_args), int64_t rows,
                          int vectors, const attention_args *a,
                          cudaStream_t stream) {
  int64_t grid = (rows + PLAIN_WARPS - 1) / PLAIN_WARPS;
  int bytes = PLAIN_WARPS * vectors * a->width * 4;
  if (grid > INT32_MAX) return cudaErrorInvalidConfiguration;
  cudaError_t status = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (status != cudaSuccess) return status;
  kernel<<<(unsigned)grid, PLAIN_THREADS, bytes, stream>>>(*a);
  return cudaGetLastError();
}

template <typename T>
static cudaError_t backward(const attention_args *a, cudaStream_t stream) {
  int64_t rows = (int64_t)a->batch * a->seq;
  cudaError_t status = launch(k_attention_plain_dq<T>, rows * a->heads, 3, a,
                              stream);
  if (status != cudaSuccess) return status;
  return launch(k_attention_plain_dkv<T>, rows * a->kv_heads, 4, a, stream);
}

cudaError_t attention_forward_plain(const attention_args *a,
                                    cudaStream_t stream) {
  int64_t rows = (int64_t)a->batch * a->seq * a->heads;
  switch (a->dtype) {
    case LK_BF16:
      return launch(k_attention_plain<__nv_bfloat16>, rows, 2, a, stream);
    case LK_F16: return launch(k_attention_plain<__half>, rows, 2, a, stream);
    default: return launch(k_attention_plain<float>, rows, 2, a, stream);
  }
}

cudaError_t attention_backward_plain(const attention_args *a,
                                     cudaStream_t stream) {
  switch (a->dtype) {
    case LK_BF16: return backward<__nv_bfloat16>(a, stream);
    case LK_F16: return backward<__half>(a, stream);
    default: return backward<float>(a, stream);
  }
}
