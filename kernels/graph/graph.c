/* A graph's values and instructions: making and appending them. */
#include "graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void lk_graph_init(lk_graph *g) {
  memset(g, 0, sizeof *g);
  g->compute = LK_F32;
  g->accumulate = 1;
  g->section = LK_MICRO;
}

void lk_graph_free(lk_graph *g) {
  free(g->values);
  free(g->instrs);
  free(g->pending);
  free(g->recipes);
  free(g->parameter_gradients);
  free(g->decoded);
  memset(g, 0, sizeof *g);
}

bool lk_graph_ok(const lk_graph *g) { return g->error.code == LK_OK; }

lk_value lk_graph_fail(lk_graph *g, lk_status code, const char *format, ...) {
  if (!lk_graph_ok(g)) return LK_NONE;
  va_list args;
  va_start(args, format);
  g->error.code = code;
  vsnprintf(g->error.message, sizeof g->error.message, format, args);
  va_end(args);
  return LK_NONE;
}

/* Room for one more element of `size` bytes in a growing array; false when
 * there is no memory (which sticks). */
static bool grow(lk_graph *g, void **array, int count, int *room,
                 size_t size) {
  if (count < *room) return true;
  int wanted = *room ? 2 * *room : 64;
  void *bigger = realloc(*array, (size_t)wanted * size);
  if (bigger == NULL) {
    lk_graph_fail(g, LK_OOM, "no host memory for a program of %d entries",
                  wanted);
    return false;
  }
  *array = bigger;
  *room = wanted;
  return true;
}

lk_value_info *lk_value_get(const lk_graph *g, lk_value v) {
  return &g->values[v];
}

lk_shape lk_value_shape(const lk_graph *g, lk_value v) {
  return v == LK_NONE ? (lk_shape){0} : g->values[v].shape;
}

lk_dtype lk_value_dtype(const lk_graph *g, lk_value v) {
  return v == LK_NONE ? LK_F32 : g->values[v].dtype;
}

lk_value lk_value_new(lk_graph *g, lk_dtype dtype, lk_shape shape,
                      lk_category category, const char *name) {
  if (!lk_graph_ok(g)) return LK_NONE;
  if (g->value_count == 0) g->value_count = 1;
  if (!grow(g, (void **)&g->values, g->value_count, &g->value_room,
            sizeof *g->values))
    return LK_NONE;
  lk_value_info *v = &g->values[g->value_count];
  *v = (lk_value_info){.dtype = dtype, .shape = shape, .category = category};
  if (!g->in_backward) {
    v->block = g->block;
    v->in_mlp = g->in_mlp;
  }
  snprintf(v->name, sizeof v->name, "%s", name);
  return g->value_count++;
}

lk_value lk_value_of_buffer(lk_graph *g, int buffer);

lk_value lk_value_view(lk_graph *g, lk_value base, int64_t offset,
                       lk_dtype dtype, lk_shape shape) {
  if (base == LK_NONE) return LK_NONE;
  lk_category category = g->values[base].category;
  lk_value view = lk_value_new(g, dtype, shape, category, "view");
  if (view == LK_NONE) return LK_NONE;
  lk_value_info *b = &g->values[base], *v = &g->values[view];
  v->base = b->base ? b->base : base;
  v->offset = b->offset + offset;
  v->buffer = b->buffer;
  return view;
}

int64_t lk_graph_stream(lk_graph *g) { return (int64_t)++g->streams; }

/* --- emission ------------------------------------------------------------ */

/* Results whose value is made again rather than kept by `light` recompute. */
static bool is_cheap(lk_op op, int result) {
  switch (op) {
    case LK_OP_rmsnorm: case LK_OP_silu: case LK_OP_gated_silu:
      return result == 0;
    case LK_OP_residual_norm: return result == 1;
    default: return false;
  }
}

static lk_tensor tensor_of(const lk_graph *g, lk_value v) {
  if (v == LK_NONE) return LK_ABSENT;
  return (lk_tensor){.dtype = g->values[v].dtype,
                     .shape = g->values[v].shape};
}

