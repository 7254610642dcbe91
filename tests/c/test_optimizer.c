/* Optimizers against plain double-precision code, Newton-Schulz against the
 * iteration written out. */
#include "../../kernels/base/scalar.h"
#include "ops.h"

/* --- what the tests share ------------------------------------------------ */

static float *control_of(float rate, float loss_scale, float t, bool finite) {
  float *c = ops_memory(LK_CONTROL * 4);
  memset(c, 0, LK_CONTROL * 4);
  c[LK_CONTROL_RATE] = rate;
  c[LK_CONTROL_LOSS_SCALE] = loss_scale;
  c[LK_CONTROL_CLIP] = 1;
  c[LK_CONTROL_MUON_FACTOR] = .8f;
  c[LK_CONTROL_STEP] = t;
  c[LK_CONTROL_FACTOR] = .6f;
  c[LK_CONTROL_FINITE] = finite;
  return c;
}

/* x as a tensor of `dtype` [n]; x becomes what the tensor stands for. */
static lk_tensor rounded(float *x, lk_dtype dtype, int64_t n) {
  if (dtype == LK_F32) return OPS_F32(x, n);
  uint16_t *half = ops_memory(n * 2);
  for (int64_t i = 0; i < n; i++) {
    half[i] = lk_bf16_from_f32(x[i]);
    x[i] = lk_f32_from_bf16(half[i]);
  }
  return ops_tensor(half, dtype, lk_shape_of(n));
}

static float *copied(const float *x, int64_t n) {
  return memcpy(ops_memory(n * 4), x, (size_t)n * 4);
}

static const lk_dtype gradients[2] = {LK_F32, LK_BF16};

/* --- conversions --------------------------------------------------------- */

/* Every value of the small formats, and nearest-even between neighbours. */
static void test_conversions(void) {
  for (uint32_t i = 0; i < 65536; i++) {
    uint16_t h = (uint16_t)i;
    float b = lk_f32_from_bf16(h), f = lk_f32_from_f16(h);
    if (!isnan(b)) CHECK(lk_bf16_from_f32(b) == h, "bf16 %04x", h);
    else CHECK(isnan(lk_f32_from_bf16(lk_bf16_from_f32(b))), "bf16 %04x", h);
    if (!isnan(f)) CHECK(lk_f16_from_f32(f) == h, "f16 %04x", h);
    else CHECK(isnan(lk_f32_from_f16(lk_f16_from_f32(f))), "f16 %04x", h);
    int e = h >> 10 & 31, m = h & 1023;
    double want = e == 31 ? (m ? NAN : INFINITY)
                  : e     ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    if (h & 0x8000) want = -want;
    CHECK(f == want || (isnan(f) && isnan(want)), "f16 %04x is %g", h,
          (double)f);
  }
  for (uint32_t i = 0; i < 0x7BFF; i++) { /* halfway goes to the even one */
    float a = lk_f32_from_f16((uint16_t)i);
    float b = lk_f32_from_f16((uint16_t)(i + 1));
    uint16_t even = (uint16_t)(i + (i & 1));
    CHECK(lk_f16_from_f32((a + b) / 2) == even, "f16 after %04x", i);
    CHECK(lk_f16_from_f32(nextafterf((a + b) / 2, 1e9f)) == i + 1, "%04x", i);
  }
  CHECK(lk_f16_from_f32(65519) == 0x7BFF && lk_f16_from_f32(65520) == 0x7C00,
        "f16 overflow");
  CHECK(lk_bf16_from_f32(0x1.01p0f) == 0x3F80, "bf16 tie down");
  CHECK(lk_bf16_from_f32(0x1.03p0f) == 0x3F82, "bf16 tie up");
  CHECK(lk_bf16_from_f32(3.4e38f) == 0x7F80, "bf16 overflow");
  for (int i = 0; i < 256; i++) {
    float v = lk_f32_from_e4m3((uint8_t)i);
    if ((i & 127) == 127) CHECK(isnan(v), "e4m3 %02x", i);
    else CHECK(lk_e4m3_from_f32(v) == i, "e4m3 %02x", i);
  }
  CHECK(lk_e4m3_from_f32(1e9f) == 0x7E && lk_e4m3_from_f32(-INFINITY) == 0xFE,
        "e4m3 saturates");
  CHECK(lk_e4m3_from_f32(NAN) == 0x7F, "e4m3 NaN");
}

