/* Attention backward on tensor cores (Dao et al. 2022, 2023): a block owns a
 * tile of keys of one key/value head and walks the query tiles that see it,
 * head after head of the group. Scores are computed transposed, keys by
 * queries, so that probabilities and their gradients go from one product's
 * result straight into the next one's operand; only dq needs them turned.
 *
 * dq of a query tile is a sum over key tiles, made by several blocks in turn,
 * from the diagonal down: each waits until the one before has added its part.
 * A block waits only for blocks with a lower index, which started before it,
 * so the sum has one order and always ends. */
#include "attention_tile.cuh"

/* M: 16-row tiles of keys of a warp. Columns of dq are shared out among
 * WIDTHS warps, each with 32 queries and 8·DQ columns. */
template <int D> struct backward_shape {
  static constexpr int ROWS = LK_ATTENTION_QUERY_TILE(D);
  static constexpr int KEYS = LK_ATTENTION_KEY_TILE(D);
  static constexpr int M = KEYS / 16 / ATTENTION_WARPS;
  static constexpr int WIDTHS = ATTENTION_WARPS * 32 / ROWS;
  static constexpr int DQ = D / 8 / WIDTHS;
  static constexpr int KEY_TILE = KEYS * D * 2, ROW_TILE = ROWS * D * 2;
  static constexpr int DS_TILE = KEYS * ROWS * 2;
  /* k v | two stages of q d_o stats | ds */
  static constexpr int STAGE = 2 * ROW_TILE + ROWS * 8;
  static constexpr int STAGES = 2 * KEY_TILE, DS = STAGES + 2 * STAGE;
  static constexpr int BYTES = DS + DS_TILE;
};

/* Where a block stands; `shared` is the address of its memory. */
struct backward_place {
  uint32_t shared;
  int key, warp_key;        /* first key of the block, of the warp */
  int row;                  /* first query of the tile */
  float unit;               /* scale · log2 e */
};

template <int D> struct backward_state {
  static constexpr int M = backward_shape<D>::M;
  float dk[M][D / 8][4], dv[M][D / 8][4];
};

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

/* Bit k: whether the element of query `row` (the lane's own) and the warp's
 * k-th key is kept. */
template <int M>
__device__ __forceinline__ uint32_t backward_kept(attention_draws d, int seq8,
                                                  int row, int key) {
  uint32_t kept = 0;
  draws_fresh(d);
#pragma unroll
  for (int i = 0; i < 2 * M; i++) {
    lk_rng_word4 w = draw_row8(d, seq8, row, key / 8 + i);
#pragma unroll
    for (int t = 0; t < 4; t++) {
      if (keeps_low(d, w.w[t])) kept |= 1u << (i * 8 + t * 2);
      if (keeps_high(d, w.w[t])) kept |= 2u << (i * 8 + t * 2);
    }
  }
  return kept;
}

/* Scores s and d_o vᵀ in dp become p (dropped out, unscaled) and ds / scale /
 * factor, packed. stats: of the 32 queries, the first of which is `row`. */
