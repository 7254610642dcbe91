/* Sums, means, extremes, broadcasting and softmax on the CPU. Every reduction
 * looks at its tensor as [outer, n, inner] and runs in an order that depends
 * on these three numbers alone. */
#include "../core/scratch.h"
#include "cpu.h"
#include "vector.h"

enum {
  REDUCE_COLUMNS = 256, /* columns summed side by side */
  REDUCE_BLOCK = 64,    /* rows added in f32 before they go to a double */
  REDUCE_PART = 8192    /* elements that are worth a part */
};

typedef struct reduce_state {
  const float *x;
  float *y;
  double *partial;     /* [outer, pieces, inner] */
  int64_t outer, n, inner, pieces, tiles;
  double scale;
} reduce_state;

/* x as [outer, n, inner] around dimension `dim`; all of it is n if dim = -1. */
static void reduce_split(lk_shape shape, int64_t dim, int64_t *outer,
                         int64_t *n, int64_t *inner) {
  *outer = *inner = 1;
  *n = dim < 0 ? lk_shape_count(shape) : shape.dim[dim];
  for (int i = 0; i < shape.rank && dim >= 0; i++) {
    if (i < dim) *outer *= shape.dim[i];
    if (i > dim) *inner *= shape.dim[i];
  }
}

/* --- sums ----------------------------------------------------------------- */

/* total[c] += the sum of `rows` rows of x, `columns` <= REDUCE_COLUMNS wide. */
static void reduce_columns(const float *restrict x, int64_t rows,
                           int64_t stride, int64_t columns,
                           double *restrict total) {
  float sum[REDUCE_COLUMNS];
  for (int64_t r = 0; r < rows; r += REDUCE_BLOCK) {
    int64_t last = cpu_smaller(rows, r + REDUCE_BLOCK);
    for (int64_t c = 0; c < columns; c++) sum[c] = x[r * stride + c];
    for (int64_t i = r + 1; i < last; i++)
      for (int64_t c = 0; c < columns; c++) sum[c] += x[i * stride + c];
    for (int64_t c = 0; c < columns; c++) total[c] += (double)sum[c];
  }
}

/* One piece of n for one tile of columns. */
static void reduce_piece(void *opaque, int64_t index, int lane) {
  (void)lane;
  const reduce_state *s = opaque;
  int64_t tile = index % s->tiles, slab = index / s->tiles;
  int64_t outer = slab / s->pieces, piece = slab % s->pieces;
  int64_t first = piece * LK_SUM_PIECE, column = tile * REDUCE_COLUMNS;
  int64_t rows = cpu_smaller(LK_SUM_PIECE, s->n - first);
  int64_t columns = cpu_smaller(REDUCE_COLUMNS, s->inner - column);
  const float *x = s->x + (outer * s->n + first) * s->inner + column;
  double *total = s->partial + slab * s->inner + column;
  memset(total, 0, (size_t)columns * sizeof *total);
  if (s->inner == 1)
    *total = (double)row_sum(x, rows);
  else
    reduce_columns(x, rows, s->inner, columns, total);
}

/* Results from the pieces, in order. */
static void reduce_join(void *opaque, int64_t index, int lane) {
  (void)lane;
  const reduce_state *s = opaque;
  int64_t first = index * REDUCE_PART, count = s->outer * s->inner;
  int64_t last = cpu_smaller(count, first + REDUCE_PART);
  for (int64_t i = first; i < last; i++) {
    const double *p =
        s->partial + i / s->inner * s->pieces * s->inner + i % s->inner;
    double sum = 0;
    for (int64_t k = 0; k < s->pieces; k++) sum += p[k * s->inner];
    s->y[i] = (float)(sum * s->scale);
  }
}

/* A group of short rows, summed to the end. */
static void reduce_rows(void *opaque, int64_t index, int lane) {
  (void)lane;
  const reduce_state *s = opaque;
  int64_t group = cpu_larger(1, REDUCE_PART / s->n), first = index * group;
  int64_t last = cpu_smaller(s->outer, first + group);
  for (int64_t r = first; r < last; r++)
    s->y[r] = (float)((double)row_sum(s->x + r * s->n, s->n) * s->scale);
}

/* y [outer, inner] = scale · Σ over n of x [outer, n, inner]; `partial` has
 * room for outer · pieces · inner doubles. */
