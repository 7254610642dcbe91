/* residual, rmsnorm, residual_norm, head_norm and their gradients: against
 * double-precision loops, gradients by finite differences of those. */
#include "ops.h"

/* y = x · rstd · w by rows of n */
static double norm_row(const double *x, const double *w, double *y, int64_t n,
                       double eps) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
  double rstd = 1 / sqrt(sum / (double)n + eps);
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * rstd * w[i];
  return rstd;
}

/* --- residual, rmsnorm, residual_norm ------------------------------------ */

static void check_residual(int64_t n, int64_t c, double p) {
  lk_call call = lk_call_new(LK_OP_residual);
  call.attr = (lk_attr){.p = p, .stream = 4};
  float *x = ops_numbers(n * c, 1, 1), *delta = ops_numbers(n * c, 2, 1);
  lk_tensor clock = ops_clock(99, 2, 5);
  call.in[0] = OPS_F32(x, n, c);
  call.in[1] = OPS_F32(delta, n, c);
  if (p > 0) call.in[2] = clock;
  double *want = ops_doubles(n * c);
  for (int64_t i = 0; i < n * c; i++)
    want[i] = x[i] + delta[i] * ops_keep(&clock, &call.attr,
                                         (uint64_t)(5 * n * c + i));
  ops_run(&call);
  ops_close("h", call.out[0].data, want, n * c, 2e-7);
  call.out[0] = call.in[0]; /* in place */
  ops_run(&call);
  ops_close("h in place", call.out[0].data, want, n * c, 2e-7);
}

static void test_residual(void) {
  check_residual(29, 37, 0.1);
  check_residual(3, 1500, 0.4);
  check_residual(16, 24, 0);
}

static void test_rmsnorm(void) {
  enum { N = 53, C = 37 };
  float *x = ops_numbers(N * C, 3, 2), *w = ops_numbers(C, 4, 1);
  double *want = ops_doubles(N * C), *rstd = ops_doubles(N);
  double *wide = ops_widen(x, N * C), *weight = ops_widen(w, C);
  lk_call call = lk_call_new(LK_OP_rmsnorm);
  call.attr.eps = 0.01;
  call.in[0] = OPS_F32(x, N, C);
  call.in[1] = OPS_F32(w, C);
  for (int r = 0; r < N; r++)
    rstd[r] = norm_row(wide + r * C, weight, want + r * C, C, 0.01);
  ops_run(&call);
  ops_close("y", call.out[0].data, want, N * C, 1e-6);
  ops_close("rstd", call.out[1].data, rstd, N, 1e-6);
}

/* The bits of residual followed by rmsnorm. */
static void test_residual_norm(void) {
  enum { N = 31, C = 29 };
  float *x = ops_numbers(N * C, 5, 1), *delta = ops_numbers(N * C, 6, 1);
  float *w = ops_numbers(C, 7, 1);
  lk_call both = lk_call_new(LK_OP_residual_norm);
  both.attr = (lk_attr){.p = 0.2, .stream = 3, .eps = 1e-6};
  both.in[0] = OPS_F32(x, N, C);
  both.in[1] = OPS_F32(delta, N, C);
  both.in[2] = OPS_F32(w, C);
  both.in[3] = ops_clock(1, 2, 3);
  ops_run(&both);
  lk_call first = lk_call_new(LK_OP_residual);
  first.attr = both.attr;
  first.in[0] = both.in[0];
  first.in[1] = both.in[1];
  first.in[2] = both.in[3];
  ops_run(&first);
  lk_call second = lk_call_new(LK_OP_rmsnorm);
  second.attr = both.attr;
  second.in[0] = first.out[0];
  second.in[1] = both.in[2];
  ops_run(&second);
  size_t bytes = N * C * sizeof(float);
  CHECK(!memcmp(both.out[0].data, first.out[0].data, bytes), "h");
  CHECK(!memcmp(both.out[1].data, second.out[0].data, bytes), "y");
  CHECK(!memcmp(both.out[2].data, second.out[1].data, N * sizeof(float)),
        "rstd");
}

