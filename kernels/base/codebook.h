/* Quantized formats by element: NF4, bitsandbytes' fp4 and dynamic 8-bit map,
 * integers, and NF4R's residual. One formula, one order of operations, for
 * both backends; no contraction to fused multiply-adds. Sources: bitsandbytes
 * csrc/kernels.cu and functional.py (formats). */
#ifndef LK_BASE_CODEBOOK_H
#define LK_BASE_CODEBOOK_H

#include "convert.h"

#define LK_NF4_VALUES(V)                                                     \
  V(-1.0f) V(-0.6961928009986877f) V(-0.5250730514526367f)                   \
  V(-0.39491748809814453f) V(-0.28444138169288635f)                          \
  V(-0.18477343022823334f) V(-0.09105003625154495f) V(0.0f)                  \
  V(0.07958029955625534f) V(0.16093020141124725f) V(0.24611230194568634f)    \
  V(0.33791524171829224f) V(0.44070982933044434f) V(0.5626170039176941f)     \
  V(0.7229568362236023f) V(1.0f)

#define LK_NF4_THRESHOLDS(T)                                                 \
  T(-0.8480964004993439f) T(-0.6106329262256622f) T(-0.4599952697753906f)    \
  T(-0.33967943489551544f) T(-0.23460740596055984f)                          \
  T(-0.13791173323988914f) T(-0.045525018125772476f)                         \
  T(0.03979014977812767f) T(0.1202552504837513f) T(0.2035212516784668f)      \
  T(0.2920137718319893f) T(0.3893125355243683f) T(0.5016634166240692f)       \
  T(0.6427869200706482f) T(0.8614784181118011f)

/* The values between the ends: a number's lower neighbour is how many of them
 * it reaches. */
#define LK_NF4_INNER(T)                                                      \
  T(-0.6961928009986877f) T(-0.5250730514526367f)                            \
  T(-0.39491748809814453f) T(-0.28444138169288635f)                          \
  T(-0.18477343022823334f) T(-0.09105003625154495f) T(0.0f)                  \
  T(0.07958029955625534f) T(0.16093020141124725f) T(0.24611230194568634f)    \
  T(0.33791524171829224f) T(0.44070982933044434f) T(0.5626170039176941f)     \
  T(0.7229568362236023f)

/* bitsandbytes' fp4, by its low three bits. */
#define LK_FP4_VALUES(V)                                                     \
  V(0.0f) V(0.005208333333f) V(0.66666667f) V(1.0f)                          \
  V(0.33333333f) V(0.5f) V(0.16666667f) V(0.25f)

#define LK_FP4_THRESHOLDS(T)                                                 \
  T(0.00260417f) T(0.0859375f) T(0.20833333f) T(0.29166667f)                 \
  T(0.4166667f) T(0.583333f) T(0.8333333f)

/* The scales that a search tries, in units of absmax, in order. */
#define LK_SEARCH_FACTORS(F) F(1.0f) F(0.95f) F(1.05f) F(0.9f) F(1.1f)
enum { LK_SEARCH_COUNT = 5 };

#define LK_COMMA(v) v,

/* --- scaling -------------------------------------------------------------- */

/* What brings values to units of a block's scale s: u = (x · pre) · inv. pre
 * is 1 but for scales whose reciprocal would overflow; s = 0 gives u = 0. */
typedef struct lk_unit {
  float pre, inv;
} lk_unit;

LK_BOTH lk_unit lk_unit_of_scale(float s) {
  float pre = s < 7.8886090522101180e-31f ? 18446744073709551616.0f : 1.0f;
  lk_unit unit = {pre, s > 0.0f ? 1.0f / (s * pre) : 0.0f};
  return unit;
}

LK_BOTH float lk_unit_apply(lk_unit unit, float x) {
  return x * unit.pre * unit.inv;
}

/* --- codes ---------------------------------------------------------------- */

/* Thresholds below u; ties go down. */
LK_BOTH int32_t lk_nf4_code(float u) {
  int32_t code = 0;
#define LK_COUNT(t) code += u > t;
  LK_NF4_THRESHOLDS(LK_COUNT)
#undef LK_COUNT
  return code;
}

