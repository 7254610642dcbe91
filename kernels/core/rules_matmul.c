/* Rules: matrix products and biases. */
#include <string.h>

#include "rules.h"

/* The last two dimensions of op(t). */
typedef struct matrix {
  int64_t rows, cols;
} matrix;

static matrix matrix_of(const lk_tensor *t, bool transpose) {
  int rank = t->shape.rank;
  matrix m = {t->shape.dim[rank - 2], t->shape.dim[rank - 1]};
  return transpose ? (matrix){m.cols, m.rows} : m;
}

static lk_status misfit(const lk_call *call, const char *why,
                        lk_error *error) {
  const lk_tensor *a = &call->in[0], *b = &call->in[1];
  char left[128], right[128];
  return lk_fail(error, LK_SHAPE, "matmul: a %s%s and b %s%s %s",
                 lk_shape_text(a->shape, left, sizeof left),
                 call->attr.transpose_a ? " transposed" : "",
                 lk_shape_text(b->shape, right, sizeof right),
                 call->attr.transpose_b ? " transposed" : "", why);
}

/* The leading dimensions are equal, or b has none and a's are rows. */
static lk_status check_batch(const lk_call *call, lk_error *error) {
  const lk_tensor *a = &call->in[0], *b = &call->in[1];
  int rank = a->shape.rank;
  if (rank < 2 || b->shape.rank < 2)
    return misfit(call, "need at least 2 dimensions each", error);
  if (b->shape.rank == 2) {
    if (rank == 2 || !call->attr.transpose_a) return LK_OK;
    return misfit(call, "need equal leading dimensions", error);
  }
  bool equal = rank == b->shape.rank;
  for (int i = 0; i < rank - 2 && equal; i++)
    equal = a->shape.dim[i] == b->shape.dim[i];
  return equal ? LK_OK : misfit(call, "need equal leading dimensions", error);
}

/* Products are written as f32 or bf16, on other backends than the CPU also as
 * f16, and there from f16 not as bf16. */
static lk_status check_product(const lk_profile *profile, const lk_call *call,
                               lk_error *error) {
  if (call->in[0].dtype == LK_F16 && call->out[0].dtype == LK_BF16)
    return lk_fail(error, LK_DTYPE, "matmul: of f16 no product is bf16, needs "
                   "f16 or f32");
  bool half = call->out[0].dtype == LK_F16 &&
              strcmp(profile->backend, "cpu") != 0;
  return half ? LK_OK : lk_result_gradient(call, 0, error);
}

/* 2·M·N·Q a matrix. */
LK_RULE(rule_matmul) {
  const lk_tensor *a = &call->in[0], *b = &call->in[1];
  LK_TRY(lk_need_float(profile, call, 0, error));
  LK_TRY(lk_need_dtype(call, 1, a->dtype, error));
  LK_TRY(check_batch(call, error));
  matrix left = matrix_of(a, call->attr.transpose_a);
  matrix right = matrix_of(b, call->attr.transpose_b);
  if (left.cols != right.rows)
    return misfit(call, "do not fit together", error);
  lk_shape shape = a->shape;
  shape.dim[shape.rank - 2] = left.rows;
  shape.dim[shape.rank - 1] = right.cols;
  LK_TRY(lk_give_shape(call, 0, a->dtype, shape, error));
  cost->flops = 2.0 * lk_count_of(&call->out[0]) * (double)left.cols;
  return check_product(profile, call, error);
}

/* Input `i`, a matrix of codes, and `i` + 1, its rows' scales. */
static lk_status check_codes(const lk_call *call, int i, lk_error *error) {
  const int64_t *dim = call->in[i].shape.dim;
  char text[128];
  LK_TRY(lk_need_dtype(call, i, LK_E4M3, error));
  LK_TRY(lk_need_rank(call, i, 2, error));
  LK_TRY(lk_need_dtype(call, i + 1, LK_F32, error));
  LK_TRY(lk_need_shape(call, i + 1, lk_shape_of(dim[0]), i, error));
  if (dim[0] % 16 == 0 && dim[1] % 16 == 0) return LK_OK;
  return lk_fail(error, LK_SHAPE, "e4m3_matmul: %s has shape %s, needs "
                 "multiples of 16", lk_op_info_of(call->op)->input[i].name,
                 lk_shape_text(call->in[i].shape, text, sizeof text));
}

