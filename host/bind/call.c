/* Calling operators from Lua: eagerly on tensors, or by emission on the symbols
 * of a graph that is being built. */
#include <string.h>

#include "gpu.h"

bool lh_is_operand(lua_State *L, int index) {
  return lh_tensor_test(L, index) || lh_symbol_test(L, index);
}

/* The graph of a symbol; raises when its building is over. */
static lk_graph *graph_of(lua_State *L, const lh_symbol *s) {
  if (s->scope->graph == NULL)
    lh_raise(L, LK_ARGUMENT, "this value belongs to a layer's forward that "
             "has ended");
  return s->scope->graph;
}

lk_tensor lh_operand(lua_State *L, int index) {
  lh_tensor *t = lh_tensor_test(L, index);
  if (t) return t->t;
  lh_symbol *s = lh_symbol_test(L, index);
  if (s == NULL)
    lh_raise(L, LK_ARGUMENT, "expected a tensor, got %s",
             luaL_typename(L, index));
  const lk_graph *g = graph_of(L, s);
  return (lk_tensor){.dtype = lk_value_dtype(g, s->value),
                     .shape = lk_value_shape(g, s->value)};
}

/* --- eager --------------------------------------------------------------- */

typedef struct eager_call {
  lk_context *context;
  lk_call call;
  lk_storage *storage[LK_MAX_RESULTS];
} eager_call;

static lk_status try_call(lua_State *L, void *argument) {
  eager_call *e = argument;
  lk_call call = e->call;  /* a failed try must not leave its inferences */
  (void)L;
  lk_status status = lk_dispatch(e->context, &call, e->storage);
  if (status == LK_OK) e->call = call;
  return status;
}

/* Results after the first (rstd, lse) are of no use here. */
static void drop_rest(eager_call *e) {
  for (int i = 1; i < LK_MAX_RESULTS; i++) lk_storage_release(e->storage[i]);
}

static void call_eager(lua_State *L, eager_call *e, const lk_tensor *preset,
                       const int *in, int count) {
  const lk_op_info *info = lk_op_info_of(e->call.op);
  lk_storage *shared = NULL;
  for (int i = 0; i < LK_MAX_INPUTS; i++) e->call.in[i] = LK_ABSENT;
  for (int i = 0; i < LK_MAX_RESULTS; i++) e->call.out[i] = LK_ABSENT;
  for (int i = 0; i < count; i++) {
    if (in[i] == 0) continue;
    lh_tensor *t = lh_tensor_check(L, in[i]);
    if (e->context && t->context != e->context)
      lh_raise(L, LK_ARGUMENT, "%s: the tensors are on different devices",
               info->name);
    e->context = t->context;
    e->call.in[i] = t->t;
    if (info->result[0].view) shared = t->storage;
  }
  e->call.out[0] = *preset;
  /* pushed closed first, so that a raise leaks nothing */
  lh_tensor *y = lh_object_new(L, &lh_tensor_class, sizeof *y);
  lh_retry(L, e->context, try_call, e);
  drop_rest(e);
  y->context = e->context;
  y->storage = e->storage[0] ? e->storage[0] : shared;
  if (shared) lk_storage_retain(shared);
  y->t = e->call.out[0];
}

/* --- symbols ------------------------------------------------------------- */

void lh_symbol_raise(lua_State *L, const lk_graph *g) {
  if (!lk_graph_ok(g)) lh_raise_error(L, &g->error);
}

static void call_symbolic(lua_State *L, lk_op op, const int *in, int count,
                          lk_attr attr, const lk_tensor *preset) {
  lk_value values[LK_MAX_INPUTS] = {0};
  lh_symbol *lead = NULL;
  int at = 0;
  for (int i = 0; i < count; i++) {
    if (in[i] == 0) continue;
    lh_symbol *s = lh_symbol_test(L, in[i]);
    if (s == NULL)
      lh_raise(L, LK_ARGUMENT, "%s: a tensor cannot enter a layer's forward; "
               "declare it under parameters", lk_op_info_of(op)->name);
    lead = s;
    at = in[i];
    values[i] = s->value;
  }
  lk_graph *g = graph_of(L, lead);
  lk_value out = LK_NONE;
  if (preset->shape.rank >= 0)
    out = lk_value_new(g, preset->dtype, preset->shape, LK_ACTIVATIONS,
                       lk_op_info_of(op)->result[0].name);
  out = lk_emit(g, op, values, LK_OUT(out), attr).v[0];
  lh_symbol_raise(L, g);
  lua_getiuservalue(L, at, 1);
  lh_symbol_push(L, lua_gettop(L), out);
  lua_remove(L, -2);
}

void lh_call(lua_State *L, lk_op op, const int *in, int count, lk_attr attr,
             const lk_tensor *preset) {
  lk_tensor infer = LK_ABSENT;
  if (preset == NULL) preset = &infer;
  for (int i = 0; i < count; i++) {
    if (in[i] == 0 || !lh_symbol_test(L, in[i])) continue;
    call_symbolic(L, op, in, count, attr, preset);
    return;
  }
  eager_call e = {.call = {.op = op, .attr = attr}};
  call_eager(L, &e, preset, in, count);
}
