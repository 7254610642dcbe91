/* Operators on CUDA against the CPU: arithmetic, shapes, products, optimizers,
 * quantized formats (test_backends_model.c has the others). f32 close to
 * rounding, 16-bit types within theirs, the same bits in every run; sizes odd,
 * so that vectors have ends, and sizes of models. Skipped without a device. */
#include "backends.h"

/* --- elementwise --------------------------------------------------------- */

static void test_binary(void) {
  static const lk_op ops[] = {LK_OP_add, LK_OP_sub, LK_OP_mul, LK_OP_div};
  NEED_DEVICE();
  for (int i = 0; i < 4; i++) {
    back_case c = back_new(ops[i]);
    IN(c, 0, 1, 7, 37);
    IN(c, 1, 2, 7, 37);
    back_run(c);
    IN(c, 1, 2, 5, 1, 37);
    back_run(c);
    IN(c, 0, 1, 64, 256);
    IN(c, 1, 2, 64, 256);
    back_run(c);
  }
}

static void test_unary(void) {
  static const lk_op ops[] = {LK_OP_affine, LK_OP_pow, LK_OP_exp, LK_OP_log,
                              LK_OP_sqrt, LK_OP_tanh, LK_OP_sigmoid,
                              LK_OP_relu};
  NEED_DEVICE();
  for (int i = 0; i < 8; i++) {
    back_case c = back_new(ops[i]);
    bool positive = ops[i] >= LK_OP_pow && ops[i] <= LK_OP_sqrt;
    IN(c, 0, 3, 1003);
    c.call.attr.scale = 1.25;
    c.call.attr.value = 0.5;
    if (positive) c.call.in[0] = back_positive(lk_shape_of(1003), 0.1f, 3);
    back_run(c);
  }
  back_case c = back_new(LK_OP_relu_backward);
  IN(c, 0, 1, 999);
  IN(c, 1, 1, 999);
  back_run(c);
}

static void test_reductions(void) {
  static const lk_op ops[] = {LK_OP_sum, LK_OP_mean, LK_OP_max, LK_OP_min,
                              LK_OP_argmax};
  NEED_DEVICE();
  for (int i = 0; i < 5; i++)
    for (int dim = -1; dim < 3; dim++) {
      back_case c = back_new(ops[i]);
      c.call.attr.dim = dim;
      c.call.attr.keep = dim == 1 && ops[i] != LK_OP_argmax;
      IN(c, 0, 1, 19, 23, 29);
      back_run(c);
    }
  back_case c = back_new(LK_OP_sum);
  c.call.attr.dim = -1;
  c.exact = 2e-6;
  IN(c, 0, 1, 100003);
  c.call.in[0] = back_positive(lk_shape_of(100003), 0.1f, 1); /* no sum of 0 */
  back_run(c);
  c.call.attr.dim = 0;
  IN(c, 0, 1, 20001, 3);
  c.call.in[0] = back_positive(lk_shape_of(20001, 3), 0.1f, 1);
  back_run(c);
}

static void test_broadcasts(void) {
  NEED_DEVICE();
  back_case c = back_new(LK_OP_sum_to);
  IN(c, 0, 1, 6, 5, 7, 4);
  OUT(c, 0, 1, 5, 1, 4);
  back_run(c);
  OUT(c, 0, 1, 6, 5, 7, 4);
  back_run(c);
  c = back_new(LK_OP_broadcast);
  IN(c, 0, 1, 5, 1, 4);
  OUT(c, 0, 1, 6, 5, 7, 4);
  back_run(c);
  IN(c, 0, 1, 1);
  back_run(c);
}

static void test_softmax(void) {
  NEED_DEVICE();
  back_case c = back_new(LK_OP_softmax);
  IN(c, 0, 4, 3, 37, 37);
  back_run(c);
  c.call.attr.causal = true;
  back_run(c);
  c = back_new(LK_OP_softmax_backward);
  IN(c, 0, 1, 3, 41);
  IN(c, 1, 1, 3, 41);
  back_run(c);
}

