/* Arithmetic with broadcasting, functions of one operand, conversions,
 * constants. */
#include "../../kernels/base/convert.h"
#include "ops.h"

static double apply(lk_op op, double a, double b) {
  switch (op) {
    case LK_OP_add: return a + b;
    case LK_OP_sub: return a - b;
    case LK_OP_mul: return a * b;
    default: return a / b;
  }
}

/* The element of x that position `at` of y (shape `y`) broadcasts from. */
static int64_t source(lk_shape x, lk_shape y, int64_t at) {
  int64_t index = 0, size = 1;
  for (int i = y.rank - 1; i >= 0; i--, at /= y.dim[i + 1]) {
    int j = i - (y.rank - x.rank);
    if (j < 0) break;
    if (x.dim[j] > 1) index += at % y.dim[i] * size;
    size *= x.dim[j];
  }
  return index;
}

static void check_binary(lk_shape a, lk_shape b) {
  int64_t na = lk_shape_count(a), nb = lk_shape_count(b);
  float *x = ops_numbers(na, 1, 2), *z = ops_numbers(nb, 2, 2);
  for (int64_t i = 0; i < nb; i++) z[i] += z[i] < 0 ? -1.0f : 1.0f;
  for (lk_op op = LK_OP_add; op <= LK_OP_div; op++) {
    lk_call call = lk_call_new(op);
    call.in[0] = ops_tensor(x, LK_F32, a);
    call.in[1] = ops_tensor(z, LK_F32, b);
    ops_run(&call);
    lk_shape y = call.out[0].shape;
    double *want = ops_doubles(lk_shape_count(y));
    for (int64_t i = 0; i < lk_shape_count(y); i++)
      want[i] = apply(op, x[source(a, y, i)], z[source(b, y, i)]);
    ops_close(lk_op_info_of(op)->name, call.out[0].data, want,
              lk_shape_count(y), 1e-7);
  }
}

static lk_shape scalar(void) { return (lk_shape){.rank = 0}; }

static void test_binary(void) {
  check_binary(lk_shape_of(3, 5, 7), lk_shape_of(3, 5, 7));
  check_binary(lk_shape_of(3, 5, 7), lk_shape_of(7));
  check_binary(lk_shape_of(7), lk_shape_of(3, 5, 7));
  check_binary(lk_shape_of(3, 5, 7), lk_shape_of(5, 1));
  check_binary(lk_shape_of(3, 1, 7), lk_shape_of(5, 1));
  check_binary(lk_shape_of(2, 1, 3, 1, 5), lk_shape_of(4, 1, 6, 5));
  check_binary(lk_shape_of(3, 5), scalar());
  check_binary(scalar(), lk_shape_of(3, 5));
  check_binary(scalar(), scalar());
  check_binary(lk_shape_of(50000), lk_shape_of(50000));
  check_binary(lk_shape_of(40000, 1), lk_shape_of(1, 3));
}

typedef struct unary {
  lk_op op;
  double (*f)(double);
  double scale, shift, tolerance;
} unary;

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double relu(double x) { return x > 0 ? x : 0; }

static void test_unary(void) {
  enum { N = 20011 };
  static const unary cases[] = {
      {LK_OP_exp, exp, 20, 0, 4e-7},   {LK_OP_log, log, 5, 5.0001, 4e-7},
      {LK_OP_sqrt, sqrt, 5, 5, 1e-7},  {LK_OP_tanh, tanh, 3, 0, 4e-7},
      {LK_OP_sigmoid, sigmoid, 9, 0, 4e-7}, {LK_OP_relu, relu, 1, 0, 0}};
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    float *x = ops_numbers(N, 3, (float)cases[k].scale);
    double *want = ops_doubles(N);
    for (int i = 0; i < N; i++) {
      x[i] += (float)cases[k].shift;
      want[i] = cases[k].f(x[i]);
    }
    lk_call call = lk_call_new(cases[k].op);
    call.in[0] = OPS_F32(x, N);
    ops_run(&call);
    ops_close(lk_op_info_of(call.op)->name, call.out[0].data, want, N,
              cases[k].tolerance);
  }
}

static void test_affine_pow(void) {
  enum { N = 1009 };
  static const double powers[] = {2, -1, 0.5, 3, 1.7};
  float *x = ops_numbers(N, 4, 1);
  double *want = ops_doubles(N);
  lk_call call = lk_call_new(LK_OP_affine);
  call.attr = (lk_attr){.scale = -1.5, .value = 0.25};
  for (int i = 0; i < N; i++) want[i] = -1.5 * x[i] + 0.25;
  call.in[0] = OPS_F32(x, N);
  ops_run(&call);
  ops_close("affine", call.out[0].data, want, N, 2e-7);
  for (int i = 0; i < N; i++) x[i] += 1.25f;
  for (int k = 0; k < 5; k++) {
    lk_call raise = lk_call_new(LK_OP_pow);
    raise.attr.value = powers[k];
    raise.in[0] = OPS_F32(x, N);
    for (int i = 0; i < N; i++) want[i] = pow(x[i], powers[k]);
    ops_run(&raise);
    ops_close("pow", raise.out[0].data, want, N, 3e-7);
  }
}

