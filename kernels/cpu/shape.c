/* Moving elements without looking at them: transpose, slice, unslice, cat.
 * Around dimension `dim` a tensor is [outer, dim, inner]. */
#include "cpu.h"

#include <string.h>

/* Product of the dimensions [from, to). */
static int64_t shape_product(lk_shape s, int from, int to) {
  int64_t product = 1;
  for (int i = from; i < to; i++) product *= s.dim[i];
  return product;
}

/* A view's memory is its input's: nothing moves. */
static lk_status cpu_reshape(lk_context *context, const lk_call *call) {
  (void)context, (void)call;
  return LK_OK;
}

/* `rows` runs of `bytes`, from and to rows of different lengths. */
typedef struct runs_state {
  const char *x;
  char *y;
  int64_t rows, bytes, step_x, step_y;
} runs_state;

static void runs_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const runs_state *s = opaque;
  memcpy(s->y + index * s->step_y, s->x + index * s->step_x,
         (size_t)s->bytes);
}

/* Many short runs are cheaper in one go than as parts. */
static void runs_copy(lk_context *context, runs_state s) {
  if (s.bytes >= 4096) {
    cpu_parallel(context, s.rows, runs_part, &s);
    return;
  }
  for (int64_t i = 0; i < s.rows; i++) runs_part(&s, i, 0);
}

/* Bytes of one index of dimension `dim`, and of all rows before it. */
static int64_t inner_bytes(const lk_tensor *t, int64_t dim) {
  return shape_product(t->shape, (int)dim + 1, t->shape.rank) *
         (lk_dtype_bits(t->dtype) / 8);
}

static lk_status cpu_slice(lk_context *context, const lk_call *call) {
  const lk_tensor *x = &call->in[0], *y = &call->out[0];
  int dim = (int)call->attr.dim;
  int64_t unit = inner_bytes(x, dim);
  runs_copy(context, (runs_state){
      .x = (const char *)x->data + call->attr.first * unit, .y = y->data,
      .rows = shape_product(x->shape, 0, dim),
      .bytes = y->shape.dim[dim] * unit, .step_x = x->shape.dim[dim] * unit,
      .step_y = y->shape.dim[dim] * unit});
  return LK_OK;
}

static lk_status cpu_unslice(lk_context *context, const lk_call *call) {
  const lk_tensor *x = &call->in[0], *y = &call->out[0];
  int dim = (int)call->attr.dim;
  int64_t unit = inner_bytes(x, dim);
  LK_TRY(context->backend->zero(context, y->data, lk_tensor_bytes(y)));
  runs_copy(context, (runs_state){
      .x = x->data, .y = (char *)y->data + call->attr.first * unit,
      .rows = shape_product(x->shape, 0, dim),
      .bytes = x->shape.dim[dim] * unit, .step_x = x->shape.dim[dim] * unit,
      .step_y = y->shape.dim[dim] * unit});
  return LK_OK;
}

static lk_status cpu_cat(lk_context *context, const lk_call *call) {
  const lk_tensor *y = &call->out[0];
  int dim = (int)call->attr.dim;
  char *to = y->data;
  for (int i = 0; i < 2; i++) {
    const lk_tensor *x = &call->in[i];
    int64_t unit = inner_bytes(x, dim), bytes = x->shape.dim[dim] * unit;
    runs_copy(context, (runs_state){
        .x = x->data, .y = to, .rows = shape_product(x->shape, 0, dim),
        .bytes = bytes, .step_x = bytes,
        .step_y = y->shape.dim[dim] * unit});
    to += bytes;
  }
  return LK_OK;
}

/* --- transpose ---------------------------------------------------------- */

/* [outer, m, middle, n, inner] to [outer, n, middle, m, inner]; `unit` bytes
 * of inner. */
typedef struct transpose_state {
  const char *x;
  char *y;
  int64_t m, middle, n, unit;
  int64_t tiles_m, tiles_n;
} transpose_state;

enum { TRANSPOSE_TILE = 32 };

/* m x n words from rows of `step_x` words to columns of rows of `step_y`. */
static void transpose_words(const char *x, int64_t step_x, char *y,
                            int64_t step_y, int64_t m, int64_t n) {
  for (int64_t j = 0; j < n; j++)
    for (int64_t i = 0; i < m; i++)
      memcpy(y + (j * step_y + i) * 4, x + (i * step_x + j) * 4, 4);
}

static void transpose_units(const char *x, int64_t step_x, char *y,
                            int64_t step_y, int64_t m, int64_t n,
                            int64_t unit) {
  for (int64_t j = 0; j < n; j++)
    for (int64_t i = 0; i < m; i++)
      memcpy(y + (j * step_y + i) * unit, x + (i * step_x + j) * unit,
             (size_t)unit);
}

/* Part: one tile of one (outer, middle) matrix. */
static void transpose_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const transpose_state *s = opaque;
  int64_t tiles = s->tiles_m * s->tiles_n;
  int64_t matrix = index / tiles, tile = index % tiles;
  int64_t outer = matrix / s->middle, middle = matrix % s->middle;
  int64_t i = tile / s->tiles_n * TRANSPOSE_TILE;
  int64_t j = tile % s->tiles_n * TRANSPOSE_TILE;
  int64_t step_x = s->middle * s->n, step_y = s->middle * s->m;
  int64_t base = outer * s->m * s->middle * s->n;
  const char *x =
      s->x + (base + i * step_x + middle * s->n + j) * s->unit;
  char *y = s->y + (base + j * step_y + middle * s->m + i) * s->unit;
  int64_t m = cpu_smaller(TRANSPOSE_TILE, s->m - i);
  int64_t n = cpu_smaller(TRANSPOSE_TILE, s->n - j);
  if (s->unit == 4)
    transpose_words(x, step_x, y, step_y, m, n);
  else
    transpose_units(x, step_x, y, step_y, m, n, s->unit);
}

static lk_status cpu_transpose(lk_context *context, const lk_call *call) {
  const lk_tensor *x = &call->in[0];
  int a = (int)cpu_smaller(call->attr.dim, call->attr.other);
  int b = (int)cpu_larger(call->attr.dim, call->attr.other);
  transpose_state s = {.x = x->data, .y = call->out[0].data, .m = 1,
                       .n = x->shape.dim[b],
                       .middle = shape_product(x->shape, a + 1, b),
                       .unit = inner_bytes(x, b)};
  int64_t outer = shape_product(x->shape, 0, a);
  if (a == b)
    outer = shape_product(x->shape, 0, b), s.middle = 1;
  else
    s.m = x->shape.dim[a];
  s.tiles_m = cpu_pieces(s.m, TRANSPOSE_TILE);
  s.tiles_n = cpu_pieces(s.n, TRANSPOSE_TILE);
  cpu_parallel(context, outer * s.middle * s.tiles_m * s.tiles_n,
               transpose_part, &s);
  return LK_OK;
}