/* --- gathering and measuring --------------------------------------------- */

static void test_accumulate(void) {
  enum { N = 20011 };
  for (int k = 0; k < 4; k++) {
    float *y = ops_numbers(N, 1, 1), *x = ops_numbers(N, 2, 1);
    lk_call call = lk_call_new(LK_OP_accumulate);
    call.in[0] = rounded(x, gradients[k & 1], N);
    call.out[0] = rounded(y, gradients[k >> 1], N);
    ops_run(&call);
    for (int64_t i = 0; i < N; i++) {
      float sum = y[i] + x[i];
      bool ok = k >> 1 ? ((uint16_t *)call.out[0].data)[i] ==
                             lk_bf16_from_f32(sum)
                       : true;
      CHECK(ok, "bf16 [%d]", (int)i);
    }
  }
  float *y = ops_numbers(N, 1, 1), *x = ops_numbers(N, 2, 1);
  double *want = ops_widen(y, N);
  for (int64_t i = 0; i < N; i++) want[i] += (double)x[i];
  lk_call call = lk_call_new(LK_OP_accumulate);
  call.in[0] = OPS_F32(x, N);
  call.out[0] = OPS_F32(y, N);
  ops_once(&call, 2);
  ops_close("accumulate", y, want, N, 1e-7);
}

/* Into slots 3 … 6 of 8. */
static void squares(float *g, lk_dtype dtype, int64_t n, float *slots,
                    float *control) {
  lk_call call = lk_call_new(LK_OP_sum_squares);
  call.in[0] = rounded(g, dtype, n);
  call.out[0] = OPS_F32(slots, 8);
  call.out[1] = OPS_F32(control, LK_CONTROL);
  call.attr.index = 3;
  ops_run(&call);
}

static void test_sum_squares(void) {
  enum { N = 30007, PIECE = 8192, PIECES = 4 };
  for (int k = 0; k < 2; k++) {
    float *g = ops_numbers(N, 3, 2), *slots = ops_numbers(8, 4, 1);
    float *control = control_of(1, 8, 1, true), *before = copied(slots, 8);
    squares(g, gradients[k], N, slots, control);
    double want[PIECES] = {0};
    for (int64_t i = 0; i < N; i++)
      want[i / PIECE] += g[i] / 8.0 * (g[i] / 8.0);
    ops_close("sum_squares", slots + 3, want, PIECES, 1e-6);
    CHECK(memcmp(slots, before, 3 * 4) == 0 && slots[7] == before[7],
          "only [3] … [6]");
    CHECK(control[LK_CONTROL_FINITE] == 1, "the flag falls");
    g[k ? N - 1 : 0] = k ? NAN : INFINITY;
    squares(g, gradients[k], N, slots, control);
    CHECK(control[LK_CONTROL_FINITE] == 0, "the flag stands");
  }
}

/* As many slots as a large model has: a norm from all of them. */
static void test_clip_long(void) {
  enum { N = 60013 };
  float *slots = ops_memory(N * 4), *control = control_of(1, 1, 1, true);
  double sum = 0;
  for (int i = 0; i < N; i++) {
    slots[i] = 1e-3f * (float)(i % 7 + 1);
    sum += (double)slots[i];
  }
  lk_call call = lk_call_new(LK_OP_clip);
  call.in[0] = OPS_F32(slots, N);
  call.out[0] = OPS_F32(control, LK_CONTROL);
  ops_run(&call);
  CHECK(fabs((double)control[LK_CONTROL_NORM] / sqrt(sum) - 1) < 1e-7, "%g",
        (double)control[LK_CONTROL_NORM]);
}

