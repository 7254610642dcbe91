/* Rules: quantized formats and NF4R. */
#include <inttypes.h>

#include "rules.h"

static const char *op_name(const lk_call *call) {
  return lk_op_info_of(call->op)->name;
}

static lk_status check_block(const lk_call *call, int64_t block,
                             lk_error *error) {
  if (block >= 8 && block <= 4096 && block % 8 == 0) return LK_OK;
  return lk_fail(error, LK_ARGUMENT, "%s: block is %" PRId64
                 ", needs a multiple of 8 up to 4096", op_name(call), block);
}

/* `format` is one of the list and `block` one that it can have. */
static lk_status check_format(const lk_call *call, lk_error *error) {
  int64_t format = call->attr.format, block = call->attr.block;
  if (format < 0 || format >= LK_FORMAT_COUNT)
    return lk_fail(error, LK_ARGUMENT, "%s: there is no format %" PRId64,
                   op_name(call), format);
  const lk_format_info *info = &lk_formats[format];
  bool fixed = format == LK_FORMAT_NVFP4 || format == LK_FORMAT_MXFP4;
  if (fixed && block != 0 && block != info->block)
    return lk_fail(error, LK_ARGUMENT,
                   "%s: block is %" PRId64 ", %s needs %" PRId64,
                   op_name(call), block, info->word, info->block);
  bool row = format == LK_FORMAT_E4M3 && block >= 8 && block % 8 == 0;
  return block == 0 || row ? LK_OK : check_block(call, block, error);
}

/* The number of scales of `count` values. */
static int64_t scale_count(const lk_attr *attr, int64_t count) {
  int64_t block = lk_format_block(attr->format, attr->block, count);
  return (count + block - 1) / block;
}

/* Formats whose scale is a plain f32 per block can have it searched. */
static lk_status check_search(const lk_call *call, lk_error *error) {
  lk_format format = (lk_format)call->attr.format;
  bool can = format == LK_FORMAT_NF4 || format == LK_FORMAT_FP4 ||
             format == LK_FORMAT_INT8 || format == LK_FORMAT_INT4;
  if (!call->attr.search || can) return LK_OK;
  return lk_fail(error, LK_ARGUMENT, "quantize: search is not for %s",
                 lk_formats[format].word);
}

LK_RULE(rule_quantize) {
  const lk_tensor *x = &call->in[0];
  LK_TRY(lk_need_float(profile, call, 0, error));
  LK_TRY(check_format(call, error));
  LK_TRY(check_search(call, error));
  const lk_format_info *info = &lk_formats[call->attr.format];
  int64_t scales = scale_count(&call->attr, lk_tensor_count(x));
  LK_TRY(lk_give(call, 0, info->code, x->shape, error));
  LK_TRY(lk_give(call, 1, info->scale, lk_shape_of(scales), error));
  if (info->per_tensor)
    return lk_give(call, 2, LK_F32, lk_shape_of(1), error);
  if (!lk_present(&call->out[2])) return LK_OK;
  return lk_fail(error, LK_ARGUMENT, "quantize: %s has no tscale",
                 info->word);
}

/* Result y has as many values as input `codes`. */
static lk_status check_decoded(const lk_call *call, lk_error *error) {
  int64_t codes = lk_tensor_count(&call->in[0]);
  char text[128];
  LK_TRY(lk_need_result(call, 0, error));
  if (lk_tensor_count(&call->out[0]) == codes) return LK_OK;
  return lk_fail(error, LK_SHAPE, "%s: %s has shape %s, there are %" PRId64
                 " codes", op_name(call),
                 lk_op_info_of(call->op)->result[0].name,
                 lk_shape_text(call->out[0].shape, text, sizeof text), codes);
}

LK_RULE(rule_dequantize) {
  int64_t count = lk_tensor_count(&call->in[0]);
  LK_TRY(check_format(call, error));
  LK_TRY(check_decoded(call, error));
  const lk_format_info *info = &lk_formats[call->attr.format];
  LK_TRY(lk_need_dtype(call, 0, info->code, error));
  LK_TRY(lk_need_dtype(call, 1, info->scale, error));
  lk_shape scales = lk_shape_of(scale_count(&call->attr, count));
  LK_TRY(lk_need_shape(call, 1, scales, 0, error));
  if (info->per_tensor != lk_present(&call->in[2]))
    return lk_fail(error, LK_ARGUMENT, "dequantize: %s %s", info->word,
                   info->per_tensor ? "needs tscale" : "has no tscale");
  if (info->per_tensor) {
    LK_TRY(lk_need_dtype(call, 2, LK_F32, error));
    LK_TRY(lk_need_shape(call, 2, lk_shape_of(1), 0, error));
  }
  cost->flops = (double)count;
  return lk_result_float(profile, call, 0, error);
}

