/* gpu.grad, and calling a layer on a tensor. */
#include <string.h>

#include "../../kernels/graph/function.h"
#include "gpu.h"

static void function_close(void *object) { lk_function_free(object); }
static const lh_class function_class = {"gpu.function", NULL, function_close};

static lk_function *function_push(lua_State *L) {
  lh_class_new(L, &function_class);
  return lh_object_new(L, &function_class, sizeof(lk_function));
}

/* Push a copy of a buffer of the function. */
static void push_buffer(lua_State *L, lk_function *f, lk_context *context,
                        int buffer) {
  lk_tensor from = lk_machine_tensor(&f->machine, buffer);
  lh_tensor *t = lh_tensor_new(L, context, from.dtype, from.shape);
  lh_check(L, context->backend->copy(context, t->t.data, from.data,
                                     lk_tensor_bytes(&from)),
           &context->error);
}

static lk_context *context_of(lua_State *L, int index, lk_context *known) {
  lh_tensor *t = lh_tensor_check(L, index);
  if (known && t->context != known)
    lh_raise(L, LK_ARGUMENT, "gpu.grad: the tensors are on different devices");
  return t->context;
}

/* gpu.grad(f, {a, b, …}) --> {da, db, …}, value */
static int gpu_grad(lua_State *L) {
  lk_tensor inputs[LK_FUNCTION_INPUTS];
  lk_context *context = NULL;
  lk_error error = {0};
  luaL_checktype(L, 1, LUA_TFUNCTION);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  int count = (int)lua_rawlen(L, 2);
  if (count < 1 || count > LK_FUNCTION_INPUTS)
    lh_raise(L, LK_ARGUMENT, "gpu.grad: needs 1 to %d tensors",
             LK_FUNCTION_INPUTS);
  for (int i = 0; i < count; i++) {
    lua_rawgeti(L, 2, i + 1);
    context = context_of(L, -1, context);
    inputs[i] = lh_tensor_check(L, -1)->t;
    lua_pop(L, 1);
  }
  lk_function *f = function_push(L);
  lh_check(L, lk_function_begin(f, context->profile, inputs, count, NULL, true,
                                &error), &error);
  lh_scope *scope = lh_scope_push(L, &f->graph);
  int at = lua_gettop(L);
  luaL_checkstack(L, count + 4, "gpu.grad");
  lua_pushvalue(L, 1);
  for (int i = 0; i < count; i++) lh_symbol_push(L, at, f->value[i]);
  lk_value result = lh_call_forward(L, &f->graph, count);
  scope->graph = NULL;
  if (lk_function_end(f, result, true, &error) != LK_OK)
    lh_raise_build(L, &error);
  lh_check(L, lk_function_run(f, context, inputs, lh_seed(L)),
           &context->error);
  lua_createtable(L, count, 0);
  for (int i = 0; i < count; i++) {
    if (f->gradient[i] == 0) continue;
    push_buffer(L, f, context, f->gradient[i]);
    lua_rawseti(L, -2, i + 1);
  }
  push_buffer(L, f, context, f->output);
  return 2;
}

/* layer(x): the forward, without dropout, with initial weights from the seed;
 * x is ids i32 [B, T] or f32 [B, T, C]. */
int lh_layer_call(lua_State *L) {
  lk_layer *layer = lh_layer_check(L, 1);
  lh_tensor *x = lh_tensor_check(L, 2);
  lk_error error = {0};
  if (x->t.shape.rank != (x->t.dtype == LK_I32 ? 2 : 3))
    lh_raise(L, LK_SHAPE, "a layer takes ids i32 [B, T] or f32 [B, T, C]");
  lk_function *f = function_push(L);
  lh_check(L, lk_function_begin(f, x->context->profile, &x->t, 1, layer, false,
                                &error), &error);
  lk_graph *g = &f->graph;
  lk_shape s = x->t.shape, rows = {.rank = s.rank - 1};
  rows.dim[0] = s.dim[0] * s.dim[1];
  rows.dim[1] = s.dim[2];
  *lh_compiling(L) = L;
  lk_value y = lk_force(g, lk_layer_emit(
      g, layer, lk_emit_reshape(g, f->value[0], rows)));
  *lh_compiling(L) = NULL;
  lk_shape out = lk_value_shape(g, y);
  if (lk_graph_ok(g) && out.rank == 2 && out.dim[0] == rows.dim[0])
    y = lk_emit_reshape(g, y, lk_shape_of(s.dim[0], s.dim[1], out.dim[1]));
  if (lk_function_end(f, y, false, &error) != LK_OK) lh_raise_build(L, &error);
  lh_check(L, lk_function_run(f, x->context, &x->t, lh_seed(L)),
           &x->context->error);
  push_buffer(L, f, x->context, f->output);
  return 1;
}

static const lh_function functions[] = {
    {"grad", gpu_grad,
     "(f: function, tensors: gpu.tensor[]): gpu.tensor[], gpu.tensor",
     "Gradients of the sum of f(tensors…) by the operators' own rules, and "
     "f's value.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

void lh_add_grad(lua_State *L) { lh_register(L, "gpu", functions); }
