/* silu, gated_silu with dropout, and their gradients by finite differences. */
#include "ops.h"

typedef struct gate {
  int64_t rows, width; /* of the result */
  bool gated;
  double *x, *keep, *y;
  const double *dy;
} gate;

/* y = keep · silu(a) (· b); returns Σ dy · y */
static double gate_objective(void *state) {
  const gate *s = state;
  double sum = 0;
  for (int64_t r = 0; r < s->rows; r++)
    for (int64_t i = 0; i < s->width; i++) {
      const double *row = s->x + r * s->width * (s->gated ? 2 : 1);
      double a = row[i], b = s->gated ? row[s->width + i] : 1;
      int64_t at = r * s->width + i;
      s->y[at] = s->keep[at] * a / (1 + exp(-a)) * b;
      sum += s->dy[at] * s->y[at];
    }
  return sum;
}

static void check_gate(int64_t rows, int64_t width, bool gated, double p) {
  int64_t n = rows * width, nx = gated ? 2 * n : n;
  lk_call call = lk_call_new(gated ? LK_OP_gated_silu : LK_OP_silu);
  lk_tensor clock = ops_clock(77, 8, 3);
  call.attr = (lk_attr){.p = p, .stream = 6};
  float *x = ops_numbers(nx, 1, 6), *dy = ops_numbers(n, 2, 1);
  gate s = {rows, width, gated, ops_widen(x, nx), ops_doubles(n),
            ops_doubles(n), ops_widen(dy, n)};
  for (int64_t i = 0; i < n; i++)
    s.keep[i] = ops_keep(&clock, &call.attr, (uint64_t)(3 * n + i));
  gate_objective(&s);
  call.in[0] = OPS_F32(x, rows, nx / rows);
  if (p > 0) call.in[1] = clock;
  ops_run(&call);
  ops_close("y", call.out[0].data, s.y, n, 1e-6);

  double *dx = ops_doubles(nx);
  for (int64_t i = 0; i < nx; i++) { /* one term depends on x[i] */
    int64_t r = i / (nx / rows), c = i % (nx / rows) % width;
    double a = s.x[r * (nx / rows) + c], step = 1e-5, f[2];
    double b = gated ? s.x[r * (nx / rows) + width + c] : 1;
    bool second = i % (nx / rows) >= width;
    for (int k = 0; k < 2; k++) {
      double h = k ? -step : step, u = second ? a : a + h;
      f[k] = u / (1 + exp(-u)) * (second ? b + h : b);
    }
    dx[i] = s.dy[r * width + c] * s.keep[r * width + c] * (f[0] - f[1]) /
            (2 * step);
  }
  lk_call back =
      lk_call_new(gated ? LK_OP_gated_silu_backward : LK_OP_silu_backward);
  back.attr = call.attr;
  back.in[0] = OPS_F32(dy, rows, width);
  back.in[1] = call.in[0];
  back.in[2] = call.in[1];
  ops_run(&back);
  ops_close("dx", back.out[0].data, dx, nx, 2e-6);
}

static void test_silu(void) {
  check_gate(13, 37, false, 0);
  check_gate(13, 37, false, 0.1);
  check_gate(9, 2100, false, 0.5);
}

static void test_gated_silu(void) {
  check_gate(13, 37, true, 0);
  check_gate(13, 37, true, 0.1);
  check_gate(3, 2100, true, 0.5);
}

/* Far from zero: no overflow, the right limits. */
static void test_silu_extremes(void) {
  float x[] = {-1e30f, -100, -88, 0, 88, 100, 1e30f, NAN};
  double want[] = {0, -100 * exp(-100), -88 * exp(-88), 0, 88, 100, 1e30};
  lk_call call = lk_call_new(LK_OP_silu);
  call.in[0] = OPS_F32(x, 8);
  ops_run(&call);
  const float *y = call.out[0].data;
  for (int i = 0; i < 7; i++)
    CHECK(fabs(y[i] - want[i]) <= 1e-6 * fabs(want[i]) + 1e-37,
          "silu(%g) = %g", (double)x[i], (double)y[i]);
  CHECK(isnan(y[7]), "silu(NaN) = %g", (double)y[7]);
}

int main(void) {
  OPS_RUN(test_silu);
  OPS_RUN(test_gated_silu);
  OPS_RUN(test_silu_extremes);
  return check_done();
}
