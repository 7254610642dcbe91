/* gpu.quant: tensors in quantized formats, and how far they are from the
 * original. One function a line of format.def; all arithmetic is operators'.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bitsandbytes.h"
#include "quant.h"

static void quantized_close(void *object) {
  lh_quantized *q = object;
  for (int i = 0; i < LH_QUANTIZED_PARTS; i++)
    lk_storage_release(q->part[i].storage);
}

lh_quantized *lh_quantized_check(lua_State *L, int index) {
  return lh_object_check(L, index, &lh_quantized_class);
}

/* --- calls --------------------------------------------------------------- */

void lh_quantized_push(lua_State *L, const lh_quantized *q,
                       lh_quantized_name i) {
  const struct lh_quantized_part *p = &q->part[i];
  if (p->storage == NULL)
    lua_pushnil(L);
  else
    lh_tensor_on(L, q->context, p->storage, p->t);
}

/* Free the tensor at `index` now; the collector would come later. */
static void drop(lua_State *L, int index) {
  index = lua_absindex(L, index);
  if (luaL_callmeta(L, index, "__close")) lua_pop(L, 1);
  lua_remove(L, index);
}

/* Push the result of `op` on the values at `a` and `b` (0: absent). */
static void push_call(lua_State *L, lk_op op, int a, int b, lk_attr attr) {
  int in[2] = {lua_absindex(L, a), b ? lua_absindex(L, b) : 0};
  lh_call(L, op, in, b ? 2 : 1, attr, NULL);
}

/* Push the tensor at `index` in f32: itself, or converted. */
static void push_f32(lua_State *L, int index) {
  const lh_tensor *t = lh_tensor_check(L, index);
  lk_tensor preset = {.dtype = LK_F32, .shape = t->t.shape};
  if (t->t.dtype == LK_F32)
    lua_pushvalue(L, index);
  else
    lh_call(L, LK_OP_cast, &index, 1, (lk_attr){0}, &preset);
}

typedef struct quantize_call {
  lh_quantized *q;
  lk_tensor x;
  lk_format format;
  int64_t block;
  bool search;
  lh_quantized_name first; /* where codes, scales, tscale go */
} quantize_call;

static lk_status try_quantize(lua_State *L, void *argument) {
  quantize_call *c = argument;
  lk_storage *storage[LK_MAX_RESULTS];
  (void)L;
  lk_call call = lk_call_new(LK_OP_quantize);
  call.in[0] = c->x;
  call.attr = (lk_attr){.format = c->format, .block = c->block,
                        .search = c->search};
  LK_TRY(lk_dispatch(c->q->context, &call, storage));
  for (int i = 0; i < 3 && storage[i]; i++)
    c->q->part[c->first + i] =
        (struct lh_quantized_part){call.out[i], storage[i]};
  return LK_OK;
}

/* Replace the scales by 8-bit codes of scales − mean. */
static void double_quantize(lua_State *L, lh_quantized *q) {
  lh_quantized_push(L, q, LH_SCALES);
  push_call(L, LK_OP_mean, -1, 0, (lk_attr){.dim = -1});
  push_call(L, LK_OP_sub, -2, -1, (lk_attr){0});
  quantize_call call = {.q = q, .x = lh_tensor_check(L, -1)->t,
                        .format = LK_FORMAT_DYN8,
                        .block = LH_BNB_NESTED_BLOCK, .first = LH_DOUBLE_CODES};
  lh_retry(L, q->context, try_quantize, &call);
  const lh_tensor *mean = lh_tensor_check(L, -2);
  lk_storage_retain(mean->storage);
  q->part[LH_OFFSET] = (struct lh_quantized_part){mean->t, mean->storage};
  lk_storage_release(q->part[LH_SCALES].storage);
  q->part[LH_SCALES] = (struct lh_quantized_part){LK_ABSENT, NULL};
  q->doubled = true;
  for (int i = 0; i < 3; i++) drop(L, -1);
}

/* --- making -------------------------------------------------------------- */

typedef struct quantize_options {
  int64_t block;
  bool search, doubled;
} quantize_options;

static const lh_option options[] = {
    {"block", LH_INTEGER, offsetof(quantize_options, block), 8, 4096, NULL,
     "Values that share a scale, a multiple of 8; default: the format's."},
    {"search", LH_BOOLEAN, offsetof(quantize_options, search), 0, 0, NULL,
     "Take the best of five scales a block; default false."},
    {"double", LH_BOOLEAN, offsetof(quantize_options, doubled), 0, 0, NULL,
     "Keep the scales in 8 bits, too (nf4 and fp4); default false."},
    {NULL, LH_ANY, 0, 0, 0, NULL, NULL}};

