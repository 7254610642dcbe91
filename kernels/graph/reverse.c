/* The reverse pass: walks the forward calls backwards and lets each operator's
 * gradient rule emit its own; keeps the gradients that reach each value. */
#include <stdlib.h>
#include <string.h>

#include "graph.h"
#include "recompute.h"
#include "store.h"

struct lk_reverse {
  lk_graph *g;
  int room;                /* of the arrays below, by value */
  lk_value *gradient;      /* what has reached a value */
  bool *owned;             /* nobody else reads that gradient's memory */
  lk_remade made;          /* dropped values made again */
  int *uses;               /* by parameter: forward calls still to come */
};

/* --- what gradient rules call -------------------------------------------- */

lk_value lk_gradient_of(lk_reverse *r, lk_value v) {
  return v != LK_NONE && v < r->room ? r->gradient[v] : LK_NONE;
}

bool lk_wants(lk_reverse *r, lk_value v) {
  return v != LK_NONE && lk_value_get(r->g, v)->wants;
}

lk_value lk_saved(lk_reverse *r, lk_value v) {
  if (v != LK_NONE && lk_value_get(r->g, v)->seen)
    v = lk_value_get(r->g, v)->seen;
  return lk_make_again(r->g, &r->made, v);
}

/* A parameter's gradient gathers in f32, or as its weight format says. */
static lk_value new_parameter_gradient(lk_graph *g, int parameter) {
  const lk_parameter *p = lk_store_parameter(g->store, parameter);
  lk_dtype dtype = lk_parameter_gradient_dtype(p, g->compute, g->accumulate);
  char name[sizeof((lk_value_info *)0)->name];
  lk_clip_text(name, sizeof name, "d ", p->name);
  return lk_value_new(g, dtype, p->shape, LK_GRADIENTS, name);
}

lk_value lk_parameter_accumulator(lk_graph *g, int parameter,
                                  bool *accumulate) {
  struct lk_parameter_gradient *d = &g->parameter_gradients[parameter];
  if (d->value == LK_NONE) {
    d->value = new_parameter_gradient(g, parameter);
    if (g->accumulate > 1) {  /* starts at zero, gathers over micro-batches */
      lk_section section = g->section;
      g->section = LK_BEGIN;
      lk_emit(g, LK_OP_fill, NULL, LK_OUT(d->value), LK_ATTRS(0));
      g->section = section;
    }
  }
  *accumulate = d->written || g->accumulate > 1;
  d->written = true;
  return d->value;
}

lk_value lk_accumulator(lk_reverse *r, lk_value v, bool *accumulate) {
  lk_graph *g = r->g;
  *accumulate = false;
  if (!lk_graph_ok(g)) return LK_NONE;
  int parameter = lk_value_get(g, v)->parameter;
  if (parameter) return lk_parameter_accumulator(g, parameter, accumulate);
  if (r->gradient[v] && r->owned[v]) {
    *accumulate = true;
    return r->gradient[v];
  }
  lk_value fresh = lk_value_new(g, lk_value_dtype(g, v), lk_value_shape(g, v),
                                LK_ACTIVATIONS, "gradient");
  if (r->gradient[v] && fresh) {  /* shared: begin with a copy of it */
    lk_emit(g, LK_OP_copy, LK_IN(r->gradient[v]), LK_OUT(fresh), LK_ATTRS(0));
    *accumulate = true;
  }
  r->gradient[v] = fresh;
  r->owned[v] = true;
  return fresh;
}

/* `gradient` joins what a parameter has gathered. */
static void contribute_parameter(lk_graph *g, int parameter, lk_value d) {
  bool accumulate;
  lk_value sum = lk_parameter_accumulator(g, parameter, &accumulate);
  if (accumulate)
    lk_emit(g, LK_OP_accumulate, LK_IN(d), LK_OUT(sum), LK_ATTRS(0));
  else
    lk_emit(g, LK_OP_cast, LK_IN(d), LK_OUT(sum), LK_ATTRS(0));
}

