/* The small checks that rules are made of. */
#include "rules.h"

#include <inttypes.h>
#include <string.h>

static const char *op_name(const lk_call *call) {
  return lk_op_info_of(call->op)->name;
}

static const char *input_name(const lk_call *call, int i) {
  return lk_op_info_of(call->op)->input[i].name;
}

static const char *result_name(const lk_call *call, int r) {
  return lk_op_info_of(call->op)->result[r].name;
}

lk_status lk_need_shape(const lk_call *call, int i, lk_shape shape,
                        int because, lk_error *error) {
  char has[128], from[128], needs[128];
  if (lk_shape_equal(call->in[i].shape, shape)) return LK_OK;
  return lk_fail(error, LK_SHAPE, "%s: %s has shape %s, %s %s needs %s",
                 op_name(call), input_name(call, i),
                 lk_shape_text(call->in[i].shape, has, sizeof has),
                 input_name(call, because),
                 lk_shape_text(call->in[because].shape, from, sizeof from),
                 lk_shape_text(shape, needs, sizeof needs));
}

lk_status lk_need_same(const lk_call *call, int i, int because,
                       lk_error *error) {
  LK_TRY(lk_need_shape(call, i, call->in[because].shape, because, error));
  if (call->in[i].dtype == call->in[because].dtype) return LK_OK;
  return lk_fail(error, LK_DTYPE, "%s: %s is %s, %s is %s", op_name(call),
                 input_name(call, i), lk_dtype_word(call->in[i].dtype),
                 input_name(call, because),
                 lk_dtype_word(call->in[because].dtype));
}

static lk_status wrong_dtype(const lk_call *call, const char *name,
                             lk_dtype dtype, const char *needs,
                             lk_error *error) {
  return lk_fail(error, LK_DTYPE, "%s: %s is %s, needs %s", op_name(call),
                 name, lk_dtype_word(dtype), needs);
}

lk_status lk_need_dtype(const lk_call *call, int i, lk_dtype dtype,
                        lk_error *error) {
  if (call->in[i].dtype == dtype) return LK_OK;
  return wrong_dtype(call, input_name(call, i), call->in[i].dtype,
                     lk_dtype_word(dtype), error);
}

static bool is_cpu(const lk_profile *profile) {
  return strcmp(profile->backend, "cpu") == 0;
}

static lk_status need_float(const lk_profile *profile, const lk_call *call,
                            const char *name, lk_dtype dtype,
                            lk_error *error) {
  bool half = dtype == LK_BF16 || dtype == LK_F16;
  if (dtype == LK_F32 || (half && !is_cpu(profile))) return LK_OK;
  return wrong_dtype(call, name, dtype,
                     is_cpu(profile) ? "f32 on the CPU" : "f32, bf16 or f16",
                     error);
}

lk_status lk_need_float(const lk_profile *profile, const lk_call *call, int i,
                        lk_error *error) {
  return need_float(profile, call, input_name(call, i), call->in[i].dtype,
                    error);
}

lk_status lk_result_float(const lk_profile *profile, const lk_call *call,
                          int r, lk_error *error) {
  return need_float(profile, call, result_name(call, r), call->out[r].dtype,
                    error);
}

static lk_status need_gradient(const lk_call *call, const char *name,
                               lk_dtype dtype, lk_error *error) {
  if (dtype == LK_F32 || dtype == LK_BF16) return LK_OK;
  return wrong_dtype(call, name, dtype, "f32 or bf16", error);
}

lk_status lk_need_gradient(const lk_call *call, int i, lk_error *error) {
  return need_gradient(call, input_name(call, i), call->in[i].dtype, error);
}

lk_status lk_result_gradient(const lk_call *call, int r, lk_error *error) {
  return need_gradient(call, result_name(call, r), call->out[r].dtype, error);
}

lk_status lk_need_rank(const lk_call *call, int i, int rank,
                       lk_error *error) {
  char has[128];
  if (call->in[i].shape.rank == rank) return LK_OK;
  return lk_fail(error, LK_SHAPE, "%s: %s has shape %s, needs %d dimension%s",
                 op_name(call), input_name(call, i),
                 lk_shape_text(call->in[i].shape, has, sizeof has), rank,
                 rank == 1 ? "" : "s");
}

lk_status lk_need_positive(const lk_call *call, const char *attribute,
                           int64_t value, lk_error *error) {
  if (value >= 1) return LK_OK;
  return lk_fail(error, LK_ARGUMENT, "%s: %s is %" PRId64
                 ", needs at least 1", op_name(call), attribute, value);
}