bool lh_is_bitsandbytes(lk_format format) {
  return format == LK_FORMAT_NF4 || format == LK_FORMAT_FP4;
}

static int quantize(lua_State *L, lk_format format) {
  char who[32];
  quantize_options o = {0};
  snprintf(who, sizeof who, "gpu.quant.%s", lk_formats[format].word);
  lua_settop(L, 2);
  const lh_tensor *t = lh_tensor_check(L, 1);
  lh_options(L, 2, who, options, 0, &o);
  if (o.doubled && !lh_is_bitsandbytes(format))
    lh_raise(L, LK_ARGUMENT, "%s: option 'double' is for nf4 and fp4", who);
  lh_quantized *q = lh_object_new(L, &lh_quantized_class, sizeof *q);
  *q = (lh_quantized){.context = t->context, .format = format,
                      .block = o.block, .shape = t->t.shape};
  push_f32(L, 1);
  quantize_call call = {.q = q, .x = lh_tensor_check(L, -1)->t,
                        .format = format, .block = o.block,
                        .search = o.search, .first = LH_CODES};
  lh_retry(L, q->context, try_quantize, &call);
  if (lua_rawequal(L, 1, -1)) lua_pop(L, 1);
  else drop(L, -1);
  if (o.doubled) double_quantize(L, q);
  return 1;
}

#define FORMAT(name, word, code, scale, block, per_tensor) \
  static int quant_##name(lua_State *L) {                  \
    return quantize(L, LK_FORMAT_##name);                  \
  }
#include "../../kernels/core/format.def"
#undef FORMAT

/* --- back ---------------------------------------------------------------- */

/* Push the scales that dequantize takes. */
static void push_scales(lua_State *L, const lh_quantized *q) {
  if (!q->doubled) {
    lh_quantized_push(L, q, LH_SCALES);
    return;
  }
  int base = lua_gettop(L), in[2] = {base + 1, base + 2};
  const lk_tensor *codes = &q->part[LH_DOUBLE_CODES].t;
  lk_tensor preset = {.dtype = LK_F32, .shape = codes->shape};
  lh_quantized_push(L, q, LH_DOUBLE_CODES);
  lh_quantized_push(L, q, LH_DOUBLE_SCALES);
  lh_call(L, LK_OP_dequantize, in, 2,
          (lk_attr){.format = LK_FORMAT_DYN8, .block = LH_BNB_NESTED_BLOCK},
          &preset);
  lh_quantized_push(L, q, LH_OFFSET);
  push_call(L, LK_OP_add, -2, -1, (lk_attr){0});
  lua_insert(L, base + 1);
  drop(L, base + 4);
  lua_settop(L, base + 1);
}

/* Push what `q` stands for, in f32. */
static void push_values(lua_State *L, const lh_quantized *q) {
  int base = lua_gettop(L), in[3] = {base + 1, base + 2, 0};
  lk_tensor preset = {.dtype = LK_F32, .shape = q->shape};
  lh_quantized_push(L, q, LH_CODES);
  push_scales(L, q);
  lh_quantized_push(L, q, LH_TENSOR_SCALE);
  if (!lua_isnil(L, -1)) in[2] = base + 3;
  lh_call(L, LK_OP_dequantize, in, 3,
          (lk_attr){.format = q->format, .block = q->block}, &preset);
  lua_insert(L, base + 1);
  lua_pop(L, 1);
  drop(L, base + 3);
  lua_settop(L, base + 1);
}

/* A float dtype's word at `index`; f32 when absent. */
static lk_dtype check_float(lua_State *L, int index) {
  const char *word = luaL_optstring(L, index, "f32");
  lk_dtype dtype = lh_check_dtype(L, word, "dequantize");
  if (!lk_dtype_is_float(dtype))
    lh_raise(L, LK_DTYPE, "dequantize: %s is no floating-point dtype", word);
  return dtype;
}

static int quantized_dequantize(lua_State *L) {
  const lh_quantized *q = lh_quantized_check(L, 1);
  lk_dtype dtype = check_float(L, 2);
  push_values(L, q);
  if (dtype == LK_F32) return 1;
  int in = lua_gettop(L);
  lk_tensor preset = {.dtype = dtype, .shape = q->shape};
  lh_call(L, LK_OP_cast, &in, 1, (lk_attr){0}, &preset);
  drop(L, in);
  return 1;
}

