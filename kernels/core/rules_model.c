/* Rules: what layers are made of: embedding, dropout, norms, activations,
 * attention, the head and its loss. */
#include <inttypes.h>

#include "attention.h"
#include "rules.h"

/* --- embedding ------------------------------------------------------------ */

LK_RULE(rule_embed) {
  const lk_tensor *ids = &call->in[0], *table = &call->in[1];
  LK_TRY(lk_need_dtype(call, 0, LK_I32, error));
  LK_TRY(lk_need_rank(call, 0, 1, error));
  LK_TRY(lk_need_rank(call, 1, 2, error));
  LK_TRY(lk_need_float(profile, call, 1, error));
  lk_shape shape = lk_shape_of(ids->shape.dim[0], table->shape.dim[1]);
  LK_TRY(lk_give_shape(call, 0, table->dtype, shape, error));
  double rows = lk_count_of(&call->out[0]);
  cost->bytes = (double)lk_tensor_bytes(ids) +
                rows * (double)lk_dtype_bytes(table->dtype, 1) +
                (double)lk_tensor_bytes(&call->out[0]);
  return lk_result_float(profile, call, 0, error);
}

LK_RULE(rule_embed_backward) {
  const lk_tensor *dy = &call->in[0], *dtable = &call->out[0];
  LK_TRY(lk_need_float(profile, call, 0, error));
  LK_TRY(lk_need_rank(call, 0, 2, error));
  LK_TRY(lk_need_dtype(call, 1, LK_I32, error));
  LK_TRY(lk_need_shape(call, 1, lk_shape_of(dy->shape.dim[0]), 0, error));
  LK_TRY(lk_need_result(call, 0, error));
  lk_shape shape = lk_shape_of(dtable->shape.dim[0], dy->shape.dim[1]);
  cost->flops = lk_count_of(dy);
  return lk_give(call, 0, LK_F32, shape, error);
}

/* --- dropout, residual, norm ---------------------------------------------- */

LK_RULE(rule_dropout) {
  LK_TRY(lk_need_float(profile, call, 0, error));
  LK_TRY(lk_need_dropout(call, 1, error));
  cost->flops = lk_count_of(&call->in[0]);
  LK_TRY(lk_give(call, 0, call->in[0].dtype, call->in[0].shape, error));
  return lk_give_codes(call, 1, &call->out[0], error);
}

LK_RULE(rule_residual) {
  LK_TRY(lk_need_float(profile, call, 0, error));
  LK_TRY(lk_need_same(call, 1, 0, error));
  LK_TRY(lk_need_dropout(call, 2, error));
  cost->flops = 2 * lk_count_of(&call->in[0]);
  return lk_give(call, 0, call->in[0].dtype, call->in[0].shape, error);
}

/* A norm of x [N, C] by weight `w` [C]. */
static lk_status check_norm(const lk_profile *profile, const lk_call *call,
                            int x, int w, lk_error *error) {
  LK_TRY(lk_need_rank(call, x, 2, error));
  LK_TRY(lk_need_float(profile, call, x, error));
  LK_TRY(lk_need_float(profile, call, w, error));
  lk_shape columns = lk_shape_of(lk_columns(&call->in[x]));
  return lk_need_shape(call, w, columns, x, error);
}

LK_RULE(rule_rmsnorm) {
  const lk_tensor *x = &call->in[0];
  LK_TRY(check_norm(profile, call, 0, 1, error));
  LK_TRY(lk_give(call, 0, x->dtype, x->shape, error));
  cost->flops = 4 * lk_count_of(x);
  LK_TRY(lk_give(call, 1, LK_F32, lk_shape_of(x->shape.dim[0]), error));
  return lk_give_codes(call, 2, x, error);
}

LK_RULE(rule_residual_norm) {
  const lk_tensor *x = &call->in[0];
  LK_TRY(check_norm(profile, call, 0, 2, error));
  LK_TRY(lk_need_same(call, 1, 0, error));
  LK_TRY(lk_need_dropout(call, 3, error));
  LK_TRY(lk_give(call, 0, x->dtype, x->shape, error));
  LK_TRY(lk_give(call, 1, x->dtype, x->shape, error));
  cost->flops = 6 * lk_count_of(x);
  LK_TRY(lk_give(call, 2, LK_F32, lk_shape_of(x->shape.dim[0]), error));
  return lk_give_codes(call, 3, x, error);
}

