/* bitsandbytes' state dict: the JSON beside a 4-bit weight, byte for byte. */
#include "bitsandbytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../kernels/base/codebook.h"
#include "../sys/json.h"

static const char *dtype_word(lk_dtype dtype) {
  return dtype == LK_BF16 ? "bfloat16" : dtype == LK_F16 ? "float16"
                                                         : "float32";
}

/* `x` as Python's repr() has it: the fewest digits that give it back, an
 * exponent below 1e-4 and from 1e16 on. */
static void python_number(double x, char text[40]) {
  int digits = 0;
  do snprintf(text, 40, "%.*e", digits, x);
  while (strtod(text, NULL) != x && digits++ < 16);
  int exponent = atoi(strchr(text, 'e') + 1);
  if (exponent < -4 || exponent >= 16) return;
  int decimals = digits - exponent;
  snprintf(text, 40, "%.*f", decimals > 1 ? decimals : 1, x);
}

int lh_bnb_text(const lh_bnb_state *s, char text[LH_BNB_TEXT]) {
  char shape[160], nested[128] = "";
  if (s->nested) {
    char offset[40];
    python_number(s->offset, offset);
    snprintf(nested, sizeof nested, ", \"nested_blocksize\": %d, "
             "\"nested_dtype\": \"float32\", \"nested_offset\": %s",
             LH_BNB_NESTED_BLOCK, offset);
  }
  return snprintf(text, LH_BNB_TEXT, "{\"quant_type\": \"%s\", \"blocksize\": "
                  "%lld, \"dtype\": \"%s\", \"shape\": %s%s}",
                  lk_formats[s->format].word, (long long)s->block,
                  dtype_word(s->dtype),
                  lk_shape_text(s->shape, shape, sizeof shape), nested);
}

void lh_bnb_map(lk_format format, float map[16]) {
  for (int i = 0; i < 16; i++)
    map[i] = format == LK_FORMAT_NF4 ? lk_nf4_value(i) : lk_fp4_value(i);
}

/* --- reading ------------------------------------------------------------- */

static bool is_shape(const lh_json *json, int64_t list, lk_shape shape) {
  if (list == 0 || json->node[list].type != LH_JSON_ARRAY) return false;
  int i = 0;
  int64_t value;
  for (int64_t n = json->node[list].first; n; n = json->node[n].next, i++)
    if (i >= shape.rank ||
        !lh_json_integer(json, n, shape.dim[i], shape.dim[i], &value))
      return false;
  return i == shape.rank;
}

/* What differs from `state`, or NULL. */
static const char *difference(const lh_bnb_state *s, const lh_json *json) {
  int64_t value;
  if (!lh_json_is(json, lh_json_member(json, 1, "quant_type"),
                  lk_formats[s->format].word))
    return "quant_type";
  if (!lh_json_integer(json, lh_json_member(json, 1, "blocksize"), s->block,
                       s->block, &value))
    return "blocksize";
  if (!is_shape(json, lh_json_member(json, 1, "shape"), s->shape))
    return "shape";
  if (lh_json_member(json, 1, "nested_blocksize")) return "nested_blocksize";
  return NULL;
}

lk_status lh_bnb_check(const lh_bnb_state *s, const char *text, int64_t size,
                       const char *name, lk_error *error) {
  lh_json json;
  char expected[LH_BNB_TEXT];
  lk_status status = lh_json_parse(text, size, name, &json, error);
  const char *what = status == LK_OK ? difference(s, &json) : NULL;
  lh_json_free(&json);
  if (what == NULL) return status;
  lh_bnb_text(s, expected);
  return lk_fail(error, LK_FORMAT, "%s: another %s: it is %.*s, the program "
                 "needs %s", name, what, (int)(size < 200 ? size : 200), text,
                 expected);
}
