/* bitsandbytes' state dict of a 4-bit weight P, so that others can read what
 * is written: P (U8 [(n + 1)/2, 1], first element in the high nibble), and
 * beside it P.absmax, P.quant_map, P.quant_state.bitsandbytes__<type>: JSON as
 * bytes. Source: bitsandbytes functional.py, QuantState.as_dict(packed). */
#ifndef LH_BITSANDBYTES_H
#define LH_BITSANDBYTES_H

#include "../../kernels/core/backend.h"

#define LH_BNB_ABSMAX ".absmax"
#define LH_BNB_MAP ".quant_map"
#define LH_BNB_NESTED_ABSMAX ".nested_absmax"
#define LH_BNB_NESTED_MAP ".nested_quant_map"
#define LH_BNB_STATE ".quant_state.bitsandbytes__" /* + "nf4" or "fp4" */

enum { LH_BNB_TEXT = 512, LH_BNB_NESTED_BLOCK = 256 };

/* What the JSON says. */
typedef struct lh_bnb_state {
  lk_format format;       /* NF4 or FP4 */
  int64_t block;
  lk_dtype dtype;         /* what readers compute in: f32, bf16, f16 */
  lk_shape shape;
  bool nested;            /* absmax is itself quantized, by blocks of 256 */
  float offset;           /* and this was subtracted before */
} lh_bnb_state;

/* The JSON's literal bytes; returns their number, without the ending NUL. */
int lh_bnb_text(const lh_bnb_state *state, char text[LH_BNB_TEXT]);

/* The 16 values of NF4 or FP4, by code. */
void lh_bnb_map(lk_format format, float map[16]);

/* The JSON `text` of tensor `name` stands for a weight like `state` (its dtype
 * aside, which is the reader's affair); LK_FORMAT says what differs. */
lk_status lh_bnb_check(const lh_bnb_state *state, const char *text,
                       int64_t size, const char *name, lk_error *error);

#endif
