/* Attention forward on tensor cores: a block owns 64 query rows of one head and
 * walks the keys up to the diagonal in tiles of 64, with a running maximum and
 * sum (Milakov and Gimelshein 2018; Dao 2023). Products are the warps' own, or
 * where Hopper's are (GROUP) and heads are up to 64 wide, the four warps'. */
#include "attention_tile.cuh"
#include "warpgroup.cuh"

enum { ROWS = 64, KEYS = 64, WARPS = 4, THREADS = 32 * WARPS };

/* Rescaling waits until a maximum has grown by this much (powers of two). */
#define GROWTH 8.0f

/* What a warp carries along the keys, for its 16 rows: index 0 for the lane's
 * row g, 1 for row g + 8. `most` is in units of the raw scores. */
template <int D> struct forward_state {
  uint32_t q[D / 16][4];
  float o[D / 8][4];
  float most[2], sum[2];
};

/* s = q kᵀ over a tile of keys; k: the lane's address in it. */
template <typename T, int D>
__device__ __forceinline__ void forward_scores(const forward_state<D> &w,
                                               uint32_t k, float s[8][4]) {
#pragma unroll
  for (int i = 0; i < 32; i++) s[i / 4][i % 4] = 0;
#pragma unroll
  for (int d = 0; d < D / 16; d++)
#pragma unroll
    for (int n = 0; n < 4; n++) {
      uint32_t b[4];
      ldmatrix4(b, fragment_at<D>(k, n * 16, d * 16));
      mma<T>(s[2 * n], w.q[d], b[0], b[1]);
      mma<T>(s[2 * n + 1], w.q[d], b[2], b[3]);
    }
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* The same by the warpgroup; q: 64 rows. */
template <typename T>
__device__ __forceinline__ void forward_group_scores(uint32_t q, uint32_t k,
                                                     float s[8][4]) {
  group_begin();
  group_outer<T>(q, k, s);
  group_wait<0>();
  group_result(s);
}

/* forward_values by the warpgroup. */
template <typename T>
__device__ __forceinline__ void forward_group_values(float o[8][4],
                                                     uint32_t v,
                                                     const uint32_t p[8][2]) {
  group_begin();
  group_gather<T>(p, v, o);
  group_wait<0>();
  group_result(o);
}
#else
template <typename T>
__device__ void forward_group_scores(uint32_t, uint32_t, float (*)[4]) {}
template <typename T>
__device__ void forward_group_values(float (*)[4], uint32_t,
                                     const uint32_t (*)[2]) {}
__device__ inline void shared_written() {}
#endif

/* Keys behind the row become −∞; `row` is the lane's first, `key` the
 * tile's. */
__device__ __forceinline__ void forward_mask(float s[8][4], int row,
                                             int key) {
  const int c = threadIdx.x & 3;
#pragma unroll
  for (int n = 0; n < 8; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) {
      int j = key + n / 4 * 32 + c * 8 + n % 4 * 2 + (e & 1);
      if (j > row + (e >> 1) * 8) s[n][e] = -INFINITY;
    }
}

/* Raise the maxima to the tile's, if one of the warp's has grown enough, and
 * shrink what was gathered below the old ones. `unit`: scale · log2 e. */
template <int D>
__device__ __forceinline__ void forward_raise(forward_state<D> &w,
                                              const float s[8][4],
                                              float unit) {
  float top[2];
  bool grown = false;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float t = s[0][2 * r];
#pragma unroll
    for (int n = 0; n < 8; n++)
      t = fmaxf(t, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
    t = fmaxf(t, __shfl_xor_sync(~0u, t, 1));
    t = fmaxf(t, __shfl_xor_sync(~0u, t, 2));
    top[r] = fmaxf(t, w.most[r]);
    grown |= (top[r] - w.most[r]) * unit > GROWTH;
  }
  if (!__any_sync(~0u, grown)) return;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float shrink = exp2_fast((w.most[r] - top[r]) * unit);
    w.most[r] = top[r];
    w.sum[r] *= shrink;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      w.o[n][2 * r] *= shrink;
      w.o[n][2 * r + 1] *= shrink;
    }
  }
}

/* Scores to exponentials, which are added to the sums. */
template <int D>
__device__ __forceinline__ void forward_exp(forward_state<D> &w,
                                            float s[8][4], float unit) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float base = -w.most[r] * unit, sum = 0;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int e = 2 * r; e < 2 * r + 2; e++) {
        s[n][e] = exp2_fast(fmaf(s[n][e], unit, base));
        sum += s[n][e];
      }
    w.sum[r] += sum;
  }
}