LK_RULE(rule_rmsnorm_backward) {
  const lk_tensor *x = &call->in[1];
  LK_TRY(check_norm(profile, call, 1, 2, error));
  LK_TRY(lk_need_same(call, 0, 1, error));
  LK_TRY(lk_need_dtype(call, 3, LK_F32, error));
  LK_TRY(lk_need_shape(call, 3, lk_shape_of(x->shape.dim[0]), 1, error));
  if (lk_present(&call->in[4])) LK_TRY(lk_need_same(call, 4, 1, error));
  LK_TRY(lk_need_dropout(call, 5, error));
  LK_TRY(lk_give(call, 0, x->dtype, x->shape, error));
  if (lk_present(&call->out[2]))
    LK_TRY(lk_give(call, 2, x->dtype, x->shape, error));
  cost->flops = 9 * lk_count_of(x);
  return lk_give(call, 1, LK_F32, lk_shape_of(lk_columns(x)), error);
}

/* --- activations ---------------------------------------------------------- */

LK_RULE(rule_silu) {
  const lk_tensor *x = &call->in[0];
  LK_TRY(lk_need_float(profile, call, 0, error));
  LK_TRY(lk_need_dropout(call, 1, error));
  cost->flops = 5 * lk_count_of(x);
  LK_TRY(lk_give(call, 0, x->dtype, x->shape, error));
  return lk_give_codes(call, 1, x, error);
}

LK_RULE(rule_silu_backward) {
  const lk_tensor *x = &call->in[1];
  LK_TRY(lk_need_float(profile, call, 1, error));
  LK_TRY(lk_need_same(call, 0, 1, error));
  LK_TRY(lk_need_dropout(call, 2, error));
  cost->flops = 9 * lk_count_of(x);
  LK_TRY(lk_give(call, 0, x->dtype, x->shape, error));
  return lk_give_codes(call, 1, x, error);
}

/* x [.., 2F] at position `i`; *half becomes [.., F]. */
static lk_status check_gated(const lk_profile *profile, const lk_call *call,
                             int i, lk_shape *half, lk_error *error) {
  const lk_tensor *x = &call->in[i];
  char text[128];
  LK_TRY(lk_need_float(profile, call, i, error));
  if (lk_columns(x) % 2 != 0)
    return lk_fail(error, LK_SHAPE,
                   "%s: x has shape %s, needs an even last dimension",
                   lk_op_info_of(call->op)->name,
                   lk_shape_text(x->shape, text, sizeof text));
  *half = x->shape;
  half->dim[half->rank - 1] /= 2;
  return LK_OK;
}

LK_RULE(rule_gated_silu) {
  lk_shape half;
  LK_TRY(check_gated(profile, call, 0, &half, error));
  LK_TRY(lk_need_dropout(call, 1, error));
  cost->flops = 6 * (double)lk_shape_count(half);
  return lk_give(call, 0, call->in[0].dtype, half, error);
}

LK_RULE(rule_gated_silu_backward) {
  const lk_tensor *x = &call->in[1];
  lk_shape half;
  LK_TRY(check_gated(profile, call, 1, &half, error));
  LK_TRY(lk_need_shape(call, 0, half, 1, error));
  LK_TRY(lk_need_dtype(call, 0, x->dtype, error));
  LK_TRY(lk_need_dropout(call, 2, error));
  cost->flops = 12 * (double)lk_shape_count(half);
  return lk_give(call, 0, x->dtype, x->shape, error);
}

/* --- attention ------------------------------------------------------------ */

enum { HEADS_LIMIT = 1 << 20 }; /* so that products of them cannot overflow */

/* heads, kv_heads and width make sense. */
static lk_status check_heads(const lk_call *call, lk_error *error) {
  const lk_attr *a = &call->attr;
  LK_TRY(lk_need_positive(call, "heads", a->heads, error));
  LK_TRY(lk_need_positive(call, "kv_heads", a->kv_heads, error));
  LK_TRY(lk_need_positive(call, "width", a->width, error));
  if (a->heads > HEADS_LIMIT || a->width > HEADS_LIMIT)
    return lk_fail(error, LK_ARGUMENT,
                   "%s: heads is %" PRId64 ", width %" PRId64
                   ", at most %d each", lk_op_info_of(call->op)->name,
                   a->heads, a->width, HEADS_LIMIT);
  if (a->heads % a->kv_heads == 0) return LK_OK;
  return lk_fail(error, LK_ARGUMENT,
                 "%s: kv_heads is %" PRId64 ", no divisor of heads = %" PRId64,
                 lk_op_info_of(call->op)->name, a->kv_heads, a->heads);
}

