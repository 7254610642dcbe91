/* Quantized formats by element: NF4, bitsandbytes' fp4 and dynamic 8-bit map,
 * integers, and NF4R's residual. One formula, one order of operations, for
 * both backends; no contraction to fused multiply-adds. Sources: bitsandbytes
 * csrc/kernels.cu and functional.py (formats). */
#ifndef LK_BASE_CODEBOOK_H
#define LK_BASE_CODEBOOK_H

#include "convert.h"

/* NF4's values above -1, each with the threshold that leads to it. */
#define LK_NF4_STEPS(S)                                                      \
  S(-0.8480964004993439f, -0.6961928009986877f)                              \
  S(-0.6106329262256622f, -0.5250730514526367f)                              \
  S(-0.4599952697753906f, -0.39491748809814453f)                             \
  S(-0.33967943489551544f, -0.28444138169288635f)                            \
  S(-0.23460740596055984f, -0.18477343022823334f)                            \
  S(-0.13791173323988914f, -0.09105003625154495f)                            \
  S(-0.045525018125772476f, 0.0f)                                            \
  S(0.03979014977812767f, 0.07958029955625534f)                              \
  S(0.1202552504837513f, 0.16093020141124725f)                               \
  S(0.2035212516784668f, 0.24611230194568634f)                               \
  S(0.2920137718319893f, 0.33791524171829224f)                               \
  S(0.3893125355243683f, 0.44070982933044434f)                               \
  S(0.5016634166240692f, 0.5626170039176941f)                                \
  S(0.6427869200706482f, 0.7229568362236023f)                                \
  S(0.8614784181118011f, 1.0f)

/* bitsandbytes' fp4: its magnitudes above 0, likewise. */
#define LK_FP4_STEPS(S)                                                      \
  S(0.00260417f, 0.005208333333f)                                            \
  S(0.0859375f, 0.16666667f)                                                 \
  S(0.20833333f, 0.25f)                                                      \
  S(0.29166667f, 0.33333333f)                                                \
  S(0.4166667f, 0.5f)                                                        \
  S(0.583333f, 0.66666667f)                                                  \
  S(0.8333333f, 1.0f)

/* Entries of such lists: the value for a table, a count, the value reached. */
#define LK_STEP_VALUE(threshold, value) value,
#define LK_STEP_COUNT(threshold, value) code += u > threshold;
#define LK_STEP_TAKE(threshold, value) near = u > threshold ? value : near;

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

/* Where cuBLASLt wants the scale of row r and 16 columns c of an NVFP4 matrix
 * with `cols` such columns: tiles of 128 rows and 4 columns (fp4.md). */
LK_BOTH int64_t lk_nvfp4_scale_at(int64_t r, int64_t c, int64_t cols) {
  int64_t tile = r / 128 * ((cols + 3) / 4) + c / 4;
  return (tile * 32 + r % 32) * 16 + r % 128 / 32 * 4 + c % 4;
}

/* Bytes of all of them, tiles filled up. */
LK_BOTH int64_t lk_nvfp4_scale_bytes(int64_t rows, int64_t cols) {
  return (rows + 127) / 128 * 128 * ((cols + 3) / 4 * 4);
}

/* Of a row or column in e4m3, from its largest magnitude. */
LK_BOTH float lk_e4m3_scale(float amax) { return amax / 448.0f; }

/* --- codes ---------------------------------------------------------------- */

/* Thresholds below u; ties go down. */
LK_BOTH int32_t lk_nf4_code(float u) {
  int32_t code = 0;
  LK_NF4_STEPS(LK_STEP_COUNT)
  return code;
}

LK_BOTH float lk_nf4_value(int32_t code) {
  const float values[16] = {-1.0f, LK_NF4_STEPS(LK_STEP_VALUE)};
  return values[code];
}

/* The value of u's code. */
LK_BOTH float lk_nf4_nearest(float u) {
  float near = -1.0f;
  LK_NF4_STEPS(LK_STEP_TAKE)
  return near;
}

/* The largest code but 15 whose value is not above u; 0 below -1. */
LK_BOTH int32_t lk_nf4_below(float u) {
  int32_t code = 0;
#define LK_STEP_REACHED(threshold, value) code += u >= value;
  LK_NF4_STEPS(LK_STEP_REACHED)
#undef LK_STEP_REACHED
  return code < 14 ? code : 14;
}

/* bitsandbytes numbers magnitudes 0 1 6 7 4 5 2 3 in ascending order; the same
 * exchange leads back. */
LK_BOTH int32_t lk_fp4_exchange(int32_t n) { return n ^ ((n & 2) << 1); }

/* Magnitude by thresholds; bit 3 is x < 0. */
LK_BOTH int32_t lk_fp4_code(float x) {
  float u = x < 0.0f ? -x : x;
  int32_t code = 0;
  LK_FP4_STEPS(LK_STEP_COUNT)
  code = lk_fp4_exchange(code);
  return x < 0.0f ? code | 8 : code;
}

LK_BOTH float lk_fp4_value(int32_t code) {
  const float values[8] = {0.0f, LK_FP4_STEPS(LK_STEP_VALUE)};
  float a = values[lk_fp4_exchange(code & 7)];
  return code & 8 ? -a : a;
}

LK_BOTH float lk_fp4_nearest(float x) {
  float u = x < 0.0f ? -x : x, near = 0.0f;
  LK_FP4_STEPS(LK_STEP_TAKE)
  return x < 0.0f ? -near : near;
}

/* Nearest integer of |u| < 2^22, ties to even, from the bits of a sum: no
 * branch, and no overflow when u is a NaN. */
LK_BOTH int32_t lk_int_near(float u) {
  return (int32_t)(lk_bits_of_float(u + 12582912.0f) - 0x4B400000u);
}

/* The same within ±limit; NaN gives an end. */
LK_BOTH int32_t lk_int_code(float u, int32_t limit) {
  int32_t near = lk_int_near(u);
  near = near > -limit ? near : -limit;
  return near < limit ? near : limit;
}

LK_BOTH float lk_int_nearest(float u, int32_t limit) {
  return (float)lk_int_code(u, limit);
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
  const float v[16] = {-1.0f, LK_NF4_STEPS(LK_STEP_VALUE)};
  if (below) return code > 0 ? (v[code] - v[code - 1]) / 2.0f : 0.6f;
  return code < 15 ? (v[code + 1] - v[code]) / 2.0f : 0.6f;
}

/* clamp(floor(127·e/h + draw), ±127), draw in [0, 1); `steps` is 127·e/h. */
LK_BOTH int32_t lk_nf4r_rounded(float steps, float draw) {
  float t = steps + draw;
  int32_t near = lk_int_near(t);
  int32_t whole = near - ((float)near > t);
  whole = whole > -127 ? whole : -127;
  return whole < 127 ? whole : 127;
}

LK_BOTH int32_t lk_nf4r_residual(float e, float half, float draw) {
  return lk_nf4r_rounded(127.0f * e / half, draw);
}

/* scale·(cb + h·r/127): h on the side of r; `part` is h·r/127. */
LK_BOTH float lk_nf4r_moved(float scale, float value, float part) {
  return scale * (value + part);
}

LK_BOTH float lk_nf4r_master(float scale, float value, float half,
                             int32_t residual) {
  return lk_nf4r_moved(scale, value, half * (float)residual / 127.0f);
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