static void reduce_sum(lk_context *context, const float *x, float *y,
                       double *partial, int64_t outer, int64_t n,
                       int64_t inner, double scale) {
  reduce_state s = {x, y, partial, outer, n, inner,
                    lk_sum_pieces(n),
                    cpu_pieces(inner, REDUCE_COLUMNS), scale};
  if (inner == 1 && s.pieces == 1) {
    int64_t group = cpu_larger(1, REDUCE_PART / n);
    cpu_parallel(context, cpu_pieces(outer, group), reduce_rows, &s);
    return;
  }
  cpu_parallel(context, outer * s.pieces * s.tiles, reduce_piece, &s);
  cpu_parallel(context, cpu_pieces(outer * inner, REDUCE_PART), reduce_join,
               &s);
}

static lk_status reduce_sum_call(lk_context *context, const lk_call *call,
                                 bool mean) {
  LK_TRY(cpu_need_f32(context, call));
  int64_t outer, n, inner;
  reduce_split(call->in[0].shape, call->attr.dim, &outer, &n, &inner);
  reduce_sum(context, call->in[0].data, call->out[0].data, call->scratch,
             outer, n, inner, mean ? 1.0 / (double)n : 1.0);
  return LK_OK;
}

static lk_status cpu_sum(lk_context *context, const lk_call *call) {
  return reduce_sum_call(context, call, false);
}

static lk_status cpu_mean(lk_context *context, const lk_call *call) {
  return reduce_sum_call(context, call, true);
}

/* --- extremes ------------------------------------------------------------- */

/* Whether x replaces m: larger (smaller if `least`), or the first NaN. */
static inline bool reduce_better(float x, float m, bool least) {
  return (least ? x < m : x > m) | ((x != x) & (m == m));
}

/* The extreme of a row of n >= 1; a NaN wins. */
static inline float reduce_extreme(const float *x, int64_t n, bool least) {
  float best[16];
  int64_t i = 0;
  for (int l = 0; l < 16; l++) best[l] = x[cpu_smaller(l, n - 1)];
  for (; i + 16 <= n; i += 16)
    for (int l = 0; l < 16; l++)
      best[l] = reduce_better(x[i + l], best[l], least) ? x[i + l] : best[l];
  for (; i < n; i++)
    best[0] = reduce_better(x[i], best[0], least) ? x[i] : best[0];
  for (int l = 1; l < 16; l++)
    best[0] = reduce_better(best[l], best[0], least) ? best[l] : best[0];
  return best[0];
}

/* Extremes of columns with where they were met first. */
static inline void reduce_extremes(const float *restrict x, int64_t rows,
                                   int64_t stride, int64_t columns,
                                   bool least, float *restrict best,
                                   int32_t *restrict where) {
  for (int64_t c = 0; c < columns; c++) best[c] = x[c], where[c] = 0;
  for (int64_t r = 1; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) {
      float v = x[r * stride + c];
      bool better = reduce_better(v, best[c], least);
      where[c] = better ? (int32_t)r : where[c];
      best[c] = better ? v : best[c];
    }
}

typedef struct extreme_state {
  const float *x;
  float *y;         /* values, or NULL */
  int32_t *index;   /* or where they are */
  int64_t outer, n, inner, tiles, group;
  bool least;
} extreme_state;

static void extreme_row(const extreme_state *s, int64_t row) {
  const float *x = s->x + row * s->n;
  float best = s->least ? reduce_extreme(x, s->n, true)
                        : reduce_extreme(x, s->n, false);
  if (s->y != NULL) s->y[row] = best;
  if (s->index == NULL) return;
  int64_t i = 0;
  while (x[i] != best && x[i] == x[i]) i++; /* best is there, or a NaN is */
  s->index[row] = (int32_t)i;
}

static void extreme_rows(void *opaque, int64_t index, int lane) {
  (void)lane;
  const extreme_state *s = opaque;
  int64_t first = index * s->group;
  int64_t last = cpu_smaller(s->outer, first + s->group);
  for (int64_t r = first; r < last; r++) extreme_row(s, r);
}

static void extreme_columns(void *opaque, int64_t index, int lane) {
  (void)lane;
  const extreme_state *s = opaque;
  float best[REDUCE_COLUMNS];
  int32_t where[REDUCE_COLUMNS];
  int64_t outer = index / s->tiles;
  int64_t column = index % s->tiles * REDUCE_COLUMNS;
  int64_t columns = cpu_smaller(REDUCE_COLUMNS, s->inner - column);
  const float *x = s->x + outer * s->n * s->inner + column;
  if (s->least)
    reduce_extremes(x, s->n, s->inner, columns, true, best, where);
  else
    reduce_extremes(x, s->n, s->inner, columns, false, best, where);
  int64_t at = outer * s->inner + column;
  size_t bytes = (size_t)columns * 4;
  if (s->y != NULL) memcpy(s->y + at, best, bytes);
  if (s->index != NULL) memcpy(s->index + at, where, bytes);
}