static void test_moves(void) {
  NEED_DEVICE();
  back_case c = back_new(LK_OP_reshape);
  IN(c, 0, 1, 6, 10);
  OUT(c, 0, 1, 4, 15);
  c.call.out[0].data = NULL;
  back_run(c);
  c = back_new(LK_OP_transpose);
  c.call.attr.other = 1;
  IN(c, 0, 1, 37, 45);
  back_run(c);
  c.call.attr.dim = 2;
  c.call.attr.other = 0;
  IN(c, 0, 1, 5, 6, 7, 3);
  back_run(c);
  c = back_new(LK_OP_slice);
  c.call.attr.dim = 1;
  c.call.attr.first = 2;
  IN(c, 0, 1, 4, 9, 3);
  OUT(c, 0, 1, 4, 5, 3);
  back_run(c);
  c.call.op = LK_OP_unslice;
  IN(c, 0, 1, 4, 5, 3);
  OUT(c, 0, 1, 4, 9, 3);
  back_run(c);
  c = back_new(LK_OP_cat);
  c.call.attr.dim = 1;
  IN(c, 0, 1, 4, 5, 3);
  IN(c, 1, 1, 4, 2, 3);
  back_run(c);
}

static void test_makers(void) {
  static const lk_dtype dtypes[] = {LK_F32, LK_I32, LK_U8, LK_I8, LK_BF16};
  NEED_DEVICE();
  for (int i = 0; i < 5; i++) {
    back_case c = back_new(LK_OP_fill);
    c.call.attr.value = 3.75;
    c.exact = 0;
    c.call.out[0] = (lk_tensor){NULL, dtypes[i], lk_shape_of(1001)};
    back_run(c);
  }
  back_case c = back_new(LK_OP_arange);
  c.call.attr.value = -3;
  c.call.attr.scale = 0.125;
  OUT(c, 0, 1, 1001);
  c.exact = 0;
  back_run(c);
  c = back_new(LK_OP_randn);
  c.call.attr.stream = 77;
  c.call.attr.scale = 0.02;
  c.call.in[0] = back_clock(5, 0);
  OUT(c, 0, 1, 1003);
  c.exact = 0; /* the same bits everywhere */
  back_run(c);
  c = back_new(LK_OP_copy);
  IN(c, 0, 1, 777);
  c.exact = 0;
  back_run(c);
  c = back_new(LK_OP_cast);
  c.exact = 0;
  c.rough = 0;
  IN(c, 0, 600, 777);
  c.call.out[0] = (lk_tensor){NULL, LK_E4M3, lk_shape_of(777)};
  back_run(c);
  c.call.out[0] = (lk_tensor){NULL, LK_BF16, lk_shape_of(777)};
  back_run(c);
  c.call.out[0] = (lk_tensor){NULL, LK_F16, lk_shape_of(777)};
  back_run(c);
}

/* --- products ------------------------------------------------------------ */

static void check_matmul(int64_t batch, int64_t m, int64_t n, int64_t k) {
  for (int t = 0; t < 8; t++) {
    back_case c = back_new(LK_OP_matmul);
    bool ta = t & 1, tb = t & 2;
    c.call.attr.transpose_a = ta;
    c.call.attr.transpose_b = tb;
    c.call.attr.accumulate = t & 4;
    IN(c, 0, 1, batch, ta ? k : m, ta ? m : k);
    IN(c, 1, 1, batch, tb ? n : k, tb ? k : n);
    OUT32(c, 0, 1, batch, m, n);
    if (t & 1) c.half_out = 1;
    back_run(c);
  }
}