/* The value that result `i` of `instr` becomes, new unless given. */
static lk_value result_value(lk_graph *g, const lk_role *role,
                             const lk_tensor *t, lk_value given, bool wants) {
  lk_value v = given;
  if (v == LK_NONE && role->optional) return LK_NONE;
  if (v == LK_NONE)
    v = lk_value_new(g, t->dtype, t->shape, LK_ACTIVATIONS, role->name);
  if (v != LK_NONE && !g->in_backward && !role->updated)
    g->values[v].wants |= wants && lk_dtype_is_float(t->dtype);
  return v;
}

/* A view result shares its input's memory and how it can be made again. */
static void link_view(lk_graph *g, lk_value view, lk_value input) {
  lk_value_info *v = &g->values[view], *x = &g->values[input];
  v->base = x->base ? x->base : input;
  v->offset = x->offset;
  v->buffer = x->buffer;
  v->cheap = x->cheap;
  v->forced = x->forced;
  v->parameter = 0;
}

static void append(lk_graph *g, const lk_instr *instr) {
  if (!grow(g, (void **)&g->instrs, g->instr_count, &g->instr_room,
            sizeof *g->instrs))
    return;
  g->instrs[g->instr_count++] = *instr;
}

static bool any_wants(const lk_graph *g, const lk_instr *instr, int inputs) {
  for (int i = 0; i < inputs; i++)
    if (instr->in[i] && g->values[instr->in[i]].wants) return true;
  return false;
}

static void note_producer(lk_graph *g, const lk_op_info *info,
                          const lk_instr *instr) {
  if (g->in_backward) return;
  for (int i = 0; i < info->results; i++) {
    lk_value v = instr->out[i];
    if (v == LK_NONE || info->result[i].updated) continue;
    g->values[v].producer = g->instr_count;
    g->values[v].result = i;
    g->values[v].cheap = is_cheap(instr->op, i);
    if (info->result[i].view)
      link_view(g, v, instr->in[info->result[i].alias]);
  }
}

static bool resolve_results(lk_graph *g, const lk_op_info *info,
                            const lk_call *call, lk_instr *instr) {
  bool wants = any_wants(g, instr, info->inputs);
  for (int i = 0; i < info->results; i++) {
    instr->out[i] = result_value(g, &info->result[i], &call->out[i],
                                 instr->out[i], wants);
    if (instr->out[i] && g->in_backward && info->result[i].view)
      link_view(g, instr->out[i], instr->in[info->result[i].alias]);
  }
  return lk_graph_ok(g);
}

lk_results lk_emit(lk_graph *g, lk_op op, const lk_value *in,
                   const lk_value *out, lk_attr attr) {
  lk_results none = {{0}};
  if (!lk_graph_ok(g)) return none;
  const lk_op_info *info = lk_op_info_of(op);
  lk_call call = {.op = op, .attr = attr};
  lk_instr instr = {.op = op, .section = g->section, .attr = attr,
                    .backward = g->in_backward, .block = g->block,
                    .recomputed = g->in_recompute};
  for (int i = 0; i < info->inputs; i++) {
    instr.in[i] = in ? lk_force(g, in[i]) : LK_NONE;
    if (!instr.in[i] && !info->input[i].optional) {
      lk_graph_fail(g, LK_INTERNAL, "%s: input %s is missing", info->name,
                    info->input[i].name);
      return none;
    }
    call.in[i] = tensor_of(g, instr.in[i]);
  }
  for (int i = 0; i < info->results; i++) {
    instr.out[i] = out ? out[i] : LK_NONE;
    call.out[i] = tensor_of(g, instr.out[i]);
  }
  if (lk_rule(g->profile, &call, &instr.cost, &g->error) != LK_OK ||
      !resolve_results(g, info, &call, &instr))
    return none;
  append(g, &instr);
  note_producer(g, info, &instr);
  lk_results results;
  memcpy(results.v, instr.out, sizeof results.v);
  return results;
}

