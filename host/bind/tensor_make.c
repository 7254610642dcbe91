/* gpu.tensor, zeros, ones, full, arange, randn: tensors from Lua values. */
#include <string.h>

#include "gpu.h"

typedef struct made {
  const char *dtype, *device;
  double value, mean, std, first, step;
  int64_t seed; /* -1: a new stream of gpu.seed's numbers */
} made;

#define FIELD(name) offsetof(made, name)
#define PLACE                                                              \
  {"dtype", LH_STRING, FIELD(dtype), 0, 0, NULL,                           \
   "f32, bf16, f16, e4m3, i32, u32, i8 or u8; f32"},                       \
      {"device", LH_STRING, FIELD(device), 0, 0, NULL,                     \
       "cpu, cuda:0; the current one"},                                    \
      {NULL, 0, 0, 0, 0, NULL, NULL}

static const lh_option place_options[] = {PLACE};
static const lh_option full_options[] = {
    {"value", LH_NUMBER, FIELD(value), 0, 0, NULL, "everywhere; 0"}, PLACE};
static const lh_option arange_options[] = {
    {"first", LH_NUMBER, FIELD(first), 0, 0, NULL, "the first value; 0"},
    {"step", LH_NUMBER, FIELD(step), 0, 0, NULL, "from one to the next; 1"},
    PLACE};
static const lh_option randn_options[] = {
    {"seed", LH_INTEGER, FIELD(seed), 0, 9e18, NULL,
     "the same seed, the same numbers; the next of gpu.seed's"},
    {"mean", LH_NUMBER, FIELD(mean), 0, 0, NULL, "0"},
    {"std", LH_NUMBER, FIELD(std), 0, 0, NULL, "1"},
    PLACE};

static made read_options(lua_State *L, const char *who,
                         const lh_option *options) {
  made m = {.std = 1, .step = 1, .seed = -1};
  luaL_checktype(L, 1, LUA_TTABLE);
  lh_options(L, 1, who, options, -1, &m);
  return m;
}

static lk_context *context_of(lua_State *L, const made *m) {
  return m->device ? lh_context_of(L, m->device) : lh_context(L);
}

/* Push a tensor whose shape the table at 1 begins with. */
static lh_tensor *maker(lua_State *L, const char *who, const made *m) {
  lk_shape shape = lh_check_shape(L, 1, who);
  lk_dtype dtype = lh_check_dtype(L, m->dtype, who);
  return lh_tensor_new(L, context_of(L, m), dtype, shape);
}

static int fill_maker(lua_State *L, const char *who, const made *m,
                      double value) {
  lh_tensor *t = maker(L, who, m);
  lh_fill_by(L, t, (lk_call){.op = LK_OP_fill, .attr = {.value = value}});
  return 1;
}

static int gpu_zeros(lua_State *L) {
  made m = read_options(L, "gpu.zeros", place_options);
  return fill_maker(L, "gpu.zeros", &m, 0);
}

static int gpu_ones(lua_State *L) {
  made m = read_options(L, "gpu.ones", place_options);
  return fill_maker(L, "gpu.ones", &m, 1);
}

static int gpu_full(lua_State *L) {
  made m = read_options(L, "gpu.full", full_options);
  return fill_maker(L, "gpu.full", &m, m.value);
}

static int gpu_arange(lua_State *L) {
  made m = read_options(L, "gpu.arange", arange_options);
  lh_tensor *t = maker(L, "gpu.arange", &m);
  lh_fill_by(L, t, (lk_call){.op = LK_OP_arange,
                             .attr = {.value = m.first, .scale = m.step}});
  return 1;
}

static int gpu_randn(lua_State *L) {
  made m = read_options(L, "gpu.randn", randn_options);
  lh_tensor *t = maker(L, "gpu.randn", &m);
  uint64_t key = m.seed >= 0 ? (uint64_t)m.seed : lh_seed(L);
  uint32_t words[LK_CLOCK] = {(uint32_t)key, (uint32_t)(key >> 32)};
  int64_t stream = m.seed >= 0 ? 0 : lh_next_stream(L);
  lh_tensor *clock = lh_tensor_new(L, t->context, LK_U32,
                                   lk_shape_of(LK_CLOCK));
  lh_tensor_upload(L, clock, words);
  lk_call call = {.op = LK_OP_randn, .in = {clock->t},
                  .attr = {.stream = stream, .scale = m.std,
                           .value = m.mean}};
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
  made m = read_options(L, "gpu.tensor", place_options);
  lk_dtype wish = lh_check_dtype(L, m.dtype, "gpu.tensor");
  lk_shape shape = nested_shape(L, 1);
  lk_dtype plain = wish == LK_I32 ? LK_I32 : LK_F32;
  int64_t count = lk_shape_count(shape);
  void *values = lua_newuserdatauv(L, (size_t)(count ? count : 1) * 4, 0);
  lua_pushvalue(L, 1);
  read_nested(L, shape, 0, plain, values, 0);
  lua_pop(L, 1);
  lh_tensor *t = lh_tensor_new(L, context_of(L, &m), plain, shape);
  lh_tensor_upload(L, t, values);
  if (wish == plain) return 1;
  lk_tensor preset = {.dtype = wish, .shape = shape};
  lh_call(L, LK_OP_cast, (int[]){lua_gettop(L)}, 1, LK_ATTRS(0), &preset);
  return 1;
}

static const lh_function makers[] = {
    {"tensor", gpu_tensor, "(values: table): gpu.tensor",
     "A tensor of nested tables of numbers.", place_options},
    {"zeros", gpu_zeros, "(shape: table): gpu.tensor",
     "Zeros of the given shape: gpu.zeros{2, 3}.", place_options},
    {"ones", gpu_ones, "(shape: table): gpu.tensor",
     "Ones of the given shape.", place_options},
    {"full", gpu_full, "(shape: table): gpu.tensor",
     "`value` everywhere: gpu.full{2, 3, value = 7}.", full_options},
    {"arange", gpu_arange, "(shape: table): gpu.tensor",
     "first, first + step, …: gpu.arange{5, first = 0, step = 1}.",
     arange_options},
    {"randn", gpu_randn, "(shape: table): gpu.tensor",
     "Normal numbers.", randn_options},
    {NULL, NULL, NULL, NULL, NULL}};

void lh_add_makers(lua_State *L) { lh_register(L, "gpu", makers); }
