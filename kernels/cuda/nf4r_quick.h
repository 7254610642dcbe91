/* NF4R's formulas as its quick update has them, for the device and for the test
 * that holds them against base/codebook.h. */
#ifndef LK_CUDA_NF4R_QUICK_H
#define LK_CUDA_NF4R_QUICK_H

#include "../base/codebook.h"

/* x / d, correctly rounded, from 1 / d as the sum of two, for d = 127 and half
 * the way between neighbours of the codebook. Only what is below 2^-110 can be
 * off by its last bit, which no sum with a draw sees. */
LK_BOTH float nf4r_over(float x, float inverse, float rest) {
  return fmaf(x, inverse, x * rest);
}

LK_BOTH float nf4r_over_127(float x) {
  return nf4r_over(x, 1.0f / 127.0f, 0x1.020408p-35f);
}

/* x · y + z rounded up to a quarter, for a sum between 2^21 and 2^22. */
LK_BOTH float nf4r_up(float x, float y, float z) {
#ifdef __CUDA_ARCH__
  return __fmaf_ru(x, y, z);
#else
  return (float)(ceil(((double)x * (double)y + (double)z) * 4) / 4);
#endif
}

/* Four times lk_nf4_code of |u| <= 1 + 2^-20, or four less. A cubic through the
 * thresholds, threshold i within 0.17 of i + 1/2, says how many of them lie
 * below u, or one less. It is counted downwards from 15.75 in quarters, so that
 * the bits' complement is four times the number, and that of a NaN 0. */
LK_BOTH uint32_t nf4r_guess(float u) {
  float slope = fmaf(u, fmaf(u, 4.5974875f, -0.90170941f), -11.536929f);
  float z = nf4r_up(u, slope, 3145728.0f + 8.75f);
  return ~lk_bits_of_float(z) & 0x3Cu;
}

#endif
