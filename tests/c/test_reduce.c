/* Sums, extremes, broadcasting and softmax against double-precision loops. */
#include "ops.h"

/* x as [outer, n, inner] for dimension `dim`. */
typedef struct layout {
  int64_t outer, n, inner;
} layout;

static layout layout_of(lk_shape s, int64_t dim) {
  layout l = {1, 1, 1};
  for (int i = 0; i < s.rank; i++) {
    if (dim == -1 || i == dim) l.n *= s.dim[i];
    else if (i < dim) l.outer *= s.dim[i];
    else l.inner *= s.dim[i];
  }
  return l;
}

static lk_call reduced(lk_op op, float *x, lk_shape shape, int64_t dim,
                       bool keep) {
  lk_call call = lk_call_new(op);
  call.in[0] = ops_tensor(x, LK_F32, shape);
  call.attr.dim = dim;
  call.attr.keep = keep;
  ops_run(&call);
  return call;
}

static void check_sum(lk_shape shape, int64_t dim, bool keep, bool mean) {
  layout l = layout_of(shape, dim);
  float *x = ops_numbers(lk_shape_count(shape), 1, 1);
  for (int64_t i = 0; i < lk_shape_count(shape); i++) x[i] += .25f;
  double *want = ops_doubles(l.outer * l.inner);
  for (int64_t o = 0; o < l.outer; o++)
    for (int64_t j = 0; j < l.n; j++)
      for (int64_t i = 0; i < l.inner; i++)
        want[o * l.inner + i] += x[(o * l.n + j) * l.inner + i] /
                                 (mean ? (double)l.n : 1);
  lk_call call = reduced(mean ? LK_OP_mean : LK_OP_sum, x, shape, dim, keep);
  int rank = keep ? shape.rank : dim == -1 ? 0 : shape.rank - 1;
  CHECK(call.out[0].shape.rank == rank, "rank %d", call.out[0].shape.rank);
  ops_close("sum", call.out[0].data, want, l.outer * l.inner, 1e-6);
}

static void test_sum(void) {
  lk_shape shapes[] = {lk_shape_of(13, 37, 11), lk_shape_of(1, 1),
                       lk_shape_of(3, 20001), lk_shape_of(20001, 3),
                       lk_shape_of(2, 8300, 40), lk_shape_of(70001)};
  for (int k = 0; k < 6; k++)
    for (int64_t dim = -1; dim < shapes[k].rank; dim++) {
      check_sum(shapes[k], dim, false, false);
      check_sum(shapes[k], dim, true, true);
    }
}

static void check_extremes(float *x, lk_shape shape, int64_t dim) {
  layout l = layout_of(shape, dim);
  lk_call most = reduced(LK_OP_max, x, shape, dim, false);
  lk_call least = reduced(LK_OP_min, x, shape, dim, false);
  lk_call where = reduced(LK_OP_argmax, x, shape, dim, false);
  for (int64_t k = 0; k < l.outer * l.inner; k++) {
    const float *p = x + k / l.inner * l.n * l.inner + k % l.inner;
    float top = p[0], low = p[0];
    int64_t at = 0;
    for (int64_t j = 1; j < l.n; j++) {
      float v = p[j * l.inner];
      if (v > top || (isnan(v) && !isnan(top))) top = v, at = j;
      if (v < low || isnan(v)) low = v;
    }
    float a = ((float *)most.out[0].data)[k];
    float b = ((float *)least.out[0].data)[k];
    CHECK(a == top || (isnan(a) && isnan(top)), "max [%d] %g, %g", (int)k,
          (double)a, (double)top);
    CHECK(b == low || (isnan(b) && isnan(low)), "min [%d] %g, %g", (int)k,
          (double)b, (double)low);
    CHECK(((int32_t *)where.out[0].data)[k] == at, "argmax [%d] %d, %d",
          (int)k, ((int32_t *)where.out[0].data)[k], (int)at);
  }
}