/* Input `i` is [N, (H + 2K)·D]. */
static lk_status check_qkv(const lk_profile *profile, const lk_call *call,
                           int i, lk_error *error) {
  const lk_attr *a = &call->attr;
  char text[128];
  LK_TRY(check_heads(call, error));
  LK_TRY(lk_need_float(profile, call, i, error));
  LK_TRY(lk_need_rank(call, i, 2, error));
  int64_t needed = (a->heads + 2 * a->kv_heads) * a->width;
  if (call->in[i].shape.dim[1] == needed) return LK_OK;
  return lk_fail(error, LK_SHAPE,
                 "%s: %s has shape %s, needs %" PRId64 " columns (%" PRId64
                 " + 2·%" PRId64 " heads of %" PRId64 ")",
                 lk_op_info_of(call->op)->name,
                 lk_op_info_of(call->op)->input[i].name,
                 lk_shape_text(call->in[i].shape, text, sizeof text), needed,
                 a->heads, a->kv_heads, a->width);
}

LK_RULE(rule_rope_table) {
  const lk_shape *s = &call->out[0].shape;
  const lk_attr *a = &call->attr;
  char text[128];
  LK_TRY(lk_need_result(call, 0, error));
  if (s->rank != 3 || s->dim[2] != 2)
    return lk_fail(error, LK_SHAPE,
                   "rope_table: table has shape %s, needs [T, D/2, 2]",
                   lk_shape_text(*s, text, sizeof text));
  if (!(a->base > 0) || !(a->fraction >= 0 && a->fraction <= 1) ||
      a->first < 0 || a->first > INT32_MAX)
    return lk_fail(error, LK_ARGUMENT,
                   "rope_table: base %g, fraction %g, first %" PRId64
                   ", needs base > 0, 0 <= fraction <= 1, 0 <= first < 2^31",
                   a->base, a->fraction, a->first);
  return lk_give(call, 0, LK_F32, *s, error);
}

/* Input `i` is rope's table for the heads of input `x`. */
static lk_status check_table(const lk_call *call, int i, int x,
                             lk_error *error) {
  const lk_op_info *info = lk_op_info_of(call->op);
  const lk_tensor *qkv = &call->in[x], *table = &call->in[i];
  char text[128];
  LK_TRY(lk_need_dtype(call, i, LK_F32, error));
  LK_TRY(lk_need_rank(call, i, 3, error));
  if (call->attr.width % 2 != 0)
    return lk_fail(error, LK_ARGUMENT, "%s: width is %" PRId64
                   ", needs to be even", info->name, call->attr.width);
  lk_shape needed = lk_shape_of(table->shape.dim[0], call->attr.width / 2, 2);
  LK_TRY(lk_need_shape(call, i, needed, x, error));
  if (qkv->shape.dim[0] % table->shape.dim[0] == 0) return LK_OK;
  return lk_fail(error, LK_SHAPE, "%s: %s has shape %s, needs rows that "
                 "are a multiple of the table's %" PRId64 " positions",
                 info->name, info->input[x].name,
                 lk_shape_text(qkv->shape, text, sizeof text),
                 table->shape.dim[0]);
}

/* In place v is not touched, and the least counts. */
LK_RULE(rule_rope) {
  const lk_tensor *x = &call->in[0];
  const lk_attr *a = &call->attr;
  LK_TRY(check_qkv(profile, call, 0, error));
  LK_TRY(check_table(call, 1, 0, error));
  double turned = (double)(a->heads + a->kv_heads) /
                  (double)(a->heads + 2 * a->kv_heads);
  cost->flops = 3 * turned * lk_count_of(x);
  cost->bytes = 2 * turned * (double)lk_tensor_bytes(x) +
                (double)lk_tensor_bytes(&call->in[1]);
  return lk_give(call, 0, x->dtype, x->shape, error);
}

/* x at `i` with weights wq, wk [D] after it. */
static lk_status check_head_norm(const lk_profile *profile,
                                 const lk_call *call, int i,
                                 lk_error *error) {
  LK_TRY(check_qkv(profile, call, i, error));
  for (int w = i + 1; w <= i + 2; w++) {
    LK_TRY(lk_need_float(profile, call, w, error));
    LK_TRY(lk_need_shape(call, w, lk_shape_of(call->attr.width), i, error));
  }
  return LK_OK;
}

static lk_shape head_rstd(const lk_tensor *x, const lk_attr *a) {
  return lk_shape_of(x->shape.dim[0], a->heads + a->kv_heads);
}

