/* Attention backward on tensor cores (Dao et al. 2022, 2023): a block owns a
 * tile of keys of one query head and walks the query tiles that see it. Scores
 * are computed transposed, keys by queries, so that probabilities and their
 * gradients go from one product's result straight into the next one's operand;
 * only dq needs them turned.
 *
 * dq of a query tile is a sum over key tiles, made by several blocks in turn,
 * from the diagonal down; dk and dv are sums over the query heads that share
 * them, likewise in turn. */
#include "attention_queries.cuh"

/* c (16·M keys by 32 queries) = x yᵀ: x the warp's rows of a key tile, y 32
 * rows of a query tile. */
template <typename T, int D>
__device__ __forceinline__ void backward_scores(uint32_t x, uint32_t y,
                                                float c[][4][4]) {
  constexpr int M = backward_shape<D>::M;
#pragma unroll
  for (int i = 0; i < M * 16; i++) c[i / 16][i / 4 % 4][i % 4] = 0;
#pragma unroll
  for (int d = 0; d < D / 16; d++) {
    uint32_t a[M][4];
#pragma unroll
    for (int m = 0; m < M; m++)
      ldmatrix4(a[m], fragment_at<D>(x, m * 16, d * 16));
#pragma unroll
    for (int n = 0; n < 2; n++) {
      uint32_t b[4];
      ldmatrix4(b, fragment_at<D>(y, n * 16, d * 16));
#pragma unroll
      for (int m = 0; m < M; m++) {
        mma<T>(c[m][2 * n], a[m], b[0], b[1]);
        mma<T>(c[m][2 * n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

/* acc += p y: p 16·M keys by 32 queries, packed; y 32 rows of a query tile. */
template <typename T, int D>
__device__ __forceinline__ void backward_gather(const uint32_t p[][4][2],
                                                uint32_t y,
                                                float acc[][D / 8][4]) {
  constexpr int M = backward_shape<D>::M;
#pragma unroll
  for (int k = 0; k < 2; k++)
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      uint32_t b[4];
      ldmatrix4_t(b, fragment_at<D>(y, k * 16, n * 16));
#pragma unroll
      for (int m = 0; m < M; m++) {
        const uint32_t a[4] = {p[m][2 * k][0], p[m][2 * k][1],
                               p[m][2 * k + 1][0], p[m][2 * k + 1][1]};
        mma<T>(acc[m][2 * n], a, b[0], b[1]);
        mma<T>(acc[m][2 * n + 1], a, b[2], b[3]);
      }
    }
}

/* Which of the warp's keys the lane's own query `row` keeps: bit n + 16e is key
 * 2n + e (of 32; with 16 keys, n counts from 8). */
template <int M>
__device__ __forceinline__ uint32_t backward_kept(const attention_draws &d,
                                                  int seq8, int row,
                                                  int key) {
  uint32_t kept = 0, w[2 * M][4];
  uint64_t block[2 * M];
#pragma unroll
  for (int i = 0; i < 2 * M; i++)
    block[i] = d.block + (uint64_t)row * (uint64_t)seq8 +
               (uint64_t)(key / 8 + i);
  draws_make<2 * M>(d.seed, d.stream, d.step, block, w);
#pragma unroll
  for (int i = 0; i < 8 * M; i++)
    kept = kept >> 1 |
           (draws_keep(d.threshold, w[i / 4][i % 4]) & 0x80008000u);
  return kept;
}

/* The same, of what the forward left: `tiles` is the stage's copy of it, `row`
 * the query within the tile, `key` the warp's first within the block. */
template <int D>
__device__ __forceinline__ uint32_t backward_found(const char *tiles, int row,
                                                   int key) {
  using shape = backward_shape<D>;
  const uint4 w = *(const uint4 *)(tiles + key / 64 * shape::KEPT +
                                   row / 16 * 128 + row % 8 * 16);
  const int part = (row / 8 % 2 + key / 32 % 2 * 2) * 4;
  uint32_t kept = (w.x >> part & 0xF000Fu) | (w.y >> part & 0xF000Fu) << 4 |
                  (w.z >> part & 0xF000Fu) << 8 |
                  (w.w >> part & 0xF000Fu) << 12;
  return shape::M == 2 || key % 32 ? kept : kept << 8;
}

/* Scores s and d_o vᵀ in dp become p (dropped out, unscaled) and ds / scale /
 * factor, packed. stats: of the 32 queries, the first of which is `row`. */
template <typename T, int M, bool DROP>
__device__ __forceinline__ void backward_softmax(
    const backward_place &at, int row, const float4 *stats, uint32_t kept,
    float s[][4][4], float dp[][4][4], uint32_t p[][4][2],
    uint32_t ds[][4][2]) {
  const int lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
  const int shift = (g >> 1) + (g & 1) * 16 + (M == 1 ? 8 : 0);
  const bool whole = row >= at.warp_key + 16 * M - 1;
#pragma unroll
  for (int n = 0; n < 4; n++) {
    const float4 stat = stats[n * 4 + c];
    const int i = row + n * 8 + c * 2;
    uint32_t bits[2];
    if (DROP)
#pragma unroll
      for (int e = 0; e < 2; e++)
        bits[e] = __shfl_sync(~0u, kept, n * 8 + c * 2 + e) >> shift;
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const int j = at.warp_key + m * 16 + r * 8 + g;
        float y[2], dy[2];
#pragma unroll
        for (int e = 0; e < 2; e++) {
          float lse = e ? stat.z : stat.x, delta = e ? stat.w : stat.y;
          float x = exp2_fast(fmaf(s[m][n][2 * r + e], at.unit, -lse));
          float d = dp[m][n][2 * r + e];
          if (!whole && j > i + e) x = 0;
          y[e] = !DROP || bits[e] & 1u << (m * 8 + r * 4) ? x : 0;
          dy[e] = DROP ? fmaf(y[e], d, -x * delta) : x * (d - delta);
        }
        p[m][n][r] = pack2<T>(y[0], y[1]);
        ds[m][n][r] = pack2<T>(dy[0], dy[1]);
      }
  }
}

/* The warp's keys by 32 queries from column `column` of the ds tile. */
template <int D>
__device__ __forceinline__ void backward_put(char *tile, int warp, int column,
                                             const uint32_t ds[][4][2]) {
  using shape = backward_shape<D>;
  const int lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
#pragma unroll
  for (int m = 0; m < shape::M; m++)
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
      for (int r = 0; r < 2; r++) {
        int row = (warp * shape::M + m) * 16 + r * 8 + g;
        *(uint32_t *)(tile + piece_at<shape::ROWS>(row, column / 8 + n) +
                      c * 4) = ds[m][n][r];
      }
}

/* One query tile: dk, dv += …, and ds into shared memory. `stage`: of the
 * tile's q, d_o and stats. */
template <typename T, int D, bool DROP>
__device__ __forceinline__ void backward_tile(const attention_args &a,
                                              const backward_place &at,
                                              const attention_draws &draws,
                                              char *shared, int stage,
                                              backward_state<D> &w) {
  using shape = backward_shape<D>;
  constexpr int M = shape::M;
  const int lane = threadIdx.x & 31;
  const uint32_t own = at.shared + at.warp * M * 16 * D * 2;
  const uint32_t q = at.shared + stage, d_o = q + shape::ROW_TILE;
#pragma unroll 1
  for (int half = 0; half < shape::ROWS; half += 32) {
    const int row = at.row + half;
    uint32_t p[M][4][2], ds[M][4][2];
    if (row + 31 < at.warp_key) { /* all behind the diagonal */
#pragma unroll
      for (int i = 0; i < M * 8; i++) ds[i / 8][i / 2 % 4][i % 2] = 0;
      backward_put<D>(shared + shape::DS, at.warp, half, ds);
      continue;
    }
    const char *stats = shared + stage + 2 * shape::ROW_TILE + half * 8;
    uint32_t kept = 0;
    if (DROP && a.kept)
      kept = backward_found<D>(shared + stage + 2 * shape::ROW_TILE +
                                   shape::ROWS * 8,
                               half + lane, at.warp_key - at.key);
    else if (DROP)
      kept = backward_kept<M>(draws, a.seq / 8, row + lane, at.warp_key);
    float s[M][4][4], dp[M][4][4];
    const uint32_t part = half * D * 2;
    backward_scores<T, D>(by_row<D>(own), by_pair<D>(q) + part, s);
    backward_scores<T, D>(by_row<D>(own) + shape::KEY_TILE,
                          by_pair<D>(d_o) + part, dp);
    backward_softmax<T, M, DROP>(at, row, (const float4 *)stats, kept, s, dp,
                                 p, ds);
    backward_gather<T, D>(p, by_row<D>(d_o) + part, w.dv);
    backward_put<D>(shared + shape::DS, at.warp, half, ds);
    backward_gather<T, D>(ds, by_row<D>(q) + part, w.dk);
  }
}

/* q, d_o, stats and (unless `kept` is NULL) what is kept of the query tile at
 * `row` and the block's keys from `key` on, into a stage of shared memory. */
template <typename T, int D>
__device__ __forceinline__ void
backward_load(const attention_args &a,
              const tile_source<T, D, backward_shape<D>::THREADS> &q,
              const tile_source<T, D, backward_shape<D>::THREADS> &d_o,
              const float2 *stats, const uint32_t *kept, int key, uint32_t to,
              int row) {
  using shape = backward_shape<D>;
  constexpr int PIECES = shape::KEPT / 16;
  const int i = row + threadIdx.x, part = threadIdx.x / PIECES;
  q.template load<shape::ROWS, false>(to, row);
  d_o.template load<shape::ROWS, false>(to + shape::ROW_TILE, row);
  if (threadIdx.x < shape::ROWS)
    copy_async8(to + 2 * shape::ROW_TILE + threadIdx.x * 8, stats + i,
                i < a.seq);
  if (kept && part < shape::KEPTS) {
    const int tile = lk_attention_kept_tile(row / 64, key / 64 + part);
    copy_async16(to + 2 * shape::ROW_TILE + shape::ROWS * 8 + threadIdx.x * 16,
                 (const char *)(kept + tile * LK_ATTENTION_KEPT_TILE) +
                     row % 64 / 16 * 128 + threadIdx.x % PIECES * 16,
                 key / 64 + part <= row / 64);
  }
  copy_commit();
}

/* Sum of the block's dk and dv and those of the group's heads before it. True
 * in the last block of the group, which has it all; the others leave theirs. */
template <int D>
__device__ __forceinline__ bool backward_group(const attention_args &a,
                                               const backward_place &at,
                                               int blocks,
                                               backward_state<D> &w) {
  using shape = backward_shape<D>;
  constexpr int N = shape::M * D / 8, THREADS = shape::THREADS;
  const int group = a.heads / a.kv_heads, turn = at.h % group;
  const int64_t tile = ((int64_t)at.b * a.kv_heads + at.kv) * blocks +
                       at.block;
  uint32_t *turns = a.dkv_turns + tile;
  float *dk = a.dkv + tile * (2 * shape::KEYS * D);
  float *dv = dk + shape::KEYS * D;
  if (turn > 0) {
    if (threadIdx.x == 0) turn_await(turns, turn);
    __syncthreads();
    turn_take<N, THREADS>(w.dk[0], dk);
    turn_take<N, THREADS>(w.dv[0], dv);
  }
  if (turn == group - 1) return true;
  turn_leave<N, THREADS>(w.dk[0], dk);
  turn_leave<N, THREADS>(w.dv[0], dv);
  __syncthreads();
  if (threadIdx.x == 0) turn_pass(turns, turn + 1);
  return false;
}

/* dk and dv of the warp's keys; `tile` is its own part of shared memory. */
template <typename T, int D>
__device__ __forceinline__ void
backward_finish(const attention_args &a, const backward_place &at,
                backward_state<D> &w, char *tile) {
  const float scale = a.scale * a.factor;
#pragma unroll
  for (int m = 0; m < backward_shape<D>::M; m++) {
    const int first = at.warp_key + m * 16;
    if (a.table) {
      float4 upper[D / 16], lower[D / 16];
      backward_angles<D>(a, first, 0, upper);
      backward_angles<D>(a, first, 1, lower);
      backward_turn<D>(a.sense, upper, lower, w.dk[m]);
    }
    T *out = (T *)a.dqkv + at.k + first * at.pitch;
    char *own = tile + m * 16 * D * 2;
    store_rows<T, D>(w.dk[m], scale, scale, own, out, at.pitch,
                     a.seq - first, a.width);
    store_rows<T, D>(w.dv[m], a.factor, a.factor, own,
                     out + a.kv_heads * a.width, at.pitch, a.seq - first,
                     a.width);
  }
}

/* Grid: key tiles from the last to the first, head after head. */
template <int D>
__device__ __forceinline__ backward_place
backward_open(const attention_args &a, int blocks, char *shared) {
  using shape = backward_shape<D>;
  backward_place at;
  const int bh = (int)(blockIdx.x / blocks);
  at.shared = shared_address(shared);
  at.block = blocks - 1 - (int)(blockIdx.x % blocks);
  at.b = bh / a.heads;
  at.h = bh % a.heads;
  at.kv = at.h / (a.heads / a.kv_heads);
  at.warp = (int)threadIdx.x / 32;
  at.key = at.block * shape::KEYS;
  at.warp_key = at.key + at.warp * 16 * shape::M;
  at.row = at.key;
  at.pitch = (int64_t)(a.heads + 2 * a.kv_heads) * a.width;
  at.q = (int64_t)at.b * a.seq * at.pitch + at.h * a.width;
  at.k = at.q + (a.heads - at.h + at.kv) * a.width;
  at.unit = a.scale * LOG2_E;
  return at;
}

template <typename T, int D, bool DROP>
__global__ void __launch_bounds__(backward_shape<D>::THREADS, 2)
    k_attention_backward(const attention_args a) {
  using shape = backward_shape<D>;
  using source = tile_source<T, D, shape::THREADS>;
  /* query tiles below this one have a single addend: no turns */
  constexpr int SINGLE = shape::KEYS / shape::ROWS;
  extern __shared__ __align__(256) char shared[];
  const int blocks = (a.seq + shape::KEYS - 1) / shape::KEYS;
  const int tiles = (a.seq + shape::ROWS - 1) / shape::ROWS;
  backward_place at = backward_open<D>(a, blocks, shared);
  const int64_t bh = (int64_t)at.b * a.heads + at.h;
  const int64_t first_sum = bh * (tiles - SINGLE) - SINGLE;
  const int64_t o_pitch = (int64_t)a.heads * a.width;
  const T *k = (const T *)a.qkv + at.k;
  const T *d_o = (const T *)a.d_o + at.b * a.seq * o_pitch + at.h * a.width;
  const source qs((const T *)a.qkv + at.q, at.pitch, a), dos(d_o, o_pitch, a);
  const source ks(k, at.pitch, a), vs(k + a.kv_heads * a.width, at.pitch, a);
  const float2 *stats = a.stats + bh * a.seq;
  const uint32_t *kept = NULL;
  if (DROP && a.kept) kept = a.kept + bh * lk_attention_kept_words(a.seq);
  attention_draws draws;
  if (DROP) draws = draws_open(a, at.b, at.h);

  ks.template load<shape::KEYS, false>(at.shared, at.key);
  vs.template load<shape::KEYS, false>(at.shared + shape::KEY_TILE, at.key);
  backward_load<T, D>(a, qs, dos, stats, kept, at.key,
                      at.shared + shape::STAGES, at.key);
  backward_state<D> w;
#pragma unroll
  for (int i = 0; i < shape::M * D / 2; i++)
    w.dk[0][i / 4][i % 4] = w.dv[0][i / 4][i % 4] = 0;
  uint32_t *turns = NULL, turn = 0;
  for (int tile = at.block * SINGLE; tile < tiles; tile++) {
    const int stage = shape::STAGES + (tile & 1) * shape::STAGE;
    const int next = shape::STAGES + (~tile & 1) * shape::STAGE;
    const int before = tile / SINGLE - at.block; /* blocks that add first */
    at.row = tile * shape::ROWS;
    copy_wait();
    __syncthreads();
    if (turns && threadIdx.x == 0) turn_pass(turns, turn);
    if (tile + 1 < tiles)
      backward_load<T, D>(a, qs, dos, stats, kept, at.key, at.shared + next,
                          at.row + shape::ROWS);
    backward_tile<T, D, DROP>(a, at, draws, shared, stage, w);
    if (at.block > 0) turns = a.dq_turns + first_sum + tile;
    if (before > 0 && threadIdx.x == 0)
      turn_await(a.dq_turns + first_sum + tile, before);
    __syncthreads();
    backward_add<T, D>(a, at, before,
                       a.dq + (first_sum + tile) * (shape::ROWS * D));
    turn = before + 1;
  }
  __syncthreads();
  if (turns && threadIdx.x == 0) turn_pass(turns, turn);
  if (a.heads == a.kv_heads || backward_group<D>(a, at, blocks, w))
    backward_finish<T, D>(a, at, w,
                          shared + at.warp * shape::M * 16 * D * 2);
}

template <typename T, int D, bool DROP>
static cudaError_t launch(const attention_args *a, cudaStream_t stream) {
  using shape = backward_shape<D>;
  int64_t blocks = (a->seq + shape::KEYS - 1) / shape::KEYS;
  int64_t grid = blocks * a->batch * a->heads;
  if (grid > INT32_MAX) return cudaErrorInvalidConfiguration;
  auto kernel = k_attention_backward<T, D, DROP>;
  cudaError_t status = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape::BYTES);
  if (status != cudaSuccess) return status;
  kernel<<<(unsigned)grid, shape::THREADS, shape::BYTES, stream>>>(*a);
  return cudaGetLastError();
}

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

cudaError_t attention_backward_tiled(const attention_args *a,
                                     cudaStream_t stream) {
  if (attention_backward_hopper_fits(a)) {
    cudaError_t status = attention_backward_hopper(a, stream);
    if (status != cudaErrorNotSupported) return status;
  }
  return a->dtype == LK_BF16 ? launch_width<__nv_bfloat16>(a, stream)
                             : launch_width<__half>(a, stream);
}
