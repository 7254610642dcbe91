/* Rules: moving, cutting, converting and making tensors. */
#include <inttypes.h>

#include "rules.h"

/* Elements that can be moved one by one. */
static lk_status need_bytes(const lk_call *call, const char *name,
                            lk_dtype dtype, lk_error *error) {
  if (lk_dtype_bits(dtype) >= 8) return LK_OK;
  return lk_fail(error, LK_DTYPE, "%s: %s is %s, needs a dtype of whole bytes",
                 lk_op_info_of(call->op)->name, name, lk_dtype_word(dtype));
}

LK_RULE(rule_reshape) {
  const lk_tensor *x = &call->in[0], *y = &call->out[0];
  char from[128], to[128];
  LK_TRY(lk_need_result(call, 0, error));
  if (lk_tensor_count(x) != lk_tensor_count(y))
    return lk_fail(error, LK_SHAPE,
                   "reshape: x %s has %" PRId64 " elements, y %s needs %"
                   PRId64,
                   lk_shape_text(x->shape, from, sizeof from),
                   lk_tensor_count(x), lk_shape_text(y->shape, to, sizeof to),
                   lk_tensor_count(y));
  return lk_give(call, 0, x->dtype, y->shape, error);
}

LK_RULE(rule_transpose) {
  const lk_tensor *x = &call->in[0];
  const lk_attr *attr = &call->attr;
  LK_TRY(need_bytes(call, "x", x->dtype, error));
  LK_TRY(lk_need_dim(call, "dim", attr->dim, 0, error));
  LK_TRY(lk_need_dim(call, "other", attr->other, 0, error));
  lk_shape shape = x->shape;
  shape.dim[attr->dim] = x->shape.dim[attr->other];
  shape.dim[attr->other] = x->shape.dim[attr->dim];
  return lk_give(call, 0, x->dtype, shape, error);
}

/* `part` is `whole` but for dimension dim, where it has the entries from
 * `first` on. */
static lk_status check_part(const lk_call *call, lk_shape whole,
                            lk_shape part, lk_error *error) {
  int64_t dim = call->attr.dim, first = call->attr.first;
  char has[128], of[128];
  bool fits = part.rank == whole.rank && first >= 0 && dim < part.rank &&
              part.dim[dim] <= whole.dim[dim] &&
              first <= whole.dim[dim] - part.dim[dim];
  for (int i = 0; i < part.rank && fits; i++)
    fits = i == dim || part.dim[i] == whole.dim[i];
  if (fits) return LK_OK;
  return lk_fail(error, LK_SHAPE,
                 "%s: %s is no part of %s along dimension %" PRId64
                 " from %" PRId64 " on", lk_op_info_of(call->op)->name,
                 lk_shape_text(part, has, sizeof has),
                 lk_shape_text(whole, of, sizeof of), dim, first);
}

LK_RULE(rule_slice) {
  const lk_tensor *x = &call->in[0];
  LK_TRY(need_bytes(call, "x", x->dtype, error));
  LK_TRY(lk_need_result(call, 0, error));
  LK_TRY(lk_need_dim(call, "dim", call->attr.dim, 0, error));
  LK_TRY(check_part(call, x->shape, call->out[0].shape, error));
  cost->bytes = 2.0 * (double)lk_tensor_bytes(&call->out[0]);
  return lk_give(call, 0, x->dtype, call->out[0].shape, error);
}

LK_RULE(rule_unslice) {
  const lk_tensor *x = &call->in[0];
  LK_TRY(need_bytes(call, "x", x->dtype, error));
  LK_TRY(lk_need_result(call, 0, error));
  LK_TRY(lk_need_dim(call, "dim", call->attr.dim, 0, error));
  LK_TRY(check_part(call, call->out[0].shape, x->shape, error));
  return lk_give(call, 0, x->dtype, call->out[0].shape, error);
}

LK_RULE(rule_cat) {
  const lk_tensor *a = &call->in[0], *b = &call->in[1];
  int64_t dim = call->attr.dim;
  LK_TRY(need_bytes(call, "a", a->dtype, error));
  LK_TRY(lk_need_dim(call, "dim", dim, 0, error));
  LK_TRY(lk_need_rank(call, 1, a->shape.rank, error));
  lk_shape needed = a->shape;
  needed.dim[dim] = b->shape.dim[dim];
  LK_TRY(lk_need_shape(call, 1, needed, 0, error));
  LK_TRY(lk_need_dtype(call, 1, a->dtype, error));
  needed.dim[dim] = a->shape.dim[dim] + b->shape.dim[dim];
  return lk_give(call, 0, a->dtype, needed, error);
}

LK_RULE(rule_cast) {
  const lk_tensor *x = &call->in[0], *y = &call->out[0];
  LK_TRY(lk_need_result(call, 0, error));
  if (!lk_dtype_is_float(x->dtype) || !lk_dtype_is_float(y->dtype))
    return lk_fail(error, LK_DTYPE, "cast: from %s to %s, needs floats",
                   lk_dtype_word(x->dtype), lk_dtype_word(y->dtype));
  return lk_give(call, 0, y->dtype, x->shape, error);
}

LK_RULE(rule_copy) {
  return lk_give(call, 0, call->in[0].dtype, call->in[0].shape, error);
}

LK_RULE(rule_fill) {
  LK_TRY(lk_need_result(call, 0, error));
  return need_bytes(call, "y", call->out[0].dtype, error);
}

LK_RULE(rule_arange) {
  LK_TRY(lk_need_result(call, 0, error));
  if (call->out[0].dtype != LK_I32)
    LK_TRY(lk_result_float(profile, call, 0, error));
  return lk_give(call, 0, call->out[0].dtype,
                 lk_shape_of(lk_tensor_count(&call->out[0])), error);
}

LK_RULE(rule_randn) {
  LK_TRY(lk_need_clock(call, 0, error));
  LK_TRY(lk_need_result(call, 0, error));
  return lk_result_float(profile, call, 0, error);
}
