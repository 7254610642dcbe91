/* gpu.tensor, zeros, ones, full, arange, randn: tensors from Lua values. */
#include <string.h>

#include "gpu.h"

/* The string option `key` of the table at `index`, or NULL. */
static const char *word_option(lua_State *L, int index, const char *key) {
  const char *word = NULL;
  if (lua_getfield(L, index, key) == LUA_TSTRING) word = lua_tostring(L, -1);
  lua_pop(L, 1);  /* the table keeps the string */
  return word;
}

static double number_option(lua_State *L, int index, const char *key,
                            double otherwise) {
  lua_getfield(L, index, key);
  double value = luaL_optnumber(L, -1, otherwise);
  lua_pop(L, 1);
  return value;
}

static lk_context *device_option(lua_State *L, int index) {
  const char *device = word_option(L, index, "device");
  return device ? lh_context_of(L, device) : lh_context(L);
}

/* Keys of a maker's table beside its dimensions. */
static void check_keys(lua_State *L, const char *who,
                       const char *const *known) {
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) continue;
    const char *key = lua_tostring(L, -2);
    const char *const *k = known;
    while (*k && strcmp(*k, key) != 0) k++;
    if (*k) continue;
    const char *near = lh_nearest(key, known);
    lh_raise(L, LK_ARGUMENT, near ? "%s: unknown option '%s'; did you mean "
             "'%s'?" : "%s: unknown option '%s'", who, key, near);
  }
}

static lh_tensor *maker(lua_State *L, const char *who) {
  static const char *const known[] = {"dtype", "device", "value", "seed",
                                      "mean", "std", "first", "step", NULL};
  lk_shape shape = lh_check_shape(L, 1, who);
  check_keys(L, who, known);
  lk_dtype dtype = lh_check_dtype(L, word_option(L, 1, "dtype"), who);
  return lh_tensor_new(L, device_option(L, 1), dtype, shape);
}

static int fill_maker(lua_State *L, const char *who, double value) {
  lh_tensor *t = maker(L, who);
  lh_fill_by(L, t, (lk_call){.op = LK_OP_fill, .attr = {.value = value}});
  return 1;
}

static int gpu_zeros(lua_State *L) { return fill_maker(L, "gpu.zeros", 0); }
static int gpu_ones(lua_State *L) { return fill_maker(L, "gpu.ones", 1); }

static int gpu_full(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  return fill_maker(L, "gpu.full", number_option(L, 1, "value", 0));
}

static int gpu_arange(lua_State *L) {
  lh_tensor *t = maker(L, "gpu.arange");
  lh_fill_by(L, t, (lk_call){.op = LK_OP_arange,
                          .attr = {.value = number_option(L, 1, "first", 0),
                                   .scale = number_option(L, 1, "step", 1)}});
  return 1;
}

static int gpu_randn(lua_State *L) {
  lh_tensor *t = maker(L, "gpu.randn");
  double seed = number_option(L, 1, "seed", -1);
  uint64_t key = seed >= 0 ? (uint64_t)seed : lh_seed(L);
  uint32_t words[LK_CLOCK] = {(uint32_t)key, (uint32_t)(key >> 32)};
  int64_t stream = seed >= 0 ? 0 : lh_next_stream(L);
  lh_tensor *clock = lh_tensor_new(L, t->context, LK_U32,
                                   lk_shape_of(LK_CLOCK));
  lh_tensor_upload(L, clock, words);
  lk_call call = {.op = LK_OP_randn, .in = {clock->t},
                  .attr = {.stream = stream,
                           .scale = number_option(L, 1, "std", 1),
                           .value = number_option(L, 1, "mean", 0)}};
  lh_fill_by(L, t, call);
  lua_pop(L, 1);
  return 1;
}

/* --- from nested tables --------------------------------------------------- */

/* The shape of nested tables; every level must be as long as its first. */
static lk_shape nested_shape(lua_State *L, int index) {
  lk_shape shape = {0};
  lua_pushvalue(L, index);
  int depth = 1;
  while (lua_istable(L, -1)) {
    if (shape.rank == LK_MAX_RANK)
      lh_raise(L, LK_SHAPE, "gpu.tensor: at most %d dimensions", LK_MAX_RANK);
    shape.dim[shape.rank++] = (int64_t)lua_rawlen(L, -1);
    lua_rawgeti(L, -1, 1);
    depth++;
  }
  lua_pop(L, depth);
  return shape;
}

/* Append the numbers of the table on top of the stack; returns the next
 * place. */
static int64_t read_nested(lua_State *L, lk_shape shape, int depth,
                           lk_dtype dtype, void *values, int64_t at) {
  if (depth == shape.rank) {
    int number;
    double x = lua_tonumberx(L, -1, &number);
    if (!number)
      lh_raise(L, LK_ARGUMENT, "gpu.tensor: element %d is a %s, not a number",
               (int)at + 1, luaL_typename(L, -1));
    if (dtype == LK_I32) ((int32_t *)values)[at] = (int32_t)x;
    else ((float *)values)[at] = (float)x;
    return at + 1;
  }
  if (!lua_istable(L, -1) ||
      (int64_t)lua_rawlen(L, -1) != shape.dim[depth])
    lh_raise(L, LK_SHAPE, "gpu.tensor: rows differ in length");
  luaL_checkstack(L, 2, "gpu.tensor");
  for (int64_t i = 1; i <= shape.dim[depth]; i++) {
    lua_rawgeti(L, -1, i);
    at = read_nested(L, shape, depth + 1, dtype, values, at);
    lua_pop(L, 1);
  }
  return at;
}

static int gpu_tensor(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lk_dtype wish = lh_check_dtype(L, word_option(L, 1, "dtype"), "gpu.tensor");
  lk_shape shape = nested_shape(L, 1);
  lk_dtype plain = wish == LK_I32 ? LK_I32 : LK_F32;
  int64_t count = lk_shape_count(shape);
  void *values = lua_newuserdatauv(L, (size_t)(count ? count : 1) * 4, 0);
  lua_pushvalue(L, 1);
  read_nested(L, shape, 0, plain, values, 0);
  lua_pop(L, 1);
  lh_tensor *t = lh_tensor_new(L, device_option(L, 1), plain, shape);
  lh_tensor_upload(L, t, values);
  if (wish == plain) return 1;
  lk_tensor preset = {.dtype = wish, .shape = shape};
  lh_call(L, LK_OP_cast, (int[]){lua_gettop(L)}, 1, LK_ATTRS(0), &preset);
  return 1;
}

static const lh_function makers[] = {
    {"tensor", gpu_tensor, "(values: table): gpu.tensor",
     "A tensor of nested tables of numbers; options dtype, device.", NULL},
    {"zeros", gpu_zeros, "(shape: table): gpu.tensor",
     "Zeros of the given shape; options dtype, device.", NULL},
    {"ones", gpu_ones, "(shape: table): gpu.tensor",
     "Ones of the given shape; options dtype, device.", NULL},
    {"full", gpu_full, "(shape: table): gpu.tensor",
     "`value` everywhere; options value, dtype, device.", NULL},
    {"arange", gpu_arange, "(shape: table): gpu.tensor",
     "first, first + step, …: gpu.arange{5, first = 0, step = 1}.", NULL},
    {"randn", gpu_randn, "(shape: table): gpu.tensor",
     "Normal numbers; options seed, mean, std, dtype, device.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

void lh_add_makers(lua_State *L) { lh_register(L, "gpu", makers); }
