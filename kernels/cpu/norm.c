/* Dropped-out residual sums, RMS norms of rows and of heads, and their
 * gradients. */
#include "../core/scratch.h"
#include "cpu.h"
#include "vector.h"

enum { NORM_ROWS = 16 };

/* Rows of `width` floats. h = x + dropout(delta), y = norm(h or x). */
typedef struct norm_state {
  draw_source source;
  const float *x, *delta, *w;
  float *h, *y, *rstd;
  int64_t rows, width;
  float eps;
} norm_state;

/* h = x + dropout(delta); all may share memory. */
static void residual_row(const norm_state *s, int64_t row) {
  int64_t at = row * s->width;
  const float *x = s->x + at, *delta = s->delta + at;
  float *h = s->h + at;
  uint64_t first = s->source.micro * (uint64_t)(s->rows * s->width);
  if (s->source.threshold) {
    drop_row(&s->source, first + (uint64_t)at, delta, x, h, s->width);
    return;
  }
#pragma GCC ivdep
  for (int64_t i = 0; i < s->width; i++) h[i] = x[i] + delta[i];
}

/* 1 / √(mean x² + eps) */
static float norm_rstd(const float *x, int64_t n, float eps) {
  return 1.0f / sqrtf(row_dot(x, x, n) / (float)n + eps);
}

/* y = x · rstd · w; y may be x. */
static void norm_apply(const float *x, const float *w, float rstd, float *y,
                       int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) y[i] = x[i] * rstd * w[i];
}

static void norm_row(const norm_state *s, const float *x, int64_t row) {
  const float *xr = x + row * s->width;
  float rstd = norm_rstd(xr, s->width, s->eps);
  s->rstd[row] = rstd;
  norm_apply(xr, s->w, rstd, s->y + row * s->width, s->width);
}

static void residual_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const norm_state *s = opaque;
  int64_t last = cpu_smaller((index + 1) * NORM_ROWS, s->rows);
  for (int64_t r = index * NORM_ROWS; r < last; r++) residual_row(s, r);
}

static void rmsnorm_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const norm_state *s = opaque;
  int64_t last = cpu_smaller((index + 1) * NORM_ROWS, s->rows);
  for (int64_t r = index * NORM_ROWS; r < last; r++) norm_row(s, s->x, r);
}

static void residual_norm_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const norm_state *s = opaque;
  int64_t last = cpu_smaller((index + 1) * NORM_ROWS, s->rows);
  for (int64_t r = index * NORM_ROWS; r < last; r++) {
    residual_row(s, r);
    norm_row(s, s->h, r);
  }
}

static lk_status norm_run(lk_context *context, const lk_call *call,
                          norm_state s, cpu_body body) {
  const lk_tensor *x = &call->in[0];
  LK_TRY(cpu_need_f32(context, call));
  s.x = x->data;
  s.width = x->shape.rank > 0 ? x->shape.dim[x->shape.rank - 1] : 1;
  s.rows = lk_tensor_count(x) / s.width;
  s.eps = (float)call->attr.eps;
  cpu_parallel(context, cpu_pieces(s.rows, NORM_ROWS), body, &s);
  return LK_OK;
}

static lk_status cpu_residual(lk_context *context, const lk_call *call) {
  norm_state s = {.source = draw_open(&call->in[2], &call->attr),
                  .delta = call->in[1].data, .h = call->out[0].data};
  return norm_run(context, call, s, residual_part);
}

static lk_status cpu_rmsnorm(lk_context *context, const lk_call *call) {
  norm_state s = {.w = call->in[1].data, .y = call->out[0].data,
                  .rstd = call->out[1].data};
  LK_TRY(norm_run(context, call, s, rmsnorm_part));
  return cpu_give_codes(context, call, 0, 2);
}