/* --- gradients ----------------------------------------------------------- */

typedef struct norm {
  int64_t n, c;
  double *x, *w, *y;
  const double *dy;
  double eps;
} norm;

static double norm_objective(void *state) {
  const norm *s = state;
  double sum = 0;
  for (int64_t r = 0; r < s->n; r++)
    norm_row(s->x + r * s->c, s->w, s->y + r * s->c, s->c, s->eps);
  for (int64_t i = 0; i < s->n * s->c; i++) sum += s->dy[i] * s->y[i];
  return sum;
}

/* The same call with `dropped`: what dropout makes of dx, and the rest as
 * before. */
static void check_dropped(lk_call call, const double *dx, int64_t n, float *dw,
                          bool accumulate) {
  for (int step = 0; step < 2; step++) {
    lk_tensor clock = ops_clock(99, (uint32_t)step, 3);
    call.attr.p = step ? 0.4 : 0;
    call.attr.stream = 6;
    call.in[5] = clock;
    call.out[0] = LK_ABSENT;
    call.out[2] = (lk_tensor){ops_memory(n * 4), LK_F32, call.in[0].shape};
    if (accumulate) memset(dw, 0, (size_t)lk_tensor_bytes(&call.out[1]));
    ops_run(&call);
    double *want = ops_doubles(n);
    for (int64_t i = 0; i < n; i++)
      want[i] = dx[i] * ops_keep(&clock, &call.attr,
                                 (uint64_t)(3 * n + i));
    ops_close("dx", call.out[0].data, dx, n, 5e-6);
    ops_close("dropped", call.out[2].data, want, n, 5e-6);
  }
}

static void check_norm_backward(int64_t n, int64_t c, bool accumulate,
                                bool residual) {
  float *x = ops_numbers(n * c, 8, 2), *w = ops_numbers(c, 9, 1);
  float *dy = ops_numbers(n * c, 10, 1), *dw = ops_numbers(c, 11, 3);
  float *extra = ops_numbers(n * c, 12, 1), *rstd = ops_memory(n * 4);
  norm s = {n, c, ops_widen(x, n * c), ops_widen(w, c), ops_doubles(n * c),
            ops_widen(dy, n * c), 0.01};
  for (int64_t r = 0; r < n; r++)
    rstd[r] = (float)norm_row(s.x + r * c, s.w, s.y + r * c, c, s.eps);
  double *dx_want = ops_doubles(n * c), *dw_want = ops_doubles(c);
  ops_differences(norm_objective, &s, s.x, n * c, dx_want);
  ops_differences(norm_objective, &s, s.w, c, dw_want);
  for (int64_t i = 0; i < n * c && residual; i++) dx_want[i] += extra[i];
  for (int64_t i = 0; i < c && accumulate; i++) dw_want[i] += dw[i];

  lk_call call = lk_call_new(LK_OP_rmsnorm_backward);
  call.attr.accumulate = accumulate;
  call.in[0] = OPS_F32(dy, n, c);
  call.in[1] = OPS_F32(x, n, c);
  call.in[2] = OPS_F32(w, c);
  call.in[3] = OPS_F32(rstd, n);
  if (residual) call.in[4] = OPS_F32(extra, n, c);
  call.out[1] = OPS_F32(dw, c);
  ops_run(&call);
  ops_close("dx", call.out[0].data, dx_want, n * c, 5e-6);
  ops_close("dw", dw, dw_want, c, 5e-6);
  check_dropped(call, dx_want, n * c, dw, accumulate);
}

static void test_rmsnorm_backward(void) {
  check_norm_backward(13, 24, false, false);
  check_norm_backward(67, 37, true, true);
  check_norm_backward(1, 5, false, true);
}

