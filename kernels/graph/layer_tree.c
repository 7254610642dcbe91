/* Layers of layers: sequential, residual, and the user's own. */
#include "layer.h"

/* --- sequential ---------------------------------------------------------- */

lk_status layer_sequential_declare(lk_layer *l, lk_error *error) {
  if (l->children == 0)
    return lk_fail(error, LK_ARGUMENT, "sequential: needs at least one layer");
  return LK_OK;
}

/* A block, the unit of `block` recompute: a sequence of residual layers. */
static bool is_block(const lk_layer *l) {
  for (int i = 0; i < l->children; i++)
    if (l->child[i]->kind != LK_LAYER_residual) return false;
  return true;
}

lk_value layer_sequential_emit(lk_graph *g, lk_layer *l, lk_value x) {
  int outer = g->block;
  bool block = outer == 0 && is_block(l);
  if (block) g->block = ++g->block_count;
  for (int i = 0; i < l->children; i++) x = lk_layer_emit(g, l->child[i], x);
  g->block = outer;
  if (block) lk_mark_boundary(g, x);
  return x;
}

/* --- residual ------------------------------------------------------------ */

lk_status layer_residual_declare(lk_layer *l, lk_error *error) {
  return layer_sequential_declare(l, error);
}

static bool contains(const lk_layer *l, lk_layer_kind kind) {
  if (l->kind == kind) return true;
  for (int i = 0; i < l->children; i++)
    if (contains(l->child[i], kind)) return true;
  return false;
}

lk_value layer_residual_emit(lk_graph *g, lk_layer *l, lk_value x) {
  bool outer = g->in_mlp;
  g->in_mlp = !contains(l, LK_LAYER_attention) &&
              !contains(l, LK_LAYER_custom);
  lk_value y = x;
  for (int i = 0; i < l->children; i++) y = lk_layer_emit(g, l->child[i], y);
  g->in_mlp = outer;
  lk_value delta = y;
  double p = 0;
  int64_t stream = 0;
  lk_pending_take_dropout(g, y, &delta, &p, &stream);
  return lk_pending_residual(g, x, delta, p, stream);
}

/* --- custom -------------------------------------------------------------- */

lk_status layer_custom_declare(lk_layer *l, lk_error *error) {
  if (l->o.custom.emit == NULL)
    return lk_fail(error, LK_ARGUMENT, "layer: needs forward, a function");
  return LK_OK;
}

/* [N, ..] as [B, T, ..] and back, where N = B·T. */
static lk_value split_rows(lk_graph *g, lk_value x) {
  lk_shape s = lk_value_shape(g, x), t = {.rank = s.rank + 1};
  if (s.rank == 0 || s.dim[0] != g->batch * g->seq) return x;
  t.dim[0] = g->batch;
  t.dim[1] = g->seq;
  for (int i = 1; i < s.rank; i++) t.dim[i + 1] = s.dim[i];
  return lk_emit_reshape(g, x, t);
}

static lk_value join_rows(lk_graph *g, lk_value x) {
  lk_shape s = lk_value_shape(g, x), t = {.rank = s.rank - 1};
  if (s.rank < 2 || s.dim[0] != g->batch || s.dim[1] != g->seq) return x;
  t.dim[0] = g->batch * g->seq;
  for (int i = 2; i < s.rank; i++) t.dim[i - 1] = s.dim[i];
  return lk_emit_reshape(g, x, t);
}

lk_value layer_custom_emit(lk_graph *g, lk_layer *l, lk_value x) {
  lk_value parameters[LK_LAYER_PARAMETERS];
  for (int i = 0; i < l->parameters; i++)
    parameters[i] = lk_layer_operand(g, l, i);
  x = split_rows(g, lk_force(g, x));
  if (!lk_graph_ok(g)) return LK_NONE;
  lk_value y = l->o.custom.emit(g, x, parameters, l->o.custom.state);
  return lk_graph_ok(g) ? join_rows(g, lk_force(g, y)) : LK_NONE;
}