static lk_status cpu_residual_norm(lk_context *context, const lk_call *call) {
  norm_state s = {.source = draw_open(&call->in[3], &call->attr),
                  .delta = call->in[1].data, .w = call->in[2].data,
                  .h = call->out[0].data, .y = call->out[1].data,
                  .rstd = call->out[2].data};
  LK_TRY(norm_run(context, call, s, residual_norm_part));
  return cpu_give_codes(context, call, 1, 3);
}

/* --- gradient ----------------------------------------------------------- */

typedef struct norm_backward_state {
  draw_source source;
  const float *dy, *x, *w, *rstd, *dresidual;
  float *dx, *part, *dropped;
  int64_t rows, width, parts;
} norm_backward_state;

/* dx = rstd · w · dy − x · rstd³ · mean(dy · w · x) (+ dresidual), and
 * dw += dy · x · rstd. dx may be dy. */
static void norm_backward_row(const float *dy, const float *x, const float *w,
                              float rstd, const float *dresidual, float *dx,
                              float *restrict dw, int64_t n) {
  float pull = rstd * rstd * rstd * row_dot3(dy, w, x, n) / (float)n;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; i++) dw[i] += dy[i] * (x[i] * rstd);
  if (dresidual)
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++)
      dx[i] = dresidual[i] + (dy[i] * (w[i] * rstd) - x[i] * pull);
  else
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++)
      dx[i] = dy[i] * (w[i] * rstd) - x[i] * pull;
}

/* dropped = dropout(dx) of a row. */
static void norm_dropped_row(const norm_backward_state *s, int64_t row) {
  const draw_source *d = &s->source;
  int64_t at = row * s->width;
  uint64_t first = d->micro * (uint64_t)(s->rows * s->width);
  if (d->threshold == 0)
    memcpy(s->dropped + at, s->dx + at, (size_t)s->width * sizeof(float));
  else
    drop_row(d, first + (uint64_t)at, s->dx + at, NULL, s->dropped + at,
             s->width);
}

static void rmsnorm_backward_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const norm_backward_state *s = opaque;
  int64_t n = s->width, last = (index + 1) * s->rows / s->parts;
  float *dw = s->part + index * n;
  memset(dw, 0, (size_t)n * sizeof *dw);
  for (int64_t r = index * s->rows / s->parts; r < last; r++) {
    norm_backward_row(s->dy + r * n, s->x + r * n, s->w, s->rstd[r],
                      s->dresidual ? s->dresidual + r * n : NULL,
                      s->dx + r * n, dw, n);
    if (s->dropped) norm_dropped_row(s, r);
  }
}

static lk_status cpu_rmsnorm_backward(lk_context *context,
                                      const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  const lk_tensor *extra = &call->in[4];
  int64_t width = lk_tensor_count(&call->in[2]);
  norm_backward_state s = {
      .dy = call->in[0].data, .x = call->in[1].data, .w = call->in[2].data,
      .rstd = call->in[3].data,
      .dresidual = lk_present(extra) ? extra->data : NULL,
      .source = draw_open(&call->in[5], &call->attr),
      .dropped = lk_present(&call->out[2]) ? call->out[2].data : NULL,
      .dx = call->out[0].data, .part = call->scratch, .width = width,
      .rows = lk_tensor_count(&call->in[0]) / width};
  s.parts = lk_row_parts(s.rows);
  cpu_parallel(context, s.parts, rmsnorm_backward_part, &s);
  parts_add(s.part, s.parts, width, call->attr.accumulate, call->out[1].data);
  return LK_OK;
}

/* --- norms of the q and k heads of a qkv row ---------------------------- */

typedef struct head_norm_state {
  const float *x, *wq, *wk, *dy;
  float *y, *rstd, *part;
  const float *rstd_in;
  int64_t rows, heads, kv_heads, width, parts;
  float eps;
} head_norm_state;