static lk_status extreme_call(lk_context *context, const lk_call *call,
                              bool least, bool index) {
  LK_TRY(cpu_need_f32(context, call));
  extreme_state s = {.x = call->in[0].data, .least = least};
  reduce_split(call->in[0].shape, call->attr.dim, &s.outer, &s.n, &s.inner);
  s.tiles = cpu_pieces(s.inner, REDUCE_COLUMNS);
  s.group = cpu_larger(1, REDUCE_PART / s.n);
  if (index) s.index = call->out[0].data;
  else s.y = call->out[0].data;
  if (s.inner == 1)
    cpu_parallel(context, cpu_pieces(s.outer, s.group), extreme_rows, &s);
  else
    cpu_parallel(context, s.outer * s.tiles, extreme_columns, &s);
  return LK_OK;
}

static lk_status cpu_max(lk_context *context, const lk_call *call) {
  return extreme_call(context, call, false, false);
}

static lk_status cpu_min(lk_context *context, const lk_call *call) {
  return extreme_call(context, call, true, false);
}

static lk_status cpu_argmax(lk_context *context, const lk_call *call) {
  return extreme_call(context, call, false, true);
}

/* --- broadcasting, both ways ---------------------------------------------- */

/* The larger shape as runs of dimensions that the smaller one has or lacks. */
typedef struct reduce_groups {
  int count;
  int64_t size[LK_MAX_RANK];
  bool lacks[LK_MAX_RANK];
} reduce_groups;

static void groups_add(reduce_groups *g, int64_t size, bool lacks) {
  if (size == 1) return;
  if (g->count > 0 && g->lacks[g->count - 1] == lacks) {
    g->size[g->count - 1] *= size;
    return;
  }
  g->size[g->count] = size;
  g->lacks[g->count++] = lacks;
}

static reduce_groups groups_of(lk_shape large, lk_shape small) {
  reduce_groups g = {0};
  int offset = large.rank - small.rank;
  for (int i = 0; i < large.rank; i++)
    groups_add(&g, large.dim[i], i < offset || small.dim[i - offset] == 1);
  return g;
}

/* The first group that is lacking, or -1. */
static int groups_first(const reduce_groups *g) {
  for (int i = 0; i < g->count; i++)
    if (g->lacks[i]) return i;
  return -1;
}

static reduce_groups groups_without(const reduce_groups *g, int gone) {
  reduce_groups rest = {0};
  for (int i = 0; i < g->count; i++)
    if (i != gone) groups_add(&rest, g->size[i], g->lacks[i]);
  return rest;
}

static int64_t groups_product(const reduce_groups *g, int first, int last) {
  int64_t product = 1;
  for (int i = first; i < last; i++) product *= g->size[i];
  return product;
}

/* Sums one lacking run after the other, through two buffers in scratch. */
static lk_status cpu_sum_to(lk_context *context, const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  reduce_groups g = groups_of(call->in[0].shape, call->out[0].shape);
  const float *x = call->in[0].data;
  float *y = call->out[0].data, *buffer[2] = {call->scratch, NULL};
  int at = groups_first(&g);
  if (at < 0) {
    memcpy(y, x, (size_t)lk_tensor_bytes(&call->out[0]));
    return LK_OK;
  }
  int64_t room = (lk_scratch_sum_to(context->profile, call) -
                  8 * lk_sum_pieces(lk_tensor_count(&call->in[0]))) / 16;
  buffer[1] = buffer[0] + room;
  double *partial = (double *)(void *)(buffer[1] + room);
  for (int turn = 0; at >= 0; turn ^= 1) {
    reduce_groups rest = groups_without(&g, at);
    int64_t outer = groups_product(&g, 0, at);
    int64_t inner = groups_product(&g, at + 1, g.count);
    int next = groups_first(&rest);
    float *to = next < 0 ? y : buffer[turn];
    reduce_sum(context, x, to, partial, outer, g.size[at], inner, 1.0);
    x = to;
    g = rest;
    at = next;
  }
  return LK_OK;
}

