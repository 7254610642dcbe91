/* Gradient rules of operators that move elements, and of matrix products. */
#include "graph.h"

void gradient_reshape(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_contribute(r, i.in[0], lk_emit_reshape(g, lk_gradient_of(r, i.out[0]),
                                            lk_value_shape(g, i.in[0])));
}

void gradient_transpose(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_contribute(r, i.in[0],
                lk_emit1(g, LK_OP_transpose,
                         LK_IN(lk_gradient_of(r, i.out[0])), i.attr));
}

/* d shaped like x, through `op` (slice or unslice). */
static void reslice(lk_reverse *r, lk_graph *g, lk_op op, lk_value x,
                    lk_value dy, lk_attr attr) {
  if (lk_wants(r, x))
    lk_contribute(r, x, lk_emit_as(g, op, LK_IN(dy), lk_value_dtype(g, x),
                                   lk_value_shape(g, x), attr));
}

void gradient_slice(lk_reverse *r, lk_graph *g, lk_instr i) {
  reslice(r, g, LK_OP_unslice, i.in[0], lk_gradient_of(r, i.out[0]), i.attr);
}

void gradient_unslice(lk_reverse *r, lk_graph *g, lk_instr i) {
  reslice(r, g, LK_OP_slice, i.in[0], lk_gradient_of(r, i.out[0]), i.attr);
}

void gradient_cat(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value dy = lk_gradient_of(r, i.out[0]);
  lk_attr attr = {.dim = i.attr.dim};
  reslice(r, g, LK_OP_slice, i.in[0], dy, attr);
  attr.first = lk_value_shape(g, i.in[0]).dim[i.attr.dim];
  reslice(r, g, LK_OP_slice, i.in[1], dy, attr);
}

void gradient_cast(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_contribute(r, i.in[0],
                lk_emit_as(g, LK_OP_cast, LK_IN(lk_gradient_of(r, i.out[0])),
                           lk_value_dtype(g, i.in[0]),
                           lk_value_shape(g, i.in[0]), LK_ATTRS(0)));
}

void gradient_copy(lk_reverse *r, lk_graph *g, lk_instr i) {
  (void)g;
  lk_contribute(r, i.in[0], lk_gradient_of(r, i.out[0]));
}

/* x as a matrix: all dimensions but the last are rows. */
static lk_value flat(lk_graph *g, lk_value x) {
  lk_shape s = lk_value_shape(g, x);
  if (!lk_graph_ok(g) || s.rank <= 2) return x;
  int64_t columns = s.dim[s.rank - 1];
  return lk_emit_reshape(g, x, lk_shape_of(lk_shape_count(s) / columns,
                                           columns));
}

/* op(p) · op(q) into where the gradient of `v` gathers. */
static void product(lk_reverse *r, lk_graph *g, lk_value v, lk_value p,
                    bool tp, lk_value q, bool tq) {
  lk_attr attr = {.transpose_a = tp, .transpose_b = tq};
  lk_value sum = lk_accumulator(r, v, &attr.accumulate);
  lk_emit(g, LK_OP_matmul, LK_IN(p, q), LK_OUT(sum), attr);
}

/* y = op(a) op(b): da = dy op(b)ᵀ, db = op(a)ᵀ dy, either transposed as its
 * operand is stored. The input's gradient first: it reads weights that a fused
 * update of theirs changes. */
void gradient_matmul(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value dy = lk_gradient_of(r, i.out[0]), a = i.in[0], b = i.in[1];
  bool ta = i.attr.transpose_a, tb = i.attr.transpose_b;
  if (lk_wants(r, a)) {
    lk_value w = lk_saved(r, b);
    if (ta) product(r, g, a, w, tb, dy, true);
    else product(r, g, a, dy, false, w, !tb);
  }
  if (!lk_wants(r, b) || !lk_graph_ok(g)) return;
  lk_value x = lk_saved(r, a);
  if (lk_value_shape(g, b).rank == 2 && !ta) {
    x = flat(g, x);
    dy = flat(g, dy);
  }
  if (tb) product(r, g, b, dy, true, x, ta);
  else product(r, g, b, x, !ta, dy, false);
}

void gradient_bias(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value dy = lk_gradient_of(r, i.out[0]);
  lk_contribute(r, i.in[0], dy);
  if (!lk_wants(r, i.in[1])) return;
  lk_attr attr = {0};
  lk_value sum = lk_accumulator(r, i.in[1], &attr.accumulate);
  lk_emit(g, LK_OP_bias_backward, LK_IN(dy), LK_OUT(sum), attr);
}
