/* Optimizers on the CPU: gradients gathered, measured and applied. Formulas by
 * element are those of base/update.h; newton_schulz.c has Muon's iteration. */
#include "../base/scalar.h"
#include "../core/scratch.h"
#include "cpu.h"
#include "vector.h"

enum {
  UPDATE_TILE = 1024,  /* values converted at a time */
  UPDATE_PART = 16384  /* values of a part */
};

/* n <= UPDATE_TILE values of an f32 or bf16 tensor as f32: where they lie, or
 * in `tile`. */
static const float *update_read(const lk_tensor *t, int64_t first, int64_t n,
                                float *restrict tile) {
  if (t->dtype == LK_F32) return (const float *)t->data + first;
  const uint16_t *restrict x = (const uint16_t *)t->data + first;
  for (int64_t i = 0; i < n; i++) tile[i] = lk_f32_from_bf16(x[i]);
  return tile;
}

/* n f32 values into an f32, bf16 or f16 tensor. */
static void update_write(const lk_tensor *t, int64_t first,
                         const float *restrict x, int64_t n) {
  uint16_t *restrict half = (uint16_t *)t->data + first;
  if (t->dtype == LK_F32) {
    float *y = (float *)t->data + first;
    if (y != x) memcpy(y, x, (size_t)n * sizeof *y);
  } else if (t->dtype == LK_BF16) {
    for (int64_t i = 0; i < n; i++) half[i] = lk_bf16_from_f32(x[i]);
  } else {
    for (int64_t i = 0; i < n; i++) half[i] = lk_f16_from_f32(x[i]);
  }
}

/* What update operators share: their tensors, and scalars in f32. */
typedef struct update_state {
  const lk_call *call;
  int64_t count;
  lk_adamw adamw;
  lk_sgd sgd;
  float gradient;            /* factor on the gradient */
  float rest;                /* 1 - beta1 */
  float rate, scale, decay;
  bool stopped;              /* the flag is down */
} update_state;

static update_state update_of(const lk_call *call, const float *control,
                              int factor) {
  update_state s = {.call = call, .count = lk_tensor_count(&call->in[0])};
  const lk_attr *a = &call->attr;
  s.gradient = control[factor] / control[LK_CONTROL_LOSS_SCALE];
  s.rest = (float)(1.0 - a->beta1);
  s.rate = (float)(a->lr * (double)control[LK_CONTROL_RATE]);
  s.scale = (float)a->scale;
  s.decay = (float)a->decay;
  s.stopped = control[LK_CONTROL_FINITE] == 0.0f;
  return s;
}

static void update_run(lk_context *context, cpu_body body,
                       update_state *state) {
  cpu_parallel(context, cpu_pieces(state->count, UPDATE_PART), body, state);
}

/* One tile after the other of part `index`: i its first value, n its length. */
#define UPDATE_TILES(s, index, i, n)                                    \
  for (int64_t i = (index) * UPDATE_PART,                               \
               end_ = cpu_smaller((s)->count, i + UPDATE_PART), n;      \
       n = cpu_smaller(UPDATE_TILE, end_ - i), i < end_; i += n)

/* --- gathering and measuring ---------------------------------------------- */

static void accumulate_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const update_state *s = opaque;
  const lk_tensor *y = &s->call->out[0];
  float added[UPDATE_TILE], sum[UPDATE_TILE];
  UPDATE_TILES(s, index, i, n) {
    const float *x = update_read(&s->call->in[0], i, n, added);
    const float *old = update_read(y, i, n, sum);
    float *to = y->dtype == LK_F32 ? (float *)y->data + i : sum;
#pragma GCC ivdep
    for (int64_t j = 0; j < n; j++) to[j] = old[j] + x[j];
    update_write(y, i, to, n);
  }
}

static lk_status cpu_accumulate(lk_context *context, const lk_call *call) {
  update_state s = {.call = call, .count = lk_tensor_count(&call->in[0])};
  update_run(context, accumulate_part, &s);
  return LK_OK;
}

/* The slot of piece `index`. */
static void squares_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const update_state *s = opaque;
  float tile[UPDATE_TILE];
  double sum = 0;
  int64_t last = cpu_smaller(s->count, (index + 1) * LK_SUM_PIECE);
  for (int64_t i = index * LK_SUM_PIECE; i < last; i += UPDATE_TILE) {
    int64_t n = cpu_smaller(UPDATE_TILE, last - i);
    const float *g = update_read(&s->call->in[0], i, n, tile);
    sum += (double)row_dot(g, g, n);
  }
  const float *control = s->call->out[1].data;
  double scale = (double)control[LK_CONTROL_LOSS_SCALE];
  float *slots = (float *)s->call->out[0].data + s->call->attr.index;
  slots[index] = (float)(sum / (scale * scale));
}