static void test_extremes(void) {
  lk_shape shapes[] = {lk_shape_of(13, 37, 11), lk_shape_of(5, 9001),
                       lk_shape_of(40, 300), lk_shape_of(1)};
  for (int k = 0; k < 4; k++)
    for (int64_t dim = -1; dim < shapes[k].rank; dim++) {
      int64_t n = lk_shape_count(shapes[k]);
      float *x = ops_numbers(n, 2, 1);
      for (int64_t i = 0; i < n; i++) x[i] = roundf(20 * x[i]); /* ties */
      check_extremes(x, shapes[k], dim);
      x[n / 3] = NAN;
      x[n / 2] = -INFINITY;
      check_extremes(x, shapes[k], dim);
    }
}

/* The index in `small`, right-aligned, of element i of `large`. */
static int64_t narrow_index(lk_shape large, lk_shape small, int64_t i) {
  int64_t index = 0, step = 1;
  for (int d = 1; d <= large.rank; d++) {
    int64_t position = i % large.dim[large.rank - d];
    i /= large.dim[large.rank - d];
    if (d > small.rank) continue;
    if (small.dim[small.rank - d] > 1) index += position * step;
    step *= small.dim[small.rank - d];
  }
  return index;
}

static void check_broadcast(lk_shape large, lk_shape small) {
  int64_t n = lk_shape_count(large), m = lk_shape_count(small);
  float *x = ops_numbers(n, 3, 1), *s = ops_numbers(m, 4, 1);
  double *want = ops_doubles(m);
  for (int64_t i = 0; i < n; i++)
    want[narrow_index(large, small, i)] += (double)x[i];
  lk_call call = lk_call_new(LK_OP_sum_to);
  call.in[0] = ops_tensor(x, LK_F32, large);
  call.out[0] = ops_tensor(NULL, LK_F32, small);
  ops_run(&call);
  ops_close("sum_to", call.out[0].data, want, m, 1e-6);
  call = lk_call_new(LK_OP_broadcast);
  call.in[0] = ops_tensor(s, LK_F32, small);
  call.out[0] = ops_tensor(NULL, LK_F32, large);
  ops_run(&call);
  for (int64_t i = 0; i < n; i++)
    CHECK(((float *)call.out[0].data)[i] == s[narrow_index(large, small, i)],
          "broadcast [%d]", (int)i);
}

static void test_broadcast(void) {
  check_broadcast(lk_shape_of(7, 5), lk_shape_of(5));
  check_broadcast(lk_shape_of(7, 5), lk_shape_of(7, 1));
  check_broadcast(lk_shape_of(7, 5), lk_shape_of(1));
  check_broadcast(lk_shape_of(7, 5), lk_shape_of(7, 5));
  check_broadcast(lk_shape_of(1, 1), lk_shape_of(1));
  check_broadcast(lk_shape_of(3, 4, 5, 6), lk_shape_of(4, 1, 6));
  check_broadcast(lk_shape_of(3, 4, 5, 6), lk_shape_of(3, 1, 5, 1));
  check_broadcast(lk_shape_of(2, 3, 1, 2, 3, 7), lk_shape_of(3, 1, 1, 3, 1));
  check_broadcast(lk_shape_of(2, 1, 9001), lk_shape_of(2, 1, 1));
  check_broadcast(lk_shape_of(9001, 13), lk_shape_of(13));
  check_broadcast(lk_shape_of(9000, 2, 3), lk_shape_of(2, 1));
  lk_call scalar = lk_call_new(LK_OP_broadcast);
  float *x = ops_numbers(1, 5, 1);
  scalar.in[0] = ops_tensor(x, LK_F32, (lk_shape){.rank = 0});
  scalar.out[0] = OPS_F32(NULL, 2, 3);
  ops_run(&scalar);
  CHECK(((float *)scalar.out[0].data)[5] == *x, "from a scalar");
}

