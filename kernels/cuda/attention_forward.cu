/* Attention forward on tensor cores: a block owns 64 or 128 query rows of one
 * head and walks the keys up to the diagonal in tiles of 64, with a running
 * maximum and sum (Milakov and Gimelshein 2018; Dao 2023). */
#include "attention_tile.cuh"

enum { KEYS = 64 };
#ifndef FORWARD_N
#define FORWARD_N 4
#endif
#ifndef FORWARD_CTAS
#define FORWARD_CTAS 3
#endif

/* Rescaling waits until a maximum has grown by this much (powers of two). */
#define GROWTH 8.0f

template <int D> struct forward_shape {
  static constexpr int M = D <= 64 ? 2 : 1; /* 16-row tiles of a warp */
  static constexpr int N = FORWARD_N; /* 8-key tiles at a time */
  static constexpr int ROWS = 16 * M * ATTENTION_WARPS;
  static constexpr int BYTES = (ROWS + 4 * KEYS) * D * 2;
};

/* What a warp carries along the keys. Row r of tile m: most[m][r], r = 0 for
 * rows g, 1 for rows g + 8; most is in units of the raw scores. */
template <int D> struct forward_state {
  static constexpr int M = forward_shape<D>::M;
  uint32_t q[M][D / 16][4];
  float o[M][D / 8][4];
  float most[M][2], sum[M][2];
};

/* s = q kᵀ over 8·N keys, from `row` of the tile on */
template <typename T, int D, int N>
__device__ __forceinline__ void forward_scores(const forward_state<D> &w,
                                               uint32_t k, int row,
                                               float s[][N][4]) {
  constexpr int M = forward_shape<D>::M;
#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) s[m][n][e] = 0;
#pragma unroll
  for (int d = 0; d < D / 16; d++)
#pragma unroll
    for (int n = 0; n < N / 2; n++) {
      uint32_t b[4];
      ldmatrix4(b, fragment_at<D>(k, row + n * 16, d * 16));
#pragma unroll
      for (int m = 0; m < M; m++) {
        mma<T>(s[m][2 * n], w.q[m][d], b[0], b[1]);
        mma<T>(s[m][2 * n + 1], w.q[m][d], b[2], b[3]);
      }
    }
}

/* Keys behind the row become −∞; `row` is the lane's first, `key` the
 * tile's. */
template <int M, int N>
__device__ __forceinline__ void forward_mask(float s[][N][4], int row,
                                             int key) {
  const int c = threadIdx.x & 3;
#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        int j = key + n / 4 * 32 + c * 8 + n % 4 * 2 + (e & 1);
        if (j > row + m * 16 + (e >> 1) * 8) s[m][n][e] = -INFINITY;
      }
}

/* Raise the maxima to the tile's, if one of the warp's has grown enough, and
 * shrink what was gathered below the old ones. `unit`: scale · log2 e. */
template <int D, int N>
__device__ __forceinline__ void forward_raise(forward_state<D> &w,
                                              float s[][N][4], float unit) {
  constexpr int M = forward_shape<D>::M;
  float top[M][2];
  bool grown = false;
#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float t = s[m][0][2 * r];
#pragma unroll
      for (int n = 0; n < N; n++)
        t = fmaxf(t, fmaxf(s[m][n][2 * r], s[m][n][2 * r + 1]));
      t = fmaxf(t, __shfl_xor_sync(~0u, t, 1));
      t = fmaxf(t, __shfl_xor_sync(~0u, t, 2));
      top[m][r] = fmaxf(t, w.most[m][r]);
      grown |= (top[m][r] - w.most[m][r]) * unit > GROWTH;
    }
  if (!__any_sync(~0u, grown)) return;
#pragma unroll
  for (int m = 0; m < M; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float shrink = exp2_fast((w.most[m][r] - top[m][r]) * unit);
      w.most[m][r] = top[m][r];
      w.sum[m][r] *= shrink;
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
        w.o[m][n][2 * r] *= shrink;
        w.o[m][n][2 * r + 1] *= shrink;
      }
    }
}

/* Scores to exponentials, which are added to the sums. */
template <int D, int N>
__device__ __forceinline__ void forward_exp(forward_state<D> &w,
                                            float s[][N][4], float unit) {
#pragma unroll
  for (int m = 0; m < forward_shape<D>::M; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float base = -w.most[m][r] * unit, sum = 0;
#pragma unroll
      for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; e++) {
          s[m][n][e] = exp2_fast(fmaf(s[m][n][e], unit, base));
          sum += s[m][n][e];
        }
      w.sum[m][r] += sum;
    }
}