typedef struct broadcast_state {
  const float *x;
  float *y;
  reduce_groups groups;
  int64_t rows, width, group;
} broadcast_state;

/* Where row `row` of y starts in x: its position in the groups x has. */
static int64_t broadcast_source(const reduce_groups *g, int64_t row) {
  int64_t at = 0, step = g->lacks[g->count - 1] ? 1 : g->size[g->count - 1];
  for (int i = g->count - 2; i >= 0; i--) {
    int64_t position = row % g->size[i];
    row /= g->size[i];
    if (g->lacks[i]) continue;
    at += position * step;
    step *= g->size[i];
  }
  return at;
}

static void broadcast_rows(void *opaque, int64_t index, int lane) {
  (void)lane;
  const broadcast_state *s = opaque;
  int64_t first = index * s->group;
  int64_t last = cpu_smaller(s->rows, first + s->group);
  bool fill = s->groups.lacks[s->groups.count - 1];
  for (int64_t r = first; r < last; r++) {
    const float *x = s->x + broadcast_source(&s->groups, r);
    float *restrict y = s->y + r * s->width;
    if (!fill) {
      memcpy(y, x, (size_t)s->width * sizeof *y);
      continue;
    }
    float value = *x;
    for (int64_t i = 0; i < s->width; i++) y[i] = value;
  }
}

static lk_status cpu_broadcast(lk_context *context, const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  broadcast_state s = {
      .x = call->in[0].data, .y = call->out[0].data,
      .groups = groups_of(call->out[0].shape, call->in[0].shape)};
  if (s.groups.count == 0) {
    *s.y = *s.x;
    return LK_OK;
  }
  s.width = s.groups.size[s.groups.count - 1];
  s.rows = lk_tensor_count(&call->out[0]) / s.width;
  s.group = cpu_larger(1, REDUCE_PART / s.width);
  cpu_parallel(context, cpu_pieces(s.rows, s.group), broadcast_rows, &s);
  return LK_OK;
}

/* --- softmax -------------------------------------------------------------- */

typedef struct softmax_state {
  const float *x, *dy;
  float *y;
  int64_t rows, width, group;
  bool causal;
} softmax_state;

static void softmax_rows(void *opaque, int64_t index, int lane) {
  (void)lane;
  const softmax_state *s = opaque;
  int64_t first = index * s->group;
  int64_t last = cpu_smaller(s->rows, first + s->group);
  for (int64_t r = first; r < last; r++) {
    const float *x = s->x + r * s->width;
    float *y = s->y + r * s->width;
    int64_t n = s->causal ? r % s->width + 1 : s->width;
    row_exp(x, y, n, row_max(x, n));
    row_scale(y, n, 1.0f / row_sum(y, n));
    memset(y + n, 0, (size_t)(s->width - n) * sizeof *y);
  }
}

static void softmax_backward_rows(void *opaque, int64_t index, int lane) {
  (void)lane;
  const softmax_state *s = opaque;
  int64_t first = index * s->group;
  int64_t last = cpu_smaller(s->rows, first + s->group);
  for (int64_t r = first; r < last; r++) {
    const float *y = s->x + r * s->width, *dy = s->dy + r * s->width;
    float *dx = s->y + r * s->width;
    float dot = row_dot(dy, y, s->width);
#pragma GCC ivdep
    for (int64_t i = 0; i < s->width; i++) dx[i] = y[i] * (dy[i] - dot);
  }
}

static softmax_state softmax_of(const lk_call *call, const lk_tensor *x) {
  const lk_shape *shape = &x->shape;
  softmax_state s = {.x = x->data, .y = call->out[0].data,
                     .causal = call->attr.causal};
  s.width = shape->dim[shape->rank - 1];
  s.rows = lk_tensor_count(x) / s.width;
  s.group = cpu_larger(1, REDUCE_PART / s.width);
  return s;
}

static lk_status cpu_softmax(lk_context *context, const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  softmax_state s = softmax_of(call, &call->in[0]);
  cpu_parallel(context, cpu_pieces(s.rows, s.group), softmax_rows, &s);
  return LK_OK;
}

static lk_status cpu_softmax_backward(lk_context *context,
                                      const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  softmax_state s = softmax_of(call, &call->in[1]);
  s.dy = call->in[0].data;
  cpu_parallel(context, cpu_pieces(s.rows, s.group), softmax_backward_rows,
               &s);
  return LK_OK;
}
