/* Attention backward: what its blocks are, and their share of dq: a product
 * with the keys, turned back where rope had turned q, added in turn. */
#ifndef LK_CUDA_ATTENTION_QUERIES_CUH
#define LK_CUDA_ATTENTION_QUERIES_CUH

#include "attention_tile.cuh"
#include "attention_turns.cuh"

/* M: 16-row tiles of keys of a warp. Columns of dq are shared out among
 * WIDTHS warps, each with 32 queries and 8·DQ columns. */
template <int D> struct backward_shape {
  static constexpr int ROWS = LK_ATTENTION_QUERY_TILE(D);
  static constexpr int KEYS = LK_ATTENTION_KEY_TILE(D);
  static constexpr int WARPS = 4, THREADS = 32 * WARPS;
  static constexpr int M = KEYS / 16 / WARPS;
  static constexpr int WIDTHS = WARPS * 32 / ROWS;
  static constexpr int DQ = D / 8 / WIDTHS;
  static constexpr int KEY_TILE = KEYS * D * 2, ROW_TILE = ROWS * D * 2;
  static constexpr int DS_TILE = KEYS * ROWS * 2;
  /* bytes of what is kept of a tile of queries by 64 keys */
  static constexpr int KEPT = ROWS / 16 * 128, KEPTS = KEYS / 64;
  /* k v | two stages of q d_o stats kept | ds */
  static constexpr int STAGE = 2 * ROW_TILE + ROWS * 8 + KEPTS * KEPT;
  static constexpr int STAGES = 2 * KEY_TILE, DS = STAGES + 2 * STAGE;
  static constexpr int BYTES = DS + DS_TILE;
};

/* Where a block stands; `shared` is the address of its memory. */
struct backward_place {
  uint32_t shared;
  int b, h, kv, block;      /* sequence, heads, tile of keys */
  int warp;
  int key, warp_key;        /* first key of the block, of the warp */
  int row;                  /* first query of the tile */
  int64_t pitch;            /* elements of a row of qkv */
  int64_t q, k;             /* offsets of row 0 of the heads in qkv */
  float unit;               /* scale · log2 e */
};

template <int D> struct backward_state {
  static constexpr int M = backward_shape<D>::M;
  float dk[M][D / 8][4], dv[M][D / 8][4];
};

/* Column of dq that accumulator n of the warp begins at (its lane's first):
 * every other one lies half a head further, where rope's partner is. */
template <int D> __device__ __forceinline__ int backward_column(int n) {
  using shape = backward_shape<D>;
  const int own = (int)threadIdx.x / 32 % shape::WIDTHS * (shape::DQ / 2);
  return n % 2 * (D / 2) + (own + n / 2) * 8 + (threadIdx.x & 3) * 2;
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
  const int column = warp % shape::WIDTHS * shape::DQ * 4;
  const uint32_t ds = by_pair<shape::ROWS>(shared + shape::DS) ^ row * 2;
  const uint32_t k = by_halves<D>(shared) ^ column * 2;
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
      ldmatrix4_t(b, fragment_at<D>(k, j, n * 8));
#pragma unroll
      for (int m = 0; m < 2; m++) {
        mma<T>(dq[m][2 * n], x[m], b[0], b[1]);
        mma<T>(dq[m][2 * n + 1], x[m], b[2], b[3]);
      }
    }
  }
}

/* What turns position `t`'s pairs of columns from `column` on. */
__device__ __forceinline__ float4 backward_angle(const attention_args &a,
                                                 int t, int column) {
  return *(const float4 *)(a.table +
                           ((int64_t)t * (a.width / 2) + column) * 2);
}

/* Two pairs of columns half a head apart, turned as rope does. */
__device__ __forceinline__ void backward_turn_pair(float sense, float4 w,
                                                   float low[2],
                                                   float high[2]) {
  const float cosine[2] = {w.x, w.z}, sine[2] = {sense * w.y, sense * w.w};
#pragma unroll
  for (int e = 0; e < 2; e++) {
    float x = low[e], y = high[e];
    low[e] = x * cosine[e] + y * sine[e];
    high[e] = y * cosine[e] - x * sine[e];
  }
}

/* What turns eight of a warp's 16 rows of sums from `first` on, the upper ones
 * if r is 0. */
template <int D>
__device__ __forceinline__ void backward_angles(const attention_args &a,
                                                int first, int r,
                                                float4 w[D / 16]) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int n = 0; n < D / 16; n++)
    w[n] = backward_angle(a, min(first + r * 8 + (lane >> 2), a.seq - 1),
                          n * 8 + (lane & 3) * 2);
}

/* Those 16 rows turned. */
template <int D>
__device__ __forceinline__ void
backward_turn(float sense, const float4 upper[D / 16],
              const float4 lower[D / 16], float c[D / 8][4]) {
#pragma unroll
  for (int r = 0; r < 2; r++)
#pragma unroll
    for (int n = 0; n < D / 16; n++)
      backward_turn_pair(sense, r ? lower[n] : upper[n], &c[n][2 * r],
                         &c[n + D / 16][2 * r]);
}

/* dq · scale · factor to its place in dqkv. */
template <typename T, int D>
__device__ __forceinline__ void
backward_store(const attention_args &a, const backward_place &at,
               float dq[2][backward_shape<D>::DQ][4]) {
  using shape = backward_shape<D>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
  const int row = at.row + warp / shape::WIDTHS * 32 + (lane >> 2);
  const float factor = a.scale * a.factor;
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const int i = row + m * 16 + r * 8;
      T *out = (T *)a.dqkv + at.q + i * at.pitch;
      if (i >= a.seq) continue;
#pragma unroll
      for (int n = 0; n < shape::DQ; n++) {
        const int column = backward_column<D>(n);
        float *x = &dq[m][n][2 * r];
        if (n % 2 == 0 && a.table)
          backward_turn_pair(a.sense, backward_angle(a, i, column), x,
                             &dq[m][n + 1][2 * r]);
        if (column < a.width)
          *(uint32_t *)(out + column) = pack2<T>(x[0] * factor, x[1] * factor);
      }
    }
}

/* The block's part of a query tile's dq: added to `sum`, to which `before`
 * blocks have added, or written as the result if it is the last. ds of all
 * warps is in shared memory. */
template <typename T, int D>
__device__ __forceinline__ void
backward_add(const attention_args &a, const backward_place &at, int before,
             float *sum) {
  using shape = backward_shape<D>;
  float dq[2][shape::DQ][4];
  backward_queries<T, D>(at.shared,
                         min(shape::KEYS, at.row + shape::ROWS - at.key), dq);
  if (before > 0) turn_take<2 * shape::DQ, shape::THREADS>(dq[0], sum);
  if (at.key == 0)
    backward_store<T, D>(a, at, dq);
  else
    turn_leave<2 * shape::DQ, shape::THREADS>(dq[0], sum);
}

#endif
