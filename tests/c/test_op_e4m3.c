/* Rows in e4m3: products against double-precision loops, turned and NF4
 * weights against decoding, transposing and quantizing by hand, and the codes
 * that operators give beside their result. */
#include "../../kernels/base/scalar.h"
#include "../../kernels/core/scratch.h"
#include "quant.h"

enum { M = 48, N = 80, K = 96 };

/* x [rows, cols] as codes and scales, by rows. */
static lk_call rows_of(float *x, int64_t rows, int64_t cols) {
  lk_call call = lk_call_new(LK_OP_quantize);
  call.in[0] = OPS_F32(x, rows, cols);
  call.attr.format = LK_FORMAT_E4M3;
  call.attr.block = cols;
  ops_run(&call);
  return call;
}

static void same_rows(const char *what, const lk_tensor *codes,
                      const lk_tensor *scales, const lk_call *want) {
  CHECK(memcmp(codes->data, want->out[0].data,
               (size_t)lk_tensor_bytes(codes)) == 0, "%s: codes", what);
  CHECK(memcmp(scales->data, want->out[1].data,
               (size_t)lk_tensor_bytes(scales)) == 0, "%s: scales", what);
}

/* --- codes --------------------------------------------------------------- */

/* Each row's largest magnitude becomes ±448, and no value is off by more than
 * half a step: 1/16 of it, or of the smallest normal code 2^-6. */
static void test_rows(void) {
  float *x = ops_numbers(M * K, 1, 3);
  for (int i = 0; i < K; i++) x[5 * K + i] = 0;
  x[7 * K + 3] = 1e30f;
  lk_call q = rows_of(x, M, K);
  const uint8_t *codes = q.out[0].data;
  const float *scales = q.out[1].data;
  for (int r = 0; r < M; r++) {
    float most = 0;
    for (int i = 0; i < K; i++) most = fmaxf(most, fabsf(x[r * K + i]));
    CHECK(scales[r] == most / 448, "scale %d is %g", r, (double)scales[r]);
    for (int i = 0; i < K; i++) {
      double v = x[r * K + i], unit = scales[r] > 0 ? v / scales[r] : 0;
      double got = lk_f32_from_e4m3(codes[r * K + i]);
      CHECK(fabs(got - unit) <= fmax(fabs(unit) / 16, 1. / 1024) * 1.0001,
            "[%d, %d] %g is coded as %g", r, i, unit, got);
    }
  }
}

static float *turned(const float *x, int64_t rows, int64_t cols) {
  float *y = ops_memory(rows * cols * 4);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++) y[c * rows + r] = x[r * cols + c];
  return y;
}

static void test_turn(void) {
  float *x = ops_numbers(N * K, 2, 1);
  x[3] = NAN;
  lk_call call = lk_call_new(LK_OP_e4m3_turn);
  call.in[0] = OPS_F32(x, N, K);
  ops_run(&call);
  lk_call want = rows_of(turned(x, N, K), K, N);
  same_rows("turned", &call.out[0], &call.out[1], &want);
}

static void test_from_nf4(void) {
  static const int64_t blocks[] = {64, 32, 104};
  for (int i = 0; i < 6; i++) {
    lk_call q = quantized(ops_numbers(N * K, 3, 1), N * K, LK_FORMAT_NF4,
                          blocks[i / 2], false);
    float *x = dequantized(&q, N * K);
    lk_call call = lk_call_new(LK_OP_e4m3_from_nf4);
    call.attr.block = blocks[i / 2];
    call.attr.transpose_a = i % 2;
    call.in[0] = ops_tensor(q.out[0].data, LK_U4, lk_shape_of(N, K));
    call.in[1] = q.out[1];
    ops_run(&call);
    lk_call want = i % 2 ? rows_of(turned(x, N, K), K, N) : rows_of(x, N, K);
    same_rows("of nf4", &call.out[0], &call.out[1], &want);
  }
}

/* --- the product --------------------------------------------------------- */

static void check_product(int64_t m, int64_t n, int64_t k) {
  lk_call a = rows_of(ops_numbers(m * k, 4, 2), m, k);
  lk_call b = rows_of(ops_numbers(n * k, 5, 1), n, k);
  const uint8_t *p = a.out[0].data, *q = b.out[0].data;
  const float *sa = a.out[1].data, *sb = b.out[1].data;
  double *want = ops_doubles(m * n);
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++)
      for (int64_t c = 0; c < k; c++)
        want[i * n + j] += (double)sa[i] * sb[j] *
                           lk_f32_from_e4m3(p[i * k + c]) *
                           lk_f32_from_e4m3(q[j * k + c]);
  lk_call call = lk_call_new(LK_OP_e4m3_matmul);
  call.in[0] = a.out[0];
  call.in[1] = a.out[1];
  call.in[2] = b.out[0];
  call.in[3] = b.out[1];
  ops_run(&call);
  ops_close("e4m3_matmul", call.out[0].data, want, m * n, 2e-6);
}

static void test_product(void) {
  check_product(M, N, K);
  check_product(16, 16, 16);
  check_product(LK_E4M3_ROWS + 32, 32, 48);
}