template <typename T, int M, bool DROP>
__device__ __forceinline__ void backward_softmax(
    const backward_place &at, int row, const float4 *stats, uint32_t kept,
    float s[][4][4], float dp[][4][4], uint32_t p[][4][2],
    uint32_t ds[][4][2]) {
  const int lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
  const bool whole = row >= at.warp_key + 16 * M - 1;
#pragma unroll
  for (int n = 0; n < 4; n++) {
    const float4 stat = stats[n * 4 + c];
    const int i = row + n * 8 + c * 2;
    uint32_t bits[2];
    if (DROP)
#pragma unroll
      for (int e = 0; e < 2; e++)
        bits[e] = __shfl_sync(~0u, kept, n * 8 + c * 2 + e) >> g;
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
          bool keep = !DROP || bits[e] & 1u << (m * 16 + r * 8);
          y[e] = keep ? x : 0;
          dy[e] = x * ((keep ? d : 0) - delta);
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
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const uint32_t own = at.shared + warp * M * 16 * D * 2;
  const uint32_t q = at.shared + stage, d_o = q + shape::ROW_TILE;
#pragma unroll 1
  for (int half = 0; half < shape::ROWS; half += 32) {
    const int row = at.row + half;
    uint32_t p[M][4][2], ds[M][4][2];
    if (row + 31 < at.warp_key) { /* all behind the diagonal */
#pragma unroll
      for (int i = 0; i < M * 8; i++) ds[i / 8][i / 2 % 4][i % 2] = 0;
      backward_put<D>(shared + shape::DS, warp, half, ds);
      continue;
    }
    uint32_t kept = 0;
    if (DROP)
      kept = backward_kept<M>(draws, a.seq / 8, row + lane, at.warp_key);
    float s[M][4][4], dp[M][4][4];
    const uint32_t part = half * D * 2;
    backward_scores<T, D>(by_row<D>(own), by_pair<D>(q) + part, s);
    backward_scores<T, D>(by_row<D>(own) + shape::KEY_TILE,
                          by_pair<D>(d_o) + part, dp);
    const char *stats = shared + stage + 2 * shape::ROW_TILE + half * 8;
    backward_softmax<T, M, DROP>(at, row, (const float4 *)stats, kept, s, dp,
                                 p, ds);
    backward_gather<T, D>(p, by_row<D>(d_o) + part, w.dv);
    backward_put<D>(shared + shape::DS, warp, half, ds);
    backward_gather<T, D>(ds, by_row<D>(q) + part, w.dk);
  }
}

/* dq (the warp's 32 queries by 8·DQ columns) = dsᵀ k over the tile's `keys`
 * first keys. */
template <typename T, int D>
__device__ __forceinline__ void
backward_queries(uint32_t shared, int keys,
                 float dq[2][backward_shape<D>::DQ][4]) {
  using shape = backward_shape<D>;
  const int warp = threadIdx.x / 32;
  const int row = warp / shape::WIDTHS * 32;
  const int column = warp % shape::WIDTHS * shape::DQ * 8;
  const uint32_t ds = by_pair<shape::ROWS>(shared + shape::DS) ^ row * 2;
  const uint32_t k = by_row<D>(shared) ^ column * 2;
#pragma unroll
  for (int i = 0; i < 2 * shape::DQ * 4; i++)
    dq[i / 4 / shape::DQ][i / 4 % shape::DQ][i % 4] = 0;
#pragma unroll 2
  for (int j = 0; j < keys; j += 16) {
    uint32_t x[2][4];
#pragma unroll
    for (int m = 0; m < 2; m++)
      ldmatrix4_t(x[m], fragment_at<shape::ROWS>(ds, j, m * 16));
#pragma unroll
    for (int n = 0; n < shape::DQ / 2; n++) {
      uint32_t b[4];
      ldmatrix4_t(b, fragment_at<D>(k, j, n * 16));
#pragma unroll
      for (int m = 0; m < 2; m++) {
        mma<T>(dq[m][2 * n], x[m], b[0], b[1]);
        mma<T>(dq[m][2 * n + 1], x[m], b[2], b[3]);
      }
    }
  }
}

/* Wait until `turn` additions were made; one thread of the block. */
__device__ __forceinline__ void await_turn(const uint32_t *turns,
                                           uint32_t turn) {
  uint32_t made;
  do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                  : "=r"(made)
                  : "l"(turns)
                  : "memory");
  while (made != turn);
}

/* After a barrier that follows the block's writes; one thread. */
__device__ __forceinline__ void pass_turn(uint32_t *turns, uint32_t turn) {
  __threadfence();
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(turns), "r"(turn)
               : "memory");
}

/* dq · scale · factor to its place in dqkv; `out` is row 0 of its head. */
template <typename T, int D>
__device__ __forceinline__ void
backward_store(const attention_args &a, const backward_place &at, T *out,
               int64_t pitch, const float dq[2][backward_shape<D>::DQ][4]) {
  using shape = backward_shape<D>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const int row = at.row + warp / shape::WIDTHS * 32 + (lane >> 2);
  const int column = warp % shape::WIDTHS * shape::DQ * 8 + (lane & 3) * 2;
  const float factor = a.scale * a.factor;
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const int i = row + m * 16 + r * 8;
      if (i >= a.seq) continue;
#pragma unroll
      for (int n = 0; n < shape::DQ; n++)
        if (column + n * 8 < a.width)
          *(uint32_t *)(out + i * pitch + column + n * 8) =
              pack2<T>(dq[m][n][2 * r] * factor, dq[m][n][2 * r + 1] * factor);
    }
}