static int64_t bytes_of(const lh_quantized *q) {
  int64_t bytes = 0;
  for (int i = 0; i < LH_QUANTIZED_PARTS; i++)
    if (q->part[i].storage) bytes += lk_tensor_bytes(&q->part[i].t);
  return bytes;
}

static int quantized_bytes(lua_State *L) {
  lua_pushinteger(L, bytes_of(lh_quantized_check(L, 1)));
  return 1;
}

/* --- errors -------------------------------------------------------------- */

/* Pop the f32 scalar on top of the stack. */
static double pop_number(lua_State *L) {
  float value;
  lh_tensor_download(L, lh_tensor_check(L, -1), &value);
  drop(L, -1);
  return value;
}

static double reduce(lua_State *L, lk_op op, int index) {
  push_call(L, op, index, 0, (lk_attr){.dim = -1});
  return pop_number(L);
}

/* The mean of the squares of the tensor at `index`. */
static double mean_square(lua_State *L, int index) {
  push_call(L, LK_OP_mul, index, index, (lk_attr){0});
  double mean = reduce(L, LK_OP_mean, -1);
  drop(L, -1);
  return mean;
}

static void set_number(lua_State *L, const char *key, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, key);
}

static int quant_error(lua_State *L) {
  char has[160], needs[160];
  const lh_tensor *t = lh_tensor_check(L, 1);
  const lh_quantized *q = lh_quantized_check(L, 2);
  lua_settop(L, 2);
  if (!lk_shape_equal(t->t.shape, q->shape))
    lh_raise(L, LK_SHAPE, "gpu.quant.error: the tensor has shape %s, what was "
             "quantized %s", lk_shape_text(t->t.shape, has, sizeof has),
             lk_shape_text(q->shape, needs, sizeof needs));
  push_f32(L, 1);
  push_values(L, q);
  push_call(L, LK_OP_sub, 3, 4, (lk_attr){0});
  double mse = mean_square(L, 5), power = mean_square(L, 3);
  double most = fmax(reduce(L, LK_OP_max, 5), -reduce(L, LK_OP_min, 5));
  drop(L, 5);
  drop(L, 4);
  lua_createtable(L, 0, 4);
  set_number(L, "mse", mse);
  set_number(L, "relative", mse == 0 ? 0 : mse / power);
  set_number(L, "max", most);
  set_number(L, "sqnr_db", mse == 0 ? INFINITY : 10 * log10(power / mse));
  return 1;
}

/* --- fields -------------------------------------------------------------- */

