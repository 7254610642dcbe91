/* gpu.nn: constructors of layers, and layers written in Lua. */
#include <stdlib.h>
#include <string.h>

#include "gpu.h"

typedef struct nn_layer {
  lk_layer *layer;
} nn_layer;

static void layer_close(void *object) {
  lk_layer_release(((nn_layer *)object)->layer);
}

static int layer_parameters(lua_State *L);
static int layer_count(lua_State *L);
static int layer_tostring(lua_State *L);

static const lh_function methods[] = {
    {"parameters", layer_parameters, "(self): table[]",
     "Every parameter in order: {name, shape, kind, quantizable, count}.",
     NULL},
    {"count", layer_count, "(self): integer", "The number of parameters.",
     NULL},
    {"__tostring", layer_tostring, NULL, NULL, NULL},
    {"__call", lh_layer_call, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static const lh_class layer_class = {"gpu.layer", methods, layer_close};

lk_layer *lh_layer_check(lua_State *L, int index) {
  return ((nn_layer *)lh_object_check(L, index, &layer_class))->layer;
}

lk_layer *lh_layer_test(lua_State *L, int index) {
  nn_layer *l = lh_object_test(L, index, &layer_class);
  return l ? l->layer : NULL;
}

void lh_layer_push(lua_State *L, lk_layer *layer) {
  nn_layer *l = lh_object_new(L, &layer_class, sizeof *l);
  l->layer = layer;
}

/* --- options ------------------------------------------------------------- */

typedef struct nn_options {
  const char *name;
  lk_layer_options o;
  int tied, rope, parameters, forward;
  int activation;
} nn_options;

#define AT(field) offsetof(nn_options, o.field)
#define NAME {"name", LH_STRING, offsetof(nn_options, name), 0, 0, NULL, \
              "part of its parameters' names"}
#define STD {"std", LH_NUMBER, AT(std), 0, 100, NULL, \
             "of its normal initial weights; 0.02"}
#define END {NULL, 0, 0, 0, 0, NULL, NULL}

static const lh_option embedding_options[] = {
    {"vocab", LH_INTEGER, AT(in), 1, 1 << 30, NULL, "rows of the table"},
    {"channels", LH_INTEGER, AT(out), 1, 1 << 24, NULL, "columns"},
    {"scale", LH_NUMBER, AT(scale), 0, 0, NULL, "factor on the rows; 1"},
    STD, NAME, END};
static const lh_option linear_options[] = {
    {"channels_in", LH_INTEGER, AT(in), 1, 1 << 24, NULL, "channels in"},
    {"channels_out", LH_INTEGER, AT(out), 1, 1 << 24, NULL, "channels out"},
    {"bias", LH_BOOLEAN, AT(bias), 0, 0, NULL, "add a bias; false"},
    STD, NAME, END};
static const lh_option rmsnorm_options[] = {
    {"channels", LH_INTEGER, AT(in), 1, 1 << 24, NULL, "channels"},
    {"eps", LH_NUMBER, AT(eps), 0, 1, NULL, "keeps the root finite; 2^-23"},
    NAME, END};
static const lh_option dropout_options[] = {
    {"p", LH_NUMBER, AT(p), 0, 0.999, NULL, "probability of a zero"},
    NAME, END};
static const lh_option silu_options[] = {NAME, END};
static const lh_option gated_options[] = {
    {"channels", LH_INTEGER, AT(in), 1, 1 << 24, NULL, "channels"},
    {"hidden", LH_INTEGER, AT(hidden), 1, 1 << 24, NULL, "hidden width"},
    {"activation", LH_WORD, offsetof(nn_options, activation), 0, 0,
     (const char *const[]){"silu", NULL}, "silu"},
    {"dropout", LH_NUMBER, AT(p), 0, 0.999, NULL, "on the hidden values; 0"},
    STD, NAME, END};
static const lh_option attention_options[] = {
    {"channels", LH_INTEGER, AT(in), 1, 1 << 24, NULL, "channels"},
    {"heads", LH_INTEGER, AT(heads), 1, 4096, NULL, "query heads"},
    {"kv_heads", LH_INTEGER, AT(kv_heads), 1, 4096, NULL,
     "key/value heads, a divisor of heads; heads"},
    {"width", LH_INTEGER, AT(width), 1, 1024, NULL,
     "head width; channels / heads"},
    {"rope", LH_ANY, offsetof(nn_options, rope), 0, 0, NULL,
     "rotary positions: true, or {base = 10000, fraction = 1, inclusive = "
     "false, inverse = false}; none"},
    {"dropout", LH_NUMBER, AT(p), 0, 0.999, NULL, "on the probabilities; 0"},
    {"qk_norm", LH_BOOLEAN, AT(qk_norm), 0, 0, NULL,
     "normalize each query and key head; false"},
    {"eps", LH_NUMBER, AT(eps), 0, 1, NULL, "of qk_norm; 2^-23"},
    STD, NAME, END};