void lk_instr_count(lk_graph *g, int n) {
  if (!lk_graph_ok(g)) return;
  lk_instr *i = &g->instrs[n];
  lk_call call = {.op = i->op, .attr = i->attr};
  for (int k = 0; k < LK_MAX_INPUTS; k++) call.in[k] = tensor_of(g, i->in[k]);
  for (int k = 0; k < LK_MAX_RESULTS; k++)
    call.out[k] = tensor_of(g, i->out[k]);
  lk_rule(g->profile, &call, &i->cost, &g->error);
}

lk_value lk_emit1(lk_graph *g, lk_op op, const lk_value *in, lk_attr attr) {
  return lk_emit(g, op, in, NULL, attr).v[0];
}

lk_value lk_emit_as(lk_graph *g, lk_op op, const lk_value *in, lk_dtype dtype,
                    lk_shape shape, lk_attr attr) {
  lk_value out = lk_value_new(g, dtype, shape, LK_ACTIVATIONS,
                              lk_op_info_of(op)->result[0].name);
  return lk_emit(g, op, in, LK_OUT(out), attr).v[0];
}

lk_value lk_emit_reshape(lk_graph *g, lk_value x, lk_shape shape) {
  if (!lk_graph_ok(g)) return LK_NONE;
  return lk_emit_as(g, LK_OP_reshape, LK_IN(x), lk_value_dtype(g, x), shape,
                    LK_ATTRS(0));
}

/* --- sums that wait ------------------------------------------------------ */

typedef struct lk_pending {
  lk_value value;   /* what stands for the result */
  lk_op op;         /* residual, silu, gated_silu or dropout */
  lk_value x, delta;
  double p;
  int64_t stream;
} lk_pending;

static lk_pending *pending_of(const lk_graph *g, lk_value v) {
  for (int i = g->pending_count - 1; v != LK_NONE && i >= 0; i--)
    if (g->pending[i].value == v) return &g->pending[i];
  return NULL;
}

static void pending_remove(lk_graph *g, lk_pending *p) {
  *p = g->pending[--g->pending_count];
}

static lk_value pending_add(lk_graph *g, lk_pending p, lk_shape shape) {
  if (!lk_graph_ok(g) ||
      !grow(g, (void **)&g->pending, g->pending_count, &g->pending_room,
            sizeof *g->pending))
    return LK_NONE;
  p.value = lk_value_new(g, lk_value_dtype(g, p.x), shape, LK_ACTIVATIONS,
                         lk_op_info_of(p.op)->result[0].name);
  if (p.value != LK_NONE) g->pending[g->pending_count++] = p;
  return p.value;
}

lk_value lk_pending_residual(lk_graph *g, lk_value x, lk_value delta, double p,
                             int64_t stream) {
  if (!lk_graph_ok(g)) return LK_NONE;
  return pending_add(g, (lk_pending){.op = LK_OP_residual, .x = x,
                     .delta = delta, .p = p, .stream = stream},
                     lk_value_shape(g, x));
}

lk_value lk_pending_unary(lk_graph *g, lk_op op, lk_value x) {
  if (!lk_graph_ok(g)) return LK_NONE;
  lk_shape shape = lk_value_shape(g, x);
  if (op == LK_OP_gated_silu) {
    if (shape.rank == 0 || shape.dim[shape.rank - 1] % 2)
      return lk_graph_fail(g, LK_SHAPE, "gated_silu: the last dimension of x "
                           "must be even");
    shape.dim[shape.rank - 1] /= 2;
  }
  return pending_add(g, (lk_pending){.op = op, .x = x}, shape);
}

/* Emit what `p` stands for into the value `out`. */
static void emit_pending(lk_graph *g, const lk_pending *p, lk_value out) {
  lk_attr attr = {.p = p->p, .stream = p->stream};
  lk_value clock = p->p > 0 ? g->clock : LK_NONE;
  if (p->op == LK_OP_residual)
    lk_emit(g, p->op, LK_IN(p->x, p->delta, clock), LK_OUT(out), attr);
  else
    lk_emit(g, p->op, LK_IN(p->x, clock), LK_OUT(out), attr);
}

