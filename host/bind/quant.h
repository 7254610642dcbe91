/* What the files of gpu.quant share: a quantized tensor and its parts. */
#ifndef LH_QUANT_H
#define LH_QUANT_H

#include "gpu.h"

typedef enum lh_quantized_name {
  LH_CODES, LH_SCALES, LH_TENSOR_SCALE, /* what dequantize takes */
  LH_DOUBLE_CODES, LH_DOUBLE_SCALES,    /* instead of LH_SCALES, */
  LH_OFFSET,                            /* when doubled */
  LH_QUANTIZED_PARTS
} lh_quantized_name;

typedef struct lh_quantized {
  lk_context *context;
  lk_format format;
  int64_t block;       /* as asked for; 0: the format's own */
  bool doubled;
  lk_shape shape;      /* of what was quantized */
  struct lh_quantized_part {
    lk_tensor t;
    lk_storage *storage; /* NULL: absent */
  } part[LH_QUANTIZED_PARTS];
} lh_quantized;
extern const lh_class lh_quantized_class;

lh_quantized *lh_quantized_check(lua_State *L, int index);
/* Push a part as a tensor on the same memory; nil when absent. */
void lh_quantized_push(lua_State *L, const lh_quantized *q,
                       lh_quantized_name part);
/* Does bitsandbytes know the format? */
bool lh_is_bitsandbytes(lk_format format);

/* q:state(name?, dtype?) */
int lh_quantized_state(lua_State *L);

#endif
