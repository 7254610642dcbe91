/* Number formats: f32 to and from bf16, f16, e4m3, e2m1, e8m0. Plain integer
 * and float arithmetic without branches, for loops that vectorize and for both
 * backends. Rounding is to nearest, ties to even. */
#ifndef LK_BASE_CONVERT_H
#define LK_BASE_CONVERT_H

#include "math.h"

/* NaN stays NaN. */
LK_BOTH uint16_t lk_bf16_from_f32(float x) {
  uint32_t bits = lk_bits_of_float(x);
  uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  uint32_t nan = (bits >> 16) | 0x40u;
  return (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
}

LK_BOTH float lk_f32_from_bf16(uint16_t x) {
  return lk_float_of_bits((uint32_t)x << 16);
}

/* Past 65504 to infinity, NaN stays NaN. */
LK_BOTH uint16_t lk_f16_from_f32(float x) {
  uint32_t bits = lk_bits_of_float(x);
  uint32_t sign = (bits >> 16) & 0x8000u, a = bits & 0x7FFFFFFFu;
  uint32_t special = a > 0x7F800000u ? 0x7E00u : 0x7C00u;
  uint32_t normal = (a - 0x38000000u + 0xFFFu + ((a >> 13) & 1u)) >> 13;
  /* adding 0.5 leaves a subnormal's bits, rounded, at the end */
  uint32_t small = lk_bits_of_float(lk_float_of_bits(a) + 0.5f) - 0x3F000000u;
  uint32_t finite = a < 0x38800000u ? small : normal;
  return (uint16_t)(sign | (a >= 0x47800000u ? special : finite));
}

LK_BOTH float lk_f32_from_f16(uint16_t x) {
  uint32_t sign = (uint32_t)(x & 0x8000u) << 16;
  uint32_t a = (uint32_t)(x & 0x7FFFu) << 13;
  uint32_t exponent = a & 0x0F800000u;
  uint32_t normal = a + 0x38000000u;
  uint32_t special = a + 0x70000000u;
  uint32_t small = lk_bits_of_float(lk_float_of_bits(a + 0x38800000u) -
                                    lk_float_of_bits(0x38800000u));
  uint32_t bits = exponent == 0 ? small : normal;
  bits = exponent == 0x0F800000u ? special : bits;
  return lk_float_of_bits(sign | bits);
}

/* OCP e4m3: saturates at ±448, has no infinity; NaN is 0x7F. */
LK_BOTH uint8_t lk_e4m3_from_f32(float x) {
  uint32_t bits = lk_bits_of_float(x);
  uint32_t sign = (bits >> 24) & 0x80u, a = bits & 0x7FFFFFFFu;
  uint32_t nan = a > 0x7F800000u ? 1u : 0u;
  uint32_t capped = a > 0x43E00000u ? 0x43E00000u : a; /* 448 */
  uint32_t normal = (capped - 0x3C000000u + 0x7FFFFu +
                     ((capped >> 20) & 1u)) >> 20;
  uint32_t small = lk_bits_of_float(lk_float_of_bits(capped) + 16384.0f) -
                   0x46800000u;
  uint32_t finite = capped < 0x3C800000u ? small : normal;
  return (uint8_t)(nan ? 0x7Fu : sign | finite);
}

LK_BOTH float lk_f32_from_e4m3(uint8_t x) {
  uint32_t sign = (uint32_t)(x & 0x80u) << 24, a = x & 0x7Fu;
  uint32_t normal = (a << 20) + 0x3C000000u;
  uint32_t small = lk_bits_of_float((float)(int32_t)a * 0.001953125f);
  uint32_t bits = a < 8u ? small : normal;
  bits = a == 0x7Fu ? 0x7FC00000u : bits;
  return lk_float_of_bits(sign | bits);
}

/* E2M1: bit 3 the sign, magnitudes 0 .5 1 1.5 2 3 4 6; saturates at ±6, a zero
 * keeps its sign, NaN gives a zero. */
LK_BOTH int32_t lk_e2m1_from_f32(float x) {
  uint32_t bits = lk_bits_of_float(x);
  float a = lk_float_of_bits(bits & 0x7FFFFFFFu);
  int32_t code = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) +
                 (a > 2.5f) + (a >= 3.5f) + (a > 5.0f);
  return code | (int32_t)((bits >> 28) & 8u);
}

LK_BOTH float lk_f32_from_e2m1(int32_t code) {
  int32_t m = code & 7;
  float a = (float)(m < 4 ? m : m < 6 ? 2 * m - 4 : 4 * m - 16) * 0.5f;
  return code & 8 ? -a : a;
}

/* E8M0: 2^(x - 127); 255 is NaN. */
LK_BOTH float lk_f32_from_e8m0(uint8_t x) {
  uint32_t bits = x == 0 ? 0x00400000u : (uint32_t)x << 23;
  return lk_float_of_bits(x == 255 ? 0x7FC00000u : bits);
}

/* MXFP4's scale of a block whose largest magnitude is `amax`:
 * 2^(floor(log2 amax) - 2). */
LK_BOTH uint8_t lk_e8m0_from_amax(float amax) {
  uint32_t exponent = (lk_bits_of_float(amax) & 0x7FFFFFFFu) >> 23;
  return (uint8_t)(exponent < 2u ? 0u : exponent - 2u);
}

#endif