LK_RULE(rule_head_norm) {
  const lk_tensor *x = &call->in[0];
  LK_TRY(check_head_norm(profile, call, 0, error));
  LK_TRY(lk_give(call, 0, x->dtype, x->shape, error));
  cost->flops = 4 * lk_count_of(x);
  return lk_give(call, 1, LK_F32, head_rstd(x, &call->attr), error);
}

LK_RULE(rule_head_norm_backward) {
  const lk_tensor *x = &call->in[1];
  lk_shape width = lk_shape_of(call->attr.width);
  LK_TRY(check_head_norm(profile, call, 1, error));
  LK_TRY(lk_need_same(call, 0, 1, error));
  LK_TRY(lk_need_dtype(call, 4, LK_F32, error));
  LK_TRY(lk_need_shape(call, 4, head_rstd(x, &call->attr), 1, error));
  LK_TRY(lk_give(call, 0, x->dtype, x->shape, error));
  LK_TRY(lk_give(call, 1, LK_F32, width, error));
  cost->flops = 9 * lk_count_of(x);
  return lk_give(call, 2, LK_F32, width, error);
}

/* qkv at `i` and clock at `clock`, with N = batch · seq rows. */
static lk_status check_attention(const lk_profile *profile,
                                 const lk_call *call, int i, int clock,
                                 lk_error *error) {
  const lk_attr *a = &call->attr;
  LK_TRY(lk_need_positive(call, "batch", a->batch, error));
  LK_TRY(lk_need_positive(call, "seq", a->seq, error));
  LK_TRY(check_qkv(profile, call, i, error));
  LK_TRY(lk_need_dropout(call, clock, error));
  int64_t rows = call->in[i].shape.dim[0];
  if (a->batch <= rows && rows % a->batch == 0 && rows / a->batch == a->seq)
    return LK_OK;
  return lk_fail(error, LK_SHAPE, "%s: qkv has %" PRId64 " rows, batch %"
                 PRId64 " of seq %" PRId64 " does not fit",
                 lk_op_info_of(call->op)->name, rows, a->batch, a->seq);
}

/* Two products over the causal half: 4·B·H·T·T·D / 2. */
static double attention_flops(const lk_attr *a) {
  return 4.0 * (double)a->batch * (double)a->heads * (double)a->seq *
         (double)a->seq * (double)a->width / 2;
}

static lk_shape kept_shape(const lk_attr *a) {
  return lk_shape_of(a->batch, a->heads, lk_attention_kept_words(a->seq));
}

static lk_shape heads_shape(const lk_tensor *qkv, const lk_attr *a) {
  return lk_shape_of(qkv->shape.dim[0], a->heads * a->width);
}

LK_RULE(rule_attention) {
  const lk_attr *a = &call->attr;
  const lk_tensor *qkv = &call->in[0];
  LK_TRY(check_attention(profile, call, 0, 1, error));
  LK_TRY(lk_give(call, 0, qkv->dtype, heads_shape(qkv, a), error));
  cost->flops = attention_flops(a);
  if (lk_present(&call->out[2]))
    LK_TRY(lk_give(call, 2, LK_U32, kept_shape(a), error));
  return lk_give(call, 1, LK_F32, lk_shape_of(a->batch, a->heads, a->seq),
                 error);
}

/* Five products where the forward has two. */
LK_RULE(rule_attention_backward) {
  const lk_attr *a = &call->attr;
  const lk_tensor *qkv = &call->in[1];
  lk_shape lse = lk_shape_of(a->batch, a->heads, a->seq);
  LK_TRY(check_attention(profile, call, 1, 4, error));
  LK_TRY(lk_need_dtype(call, 0, qkv->dtype, error));
  LK_TRY(lk_need_shape(call, 0, heads_shape(qkv, a), 1, error));
  LK_TRY(lk_need_same(call, 2, 0, error));
  LK_TRY(lk_need_dtype(call, 3, LK_F32, error));
  LK_TRY(lk_need_shape(call, 3, lse, 1, error));
  if (lk_present(&call->in[5])) {
    LK_TRY(lk_need_dtype(call, 5, LK_U32, error));
    LK_TRY(lk_need_shape(call, 5, kept_shape(a), 1, error));
  }
  if (lk_present(&call->in[6])) {
    LK_TRY(check_table(call, 6, 1, error));
    LK_TRY(lk_need_shape(call, 6, lk_shape_of(a->seq, a->width / 2, 2), 1,
                         error));
  }
  cost->flops = 2.5 * attention_flops(a);
  return lk_give(call, 0, qkv->dtype, qkv->shape, error);
}