lk_status lk_need_dim(const lk_call *call, const char *attribute,
                      int64_t value, int i, lk_error *error) {
  char has[128];
  int rank = call->in[i].shape.rank;
  if (value >= 0 && value < rank) return LK_OK;
  return lk_fail(error, LK_ARGUMENT,
                 "%s: %s is %" PRId64 ", %s %s has %d dimension%s",
                 op_name(call), attribute, value, input_name(call, i),
                 lk_shape_text(call->in[i].shape, has, sizeof has), rank,
                 rank == 1 ? "" : "s");
}

static lk_status need_small(const lk_call *call, int i, lk_dtype dtype,
                            int64_t size, lk_error *error) {
  char has[128];
  const lk_tensor *t = &call->in[i];
  if (t->dtype == dtype && lk_shape_equal(t->shape, lk_shape_of(size)))
    return LK_OK;
  return lk_fail(error, t->dtype == dtype ? LK_SHAPE : LK_DTYPE,
                 "%s: %s is %s %s, needs %s [%" PRId64 "]", op_name(call),
                 input_name(call, i), lk_dtype_word(t->dtype),
                 lk_shape_text(t->shape, has, sizeof has),
                 lk_dtype_word(dtype), size);
}

lk_status lk_need_clock(const lk_call *call, int i, lk_error *error) {
  return need_small(call, i, LK_U32, LK_CLOCK, error);
}

lk_status lk_need_control(const lk_call *call, int i, lk_error *error) {
  return need_small(call, i, LK_F32, LK_CONTROL, error);
}

lk_status lk_need_dropout(const lk_call *call, int clock, lk_error *error) {
  double p = call->attr.p;
  if (!(p >= 0 && p < 1))
    return lk_fail(error, LK_ARGUMENT, "%s: p is %g, needs 0 <= p < 1",
                   op_name(call), p);
  if (lk_present(&call->in[clock])) return lk_need_clock(call, clock, error);
  if (p == 0) return LK_OK;
  return lk_fail(error, LK_ARGUMENT, "%s: %s is missing, p = %g needs it",
                 op_name(call), input_name(call, clock), p);
}

lk_status lk_give_shape(lk_call *call, int r, lk_dtype dtype, lk_shape shape,
                        lk_error *error) {
  char has[128], needs[128];
  lk_tensor *y = &call->out[r];
  if (!lk_present(y)) {
    *y = (lk_tensor){.dtype = dtype, .shape = shape};
    return LK_OK;
  }
  if (lk_shape_equal(y->shape, shape)) return LK_OK;
  return lk_fail(error, LK_SHAPE, "%s: %s has shape %s, needs %s",
                 op_name(call), result_name(call, r),
                 lk_shape_text(y->shape, has, sizeof has),
                 lk_shape_text(shape, needs, sizeof needs));
}

lk_status lk_give(lk_call *call, int r, lk_dtype dtype, lk_shape shape,
                  lk_error *error) {
  LK_TRY(lk_give_shape(call, r, dtype, shape, error));
  if (call->out[r].dtype == dtype) return LK_OK;
  return wrong_dtype(call, result_name(call, r), call->out[r].dtype,
                     lk_dtype_word(dtype), error);
}

lk_status lk_give_codes(lk_call *call, int r, const lk_tensor *y,
                        lk_error *error) {
  char text[128];
  bool codes = lk_present(&call->out[r]);
  bool scales = lk_present(&call->out[r + 1]);
  if (!codes && !scales) return LK_OK;
  if (codes != scales)
    return lk_fail(error, LK_ARGUMENT, "%s: codes and scales go together",
                   op_name(call));
  if (lk_columns(y) % 8 != 0)
    return lk_fail(error, LK_SHAPE, "%s: codes need rows of a multiple of 8, "
                   "got %s", op_name(call),
                   lk_shape_text(y->shape, text, sizeof text));
  LK_TRY(lk_give(call, r, LK_E4M3, y->shape, error));
  return lk_give(call, r + 1, LK_F32, lk_shape_of(lk_rows(y)), error);
}

lk_status lk_need_result(const lk_call *call, int r, lk_error *error) {
  if (lk_present(&call->out[r])) return LK_OK;
  return lk_fail(error, LK_ARGUMENT,
                 "%s: %s must be given, its shape or dtype is a choice",
                 op_name(call), result_name(call, r));
}

bool lk_shape_broadcast(lk_shape a, lk_shape b, lk_shape *shape) {
  lk_shape wide = a.rank >= b.rank ? a : b;
  lk_shape narrow = a.rank >= b.rank ? b : a;
  int offset = wide.rank - narrow.rank;
  for (int i = 0; i < narrow.rank; i++) {
    int64_t *w = &wide.dim[offset + i], n = narrow.dim[i];
    if (*w != n && *w != 1 && n != 1) return false;
    if (*w == 1) *w = n;
  }
  *shape = wide;
  return true;
}