/* Zero what is dropped: four tiles of a row are the keys of one counter. */
template <int M, int N>
__device__ __forceinline__ void forward_drop(float s[][N][4],
                                             attention_draws d, int seq8,
                                             int row, int key) {
  const int c = threadIdx.x & 3;
  draws_fresh(d);
#pragma unroll
  for (int half = 0; half < N / 4; half++)
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int r = 0; r < 2; r++) {
        lk_rng_word4 w = draw_row8(d, seq8, row + m * 16 + r * 8,
                                   key / 8 + half * 4 + c);
#pragma unroll
        for (int t = 0; t < 4; t++) {
          float *p = &s[m][half * 4 + t][2 * r];
          p[0] = keeps_low(d, w.w[t]) ? p[0] : 0.0f;
          p[1] = keeps_high(d, w.w[t]) ? p[1] : 0.0f;
        }
      }
}

/* o += p v over the same keys */
template <typename T, int D, int N>
__device__ __forceinline__ void forward_values(forward_state<D> &w,
                                               uint32_t v, int row,
                                               float s[][N][4]) {
  constexpr int M = forward_shape<D>::M;
#pragma unroll
  for (int k = 0; k < N / 2; k++) {
    uint32_t p[M][4];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float *x = &s[m][2 * k + i / 2][i % 2 * 2];
        p[m][i] = pack2<T>(x[0], x[1]);
      }
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t b[4];
      ldmatrix4_t(b, fragment_at<D>(v, row + k * 16, n * 16));
#pragma unroll
      for (int m = 0; m < M; m++) {
        mma<T>(w.o[m][2 * n], p[m], b[0], b[1]);
        mma<T>(w.o[m][2 * n + 1], p[m], b[2], b[3]);
      }
    }
  }
}

/* o / sum and lse of the warp's rows, `row` the first of them. */
template <typename T, int D>
__device__ __forceinline__ void forward_finish(const attention_args &a,
                                               const forward_state<D> &w,
                                               char *tile, int64_t bh, T *o,
                                               int row) {
  const int lane = threadIdx.x & 31;
  const int64_t pitch = (int64_t)a.heads * a.width;
#pragma unroll
  for (int m = 0; m < forward_shape<D>::M; m++) {
    float factor[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float sum = w.sum[m][r];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      factor[r] = a.factor / sum;
      int i = row + m * 16 + r * 8 + (lane >> 2);
      if ((lane & 3) == 0 && i < a.seq)
        a.lse[bh * a.seq + i] = w.most[m][r] * a.scale + logf(sum);
    }
    int first = row + m * 16;
    store_rows<T, D>(w.o[m], factor[0], factor[1], tile + m * 16 * D * 2,
                     o + first * pitch, pitch, a.seq - first, a.width);
  }
}