static const lh_option rope_options[] = {
    {"base", LH_NUMBER, AT(rope_base), 1, 1e12, NULL, "10000"},
    {"fraction", LH_NUMBER, AT(rope_fraction), 0, 1, NULL,
     "of the head's pairs that rotate; 1"},
    {"inclusive", LH_BOOLEAN, AT(rope_inclusive), 0, 0, NULL,
     "frequencies reach 1/base; false"},
    {"inverse", LH_BOOLEAN, AT(rope_inverse), 0, 0, NULL,
     "rotate the other way, as Llama does; false"},
    END};
static const lh_option head_options[] = {
    {"channels", LH_INTEGER, AT(in), 1, 1 << 24, NULL, "channels"},
    {"vocab", LH_INTEGER, AT(out), 1, 1 << 30, NULL, "logits"},
    {"tied", LH_ANY, offsetof(nn_options, tied), 0, 0, NULL,
     "the embedding whose table it shares"},
    STD, NAME, END};
static const lh_option tree_options[] = {NAME, END};
static const lh_option layer_options[] = {
    {"parameters", LH_ANY, offsetof(nn_options, parameters), 0, 0, NULL,
     "{name = {shape…, std = 0.02}}"},
    {"forward", LH_ANY, offsetof(nn_options, forward), 0, 0, NULL,
     "function(p, x): emits operators on x and the parameters p.name"},
    NAME, END};

static nn_options defaults(void) {
  return (nn_options){.o = {.std = 0.02, .rope_base = 10000,
                            .rope_fraction = 1}};
}

/* --- constructors -------------------------------------------------------- */

/* Push the layer; releases nothing on failure that it did not take. */
static int make(lua_State *L, lk_layer_kind kind, const nn_options *n,
                lk_layer *const *children, int count) {
  lk_error error = {0};
  nn_layer *l = lh_object_new(L, &layer_class, sizeof *l);
  lh_check(L, lk_layer_new(kind, n->name, &n->o, children, count, &l->layer,
                           &error), &error);
  return 1;
}

static int simple(lua_State *L, lk_layer_kind kind, const char *who,
                  const lh_option *options, int positional) {
  nn_options n = defaults();
  lh_options(L, 1, who, options, positional, &n);
  return make(L, kind, &n, NULL, 0);
}

static int nn_embedding(lua_State *L) {
  return simple(L, LK_LAYER_embedding, "nn.embedding", embedding_options, 2);
}
static int nn_linear(lua_State *L) {
  return simple(L, LK_LAYER_linear, "nn.linear", linear_options, 2);
}
static int nn_rmsnorm(lua_State *L) {
  return simple(L, LK_LAYER_rmsnorm, "nn.rmsnorm", rmsnorm_options, 1);
}
static int nn_dropout(lua_State *L) {
  return simple(L, LK_LAYER_dropout, "nn.dropout", dropout_options, 1);
}
static int nn_silu(lua_State *L) {
  return simple(L, LK_LAYER_silu, "nn.silu", silu_options, 0);
}
static int nn_gated(lua_State *L) {
  return simple(L, LK_LAYER_gated, "nn.gated", gated_options, 2);
}

static int nn_attention(lua_State *L) {
  nn_options n = defaults();
  lh_options(L, 1, "nn.attention", attention_options, 1, &n);
  if (n.rope && lua_toboolean(L, n.rope)) {
    n.o.rope = true;
    if (lua_istable(L, n.rope))
      lh_options(L, n.rope, "nn.attention: rope", rope_options, 0, &n);
    else if (!lua_isboolean(L, n.rope))
      lh_raise(L, LK_ARGUMENT, "nn.attention: rope is a table or a boolean");
  }
  return make(L, LK_LAYER_attention, &n, NULL, 0);
}

static int nn_head(lua_State *L) {
  nn_options n = defaults();
  lh_options(L, 1, "nn.head", head_options, 2, &n);
  if (n.tied) n.o.tied = lh_layer_check(L, n.tied);
  return make(L, LK_LAYER_head, &n, NULL, 0);
}

/* The layers at 1…n of the table, and its options. */
static int tree(lua_State *L, lk_layer_kind kind, const char *who) {
  nn_options n = defaults();
  luaL_checktype(L, 1, LUA_TTABLE);
  int count = (int)lua_rawlen(L, 1);
  lk_layer **children = lua_newuserdatauv(
      L, (size_t)(count + 1) * sizeof *children, 0);
  for (int i = 1; i <= count; i++) {
    lua_rawgeti(L, 1, i);
    children[i - 1] = lh_layer_test(L, -1);
    if (children[i - 1] == NULL)
      lh_raise(L, LK_ARGUMENT, "%s: entry %d is a %s, not a layer", who, i,
               luaL_typename(L, -1));
    lua_pop(L, 1);
  }
  lua_newtable(L);  /* what is left: the named options */
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
    if (lua_isinteger(L, -2)) continue;
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, -5);
  }
  lh_options(L, lua_gettop(L), who, tree_options, 0, &n);
  return make(L, kind, &n, children, count);
}

