/* SiLU and gated SiLU with dropout, and their gradients: one pass each. */
#include "cpu.h"
#include "vector.h"

/* Rows of `width` results cut in tiles of at most DRAW_TILE elements, some
 * tiles a part. x has `fold` times the width (2 when gated). */
typedef struct silu_state {
  draw_source source;
  const float *x, *dy;
  float *y;
  int64_t rows, width, tiles; /* tiles of one row */
  int64_t count;              /* of results: rows · width */
} silu_state;

enum { SILU_TILES = 8 };

/* One tile: where it starts, how long it is, its draws (NULL: all kept). */
typedef struct silu_tile {
  int64_t row, column, count;
  const uint16_t *draws;
} silu_tile;

static silu_tile silu_cut(const silu_state *s, int64_t tile,
                          draw_buffer *buffer) {
  silu_tile t = {.row = tile / s->tiles,
                 .column = tile % s->tiles * DRAW_TILE};
  t.count = cpu_smaller(DRAW_TILE, s->width - t.column);
  uint64_t element = s->source.micro * (uint64_t)s->count +
                     (uint64_t)(t.row * s->width + t.column);
  if (s->source.threshold)
    t.draws = draw_row(&s->source, element, t.count, buffer);
  return t;
}

/* The factor of element i: 1 / (1 - p) or 0. */
#define SILU_KEPT(i) (d[i] >= threshold ? factor : 0.0f)

#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast") /* fused where there are such */

/* y = keep · silu(a) (· b, when gated) */
static void silu_forward(const draw_source *s, const uint16_t *restrict d,
                         const float *a, const float *b, float *y,
                         int64_t n) {
  const int32_t threshold = (int32_t)s->threshold;
  const float factor = s->factor;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) y[i] = lk_silu(a[i]);
  if (b)
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) y[i] *= b[i];
  if (d)
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) y[i] *= SILU_KEPT(i);
}

static void silu_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const silu_state *s = opaque;
  draw_buffer buffer;
  int64_t last = cpu_smaller((index + 1) * SILU_TILES, s->rows * s->tiles);
  for (int64_t i = index * SILU_TILES; i < last; i++) {
    silu_tile t = silu_cut(s, i, &buffer);
    int64_t at = t.row * s->width + t.column;
    silu_forward(&s->source, t.draws, s->x + at, NULL, s->y + at, t.count);
  }
}

/* dx = keep · dy · silu'(x) */
static void silu_slope_row(const draw_source *s, const uint16_t *restrict d,
                           const float *dy, const float *x, float *dx,
                           int64_t n) {
  const int32_t threshold = (int32_t)s->threshold;
  const float factor = s->factor;
  if (d)
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++)
      dx[i] = dy[i] * SILU_KEPT(i) * lk_silu_slope(x[i]);
  else
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * lk_silu_slope(x[i]);
}

static void silu_backward_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const silu_state *s = opaque;
  draw_buffer buffer;
  int64_t last = cpu_smaller((index + 1) * SILU_TILES, s->rows * s->tiles);
  for (int64_t i = index * SILU_TILES; i < last; i++) {
    silu_tile t = silu_cut(s, i, &buffer);
    int64_t at = t.row * s->width + t.column;
    silu_slope_row(&s->source, t.draws, s->dy + at, s->x + at, s->y + at,
                   t.count);
  }
}

static void gated_silu_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const silu_state *s = opaque;
  draw_buffer buffer;
  int64_t last = cpu_smaller((index + 1) * SILU_TILES, s->rows * s->tiles);
  for (int64_t i = index * SILU_TILES; i < last; i++) {
    silu_tile t = silu_cut(s, i, &buffer);
    const float *a = s->x + t.row * 2 * s->width + t.column;
    silu_forward(&s->source, t.draws, a, a + s->width,
                 s->y + t.row * s->width + t.column, t.count);
  }
}

/* g = keep · dy; da = g · b · silu'(a), db = g · silu(a) */
static void gated_slope_row(const draw_source *s, const uint16_t *restrict d,
                            const float *restrict dy, const float *restrict a,
                            const float *restrict b, float *restrict da,
                            float *restrict db, int64_t n) {
  const int32_t threshold = (int32_t)s->threshold;
  const float factor = s->factor;
  if (d)
    for (int64_t i = 0; i < n; i++) db[i] = dy[i] * SILU_KEPT(i);
  else
    memcpy(db, dy, (size_t)n * sizeof *db);
  for (int64_t i = 0; i < n; i++) {
    float g = db[i], sigmoid = lk_sigmoid(a[i]), silu = a[i] * sigmoid;
    da[i] = g * b[i] * (sigmoid + silu * (1.0f - sigmoid));
    db[i] = g * silu;
  }
}

#pragma GCC pop_options

static void gated_silu_backward_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const silu_state *s = opaque;
  draw_buffer buffer;
  int64_t last = cpu_smaller((index + 1) * SILU_TILES, s->rows * s->tiles);
  for (int64_t i = index * SILU_TILES; i < last; i++) {
    silu_tile t = silu_cut(s, i, &buffer);
    int64_t at = t.row * 2 * s->width + t.column;
    gated_slope_row(&s->source, t.draws,
                    s->dy + t.row * s->width + t.column, s->x + at,
                    s->x + at + s->width, s->y + at, s->y + at + s->width,
                    t.count);
  }
}

/* Run `body` over all tiles: rows of `width` results in all. */
static lk_status silu_run(lk_context *context, const lk_call *call,
                          silu_state s, int clock, cpu_body body) {
  LK_TRY(cpu_need_f32(context, call));
  s.source = draw_open(&call->in[clock], &call->attr);
  s.y = call->out[0].data;
  s.rows = s.count / s.width;
  s.tiles = cpu_pieces(s.width, DRAW_TILE);
  cpu_parallel(context, cpu_pieces(s.rows * s.tiles, SILU_TILES), body, &s);
  return LK_OK;
}

static lk_status cpu_silu(lk_context *context, const lk_call *call) {
  int64_t n = lk_tensor_count(&call->in[0]);
  silu_state s = {.x = call->in[0].data, .width = n, .count = n};
  LK_TRY(silu_run(context, call, s, 1, silu_part));
  return cpu_give_codes(context, call, 0, 1);
}

static lk_status cpu_silu_backward(lk_context *context, const lk_call *call) {
  int64_t n = lk_tensor_count(&call->in[0]);
  silu_state s = {.dy = call->in[0].data, .x = call->in[1].data, .width = n,
                  .count = n};
  LK_TRY(silu_run(context, call, s, 2, silu_backward_part));
  return cpu_give_codes(context, call, 0, 1);
}

static lk_status cpu_gated_silu(lk_context *context, const lk_call *call) {
  const lk_tensor *y = &call->out[0];
  silu_state s = {.x = call->in[0].data, .count = lk_tensor_count(y),
                  .width = y->shape.dim[y->shape.rank - 1]};
  return silu_run(context, call, s, 1, gated_silu_part);
}

static lk_status cpu_gated_silu_backward(lk_context *context,
                                         const lk_call *call) {
  const lk_tensor *dy = &call->in[0];
  silu_state s = {.dy = dy->data, .x = call->in[1].data,
                  .count = lk_tensor_count(dy),
                  .width = dy->shape.dim[dy->shape.rank - 1]};
  return silu_run(context, call, s, 2, gated_silu_backward_part);
}