/* cache [2, B, K, T, D] of qkv's dtype, positions [n] with n <= T, B·n rows. */
static lk_status check_cache(const lk_call *call, lk_error *error) {
  const lk_attr *a = &call->attr;
  const lk_tensor *qkv = &call->in[0], *positions = &call->in[1];
  const lk_shape *s = &call->out[1].shape;
  char text[128];
  int64_t n = positions->shape.dim[0];
  if (qkv->shape.dim[0] / a->batch != n || qkv->shape.dim[0] % a->batch != 0)
    return lk_fail(error, LK_SHAPE, "attention_cached: qkv has %" PRId64
                   " rows, batch %" PRId64 " of %" PRId64 " positions does not "
                   "fit", qkv->shape.dim[0], a->batch, n);
  if (s->rank == 5 && s->dim[0] == 2 && s->dim[1] == a->batch &&
      s->dim[2] == a->kv_heads && s->dim[3] >= n && s->dim[4] == a->width)
    return LK_OK;
  return lk_fail(error, LK_SHAPE, "attention_cached: cache has shape %s, needs "
                 "[2, %" PRId64 ", %" PRId64 ", T >= %" PRId64 ", %" PRId64
                 "]", lk_shape_text(*s, text, sizeof text), a->batch,
                 a->kv_heads, n, a->width);
}

LK_RULE(rule_attention_cached) {
  const lk_attr *a = &call->attr;
  const lk_tensor *qkv = &call->in[0];
  LK_TRY(lk_need_positive(call, "batch", a->batch, error));
  LK_TRY(check_qkv(profile, call, 0, error));
  LK_TRY(lk_need_dtype(call, 1, LK_I32, error));
  LK_TRY(lk_need_rank(call, 1, 1, error));
  LK_TRY(lk_need_result(call, 1, error));
  LK_TRY(check_cache(call, error));
  LK_TRY(lk_give(call, 0, qkv->dtype, heads_shape(qkv, a), error));
  cost->flops = 4 * lk_count_of(&call->out[0]) *
                (double)call->out[1].shape.dim[3];
  return lk_give(call, 1, qkv->dtype, call->out[1].shape, error);
}

/* --- head and loss -------------------------------------------------------- */

/* x [N, C], w [V, C], targets [N]; loss and correct. */
static lk_status head_loss(const lk_profile *profile, lk_call *call,
                           lk_error *error) {
  const lk_tensor *x = &call->in[0], *w = &call->in[1];
  LK_TRY(lk_need_positive(call, "chunk", call->attr.chunk, error));
  LK_TRY(lk_need_float(profile, call, 0, error));
  LK_TRY(lk_need_rank(call, 0, 2, error));
  LK_TRY(lk_need_dtype(call, 1, x->dtype, error));
  LK_TRY(lk_need_rank(call, 1, 2, error));
  lk_shape weight = lk_shape_of(w->shape.dim[0], x->shape.dim[1]);
  lk_shape rows = lk_shape_of(x->shape.dim[0]);
  LK_TRY(lk_need_shape(call, 1, weight, 0, error));
  LK_TRY(lk_need_dtype(call, 2, LK_I32, error));
  LK_TRY(lk_need_shape(call, 2, rows, 0, error));
  LK_TRY(lk_give(call, 0, LK_F32, rows, error));
  return lk_give(call, 1, LK_I32, rows, error);
}

static double head_flops(const lk_call *call) {
  return 2.0 * lk_count_of(&call->in[0]) *
         (double)call->in[1].shape.dim[0];
}

LK_RULE(rule_head_loss) {
  LK_TRY(head_loss(profile, call, error));
  cost->flops = head_flops(call);
  return LK_OK;
}

LK_RULE(rule_head_loss_train) {
  const lk_tensor *x = &call->in[0], *w = &call->in[1];
  LK_TRY(head_loss(profile, call, error));
  LK_TRY(lk_need_control(call, 3, error));
  LK_TRY(lk_give(call, 2, x->dtype, x->shape, error));
  cost->flops = 3 * head_flops(call);
  return lk_give(call, 3, LK_F32, w->shape, error);
}

LK_RULE(rule_metrics) {
  const lk_tensor *loss = &call->in[0];
  LK_TRY(lk_need_dtype(call, 0, LK_F32, error));
  LK_TRY(lk_need_rank(call, 0, 1, error));
  LK_TRY(lk_need_dtype(call, 1, LK_I32, error));
  LK_TRY(lk_need_shape(call, 1, loss->shape, 0, error));
  cost->flops = 2 * lk_count_of(loss);
  return lk_give(call, 0, LK_F32, lk_shape_of(4), error);
}