LK_RULE(rule_e4m3_matmul) {
  const lk_tensor *a = &call->in[0], *b = &call->in[2];
  char left[128], right[128];
  LK_TRY(check_codes(call, 0, error));
  LK_TRY(check_codes(call, 2, error));
  if (lk_columns(a) != lk_columns(b))
    return lk_fail(error, LK_SHAPE, "e4m3_matmul: rows of a %s and b %s "
                   "differ in length",
                   lk_shape_text(a->shape, left, sizeof left),
                   lk_shape_text(b->shape, right, sizeof right));
  lk_shape shape = lk_shape_of(a->shape.dim[0], b->shape.dim[0]);
  LK_TRY(lk_give_shape(call, 0, LK_F32, shape, error));
  cost->flops = 2.0 * lk_count_of(a) * (double)shape.dim[1];
  return lk_result_float(profile, call, 0, error);
}

/* Input `i`, an NVFP4 matrix, with its scales and factor after it. */
static lk_status check_nvfp4(const lk_call *call, int i, lk_error *error) {
  const lk_tensor *t = &call->in[i];
  char text[128];
  LK_TRY(lk_need_dtype(call, i, LK_U4, error));
  LK_TRY(lk_need_rank(call, i, 2, error));
  if (t->shape.dim[0] % 16 != 0 || t->shape.dim[1] % 32 != 0)
    return lk_fail(error, LK_SHAPE, "nvfp4_matmul: %s has shape %s, needs "
                   "multiples of 16 and 32",
                   lk_op_info_of(call->op)->input[i].name,
                   lk_shape_text(t->shape, text, sizeof text));
  LK_TRY(lk_need_dtype(call, i + 1, LK_E4M3, error));
  lk_shape scales = lk_shape_of(lk_tensor_count(t) / 16);
  LK_TRY(lk_need_shape(call, i + 1, scales, i, error));
  LK_TRY(lk_need_dtype(call, i + 2, LK_F32, error));
  return lk_need_shape(call, i + 2, lk_shape_of(1), i, error);
}

LK_RULE(rule_nvfp4_matmul) {
  const lk_tensor *a = &call->in[0], *b = &call->in[3];
  char left[128], right[128];
  LK_TRY(check_nvfp4(call, 0, error));
  LK_TRY(check_nvfp4(call, 3, error));
  if (lk_columns(a) != lk_columns(b))
    return lk_fail(error, LK_SHAPE, "nvfp4_matmul: rows of a %s and b %s "
                   "differ in length",
                   lk_shape_text(a->shape, left, sizeof left),
                   lk_shape_text(b->shape, right, sizeof right));
  lk_shape shape = lk_shape_of(a->shape.dim[0], b->shape.dim[0]);
  LK_TRY(lk_give_shape(call, 0, LK_F32, shape, error));
  cost->flops = 2.0 * lk_count_of(a) * (double)shape.dim[1];
  return lk_result_gradient(call, 0, error);
}

LK_RULE(rule_bias) {
  const lk_tensor *x = &call->in[0];
  LK_TRY(lk_need_float(profile, call, 0, error));
  LK_TRY(lk_need_float(profile, call, 1, error));
  LK_TRY(lk_need_shape(call, 1, lk_shape_of(lk_columns(x)), 0, error));
  cost->flops = lk_count_of(x);
  return lk_give(call, 0, x->dtype, x->shape, error);
}

LK_RULE(rule_bias_backward) {
  const lk_tensor *dy = &call->in[0];
  LK_TRY(lk_need_float(profile, call, 0, error));
  cost->flops = lk_count_of(dy);
  return lk_give(call, 0, LK_F32, lk_shape_of(lk_columns(dy)), error);
}