static void test_relu_backward(void) {
  enum { N = 999 };
  float *x = ops_numbers(N, 5, 1), *dy = ops_numbers(N, 6, 1);
  double *want = ops_doubles(N);
  x[3] = 0;
  for (int i = 0; i < N; i++) want[i] = x[i] > 0 ? dy[i] : 0;
  lk_call call = lk_call_new(LK_OP_relu_backward);
  call.in[0] = OPS_F32(dy, N);
  call.in[1] = OPS_F32(x, N);
  ops_run(&call);
  ops_close("dx", call.out[0].data, want, N, 0);
}

/* --- conversions and constants ------------------------------------------- */

static double decode(lk_dtype dtype, const void *data, int64_t i) {
  switch (dtype) {
    case LK_F32: return ((const float *)data)[i];
    case LK_BF16: return lk_f32_from_bf16(((const uint16_t *)data)[i]);
    case LK_F16: return lk_f32_from_f16(((const uint16_t *)data)[i]);
    default: return lk_f32_from_e4m3(((const uint8_t *)data)[i]);
  }
}

/* Through every pair of float dtypes: within half a step of the target of what
 * the source stands for; bits of mantissa 23, 7, 10, 3. */
static void test_cast(void) {
  enum { N = 2111 };
  static const double half_step[] = {6e-8, 1 / 256., 1 / 2048., 1 / 16.};
  for (lk_dtype from = LK_F32; from <= LK_E4M3; from++)
    for (lk_dtype to = LK_F32; to <= LK_E4M3; to++) {
      lk_call first = lk_call_new(LK_OP_cast);
      first.in[0] = OPS_F32(ops_numbers(N, 7, 100), N);
      first.out[0] = ops_tensor(ops_memory(lk_dtype_bytes(from, N)), from,
                                lk_shape_of(N));
      ops_run(&first);
      lk_call second = lk_call_new(LK_OP_cast);
      second.in[0] = first.out[0];
      second.out[0] = ops_tensor(ops_memory(lk_dtype_bytes(to, N)), to,
                                 lk_shape_of(N));
      ops_run(&second);
      for (int i = 0; i < N; i++) {
        double x = decode(from, first.out[0].data, i);
        double y = decode(to, second.out[0].data, i);
        CHECK(fabs(x - y) <= half_step[to] * fabs(x) + 1e-3,
              "%s to %s: %g became %g", lk_dtype_word(from),
              lk_dtype_word(to), x, y);
        if (from == to) CHECK(x == y, "%s changed", lk_dtype_word(to));
      }
    }
}

static void check_fill(lk_dtype dtype, double value, double want) {
  enum { N = 5003 };
  lk_call call = lk_call_new(LK_OP_fill);
  call.attr.value = value;
  call.out[0] = ops_tensor(ops_memory(lk_dtype_bytes(dtype, N)), dtype,
                           lk_shape_of(N));
  ops_run(&call);
  for (int i = 0; i < N; i++) {
    const void *y = call.out[0].data;
    double got = dtype == LK_I32   ? ((const int32_t *)y)[i]
                 : dtype == LK_U32 ? ((const uint32_t *)y)[i]
                 : dtype == LK_I8  ? ((const int8_t *)y)[i]
                 : dtype == LK_U8  ? ((const uint8_t *)y)[i]
                                   : decode(dtype, y, i);
    CHECK(got == want, "%s [%d]: %g, should be %g", lk_dtype_word(dtype), i,
          got, want);
    if (got != want) return;
  }
}

static void test_fill(void) {
  for (lk_dtype dtype = LK_F32; dtype <= LK_E4M3; dtype++)
    check_fill(dtype, -1.5, -1.5);
  check_fill(LK_I32, -7, -7);
  check_fill(LK_I32, 1e20, INT32_MAX);
  check_fill(LK_U32, 4294967295.0, 4294967295.0);
  check_fill(LK_I8, -3, -3);
  check_fill(LK_U8, 300, 255);
}

static void test_arange(void) {
  enum { N = 300 };
  lk_call call = lk_call_new(LK_OP_arange);
  call.attr = (lk_attr){.value = 2, .scale = -0.5};
  call.out[0] = OPS_F32(ops_memory(N * 4), N);
  ops_run(&call);
  for (int i = 0; i < N; i++)
    CHECK(((float *)call.out[0].data)[i] == 2 - 0.5f * (float)i, "[%d]", i);
  call.attr = (lk_attr){.value = -5, .scale = 3};
  call.out[0] = OPS_I32(ops_memory(N * 4), N);
  ops_run(&call);
  for (int i = 0; i < N; i++)
    CHECK(((int32_t *)call.out[0].data)[i] == 3 * i - 5, "[%d]", i);
}

static void test_copy(void) {
  enum { N = 300007 };
  float *x = ops_numbers(N, 8, 1);
  lk_call call = lk_call_new(LK_OP_copy);
  call.in[0] = OPS_F32(x, N);
  ops_run(&call);
  CHECK(!memcmp(call.out[0].data, x, N * sizeof *x), "a copy is the same");
}

int main(void) {
  OPS_RUN(test_binary);
  OPS_RUN(test_unary);
  OPS_RUN(test_affine_pow);
  OPS_RUN(test_relu_backward);
  OPS_RUN(test_cast);
  OPS_RUN(test_fill);
  OPS_RUN(test_arange);
  OPS_RUN(test_copy);
  return check_done();
}