/* codes, absmax and residual of NF4R, results from 0 on, for `count` values
 * of shape `shape`; codes and residual may have another shape. */
static lk_status give_nf4r(lk_call *call, lk_shape shape, lk_error *error) {
  LK_TRY(check_block(call, call->attr.block, error));
  int64_t count = lk_shape_count(shape);
  int64_t blocks = (count + call->attr.block - 1) / call->attr.block;
  LK_TRY(lk_give(call, 0, LK_U4, shape, error));
  LK_TRY(lk_give(call, 1, LK_F32, lk_shape_of(blocks), error));
  if (!lk_present(&call->out[2])) return LK_OK;
  return lk_give(call, 2, LK_I8, shape, error);
}

LK_RULE(rule_nf4r_encode) {
  LK_TRY(lk_need_dtype(call, 0, LK_F32, error));
  LK_TRY(lk_need_clock(call, 1, error));
  cost->flops = 8 * lk_count_of(&call->in[0]);
  return give_nf4r(call, call->in[0].shape, error);
}

LK_RULE(rule_nf4r_master) {
  int64_t block = call->attr.block;
  LK_TRY(check_block(call, block, error));
  LK_TRY(lk_need_dtype(call, 0, LK_U4, error));
  LK_TRY(lk_need_dtype(call, 1, LK_F32, error));
  LK_TRY(check_decoded(call, error));
  int64_t count = lk_tensor_count(&call->in[0]);
  lk_shape blocks = lk_shape_of((count + block - 1) / block);
  LK_TRY(lk_need_shape(call, 1, blocks, 0, error));
  if (lk_present(&call->in[2])) {
    LK_TRY(lk_need_dtype(call, 2, LK_I8, error));
    LK_TRY(lk_need_shape(call, 2, call->in[0].shape, 0, error));
  }
  cost->flops = 4 * (double)count;
  return lk_give(call, 0, LK_F32, call->out[0].shape, error);
}

LK_RULE(rule_nf4r_update) {
  LK_TRY(lk_need_gradient(call, 0, error));
  LK_TRY(lk_need_control(call, 1, error));
  LK_TRY(lk_need_clock(call, 2, error));
  cost->flops = 16 * lk_count_of(&call->in[0]);
  return give_nf4r(call, call->in[0].shape, error);
}

/* --- e4m3 by rows -------------------------------------------------------- */

/* Codes and scales of x [R, C], or of its transpose. */
static lk_status give_rows(lk_call *call, bool turned, lk_error *error) {
  const lk_tensor *x = &call->in[0];
  char text[128];
  LK_TRY(lk_need_rank(call, 0, 2, error));
  int64_t rows = x->shape.dim[0], cols = x->shape.dim[1];
  if (cols % 16 != 0 || (turned && rows % 16 != 0))
    return lk_fail(error, LK_SHAPE, "%s: %s has shape %s, needs multiples of "
                   "16", op_name(call), lk_op_info_of(call->op)->input[0].name,
                   lk_shape_text(x->shape, text, sizeof text));
  lk_shape shape = turned ? lk_shape_of(cols, rows) : x->shape;
  LK_TRY(lk_give(call, 0, LK_E4M3, shape, error));
  return lk_give(call, 1, LK_F32, lk_shape_of(shape.dim[0]), error);
}

LK_RULE(rule_e4m3_turn) {
  LK_TRY(lk_need_float(profile, call, 0, error));
  return give_rows(call, true, error);
}

LK_RULE(rule_e4m3_from_nf4) {
  int64_t block = call->attr.block;
  LK_TRY(check_block(call, block, error));
  LK_TRY(lk_need_dtype(call, 0, LK_U4, error));
  LK_TRY(lk_need_dtype(call, 1, LK_F32, error));
  int64_t count = lk_tensor_count(&call->in[0]);
  lk_shape blocks = lk_shape_of((count + block - 1) / block);
  LK_TRY(lk_need_shape(call, 1, blocks, 0, error));
  return give_rows(call, call->attr.transpose_a, error);
}