static void test_clip(void) {
  static const float limits[3] = {1, 100, INFINITY};
  static const double factors[3] = {1.0 / 13, 1, 1};
  for (int k = 0; k < 3; k++) {
    float *slots = ops_memory(3 * 4), *control = control_of(1, 1, 1, true);
    slots[0] = 25, slots[1] = 0, slots[2] = 144;
    control[LK_CONTROL_CLIP] = limits[k];
    lk_call call = lk_call_new(LK_OP_clip);
    call.in[0] = OPS_F32(slots, 3);
    call.out[0] = OPS_F32(control, LK_CONTROL);
    ops_run(&call);
    CHECK(control[LK_CONTROL_NORM] == 13, "%g",
          (double)control[LK_CONTROL_NORM]);
    CHECK(fabs(control[LK_CONTROL_FACTOR] - factors[k]) < 1e-7, "%g",
          (double)control[LK_CONTROL_FACTOR]);
  }
}

/* --- AdamW, SGD ---------------------------------------------------------- */

/* What the copy must hold: w rounded to the copy's dtype. */
static void check_copy(const lk_tensor *copy, const float *w, int64_t n) {
  const uint16_t *half = copy->data;
  for (int64_t i = 0; i < n; i++) {
    bool ok = copy->dtype == LK_F32 ? ((float *)copy->data)[i] == w[i]
              : copy->dtype == LK_BF16 ? half[i] == lk_bf16_from_f32(w[i])
                                       : half[i] == lk_f16_from_f32(w[i]);
    CHECK(ok, "copy [%d]", (int)i);
  }
}

static void check_adamw(lk_dtype gradient, lk_dtype copy) {
  enum { N = 17003 };
  const double lr = .003, b1 = .85, b2 = .97, eps = 1e-5, decay = .2;
  float *w = ops_numbers(N, 5, 1), *m = ops_numbers(N, 6, .1f);
  float *v = ops_numbers(N, 7, 1);
  for (int i = 0; i < N; i++) v[i] = fabsf(v[i]);
  double *w2 = ops_widen(w, N), *m2 = ops_widen(m, N), *v2 = ops_widen(v, N);
  for (int t = 3; t < 6; t++) {
    float *g = ops_numbers(N, 10 + (uint64_t)t, 4);
    lk_call call = lk_call_new(LK_OP_adamw);
    call.in[0] = rounded(g, gradient, N);
    call.in[1] = OPS_F32(control_of(.5f, 4, (float)t, true), LK_CONTROL);
    call.out[0] = OPS_F32(w, N);
    call.out[1] = OPS_F32(m, N);
    call.out[2] = OPS_F32(v, N);
    call.out[3] = ops_tensor(ops_memory(lk_dtype_bytes(copy, N)), copy,
                             lk_shape_of(N));
    call.attr = (lk_attr){.lr = lr, .beta1 = b1, .beta2 = b2, .eps = eps,
                          .decay = decay};
    ops_run(&call);
    check_copy(&call.out[3], w, N);
    for (int i = 0; i < N; i++) {
      double d = g[i] / 4.0 * .6;
      m2[i] = b1 * m2[i] + (1 - b1) * d;
      v2[i] = b2 * v2[i] + (1 - b2) * d * d;
      double mh = m2[i] / (1 - pow(b1, t)), vh = v2[i] / (1 - pow(b2, t));
      w2[i] -= lr * .5 * (mh / (sqrt(vh) + eps) + decay * w2[i]);
    }
  }
  ops_close("adamw w", w, w2, N, 1e-6);
  ops_close("adamw m", m, m2, N, 1e-6);
  ops_close("adamw v", v, v2, N, 1e-6);
}

static void test_adamw(void) {
  check_adamw(LK_F32, LK_BF16);
  check_adamw(LK_BF16, LK_F16);
  check_adamw(LK_BF16, LK_F32);
}