static void test_matmul(void) {
  NEED_DEVICE();
  check_matmul(1, 64, 48, 80);
  check_matmul(3, 37, 29, 41);
  back_case c = back_new(LK_OP_matmul);
  c.call.attr.transpose_b = true;
  IN(c, 0, 1, 4, 96, 512);
  IN(c, 1, 1, 1536, 512);
  back_run(c);
  c = back_new(LK_OP_matmul); /* a weight's gradient, gathered in bf16 */
  c.call.attr.transpose_a = c.call.attr.accumulate = true;
  c.rough = 0;
  IN(c, 0, 1, 96, 40);
  IN(c, 1, 1, 96, 56);
  c.call.out[0] = back_bytes(LK_BF16, lk_shape_of(40, 56));
  memset(c.call.out[0].data, 0, 40 * 56 * 2);
  lk_tensor out[LK_MAX_RESULTS];
  CHECK(back_on_cuda(&c, LK_F32, false, out) == LK_OK, "%s",
        back_cuda->error.message);
  lk_call wanted = c.call;
  wanted.out[0] = back_copy(&wanted.out[0], false, LK_F32);
  back_on_cpu(&wanted);
  float got[40 * 56], want[40 * 56];
  int64_t at = 0;
  back_widen(LK_BF16, out[0].data, got, 40 * 56);
  back_widen(LK_BF16, wanted.out[0].data, want, 40 * 56);
  CHECK(back_error(got, want, 40 * 56, &at) < 0.01, "[%lld]", (long long)at);
}

static void test_bias(void) {
  NEED_DEVICE();
  for (int wide = 0; wide < 2; wide++) {
    int64_t columns = wide ? 1536 : 37;
    back_case c = back_new(LK_OP_bias);
    IN(c, 0, 1, 100, columns);
    IN32(c, 1, 1, columns);
    back_run(c);
    c = back_new(LK_OP_bias_backward);
    IN(c, 0, 1, 1000, columns);
    OUT32(c, 0, 1, columns);
    back_run(c);
    c.call.attr.accumulate = true;
    back_run(c);
  }
}

/* --- optimizers ---------------------------------------------------------- */

/* A gradient: f32 or bf16, never f16. */
static void run_gradient(back_case c) {
  back_covered[c.call.op] = true;
  back_run_in(&c, LK_F32);
  back_run_in(&c, LK_BF16);
}

static void test_gathering(void) {
  NEED_DEVICE();
  back_case c = back_new(LK_OP_accumulate);
  IN(c, 0, 1, 31, 37);
  OUT(c, 0, 1, 31, 37);
  run_gradient(c);
  c = back_new(LK_OP_sum_squares);
  c.call.attr.index = 2;
  IN(c, 0, 1, 20011); /* three pieces */
  OUT32(c, 0, 1, 6);
  c.call.out[1] = back_control(1);
  c.exact = 1e-6;
  run_gradient(c);
  ((float *)c.call.in[0].data)[12345] = INFINITY;
  run_gradient(c);
  c = back_new(LK_OP_clip);
  c.call.in[0] = back_positive(lk_shape_of(301), 0.1f, 1);
  c.call.out[0] = back_control(1);
  c.exact = 1e-6;
  back_run(c);
  c.call.in[0] = back_positive(lk_shape_of(60013), 0.1f, 1);
  back_run(c);
}

static void check_updates(float finite) {
  back_case c = back_new(LK_OP_adamw);
  c.call.attr = (lk_attr){.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.999,
                          .eps = 1e-8, .decay = 0.1};
  c.exact = 2e-7;
  c.rough = 1;
  IN(c, 0, 1, 5, 4001);
  c.call.in[1] = back_control(finite);
  OUT32(c, 0, 1, 5, 4001);
  OUT32(c, 1, 0.1f, 5, 4001);
  c.call.out[2] = back_positive(lk_shape_of(5, 4001), 0.01f, 0.1f);
  OUT(c, 3, 1, 5, 4001);
  run_gradient(c);
  c.call.op = LK_OP_sgd;
  c.call.attr.nesterov = true;
  c.call.out[3] = LK_ABSENT;
  OUT32(c, 1, 0.1f, 5, 4001);
  c.half_out = 0;
  OUT(c, 2, 1, 5, 4001);
  run_gradient(c);
  c.call.out[1] = LK_ABSENT;
  run_gradient(c);
  c = back_new(LK_OP_muon_momentum);
  c.call.attr.beta1 = 0.95;
  c.exact = 2e-7;
  c.rough = 1;
  IN(c, 0, 1, 5, 4001);
  c.call.in[1] = back_control(finite);
  OUT32(c, 0, 0.1f, 5, 4001);
  OUT(c, 1, 1, 5, 4001);
  run_gradient(c);
  c.call.op = LK_OP_muon_update;
  c.call.attr = (lk_attr){.lr = 1e-2, .scale = 2, .decay = 0.1};
  OUT32(c, 0, 1, 5, 4001);
  run_gradient(c);
}

