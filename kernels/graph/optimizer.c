/* Optimizers: groups and schedules, and the emission of every update. */
#include "optimizer.h"

#include "../core/scratch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- schedule ------------------------------------------------------------ */

double lk_schedule_rate(const lk_schedule *s, int64_t step) {
  double w = fmax(1, round(s->warmup * (double)s->steps));
  if (s->warmup > 0 && (double)step < w) return (double)(step + 1) / w;
  if (s->warmup <= 0) w = 0;
  if (s->kind == LK_CONSTANT || s->steps == 0) return 1;
  double span = fmax(1, (double)s->steps - w);
  double x = fmin(1, ((double)step - w) / span);
  double fall = s->kind == LK_COSINE ? 0.5 * (1 + cos(M_PI * x)) : 1 - x;
  return s->final + (1 - s->final) * fall;
}

/* --- groups -------------------------------------------------------------- */

bool lk_glob_match(const char *pattern, const char *text) {
  if (*pattern == 0) return *text == 0;
  if (*pattern == '*') {
    for (;; text++) {
      if (lk_glob_match(pattern + 1, text)) return true;
      if (*text == 0) return false;
    }
  }
  return *pattern == *text && lk_glob_match(pattern + 1, text + 1);
}

static bool takes(const lk_optimizer_group *group, const lk_parameter *p) {
  if (group->kind == LK_MUON && p->shape.rank != 2) return false;
  return group->match[0] == 0 || lk_glob_match(group->match, p->name);
}

lk_status lk_optimizer_assign(const lk_optimizer *o, lk_store *s,
                              lk_error *error) {
  for (int i = 1; i < s->parameter_count; i++) {
    lk_parameter *p = &s->parameters[i];
    for (int k = 0; k < o->groups && p->group == NULL; k++)
      if (takes(&o->group[k], p)) p->group = &o->group[k];
    if (p->group == NULL)
      return lk_fail(error, LK_ARGUMENT, "optimizer: no group takes parameter "
                     "%s; end the list with one that has no match", p->name);
  }
  return LK_OK;
}

enum { MOMENTUM_BLOCK = 256 };

static lk_status declare_muon(lk_store *s, lk_parameter *p) {
  int64_t count = lk_shape_count(p->shape);
  bool small = p->format->int8_momentum;
  lk_store_add_part(s, p, LK_PART_MOMENT1, small ? LK_I8 : LK_F32, p->shape,
                    LK_OPTIMIZER);
  if (small)
    lk_store_add_part(s, p, LK_PART_MSCALE, LK_F32,
                      lk_shape_of((count + MOMENTUM_BLOCK - 1) /
                                  MOMENTUM_BLOCK), LK_OPTIMIZER);
  return LK_OK;
}

static lk_status declare_state(lk_store *s, lk_parameter *p,
                               lk_error *error) {
  if (p->group->kind == LK_MUON) return declare_muon(s, p);
  if (p->format->quantized)
    return lk_fail(error, LK_ARGUMENT, "storage %s needs a Muon group for %s; "
                   "its 4-bit weights are updated by Muon alone",
                   p->format->name, p->name);
  if (p->group->kind == LK_SGD && p->group->beta1 == 0) return LK_OK;
  lk_store_add_part(s, p, LK_PART_MOMENT1, LK_F32, p->shape, LK_OPTIMIZER);
  if (p->group->kind == LK_ADAMW)
    lk_store_add_part(s, p, LK_PART_MOMENT2, LK_F32, p->shape, LK_OPTIMIZER);
  return LK_OK;
}

lk_status lk_optimizer_declare(lk_store *s, lk_error *error) {
  for (int i = 1; i < s->parameter_count; i++)
    LK_TRY(declare_state(s, &s->parameters[i], error));
  return LK_OK;
}

/* --- measuring ----------------------------------------------------------- */

int64_t lk_optimizer_slot(const lk_store *s, int parameter) {
  int64_t slots = 0;
  for (int i = 1; i < parameter; i++)
    slots += lk_sum_pieces(lk_shape_count(s->parameters[i].shape));
  return slots;
}

/* Of all gradients that nobody measured yet: calls in a row, so that they may
 * run beside each other. */
static void emit_squares(lk_graph *g, lk_updates *u) {
  for (int i = 0; i < u->fresh_count; i++) {
    struct lk_final_gradient f = u->fresh[i];
    int64_t slot = lk_optimizer_slot(g->store, f.parameter);
    lk_emit(g, LK_OP_sum_squares, LK_IN(f.gradient),
            LK_OUT(u->slots, g->control), LK_ATTRS(.index = slot));
  }
  u->fresh_count = 0;
}

/* --- updates ------------------------------------------------------------- */

