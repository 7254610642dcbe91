/* What the rules share (core only): their type, one declaration an operator,
 * and small checks that name operator, tensor and shapes when they fail.
 *
 * A rule is called with every required input present and every present tensor
 * well formed. It infers results that are absent (rank -1) with lk_give,
 * checks the others, and sets cost->flops; dispatch.c counts bytes and
 * scratch. Tensors are named by their position in ops.def. */
#ifndef LK_CORE_RULES_H
#define LK_CORE_RULES_H

#include "context.h"

#define LK_RULE(function)                                        \
  lk_status function(const lk_profile *profile                   \
                     __attribute__((unused)),                    \
                     lk_call *call,                              \
                     lk_cost *cost __attribute__((unused)),      \
                     lk_error *error)

#define OP(name, results, inputs, attributes, gradient) \
  LK_RULE(rule_##name);
#include "ops.def"
#undef OP

static inline double lk_count_of(const lk_tensor *t) {
  return (double)lk_tensor_count(t);
}
/* The last dimension; 1 for rank 0. */
static inline int64_t lk_columns(const lk_tensor *t) {
  return t->shape.rank > 0 ? t->shape.dim[t->shape.rank - 1] : 1;
}
static inline int64_t lk_rows(const lk_tensor *t) {
  return lk_tensor_count(t) / lk_columns(t);
}

/* Input `i` has exactly this shape, which follows from input `because`:
 * "rmsnorm: w has shape [4], x [2, 8] needs [8]". */
lk_status lk_need_shape(const lk_call *call, int i, lk_shape shape,
                        int because, lk_error *error);
/* Input `i` has the shape and dtype of input `because`. */
lk_status lk_need_same(const lk_call *call, int i, int because,
                       lk_error *error);
lk_status lk_need_dtype(const lk_call *call, int i, lk_dtype dtype,
                        lk_error *error);
/* Input `i` has a dtype that values between layers can have: f32, on other
 * backends than the CPU also bf16 and f16. */
lk_status lk_need_float(const lk_profile *profile, const lk_call *call, int i,
                        lk_error *error);
/* As gradients are kept and updates written: f32 or bf16 on every backend. */
lk_status lk_need_gradient(const lk_call *call, int i, lk_error *error);
lk_status lk_need_rank(const lk_call *call, int i, int rank, lk_error *error);
/* An attribute from 1: "attention: heads is 0, needs at least 1". */
lk_status lk_need_positive(const lk_call *call, const char *attribute,
                           int64_t value, lk_error *error);
/* A dimension of input `i`: "sum: dim is 3, x [2, 2] has 2 dimensions". */
lk_status lk_need_dim(const lk_call *call, const char *attribute,
                      int64_t value, int i, lk_error *error);
/* 0 <= p < 1, and input `clock` well formed, present when p > 0. */
lk_status lk_need_dropout(const lk_call *call, int clock, lk_error *error);
/* Inputs `clock` u32[LK_CLOCK] and `control` f32[LK_CONTROL]. */
lk_status lk_need_clock(const lk_call *call, int i, lk_error *error);
lk_status lk_need_control(const lk_call *call, int i, lk_error *error);

/* Result `r` gets this dtype and shape if it is absent, else must have them:
 * "add: y has shape [3], needs [2, 3]". */
lk_status lk_give(lk_call *call, int r, lk_dtype dtype, lk_shape shape,
                  lk_error *error);
/* The same for a result whose dtype is its caller's choice; `dtype` is what it
 * gets when absent. */
lk_status lk_give_shape(lk_call *call, int r, lk_dtype dtype, lk_shape shape,
                        lk_error *error);
/* Results `r` and `r` + 1, when given, are the e4m3 codes and scales of the
 * rows of `y`, whose width is a multiple of 8. */
lk_status lk_give_codes(lk_call *call, int r, const lk_tensor *y,
                        lk_error *error);
/* Result `r` must be given by the caller. */
lk_status lk_need_result(const lk_call *call, int r, lk_error *error);
/* Result `r` is f32 or bf16. */
lk_status lk_result_gradient(const lk_call *call, int r, lk_error *error);
/* Result `r` has a dtype that values between layers can have. */
lk_status lk_result_float(const lk_profile *profile, const lk_call *call,
                          int r, lk_error *error);

/* The shape both broadcast to from the right; false when they do not fit. */
bool lk_shape_broadcast(lk_shape a, lk_shape b, lk_shape *shape);

#endif