static void test_updates(void) {
  NEED_DEVICE();
  check_updates(1);
  check_updates(0);
}

static void check_int8_momentum(int64_t block, int64_t columns) {
  back_case c = back_new(LK_OP_muon_momentum_int8);
  int64_t n = 3 * columns;
  c.call.attr = (lk_attr){.beta1 = 0.95, .block = block};
  c.exact = 0; /* codes too are the CPU's */
  c.rough = 1;
  IN(c, 0, 1, 3, columns);
  c.call.in[1] = back_control(1);
  c.call.out[0] = back_bytes(LK_I8, lk_shape_of(3, columns));
  c.call.out[1] = back_positive(lk_shape_of((n + block - 1) / block), 1e-3f,
                                1e-3f);
  OUT(c, 2, 1, 3, columns);
  run_gradient(c);
  c.half_in = 0; /* as layers have it: only the direction is short */
  run_gradient(c);
  c.call.in[1] = back_control(0);
  run_gradient(c);
}

static void test_int8_momentum(void) {
  NEED_DEVICE();
  check_int8_momentum(256, 1111);
  check_int8_momentum(64, 1111);
  check_int8_momentum(520, 1111);
  check_int8_momentum(256, 256 * 37);
}

static back_case schulz_case(int64_t k, int64_t rows, int64_t cols,
                             int64_t steps) {
  back_case c = back_new(LK_OP_newton_schulz);
  c.call.attr = (lk_attr){.steps = steps, .eps = 1e-7};
  c.exact = 3e-4;
  c.rough = 6; /* worked on in f16 */
  IN(c, 0, 1, k, rows, cols);
  return c;
}

static void check_schulz(int64_t k, int64_t rows, int64_t cols) {
  back_case c = schulz_case(k, rows, cols, 5);
  run_gradient(c);
  c.call.attr.steps = 4;
  run_gradient(c);
}

/* Small enough for a sanitizer. */
static void test_newton_schulz(void) {
  NEED_DEVICE();
  check_schulz(2, 64, 96);
  check_schulz(3, 96, 40);
  check_schulz(2, 27, 35);
  check_schulz(1, 256, 256);
}

static void test_newton_schulz_large(void) {
  NEED_DEVICE();
  check_schulz(2, 256, 1024);
  check_schulz(2, 640, 1000); /* symmetric products in halves */
  check_schulz(1, 1056, 704);
  check_schulz(3, 640, 256);
  check_schulz(2, 384, 384);
}

/* Sides that our own kernel takes, and one that it leaves in halves everywhere:
 * in 16 bits alone and few steps, for the CPU's time. */
static void test_newton_schulz_own(void) {
  static const int64_t cases[][4] = {{1, 1280, 1920, 3}, {2, 1936, 1288, 2},
                                     {2, 1280, 1280, 1}, {1, 1088, 1088, 1}};
  NEED_DEVICE();
  for (int i = 0; i < 4; i++) {
    const int64_t *s = cases[i];
    back_case c = schulz_case(s[0], s[1], s[2], s[3]);
    back_run_in(&c, LK_BF16);
  }
}

/* --- quantization -------------------------------------------------------- */

static void check_quantize(lk_format format, int64_t block, int64_t count,
                           bool search) {
  back_case c = back_new(LK_OP_quantize);
  c.call.attr = (lk_attr){.format = format, .block = block, .search = search};
  c.exact = 0;
  c.rough = 1e-9; /* scales of rounded values are the CPU's, too */
  IN(c, 0, 2, count);
  back_run(c);
  lk_call quantized = c.call;
  back_on_cpu(&quantized);
  c = back_new(LK_OP_dequantize);
  c.call.attr = (lk_attr){.format = format, .block = block};
  for (int i = 0; i < 3; i++) c.call.in[i] = quantized.out[i];
  OUT(c, 0, 1, count);
  c.exact = 0;
  c.rough = 1;
  back_run(c);
}