static int nn_sequential(lua_State *L) {
  return tree(L, LK_LAYER_sequential, "nn.sequential");
}
static int nn_residual(lua_State *L) {
  return tree(L, LK_LAYER_residual, "nn.residual");
}

/* --- layers in Lua ------------------------------------------------------- */

typedef struct lua_layer {
  lua_State **compiling;  /* belongs to the module's state */
  lua_State *main;
  int forward;            /* registry reference */
  int names;              /* of an array of parameter names */
} lua_layer;

static void lua_layer_release(void *state) {
  lua_layer *l = state;
  luaL_unref(l->main, LUA_REGISTRYINDEX, l->forward);
  luaL_unref(l->main, LUA_REGISTRYINDEX, l->names);
  free(l);
}

/* Push p = {name = symbol}. */
static void push_parameters(lua_State *L, int scope, int names,
                            const lk_value *values) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, names);
  int list = lua_gettop(L), count = (int)lua_rawlen(L, list);
  lua_createtable(L, 0, count);
  for (int i = 1; i <= count; i++) {
    lua_rawgeti(L, list, i);
    lh_symbol_push(L, scope, values[i - 1]);
    lua_rawset(L, -3);
  }
  lua_remove(L, list);
}

static lk_value lua_layer_emit(lk_graph *g, lk_value x,
                               const lk_value *parameters, void *state) {
  lua_layer *l = state;
  lua_State *L = *l->compiling;
  if (L == NULL || !lua_checkstack(L, 20))
    return lk_graph_fail(g, LK_INTERNAL, "a layer written in Lua needs Lua");
  int top = lua_gettop(L);
  lh_scope *scope = lh_scope_push(L, g);
  lua_rawgeti(L, LUA_REGISTRYINDEX, l->forward);
  push_parameters(L, top + 1, l->names, parameters);
  lh_symbol_push(L, top + 1, x);
  lk_value y = lh_call_forward(L, g, 2);
  scope->graph = NULL;
  lua_settop(L, top);
  return y;
}

/* Push the sorted names of the table at `index`. */
static void push_sorted_names(lua_State *L, int index) {
  lua_newtable(L);
  int n = 0;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      lh_raise(L, LK_ARGUMENT, "nn.layer: parameters need names: {w = {C, "
               "F}}");
    lua_pushvalue(L, -2);
    lua_rawseti(L, -4, ++n);
  }
  lua_getglobal(L, "table");
  lua_getfield(L, -1, "sort");
  lua_pushvalue(L, -3);
  lua_call(L, 1, 0);
  lua_pop(L, 1);
}

static void declare_parameters(lua_State *L, lk_layer *layer, int table,
                               int names) {
  lk_error error = {0};
  for (int i = 1; lua_rawgeti(L, names, i) == LUA_TSTRING; i++) {
    const char *name = lua_tostring(L, -1);
    lua_pushvalue(L, -1);
    lua_rawget(L, table);
    lk_shape shape = lh_check_shape(L, lua_gettop(L), "nn.layer");
    lua_getfield(L, -1, "std");
    double std = luaL_optnumber(L, -1, 0.02);
    lua_getfield(L, -2, "ones");
    lk_init init = lua_toboolean(L, -1) ? LK_INIT_ONES : LK_INIT_NORMAL;
    lh_check(L, lk_layer_add_parameter(layer, name, shape, init, std, &error),
             &error);
    lua_pop(L, 4);
  }
  lua_pop(L, 1);
}

static int nn_layer_make(lua_State *L) {
  nn_options n = defaults();
  lh_options(L, 1, "nn.layer", layer_options, 0, &n);
  if (!n.forward || !lua_isfunction(L, n.forward))
    lh_raise(L, LK_ARGUMENT, "nn.layer: needs forward, a function(p, x)");
  if (!n.parameters) {
    lua_newtable(L);
    n.parameters = lua_gettop(L);
  }
  luaL_checktype(L, n.parameters, LUA_TTABLE);
  push_sorted_names(L, n.parameters);
  int names = lua_gettop(L);
  lua_layer *l = calloc(1, sizeof *l);
  if (l == NULL) lh_raise(L, LK_OOM, "nn.layer: no memory");
  l->compiling = lh_compiling(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  l->main = lua_tothread(L, -1);
  lua_pushvalue(L, n.forward);
  l->forward = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushvalue(L, names);
  l->names = luaL_ref(L, LUA_REGISTRYINDEX);
  n.o.custom = (lk_custom){lua_layer_emit, lua_layer_release, l};
  make(L, LK_LAYER_custom, &n, NULL, 0);
  declare_parameters(L, lh_layer_check(L, -1), n.parameters, names);
  return 1;
}

/* The original's model, written in Lua with the pieces above. */
static int nn_transformer(lua_State *L) {
  lua_settop(L, 1);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "llm.model");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "transformer");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  return 1;
}

