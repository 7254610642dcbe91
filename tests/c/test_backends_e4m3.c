/* Rows in e4m3 on CUDA against the CPU: codes and scales bit for bit, also
 * those given beside a result; products within rounding; whole programs.
 * Skipped without a device. */
#include "backends.h"

static lk_tensor codes_of(lk_shape shape) {
  return (lk_tensor){NULL, LK_E4M3, shape};
}

/* Codes without a NaN. */
static lk_tensor random_codes(int64_t rows, int64_t cols) {
  lk_tensor t = back_bytes(LK_E4M3, lk_shape_of(rows, cols));
  uint8_t *x = t.data;
  for (int64_t i = 0; i < rows * cols; i++)
    if ((x[i] & 0x7F) > 0x70) x[i] ^= 0x40;
  return t;
}

/* --- codes --------------------------------------------------------------- */

static void check_rows(int64_t rows, int64_t cols) {
  back_case c = back_new(LK_OP_quantize);
  c.call.attr = (lk_attr){.format = LK_FORMAT_E4M3, .block = cols};
  c.exact = 0;
  c.rough = 1e-9;
  IN(c, 0, 3, rows, cols);
  for (int i = 0; i < cols; i++) ((float *)c.call.in[0].data)[i] = 0;
  back_run(c);
  c.call.op = LK_OP_e4m3_turn;
  c.call.attr = (lk_attr){0};
  back_run(c);
}

static void test_rows(void) {
  static const int64_t widths[] = {64, 512, 768, 1024, 1280, 1536, 2304,
                                   3840, 5120, 8192, 8208};
  NEED_DEVICE();
  for (int i = 0; i < 11; i++) check_rows(i % 2 ? 64 : 48, widths[i]);
  check_rows(1280, 208);
  check_rows(5120, 64);
}

static void check_nf4(int64_t rows, int64_t cols, int64_t block) {
  back_case c = back_new(LK_OP_quantize);
  c.call.attr = (lk_attr){.format = LK_FORMAT_NF4, .block = block};
  IN(c, 0, 1, rows, cols);
  lk_call q = c.call;
  back_on_cpu(&q);
  c = back_new(LK_OP_e4m3_from_nf4);
  c.exact = 0;
  c.call.in[0] = q.out[0];
  c.call.in[1] = q.out[1];
  c.call.attr.block = block;
  back_run(c);
  c.call.attr.transpose_a = true;
  back_run(c);
}

static void test_nf4(void) {
  NEED_DEVICE();
  check_nf4(64, 96, 64);
  check_nf4(208, 1280, 64);
  check_nf4(1280, 512, 32);
  check_nf4(48, 208, 104);
}

/* --- beside a result ----------------------------------------------------- */

/* The device's own result `y`, quantized on the CPU, has the codes that the
 * device gave beside it. */
static void check_beside_in(const back_case *c, int y, int at,
                            lk_dtype dtype) {
  const char *name = lk_op_info_of(c->call.op)->name;
  lk_tensor out[LK_MAX_RESULTS];
  lk_status status = back_on_cuda(c, dtype, false, out);
  CHECK(status == LK_OK, "%s: %s", name, back_cuda->error.message);
  if (status != LK_OK) return;
  int64_t n = lk_tensor_count(&out[y]), width = out[y].shape.dim[1];
  lk_call q = lk_call_new(LK_OP_quantize);
  q.attr = (lk_attr){.format = LK_FORMAT_E4M3, .block = width};
  q.in[0] = (lk_tensor){back_memory(n * 4), LK_F32, out[y].shape};
  back_widen(out[y].dtype, out[y].data, q.in[0].data, n);
  back_on_cpu(&q);
  back_case wanted = *c;
  for (int k = 0; k < 2; k++)
    back_compare_bytes(&wanted, at + k, &out[at + k], &q.out[k], LK_F32);
}

static void check_beside(back_case c, int y, int at, int64_t rows,
                         int64_t cols) {
  back_case plain = c;
  back_run(plain); /* the result itself */
  c.call.out[at] = codes_of(lk_shape_of(rows, cols));
  c.call.out[at + 1] = (lk_tensor){NULL, LK_F32, lk_shape_of(rows)};
  check_beside_in(&c, y, at, LK_F32);
  check_beside_in(&c, y, at, LK_BF16);
  check_beside_in(&c, y, at, LK_F16);
}