lk_value lk_force(lk_graph *g, lk_value v) {
  lk_pending *found = pending_of(g, v);
  if (found == NULL) return v;
  lk_pending p = *found;
  pending_remove(g, found);
  emit_pending(g, &p, v);
  return v;
}

lk_value lk_emit_dropout(lk_graph *g, lk_value x, double p) {
  if (!g->training || p == 0 || !lk_graph_ok(g)) return x;
  lk_pending *below = pending_of(g, x);
  lk_pending drop = {.op = LK_OP_dropout, .x = x};
  if (below && (below->op == LK_OP_silu || below->op == LK_OP_gated_silu) &&
      below->p == 0)
    drop = *below;
  drop.p = p;
  drop.stream = lk_graph_stream(g);
  return pending_add(g, drop, lk_value_shape(g, x));
}

bool lk_pending_take_dropout(lk_graph *g, lk_value x, lk_value *delta,
                             double *p, int64_t *stream) {
  lk_pending *found = pending_of(g, x);
  if (found == NULL || found->op != LK_OP_dropout) return false;
  *delta = found->x;
  *p = found->p;
  *stream = found->stream;
  pending_remove(g, found);
  return true;
}

void lk_value_recipe(lk_graph *g, lk_instr recipe) {
  if (!lk_graph_ok(g) || !grow(g, (void **)&g->recipes, g->recipe_count,
                               &g->recipe_room, sizeof *g->recipes))
    return;
  g->recipes[g->recipe_count++] = recipe;
  for (int k = 0; k < LK_MAX_RESULTS; k++) {
    if (recipe.out[k] == LK_NONE) continue;
    g->values[recipe.out[k]].producer = -g->recipe_count;
    g->values[recipe.out[k]].result = k;
  }
}

lk_value lk_emit_norm(lk_graph *g, lk_value x, lk_value w, double eps) {
  lk_pending *found = pending_of(g, x);
  if (found == NULL || found->op != LK_OP_residual)
    return lk_emit1(g, LK_OP_rmsnorm, LK_IN(x, w), LK_ATTRS(.eps = eps));
  lk_pending p = *found;
  pending_remove(g, found);
  lk_value clock = p.p > 0 ? g->clock : LK_NONE;
  lk_value y = lk_emit(g, LK_OP_residual_norm, LK_IN(p.x, p.delta, w, clock),
                       LK_OUT(x), LK_ATTRS(.p = p.p, .stream = p.stream,
                                           .eps = eps)).v[1];
  if (lk_graph_ok(g))
    lk_value_recipe(g, (lk_instr){.op = LK_OP_rmsnorm, .out = {y},
                                  .in = {x, w}, .attr = {.eps = eps}});
  return y;
}

/* The largest divisor of a row's width up to 64. */
static int64_t row_block(lk_shape shape) {
  int64_t width = shape.rank ? shape.dim[shape.rank - 1] : 1;
  int64_t block = width < 64 ? width : 64;
  while (width % block) block--;
  return block;
}

lk_value lk_emit_saved(lk_graph *g, lk_value x) {
  if (!g->saved_int8 || !g->training || !lk_graph_ok(g)) return x;
  x = lk_force(g, x);
  lk_shape shape = lk_value_shape(g, x);
  lk_attr attr = {.format = LK_FORMAT_INT8, .block = row_block(shape)};
  lk_results q = lk_emit(g, LK_OP_quantize, LK_IN(x), NULL, attr);
  if (!lk_graph_ok(g)) return LK_NONE;
  g->values[q.v[0]].wants = g->values[x].wants;  /* straight through */
  lk_value y = lk_emit_as(g, LK_OP_dequantize, LK_IN(q.v[0], q.v[1]),
                          lk_value_dtype(g, x), shape, attr);
  if (y == LK_NONE) return LK_NONE;
  g->values[y].forced = true;
  g->values[x].seen = y;
  return y;
}

void lk_mark_boundary(lk_graph *g, lk_value x) {
  if (x != LK_NONE) g->values[x].block = 0;
}
