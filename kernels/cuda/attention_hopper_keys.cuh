/* Hopper's attention backward, warpgroups 2 and 3: scores transposed, keys by
 * queries; ds for dq, and the sums dk and dv. */
#ifndef LK_CUDA_ATTENTION_HOPPER_KEYS_CUH
#define LK_CUDA_ATTENTION_HOPPER_KEYS_CUH

#include "attention_hopper.cuh"

namespace hopper {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* Scores become probabilities, 0 behind the diagonal where the tile is on
 * it; stats: lse and delta of the lane's first two queries. */
static __device__ __forceinline__ void keys_exp(const float4 *stats, float unit,
                                                bool diagonal,
                                                float s[8][4]) {
  const int lane = threadIdx.x & 31, c = lane & 3;
  const int key = threadIdx.x / 32 % 4 * 16 + (lane >> 2);
#pragma unroll
  for (int n = 0; n < 8; n++) {
    const float4 x = stats[n * 4];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      s[n][2 * r] = exp2_fast(fmaf(s[n][2 * r], unit, -x.x));
      s[n][2 * r + 1] = exp2_fast(fmaf(s[n][2 * r + 1], unit, -x.z));
    }
  }
  if (!diagonal) return;
#pragma unroll
  for (int i = 0; i < 32; i++)
    if (key + i / 2 % 2 * 8 > i / 4 * 8 + c * 2 + i % 2) s[i / 4][i % 4] = 0;
}

/* Probabilities x and d_o vᵀ become p (dropped out, unscaled) and ds / scale /
 * factor, packed; `kept`: the lane's first word of the tile's. */
template <typename T, bool DROP>
static __device__ __forceinline__ void
keys_softmax(const float4 *stats, const char *kept, const float x[8][4],
             const float dp[8][4], uint32_t p[8][2], uint32_t ds[8][2]) {
  const int g = (threadIdx.x & 31) >> 2;
  const int shift = threadIdx.x / 64 % 2 * 8 + (g >> 1) + (g & 1) * 16;
  uint32_t word[2][2];
#pragma unroll
  for (int n = 0; n < 8; n++) {
    const float4 sums = stats[n * 4];
    if (DROP && n % 2 == 0)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const uint2 w = *(const uint2 *)(kept + n / 2 * 128 + e * 16);
        word[0][e] = w.x >> shift;
        word[1][e] = w.y >> shift;
      }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float y[2], dy[2];
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const float v = x[n][2 * r + e], d = dp[n][2 * r + e];
        const float sum = e ? sums.w : sums.y;
        y[e] = !DROP || word[r][e] & (n % 2 ? 16u : 1u) ? v : 0;
        dy[e] = DROP ? fmaf(y[e], d, -v * sum) : v * (d - sum);
      }
      p[n][r] = pack2<T>(y[0], y[1]);
      ds[n][r] = pack2<T>(dy[0], dy[1]);
    }
  }
}

/* The first of the warp's keys in its block's tile. */
static __device__ __forceinline__ int keys_first(int half) {
  return half * 64 + threadIdx.x % 128 / 32 * 16;
}

/* The warp's 16 keys by 64 queries of ds, of tile number `n`, for dq. */
static __device__ __forceinline__ void keys_put(const memory &m, int half,
                                                int n,
                                                const uint32_t ds[8][2]) {
  const int lane = threadIdx.x & 31, hand = n % HANDS;
  const uint32_t to = m.at + DS_AT + hand * DS_TILE;
  const int row = keys_first(half) + (lane & 15);
  barrier_wait(m.barrier(TAKEN + hand), ~(n / HANDS) & 1);
#pragma unroll
  for (int i = 0; i < 8; i += 2)
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(
            to + piece_at<D>(row, i + (lane >> 4))),
        "r"(ds[i][0]), "r"(ds[i][1]), "r"(ds[i + 1][0]), "r"(ds[i + 1][1])
        : "memory");
  shared_written();
  __syncwarp();
  if (lane == 0) barrier_arrive(m.barrier(MADE + hand));
}

/* The block's sum of dk and dv and those of the group's heads before it; true
 * in the last head, which has it all. */
static __device__ __forceinline__ bool
keys_group(const attention_args &a, const extent &e, const backward_place &at,
           int half, float dk[8][4], float dv[8][4]) {
  const int group = a.heads / a.kv_heads, turn = at.h % group;
  const int64_t tile = ((int64_t)at.b * a.kv_heads + at.kv) * e.blocks +
                       at.block;
  uint32_t *turns = a.dkv_turns + tile;
  /* whichever warpgroup has a half: 128 threads of 256 */
  float *sum = a.dkv + tile * (2 * KEYS * D) +
               (half * 128 + (int)(threadIdx.x % 128 - threadIdx.x)) * 4;
  if (turn > 0) {
    if (threadIdx.x == KEY_THREADS) turn_await(turns, turn);
    barrier_among(KEY_BARRIER, 256);
    turn_take<8, 256>(dk, sum);
    turn_take<8, 256>(dv, sum + KEYS * D);
  }
  if (turn == group - 1) return true;
  turn_leave<8, 256>(dk, sum);
  turn_leave<8, 256>(dv, sum + KEYS * D);
  barrier_among(KEY_BARRIER, 256);
  if (threadIdx.x == KEY_THREADS) turn_pass(turns, turn + 1);
  return false;
}

