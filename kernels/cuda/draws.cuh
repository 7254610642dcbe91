/* Who draws what on the device: dropout by element from the counters of
 * base/rng.h, several counters at a time, and as masks over packed pairs. */
#ifndef LK_CUDA_DRAWS_CUH
#define LK_CUDA_DRAWS_CUH

#include <cuda_runtime.h>
#include <stdint.h>

extern "C" {
#include "../base/rng.h"
#include "../core/backend.h"
}

/* --- counters ------------------------------------------------------------ */

/* Draws of N counters at once, w[n] those of block[n]: lk_philox round by
 * round, so that the rounds of different counters overlap and share their
 * keys. */
template <int N>
static __device__ __forceinline__ void draws_make(uint64_t seed,
                                                  uint32_t stream,
                                                  uint32_t step,
                                                  const uint64_t block[N],
                                                  uint32_t w[N][4]) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
#pragma unroll
  for (int n = 0; n < N; n++) {
    w[n][0] = (uint32_t)block[n];
    w[n][1] = (uint32_t)(block[n] >> 32);
    w[n][2] = stream;
    w[n][3] = step;
  }
#pragma unroll
  for (int round = 0; round < LK_PHILOX_ROUNDS; round++) {
    /* opaque: as base + constant, keys would be made again for each counter */
    asm volatile("" : "+r"(k0), "+r"(k1));
#pragma unroll
    for (int n = 0; n < N; n++) {
      uint64_t p0 = (uint64_t)0xD2511F53u * w[n][0];
      uint64_t p1 = (uint64_t)0xCD9E8D57u * w[n][2];
      w[n][0] = (uint32_t)(p1 >> 32) ^ w[n][1] ^ k0;
      w[n][2] = (uint32_t)(p0 >> 32) ^ w[n][3] ^ k1;
      w[n][1] = (uint32_t)p1;
      w[n][3] = (uint32_t)p0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

/* Bits 15 and 31: whether the halves of a word are kept; the other bits say
 * nothing. `threshold`: in the upper half. Both are compared at once: without
 * their highest bits by a difference that cannot borrow, then with them (set:
 * larger, if the threshold's is not; else: smaller). */
static __device__ __forceinline__ uint32_t draws_keep(uint32_t threshold,
                                                      uint32_t word) {
  const uint32_t low = threshold & 0x7FFF0000u;
  const uint32_t either = threshold >> 31 ? 0 : ~0u;
  uint32_t rest = (word | 0x80008000u) - (low | low >> 16);
  return (rest & word) | (either & (rest | word));
}

/* Bits 15 and 31 spread over their halves. */
static __device__ __forceinline__ uint32_t draws_spread(uint32_t kept) {
  uint32_t mask;
  asm("prmt.b32 %0, %1, 0, 0xBB99;" : "=r"(mask) : "r"(kept));
  return mask;
}

/* --- drops --------------------------------------------------------------- */

/* Who drops: elements count from the micro-batch's first one. threshold 0
 * keeps everything. */
typedef struct drops {
  const uint32_t *clock;
  uint32_t stream, threshold;
  float factor;     /* 1 / (1 − p), of what is kept */
  uint64_t count;   /* elements of a micro-batch */
} drops;

static inline drops drops_of(const lk_tensor *clock, const lk_attr *attr,
                             int64_t count) {
  drops d = {NULL, (uint32_t)attr->stream, 0, 1.0f, (uint64_t)count};
  if (attr->p <= 0 || !lk_present(clock)) return d;
  d.clock = (const uint32_t *)clock->data;
  d.threshold = lk_dropout_threshold(attr->p);
  d.factor = (float)(1.0 / (1.0 - attr->p));
  return d;
}

static __device__ __forceinline__ uint64_t clock_seed(const uint32_t *clock) {
  return (uint64_t)clock[LK_CLOCK_SEED_HIGH] << 32 | clock[LK_CLOCK_SEED_LOW];
}

/* The draws of elements e … e + 7. */
static __device__ __forceinline__ void draw8(uint64_t seed, uint32_t step,
                                             uint32_t stream, uint64_t e,
                                             uint32_t draw[8]) {
  if (e % 8 == 0) {
    lk_rng_word4 r = lk_philox(seed, e / 8, stream, step);
#pragma unroll
    for (int j = 0; j < 8; j++)
      draw[j] = (r.w[j / 2] >> (16 * (j % 2))) & 0xFFFFu;
  } else {
#pragma unroll 1
    for (int j = 0; j < 8; j++)
      draw[j] = lk_rng_draw16(seed, e + (uint64_t)j, stream, step);
  }
}

/* What a thread needs of its drops, read from the clock once. */
typedef struct drawer {
  uint64_t seed, first; /* first: the micro-batch's first element */
  uint32_t step, stream, threshold;
  float factor;
} drawer;

static __device__ __forceinline__ drawer drops_open(const drops &d) {
  drawer w = {0, 0, 0, d.stream, d.threshold, d.factor};
  if (d.threshold == 0) return w;
  w.seed = clock_seed(d.clock);
  w.first = d.clock[LK_CLOCK_MICRO] * d.count;
  w.step = d.clock[LK_CLOCK_STEP];
  return w;
}

/* v = dropout(v) for the group from element i on. */
static __device__ __forceinline__ void drops_apply(const drawer &d, int64_t i,
                                                   float v[8]) {
  if (d.threshold == 0) return;
  uint32_t draw[8];
  draw8(d.seed, d.step, d.stream, d.first + (uint64_t)i, draw);
#pragma unroll
  for (int j = 0; j < 8; j++)
    v[j] = draw[j] >= d.threshold ? v[j] * d.factor : 0.0f;
}

/* Masks over packed pairs for N groups, the first at element i, `step`
 * elements apart; all of them and the micro-batch's first element multiples of
 * eight. */
template <int N>
static __device__ __forceinline__ void drops_masks(const drawer &d, int64_t i,
                                                   int64_t step,
                                                   uint4 mask[N]) {
  uint64_t block[N];
  uint32_t w[N][4];
#pragma unroll
  for (int n = 0; n < N; n++) mask[n] = make_uint4(~0u, ~0u, ~0u, ~0u);
  if (d.threshold == 0) return;
#pragma unroll
  for (int n = 0; n < N; n++)
    block[n] = (d.first + (uint64_t)(i + n * step)) / 8;
  draws_make<N>(d.seed, d.stream, d.step, block, w);
  const uint32_t t = d.threshold << 16;
#pragma unroll
  for (int n = 0; n < N; n++)
    mask[n] = make_uint4(draws_spread(draws_keep(t, w[n][0])),
                         draws_spread(draws_keep(t, w[n][1])),
                         draws_spread(draws_keep(t, w[n][2])),
                         draws_spread(draws_keep(t, w[n][3])));
}

/* The same in few registers: bit 16 − m + k, and 16 more, of bits[n / 4] is
 * pair k % 4 of group n = k / 4, of the m pairs that share a register. */
template <int N>
static __device__ __forceinline__ void drops_bits(const drawer &d, int64_t i,
                                                  int64_t step,
                                                  uint32_t bits[]) {
  uint64_t block[N];
  uint32_t w[N][4];
#pragma unroll
  for (int n = 0; n < N; n++) {
    bits[n / 4] = ~0u;
    block[n] = (d.first + (uint64_t)(i + n * step)) / 8;
  }
  if (d.threshold == 0) return;
  draws_make<N>(d.seed, d.stream, d.step, block, w);
  const uint32_t t = d.threshold << 16;
#pragma unroll
  for (int k = 0; k < 4 * N; k++)
    bits[k / 16] = (bits[k / 16] >> 1 & 0x7FFF7FFFu) |
                   (draws_keep(t, w[k / 4][k % 4]) & 0x80008000u);
}

/* Pair k of them, k counted over all N groups, as a mask. */
template <int N>
static __device__ __forceinline__ uint32_t drops_pair(const uint32_t bits[],
                                                      int k) {
  const int m = k / 16 < N / 4 ? 16 : N % 4 * 4;
  return draws_spread(bits[k / 16] << (m - 1 - k % 16));
}

static __device__ __forceinline__ uint4 masked(uint4 x, uint4 mask) {
  return make_uint4(x.x & mask.x, x.y & mask.y, x.z & mask.z, x.w & mask.w);
}

#endif
