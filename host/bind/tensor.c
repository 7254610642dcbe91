/* gpu.tensor: the class, and moving values in and out. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"

static void tensor_close(void *object) {
  lk_storage_release(((lh_tensor *)object)->storage);
}

/* --- making -------------------------------------------------------------- */

lh_tensor *lh_tensor_check(lua_State *L, int index) {
  return lh_object_check(L, index, &lh_tensor_class);
}

lh_tensor *lh_tensor_test(lua_State *L, int index) {
  return lh_object_test(L, index, &lh_tensor_class);
}

lh_tensor *lh_tensor_on(lua_State *L, lk_context *context, lk_storage *storage,
                        lk_tensor t) {
  lh_tensor *tensor = lh_object_new(L, &lh_tensor_class, sizeof *tensor);
  lk_storage_retain(storage);
  *tensor = (lh_tensor){.context = context, .storage = storage, .t = t};
  return tensor;
}

static lk_status try_storage(lua_State *L, void *argument) {
  lh_tensor *tensor = argument;
  (void)L;
  return lk_storage_new(tensor->context, lk_tensor_bytes(&tensor->t), LK_DATA,
                        &tensor->storage);
}

lh_tensor *lh_tensor_new(lua_State *L, lk_context *context, lk_dtype dtype,
                         lk_shape shape) {
  lh_tensor *tensor = lh_object_new(L, &lh_tensor_class, sizeof *tensor);
  tensor->context = context;
  tensor->t = (lk_tensor){.dtype = dtype, .shape = shape};
  lh_retry(L, context, try_storage, tensor);
  tensor->t.data = lk_storage_data(tensor->storage);
  return tensor;
}

lk_dtype lh_check_dtype(lua_State *L, const char *word, const char *who) {
  lk_dtype dtype = LK_F32;
  if (word && !lk_dtype_from_word(word, &dtype))
    lh_raise(L, LK_DTYPE, "%s: '%s' is not a dtype (f32, bf16, f16, e4m3, i32, "
             "u32, i8, u8)", who, word);
  return dtype;
}

lk_shape lh_check_shape(lua_State *L, int index, const char *who) {
  lk_shape shape = {0};
  int64_t count = 1;
  luaL_checktype(L, index, LUA_TTABLE);
  for (int i = 1; lua_rawgeti(L, index, i) != LUA_TNIL; i++) {
    if (i > LK_MAX_RANK)
      lh_raise(L, LK_SHAPE, "%s: at most %d dimensions", who, LK_MAX_RANK);
    if (!lua_isinteger(L, -1) || lua_tointeger(L, -1) < 0)
      lh_raise(L, LK_SHAPE, "%s: dimension %d is not a whole number from 0",
               who, i);
    shape.dim[shape.rank++] = lua_tointeger(L, -1);
    lua_pop(L, 1);
    if (!lk_size_product(count, shape.dim[i - 1], &count) || count > 1LL << 50)
      lh_raise(L, LK_SHAPE, "%s: the shape is too large", who);
  }
  lua_pop(L, 1);
  return shape;
}

/* Run an operator that fills a tensor. */
void lh_fill_by(lua_State *L, lh_tensor *t, lk_call call) {
  call.out[0] = t->t;
  lh_check(L, lk_dispatch(t->context, &call, (lk_storage *[LK_MAX_RESULTS]){0}),
           &t->context->error);
}

/* --- values in and out --------------------------------------------------- */

void lh_tensor_upload(lua_State *L, lh_tensor *t, const void *data) {
  lh_check(L, t->context->backend->upload(t->context, t->t.data, data,
                                          lk_tensor_bytes(&t->t)),
           &t->context->error);
}

void lh_tensor_download(lua_State *L, const lh_tensor *t, void *data) {
  lh_check(L, t->context->backend->download(t->context, data, t->t.data,
                                            lk_tensor_bytes(&t->t)),
           &t->context->error);
}

