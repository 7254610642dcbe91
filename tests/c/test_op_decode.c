/* attention_cached against double-precision loops over everything that was
 * fed, piece by piece, and against `attention` over all of it at once. */
#include "ops.h"

enum { MOST = 40 };

typedef struct shape {
  int64_t B, H, K, D;
} shape;

static const double *at(const shape *s, const double *qkv, int64_t rows,
                        int64_t b, int64_t t, int64_t head) {
  return qkv + ((b * rows + t) * (s->H + 2 * s->K) + head) * s->D;
}

/* o [D] of query head h at position t, from qkv [B, rows, H + 2K, D]. */
static void reference(const shape *s, const double *qkv, int64_t rows,
                      double scale, int64_t b, int64_t h, int64_t t,
                      double *o) {
  int64_t kv = h / (s->H / s->K);
  double p[MOST], sum = 0;
  for (int64_t j = 0; j <= t; j++) {
    const double *q = at(s, qkv, rows, b, t, h);
    const double *k = at(s, qkv, rows, b, j, s->H + kv);
    p[j] = 0;
    for (int64_t d = 0; d < s->D; d++) p[j] += q[d] * k[d];
    sum += p[j] = exp(scale * p[j]);
  }
  for (int64_t d = 0; d < s->D; d++) o[d] = 0;
  for (int64_t j = 0; j <= t; j++)
    for (int64_t d = 0; d < s->D; d++)
      o[d] += p[j] / sum * at(s, qkv, rows, b, j, s->H + s->K + kv)[d];
}

/* Rows [first, first + n) of every sequence of x, copied together. */
static float *rows_of(const float *x, const shape *s, int64_t rows,
                      int64_t first, int64_t n) {
  int64_t row = (s->H + 2 * s->K) * s->D;
  float *y = ops_memory(s->B * n * row * 4);
  for (int64_t b = 0; b < s->B; b++)
    memcpy(y + b * n * row, x + (b * rows + first) * row,
           (size_t)(n * row) * 4);
  return y;
}

static lk_call call_of(const shape *s, const float *qkv, int64_t rows,
                       int64_t first, int64_t n, float *cache, double scale) {
  int32_t *positions = ops_memory(n * 4);
  for (int64_t i = 0; i < n; i++) positions[i] = (int32_t)(first + i);
  lk_call c = lk_call_new(LK_OP_attention_cached);
  c.attr = (lk_attr){.batch = s->B, .heads = s->H, .kv_heads = s->K,
                     .width = s->D, .scale = scale};
  c.in[0] = OPS_F32(rows_of(qkv, s, rows, first, n), s->B * n,
                    (s->H + 2 * s->K) * s->D);
  c.in[1] = OPS_I32(positions, n);
  c.out[1] = OPS_F32(cache, 2, s->B, s->K, MOST, s->D);
  return c;
}

/* Feed `rows` positions in pieces of these sizes. */
static void check_pieces(shape s, const int64_t *pieces, int count) {
  double scale = 1 / sqrt((double)s.D);
  int64_t rows = 0;
  for (int i = 0; i < count; i++) rows += pieces[i];
  int64_t total = s.B * rows * (s.H + 2 * s.K) * s.D;
  float *qkv = ops_numbers(total, 5, 2);
  double *wide = ops_widen(qkv, total);
  float *cache = ops_numbers(2 * s.B * s.K * MOST * s.D, 6, 9);
  for (int64_t first = 0, i = 0; i < count; first += pieces[i++]) {
    int64_t n = pieces[i];
    lk_call c = call_of(&s, qkv, rows, first, n, cache, scale);
    ops_run(&c);
    double *want = ops_doubles(s.B * n * s.H * s.D);
    for (int64_t at = 0; at < s.B * n * s.H; at++)
      reference(&s, wide, rows, scale, at / s.H / n, at % s.H,
                first + at / s.H % n, want + at * s.D);
    ops_close("o", c.out[0].data, want, s.B * n * s.H * s.D, 2e-6);
  }
}

static void test_decode_one_by_one(void) {
  int64_t ones[] = {1, 1, 1, 1, 1};
  check_pieces((shape){1, 2, 2, 8}, ones, 5);
  check_pieces((shape){3, 4, 2, 20}, ones, 5);
}

static void test_decode_prompt_and_rest(void) {
  int64_t pieces[] = {17, 1, 1, 16, 5};
  check_pieces((shape){2, 6, 2, 16}, pieces, 5);
  check_pieces((shape){1, 3, 1, 33}, pieces, 5);
}

/* What stands in the cache past a position is never read. */
static void test_decode_future_unread(void) {
  shape s = {1, 2, 1, 8};
  float *qkv = ops_numbers(3 * 4 * 8, 7, 1);
  float *cache = ops_memory(2 * MOST * 8 * 4); /* NaN */
  lk_call c = call_of(&s, qkv, 3, 0, 3, cache, 0.5);
  ops_run(&c);
  const float *o = c.out[0].data;
  for (int i = 0; i < 3 * 2 * 8; i++) CHECK(isfinite(o[i]), "o[%d]", i);
}

static void test_decode_as_attention(void) {
  shape s = {2, 4, 2, 24};
  int64_t rows = 37, columns = 8 * 24;
  float *qkv = ops_numbers(s.B * rows * columns, 8, 1);
  float *cache = ops_numbers(2 * s.B * s.K * MOST * s.D, 6, 9);
  lk_call part = call_of(&s, qkv, rows, 0, rows, cache, 0.2);
  ops_run(&part);
  lk_call whole = lk_call_new(LK_OP_attention);
  whole.attr = part.attr;
  whole.attr.seq = rows;
  whole.in[0] = OPS_F32(qkv, s.B * rows, columns);
  ops_run(&whole);
  int64_t n = s.B * rows * s.H * s.D;
  ops_close("o", part.out[0].data, ops_widen(whole.out[0].data, n), n, 2e-6);
}

static void test_decode_outside(void) {
  shape s = {1, 1, 1, 4};
  float *qkv = ops_numbers(12 * (MOST + 1), 9, 1);
  float *cache = ops_numbers(2 * MOST * 4, 6, 9);
  lk_call c = call_of(&s, qkv, MOST + 1, MOST, 1, cache, 1);
  ops_results(&c);
  lk_context *context = ops_open(1);
  lk_cost cost;
  CHECK(lk_rule(context->profile, &c, &cost, &context->error) == LK_OK, "%s",
        context->error.message);
  c.scratch = ops_memory(cost.scratch);
  CHECK(lk_run(context, &c) == LK_ARGUMENT, "position %d", MOST);
  CHECK(strcmp(context->error.message, "attention_cached: positions[0] is 40, "
               "cache has room for 40") == 0, "%s", context->error.message);
  lk_context_close(context);
}

int main(void) {
  OPS_RUN(test_decode_one_by_one);
  OPS_RUN(test_decode_prompt_and_rest);
  OPS_RUN(test_decode_future_unread);
  OPS_RUN(test_decode_as_attention);
  OPS_RUN(test_decode_outside);
  return check_done();
}