/* --- methods ------------------------------------------------------------- */

/* The names and places of a layer's parameters, in a store on its own that
 * the box on the stack frees. */
static lk_store *collect(lua_State *L, int index) {
  lk_layer *layer = lh_layer_check(L, index);
  lk_error error = {0};
  lk_store *store = lh_store_push(L);
  lh_check(L, lk_layer_collect(layer, store, &error), &error);
  return store;
}

static int layer_parameters(lua_State *L) {
  lk_store *s = collect(L, 1);
  lua_newtable(L);
  for (int i = 1; i < s->parameter_count; i++) {
    const lk_parameter *p = &s->parameters[i];
    int64_t count = lk_shape_count(p->shape);
    lua_createtable(L, 0, 5);
    lua_pushstring(L, p->name);
    lua_setfield(L, -2, "name");
    lua_createtable(L, p->shape.rank, 0);
    for (int d = 0; d < p->shape.rank; d++) {
      lua_pushinteger(L, p->shape.dim[d]);
      lua_rawseti(L, -2, d + 1);
    }
    lua_setfield(L, -2, "shape");
    lua_pushstring(L, lk_parameter_kind_word(p->kind));
    lua_setfield(L, -2, "kind");
    lua_pushboolean(L, lk_is_quantizable(p, 1001));
    lua_setfield(L, -2, "quantizable");
    lua_pushinteger(L, count);
    lua_setfield(L, -2, "count");
    lua_rawseti(L, -2, i);
  }
  return 1;
}

static int layer_count(lua_State *L) {
  lk_store *s = collect(L, 1);
  int64_t count = 0;
  for (int i = 1; i < s->parameter_count; i++)
    count += lk_shape_count(s->parameters[i].shape);
  lua_pushinteger(L, count);
  return 1;
}

static int layer_tostring(lua_State *L) {
  lk_layer *l = lh_layer_check(L, 1);
  layer_count(L);
  lua_pushfstring(L, "%s%s%s (%I parameters)", lk_layer_kind_word(l->kind),
                  l->name[0] ? " " : "", l->name, lua_tointeger(L, -1));
  return 1;
}

static const lh_function functions[] = {
    {"embedding", nn_embedding, "(options: table): gpu.layer",
     "nn.embedding{V, C}: rows of a table by token id.", embedding_options},
    {"linear", nn_linear, "(options: table): gpu.layer",
     "nn.linear{C_in, C_out}: x wᵀ.", linear_options},
    {"rmsnorm", nn_rmsnorm, "(options: table): gpu.layer",
     "nn.rmsnorm{C}: x / √(mean x² + eps) · w.", rmsnorm_options},
    {"dropout", nn_dropout, "(options: table): gpu.layer",
     "nn.dropout{p}: zeroes with probability p while training.",
     dropout_options},
    {"silu", nn_silu, "(options: table): gpu.layer", "x · sigmoid(x).",
     silu_options},
    {"gated", nn_gated, "(options: table): gpu.layer",
     "nn.gated{C, F}: down(silu(gate x) · up x), a Llama's feed-forward.",
     gated_options},
    {"attention", nn_attention, "(options: table): gpu.layer",
     "nn.attention{C, heads =, kv_heads =}: causal self-attention.",
     attention_options},
    {"residual", nn_residual, "(layers: table): gpu.layer",
     "nn.residual{layers…}: x + the layers on x.", tree_options},
    {"sequential", nn_sequential, "(layers: table): gpu.layer",
     "nn.sequential{layers…}: one after the other.", tree_options},
    {"head", nn_head, "(options: table): gpu.layer",
     "nn.head{tied = embedding} or nn.head{C, V}: logits and loss, never "
     "whole in memory.", head_options},
    {"layer", nn_layer_make, "(options: table): gpu.layer",
     "A new layer out of operators, differentiated like a built-in one.",
     layer_options},
    {"transformer", nn_transformer, "(configuration: table): gpu.layer",
     "The original's decoder, from a sweep's model configuration.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

int lh_open_nn(lua_State *L) {
  lh_class_new(L, &layer_class);
  lua_newtable(L);
  lh_register(L, "gpu.nn", functions);
  return 1;
}