static void check_sgd(bool momentum, bool nesterov, lk_dtype gradient) {
  enum { N = 5001 };
  float *w = ops_numbers(N, 20, 1), *m = ops_numbers(N, 21, 1);
  float *g = ops_numbers(N, 22, 1);
  double *w2 = ops_widen(w, N), *m2 = ops_widen(m, N);
  lk_call call = lk_call_new(LK_OP_sgd);
  call.in[0] = rounded(g, gradient, N);
  call.in[1] = OPS_F32(control_of(.5f, 2, 1, true), LK_CONTROL);
  call.out[0] = OPS_F32(w, N);
  if (momentum) call.out[1] = OPS_F32(m, N);
  call.out[2] = ops_tensor(ops_memory(N * 2), LK_BF16, lk_shape_of(N));
  call.attr = (lk_attr){.lr = .1, .beta1 = .9, .decay = .05,
                        .nesterov = nesterov};
  ops_run(&call);
  check_copy(&call.out[2], w, N);
  for (int i = 0; i < N; i++) {
    double d = g[i] / 2.0 * .6;
    m2[i] = .9 * m2[i] + d;
    double step = !momentum ? d : nesterov ? d + .9 * m2[i] : m2[i];
    w2[i] -= .1 * .5 * (step + .05 * w2[i]);
  }
  ops_close("sgd w", w, w2, N, 1e-6);
  if (momentum) ops_close("sgd m", m, m2, N, 1e-6);
}

static void test_sgd(void) {
  check_sgd(false, false, LK_F32);
  check_sgd(true, false, LK_BF16);
  check_sgd(true, true, LK_F32);
}

/* --- Muon ---------------------------------------------------------------- */

static void check_momentum(lk_dtype gradient, lk_dtype direction) {
  enum { N = 18001 };
  float *m = ops_numbers(N, 30, 1), *g = ops_numbers(N, 31, 3);
  double *m2 = ops_widen(m, N), *u2 = ops_doubles(N);
  lk_call call = lk_call_new(LK_OP_muon_momentum);
  call.in[0] = rounded(g, gradient, N);
  call.in[1] = OPS_F32(control_of(1, 2, 1, true), LK_CONTROL);
  call.out[0] = OPS_F32(m, N);
  call.out[1] = ops_tensor(NULL, direction, lk_shape_of(N));
  call.attr.beta1 = .95;
  ops_run(&call);
  float *u = ops_memory(N * 4);
  for (int i = 0; i < N; i++) {
    double d = g[i] / 2.0 * .8;
    m2[i] += .05 * (d - m2[i]);
    u2[i] = d + .95 * (m2[i] - d);
    u[i] = direction == LK_F32
               ? ((float *)call.out[1].data)[i]
               : lk_f32_from_bf16(((uint16_t *)call.out[1].data)[i]);
  }
  ops_close("momentum", m, m2, N, 1e-6);
  ops_close("direction", u, u2, N, direction == LK_F32 ? 1e-6 : 4e-3);
}

static void test_muon_momentum(void) {
  check_momentum(LK_F32, LK_F32);
  check_momentum(LK_BF16, LK_BF16);
}

static void test_muon_momentum_int8(void) {
  enum { N = 256 * 9 + 77, B = 256 };
  int8_t *m = ops_memory(N);
  float *scale = ops_memory((N + B - 1) / B * 4), *g = ops_numbers(N, 33, 3);
  double *m2 = ops_doubles(N), *u2 = ops_doubles(N);
  for (int i = 0; i < N; i++) m[i] = (int8_t)(i * 37 % 255 - 127);
  for (int b = 0; b <= N / B; b++) scale[b] = .001f * (float)(b + 1);
  for (int i = 0; i < N; i++) m2[i] = m[i] * (double)scale[i / B];
  lk_call call = lk_call_new(LK_OP_muon_momentum_int8);
  call.in[0] = OPS_F32(g, N);
  call.in[1] = OPS_F32(control_of(1, 2, 1, true), LK_CONTROL);
  call.out[0] = ops_tensor(m, LK_I8, lk_shape_of(N));
  call.out[1] = OPS_F32(scale, (N + B - 1) / B);
  call.attr.beta1 = .95;
  call.attr.block = B;
  ops_run(&call);
  for (int i = 0; i < N; i++) {
    double d = g[i] / 2.0 * .8;
    m2[i] += .05 * (d - m2[i]);
    u2[i] = d + .95 * (m2[i] - d);
  }
  ops_close("direction", call.out[2].data, u2, N, 1e-6);
  for (int b = 0; b * B < N; b++) {
    double most = 0;
    for (int i = b * B; i < N && i < b * B + B; i++)
      most = fmax(most, fabs(m2[i]));
    CHECK(fabs(scale[b] - most / 127) < 1e-6 * most, "scale %d", b);
    for (int i = b * B; i < N && i < b * B + B; i++)
      CHECK(fabs(m[i] * (double)scale[b] - m2[i]) <= most / 127 * .5001,
            "[%d] %g, %g", i, m[i] * (double)scale[b], m2[i]);
  }
}