static void softmax_row(const float *x, double *y, int64_t n, int64_t seen) {
  double most = -INFINITY, sum = 0;
  for (int64_t j = 0; j < seen; j++) most = fmax(most, (double)x[j]);
  for (int64_t j = 0; j < n; j++)
    sum += y[j] = j < seen ? exp(x[j] - most) : 0;
  for (int64_t j = 0; j < n; j++) y[j] /= sum;
}

static void check_softmax(lk_shape shape, bool causal, float scale) {
  int64_t width = shape.dim[shape.rank - 1], n = lk_shape_count(shape);
  float *x = ops_numbers(n, 6, scale);
  double *want = ops_doubles(n);
  for (int64_t r = 0; r < n / width; r++)
    softmax_row(x + r * width, want + r * width, width,
                causal ? r % width + 1 : width);
  lk_call call = lk_call_new(LK_OP_softmax);
  call.in[0] = ops_tensor(x, LK_F32, shape);
  call.attr.causal = causal;
  ops_run(&call);
  ops_close("softmax", call.out[0].data, want, n, 2e-6 * (1 + scale));
  call.out[0].data = x; /* in place */
  ops_once(&call, 2);
  ops_close("softmax in place", x, want, n, 2e-6 * (1 + scale));
}

static void test_softmax(void) {
  check_softmax(lk_shape_of(3, 5, 61), false, 3);
  check_softmax(lk_shape_of(1), false, 1);
  check_softmax(lk_shape_of(2, 9001), false, 20);
  check_softmax(lk_shape_of(4, 3, 33, 33), true, 3);
  check_softmax(lk_shape_of(1, 1), true, 3);
}

/* y[i] / y[0] of a row that begins with its largest number is e^(x[i] − x[0])
 * as the level computes it: 2e-7, and two roundings. */
static void test_softmax_exponentials(void) {
  enum { R = 400, C = 61 };
  float *x = ops_numbers(R * C, 9, 1);
  double most = 0;
  for (int64_t i = 0; i < R * C; i++)
    x[i] = i % C == 0 ? 0 : -80 * fminf(fabsf(x[i]), 1);
  lk_call call = lk_call_new(LK_OP_softmax);
  call.in[0] = OPS_F32(x, R, C);
  ops_run(&call);
  const float *y = call.out[0].data;
  for (int64_t i = 0; i < R * C; i++) {
    double want = exp((double)x[i]), got = (double)y[i] / y[i / C * C];
    if (!(fabs(got / want - 1) <= most)) most = fabs(got / want - 1);
  }
  CHECK(most <= 3.2e-7, "%g relative", most);
}

static void test_softmax_backward(void) {
  enum { R = 9, C = 37 };
  float *y = ops_numbers(R * C, 7, 1), *dy = ops_numbers(R * C, 8, 1);
  double *want = ops_doubles(R * C);
  for (int64_t r = 0; r < R; r++) {
    double row[C], dot = 0;
    softmax_row(y + r * C, row, C, C);
    for (int64_t j = 0; j < C; j++) y[r * C + j] = (float)row[j];
    for (int64_t j = 0; j < C; j++) dot += (double)y[r * C + j] * dy[r * C + j];
    for (int64_t j = 0; j < C; j++)
      want[r * C + j] = y[r * C + j] * (dy[r * C + j] - dot);
  }
  lk_call call = lk_call_new(LK_OP_softmax_backward);
  call.in[0] = OPS_F32(dy, R, C);
  call.in[1] = OPS_F32(y, R, C);
  ops_run(&call);
  ops_close("softmax_backward", call.out[0].data, want, R * C, 1e-6);
}

int main(void) {
  OPS_RUN(test_sum);
  OPS_RUN(test_extremes);
  OPS_RUN(test_broadcast);
  OPS_RUN(test_softmax);
  OPS_RUN(test_softmax_exponentials);
  OPS_RUN(test_softmax_backward);
  return check_done();
}