static lk_status cpu_sum_squares(lk_context *context, const lk_call *call) {
  update_state s = {.call = call, .count = lk_tensor_count(&call->in[0])};
  const float *slots = (float *)call->out[0].data + call->attr.index;
  float *control = call->out[1].data;
  int64_t pieces = lk_sum_pieces(s.count);
  cpu_parallel(context, pieces, squares_part, &s);
  for (int64_t i = 0; i < pieces; i++)
    if (!(slots[i] < INFINITY)) control[LK_CONTROL_FINITE] = 0.0f;
  return LK_OK;
}

static lk_status cpu_clip(lk_context *context, const lk_call *call) {
  (void)context;
  const float *slots = call->in[0].data;
  float *control = call->out[0].data;
  double sum = 0;
  for (int64_t i = 0; i < lk_tensor_count(&call->in[0]); i++)
    sum += (double)slots[i];
  float norm = (float)sqrt(sum);
  float factor = control[LK_CONTROL_CLIP] / norm;
  control[LK_CONTROL_NORM] = norm;
  control[LK_CONTROL_FACTOR] = factor < 1.0f ? factor : 1.0f;
  return LK_OK;
}

/* --- AdamW, SGD ----------------------------------------------------------- */

static void adamw_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const update_state *s = opaque;
  const lk_adamw a = s->adamw;
  float tile[UPDATE_TILE];
  UPDATE_TILES(s, index, i, n) {
    const float *restrict g = update_read(&s->call->in[0], i, n, tile);
    float *restrict w = (float *)s->call->out[0].data + i;
    float *restrict m = (float *)s->call->out[1].data + i;
    float *restrict v = (float *)s->call->out[2].data + i;
    for (int64_t j = 0; j < n; j++)
      w[j] = lk_adamw_step(&a, w[j], g[j], &m[j], &v[j]);
    if (lk_present(&s->call->out[3])) update_write(&s->call->out[3], i, w, n);
  }
}

static lk_status cpu_adamw(lk_context *context, const lk_call *call) {
  const float *control = call->in[1].data;
  const lk_attr *a = &call->attr;
  update_state s = update_of(call, control, LK_CONTROL_FACTOR);
  if (s.stopped) return LK_OK;
  s.adamw = lk_adamw_begin(a->lr, a->beta1, a->beta2, a->eps, a->decay,
                           control[LK_CONTROL_RATE], s.gradient,
                           control[LK_CONTROL_STEP]);
  update_run(context, adamw_part, &s);
  return LK_OK;
}

static void sgd_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const update_state *s = opaque;
  const lk_sgd a = s->sgd;
  float tile[UPDATE_TILE];
  UPDATE_TILES(s, index, i, n) {
    const float *restrict g = update_read(&s->call->in[0], i, n, tile);
    float *restrict w = (float *)s->call->out[0].data + i;
    if (lk_present(&s->call->out[1])) {
      float *restrict m = (float *)s->call->out[1].data + i;
      for (int64_t j = 0; j < n; j++)
        w[j] = lk_sgd_step(&a, w[j], g[j], &m[j]);
    } else {
      for (int64_t j = 0; j < n; j++) w[j] = lk_sgd_plain(&a, w[j], g[j]);
    }
    if (lk_present(&s->call->out[2])) update_write(&s->call->out[2], i, w, n);
  }
}

static lk_status cpu_sgd(lk_context *context, const lk_call *call) {
  const float *control = call->in[1].data;
  const lk_attr *a = &call->attr;
  update_state s = update_of(call, control, LK_CONTROL_FACTOR);
  if (s.stopped) return LK_OK;
  s.sgd = lk_sgd_begin(a->lr, a->beta1, a->decay, a->nesterov,
                       control[LK_CONTROL_RATE], s.gradient);
  update_run(context, sgd_part, &s);
  return LK_OK;
}

/* --- Muon ----------------------------------------------------------------- */

/* m and u of n values from the scaled gradient. */
static void muon_tile(const update_state *s, const float *restrict g,
                      float *restrict m, float *restrict u, int64_t n) {
  const float gradient = s->gradient, rest = s->rest;
  for (int64_t j = 0; j < n; j++) {
    float scaled = g[j] * gradient;
    m[j] = lk_muon_momentum(m[j], scaled, rest);
    u[j] = lk_muon_direction(m[j], scaled, rest);
  }
}