/* The largest code but 15 whose value is not above u; 0 below -1. */
LK_BOTH int32_t lk_nf4_below(float u) {
  int32_t code = 0;
#define LK_COUNT(t) code += u >= t;
  LK_NF4_INNER(LK_COUNT)
#undef LK_COUNT
  return code;
}

LK_BOTH float lk_nf4_value(int32_t code) {
  const float values[16] = {LK_NF4_VALUES(LK_COMMA)};
  return values[code];
}

/* Magnitude by thresholds, then to bitsandbytes' order; bit 3 is u < 0. */
LK_BOTH int32_t lk_fp4_code(float u) {
  float a = u < 0.0f ? -u : u;
  int32_t n = 0;
#define LK_COUNT(t) n += a > t;
  LK_FP4_THRESHOLDS(LK_COUNT)
#undef LK_COUNT
  n ^= (n & 2) << 1;
  return u < 0.0f ? n | 8 : n;
}

LK_BOTH float lk_fp4_value(int32_t code) {
  const float values[8] = {LK_FP4_VALUES(LK_COMMA)};
  float a = values[code & 7];
  return code & 8 ? -a : a;
}

/* Nearest integer within ±limit; NaN gives -limit. */
LK_BOTH int32_t lk_int_code(float u, float limit) {
  float low = u > -limit ? u : -limit;
  return (int32_t)lk_round_even(low < limit ? low : limit);
}

/* bitsandbytes' signed dynamic map, ascending:
 * create_dynamic_map(signed=True, max_exponent_bits=7, total_bits=8). */
void lk_dynamic_map(float map[256]);

/* The nearest entry of an ascending map; ties go down. */
LK_BOTH int32_t lk_dynamic_code(const float *map, float u) {
  int32_t i = 0;
  for (int32_t step = 128; step > 0; step /= 2)
    i += map[i + step] <= u ? step : 0;
  int32_t up = i < 255 ? i + 1 : i;
  return map[up] - u < u - map[i] ? up : i;
}

/* --- NF4R ----------------------------------------------------------------- */

/* Half the way from a value to the next one on the side of e; .6 outside. */
LK_BOTH float lk_nf4r_half(int32_t code, int32_t below) {
  const float v[16] = {LK_NF4_VALUES(LK_COMMA)};
  if (below) return code > 0 ? (v[code] - v[code - 1]) / 2.0f : 0.6f;
  return code < 15 ? (v[code + 1] - v[code]) / 2.0f : 0.6f;
}

/* clamp(floor(127·e/h + draw), ±127), draw in [0, 1). */
LK_BOTH int32_t lk_nf4r_residual(float e, float half, float draw) {
  float t = 127.0f * e / half + draw;
  t = t > -127.0f ? t : -127.0f;
  t = t < 127.0f ? t : 127.0f;
  int32_t whole = (int32_t)t;
  return whole - ((float)whole > t);
}

/* scale·(cb + h·r/127): h on the side of r. */
LK_BOTH float lk_nf4r_master(float scale, float value, float half,
                             int32_t residual) {
  return scale * (value + half * (float)residual / 127.0f);
}

/* Of the two neighbours of u, the upper one with the remainder's chance:
 * `below` is lk_nf4_below(u), low and high its value and the next. */
LK_BOTH int32_t lk_nf4_stochastic(float u, int32_t below, float low,
                                  float high, float draw) {
  return below + (draw < (u - low) / (high - low));
}

/* The error that a search compares, of candidate scale factor·absmax: the sum
 * over a block of (factor·(u - value))². Element i goes to partial sum i % 8
 * in order of i; the eight are added as ((0+4)+(2+6))+((1+5)+(3+7)). */
LK_BOTH float lk_search_error(float factor, float u, float value) {
  float d = factor * (u - value);
  return d * d;
}

LK_BOTH float lk_search_sum(const float s[8]) {
  return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

#endif
