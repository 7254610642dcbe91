/* matmul, bias and bias_backward against double-precision loops. */
#include "../../kernels/base/convert.h"
#include "ops.h"

/* y [m, n] of one product */
static void reference(const float *a, const float *b, double *y, int64_t m,
                      int64_t n, int64_t k, bool ta, bool tb) {
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      double sum = 0;
      for (int64_t q = 0; q < k; q++)
        sum += (double)(ta ? a[q * m + i] : a[i * k + q]) *
               (double)(tb ? b[j * k + q] : b[q * n + j]);
      y[i * n + j] = sum;
    }
}

static void check_product(int64_t m, int64_t n, int64_t k, bool ta, bool tb,
                          bool accumulate) {
  lk_call call = lk_call_new(LK_OP_matmul);
  call.attr.transpose_a = ta;
  call.attr.transpose_b = tb;
  call.attr.accumulate = accumulate;
  float *a = ops_numbers(m * k, 1, 1), *b = ops_numbers(k * n, 2, 1);
  call.in[0] = ta ? OPS_F32(a, k, m) : OPS_F32(a, m, k);
  call.in[1] = tb ? OPS_F32(b, n, k) : OPS_F32(b, k, n);
  double *want = ops_doubles(m * n);
  reference(a, b, want, m, n, k, ta, tb);
  if (accumulate) {
    float *y = ops_numbers(m * n, 3, 1);
    for (int64_t i = 0; i < m * n; i++) want[i] += y[i];
    call.out[0] = OPS_F32(y, m, n);
  }
  ops_run(&call);
  ops_close("matmul", call.out[0].data, want, m * n, 2e-6);
}

static void test_matmul(void) {
  for (int bits = 0; bits < 8; bits++) {
    check_product(13, 61, 37, bits & 1, bits & 2, bits & 4);
    check_product(1, 7, 3, bits & 1, bits & 2, bits & 4);
    check_product(150, 530, 9, bits & 1, bits & 2, bits & 4);
  }
}

/* [2, 3, M, Q] · [2, 3, Q, N], and · [Q, N] with all rows as one matrix. */
static void test_matmul_batch(void) {
  enum { B = 6, M = 5, N = 11, K = 7 };
  float *a = ops_numbers(B * M * K, 4, 1), *b = ops_numbers(B * K * N, 5, 1);
  double *want = ops_doubles(B * M * N);
  for (int bits = 0; bits < 4; bits++) {
    bool ta = bits & 1, tb = bits & 2;
    lk_call call = lk_call_new(LK_OP_matmul);
    call.attr.transpose_a = ta;
    call.attr.transpose_b = tb;
    call.in[0] = ta ? OPS_F32(a, 2, 3, K, M) : OPS_F32(a, 2, 3, M, K);
    call.in[1] = tb ? OPS_F32(b, 2, 3, N, K) : OPS_F32(b, 2, 3, K, N);
    for (int i = 0; i < B; i++)
      reference(a + i * M * K, b + i * K * N, want + i * M * N, M, N, K, ta,
                tb);
    ops_run(&call);
    ops_close("batch", call.out[0].data, want, B * M * N, 2e-6);
  }
  lk_call call = lk_call_new(LK_OP_matmul);
  call.in[0] = OPS_F32(a, 2, 3, M, K);
  call.in[1] = OPS_F32(b, K, N);
  reference(a, b, want, B * M, N, K, false, false);
  ops_run(&call);
  ops_close("rows", call.out[0].data, want, B * M * N, 2e-6);
}

/* A bf16 result is the f32 product rounded, or added and rounded. */
static void test_matmul_bf16(void) {
  enum { M = 19, N = 23, K = 31 };
  float *a = ops_numbers(M * K, 6, 1), *b = ops_numbers(K * N, 7, 1);
  float *c = ops_numbers(M * N, 8, 1);
  double *want = ops_doubles(M * N);
  reference(a, b, want, M, N, K, false, false);
  for (int accumulate = 0; accumulate < 2; accumulate++) {
    lk_call call = lk_call_new(LK_OP_matmul);
    uint16_t *y = ops_memory(M * N * 2);
    for (int i = 0; i < M * N; i++) y[i] = lk_bf16_from_f32(c[i]);
    call.attr.accumulate = accumulate;
    call.in[0] = OPS_F32(a, M, K);
    call.in[1] = OPS_F32(b, K, N);
    call.out[0] = ops_tensor(y, LK_BF16, lk_shape_of(M, N));
    ops_run(&call);
    for (int i = 0; i < M * N; i++) {
      double old = lk_f32_from_bf16(lk_bf16_from_f32(c[i]));
      double goal = want[i] + (accumulate ? old : 0);
      double error = fabs(lk_f32_from_bf16(y[i]) - goal);
      CHECK(error <= fabs(goal) / 256 + 1e-5, "[%d] %g, should be %g", i,
            lk_f32_from_bf16(y[i]), goal);
    }
  }
}

static void test_bias(void) {
  enum { N = 77, C = 37 };
  float *x = ops_numbers(N * C, 9, 1), *b = ops_numbers(C, 10, 1);
  double *want = ops_doubles(N * C);
  for (int i = 0; i < N * C; i++) want[i] = (double)x[i] + b[i % C];
  lk_call call = lk_call_new(LK_OP_bias);
  call.in[0] = OPS_F32(x, N, C);
  call.in[1] = OPS_F32(b, C);
  ops_run(&call);
  ops_close("bias", call.out[0].data, want, N * C, 1e-7);
}

static void test_bias_backward(void) {
  enum { N = 1003, C = 37 };
  for (int accumulate = 0; accumulate < 2; accumulate++) {
    float *dy = ops_numbers(N * C, 11, 1), *db = ops_numbers(C, 12, 1);
    double *want = ops_doubles(C);
    for (int i = 0; i < C && accumulate; i++) want[i] = db[i];
    for (int i = 0; i < N * C; i++) want[i % C] += dy[i];
    lk_call call = lk_call_new(LK_OP_bias_backward);
    call.attr.accumulate = accumulate;
    call.in[0] = OPS_F32(dy, N, C);
    call.out[0] = OPS_F32(db, C);
    ops_run(&call);
    ops_close("db", db, want, C, 2e-6);
  }
}

int main(void) {
  OPS_RUN(test_matmul);
  OPS_RUN(test_matmul_batch);
  OPS_RUN(test_matmul_bf16);
  OPS_RUN(test_bias);
  OPS_RUN(test_bias_backward);
  return check_done();
}