/* Probabilities packed for the next product: p[n][r] is the lane's pair of
 * tile n in row g + 8r. */
template <typename T>
__device__ __forceinline__ void forward_pack(const float s[8][4],
                                             uint32_t p[8][2]) {
#pragma unroll
  for (int i = 0; i < 16; i++)
    p[i / 2][i % 2] =
        pack2<T>(s[i / 2][i % 2 * 2], s[i / 2][i % 2 * 2 + 1]);
}

/* Zero what is dropped: four tiles of a row are the keys of one counter. `row`
 * is the lane's first, `key` the tile's. Leaves the lane's word of what is
 * kept at `kept`, unless that is NULL. */
__device__ __forceinline__ void forward_drop(const attention_draws &d,
                                             int seq8, int row, int key,
                                             uint32_t p[8][2],
                                             uint32_t *kept) {
  const uint64_t first = d.block + (uint64_t)row * (uint64_t)seq8 +
                         (uint64_t)(key / 8 + (threadIdx.x & 3));
  uint64_t block[4];
  uint32_t w[4][4], word = 0;
#pragma unroll
  for (int i = 0; i < 4; i++)
    block[i] = first + (uint32_t)(i % 2 * 8 * seq8 + i / 2 * 4);
  draws_make<4>(d.seed, d.stream, d.step, block, w);
#pragma unroll
  for (int i = 0; i < 16; i++) {
    uint32_t mask = draws_spread(draws_keep(d.threshold, w[i / 4][i % 4]));
    p[i / 8 * 4 + i % 4][i / 4 % 2] &= mask;
    word |= mask & 0x10001u << i;
  }
  if (kept) *kept = word;
}

/* o += p v over a tile of keys */
template <typename T, int D>
__device__ __forceinline__ void forward_values(forward_state<D> &w,
                                               uint32_t v,
                                               const uint32_t p[8][2]) {
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const uint32_t a[4] = {p[2 * k][0], p[2 * k][1], p[2 * k + 1][0],
                           p[2 * k + 1][1]};
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t b[4];
      ldmatrix4_t(b, fragment_at<D>(v, k * 16, n * 16));
      mma<T>(w.o[2 * n], a, b[0], b[1]);
      mma<T>(w.o[2 * n + 1], a, b[2], b[3]);
    }
  }
}

/* o / sum and lse of the warp's rows, from `row` on; `tile` is its own part of
 * shared memory, `o` row 0 of the head. */
template <typename T, int D>
__device__ __forceinline__ void forward_finish(const attention_args &a,
                                               const forward_state<D> &w,
                                               char *tile, int64_t bh, T *o,
                                               int row) {
  const int lane = threadIdx.x & 31;
  const int64_t pitch = (int64_t)a.heads * a.width;
  float factor[2];
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float sum = w.sum[r];
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    factor[r] = a.factor / sum;
    int i = row + r * 8 + (lane >> 2);
    if ((lane & 3) == 0 && i < a.seq)
      a.lse[bh * a.seq + i] = w.most[r] * a.scale + logf(sum);
  }
  store_rows<T, D>(w.o, factor[0], factor[1], tile, o + row * pitch, pitch,
                   a.seq - row, a.width);
}

/* The warp's rows, from `row` on, against the tile of keys from `key` on;
 * `kept`: the lane's word of the tile, or NULL. */
template <typename T, int D, bool DROP, bool GROUP>
__device__ __forceinline__ void
forward_tile(const attention_args &a, const attention_draws &draws, uint32_t q,
             uint32_t k, uint32_t v, int row, int key, uint32_t *kept,
             forward_state<D> &w) {
  const int lane_row = row + (threadIdx.x & 31) / 4;
  const float unit = a.scale * LOG2_E;
  float s[8][4];
  uint32_t p[8][2];
  if constexpr (GROUP) forward_group_scores<T>(q, k, s);
  else forward_scores<T, D>(w, by_pair<D>(k), s);
  if (key + KEYS - 1 > row) forward_mask(s, lane_row, key);
  forward_raise<D>(w, s, unit);
  forward_exp<D>(w, s, unit);
  forward_pack<T>(s, p);
  if (DROP) forward_drop(draws, a.seq / 8, lane_row, key, p, kept);
  if constexpr (GROUP) forward_group_values<T>(w.o, v, p);
  else forward_values<T, D>(w, by_row<D>(v), p);
}