lk_status lk_updates_open(lk_updates *u, const lk_store *s, lk_error *error) {
  size_t n = (size_t)lk_store_parameter_count(s) + 1;
  u->fresh = calloc(n, sizeof *u->fresh);
  u->waiting = calloc(n, sizeof *u->waiting);
  u->late = calloc(n, sizeof *u->late);
  if (u->fresh && u->waiting && u->late) return LK_OK;
  lk_updates_close(u);
  return lk_fail(error, LK_OOM, "no host memory for the optimizer");
}

void lk_updates_close(lk_updates *u) {
  free(u->fresh);
  free(u->waiting);
  free(u->late);
  u->fresh = u->waiting = u->late = NULL;
}

static lk_value part(lk_graph *g, const lk_parameter *p, lk_part which) {
  return p->part[which] ? lk_value_of_buffer(g, p->part[which]) : LK_NONE;
}

static void emit_momentum(lk_graph *g, const lk_parameter *p, lk_value d,
                          lk_value u) {
  lk_attr attr = {.beta1 = p->group->beta1, .block = MOMENTUM_BLOCK};
  lk_value m = part(g, p, LK_PART_MOMENT1);
  if (p->part[LK_PART_MSCALE])
    lk_emit(g, LK_OP_muon_momentum_int8, LK_IN(d, g->control),
            LK_OUT(m, part(g, p, LK_PART_MSCALE), u), attr);
  else
    lk_emit(g, LK_OP_muon_momentum, LK_IN(d, g->control), LK_OUT(m, u), attr);
}

static double muon_scale(lk_shape s) {
  return sqrt(fmax(1, (double)s.dim[0] / (double)s.dim[1]));
}

static lk_value emit_orthogonal(lk_graph *g, const lk_optimizer_group *group,
                                lk_value u, lk_value o) {
  return lk_emit(g, LK_OP_newton_schulz, LK_IN(u), LK_OUT(o),
                 LK_ATTRS(.steps = group->steps, .eps = group->eps)).v[0];
}

/* o = the parts of u [k, R, C], each orthogonalized and scaled by itself. */
static void emit_split(lk_graph *g, const lk_parameter *p, lk_value u,
                       lk_value o, int k) {
  lk_dtype dtype = lk_value_dtype(g, u);
  int64_t columns = p->shape.dim[1], offset = 0;
  for (int i = 0; i < k; i++) {
    for (int n = 0; n < 3; n++) {
      lk_shape s = lk_shape_of(1, p->parts[n], columns);
      lk_value from = lk_value_view(g, u, offset, dtype, s);
      lk_value to = lk_value_view(g, o, offset, dtype, s);
      lk_shape part = lk_shape_of(p->parts[n], columns);
      lk_emit(g, LK_OP_affine, LK_IN(emit_orthogonal(g, p->group, from, 0)),
              LK_OUT(to), LK_ATTRS(.scale = muon_scale(part)));
      offset += lk_dtype_bytes(dtype, lk_shape_count(s));
    }
  }
}

/* One batch of same-shaped matrices: momentum, Newton–Schulz, update. What is
 * not finite by then stops it. */
static void emit_muon(lk_graph *g, lk_updates *up,
                      const struct lk_final_gradient *batch, int k) {
  if (!lk_graph_ok(g)) return;
  lk_parameter lead = *lk_store_parameter(g->store, batch[0].parameter);
  lk_shape s = lead.shape;
  /* directions lie outside f16's range */
  lk_dtype dtype = g->compute == LK_F16 ? LK_BF16 : g->compute;
  int64_t bytes = lk_dtype_bytes(dtype, lk_shape_count(s));
  lk_shape stacked = lk_shape_of(k, s.dim[0], s.dim[1]);
  emit_squares(g, up);
  lk_value u = lk_value_new(g, dtype, stacked, LK_SCRATCH, "momentum");
  for (int i = 0; i < k; i++)
    emit_momentum(g, lk_store_parameter(g->store, batch[i].parameter),
                  batch[i].gradient, lk_value_view(g, u, i * bytes, dtype, s));
  const lk_optimizer_group *group = lead.group;
  bool split = group->split && lead.parts[0] > 0;
  lk_value o = lk_value_new(g, dtype, stacked, LK_SCRATCH, "orthogonal");
  if (split) emit_split(g, &lead, u, o, k);
  else emit_orthogonal(g, group, u, o);
  for (int i = 0; i < k; i++)
    lk_weight_update(g, lk_store_parameter(g->store, batch[i].parameter),
                     up->weights,
                     (lk_update){.direction = lk_value_view(g, o, i * bytes,
                                                            dtype, s),
                                 .lr = group->lr, .decay = group->decay,
                                 .scale = split ? 1 : muon_scale(s)});
}

