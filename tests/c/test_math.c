/* The elementary functions of base/math.h against the C library's in double
 * precision, within the error each comment states. */
#include <math.h>
#include <stdlib.h>

#include "../../kernels/base/math.h"
#include "check.h"

/* Largest |f(x) − g(x)| / (|g(x)| + absolute) over [from, to]. */
static double worst(float (*f)(float), double (*g)(double), double from,
                    double to, double absolute) {
  enum { N = 400000 };
  double most = 0;
  for (int i = 0; i <= N; i++) {
    float x = (float)(from + (to - from) * i / N);
    double want = g(x), error = fabs(f(x) - want) / (fabs(want) + absolute);
    if (!(error <= most)) most = error;
  }
  return most;
}

static float f_exp(float x) { return lk_expf(x); }
static float f_negative(float x) { return lk_expf_negative(x); }
static float f_log(float x) { return lk_logf(x); }
static float f_sigmoid(float x) { return lk_sigmoid(x); }
static float f_silu(float x) { return lk_silu(x); }
static float f_slope(float x) { return lk_silu_slope(x); }
static float f_tanh(float x) { return lk_tanhf(x); }
static double d_sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double d_silu(double x) { return x / (1 + exp(-x)); }
static double d_slope(double x) {
  double s = d_sigmoid(x);
  return s * (1 + x * (1 - s));
}

#define BOUND(f, g, from, to, absolute, most)                             \
  do {                                                                    \
    double error_ = worst(f, g, from, to, absolute);                      \
    CHECK(error_ <= (most), #f " in [%g, %g]: %.3g", (double)(from),      \
          (double)(to), error_);                                          \
  } while (0)

static void test_exp(void) {
  BOUND(f_exp, exp, -87.3, 88.7, 0, 2e-7);
  BOUND(f_exp, exp, -103, -87.3, 1e-38, 2e-7);
  BOUND(f_negative, exp, -87, 0, 0, 2e-7);
  CHECK(lk_expf(0) == 1, "%g", (double)lk_expf(0));
  CHECK(lk_expf(-200) == 0 && lk_expf(-INFINITY) == 0, "underflow");
  CHECK(isinf(lk_expf(89)) && isinf(lk_expf(INFINITY)), "overflow");
  CHECK(isnan(lk_expf(NAN)) && isnan(lk_expf_negative(NAN)), "NaN");
  float rest = lk_expf_negative(-1e30f);
  CHECK(rest >= 0 && rest < 2e-38f, "%g", (double)rest);
}

/* The largest distance from e^x in units of the last place, over every
 * `stride`-th float from `from` up to 0. */
static double exp_ulps(float (*f)(float), float from, uint32_t stride) {
  double most = 0;
  for (uint32_t b = 0x80000000u; b <= lk_bits_of_float(from); b += stride) {
    double want = exp((double)lk_float_of_bits(b));
    double unit = ldexp(1, ilogb(want) - 23);
    double error = fabs((double)f(lk_float_of_bits(b)) - want) / unit;
    if (!(error <= most)) most = error;
  }
  return most;
}

static float f_beside(float x) { return lk_expf_beside_one(x); }

static void test_exp_ulps(void) {
  CHECK(exp_ulps(f_negative, -87, 1999) <= 1.0, "%g units",
        exp_ulps(f_negative, -87, 1999));
  CHECK(exp_ulps(f_exp, -87, 1999) <= 1.0, "%g units",
        exp_ulps(f_exp, -87, 1999));
  BOUND(f_beside, exp, -87, 88, 0, 2e-7);
  CHECK(isinf(lk_expf_beside_one(88.5f)), "no infinity");
  CHECK(isinf(lk_expf_beside_one(1e30f)), "no infinity");
  CHECK(lk_expf_beside_one(-1e30f) < 2e-38f, "not small");
  CHECK(isnan(lk_expf_beside_one(NAN)), "NaN");
}

static void test_log(void) {
  BOUND(f_log, log, 1e-38, 1e-30, 0, 2e-7);
  BOUND(f_log, log, 1e-6, 0.5, 0, 2e-7);
  BOUND(f_log, log, 0.5, 2, 1, 2e-7);
  BOUND(f_log, log, 2, 3e38, 0, 2e-7);
  BOUND(f_log, log, 1e-44, 1e-38, 0, 2e-7);
  CHECK(lk_logf(1) == 0, "%g", (double)lk_logf(1));
  CHECK(lk_logf(0) == -INFINITY && lk_logf(INFINITY) == INFINITY, "limits");
  CHECK(isnan(lk_logf(-1)) && isnan(lk_logf(NAN)), "NaN");
}

static void test_sigmoid_silu_tanh(void) {
  BOUND(f_sigmoid, d_sigmoid, -87, 60, 0, 3e-7);
  BOUND(f_silu, d_silu, -87, 60, 0, 4e-7);
  BOUND(f_slope, d_slope, -60, 60, 1, 2e-6);
  BOUND(f_tanh, tanh, -12, 12, 0, 4e-7);
  BOUND(f_tanh, tanh, -1e-3, 1e-3, 1e-30, 4e-7);
  CHECK(lk_tanhf(100) == 1 && lk_tanhf(-INFINITY) == -1, "limits");
  CHECK(isnan(lk_tanhf(NAN)) && isnan(lk_sigmoid(NAN)), "NaN");
}

static void test_cos_sin(void) {
  const double turn = 2 * acos(-1);
  double most = 0;
  for (uint64_t t = 0; t < UINT64_C(1) << 32; t += 9973) {
    float c, s;
    lk_cos_sin_turn((uint32_t)t, &c, &s);
    double angle = turn * (double)t / 4294967296.0;
    most = fmax(most, fmax(fabs(c - cos(angle)), fabs(s - sin(angle))));
  }
  CHECK(most < 2e-7, "%g", most);
}

int main(void) {
  RUN(test_exp);
  RUN(test_exp_ulps);
  RUN(test_log);
  RUN(test_sigmoid_silu_tanh);
  RUN(test_cos_sin);
  return check_done();
}