static void test_quantize(void) {
  NEED_DEVICE();
  for (int f = 0; f < LK_FORMAT_COUNT; f++) {
    check_quantize((lk_format)f, 0, 5003, false);
    bool fixed = f == LK_FORMAT_NVFP4 || f == LK_FORMAT_MXFP4;
    if (fixed) continue;
    check_quantize((lk_format)f, 32, 5003, f <= LK_FORMAT_INT4);
    check_quantize((lk_format)f, 8, 5003, f <= LK_FORMAT_INT4);
    check_quantize((lk_format)f, 264, 5003, f <= LK_FORMAT_INT4);
    check_quantize((lk_format)f, 1024, 5003, f <= LK_FORMAT_INT4);
  }
  check_quantize(LK_FORMAT_INT8, 64, 1 << 18, false);
}

static void check_nf4r(int64_t rows, int64_t block, bool search,
                       bool residual, bool stochastic) {
  back_case c = back_new(LK_OP_nf4r_encode);
  c.call.attr = (lk_attr){.block = block, .stream = 5, .search = search,
                          .stochastic = stochastic};
  c.exact = 0;
  IN32(c, 0, 0.1f, rows, rows * 3);
  c.call.in[1] = back_clock(9, 0);
  if (residual)
    c.call.out[2] = (lk_tensor){NULL, LK_I8, lk_shape_of(rows, rows * 3)};
  back_run(c);
  lk_call coded = c.call;
  back_on_cpu(&coded);
  c = back_new(LK_OP_nf4r_master);
  c.call.attr.block = block;
  c.exact = 0;
  for (int i = 0; i < 3; i++) c.call.in[i] = coded.out[i];
  c.call.out[0] = (lk_tensor){NULL, LK_F32, lk_shape_of(rows, rows * 3)};
  back_run(c);
  c = back_new(LK_OP_nf4r_update);
  c.call.attr = coded.attr;
  c.call.attr.lr = 1e-2;
  c.call.attr.scale = 1.5;
  c.call.attr.decay = 0.1;
  c.exact = 0;
  c.rough = 1e-9;
  IN(c, 0, 1, rows, rows * 3);
  c.call.in[1] = back_control(1);
  c.call.in[2] = back_clock(10, 0);
  for (int i = 0; i < 3; i++) c.call.out[i] = coded.out[i];
  run_gradient(c);
  c.call.in[1] = back_control(0);
  run_gradient(c);
}

static void test_nf4r(void) {
  NEED_DEVICE();
  check_nf4r(41, 64, false, true, false);
  check_nf4r(41, 64, true, true, false);
  check_nf4r(41, 32, true, false, true);
  check_nf4r(41, 264, true, true, false);
  check_nf4r(41, 1024, false, false, false);
  check_nf4r(44, 64, false, true, false); /* whole groups, a block is not */
  check_nf4r(512, 64, false, true, false);
  check_nf4r(256, 32, false, true, false);
  check_nf4r(64, 128, false, true, false);
}

/* --- all of them --------------------------------------------------------- */

static void test_coverage(void) {
  NEED_DEVICE();
  back_check_coverage(0, LK_OP_embed, false);
  back_check_coverage(LK_OP_accumulate, LK_OP_COUNT, false);
}

int main(void) {
  BACK_RUN(test_binary);
  BACK_RUN(test_unary);
  BACK_RUN(test_reductions);
  BACK_RUN(test_broadcasts);
  BACK_RUN(test_softmax);
  BACK_RUN(test_moves);
  BACK_RUN(test_makers);
  BACK_RUN(test_matmul);
  BACK_RUN(test_bias);
  BACK_RUN(test_gathering);
  BACK_RUN(test_updates);
  BACK_RUN(test_int8_momentum);
  BACK_RUN(test_newton_schulz);
  BACK_RUN(test_newton_schulz_large);
  BACK_RUN(test_newton_schulz_own);
  BACK_RUN(test_quantize);
  BACK_RUN(test_nf4r);
  BACK_RUN(test_coverage);
  lk_context_close(back_cuda);
  lk_context_close(back_cpu);
  return check_done();
}