static void test_muon_update(void) {
  enum { N = 17001 };
  for (int k = 0; k < 2; k++) {
    float *w = ops_numbers(N, 40, 1), *o = ops_numbers(N, 41, 1);
    double *want = ops_widen(w, N);
    lk_call call = lk_call_new(LK_OP_muon_update);
    call.in[0] = rounded(o, gradients[k], N);
    call.in[1] = OPS_F32(control_of(.5f, 2, 1, true), LK_CONTROL);
    call.out[0] = OPS_F32(w, N);
    call.out[1] = ops_tensor(ops_memory(N * 2), LK_BF16, lk_shape_of(N));
    call.attr = (lk_attr){.lr = .02, .scale = 1.5, .decay = .1};
    ops_run(&call);
    for (int i = 0; i < N; i++)
      want[i] -= .02 * .5 * (1.5 * o[i] + .1 * want[i]);
    ops_close("muon_update", w, want, N, 1e-6);
    check_copy(&call.out[1], w, N);
  }
}

/* c [m, n] = a [m, k] · b [k, n], or · b [n, k] transposed. */
static void product(const double *a, const double *b, double *c, int64_t m,
                    int64_t n, int64_t k, bool transposed) {
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      double sum = 0;
      for (int64_t q = 0; q < k; q++)
        sum += a[i * k + q] * (transposed ? b[j * k + q] : b[q * n + j]);
      c[i * n + j] = sum;
    }
}

/* The iteration on one [rows, cols] matrix. */
static void orthogonal(const float *u, double *o, int64_t rows, int64_t cols,
                       int steps, double eps) {
  int64_t r = rows < cols ? rows : cols, c = rows < cols ? cols : rows;
  double *x = ops_doubles(r * c), *y = ops_doubles(r * c), norm = 0;
  double *a = ops_doubles(r * r), *b = ops_doubles(r * r);
  for (int64_t i = 0; i < rows * cols; i++) norm += (double)u[i] * u[i];
  for (int64_t i = 0; i < r; i++)
    for (int64_t j = 0; j < c; j++)
      x[i * c + j] = (rows <= cols ? u[i * cols + j] : u[j * cols + i]) /
                     (sqrt(norm) + eps);
  for (int step = 0; step < steps; step++) {
    product(x, x, a, r, r, c, true);
    product(a, a, b, r, r, r, false);
    for (int64_t i = 0; i < r * r; i++) b[i] = -4.7750 * a[i] + 2.0315 * b[i];
    product(b, x, y, r, c, r, false);
    for (int64_t i = 0; i < r * c; i++) x[i] = 3.4445 * x[i] + y[i];
  }
  for (int64_t i = 0; i < r; i++)
    for (int64_t j = 0; j < c; j++)
      o[rows <= cols ? i * cols + j : j * cols + i] = x[i * c + j];
}

