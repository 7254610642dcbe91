/* q:state(): a quantized tensor as the entries of bitsandbytes' state dict. */
#include <stdio.h>

#include "../../kernels/base/codebook.h"
#include "bitsandbytes.h"
#include "quant.h"

/* Set entry `name .. suffix` of the table at 4 to the tensor on top, popped. */
static void set_entry(lua_State *L, const char *suffix) {
  lua_pushvalue(L, 2);
  lua_pushstring(L, suffix);
  lua_concat(L, 2);
  lua_insert(L, -2);
  lua_settable(L, 4);
}

static void set_values(lua_State *L, const lh_quantized *q, const char *suffix,
                       lk_dtype dtype, const void *data, int64_t count) {
  lh_tensor *t = lh_tensor_new(L, q->context, dtype, lk_shape_of(count));
  lh_tensor_upload(L, t, data);
  set_entry(L, suffix);
}

static void set_codes(lua_State *L, const lh_quantized *q) {
  int64_t bytes = lk_tensor_bytes(&q->part[LH_CODES].t);
  lk_tensor packed = {.data = q->part[LH_CODES].t.data, .dtype = LK_U8,
                      .shape = lk_shape_of(bytes, 1)};
  lh_tensor_on(L, q->context, q->part[LH_CODES].storage, packed);
  set_entry(L, "");
}

static void set_scales(lua_State *L, const lh_quantized *q) {
  if (!q->doubled) {
    lh_quantized_push(L, q, LH_SCALES);
    set_entry(L, LH_BNB_ABSMAX);
    return;
  }
  float map[256];
  lk_dynamic_map(map);
  lh_quantized_push(L, q, LH_DOUBLE_CODES);
  set_entry(L, LH_BNB_ABSMAX);
  lh_quantized_push(L, q, LH_DOUBLE_SCALES);
  set_entry(L, LH_BNB_NESTED_ABSMAX);
  set_values(L, q, LH_BNB_NESTED_MAP, LK_F32, map, 256);
}

/* The dtype that readers compute in, by its word at `index`. */
static lk_dtype check_compute(lua_State *L, int index) {
  const char *word = luaL_optstring(L, index, "f32");
  lk_dtype dtype = lh_check_dtype(L, word, "state");
  if (dtype != LK_F32 && dtype != LK_BF16 && dtype != LK_F16)
    lh_raise(L, LK_DTYPE, "state: dtype is %s, needs f32, bf16 or f16", word);
  return dtype;
}

/* The block of nf4 and fp4, as asked for or their own. */
static int64_t block_of(const lh_quantized *q) {
  return lk_format_block(q->format, q->block, lk_shape_count(q->shape));
}

/* q:state(name?, dtype?): stack 1 q, 2 name, 3 dtype, 4 the entries. */
int lh_quantized_state(lua_State *L) {
  char text[LH_BNB_TEXT], suffix[64];
  float map[16], offset = 0;
  const lh_quantized *q = lh_quantized_check(L, 1);
  if (!lh_is_bitsandbytes(q->format))
    lh_raise(L, LK_ARGUMENT, "state: bitsandbytes has no state dict for %s, "
             "only for nf4 and fp4", lk_formats[q->format].word);
  lua_settop(L, 3);
  luaL_optstring(L, 2, "weight");
  if (lua_isnil(L, 2)) lua_pushstring(L, "weight"), lua_replace(L, 2);
  lk_dtype dtype = check_compute(L, 3);
  lua_newtable(L);
  set_codes(L, q);
  set_scales(L, q);
  lh_bnb_map(q->format, map);
  set_values(L, q, LH_BNB_MAP, LK_F32, map, 16);
  if (q->doubled) {
    lh_quantized_push(L, q, LH_OFFSET);
    lh_tensor_download(L, lh_tensor_check(L, -1), &offset);
    lua_pop(L, 1);
  }
  int size = lh_bnb_text(
      &(lh_bnb_state){q->format, block_of(q), dtype, q->shape, q->doubled,
                      offset}, text);
  snprintf(suffix, sizeof suffix, "%s%s", LH_BNB_STATE,
           lk_formats[q->format].word);
  set_values(L, q, suffix, LK_U8, text, size);
  lua_pushlstring(L, text, (size_t)size);
  return 2;
}