/* Push the values as f32 or i32 in a userdata; returns them. */
static void *plain_values(lua_State *L, int index, lk_dtype *dtype) {
  lh_tensor *t = lh_tensor_check(L, index);
  *dtype = t->t.dtype;
  bool direct = *dtype == LK_F32 || *dtype == LK_I32 || *dtype == LK_U32 ||
                *dtype == LK_I8 || *dtype == LK_U8 || *dtype == LK_U4;
  if (!direct) {
    lk_tensor preset = {.dtype = LK_F32, .shape = t->t.shape};
    lh_call(L, LK_OP_cast, (int[]){index}, 1, LK_ATTRS(0), &preset);
    t = lh_tensor_check(L, -1);
    *dtype = LK_F32;
  }
  int64_t bytes = lk_tensor_bytes(&t->t);
  void *values = lua_newuserdatauv(L, (size_t)(bytes ? bytes : 1), 0);
  lh_tensor_download(L, t, values);
  return values;
}

static void push_value(lua_State *L, const void *values, lk_dtype dtype,
                       int64_t i) {
  switch (dtype) {
    case LK_F32: lua_pushnumber(L, ((const float *)values)[i]); break;
    case LK_I32: lua_pushinteger(L, ((const int32_t *)values)[i]); break;
    case LK_U32: lua_pushinteger(L, ((const uint32_t *)values)[i]); break;
    case LK_I8: lua_pushinteger(L, ((const int8_t *)values)[i]); break;
    case LK_U4: {
      int byte = ((const uint8_t *)values)[i / 2];
      lua_pushinteger(L, i % 2 ? byte & 15 : byte >> 4);
      break;
    }
    default: lua_pushinteger(L, ((const uint8_t *)values)[i]);
  }
}

static int64_t push_nested(lua_State *L, lk_shape shape, int depth,
                           const void *values, lk_dtype dtype, int64_t at) {
  if (depth == shape.rank) {
    push_value(L, values, dtype, at);
    return at + 1;
  }
  luaL_checkstack(L, 3, "table");
  lua_createtable(L, (int)shape.dim[depth], 0);
  for (int64_t i = 1; i <= shape.dim[depth]; i++) {
    at = push_nested(L, shape, depth + 1, values, dtype, at);
    lua_rawseti(L, -2, i);
  }
  return at;
}

static int tensor_table(lua_State *L) {
  lk_dtype dtype;
  lk_shape shape = lh_tensor_check(L, 1)->t.shape;
  const void *values = plain_values(L, 1, &dtype);
  push_nested(L, shape, 0, values, dtype, 0);
  return 1;
}

static int tensor_item(lua_State *L) {
  lk_dtype dtype;
  lh_tensor *t = lh_tensor_check(L, 1);
  if (lk_tensor_count(&t->t) != 1) {
    char text[64];
    lh_raise(L, LK_SHAPE, "item: the tensor has %s elements, needs one",
             lk_shape_text(t->t.shape, text, sizeof text));
  }
  const void *values = plain_values(L, 1, &dtype);
  push_value(L, values, dtype, 0);
  return 1;
}

static int tensor_to(lua_State *L) {
  lh_tensor *t = lh_tensor_check(L, 1);
  const char *word = luaL_checkstring(L, 2);
  lk_dtype dtype;
  if (lk_dtype_from_word(word, &dtype)) {
    lk_tensor preset = {.dtype = dtype, .shape = t->t.shape};
    lh_call(L, LK_OP_cast, (int[]){1}, 1, LK_ATTRS(0), &preset);
    return 1;
  }
  lk_context *other = lh_context_of(L, word);
  void *values = lua_newuserdatauv(L, (size_t)lk_tensor_bytes(&t->t) + 1, 0);
  lh_tensor_download(L, t, values);
  lh_tensor_upload(L, lh_tensor_new(L, other, t->t.dtype, t->t.shape), values);
  return 1;
}

static int tensor_copy(lua_State *L) {
  lh_tensor *t = lh_tensor_check(L, 1), *u = lh_tensor_check(L, 2);
  if (t->t.dtype != u->t.dtype || !lk_shape_equal(t->t.shape, u->t.shape))
    lh_raise(L, LK_SHAPE, "copy: both tensors must have one shape and dtype");
  lh_fill_by(L, t, (lk_call){.op = LK_OP_copy, .in = {u->t}});
  lua_settop(L, 1);
  return 1;
}