static void check_schulz(int64_t k, int64_t rows, int64_t cols,
                         lk_dtype dtype) {
  int64_t n = k * rows * cols;
  float *u = ops_numbers(n, 50, .01f);
  lk_call call = lk_call_new(LK_OP_newton_schulz);
  call.in[0] = rounded(u, dtype, n);
  call.in[0].shape = k > 1 ? lk_shape_of(k, rows, cols)
                           : lk_shape_of(rows, cols);
  call.attr.steps = 5;
  call.attr.eps = 1e-7;
  double *want = ops_doubles(n);
  for (int64_t i = 0; i < k; i++)
    orthogonal(u + i * rows * cols, want + i * rows * cols, rows, cols, 5,
               1e-7);
  ops_run(&call);
  float *o = ops_memory(n * 4);
  const uint16_t *half = call.out[0].data;
  for (int64_t i = 0; i < n; i++)
    o[i] = dtype == LK_F32 ? ((float *)call.out[0].data)[i]
                           : lk_f32_from_bf16(half[i]);
  ops_close("newton_schulz", o, want, n, dtype == LK_F32 ? 2e-4 : 5e-3);
  if (dtype != LK_F32) return;
  call.out[0].data = u; /* in place */
  ops_once(&call, 3);
  ops_close("newton_schulz in place", u, want, n, 2e-4);
}

static void test_newton_schulz(void) {
  check_schulz(1, 37, 61, LK_F32);
  check_schulz(1, 61, 37, LK_F32);
  check_schulz(3, 131, 140, LK_F32);
  check_schulz(2, 150, 129, LK_F32);
  check_schulz(1, 24, 600, LK_F32);
  check_schulz(1, 1, 7, LK_F32);
  check_schulz(2, 65, 33, LK_BF16);
}

/* Zeros stay zeros: a stopped step's direction. */
static void test_newton_schulz_zero(void) {
  float *u = ops_memory(20 * 4);
  memset(u, 0, 20 * 4);
  lk_call call = lk_call_new(LK_OP_newton_schulz);
  call.in[0] = OPS_F32(u, 4, 5);
  call.attr.steps = 5;
  call.attr.eps = 1e-7;
  ops_run(&call);
  for (int i = 0; i < 20; i++)
    CHECK(((float *)call.out[0].data)[i] == 0, "[%d]", i);
}

/* --- a step whose gradient is not finite --------------------------------- */

static void test_stopped(void) {
  enum { N = 300 };
  float *state[4], *before[4], *g = ops_numbers(N, 60, 1);
  static const lk_op ops[] = {LK_OP_adamw, LK_OP_sgd, LK_OP_muon_update};
  static const int results[] = {4, 3, 2};
  g[7] = NAN;
  for (int k = 0; k < 3; k++) {
    lk_call call = lk_call_new(ops[k]);
    call.in[0] = OPS_F32(g, N);
    call.in[1] = OPS_F32(control_of(1, 1, 1, false), LK_CONTROL);
    for (int r = 0; r < results[k]; r++) {
      state[r] = ops_numbers(N, 61 + (uint64_t)r, 1);
      before[r] = copied(state[r], N);
      call.out[r] = OPS_F32(state[r], N);
    }
    call.attr = (lk_attr){.lr = 1, .beta1 = .9, .beta2 = .9, .scale = 1};
    ops_run(&call);
    for (int r = 0; r < results[k]; r++)
      CHECK(memcmp(state[r], before[r], N * 4) == 0, "op %d result %d", k, r);
  }
  lk_call call = lk_call_new(LK_OP_muon_momentum);
  float *m = ops_numbers(N, 70, 1), *old = copied(m, N);
  call.in[0] = OPS_F32(g, N);
  call.in[1] = OPS_F32(control_of(1, 1, 1, false), LK_CONTROL);
  call.out[0] = OPS_F32(m, N);
  call.attr.beta1 = .9;
  ops_run(&call);
  CHECK(memcmp(m, old, N * 4) == 0, "momentum moved");
  for (int i = 0; i < N; i++)
    CHECK(((float *)call.out[1].data)[i] == 0, "direction [%d]", i);
}

int main(void) {
  RUN(test_conversions);
  OPS_RUN(test_accumulate);
  OPS_RUN(test_sum_squares);
  OPS_RUN(test_clip);
  OPS_RUN(test_clip_long);
  OPS_RUN(test_adamw);
  OPS_RUN(test_sgd);
  OPS_RUN(test_muon_momentum);
  OPS_RUN(test_muon_momentum_int8);
  OPS_RUN(test_muon_update);
  OPS_RUN(test_newton_schulz);
  OPS_RUN(test_newton_schulz_zero);
  OPS_RUN(test_stopped);
  return check_done();
}