/* --- norms of heads ------------------------------------------------------ */

enum { ROWS = 39, HEADS = 4, KV = 2, WIDTH = 12 };
enum { NORMED = HEADS + KV, ROW = (HEADS + 2 * KV) * WIDTH };

typedef struct heads {
  double *x, *wq, *wk, *y, *rstd;
  const double *dy;
} heads;

static double heads_objective(void *state) {
  const heads *s = state;
  double sum = 0;
  for (int r = 0; r < ROWS; r++) {
    const double *x = s->x + r * ROW;
    double *y = s->y + r * ROW;
    memcpy(y, x, ROW * sizeof *y);
    for (int h = 0; h < NORMED; h++)
      s->rstd[r * NORMED + h] =
          norm_row(x + h * WIDTH, h < HEADS ? s->wq : s->wk, y + h * WIDTH,
                   WIDTH, 0.02);
    for (int i = 0; i < ROW; i++) sum += s->dy[r * ROW + i] * y[i];
  }
  return sum;
}

static const lk_attr head_attr = {.heads = HEADS, .kv_heads = KV,
                                  .width = WIDTH, .eps = 0.02};

static void test_head_norm(void) {
  float *x = ops_numbers(ROWS * ROW, 13, 1);
  float *dy = ops_numbers(ROWS * ROW, 14, 1);
  float *wq = ops_numbers(WIDTH, 15, 1), *wk = ops_numbers(WIDTH, 16, 1);
  heads s = {ops_widen(x, ROWS * ROW), ops_widen(wq, WIDTH),
             ops_widen(wk, WIDTH), ops_doubles(ROWS * ROW),
             ops_doubles(ROWS * NORMED), ops_widen(dy, ROWS * ROW)};
  heads_objective(&s);
  lk_call call = lk_call_new(LK_OP_head_norm);
  call.attr = head_attr;
  call.in[0] = OPS_F32(x, ROWS, ROW);
  call.in[1] = OPS_F32(wq, WIDTH);
  call.in[2] = OPS_F32(wk, WIDTH);
  ops_run(&call);
  ops_close("y", call.out[0].data, s.y, ROWS * ROW, 1e-6);
  ops_close("rstd", call.out[1].data, s.rstd, ROWS * NORMED, 1e-6);

  double *dx = ops_doubles(ROWS * ROW), *dq = ops_doubles(WIDTH);
  double *dk = ops_doubles(WIDTH);
  ops_differences(heads_objective, &s, s.x, ROWS * ROW, dx);
  ops_differences(heads_objective, &s, s.wq, WIDTH, dq);
  ops_differences(heads_objective, &s, s.wk, WIDTH, dk);
  lk_call back = lk_call_new(LK_OP_head_norm_backward);
  back.attr = head_attr;
  back.in[0] = OPS_F32(dy, ROWS, ROW);
  for (int i = 0; i < 3; i++) back.in[i + 1] = call.in[i];
  back.in[4] = call.out[1];
  ops_run(&back);
  ops_close("dx", back.out[0].data, dx, ROWS * ROW, 5e-6);
  ops_close("dwq", back.out[1].data, dq, WIDTH, 5e-6);
  ops_close("dwk", back.out[2].data, dk, WIDTH, 5e-6);

  back.attr.accumulate = true; /* once more on top: twice the sum */
  ops_run(&back);
  for (int i = 0; i < WIDTH; i++) dq[i] *= 2, dk[i] *= 2;
  ops_close("acc dwq", back.out[1].data, dq, WIDTH, 5e-6);
  ops_close("acc dwk", back.out[2].data, dk, WIDTH, 5e-6);
}

int main(void) {
  OPS_RUN(test_residual);
  OPS_RUN(test_rmsnorm);
  OPS_RUN(test_residual_norm);
  OPS_RUN(test_rmsnorm_backward);
  OPS_RUN(test_head_norm);
  return check_done();
}