static void muon_momentum_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const update_state *s = opaque;
  float tile[UPDATE_TILE], direction[UPDATE_TILE];
  UPDATE_TILES(s, index, i, n) {
    const float *g = update_read(&s->call->in[0], i, n, tile);
    muon_tile(s, g, (float *)s->call->out[0].data + i, direction, n);
    update_write(&s->call->out[1], i, direction, n);
  }
}

/* A stopped step has no direction: zeros, so that what follows is harmless. */
static void muon_no_direction(const lk_tensor *u) {
  memset(u->data, 0, (size_t)lk_tensor_bytes(u));
}

static lk_status cpu_muon_momentum(lk_context *context, const lk_call *call) {
  update_state s =
      update_of(call, call->in[1].data, LK_CONTROL_MUON_FACTOR);
  if (s.stopped)
    muon_no_direction(&call->out[1]);
  else
    update_run(context, muon_momentum_part, &s);
  return LK_OK;
}

/* The largest magnitude of n values, by their bits: a NaN is larger than all
 * numbers. */
static float update_amax(const float *x, int64_t n) {
  int32_t most = 0;
  for (int64_t i = 0; i < n; i++) {
    int32_t bits = (int32_t)(lk_bits_of_float(x[i]) & 0x7FFFFFFFu);
    most = bits > most ? bits : most;
  }
  return lk_float_of_bits((uint32_t)most);
}

enum { MUON_BLOCK = 4096 }; /* the largest block that rules let pass */

static void muon_int8_block(const update_state *s, int64_t first, int64_t n,
                            int8_t *restrict m8, float *scale) {
  float m[MUON_BLOCK], tile[UPDATE_TILE], direction[UPDATE_TILE];
  const float old = *scale;
  for (int64_t i = 0; i < n; i++) m[i] = old * (float)m8[i];
  for (int64_t i = 0; i < n; i += UPDATE_TILE) {
    int64_t part = cpu_smaller(UPDATE_TILE, n - i);
    const float *g = update_read(&s->call->in[0], first + i, part, tile);
    muon_tile(s, g, m + i, direction, part);
    update_write(&s->call->out[2], first + i, direction, part);
  }
  const float fresh = update_amax(m, n) / 127.0f;
  const lk_unit unit = lk_unit_of_scale(fresh);
  for (int64_t i = 0; i < n; i++)
    m8[i] = (int8_t)lk_int_code(lk_unit_apply(unit, m[i]), 127);
  *scale = fresh;
}

static void muon_int8_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const update_state *s = opaque;
  int64_t block = s->call->attr.block;
  int64_t blocks = cpu_pieces(s->count, block);
  int64_t group = cpu_larger(1, UPDATE_PART / block), first = index * group;
  for (int64_t b = first; b < cpu_smaller(blocks, first + group); b++)
    muon_int8_block(s, b * block, cpu_smaller(block, s->count - b * block),
                    (int8_t *)s->call->out[0].data + b * block,
                    (float *)s->call->out[1].data + b);
}

static lk_status cpu_muon_momentum_int8(lk_context *context,
                                        const lk_call *call) {
  update_state s =
      update_of(call, call->in[1].data, LK_CONTROL_MUON_FACTOR);
  int64_t blocks = cpu_pieces(s.count, call->attr.block);
  int64_t group = cpu_larger(1, UPDATE_PART / call->attr.block);
  if (s.stopped)
    muon_no_direction(&call->out[2]);
  else
    cpu_parallel(context, cpu_pieces(blocks, group), muon_int8_part, &s);
  return LK_OK;
}

static void muon_update_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const update_state *s = opaque;
  const float rate = s->rate, scale = s->scale, decay = s->decay;
  float tile[UPDATE_TILE];
  UPDATE_TILES(s, index, i, n) {
    const float *restrict o = update_read(&s->call->in[0], i, n, tile);
    float *restrict w = (float *)s->call->out[0].data + i;
    for (int64_t j = 0; j < n; j++)
      w[j] = lk_muon_step(w[j], o[j], rate, scale, decay);
    if (lk_present(&s->call->out[1])) update_write(&s->call->out[1], i, w, n);
  }
}

static lk_status cpu_muon_update(lk_context *context, const lk_call *call) {
  update_state s = update_of(call, call->in[1].data, LK_CONTROL_FACTOR);
  if (!s.stopped) update_run(context, muon_update_part, &s);
  return LK_OK;
}