/* May the matrices of `a` and `b` be orthogonalized in one batch? */
static bool same_batch(const lk_store *s, int a, int b) {
  const lk_parameter *p = lk_store_parameter(s, a);
  const lk_parameter *q = lk_store_parameter(s, b);
  return lk_shape_equal(p->shape, q->shape) && p->group == q->group &&
         p->format == q->format && p->parts[0] == q->parts[0];
}

/* Take from `list` up to `most` entries that fit with parameter `lead`. */
static int take_batch(const lk_store *s, struct lk_final_gradient *list,
                      int *count, int lead, struct lk_final_gradient *batch,
                      int most) {
  int taken = 0, kept = 0;
  for (int i = 0; i < *count; i++) {
    if (taken < most && same_batch(s, lead, list[i].parameter))
      batch[taken++] = list[i];
    else
      list[kept++] = list[i];
  }
  *count = kept;
  return taken;
}

enum { LARGEST_BATCH = 64 };

static int batch_limit(const lk_updates *u) {
  return u->fuse_group < LARGEST_BATCH ? u->fuse_group : LARGEST_BATCH;
}

static void emit_all_muon(lk_graph *g, lk_updates *u,
                          struct lk_final_gradient *list, int count) {
  struct lk_final_gradient batch[LARGEST_BATCH];
  while (count > 0 && lk_graph_ok(g)) {
    int k = take_batch(g->store, list, &count, list[0].parameter, batch,
                       batch_limit(u));
    emit_muon(g, u, batch, k);
  }
}

static int waiting_like(const lk_graph *g, const lk_updates *u, int parameter) {
  int n = 0;
  for (int i = 0; i < u->waiting_count; i++)
    n += same_batch(g->store, parameter, u->waiting[i].parameter);
  return n;
}

static void emit_waiting(lk_graph *g, lk_updates *u, int parameter) {
  struct lk_final_gradient batch[LARGEST_BATCH];
  int k = take_batch(g->store, u->waiting, &u->waiting_count, parameter, batch,
                     batch_limit(u));
  emit_muon(g, u, batch, k);
}

void lk_updates_final(lk_graph *g, int parameter, lk_value gradient,
                      void *state) {
  lk_updates *u = state;
  struct lk_final_gradient f = {parameter, gradient};
  const lk_parameter *p = lk_store_parameter(g->store, parameter);
  u->fresh[u->fresh_count++] = f;
  if (!u->fused || p->group->kind != LK_MUON) {
    u->late[u->late_count++] = f;
    return;
  }
  u->waiting[u->waiting_count++] = f;
  if (waiting_like(g, u, parameter) >= batch_limit(u))
    emit_waiting(g, u, parameter);
}

static void emit_adamw(lk_graph *g, const lk_parameter *p, lk_value d) {
  const lk_optimizer_group *o = p->group;
  lk_emit(g, LK_OP_adamw, LK_IN(d, g->control),
          LK_OUT(part(g, p, LK_PART_MASTER), part(g, p, LK_PART_MOMENT1),
                 part(g, p, LK_PART_MOMENT2), part(g, p, LK_PART_COPY)),
          LK_ATTRS(.lr = o->lr, .beta1 = o->beta1, .beta2 = o->beta2,
                   .eps = o->eps, .decay = o->decay));
}

static void emit_sgd(lk_graph *g, const lk_parameter *p, lk_value d) {
  const lk_optimizer_group *o = p->group;
  lk_emit(g, LK_OP_sgd, LK_IN(d, g->control),
          LK_OUT(part(g, p, LK_PART_MASTER), part(g, p, LK_PART_MOMENT1),
                 part(g, p, LK_PART_COPY)),
          LK_ATTRS(.lr = o->lr, .beta1 = o->beta1, .decay = o->decay,
                   .nesterov = o->nesterov));
}

void lk_updates_finish(lk_graph *g, lk_updates *u) {
  g->in_backward = true;
  emit_all_muon(g, u, u->waiting, u->waiting_count);
  u->waiting_count = 0;
  g->section = LK_UPDATE;
  emit_squares(g, u);
  lk_emit(g, LK_OP_clip, LK_IN(u->slots), LK_OUT(g->control), LK_ATTRS(0));
  int muon = 0;
  for (int i = 0; i < u->late_count; i++) {
    const lk_parameter *p = lk_store_parameter(g->store,
                                               u->late[i].parameter);
    if (p->group->kind == LK_MUON) u->late[muon++] = u->late[i];
    else if (p->group->kind == LK_ADAMW) emit_adamw(g, p, u->late[i].gradient);
    else emit_sgd(g, p, u->late[i].gradient);
  }
  emit_all_muon(g, u, u->late, muon);
  g->section = LK_MICRO;
  g->in_backward = false;
}