/* dk and dv of the warp's keys, through its rows of v; what turns dk comes
 * while dv is stored. */
template <typename T>
static __device__ __forceinline__ void
keys_finish(const attention_args &a, const backward_place &at, int half,
            float dk[8][4], float dv[8][4], char *v) {
  const int first = keys_first(half);
  const float scale = a.scale * a.factor;
  T *out = (T *)a.dqkv + at.k + (at.key + first) * at.pitch;
  const int rows = a.seq - at.key - first;
  char *own = v + first * D * 2;
  float4 upper[D / 16], lower[D / 16];
  if (a.table) backward_angles<D>(a, at.key + first, 0, upper);
  store_rows<T, D>(dv, a.factor, a.factor, own, out + a.kv_heads * a.width,
                   at.pitch, rows, a.width);
  if (a.table) {
    backward_angles<D>(a, at.key + first, 1, lower);
    backward_turn<D>(a.sense, upper, lower, dk);
  }
  store_rows<T, D>(dk, scale, scale, own, out, at.pitch, rows, a.width);
}

/* A tile of queries that some of the warpgroup's keys, at `k`, see. The sums of
 * the tile before may still be under way and are done after it; `before`: its
 * stage, to be freed, or 0. */
template <typename T, bool DROP>
static __device__ __forceinline__ void
keys_tile(const memory &m, float unit, uint32_t k, int half, int n,
          bool diagonal, uint32_t before, float dk[8][4], float dv[8][4]) {
  const int slot = n % STAGES, lane = threadIdx.x & 31;
  const uint32_t q = m.at + STAGES_AT + slot * STAGE;
  const char *side = m.bytes + SIDE_AT + slot * SIDE;
  const float4 *stats = (const float4 *)(const void *)side + (lane & 3);
  const char *kept = side + ROWS * 8 + half * KEPT + (lane & 3) * 32 +
                     threadIdx.x / 32 % 2 * 8;
  float s[8][4], dp[8][4];
  uint32_t p[8][2], ds[8][2];
  group_begin();
  group_outer<T>(k, q, s);
  group_outer<T>(k + KEY_TILE, q + TILE, dp);
  group_wait<1>();
  group_result(s);
  if (before && lane == 0) barrier_arrive(before);
  keys_exp(stats, unit, diagonal, s);
  group_wait<0>();
  group_result(dp);
  keys_softmax<T, DROP>(stats, kept, s, dp, p, ds);
  group_begin();
  group_gather<T>(p, q + TILE, dv);
  keys_put(m, half, n, ds);
  group_begin();
  group_gather<T>(ds, q, dk);
}

template <typename T, bool DROP>
static __device__ __forceinline__ void
keys_side(const attention_args &a, const extent &e, const memory &m) {
  /* by shuffle, so that it is known to be the same in all threads */
  const int group = __shfl_sync(~0u, (threadIdx.x - KEY_THREADS) / 128, 0);
  const int lane = threadIdx.x & 31;
  const uint32_t zeros[8][2] = {};
  int n = 0;
  for (int pair = 0;; pair++) {
    barrier_wait(m.barrier(LOADED + n % STAGES), n / STAGES & 1);
    const int slot = pair % PAIRS;
    const int half = group ^ (pair & 1); /* the second has a tile less */
    const backward_place &at = *m.place(slot);
    if (at.block < 0) break;
    const uint32_t k = m.at + slot * PAIR + half * TILE;
    const int first = at.block * SINGLE + half;
    float dk[8][4], dv[8][4];
    uint32_t before = 0;
#pragma unroll
    for (int i = 0; i < 32; i++) dk[i / 4][i % 4] = dv[i / 4][i % 4] = 0;
    if (half) { /* all behind the diagonal */
      keys_put(m, half, n, zeros);
      if (lane == 0) barrier_arrive(m.barrier(FREE + n % STAGES));
      n++;
    }
    for (int tile = first; tile < e.tiles; tile++, n++) {
      barrier_wait(m.barrier(LOADED + n % STAGES), n / STAGES & 1);
      keys_tile<T, DROP>(m, at.unit, k, half, n, tile == first, before, dk,
                         dv);
      before = m.barrier(FREE + n % STAGES);
    }
    group_wait<0>();
    group_result(dk);
    group_result(dv);
    if (before && lane == 0) barrier_arrive(before);
    barrier_among(KEY_BARRIER + 1 + group, 128); /* none reads v any more */
    if (a.heads == a.kv_heads || keys_group(a, e, at, half, dk, dv))
      keys_finish<T>(a, at, half, dk, dv, m.bytes + slot * PAIR + KEY_TILE);
    shared_written(); /* v's place, which is copied to next */
    __syncwarp();
    if (lane == 0) barrier_arrive(m.barrier(PAIR_FREE + slot));
  }
  keys_put(m, group, n, zeros); /* that there are no more */
}

#endif

}

#endif
