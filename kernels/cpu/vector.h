/* Sums, maxima and loops over one row of floats. Reductions run over sixteen
 * interleaved partial results that are combined in a fixed order: the bits
 * depend on the data and its length, not on the instruction set. */
#ifndef LK_CPU_VECTOR_H
#define LK_CPU_VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../base/math.h"

enum { ROW_LANES = 8 };
typedef float row_v __attribute__((vector_size(32)));
typedef int32_t row_i __attribute__((vector_size(32)));
/* The same in memory: aligned like a float. */
typedef float row_m __attribute__((vector_size(32), aligned(4), may_alias));

#define ROW_LOAD(p) ((row_v)(*(const row_m *)(p)))
#define ROW_STORE(p, v) (*(row_m *)(p) = (row_m)(v))
/* a where mask, else b; mask is the result of a comparison. */
#define ROW_PICK(mask, a, b) \
  ((row_v)(((mask) & (row_i)(a)) | (~(mask) & (row_i)(b))))
/* a where a > b, else b: b where either is a NaN. */
#ifdef __AVX__
#define ROW_MAX(a, b) ((row_v)__builtin_ia32_maxps256(a, b))
#else
#define ROW_MAX(a, b) ROW_PICK((a) > (b), a, b)
#endif

/* Two accumulators to one number, always pairwise in the same order. */
#define ROW_FOLD(s0, s1)                               \
  ({                                                   \
    row_v s_ = (s0) + (s1);                            \
    ((s_[0] + s_[4]) + (s_[2] + s_[6])) +              \
        ((s_[1] + s_[5]) + (s_[3] + s_[7]));           \
  })

/* The last n % 16 floats, zero-filled. */
#define ROW_TAIL(tail, x, i, n)                        \
  float tail[2 * ROW_LANES] = {0};                     \
  memcpy(tail, (x) + (i), (size_t)((n) - (i)) * sizeof(float))

static inline float row_sum(const float *x, int64_t n) {
  row_v s0 = {0}, s1 = {0};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    s0 += ROW_LOAD(x + i);
    s1 += ROW_LOAD(x + i + 8);
  }
  if (i < n) {
    ROW_TAIL(t, x, i, n);
    s0 += ROW_LOAD(t);
    s1 += ROW_LOAD(t + 8);
  }
  return ROW_FOLD(s0, s1);
}

static inline float row_dot(const float *x, const float *y, int64_t n) {
  row_v s0 = {0}, s1 = {0};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    s0 += ROW_LOAD(x + i) * ROW_LOAD(y + i);
    s1 += ROW_LOAD(x + i + 8) * ROW_LOAD(y + i + 8);
  }
  if (i < n) {
    ROW_TAIL(t, x, i, n);
    ROW_TAIL(u, y, i, n);
    s0 += ROW_LOAD(t) * ROW_LOAD(u);
    s1 += ROW_LOAD(t + 8) * ROW_LOAD(u + 8);
  }
  return ROW_FOLD(s0, s1);
}

/* Σ x · y · z */
static inline float row_dot3(const float *x, const float *y, const float *z,
                             int64_t n) {
  row_v s0 = {0}, s1 = {0};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    s0 += ROW_LOAD(x + i) * ROW_LOAD(y + i) * ROW_LOAD(z + i);
    s1 += ROW_LOAD(x + i + 8) * ROW_LOAD(y + i + 8) * ROW_LOAD(z + i + 8);
  }
  if (i < n) {
    ROW_TAIL(t, x, i, n);
    ROW_TAIL(u, y, i, n);
    ROW_TAIL(v, z, i, n);
    s0 += ROW_LOAD(t) * ROW_LOAD(u) * ROW_LOAD(v);
    s1 += ROW_LOAD(t + 8) * ROW_LOAD(u + 8) * ROW_LOAD(v + 8);
  }
  return ROW_FOLD(s0, s1);
}

/* The largest of n >= 1 numbers; a NaN may or may not be seen. */
static inline float row_max(const float *x, int64_t n) {
  float best = x[0];
  int64_t i = 0;
  if (n >= 16) {
    row_v m0 = ROW_LOAD(x), m1 = ROW_LOAD(x + 8);
    for (i = 16; i + 16 <= n; i += 16) {
      row_v a = ROW_LOAD(x + i), b = ROW_LOAD(x + i + 8);
      m0 = ROW_MAX(a, m0);
      m1 = ROW_MAX(b, m1);
    }
    m0 = ROW_MAX(m0, m1);
    for (int l = 0; l < ROW_LANES; l++) best = m0[l] > best ? m0[l] : best;
  }
  for (; i < n; i++) best = x[i] > best ? x[i] : best;
  return best;
}

#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast") /* fused where there are such */

/* y = e^(x − shift) where x <= shift, lk_expf_negative; y may be x. */
static inline void row_exp(const float *x, float *y, int64_t n, float shift) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) y[i] = lk_expf_negative(x[i] - shift);
}
#pragma GCC pop_options

/* Numbers up to a whole vector: what a row's end is padded to. */
static inline int64_t row_whole(int64_t n) {
  return (n + ROW_LANES - 1) / ROW_LANES * ROW_LANES;
}

static inline void row_scale(float *x, int64_t n, float factor) {
  for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

/* y += x */
static inline void row_add(float *restrict y, const float *restrict x,
                           int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

#endif
