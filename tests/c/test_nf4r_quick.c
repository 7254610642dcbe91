/* NF4R's quick formulas on CUDA against the codebook's own, without a device:
 * a sample of all u that a weight over its scale can be, all mantissas at
 * steps. */
#include <stdbool.h>

#include "../../kernels/cuda/nf4r_quick.h"
#include "check.h"

enum { CODES = 16, APART = 509, MANTISSAS = 1 << 24, STEP = 11 };

static const float threshold[CODES] = {
#define THRESHOLD(threshold, value) threshold,
    LK_NF4_STEPS(THRESHOLD)
#undef THRESHOLD
    INFINITY};

/* 1 / d as a sum of two. */
static void inverse_of(float d, float *inverse, float *rest) {
  *inverse = 1.0f / d;
  *rest = (float)(1.0 / (double)d - (double)*inverse);
}

/* A guess is right or one less, which a comparison tells. */
static bool code_right(float u) {
  int code = (int)(nf4r_guess(u) / 4);
  return code + (u > threshold[code]) == lk_nf4_code(u);
}

static void test_codes(void) {
  int64_t wrong = 0, count = 0;
  uint32_t most = lk_bits_of_float(1.0f) + 8; /* 1 + 2^-20 */
  for (uint32_t bits = 0; bits <= most; bits += APART, count += 2) {
    float u = lk_float_of_bits(bits);
    wrong += !code_right(u) + !code_right(-u);
  }
  CHECK(wrong == 0, "%lld of %lld codes", (long long)wrong, (long long)count);
}

static void test_codes_near_thresholds(void) {
  for (int i = 0; i < CODES - 1; i++)
    for (int32_t by = -4096; by <= 4096; by++) {
      float u = lk_float_of_bits(lk_bits_of_float(threshold[i]) +
                                 (uint32_t)by);
      CHECK(code_right(u), "threshold %d: %a", i, (double)u);
    }
  for (int32_t by = -8; by <= 8; by++) {
    float one = lk_float_of_bits(lk_bits_of_float(1.0f) + (uint32_t)by);
    CHECK(code_right(one) && code_right(-one), "%a", (double)one);
  }
}

/* x / d is what the sum of two says. */
static void check_quotients(float d) {
  float inverse, rest;
  int wrong = 0;
  inverse_of(d, &inverse, &rest);
  for (uint32_t m = 0; m < MANTISSAS; m += STEP) {
    float x = lk_float_of_bits(lk_bits_of_float(1.0f) + m);
    wrong += nf4r_over(x, inverse, rest) != x / d;
    wrong += nf4r_over(-x, inverse, rest) != -x / d;
  }
  CHECK(wrong == 0, "d = %a: %d quotients", (double)d, wrong);
}

static void test_quotients(void) {
  float inverse, rest;
  inverse_of(127.0f, &inverse, &rest);
  CHECK(nf4r_over_127(1e6f) == nf4r_over(1e6f, inverse, rest), "%a, %a",
        (double)inverse, (double)rest);
  check_quotients(127.0f);
  for (int code = 0; code < CODES; code++) /* what a residual stands for */
    for (int r = -127; r <= 127; r++) {
      float x = lk_nf4r_half(code, r < 0) * (float)r;
      CHECK(nf4r_over_127(x) == x / 127.0f, "%d of code %d", r, code);
    }
  for (int side = 0; side < 2; side++)
    for (int code = 0; code < CODES; code++)
      check_quotients(lk_nf4r_half(code, side));
}

int main(void) {
  RUN(test_codes);
  RUN(test_codes_near_thresholds);
  RUN(test_quotients);
  return check_done();
}
