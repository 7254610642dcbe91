/* Rows of a table by id, and positions: embedding, its gradient, the rotary
 * table and the rotation of q and k heads. */
#include "cpu.h"
#include "vector.h"

typedef struct embed_state {
  const int32_t *ids;
  const float *from;
  float *to;
  int64_t rows, table_rows, width;
  float scale;
  bool accumulate;
} embed_state;

enum { EMBED_ROWS = 32, EMBED_STRIPE = 32, EMBED_ZERO = 64 };

/* Every id is a row of the table. */
static lk_status embed_check(lk_context *context, const lk_call *call,
                             const embed_state *s) {
  for (int64_t n = 0; n < s->rows; n++)
    if (s->ids[n] < 0 || s->ids[n] >= s->table_rows)
      return lk_fail(&context->error, LK_ARGUMENT,
                     "%s: ids[%lld] is %d, the table has %lld rows",
                     lk_op_info_of(call->op)->name, (long long)n, s->ids[n],
                     (long long)s->table_rows);
  return LK_OK;
}

static void embed_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const embed_state *s = opaque;
  int64_t last = cpu_smaller((index + 1) * EMBED_ROWS, s->rows);
  for (int64_t n = index * EMBED_ROWS; n < last; n++) {
    const float *restrict row = s->from + s->ids[n] * s->width;
    float *restrict y = s->to + n * s->width;
    for (int64_t c = 0; c < s->width; c++) y[c] = s->scale * row[c];
  }
}

static lk_status cpu_embed(lk_context *context, const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  const lk_tensor *table = &call->in[1];
  embed_state s = {.ids = call->in[0].data, .from = table->data,
                   .to = call->out[0].data,
                   .rows = lk_tensor_count(&call->in[0]),
                   .table_rows = table->shape.dim[0],
                   .width = table->shape.dim[1],
                   .scale = (float)call->attr.scale};
  LK_TRY(embed_check(context, call, &s));
  cpu_parallel(context, cpu_pieces(s.rows, EMBED_ROWS), embed_part, &s);
  return LK_OK;
}

static void embed_zero_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const embed_state *s = opaque;
  int64_t first = index * EMBED_ZERO;
  int64_t rows = cpu_smaller(EMBED_ZERO, s->table_rows - first);
  memset(s->to + first * s->width, 0,
         (size_t)(rows * s->width) * sizeof *s->to);
}

/* A stripe of channels takes all positions in order. */
static void embed_backward_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const embed_state *s = opaque;
  int64_t first = index * EMBED_STRIPE;
  int64_t count = cpu_smaller(EMBED_STRIPE, s->width - first);
  for (int64_t n = 0; n < s->rows; n++) {
    const float *restrict dy = s->from + n * s->width + first;
    float *restrict row = s->to + s->ids[n] * s->width + first;
    for (int64_t c = 0; c < count; c++) row[c] += s->scale * dy[c];
  }
}

static lk_status cpu_embed_backward(lk_context *context,
                                    const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  const lk_tensor *table = &call->out[0];
  embed_state s = {.ids = call->in[1].data, .from = call->in[0].data,
                   .to = table->data,
                   .rows = lk_tensor_count(&call->in[1]),
                   .table_rows = table->shape.dim[0],
                   .width = table->shape.dim[1],
                   .scale = (float)call->attr.scale};
  LK_TRY(embed_check(context, call, &s));
  if (!call->attr.accumulate)
    cpu_parallel(context, cpu_pieces(s.table_rows, EMBED_ZERO),
                 embed_zero_part, &s);
  cpu_parallel(context, cpu_pieces(s.width, EMBED_STRIPE),
               embed_backward_part, &s);
  return LK_OK;
}

/* --- rotary positions --------------------------------------------------- */

static lk_status cpu_rope_table(lk_context *context, const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  const lk_attr *a = &call->attr;
  int64_t rows = call->out[0].shape.dim[0], half = call->out[0].shape.dim[1];
  int64_t turning = (int64_t)floor(a->fraction * (double)half + 0.5);
  double steps = (double)(a->inclusive ? turning - 1 : turning);
  float *table = call->out[0].data;
  for (int64_t i = 0; i < half; i++) {
    double f = steps > 0 ? pow(a->base, -(double)i / steps) : 1.0;
    if (i >= turning) f = 0;
    for (int64_t t = 0; t < rows; t++) {
      double angle = (double)(a->first + t) * f;
      table[(t * half + i) * 2] = (float)cos(angle);
      table[(t * half + i) * 2 + 1] = (float)sin(angle);
    }
  }
  return LK_OK;
}

typedef struct rope_state {
  const float *x, *table;
  float *y;
  int64_t rows, positions, heads, kv_heads, width;
  bool inverse;
} rope_state;

enum { ROPE_ROWS = 16, ROPE_PAIRS = 256 };

/* Pairs [first, first + n) of every q and k head of one row. */
static void rope_pairs(const rope_state *s, const float *x, float *y,
                       const float *table, int64_t first, int64_t n) {
  float cosine[ROPE_PAIRS], sine[ROPE_PAIRS];
  float sign = s->inverse ? -1.0f : 1.0f;
  int64_t half = s->width / 2;
  for (int64_t i = 0; i < n; i++) {
    cosine[i] = table[2 * (first + i)];
    sine[i] = sign * table[2 * (first + i) + 1];
  }
  for (int64_t h = 0; h < s->heads + s->kv_heads; h++) {
    const float *x1 = x + h * s->width + first, *x2 = x1 + half;
    float *y1 = y + h * s->width + first, *y2 = y1 + half;
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
      float a = x1[i], b = x2[i];
      y1[i] = a * cosine[i] + b * sine[i];
      y2[i] = b * cosine[i] - a * sine[i];
    }
  }
}

static void rope_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const rope_state *s = opaque;
  int64_t half = s->width / 2, normed = (s->heads + s->kv_heads) * s->width;
  int64_t row = normed + s->kv_heads * s->width;
  int64_t last = cpu_smaller((index + 1) * ROPE_ROWS, s->rows);
  for (int64_t r = index * ROPE_ROWS; r < last; r++) {
    const float *x = s->x + r * row;
    const float *table = s->table + r % s->positions * half * 2;
    float *y = s->y + r * row;
    for (int64_t i = 0; i < half; i += ROPE_PAIRS)
      rope_pairs(s, x, y, table, i, cpu_smaller(ROPE_PAIRS, half - i));
    if (y != x)
      memcpy(y + normed, x + normed, (size_t)(row - normed) * sizeof *y);
  }
}

static lk_status cpu_rope(lk_context *context, const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  const lk_attr *a = &call->attr;
  rope_state s = {.x = call->in[0].data, .table = call->in[1].data,
                  .y = call->out[0].data,
                  .positions = call->in[1].shape.dim[0], .heads = a->heads,
                  .kv_heads = a->kv_heads, .width = a->width,
                  .inverse = a->inverse};
  s.rows = lk_tensor_count(&call->in[0]) /
           ((s.heads + 2 * s.kv_heads) * s.width);
  cpu_parallel(context, cpu_pieces(s.rows, ROPE_ROWS), rope_part, &s);
  return LK_OK;
}
