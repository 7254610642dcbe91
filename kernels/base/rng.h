/* Counter-based random numbers: Philox4x32-7 (Salmon et al., SC 2011: the
 * fewest rounds that pass all of BigCrush; what dropout and its like cost on a
 * GPU is for the most part these rounds) and the fixed way in which elements
 * draw from it. One formula for the host, the CPU backend and the CUDA backend,
 * so that all of them draw the same bits.
 *
 *   key     = (seed low, seed high)
 *   counter = (element / 8 low, element / 8 high, stream, step)
 *
 * One counter gives four 32-bit words, each two 16-bit draws: eight elements
 * share a counter, element e owns draw e % 8 (low half of a word first).
 * Normal numbers take one counter for four elements, see lk_rng_normal4. */
#ifndef LK_BASE_RNG_H
#define LK_BASE_RNG_H

#include "math.h"

enum { LK_PHILOX_ROUNDS = 7 };

typedef struct lk_rng_word4 {
  uint32_t w[4];
} lk_rng_word4;

LK_BOTH lk_rng_word4 lk_philox(uint64_t seed, uint64_t block, uint32_t stream,
                               uint32_t step) {
  uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32);
  uint32_t c2 = stream, c3 = step;
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < LK_PHILOX_ROUNDS; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0;
    uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1;
    c3 = (uint32_t)p0;
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  lk_rng_word4 r = {{c0, c1, c2, c3}};
  return r;
}

/* The 16-bit draw of one element: for anything that draws one by one. */
LK_BOTH uint32_t lk_rng_draw16(uint64_t seed, uint64_t element,
                               uint32_t stream, uint32_t step) {
  lk_rng_word4 r = lk_philox(seed, element / 8, stream, step);
  uint32_t draw = (uint32_t)(element % 8);
  return (r.w[draw / 2] >> (16 * (draw % 2))) & 0xFFFFu;
}

/* An element is dropped iff its draw is below this. p in [0, 1). */
LK_BOTH uint32_t lk_dropout_threshold(double p) {
  return (uint32_t)(65536.0 * p + 0.5);
}

/* A 16-bit draw as a float in [0, 1): k / 65536, exact. */
LK_BOTH float lk_rng_unit16(uint32_t draw) {
  return (float)draw * (1.0f / 65536.0f);
}

/* Four standard normal numbers of one counter (Box and Muller 1958): two words
 * a pair, radius from the first, angle from the second. Plain arithmetic and a
 * correctly rounded square root: the same bits everywhere. At most 6.8. */
LK_BOTH void lk_rng_normal4(uint64_t seed, uint64_t block, uint32_t stream,
                            uint32_t step, float normal[4]) {
  lk_rng_word4 r = lk_philox(seed, block, stream, step);
  for (int i = 0; i < 4; i += 2) {
    float u = ((float)r.w[i] + 0.5f) * 2.3283064365386963e-10f; /* (0, 1] */
    float radius = sqrtf(-2.0f * lk_logf(u));
    float cosine, sine;
    lk_cos_sin_turn(r.w[i + 1], &cosine, &sine);
    normal[i] = radius * cosine;
    normal[i + 1] = radius * sine;
  }
}

#endif