/* Grid: blocks of rows from the last to the first, head after head. */
template <typename T, int D, bool DROP>
__global__ void __launch_bounds__(ATTENTION_THREADS, D <= 64 ? FORWARD_CTAS : 2)
    k_attention_forward(const attention_args a) {
  using shape = forward_shape<D>;
  constexpr int TILE = KEYS * D * 2, N = shape::N;
  extern __shared__ __align__(256) char shared[];
  const int blocks = (a.seq + shape::ROWS - 1) / shape::ROWS;
  const int64_t bh = blockIdx.x / blocks;
  const int first = (blocks - 1 - (int)(blockIdx.x % blocks)) * shape::ROWS;
  const int b = (int)(bh / a.heads), h = (int)(bh % a.heads);
  const int64_t pitch = (int64_t)(a.heads + 2 * a.kv_heads) * a.width;
  const T *rows = (const T *)a.qkv + (int64_t)b * a.seq * pitch;
  const T *k = rows + (a.heads + h / (a.heads / a.kv_heads)) * a.width;
  const T *v = k + a.kv_heads * a.width;
  const uint32_t q_tile = shared_address(shared);
  const uint32_t kv_tile = q_tile + shape::ROWS * D * 2;
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const int row = first + warp * 16 * shape::M; /* the warp's first */
  const float unit = a.scale * LOG2_E;
  attention_draws draws;
  if (DROP) draws = draws_open(a, b, h);

  const tile_source<T, D> qs(rows + h * a.width, pitch, a);
  const tile_source<T, D> ks(k, pitch, a), vs(v, pitch, a);
  qs.template load<shape::ROWS, false>(q_tile, first);
  ks.template load<KEYS, true>(kv_tile, 0);
  vs.template load<KEYS, true>(kv_tile + TILE, 0);
  copy_commit();

  forward_state<D> w;
#pragma unroll
  for (int m = 0; m < shape::M; m++) {
    w.most[m][0] = w.most[m][1] = -INFINITY;
    w.sum[m][0] = w.sum[m][1] = 0;
#pragma unroll
    for (int i = 0; i < D / 2; i++) w.o[m][i / 4][i % 4] = 0;
  }
  const int end = min(first + shape::ROWS, a.seq);
  for (int key = 0; key < end; key += KEYS) {
    const uint32_t tile = kv_tile + (key / KEYS & 1) * 2 * TILE;
    const uint32_t next = kv_tile + (~(key / KEYS) & 1) * 2 * TILE;
    copy_wait();
    __syncthreads();
    if (key + KEYS < end) {
      ks.template load<KEYS, true>(next, key + KEYS);
      vs.template load<KEYS, true>(next + TILE, key + KEYS);
      copy_commit();
    }
    if (key == 0)
#pragma unroll
      for (int m = 0; m < shape::M; m++)
#pragma unroll
        for (int d = 0; d < D / 16; d++)
          ldmatrix4(w.q[m][d],
                    fragment_at<D>(by_row<D>(q_tile),
                                   (warp * shape::M + m) * 16, d * 16));
#pragma unroll 1
    for (int at = 0; at < KEYS; at += 8 * N) {
      const int j = key + at;
      if (j > row + 16 * shape::M - 1) break; /* all behind the diagonal */
      float s[shape::M][N][4];
      forward_scores<T, D, N>(w, by_pair<D>(tile), at, s);
      if (j + 8 * N - 1 > row)
        forward_mask<shape::M, N>(s, row + lane / 4, j);
      forward_raise<D, N>(w, s, unit);
      forward_exp<D, N>(w, s, unit);
      if (DROP)
        forward_drop<shape::M, N>(s, draws, a.seq / 8, row + lane / 4, j);
      forward_values<T, D, N>(w, by_row<D>(tile + TILE), at, s);
    }
  }
  forward_finish<T, D>(a, w, shared + warp * 16 * shape::M * D * 2, bh,
                       (T *)a.o + (int64_t)b * a.seq * a.heads * a.width +
                           h * a.width, row);
}

template <typename T, int D, bool DROP>
static cudaError_t launch(const attention_args *a, cudaStream_t stream) {
  using shape = forward_shape<D>;
  int64_t blocks = (a->seq + shape::ROWS - 1) / shape::ROWS;
  int64_t grid = blocks * a->batch * a->heads;
  if (grid > INT32_MAX) return cudaErrorInvalidConfiguration;
  auto kernel = k_attention_forward<T, D, DROP>;
  cudaError_t status = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape::BYTES);
  if (status != cudaSuccess) return status;
  kernel<<<(unsigned)grid, ATTENTION_THREADS, shape::BYTES, stream>>>(*a);
  return cudaGetLastError();
}

/* Dropout is always compiled in except where the benchmarks are: a threshold
 * of 0 keeps everything, but needs a clock. */
template <typename T, int D>
static cudaError_t launch_drop(const attention_args *a, cudaStream_t stream) {
  return a->threshold > 0 ? launch<T, D, true>(a, stream)
                          : launch<T, D, false>(a, stream);
}

template <typename T>
static cudaError_t launch_width(const attention_args *a, cudaStream_t stream) {
  switch (lk_attention_padded(a->width)) {
    case 32: return launch_drop<T, 32>(a, stream);
    case 64: return launch_drop<T, 64>(a, stream);
    default: return launch_drop<T, 128>(a, stream);
  }
}

cudaError_t attention_forward_tiled(const attention_args *a,
                                    cudaStream_t stream) {
  return a->dtype == LK_BF16 ? launch_width<__nv_bfloat16>(a, stream)
                             : launch_width<__half>(a, stream);
}