/* --- beside a result ----------------------------------------------------- */

/* Run `call` without and with codes at result `at`: the same result `y`, and
 * its codes. */
static void check_beside(lk_call call, int y, int at) {
  const char *name = lk_op_info_of(call.op)->name;
  lk_call plain = call;
  ops_run(&plain);
  call.out[at] = ops_tensor(NULL, LK_E4M3, lk_shape_of(M, K));
  call.out[at + 1] = ops_tensor(NULL, LK_F32, lk_shape_of(M));
  ops_run(&call);
  CHECK(memcmp(call.out[y].data, plain.out[y].data, M * K * 4) == 0,
        "%s: y differs with codes", name);
  lk_call want = rows_of(plain.out[y].data, M, K);
  same_rows(name, &call.out[at], &call.out[at + 1], &want);
}

static void test_beside(void) {
  lk_call call = lk_call_new(LK_OP_rmsnorm);
  call.attr = (lk_attr){.eps = 1e-6};
  call.in[0] = OPS_F32(ops_numbers(M * K, 6, 1), M, K);
  call.in[1] = OPS_F32(ops_numbers(K, 7, 1), K);
  check_beside(call, 0, 2);
  call = lk_call_new(LK_OP_residual_norm);
  call.attr = (lk_attr){.eps = 1e-6, .p = 0.2, .stream = 3};
  call.in[0] = OPS_F32(ops_numbers(M * K, 6, 1), M, K);
  call.in[1] = OPS_F32(ops_numbers(M * K, 8, 1), M, K);
  call.in[2] = OPS_F32(ops_numbers(K, 7, 1), K);
  call.in[3] = ops_clock(5, 1, 0);
  check_beside(call, 1, 3);
  call = lk_call_new(LK_OP_silu);
  call.attr = (lk_attr){.p = 0.2, .stream = 3};
  call.in[0] = OPS_F32(ops_numbers(M * K, 9, 4), M, K);
  call.in[1] = ops_clock(5, 1, 1);
  check_beside(call, 0, 1);
  call.op = LK_OP_dropout;
  check_beside(call, 0, 1);
  call.op = LK_OP_silu_backward;
  call.in[2] = call.in[1];
  call.in[1] = OPS_F32(ops_numbers(M * K, 10, 4), M, K);
  check_beside(call, 0, 1);
}

/* --- NVFP4 ---------------------------------------------------------------- */

/* Rows and columns of 16 fill 512-byte tiles of 128 rows and 4 columns, each
 * place once; in a tile, 32 rows follow each other in steps of 16 bytes. */
static void test_scale_places(void) {
  enum { ROWS = 300, COLS = 6 };
  static const int64_t known[][3] = {{0, 0, 0}, {0, 3, 3}, {1, 0, 16},
                                     {31, 0, 496}, {32, 0, 4}, {127, 3, 511},
                                     {0, 4, 512}, {128, 0, 1024},
                                     {299, 5, 2741}};
  bool taken[384 * 8] = {false};
  for (int i = 0; i < 9; i++)
    CHECK(lk_nvfp4_scale_at(known[i][0], known[i][1], COLS) == known[i][2],
          "row %lld, column %lld: %lld", (long long)known[i][0],
          (long long)known[i][1],
          (long long)lk_nvfp4_scale_at(known[i][0], known[i][1], COLS));
  CHECK(lk_nvfp4_scale_bytes(ROWS, COLS) == 384 * 8, "bytes");
  for (int64_t r = 0; r < 384; r++)
    for (int64_t c = 0; c < 8; c++) {
      int64_t at = lk_nvfp4_scale_at(r, c, COLS);
      CHECK(at >= 0 && at < 384 * 8 && !taken[at], "row %d, column %d: %d",
            (int)r, (int)c, (int)at);
      if (at >= 0 && at < 384 * 8) taken[at] = true;
    }
}

static void test_nvfp4(void) {
  lk_call call = lk_call_new(LK_OP_nvfp4_matmul);
  float *x[2];
  for (int i = 0; i < 2; i++) {
    int64_t rows = i ? N : M;
    lk_call q = quantized(ops_numbers(rows * K, 20 + i, 1), rows * K,
                          LK_FORMAT_NVFP4, 0, false);
    x[i] = dequantized(&q, rows * K);
    for (int k = 0; k < 3; k++) call.in[3 * i + k] = q.out[k];
    call.in[3 * i].shape = lk_shape_of(rows, K);
  }
  double *want = ops_doubles(M * N);
  for (int i = 0; i < M; i++)
    for (int j = 0; j < N; j++)
      for (int c = 0; c < K; c++)
        want[i * N + j] += (double)x[0][i * K + c] * x[1][j * K + c];
  ops_run(&call);
  ops_close("nvfp4_matmul", call.out[0].data, want, M * N, 2e-6);
}

int main(void) {
  OPS_RUN(test_rows);
  OPS_RUN(test_turn);
  OPS_RUN(test_from_nf4);
  OPS_RUN(test_product);
  OPS_RUN(test_beside);
  OPS_RUN(test_scale_places);
  OPS_RUN(test_nvfp4);
  return check_done();
}