/* Add the block's part of a tile's dq to what the blocks before made of it, or
 * write the result if it is the last. `first`: nobody added before. */
template <typename T, int D>
__device__ __forceinline__ void
backward_add(const attention_args &a, const backward_place &at, bool first,
             float *partial, T *out, int64_t pitch,
             float dq[2][backward_shape<D>::DQ][4]) {
  constexpr int DQ = backward_shape<D>::DQ;
  float4 *tile = (float4 *)partial + threadIdx.x;
  if (!first)
#pragma unroll
    for (int i = 0; i < 2 * DQ; i++) {
      float4 x = __ldcg(tile + i * ATTENTION_THREADS);
      float *y = dq[i / DQ][i % DQ];
      y[0] += x.x, y[1] += x.y, y[2] += x.z, y[3] += x.w;
    }
  if (at.key == 0) {
    backward_store<T, D>(a, at, out, pitch, dq);
    return;
  }
#pragma unroll
  for (int i = 0; i < 2 * DQ; i++) {
    const float *y = dq[i / DQ][i % DQ];
    __stcg(tile + i * ATTENTION_THREADS, make_float4(y[0], y[1], y[2], y[3]));
  }
}

/* The (head, query tile) pairs of a block, in order. */
struct backward_walk {
  int first, tiles, steps; /* of one head; of all */
};

/* q, d_o and stats of step `i` into a stage of shared memory. */
template <typename T, int D>
__device__ __forceinline__ void
backward_load(const attention_args &a, const tile_source<T, D> &q,
              const tile_source<T, D> &d_o, const backward_walk &walk,
              const float2 *stats, uint32_t to, int i) {
  using shape = backward_shape<D>;
  const int head = i / walk.tiles;
  const int row = (walk.first + i % walk.tiles) * shape::ROWS;
  tile_source<T, D> x = q, y = d_o;
  x.from += (int64_t)head * a.width * 2;
  y.from += (int64_t)head * a.width * 2;
  x.template load<shape::ROWS, false>(to, row);
  y.template load<shape::ROWS, false>(to + shape::ROW_TILE, row);
  const int t = threadIdx.x;
  if (t < shape::ROWS)
    copy_async8(to + 2 * shape::ROW_TILE + t * 8,
                stats + (int64_t)head * a.seq + row + t, row + t < a.seq);
  copy_commit();
}

