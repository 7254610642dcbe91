/* Gradient rules of the model operators: embedding, norm, activations,
 * attention, loss, and rounding (straight through). */
#include "graph.h"

void gradient_embed(lk_reverse *r, lk_graph *g, lk_instr i) {
  if (!lk_wants(r, i.in[1])) return;
  lk_attr attr = {.scale = i.attr.scale};
  lk_value dy = lk_gradient_of(r, i.out[0]);
  lk_value sum = lk_accumulator(r, i.in[1], &attr.accumulate);
  lk_emit(g, LK_OP_embed_backward, LK_IN(dy, i.in[0]), LK_OUT(sum), attr);
}

/* dropout(d) with the forward's draws; d itself when nothing is dropped. */
static lk_value dropped(lk_graph *g, lk_value d, lk_value clock, lk_attr attr) {
  if (attr.p == 0) return d;
  return lk_emit1(g, LK_OP_dropout, LK_IN(d, clock),
                  LK_ATTRS(.p = attr.p, .stream = attr.stream));
}

void gradient_dropout(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_contribute(r, i.in[0], dropped(g, lk_gradient_of(r, i.out[0]), i.in[1],
                                    i.attr));
}

/* x + dropout(delta) */
static void residual(lk_reverse *r, lk_graph *g, lk_value x, lk_value delta,
                     lk_value clock, lk_value dh, lk_attr attr) {
  if (lk_wants(r, delta)) lk_contribute(r, delta, dropped(g, dh, clock, attr));
  lk_contribute(r, x, dh);
}

void gradient_residual(lk_reverse *r, lk_graph *g, lk_instr i) {
  residual(r, g, i.in[0], i.in[1], i.in[2], lk_gradient_of(r, i.out[0]),
           i.attr);
}

/* Through a norm of x, joined with what reaches x by other ways. With a clock,
 * *dropped becomes its dropout by `attr`, else it stays. */
static lk_value norm(lk_reverse *r, lk_graph *g, lk_value dy, lk_value x,
                     lk_value w, lk_value rstd, lk_value dresidual,
                     lk_value clock, lk_attr attr, lk_value *dropped) {
  attr = (lk_attr){.p = attr.p, .stream = attr.stream};
  lk_value weight = lk_saved(r, w), saved = lk_saved(r, x);
  rstd = lk_saved(r, rstd);
  lk_value dx = lk_value_new(g, lk_value_dtype(g, dy), lk_value_shape(g, dy),
                             LK_ACTIVATIONS, "dx");
  if (clock)
    *dropped = lk_value_new(g, lk_value_dtype(g, dy), lk_value_shape(g, dy),
                            LK_ACTIVATIONS, "dropped");
  lk_value dw = lk_accumulator(r, w, &attr.accumulate);
  lk_emit(g, LK_OP_rmsnorm_backward,
          LK_IN(dy, saved, weight, rstd, dresidual, clock),
          LK_OUT(dx, dw, clock ? *dropped : LK_NONE), attr);
  return dx;
}

void gradient_rmsnorm(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value dy = lk_gradient_of(r, i.out[0]);
  if (dy == LK_NONE) return;
  lk_contribute(r, i.in[0], norm(r, g, dy, i.in[0], i.in[1], i.out[1],
                                 LK_NONE, LK_NONE, (lk_attr){0}, NULL));
}

void gradient_residual_norm(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value dh = lk_gradient_of(r, i.out[0]), dy = lk_gradient_of(r, i.out[1]);
  if (dy == LK_NONE) {
    residual(r, g, i.in[0], i.in[1], i.in[3], dh, i.attr);
    return;
  }
  bool drops = i.attr.p > 0 && lk_wants(r, i.in[1]);
  lk_value dropped = LK_NONE;
  dh = norm(r, g, dy, i.out[0], i.in[2], i.out[2], dh,
            drops ? i.in[3] : LK_NONE, i.attr, &dropped);
  lk_contribute(r, i.in[1], drops ? dropped : dh);
  lk_contribute(r, i.in[0], dh);
}