static void head_norm_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const head_norm_state *s = opaque;
  int64_t normed = s->heads + s->kv_heads, d = s->width;
  int64_t last = cpu_smaller((index + 1) * NORM_ROWS, s->rows);
  for (int64_t r = index * NORM_ROWS; r < last; r++) {
    const float *x = s->x + r * (normed + s->kv_heads) * d;
    float *y = s->y + r * (normed + s->kv_heads) * d;
    for (int64_t h = 0; h < normed; h++) {
      float rstd = norm_rstd(x + h * d, d, s->eps);
      s->rstd[r * normed + h] = rstd;
      norm_apply(x + h * d, h < s->heads ? s->wq : s->wk, rstd, y + h * d, d);
    }
    if (y != x)
      memcpy(y + normed * d, x + normed * d,
             (size_t)(s->kv_heads * d) * sizeof *y);
  }
}

static head_norm_state head_norm_open(const lk_call *call) {
  head_norm_state s = {.heads = call->attr.heads,
                       .kv_heads = call->attr.kv_heads,
                       .width = call->attr.width,
                       .eps = (float)call->attr.eps};
  s.rows = lk_tensor_count(&call->in[0]) /
           ((s.heads + 2 * s.kv_heads) * s.width);
  return s;
}

static lk_status cpu_head_norm(lk_context *context, const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  head_norm_state s = head_norm_open(call);
  s.x = call->in[0].data;
  s.wq = call->in[1].data;
  s.wk = call->in[2].data;
  s.y = call->out[0].data;
  s.rstd = call->out[1].data;
  cpu_parallel(context, cpu_pieces(s.rows, NORM_ROWS), head_norm_part, &s);
  return LK_OK;
}

/* One row; its part's dwq and dwk lie one after the other at dw. */
static void head_norm_backward_row(const head_norm_state *s, int64_t row,
                                   float *dw) {
  int64_t normed = s->heads + s->kv_heads, d = s->width;
  int64_t at = row * (normed + s->kv_heads) * d;
  const float *dy = s->dy + at, *x = s->x + at;
  float *dx = s->y + at;
  for (int64_t h = 0; h < normed; h++) {
    bool query = h < s->heads;
    norm_backward_row(dy + h * d, x + h * d, query ? s->wq : s->wk,
                      s->rstd_in[row * normed + h], NULL, dx + h * d,
                      query ? dw : dw + d, d);
  }
  if (dx != dy)
    memcpy(dx + normed * d, dy + normed * d,
           (size_t)(s->kv_heads * d) * sizeof *dx);
}

static void head_norm_backward_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const head_norm_state *s = opaque;
  float *dw = s->part + index * 2 * s->width;
  int64_t last = (index + 1) * s->rows / s->parts;
  memset(dw, 0, (size_t)(2 * s->width) * sizeof *dw);
  for (int64_t r = index * s->rows / s->parts; r < last; r++)
    head_norm_backward_row(s, r, dw);
}

/* Half of each part's sums: dwq (0) or dwk (1). */
static void head_norm_add(const head_norm_state *s, int half, bool accumulate,
                          float *dw) {
  if (!accumulate) memset(dw, 0, (size_t)s->width * sizeof *dw);
  for (int64_t p = 0; p < s->parts; p++)
    row_add(dw, s->part + (2 * p + half) * s->width, s->width);
}

static lk_status cpu_head_norm_backward(lk_context *context,
                                        const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  head_norm_state s = head_norm_open(call);
  s.dy = call->in[0].data;
  s.x = call->in[1].data;
  s.wq = call->in[2].data;
  s.wk = call->in[3].data;
  s.rstd_in = call->in[4].data;
  s.y = call->out[0].data;
  s.part = call->scratch;
  s.parts = lk_row_parts(s.rows);
  cpu_parallel(context, s.parts, head_norm_backward_part, &s);
  head_norm_add(&s, 0, call->attr.accumulate, call->out[1].data);
  head_norm_add(&s, 1, call->attr.accumulate, call->out[2].data);
  return LK_OK;
}
