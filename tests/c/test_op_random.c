/* Philox and the draws of rng.h, dropout, randn. */
#include "ops.h"

/* Known answers of Random123 for philox4x32-7. */
static void test_philox(void) {
  static const struct {
    uint64_t seed, block;
    uint32_t stream, step, want[4];
  } cases[] = {
      {0, 0, 0, 0, {0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48}},
      {UINT64_MAX, UINT64_MAX, UINT32_MAX, UINT32_MAX,
       {0x5207ddc2, 0x45165e59, 0x4d8ee751, 0x8c52f662}},
      {0x299f31d0a4093822, 0x85a308d3243f6a88, 0x13198a2e, 0x03707344,
       {0x4dfccaba, 0x190a87f0, 0xc47362ba, 0xb6b5242a}}};
  for (int i = 0; i < 3; i++) {
    lk_rng_word4 r = lk_philox(cases[i].seed, cases[i].block, cases[i].stream,
                               cases[i].step);
    CHECK(!memcmp(r.w, cases[i].want, sizeof r.w), "case %d: %08x", i, r.w[0]);
  }
}

/* Element e owns draw e % 8 of counter e / 8, low half of a word first. */
static void test_draw_layout(void) {
  for (uint64_t e = 0; e < 24; e++) {
    uint32_t w = lk_philox(11, e / 8, 3, 4).w[e % 8 / 2];
    uint32_t want = e % 2 ? w >> 16 : w & 0xFFFF;
    CHECK(lk_rng_draw16(11, e, 3, 4) == want, "element %d", (int)e);
  }
  CHECK(lk_dropout_threshold(0.1) == 6554, "round(65536 · 0.1)");
}

static lk_call dropout_call(float *x, int64_t n, double p, uint32_t micro) {
  lk_call call = lk_call_new(LK_OP_dropout);
  call.attr = (lk_attr){.p = p, .stream = 12};
  call.in[0] = OPS_F32(x, n);
  call.in[1] = ops_clock(0xFEDCBA9876543210u, 3, micro);
  return call;
}

static void check_dropout(int64_t n, double p, uint32_t micro) {
  float *x = ops_numbers(n, 1, 1);
  lk_call call = dropout_call(x, n, p, micro);
  ops_run(&call);
  const float *y = call.out[0].data;
  int64_t wrong = 0;
  for (int64_t i = 0; i < n; i++) {
    double keep = ops_keep(&call.in[1], &call.attr,
                           (uint64_t)(micro * n + i));
    double want = keep * x[i];
    wrong += fabs(y[i] - want) > 1e-6 * fabs(want) || (keep == 0 && y[i] != 0);
  }
  CHECK(wrong == 0, "%lld of %lld with p = %g", (long long)wrong,
        (long long)n, p);
}

static void test_dropout(void) {
  check_dropout(7, 0.5, 1);
  check_dropout(3001, 0.1, 3);
  check_dropout(40961, 0.9, 2);
  check_dropout(40961, 0, 2);
}

/* Two micro-batches of n elements draw what one of 2n draws. */
static void test_dropout_micro(void) {
  enum { N = 1003 };
  float *x = ops_numbers(2 * N, 2, 1);
  lk_call whole = dropout_call(x, 2 * N, 0.3, 0);
  ops_run(&whole);
  for (uint32_t micro = 0; micro < 2; micro++) {
    lk_call half = dropout_call(x + micro * N, N, 0.3, micro);
    ops_run(&half);
    CHECK(!memcmp(half.out[0].data, (float *)whole.out[0].data + micro * N,
                  N * sizeof(float)), "micro-batch %u", micro);
  }
}

/* lk_rng_normal4 is Box and Muller of the counter's words. */
static void test_normal(void) {
  const double turn = 2 * acos(-1);
  for (uint64_t block = 0; block < 20000; block++) {
    float got[4];
    lk_rng_word4 r = lk_philox(5, block, 6, 7);
    lk_rng_normal4(5, block, 6, 7, got);
    for (int i = 0; i < 4; i++) {
      double u = (r.w[i / 2 * 2] + 0.5) / 4294967296.0;
      double angle = turn * r.w[i / 2 * 2 + 1] / 4294967296.0;
      double radius = sqrt(-2 * log(u));
      double want = radius * (i % 2 ? sin(angle) : cos(angle));
      double error = fabs(got[i] - want);
      if (u > 0.999) continue; /* the float of u itself is coarse there */
      CHECK(error < 3e-6, "block %d[%d]: %g, should be %g", (int)block, i,
            (double)got[i], want);
    }
  }
}

static void test_randn(void) {
  enum { N = 200003 };
  lk_call call = lk_call_new(LK_OP_randn);
  call.attr = (lk_attr){.stream = 8, .scale = 2, .value = 3};
  call.in[0] = ops_clock(42, 1, 9);
  call.out[0] = OPS_F32(ops_memory(N * 4), N);
  ops_run(&call);
  const float *y = call.out[0].data;
  double moment[5] = {0};
  for (int i = 0; i < N; i++) {
    float normal[4];
    lk_rng_normal4(42, (uint64_t)i / 4, 8, 1, normal);
    CHECK(y[i] == 3 + 2 * normal[i % 4], "[%d]", i);
    double z = (y[i] - 3.0) / 2, power = 1;
    for (int k = 1; k <= 4; k++) moment[k] += (power *= z) / N;
  }
  /* four standard errors of each moment: √(1, 2, 15, 96) / √N */
  CHECK(fabs(moment[1]) < 4 * 1 / sqrt(N), "mean %g", moment[1]);
  CHECK(fabs(moment[2] - 1) < 4 * sqrt(2. / N), "variance %g", moment[2]);
  CHECK(fabs(moment[3]) < 4 * sqrt(15. / N), "skew %g", moment[3]);
  CHECK(fabs(moment[4] - 3) < 4 * sqrt(96. / N), "kurtosis %g", moment[4]);
}

int main(void) {
  RUN(test_philox);
  RUN(test_draw_layout);
  RUN(test_normal);
  OPS_RUN(test_dropout);
  OPS_RUN(test_dropout_micro);
  OPS_RUN(test_randn);
  return check_done();
}