void lk_contribute(lk_reverse *r, lk_value v, lk_value d) {
  lk_graph *g = r->g;
  if (!lk_graph_ok(g) || !lk_wants(r, v) || d == LK_NONE) return;
  int parameter = lk_value_get(g, v)->parameter;
  if (parameter) {
    contribute_parameter(g, parameter, d);
  } else if (r->gradient[v] == LK_NONE) {
    r->gradient[v] = d;
    r->owned[v] = false;
  } else {
    r->gradient[v] = lk_emit1(g, LK_OP_add, LK_IN(r->gradient[v], d),
                              LK_ATTRS(0));
    r->owned[v] = true;
  }
}

/* --- the walk ------------------------------------------------------------ */

static const lk_gradient_rule rules[LK_OP_COUNT] = {
#define OP(name, results, inputs, attributes, gradient) \
  [LK_OP_##name] = gradient_##gradient,
#include "../core/ops.def"
#undef OP
};

void gradient_none(lk_reverse *r, lk_graph *g, lk_instr i) {
  (void)r;
  lk_graph_fail(g, LK_UNSUPPORTED, "%s has no gradient",
                lk_op_info_of(i.op)->name);
}

/* Whether a gradient has reached any result (a loss operator is its own
 * source). */
static bool reached(const lk_reverse *r, const lk_instr *i) {
  if (i->op == LK_OP_head_loss_train) return true;
  for (int k = 0; k < LK_MAX_RESULTS; k++)
    if (i->out[k] && r->gradient[i->out[k]]) return true;
  return false;
}

static int parameter_of_input(const lk_graph *g, const lk_instr *i, int k) {
  return i->in[k] ? g->values[i->in[k]].parameter : 0;
}

static void count_uses(lk_reverse *r, int forward) {
  for (int n = 0; n < forward; n++)
    for (int k = 0; k < LK_MAX_INPUTS; k++)
      r->uses[parameter_of_input(r->g, &r->g->instrs[n], k)]++;
}

/* One use less of each parameter the call reads; the last one makes the
 * gradient final. */
static void release_uses(lk_reverse *r, const lk_instr *i, lk_final final,
                         void *state) {
  lk_graph *g = r->g;
  for (int k = 0; k < LK_MAX_INPUTS; k++) {
    int p = parameter_of_input(g, i, k);
    if (p == 0 || --r->uses[p] > 0) continue;
    lk_value d = g->parameter_gradients[p].value;
    if (final && d) final(g, p, d, state);
  }
}

static bool reverse_open(lk_reverse *r, lk_graph *g) {
  memset(r, 0, sizeof *r);
  r->g = g;
  r->room = g->value_count;
  size_t n = (size_t)g->value_count;
  r->gradient = calloc(n, sizeof *r->gradient);
  r->owned = calloc(n, sizeof *r->owned);
  r->uses = calloc((size_t)lk_store_parameter_count(g->store) + 1,
                   sizeof *r->uses);
  if (r->gradient && r->owned && r->uses && lk_remade_open(&r->made, g))
    return true;
  lk_graph_fail(g, LK_OOM, "no host memory for the reverse pass");
  return false;
}

static void reverse_close(lk_reverse *r) {
  free(r->gradient);
  free(r->owned);
  free(r->uses);
  lk_remade_close(&r->made);
}

static void reverse_call(lk_reverse *r, int n, lk_final final, void *state) {
  lk_graph *g = r->g;
  lk_instr i = g->instrs[n];  /* a copy: the list grows under the rule */
  if (i.section != LK_MICRO) return;
  g->block = i.block;
  if (reached(r, &i)) rules[i.op](r, g, i);
  release_uses(r, &i, final, state);
}

void lk_graph_reverse(lk_graph *g, lk_value seed, lk_value seed_gradient,
                      lk_final final, void *state) {
  if (!lk_graph_ok(g)) return;
  lk_force(g, seed);
  lk_reverse r;
  int forward = g->instr_count;
  g->in_backward = true;
  if (reverse_open(&r, g)) {
    if (seed) r.gradient[seed] = seed_gradient;
    count_uses(&r, forward);
    for (int n = forward - 1; n >= 0 && lk_graph_ok(g); n--)
      reverse_call(&r, n, final, state);
  }
  reverse_close(&r);
  g->in_backward = false;
}