static void push_shape(lua_State *L, const lh_quantized *q) {
  lua_createtable(L, q->shape.rank, 0);
  for (int i = 0; i < q->shape.rank; i++) {
    lua_pushinteger(L, q->shape.dim[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

static void push_double(lua_State *L, const lh_quantized *q) {
  if (!q->doubled) {
    lua_pushnil(L);
    return;
  }
  lua_createtable(L, 0, 3);
  lh_quantized_push(L, q, LH_DOUBLE_CODES);
  lua_setfield(L, -2, "codes");
  lh_quantized_push(L, q, LH_DOUBLE_SCALES);
  lua_setfield(L, -2, "scales");
  lh_quantized_push(L, q, LH_OFFSET);
  lua_setfield(L, -2, "offset");
}

static void push_codes(lua_State *L, const lh_quantized *q) {
  lh_quantized_push(L, q, LH_CODES);
}

static void push_tensor_scale(lua_State *L, const lh_quantized *q) {
  lh_quantized_push(L, q, LH_TENSOR_SCALE);
}

static void push_format(lua_State *L, const lh_quantized *q) {
  lua_pushstring(L, lk_formats[q->format].word);
}

static void push_block(lua_State *L, const lh_quantized *q) {
  lua_pushinteger(L, lk_format_block(q->format, q->block,
                                     lk_shape_count(q->shape)));
}

static const struct field {
  const char *name;
  void (*push)(lua_State *L, const lh_quantized *q);
} fields[] = {{"codes", push_codes},   {"scales", push_scales},
              {"shape", push_shape},   {"tensor_scale", push_tensor_scale},
              {"format", push_format}, {"block", push_block},
              {"double", push_double}, {NULL, NULL}};

/* Methods (upvalue 1) first: q:close() must not need an open object. */
static int quantized_index(lua_State *L) {
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
  const lh_quantized *q = lh_quantized_check(L, 1);
  const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  for (const struct field *f = fields; f->name; f++) {
    if (strcmp(f->name, key) != 0) continue;
    f->push(L, q);
    return 1;
  }
  return 0;
}

static int quantized_tostring(lua_State *L) {
  char shape[160];
  const lh_quantized *q = lh_object_test(L, 1, &lh_quantized_class);
  if (q == NULL) {
    lua_pushstring(L, "gpu.quantized (closed)");
    return 1;
  }
  push_block(L, q);
  lua_pushfstring(L, "gpu.quantized %s %s, block %I, %I bytes",
                  lk_formats[q->format].word,
                  lk_shape_text(q->shape, shape, sizeof shape),
                  lua_tointeger(L, -1), (lua_Integer)bytes_of(q));
  return 1;
}

static const lh_function field_docs[] = {
    {"codes", NULL, "gpu.tensor", "The codes, on its memory.", NULL},
    {"scales", NULL, "gpu.tensor", "The scales; nil when there are none.",
     NULL},
    {"tensor_scale", NULL, "gpu.tensor", "One scale of it all, or nil.", NULL},
    {"shape", NULL, "integer[]", "Of the values.", NULL},
    {"format", NULL, "string", "nf4, fp4, int8, …", NULL},
    {"block", NULL, "integer", "Values that share a scale.", NULL},
    {"double", NULL, "table", "codes, scales and offset of scales kept in 8 "
     "bits, or nil.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static const lh_function methods[] = {
    {"__index", quantized_index, "(self, key: string): any",
     "The fields below; absent ones are nil.", NULL},
    {"__tostring", quantized_tostring, "(self): string",
     "Format, shape, block and bytes.", NULL},
    {"bytes", quantized_bytes, "(self): integer",
     "Bytes of codes, scales and everything beside them.", NULL},
    {"dequantize", quantized_dequantize, "(self, dtype?: string): gpu.tensor",
     "The values that codes and scales stand for: f32, or rounded to dtype.",
     NULL},
    {"state", lh_quantized_state,
     "(self, name?: string, dtype?: string): "
     "table<string, gpu.tensor>, string",
     "The entries of bitsandbytes' state dict for a weight called name "
     "(\"weight\"), ready for gpu.save, and their JSON; dtype is what readers "
     "compute in (\"f32\"). For nf4 and fp4.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

const lh_class lh_quantized_class = {.name = "gpu.quantized",
                                      .methods = methods,
                                      .close = quantized_close};

/* --- the module ---------------------------------------------------------- */

static int quant_formats(lua_State *L) {
  lua_createtable(L, LK_FORMAT_COUNT, 0);
  for (int i = 0; i < LK_FORMAT_COUNT; i++) {
    const lk_format_info *f = &lk_formats[i];
    lua_createtable(L, 0, 5);
    lua_pushstring(L, f->word);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, lk_dtype_word(f->code));
    lua_setfield(L, -2, "codes");
    lua_pushstring(L, lk_dtype_word(f->scale));
    lua_setfield(L, -2, "scales");
    if (f->block) lua_pushinteger(L, f->block), lua_setfield(L, -2, "block");
    double shared = f->block
        ? (double)lk_dtype_bits(f->scale) / (double)f->block : 0;
    set_number(L, "bits", lk_dtype_bits(f->code) + shared);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static const lh_function functions[] = {
#define FORMAT(name, word, code, scale, block, per_tensor)            \
  {word, quant_##name,                                                \
   "(t: gpu.tensor, options?: table): gpu.quantized",                 \
   "Quantize a tensor to " word ": codes " #code ", scales " #scale   \
   ", " #block " values a scale (0: the whole tensor).", options},
#include "../../kernels/core/format.def"
#undef FORMAT
    {"error", quant_error, "(t: gpu.tensor, q: gpu.quantized): table",
     "How far q is from t: mse, relative (mse / mean square of t), max "
     "(largest difference), sqnr_db.", NULL},
    {"formats", quant_formats, "(): table[]",
     "Every format: name, codes and scales (dtypes), block (absent: the whole "
     "tensor), bits a value.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

int lh_open_quant(lua_State *L) {
  lh_class_new(L, &lh_quantized_class);
  lh_document(L, lh_quantized_class.name, field_docs);
  lua_newtable(L);
  lh_register(L, "gpu.quant", functions);
  return 1;
}
