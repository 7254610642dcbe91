/* Symbols: values of a graph under construction, as Lua sees them inside a
 * layer's forward; and calling such a forward. */
#include <string.h>

#include "gpu.h"

const lh_class lh_scope_class = {"gpu.scope", NULL, NULL};
static const char raised_key;

static int symbol_index(lua_State *L);
static int symbol_tostring(lua_State *L);

static const lh_function methods[] = {
    {"__index", symbol_index, NULL, NULL, NULL},
    {"__tostring", symbol_tostring, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL}};

const lh_class lh_symbol_class = {"gpu.symbol", methods, NULL};

lh_symbol *lh_symbol_test(lua_State *L, int index) {
  return lh_object_test(L, index, &lh_symbol_class);
}

lh_scope *lh_scope_push(lua_State *L, lk_graph *graph) {
  lh_class_new(L, &lh_scope_class);
  if (luaL_getmetatable(L, lh_symbol_class.name) == LUA_TNIL) {
    lh_class_new(L, &lh_symbol_class);
    lh_class_add(L, &lh_symbol_class, lh_operand_methods);
  }
  lua_pop(L, 1);
  lh_scope *scope = lh_object_new(L, &lh_scope_class, sizeof *scope);
  scope->graph = graph;
  return scope;
}

void lh_symbol_push(lua_State *L, int scope, lk_value value) {
  lh_symbol *s = lh_object_new(L, &lh_symbol_class, sizeof *s);
  s->scope = lh_object_check(L, scope, &lh_scope_class);
  s->value = value;
  lua_pushvalue(L, scope);
  lua_setiuservalue(L, -2, 1);
}

static int symbol_index(lua_State *L) {
  const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : NULL;
  lk_tensor t = lh_operand(L, 1);
  if (lua_type(L, 2) == LUA_TNUMBER) return lh_operand_row(L);
  if (key && strcmp(key, "shape") == 0) {
    lua_createtable(L, t.shape.rank, 0);
    for (int i = 0; i < t.shape.rank; i++) {
      lua_pushinteger(L, t.shape.dim[i]);
      lua_rawseti(L, -2, i + 1);
    }
    return 1;
  }
  if (key && strcmp(key, "dtype") == 0) {
    lua_pushstring(L, lk_dtype_word(t.dtype));
    return 1;
  }
  lua_pushvalue(L, 2);
  lua_rawget(L, lua_upvalueindex(1));
  return 1;
}

static int symbol_tostring(lua_State *L) {
  char shape[96];
  lk_tensor t = lh_operand(L, 1);
  lua_pushfstring(L, "symbol%s %s", lk_shape_text(t.shape, shape, sizeof shape),
                  lk_dtype_word(t.dtype));
  return 1;
}

/* --- forward ------------------------------------------------------------- */

/* Keep the error object on top of the stack for lh_raise_build. */
static void keep_error(lua_State *L, lk_graph *g) {
  const char *text = luaL_tolstring(L, -1, NULL);
  if (lk_graph_ok(g)) lk_graph_fail(g, LK_ARGUMENT, "%s", text);
  lua_pop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &raised_key);
}

int lh_raise_build(lua_State *L, const lk_error *error) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &raised_key) != LUA_TNIL) {
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &raised_key);
    lua_error(L);
  }
  lh_raise_error(L, error);
}

lk_value lh_call_forward(lua_State *L, lk_graph *g, int count) {
  if (lua_pcall(L, count, 1, 0) != LUA_OK) {
    keep_error(L, g);
    return LK_NONE;
  }
  lh_symbol *s = lh_symbol_test(L, -1);
  lk_value value = s ? s->value : LK_NONE;
  if (s == NULL)
    lk_graph_fail(g, LK_ARGUMENT, "forward must return what it computed, got "
                  "%s", luaL_typename(L, -1));
  else if (s->scope->graph != g)
    value = lk_graph_fail(g, LK_ARGUMENT, "forward returned a value of another "
                          "layer's forward");
  lua_pop(L, 1);
  return value;
}