/* Grid: blocks of rows from the last to the first, head after head. */
template <typename T, int D, bool DROP, bool GROUP>
__global__ void __launch_bounds__(THREADS, D <= 64 ? 4 : 2)
    k_attention_forward(const attention_args a) {
  using source = tile_source<T, D, THREADS>;
  constexpr int TILE = KEYS * D * 2;
  extern __shared__ __align__(1024) char shared[];
  const int blocks = (a.seq + ROWS - 1) / ROWS;
  const int first = (blocks - 1 - (int)(blockIdx.x % blocks)) * ROWS;
  const int64_t bh = blockIdx.x / blocks;
  const int b = (int)(bh / a.heads), h = (int)(bh % a.heads);
  const int64_t pitch = (int64_t)(a.heads + 2 * a.kv_heads) * a.width;
  const T *rows = (const T *)a.qkv + (int64_t)b * a.seq * pitch;
  const T *k = rows + (a.heads + h / (a.heads / a.kv_heads)) * a.width;
  const source qs(rows + h * a.width, pitch, a), ks(k, pitch, a);
  const source vs(k + a.kv_heads * a.width, pitch, a);
  const uint32_t q_tile = shared_address(shared);
  const uint32_t kv_tile = q_tile + ROWS * D * 2;
  const int warp = threadIdx.x / 32, row = first + warp * 16;
  const int end = min(first + ROWS, a.seq);
  attention_draws draws;
  uint32_t *kept = NULL;
  if (DROP) draws = draws_open(a, b, h);
  if (DROP && a.kept)
    kept = a.kept + bh * lk_attention_kept_words(a.seq) +
           lk_attention_kept_tile(first / ROWS, 0) * LK_ATTENTION_KEPT_TILE +
           threadIdx.x;

  qs.template load<ROWS, false>(q_tile, first);
  ks.template load<KEYS, true>(kv_tile, 0);
  vs.template load<KEYS, true>(kv_tile + TILE, 0);
  copy_commit();
  forward_state<D> w;
  w.most[0] = w.most[1] = -INFINITY;
  w.sum[0] = w.sum[1] = 0;
#pragma unroll
  for (int i = 0; i < D / 2; i++) w.o[i / 4][i % 4] = 0;
  for (int key = 0; key < end; key += KEYS) {
    const uint32_t tile = kv_tile + (key / KEYS & 1) * 2 * TILE;
    const uint32_t next = kv_tile + (~(key / KEYS) & 1) * 2 * TILE;
    copy_wait();
    if (GROUP) shared_written();
    __syncthreads();
    if (key + KEYS < end) {
      ks.template load<KEYS, true>(next, key + KEYS);
      vs.template load<KEYS, true>(next + TILE, key + KEYS);
      copy_commit();
    }
    if (key == 0 && !GROUP)
#pragma unroll
      for (int d = 0; d < D / 16; d++)
        ldmatrix4(w.q[d],
                  fragment_at<D>(by_row<D>(q_tile), warp * 16, d * 16));
    forward_tile<T, D, DROP, GROUP>(a, draws, q_tile, tile, tile + TILE, row,
                                    key, kept, w);
    if (kept) kept += LK_ATTENTION_KEPT_TILE;
  }
  if (GROUP) __syncthreads(); /* none reads q any more */
  forward_finish<T, D>(a, w, shared + warp * 16 * D * 2, bh,
                       (T *)a.o + (int64_t)b * a.seq * a.heads * a.width +
                           h * a.width, row);
}

template <typename T, int D, bool DROP, bool GROUP>
static cudaError_t launch(const attention_args *a, cudaStream_t stream) {
  constexpr int BYTES = (ROWS + 4 * KEYS) * D * 2;
  int64_t blocks = (a->seq + ROWS - 1) / ROWS;
  int64_t grid = blocks * a->batch * a->heads;
  if (grid > INT32_MAX) return cudaErrorInvalidConfiguration;
  auto kernel = k_attention_forward<T, D, DROP, GROUP>;
  cudaError_t status = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
  if (status != cudaSuccess) return status;
  kernel<<<(unsigned)grid, THREADS, BYTES, stream>>>(*a);
  return cudaGetLastError();
}

template <typename T, int D, bool DROP>
static cudaError_t launch_group(const attention_args *a, cudaStream_t stream) {
  if (D == 64 && a->hopper) return launch<T, D, DROP, D == 64>(a, stream);
  return launch<T, D, DROP, false>(a, stream);
}

template <typename T, int D>
static cudaError_t launch_drop(const attention_args *a, cudaStream_t stream) {
  return a->threshold > 0 ? launch_group<T, D, true>(a, stream)
                          : launch_group<T, D, false>(a, stream);
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