static int tensor_fill(lua_State *L) {
  lh_tensor *t = lh_tensor_check(L, 1);
  lh_fill_by(L, t, (lk_call){.op = LK_OP_fill,
                          .attr = {.value = luaL_checknumber(L, 2)}});
  lua_settop(L, 1);
  return 1;
}

static int tensor_equal(lua_State *L) {
  lk_dtype da, db;
  lk_tensor a = lh_tensor_check(L, 1)->t, b = lh_tensor_check(L, 2)->t;
  bool same = a.dtype == b.dtype && lk_shape_equal(a.shape, b.shape);
  if (same) {
    const void *x = plain_values(L, 1, &da), *y = plain_values(L, 2, &db);
    same = memcmp(x, y, (size_t)lk_dtype_bytes(da, lk_tensor_count(&a))) == 0;
  }
  lua_pushboolean(L, same);
  return 1;
}

typedef struct tolerance {
  double rtol, atol;
} tolerance;

static const lh_option tolerance_options[] = {
    {"rtol", LH_NUMBER, offsetof(tolerance, rtol), 0, 0, NULL,
     "relative to |b|; 1e-5"},
    {"atol", LH_NUMBER, offsetof(tolerance, atol), 0, 0, NULL,
     "absolute; 1e-8"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};

static int tensor_allclose(lua_State *L) {
  lk_dtype da, db;
  tolerance bound = {1e-5, 1e-8};
  lh_options(L, 3, "allclose", tolerance_options, 0, &bound);
  lk_tensor a = lh_tensor_check(L, 1)->t, b = lh_tensor_check(L, 2)->t;
  bool close = lk_shape_equal(a.shape, b.shape);
  if (close) {
    const float *x = plain_values(L, 1, &da), *y = plain_values(L, 2, &db);
    if (da != LK_F32 || db != LK_F32)
      lh_raise(L, LK_DTYPE, "allclose: needs float tensors");
    for (int64_t i = 0; i < lk_tensor_count(&a) && close; i++)
      close = fabs((double)x[i] - (double)y[i]) <=
              bound.atol + bound.rtol * fabs((double)y[i]);
  }
  lua_pushboolean(L, close);
  return 1;
}

/* --- the class ----------------------------------------------------------- */

static int tensor_index(lua_State *L) {
  const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : NULL;
  lh_tensor *t = lh_tensor_check(L, 1);
  char text[32];
  if (lua_type(L, 2) == LUA_TNUMBER) {
    lua_pushcfunction(L, lh_operand_row);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    lua_call(L, 2, 1);
    return 1;
  }
  if (key && strcmp(key, "shape") == 0) {
    lua_createtable(L, t->t.shape.rank, 0);
    for (int i = 0; i < t->t.shape.rank; i++) {
      lua_pushinteger(L, t->t.shape.dim[i]);
      lua_rawseti(L, -2, i + 1);
    }
    return 1;
  }
  if (key && strcmp(key, "dtype") == 0) {
    lua_pushstring(L, lk_dtype_word(t->t.dtype));
    return 1;
  }
  if (key && strcmp(key, "device") == 0) {
    lh_context_name(t->context, text, sizeof text);
    lua_pushstring(L, text);
    return 1;
  }
  lua_pushvalue(L, 2);
  lua_rawget(L, lua_upvalueindex(1));
  return 1;
}

/* t[i] = tensor or number: rows are contiguous, so a view is written. */
static int tensor_newindex(lua_State *L) {
  lh_tensor *t = lh_tensor_check(L, 1);
  if (t->t.shape.rank == 0) lh_raise(L, LK_SHAPE, "a scalar has no rows");
  int64_t i = lh_check_integer(L, 2, "index", 1, t->t.shape.dim[0]);
  lk_tensor row = {.dtype = t->t.dtype, .shape = {.rank = t->t.shape.rank - 1}};
  for (int d = 0; d < row.shape.rank; d++)
    row.shape.dim[d] = t->t.shape.dim[d + 1];
  row.data = (char *)t->t.data + (i - 1) * lk_tensor_bytes(&row);
  lh_tensor view = {.context = t->context, .t = row};
  if (lua_type(L, 3) == LUA_TNUMBER) {
    lh_fill_by(L, &view, (lk_call){.op = LK_OP_fill,
                                .attr = {.value = lua_tonumber(L, 3)}});
    return 0;
  }
  lh_tensor *u = lh_tensor_check(L, 3);
  if (u->t.dtype != row.dtype || !lk_shape_equal(u->t.shape, row.shape))
    lh_raise(L, LK_SHAPE, "t[i] = u: u must have the shape and dtype of t[i]");
  lh_fill_by(L, &view, (lk_call){.op = LK_OP_copy, .in = {u->t}});
  return 0;
}

static int tensor_length(lua_State *L) {
  lh_tensor *t = lh_tensor_check(L, 1);
  lua_pushinteger(L, t->t.shape.rank ? t->t.shape.dim[0] : 1);
  return 1;
}

static int tensor_numel(lua_State *L) {
  lua_pushinteger(L, lk_tensor_count(&lh_tensor_check(L, 1)->t));
  return 1;
}

static int tensor_bytes(lua_State *L) {
  lua_pushinteger(L, lk_tensor_bytes(&lh_tensor_check(L, 1)->t));
  return 1;
}

/* "tensor[2, 3] f32 cpu" with up to eight values. */
static int tensor_tostring(lua_State *L) {
  char shape[96], device[32];
  lh_tensor *t = lh_tensor_check(L, 1);
  lh_context_name(t->context, device, sizeof device);
  lk_shape_text(t->t.shape, shape, sizeof shape);
  luaL_Buffer b;
  int64_t count = lk_tensor_count(&t->t);
  lk_dtype dtype;
  const void *values = count <= 4096 ? plain_values(L, 1, &dtype) : NULL;
  luaL_buffinit(L, &b);
  lua_pushfstring(L, "tensor%s %s %s", shape, lk_dtype_word(t->t.dtype),
                  device);
  luaL_addvalue(&b);
  for (int64_t i = 0; values && i < count && i < 8; i++) {
    luaL_addstring(&b, i ? ", " : ": ");
    push_value(L, values, dtype, i);
    char number[48];
    snprintf(number, sizeof number, "%.6g", lua_tonumber(L, -1));
    lua_pop(L, 1);
    luaL_addstring(&b, number);
  }
  if (values && count > 8) luaL_addstring(&b, ", …");
  luaL_pushresult(&b);
  return 1;
}

static const lh_function methods[] = {
    {"table", tensor_table, "(self): table", "The values, nested by rows.",
     NULL},
    {"item", tensor_item, "(self): number", "The one value.", NULL},
    {"to", tensor_to, "(self, where: string): gpu.tensor",
     "A copy in another dtype or on another device.", NULL},
    {"copy", tensor_copy, "(self, from: gpu.tensor): gpu.tensor",
     "Overwrite the values with those of a tensor of the same shape.", NULL},
    {"fill", tensor_fill, "(self, value: number): gpu.tensor",
     "Overwrite every value.", NULL},
    {"equal", tensor_equal, "(self, other: gpu.tensor): boolean",
     "Same shape, dtype and bits.", NULL},
    {"allclose", tensor_allclose,
     "(self, other: gpu.tensor, options?: {rtol: number, atol: number}): "
     "boolean", "|a - b| <= atol + rtol |b| everywhere.",
     tolerance_options},
    {"numel", tensor_numel, "(self): integer", "The number of elements.",
     NULL},
    {"bytes", tensor_bytes, "(self): integer", "The bytes of its elements.",
     NULL},
    {"__index", tensor_index, NULL, NULL, NULL},
    {"__newindex", tensor_newindex, NULL, NULL, NULL},
    {"__len", tensor_length, NULL, NULL, NULL},
    {"__tostring", tensor_tostring, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL}};

const lh_class lh_tensor_class = {"gpu.tensor", methods, tensor_close};

static const lh_function fields[] = {
    {"shape", NULL, "integer[]", "Its sizes, outermost first.", NULL},
    {"dtype", NULL, "string", "f32, bf16, f16, e4m3, i32, …", NULL},
    {"device", NULL, "string", "Where it lives: cpu, cuda:0.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

void lh_add_tensor(lua_State *L) {
  lh_class_new(L, &lh_tensor_class);
  lh_document(L, lh_tensor_class.name, fields);
  lh_class_add(L, &lh_tensor_class, lh_operand_methods);
  lh_add_makers(L);
}
