/* Rules: arithmetic by element, reductions, softmax. */
#include "rules.h"

/* --- two operands --------------------------------------------------------- */

static lk_status binary(const lk_profile *profile, lk_call *call,
                        lk_cost *cost, lk_error *error) {
  const lk_tensor *a = &call->in[0], *b = &call->in[1];
  const char *op = lk_op_info_of(call->op)->name;
  char left[128], right[128];
  lk_shape shape;
  LK_TRY(lk_need_float(profile, call, 0, error));
  if (a->dtype != b->dtype)
    return lk_fail(error, LK_DTYPE, "%s: a is %s, b is %s", op,
                   lk_dtype_word(a->dtype), lk_dtype_word(b->dtype));
  if (!lk_shape_broadcast(a->shape, b->shape, &shape))
    return lk_fail(error, LK_SHAPE,
                   "%s: shapes %s of a and %s of b do not fit together", op,
                   lk_shape_text(a->shape, left, sizeof left),
                   lk_shape_text(b->shape, right, sizeof right));
  LK_TRY(lk_give(call, 0, a->dtype, shape, error));
  cost->flops = lk_count_of(&call->out[0]);
  return LK_OK;
}

LK_RULE(rule_add) { return binary(profile, call, cost, error); }
LK_RULE(rule_sub) { return binary(profile, call, cost, error); }
LK_RULE(rule_mul) { return binary(profile, call, cost, error); }
LK_RULE(rule_div) { return binary(profile, call, cost, error); }

/* --- one operand ---------------------------------------------------------- */

/* y like x; `flops` an element. */
static lk_status unary(const lk_profile *profile, lk_call *call,
                       lk_cost *cost, double flops, lk_error *error) {
  const lk_tensor *x = &call->in[0];
  LK_TRY(lk_need_float(profile, call, 0, error));
  LK_TRY(lk_give(call, 0, x->dtype, x->shape, error));
  cost->flops = flops * lk_count_of(x);
  return LK_OK;
}

LK_RULE(rule_affine) { return unary(profile, call, cost, 2, error); }
LK_RULE(rule_pow) { return unary(profile, call, cost, 1, error); }
LK_RULE(rule_exp) { return unary(profile, call, cost, 1, error); }
LK_RULE(rule_log) { return unary(profile, call, cost, 1, error); }
LK_RULE(rule_sqrt) { return unary(profile, call, cost, 1, error); }
LK_RULE(rule_tanh) { return unary(profile, call, cost, 1, error); }
LK_RULE(rule_sigmoid) { return unary(profile, call, cost, 3, error); }
LK_RULE(rule_relu) { return unary(profile, call, cost, 1, error); }

LK_RULE(rule_relu_backward) {
  LK_TRY(lk_need_same(call, 1, 0, error));
  return unary(profile, call, cost, 1, error);
}

/* --- reductions ----------------------------------------------------------- */

/* x's shape without `dim` (-1: without any), or with 1 there if `keep`. */
static lk_shape reduced_shape(lk_shape x, int64_t dim, bool keep) {
  lk_shape y = {.rank = 0};
  for (int i = 0; i < x.rank; i++) {
    bool gone = dim == -1 || i == dim;
    if (!gone || keep) y.dim[y.rank++] = gone ? 1 : x.dim[i];
  }
  return y;
}

static lk_status reduction(const lk_profile *profile, lk_call *call,
                           lk_cost *cost, lk_dtype dtype, lk_error *error) {
  const lk_tensor *x = &call->in[0];
  const lk_attr *attr = &call->attr;
  LK_TRY(lk_need_float(profile, call, 0, error));
  if (attr->dim != -1) LK_TRY(lk_need_dim(call, "dim", attr->dim, 0, error));
  cost->flops = lk_count_of(x);
  return lk_give(call, 0, dtype,
                 reduced_shape(x->shape, attr->dim, attr->keep), error);
}

LK_RULE(rule_sum) {
  return reduction(profile, call, cost, call->in[0].dtype, error);
}
LK_RULE(rule_mean) {
  return reduction(profile, call, cost, call->in[0].dtype, error);
}
LK_RULE(rule_max) {
  return reduction(profile, call, cost, call->in[0].dtype, error);
}
LK_RULE(rule_min) {
  return reduction(profile, call, cost, call->in[0].dtype, error);
}
LK_RULE(rule_argmax) {
  return reduction(profile, call, cost, LK_I32, error);
}

/* `narrow` broadcasts to `wide`, or the message says so. */
static lk_status broadcasts(const lk_call *call, const lk_tensor *narrow,
                            const lk_tensor *wide, lk_error *error) {
  const lk_op_info *info = lk_op_info_of(call->op);
  char x[128], y[128];
  lk_shape shape;
  if (lk_shape_broadcast(narrow->shape, wide->shape, &shape) &&
      lk_shape_equal(shape, wide->shape))
    return LK_OK;
  return lk_fail(error, LK_SHAPE, "%s: %s cannot go from %s to %s",
                 info->name, info->input[0].name,
                 lk_shape_text(call->in[0].shape, x, sizeof x),
                 lk_shape_text(call->out[0].shape, y, sizeof y));
}

LK_RULE(rule_sum_to) {
  LK_TRY(lk_need_float(profile, call, 0, error));
  LK_TRY(lk_need_result(call, 0, error));
  LK_TRY(broadcasts(call, &call->out[0], &call->in[0], error));
  cost->flops = lk_count_of(&call->in[0]);
  return lk_give(call, 0, call->in[0].dtype, call->out[0].shape, error);
}

LK_RULE(rule_broadcast) {
  LK_TRY(lk_need_float(profile, call, 0, error));
  LK_TRY(lk_need_result(call, 0, error));
  LK_TRY(broadcasts(call, &call->in[0], &call->out[0], error));
  return lk_give(call, 0, call->in[0].dtype, call->out[0].shape, error);
}

/* --- softmax -------------------------------------------------------------- */

LK_RULE(rule_softmax) {
  const lk_tensor *x = &call->in[0];
  int rank = x->shape.rank;
  char text[128];
  LK_TRY(lk_need_dim(call, "the last dimension", rank - 1, 0, error));
  bool square = rank >= 2 && x->shape.dim[rank - 1] == x->shape.dim[rank - 2];
  if (call->attr.causal && !square)
    return lk_fail(error, LK_SHAPE,
                   "softmax: x has shape %s, causal needs [.., T, T]",
                   lk_shape_text(x->shape, text, sizeof text));
  return unary(profile, call, cost, 4, error);
}

LK_RULE(rule_softmax_backward) {
  int rank = call->in[0].shape.rank;
  LK_TRY(lk_need_dim(call, "the last dimension", rank - 1, 0, error));
  LK_TRY(lk_need_same(call, 1, 0, error));
  return unary(profile, call, cost, 4, error);
}