/* Grid: key tiles from the last to the first, key/value head after head. */
template <typename T, int D, bool DROP>
__global__ void __launch_bounds__(ATTENTION_THREADS, 2)
    k_attention_backward(const attention_args a) {
  using shape = backward_shape<D>;
  extern __shared__ __align__(256) char shared[];
  const int blocks = (a.seq + shape::KEYS - 1) / shape::KEYS;
  const int tiles = (a.seq + shape::ROWS - 1) / shape::ROWS;
  const int block = blocks - 1 - (int)(blockIdx.x % blocks);
  const int bk = (int)(blockIdx.x / blocks);
  const int b = bk / a.kv_heads, kv = bk % a.kv_heads;
  const int group = a.heads / a.kv_heads, h = kv * group;
  const int64_t pitch = (int64_t)(a.heads + 2 * a.kv_heads) * a.width;
  const int64_t row0 = (int64_t)b * a.seq;
  const int warp = threadIdx.x / 32;
  backward_place at;
  at.shared = shared_address(shared);
  at.key = block * shape::KEYS;
  at.warp_key = at.key + warp * 16 * shape::M;
  at.unit = a.scale * LOG2_E;
  backward_walk walk;
  walk.first = at.key / shape::ROWS;
  walk.tiles = tiles - walk.first;
  walk.steps = walk.tiles * group;

  const T *q = (const T *)a.qkv + row0 * pitch + h * a.width;
  const T *k = q + (a.heads - h + kv) * a.width;
  T *dq_out = (T *)a.dqkv + (q - (const T *)a.qkv);
  const int64_t o_pitch = (int64_t)a.heads * a.width;
  const T *d_o = (const T *)a.d_o + row0 * o_pitch + h * a.width;
  const float2 *stats = a.stats + ((int64_t)b * a.heads + h) * a.seq;
  const tile_source<T, D> qs(q, pitch, a), dos(d_o, o_pitch, a);
  tile_source<T, D>(k, pitch, a)
      .template load<shape::KEYS, false>(at.shared, at.key);
  tile_source<T, D>(k + a.kv_heads * a.width, pitch, a)
      .template load<shape::KEYS, false>(at.shared + shape::KEY_TILE, at.key);
  backward_load<T, D>(a, qs, dos, walk, stats, at.shared + shape::STAGES, 0);

  backward_state<D> w;
#pragma unroll
  for (int i = 0; i < shape::M * D / 2; i++) {
    w.dk[i / (D / 2)][i / 4 % (D / 8)][i % 4] = 0;
    w.dv[i / (D / 2)][i / 4 % (D / 8)][i % 4] = 0;
  }
  /* Query tiles below this one have a single addend: no turns. */
  constexpr int SINGLE = shape::KEYS / shape::ROWS;
  uint32_t *turns = NULL;
  uint32_t turn = 0;
  for (int i = 0; i < walk.steps; i++) {
    const int stage = shape::STAGES + (i & 1) * shape::STAGE;
    const int head = h + i / walk.tiles, tile = walk.first + i % walk.tiles;
    at.row = tile * shape::ROWS;
    copy_wait();
    __syncthreads();
    if (turns && threadIdx.x == 0) pass_turn(turns, turn);
    if (i + 1 < walk.steps)
      backward_load<T, D>(a, qs, dos, walk, stats,
                          at.shared + shape::STAGES + (~i & 1) * shape::STAGE,
                          i + 1);
    attention_draws draws;
    if (DROP) draws = draws_open(a, b, head);
    backward_tile<T, D, DROP>(a, at, draws, shared, stage, w);

    const int64_t shared_tile =
        ((int64_t)b * a.heads + head) * (tiles - SINGLE) + tile - SINGLE;
    const int before = tile / SINGLE - block; /* blocks that add first */
    if (before > 0 && threadIdx.x == 0)
      await_turn(a.turns + shared_tile, before);
    __syncthreads();
    float dq[2][shape::DQ][4];
    backward_queries<T, D>(at.shared,
                           min(shape::KEYS, at.row + shape::ROWS - at.key),
                           dq);
    backward_add<T, D>(a, at, before == 0,
                       a.partial + shared_tile * (shape::ROWS * D),
                       dq_out + (head - h) * a.width, pitch, dq);
    turns = block > 0 ? a.turns + shared_tile : NULL;
    turn = before + 1;
  }
  __syncthreads();
  if (turns && threadIdx.x == 0) pass_turn(turns, turn);

  T *dk = (T *)a.dqkv + (k - (const T *)a.qkv);
#pragma unroll
  for (int m = 0; m < shape::M; m++) {
    const int first = at.warp_key + m * 16;
    const int64_t offset = first * pitch;
    char *own = shared + (warp * shape::M + m) * 16 * D * 2;
    const float scale = a.scale * a.factor;
    store_rows<T, D>(w.dk[m], scale, scale, own, dk + offset, pitch,
                     a.seq - first, a.width);
    store_rows<T, D>(w.dv[m], a.factor, a.factor, own,
                     dk + a.kv_heads * a.width + offset, pitch,
                     a.seq - first, a.width);
  }
}

template <typename T, int D, bool DROP>
static cudaError_t launch(const attention_args *a, cudaStream_t stream) {
  using shape = backward_shape<D>;
  int64_t blocks = (a->seq + shape::KEYS - 1) / shape::KEYS;
  int64_t grid = blocks * a->batch * a->kv_heads;
  if (grid > INT32_MAX) return cudaErrorInvalidConfiguration;
  auto kernel = k_attention_backward<T, D, DROP>;
  cudaError_t status = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape::BYTES);
  if (status != cudaSuccess) return status;
  kernel<<<(unsigned)grid, ATTENTION_THREADS, shape::BYTES, stream>>>(*a);
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
  return a->dtype == LK_BF16 ? launch_width<__nv_bfloat16>(a, stream)
                             : launch_width<__half>(a, stream);
}