static void unary(lk_reverse *r, lk_graph *g, lk_op op, const lk_instr *i) {
  lk_contribute(r, i->in[0],
                lk_emit1(g, op, LK_IN(lk_gradient_of(r, i->out[0]),
                                      lk_saved(r, i->in[0]), i->in[1]),
                         i->attr));
}

void gradient_silu(lk_reverse *r, lk_graph *g, lk_instr i) {
  unary(r, g, LK_OP_silu_backward, &i);
}

void gradient_gated_silu(lk_reverse *r, lk_graph *g, lk_instr i) {
  unary(r, g, LK_OP_gated_silu_backward, &i);
}

void gradient_rope(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_attr attr = i.attr;
  attr.inverse = !attr.inverse;
  lk_contribute(r, i.in[0],
                lk_emit1(g, LK_OP_rope, LK_IN(lk_gradient_of(r, i.out[0]),
                                              i.in[1]), attr));
}

void gradient_head_norm(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value dy = lk_gradient_of(r, i.out[0]), x = lk_saved(r, i.in[0]);
  bool first = false, second = false;
  lk_value dx = lk_value_new(g, lk_value_dtype(g, dy), lk_value_shape(g, dy),
                             LK_ACTIVATIONS, "dx");
  lk_value rstd = lk_saved(r, i.out[1]);
  lk_value dwq = lk_accumulator(r, i.in[1], &first);
  lk_value dwk = lk_accumulator(r, i.in[2], &second);
  if (first != second) {
    lk_graph_fail(g, LK_UNSUPPORTED, "attention: q_norm and k_norm must be "
                  "used equally often");
    return;
  }
  lk_attr attr = i.attr;
  attr.accumulate = first;
  lk_emit(g, LK_OP_head_norm_backward, LK_IN(dy, x, i.in[1], i.in[2], rstd),
          LK_OUT(dx, dwq, dwk), attr);
  lk_contribute(r, i.in[0], dx);
}

/* The call that makes v; through rounding to int8 and back, which gradients
 * pass straight. NULL for what no call makes. */
static const lk_instr *maker_of(const lk_graph *g, lk_value v) {
  for (;;) {
    int producer = lk_value_get(g, v)->producer;
    if (producer <= 0) return NULL;
    const lk_instr *i = &g->instrs[producer - 1];
    if (i->op != LK_OP_dequantize && i->op != LK_OP_quantize) return i;
    v = i->in[0];
  }
}

/* What rope has turned gets its gradient turned back by the same pass. */
void gradient_attention(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value dy = lk_gradient_of(r, i.out[0]);
  if (dy == LK_NONE) return;
  lk_value qkv = lk_saved(r, i.in[0]), o = lk_saved(r, i.out[0]);
  lk_value lse = lk_saved(r, i.out[1]);
  lk_value kept = i.out[2] ? lk_saved(r, i.out[2]) : LK_NONE;
  lk_value to = i.in[0], table = LK_NONE;
  lk_attr attr = i.attr;
  const lk_instr *maker = lk_graph_ok(g) ? maker_of(g, i.in[0]) : NULL;
  if (maker && maker->op == LK_OP_rope) {
    to = maker->in[0];
    table = maker->in[1];
    attr.inverse = !maker->attr.inverse;
  }
  lk_contribute(r, to, lk_emit1(g, LK_OP_attention_backward,
                                LK_IN(dy, qkv, o, lse, i.in[1], kept, table),
                                attr));
}

/* The loss computed its gradients while its logits were there. */
void gradient_head_loss_train(lk_reverse *r, lk_graph *g, lk_instr i) {
  (void)g;
  lk_contribute(r, i.in[0], i.out[2]);
}

void gradient_quantize(lk_reverse *r, lk_graph *g, lk_instr i) {
  (void)g;
  lk_contribute(r, i.in[0], lk_gradient_of(r, i.out[0]));
}

void gradient_dequantize(lk_reverse *r, lk_graph *g, lk_instr i) {
  (void)g;
  lk_contribute(r, i.in[0], lk_gradient_of(r, i.out[0]));
}
