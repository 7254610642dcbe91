/* Rules: gradients gathered, clipped and applied. */
#include <inttypes.h>

#include "rules.h"
#include "scratch.h"

LK_RULE(rule_accumulate) {
  const lk_tensor *x = &call->in[0];
  LK_TRY(lk_need_gradient(call, 0, error));
  LK_TRY(lk_give_shape(call, 0, LK_F32, x->shape, error));
  cost->flops = lk_count_of(x);
  return lk_result_gradient(call, 0, error);
}

static lk_shape control_shape(void) { return lk_shape_of(LK_CONTROL); }

LK_RULE(rule_sum_squares) {
  const lk_tensor *slots = &call->out[0];
  int64_t index = call->attr.index, count = lk_tensor_count(slots);
  LK_TRY(lk_need_gradient(call, 0, error));
  LK_TRY(lk_give(call, 0, LK_F32, lk_shape_of(count), error));
  if (index < 0 || index >= count)
    return lk_fail(error, LK_ARGUMENT, "sum_squares: index is %" PRId64
                   ", slots has %" PRId64, index, count);
  int64_t pieces = lk_sum_pieces(lk_tensor_count(&call->in[0]));
  if (pieces > count - index)
    return lk_fail(error, LK_SHAPE, "sum_squares: slots has %" PRId64
                   ", needs %" PRId64 ": from index %" PRId64 " on one for "
                   "each %d values of g", count, index + pieces, index,
                   LK_SUM_PIECE);
  cost->flops = 2 * lk_count_of(&call->in[0]);
  cost->bytes = (double)lk_tensor_bytes(&call->in[0]);
  return lk_give(call, 1, LK_F32, control_shape(), error);
}

LK_RULE(rule_clip) {
  LK_TRY(lk_need_dtype(call, 0, LK_F32, error));
  LK_TRY(lk_need_rank(call, 0, 1, error));
  cost->flops = lk_count_of(&call->in[0]);
  return lk_give(call, 0, LK_F32, control_shape(), error);
}

/* The rounded copy of a master, result `r`: any float that layers read. */
static lk_status check_copy(const lk_call *call, int r, lk_shape shape,
                            lk_error *error) {
  const lk_tensor *copy = &call->out[r];
  char has[128], needs[128];
  if (!lk_present(copy)) return LK_OK;
  if (!lk_dtype_is_float(copy->dtype) || copy->dtype == LK_E4M3)
    return lk_fail(error, LK_DTYPE, "%s: copy is %s, needs f32, bf16 or f16",
                   lk_op_info_of(call->op)->name, lk_dtype_word(copy->dtype));
  if (lk_shape_equal(copy->shape, shape)) return LK_OK;
  return lk_fail(error, LK_SHAPE, "%s: copy has shape %s, needs %s",
                 lk_op_info_of(call->op)->name,
                 lk_shape_text(copy->shape, has, sizeof has),
                 lk_shape_text(shape, needs, sizeof needs));
}

/* A gradient (or direction) at 0 and control at 1; results 0 … moments are
 * f32 of its shape, `copy` follows. */
static lk_status check_update(lk_call *call, int moments, int copy,
                              lk_error *error) {
  lk_shape shape = call->in[0].shape;
  LK_TRY(lk_need_gradient(call, 0, error));
  LK_TRY(lk_need_control(call, 1, error));
  for (int r = 0; r <= moments; r++)
    if (lk_present(&call->out[r]))
      LK_TRY(lk_give(call, r, LK_F32, shape, error));
  return copy > 0 ? check_copy(call, copy, shape, error) : LK_OK;
}

LK_RULE(rule_adamw) {
  cost->flops = 14 * lk_count_of(&call->in[0]);
  return check_update(call, 2, 3, error);
}

LK_RULE(rule_sgd) {
  cost->flops = 6 * lk_count_of(&call->in[0]);
  return check_update(call, 1, 2, error);
}

/* u of g's shape: f32 or bf16 as the caller chose. */
static lk_status check_direction(lk_call *call, int r, lk_error *error) {
  LK_TRY(lk_give_shape(call, r, LK_F32, call->in[0].shape, error));
  return lk_result_gradient(call, r, error);
}

LK_RULE(rule_muon_momentum) {
  LK_TRY(check_update(call, 0, 0, error));
  cost->flops = 6 * lk_count_of(&call->in[0]);
  return check_direction(call, 1, error);
}

static lk_status check_block(const lk_call *call, lk_error *error) {
  int64_t block = call->attr.block;
  if (block >= 8 && block <= 4096 && block % 8 == 0) return LK_OK;
  return lk_fail(error, LK_ARGUMENT, "%s: block is %" PRId64
                 ", needs a multiple of 8 up to 4096",
                 lk_op_info_of(call->op)->name, block);
}

LK_RULE(rule_muon_momentum_int8) {
  const lk_tensor *g = &call->in[0];
  int64_t count = lk_tensor_count(g);
  LK_TRY(lk_need_gradient(call, 0, error));
  LK_TRY(lk_need_control(call, 1, error));
  LK_TRY(check_block(call, error));
  int64_t blocks = (count + call->attr.block - 1) / call->attr.block;
  LK_TRY(lk_give(call, 0, LK_I8, g->shape, error));
  LK_TRY(lk_give(call, 1, LK_F32, lk_shape_of(blocks), error));
  cost->flops = 10 * lk_count_of(g);
  return check_direction(call, 2, error);
}

/* Least work for a matrix of r x c, r <= c, a step: the symmetric A = x xᵀ by
 * one of its halves, r(r + 1)/2 dots of 2c; A² likewise, r(r + 1)/2 dots of
 * 2r; the product with x in full, 2r²c. */
static double newton_schulz_flops(double r, double c) {
  return r * (r + 1) * c + r * (r + 1) * r + 2 * r * r * c;
}

static lk_status check_steps(const lk_call *call, lk_error *error) {
  int64_t steps = call->attr.steps;
  if (steps >= 1 && steps <= 100) return LK_OK;
  return lk_fail(error, LK_ARGUMENT, "newton_schulz: steps is %" PRId64
                 ", needs 1 to 100", steps);
}

LK_RULE(rule_newton_schulz) {
  const lk_tensor *u = &call->in[0];
  int rank = u->shape.rank;
  char text[128];
  LK_TRY(lk_need_gradient(call, 0, error));
  LK_TRY(check_steps(call, error));
  if (rank != 2 && rank != 3)
    return lk_fail(error, LK_SHAPE,
                   "newton_schulz: u has shape %s, needs [R, C] or [k, R, C]",
                   lk_shape_text(u->shape, text, sizeof text));
  LK_TRY(lk_give_shape(call, 0, u->dtype, u->shape, error));
  double rows = (double)u->shape.dim[rank - 2];
  double cols = (double)u->shape.dim[rank - 1];
  double least = rows < cols ? rows : cols;
  cost->flops = lk_count_of(u) / (rows * cols) * (double)call->attr.steps *
                newton_schulz_flops(least, rows + cols - least);
  return lk_result_gradient(call, 0, error);
}

LK_RULE(rule_muon_update) {
  cost->flops = 4 * lk_count_of(&call->in[0]);
  return check_update(call, 0, 1, error);
}
