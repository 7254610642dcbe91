/* Elementary functions in plain float arithmetic: branch-free, so that a
 * compiler vectorizes loops over them, and the same on both backends (no
 * contraction to fused multiply-adds: -ffp-contract=off, -fmad=false).
 * Polynomials: Cephes (Moshier), single precision. Each comment states the
 * largest error against the exact value. */
#ifndef LK_BASE_MATH_H
#define LK_BASE_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifndef LK_BOTH
#ifdef __CUDACC__
#define LK_BOTH __host__ __device__ __forceinline__
#else
#define LK_BOTH static inline
#endif
#endif

LK_BOTH float lk_float_of_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

LK_BOTH uint32_t lk_bits_of_float(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

/* e^x. One unit in the last place (2e-7) for normal results down to e^-87;
 * subnormal results, 0, infinity and NaN as they should be. */
LK_BOTH float lk_expf(float x) {
  float c = x > 89.0f ? 89.0f : x; /* NaN passes both */
  c = c < -104.0f ? -104.0f : c;
  float t = c * 1.44269504f + 12582912.0f; /* round(x / ln 2) + 1.5 · 2^23 */
  float n = t - 12582912.0f;
  float r = c - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  int32_t k = (int32_t)(lk_bits_of_float(t) - 0x4B400000u);
  int32_t half = k >> 1; /* two factors reach subnormals and 2^128 */
  return p * lk_float_of_bits((uint32_t)(half + 127) << 23) *
         lk_float_of_bits((uint32_t)(k - half + 127) << 23);
}

/* e^x for x <= 0, as in a softmax: one unit in the last place to -87, then some
 * number under 2e-38 that is not negative; NaN stays NaN. */
LK_BOTH float lk_expf_negative(float x) {
  float c = x < -87.0f ? -87.0f : x;
  float t = c * 1.44269504f + 12582912.0f;
  float n = t - 12582912.0f;
  float r = c - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  uint32_t k = lk_bits_of_float(t) - 0x4B400000u + 127u;
  return p * lk_float_of_bits(k << 23);
}

/* ln x. 2e-7 relative (absolute near 1); ln 0 = -inf, NaN below 0. */
LK_BOTH float lk_logf(float x) {
  int tiny = x < 1.17549435e-38f;
  float s = tiny ? x * 8388608.0f : x; /* subnormals become normal */
  uint32_t bits = lk_bits_of_float(s);
  int32_t e = (int32_t)(bits >> 23) - 126;
  e = tiny ? e - 23 : e;
  float m = lk_float_of_bits((bits & 0x007FFFFFu) | 0x3F000000u);
  int low = m < 0.707106781f; /* m into [√½, √2) */
  e = low ? e - 1 : e;
  m = low ? m + m : m;
  m = m - 1.0f;
  float z = m * m;
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  float n = (float)e;
  float y = p * m * z + n * -2.12194440e-4f - 0.5f * z + m +
            n * 0.693359375f;
  y = x > 3.4028234e38f ? x : y; /* +inf */
  y = x == 0.0f ? -INFINITY : y;
  y = x < 0.0f ? NAN : y;
  return x != x ? x : y;
}

/* e^x as 1 + e^x needs it: 2e-7 relative from -87 to 88, at most 2e-38 below,
 * infinity above 88.4. NaN stays NaN. */
LK_BOTH float lk_expf_beside_one(float x) {
  float c = x > 89.0f ? 89.0f : x; /* 2^128, by its bits, is infinity */
  return lk_expf_negative(c);
}

/* 1 / (1 + e^-x). 3e-7 relative, absolute below e^-88. */
LK_BOTH float lk_sigmoid(float x) {
  return 1.0f / (1.0f + lk_expf_beside_one(-x));
}

/* x · sigmoid(x). 4e-7 relative, 4e-37 absolute for x below -88. */
LK_BOTH float lk_silu(float x) { return x / (1.0f + lk_expf_beside_one(-x)); }

/* d silu(x) / dx. 2e-6 absolute. */
LK_BOTH float lk_silu_slope(float x) {
  float s = lk_sigmoid(x);
  return s + s * x * (1.0f - s);
}

/* tanh x. 4e-7 relative. */
LK_BOTH float lk_tanhf(float x) {
  float z = x * x;
  float p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z - 5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z - 3.33332819422e-1f;
  float small = p * z * x + x;
  float a = x < 0.0f ? -x : x;
  float large = 1.0f - 2.0f / (lk_expf(a + a) + 1.0f);
  large = x < 0.0f ? -large : large;
  return a < 0.625f ? small : large;
}

/* cos and sin of 2π · turn / 2^32. 2e-7 absolute. */
LK_BOTH void lk_cos_sin_turn(uint32_t turn, float *cosine, float *sine) {
  /* nearest quarter turn, and what is left of it in [-π/4, π/4) */
  uint32_t quarter = (turn + 0x20000000u) >> 30;
  float a = (float)(int32_t)(turn - (quarter << 30)) * 1.4629180792671596e-9f;
  float z = a * a;
  float s = -1.9515295891e-4f;
  s = s * z + 8.3321608736e-3f;
  s = s * z - 1.6666654611e-1f;
  s = s * z * a + a;
  float c = 2.443315711809948e-5f;
  c = c * z - 1.388731625493765e-3f;
  c = c * z + 4.166664568298827e-2f;
  c = c * (z * z) - 0.5f * z + 1.0f;
  float u = quarter & 1 ? s : c;
  float v = quarter & 1 ? c : s;
  *cosine = (quarter + 1) & 2 ? -u : u;
  *sine = quarter & 2 ? -v : v;
}

#endif