static void check_all_beside(int64_t rows, int64_t cols) {
  back_case c = back_new(LK_OP_rmsnorm);
  c.call.attr.eps = 1e-6;
  IN(c, 0, 2, rows, cols);
  IN32(c, 1, 1, cols);
  check_beside(c, 0, 2, rows, cols);
  c = back_new(LK_OP_residual_norm);
  c.call.attr = (lk_attr){.eps = 1e-6, .p = 0.1, .stream = 4};
  IN(c, 0, 2, rows, cols);
  IN(c, 1, 2, rows, cols);
  IN32(c, 2, 1, cols);
  c.call.in[3] = back_clock(2, 1);
  check_beside(c, 1, 3, rows, cols);
  c = back_new(LK_OP_silu);
  c.call.attr = (lk_attr){.p = 0.1, .stream = 8};
  IN(c, 0, 6, rows, cols);
  c.call.in[1] = back_clock(3, 1);
  check_beside(c, 0, 1, rows, cols);
  c.call.op = LK_OP_dropout;
  c.exact = 0;
  c.rough = 1;
  check_beside(c, 0, 1, rows, cols);
  c = back_new(LK_OP_silu_backward);
  c.call.attr = (lk_attr){.p = 0.1, .stream = 8};
  IN(c, 0, 1, rows, cols);
  IN(c, 1, 6, rows, cols);
  c.call.in[2] = back_clock(3, 1);
  check_beside(c, 0, 1, rows, cols);
}

static void test_beside(void) {
  NEED_DEVICE();
  check_all_beside(48, 512);
  check_all_beside(33, 1280);
  check_all_beside(16, 2048);
  check_all_beside(16, 3072);
  check_all_beside(16, 5120);
  check_all_beside(16, 72);
  check_all_beside(3, 9000);
}

/* --- products ------------------------------------------------------------ */

/* Below the capability that has them refused, saying which. */
static void check_refused(const back_case *c, const char *words) {
  lk_tensor out[LK_MAX_RESULTS];
  CHECK(back_on_cuda(c, LK_F32, false, out) == LK_UNSUPPORTED, "it ran");
  CHECK(strstr(back_cuda->error.message, words), "%s",
        back_cuda->error.message);
}

static void check_product(int64_t m, int64_t n, int64_t k) {
  back_case c = back_new(LK_OP_e4m3_matmul);
  c.call.in[0] = random_codes(m, k);
  c.call.in[1] = back_positive(lk_shape_of(m), 0.1f, 1);
  c.call.in[2] = random_codes(n, k);
  c.call.in[3] = back_positive(lk_shape_of(n), 0.1f, 1);
  OUT(c, 0, 1, m, n);
  c.call.out[0].data = NULL;
  c.exact = 5e-3; /* the device adds with fewer bits */
  c.rough = 2;
  back_covered[LK_OP_e4m3_matmul] = true;
  if (!back_capable(8.9)) {
    check_refused(&c, "fp8 (e4m3_matmul) needs compute capability 8.9");
    return;
  }
  back_run_in(&c, LK_F32);
  back_run_in(&c, LK_BF16);
}

static void test_product(void) {
  NEED_DEVICE();
  check_product(64, 48, 80);
  check_product(16, 16, 16);
  check_product(288, 384, 128);
  check_product(2048, 1536, 512);
  check_product(512, 1280, 5120);
}

/* Below compute capability 10.0 refused; from there on as on the CPU. */
static void test_nvfp4(void) {
  NEED_DEVICE();
  enum { ROWS = 160, LONG = 192 };
  back_case c = back_new(LK_OP_nvfp4_matmul);
  for (int i = 0; i < 2; i++) {
    lk_call q = lk_call_new(LK_OP_quantize);
    q.attr.format = LK_FORMAT_NVFP4;
    q.in[0] = back_float(lk_shape_of(ROWS, LONG), 1);
    back_on_cpu(&q);
    for (int k = 0; k < 3; k++) c.call.in[3 * i + k] = q.out[k];
  }
  c.call.out[0] = (lk_tensor){NULL, LK_F32, lk_shape_of(ROWS, ROWS)};
  back_covered[LK_OP_nvfp4_matmul] = true;
  if (!back_capable(10)) {
    check_refused(&c, "needs compute capability 10.0");
    return;
  }
  c.exact = 1e-4;
  back_run_in(&c, LK_F32);
}

static void test_coverage(void) {
  NEED_DEVICE();
  back_check_coverage(0, LK_OP_COUNT, true);
}

int main(void) {
  BACK_RUN(test_rows);
  BACK_RUN(test_nf4);
  BACK_RUN(test_beside);
  BACK_RUN(test_product);
  BACK_RUN(test_nvfp4);
  BACK_RUN(test_coverage);
  lk_context_close(back_cuda);
  lk_context_close(back_cpu);
  return check_done();
}
