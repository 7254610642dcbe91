/* Hopper's attention backward, warpgroup 1: dq = dsᵀ k of a tile of queries,
 * added to the sum of the blocks that share it. */
#ifndef LK_CUDA_ATTENTION_HOPPER_QUERIES_CUH
#define LK_CUDA_ATTENTION_HOPPER_QUERIES_CUH

#include "attention_hopper.cuh"

namespace hopper {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* The first of the warp's queries. */
static __device__ __forceinline__ int queries_first(const backward_place &at) {
  return at.row + threadIdx.x / 32 % 4 * 16;
}

/* dq · scale · factor to its place in dqkv. */
template <typename T>
static __device__ __forceinline__ void
queries_store(const attention_args &a, const backward_place &at,
              const float dq[8][4]) {
  const int lane = threadIdx.x & 31;
  const float factor = a.scale * a.factor;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int i = queries_first(at) + (lane >> 2) + r * 8;
    T *out = (T *)a.dqkv + at.q + i * at.pitch;
    if (i >= a.seq) continue;
#pragma unroll
    for (int n = 0; n < 8; n++) {
      const int column = n * 8 + (lane & 3) * 2;
      const float *x = &dq[n][2 * r];
      if (column < a.width)
        *(uint32_t *)(out + column) = pack2<T>(x[0] * factor, x[1] * factor);
    }
  }
}

/* dq of a tile is made: dsᵀ k of the block's keys, asked for. */
template <typename T>
static __device__ __forceinline__ void queries_make(uint32_t ds, uint32_t keys,
                                                    float dq[8][4]) {
  group_begin();
  group_product<T>::template shared<0, 1, 1>(dq, group_operand(ds),
                                             group_operand(keys));
#pragma unroll
  for (int j = 1; j < KEYS / 16; j++)
    group_product<T>::template shared<1, 1, 1>(
        dq, group_operand(ds + j * 2048), group_operand(keys + j * 2048));
  group_commit();
}

/* Add to a sum that several blocks make in turn; nobody waits for it. */
static __device__ __forceinline__ void queries_give(const float dq[8][4],
                                                    float *sum) {
#pragma unroll
  for (int i = 0; i < 8; i++)
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(
                     sum + (i * 128 + threadIdx.x) * 4),
                 "f"(dq[i][0]), "f"(dq[i][1]), "f"(dq[i][2]), "f"(dq[i][3])
                 : "memory");
}

/* What was added is told to the thread that passes turns; `left`: how many were
 * before. */
static __device__ __forceinline__ void queries_left(const memory &m, int &left,
                                                    uint32_t *turns,
                                                    uint32_t turn) {
  const int hand = left % HANDS;
  barrier_wait(m.barrier(PASSED + hand), ~(left / HANDS) & 1);
  if (threadIdx.x == QUERIES) *m.note(hand) = {turns, turn};
  barrier_arrive(m.barrier(LEFT + hand));
  left++;
}

/* Which sum is a tile's, of those that several blocks add to. */
static __device__ __forceinline__ int64_t
queries_place(const attention_args &a, const extent &e,
              const backward_place &at, int tile) {
  return ((int64_t)at.b * a.heads + at.h) * (e.tiles - SINGLE) - SINGLE +
         tile;
}

/* dq of a tile, number `n`, whose ds is there: to the sum of the blocks before,
 * or, as the last, with it to its place. `made`: how many blocks were seen to
 * have added. */
template <typename T>
static __device__ __forceinline__ void
queries_add(const attention_args &a, const memory &m,
            const backward_place &at, int64_t place, uint32_t before,
            uint32_t made, int n, uint32_t keys, int &left) {
  float *sum = a.dq + place * (ROWS * D) - QUERIES * 4; /* of its threads */
  float dq[8][4];
  float4 upper[D / 16], lower[D / 16];
  const int hand = n % HANDS;
  if (at.key == 0 && a.table) {
    backward_angles<D>(a, queries_first(at), 0, upper);
    backward_angles<D>(a, queries_first(at), 1, lower);
  }
  queries_make<T>(m.at + DS_AT + hand * DS_TILE, keys, dq);
  if (made != before) turn_await(a.dq_turns + place, before);
  group_wait<0>();
  group_result(dq);
  if (threadIdx.x % 32 == 0) barrier_arrive(m.barrier(TAKEN + hand));
  if (at.key == 0) {
    if (before > 0) turn_take<8, 128>(dq, sum);
    if (a.table) backward_turn<D>(a.sense, upper, lower, dq);
    queries_store<T>(a, at, dq);
    return;
  }
  if (before > 0)
    queries_give(dq, sum);
  else
    turn_leave<8, 128>(dq, sum);
  queries_left(m, left, a.dq_turns + place, before + 1);
}

template <typename T>
static __device__ __forceinline__ void
queries_side(const attention_args &a, const extent &e, const memory &m) {
  backward_place at = {};
  int pair = 0, tile = e.tiles, left = 0;
  for (int n = 0;; n++, tile++) {
    const int slot = pair % PAIRS;
    int64_t place = 0;
    uint32_t before = 0, made = 0;
    if (tile < e.tiles) { /* asked for early: it takes a while */
      before = tile / SINGLE - at.block;
      place = queries_place(a, e, at, tile);
      if (before > 0) made = turn_made(a.dq_turns + place);
    }
    barrier_wait(m.barrier(MADE + n % HANDS), n / HANDS & 1);
    if (tile == e.tiles) { /* a task's first tile, which awaits nobody */
      at = *m.place(slot);
      if (at.block < 0) break;
      tile = at.block * SINGLE;
      place = queries_place(a, e, at, tile);
    }
    at.row = tile * ROWS;
    queries_add<T>(a, m, at, place, before, made, n, m.at + slot * PAIR, left);
    if (tile + 1 < e.tiles) continue;
    if (threadIdx.x % 32 == 0) barrier_arrive(m.barrier(PAIR_FREE + slot));
    pair++;
  }
  queries_left(m, left, NULL, 0);
}

#endif

}

#endif
