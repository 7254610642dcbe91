/* Gradient rules of elementwise operators, reductions and softmax. */
#include "graph.h"

/* The gradient of a broadcast operand: d summed to its shape. */
static void contribute_summed(lk_reverse *r, lk_graph *g, lk_value v,
                              lk_value d) {
  if (!lk_graph_ok(g) || !lk_wants(r, v)) return;
  if (!lk_shape_equal(lk_value_shape(g, v), lk_value_shape(g, d)))
    d = lk_emit_as(g, LK_OP_sum_to, LK_IN(d), lk_value_dtype(g, v),
                   lk_value_shape(g, v), LK_ATTRS(0));
  lk_contribute(r, v, d);
}

static lk_value times(lk_graph *g, lk_value x, double scale) {
  return lk_emit1(g, LK_OP_affine, LK_IN(x), LK_ATTRS(.scale = scale));
}

static lk_value product(lk_graph *g, lk_value a, lk_value b) {
  return lk_emit1(g, LK_OP_mul, LK_IN(a, b), LK_ATTRS(0));
}

void gradient_add(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value dy = lk_gradient_of(r, i.out[0]);
  contribute_summed(r, g, i.in[0], dy);
  contribute_summed(r, g, i.in[1], dy);
}

void gradient_sub(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value dy = lk_gradient_of(r, i.out[0]);
  contribute_summed(r, g, i.in[0], dy);
  if (lk_wants(r, i.in[1])) contribute_summed(r, g, i.in[1], times(g, dy, -1));
}

void gradient_mul(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value dy = lk_gradient_of(r, i.out[0]);
  for (int k = 0; k < 2; k++)
    if (lk_wants(r, i.in[k]))
      contribute_summed(r, g, i.in[k],
                        product(g, dy, lk_saved(r, i.in[1 - k])));
}

/* y = a / b: da = dy / b, db = −dy · y / b */
void gradient_div(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value dy = lk_gradient_of(r, i.out[0]), b = lk_saved(r, i.in[1]);
  lk_value da = lk_emit1(g, LK_OP_div, LK_IN(dy, b), LK_ATTRS(0));
  contribute_summed(r, g, i.in[0], da);
  if (lk_wants(r, i.in[1]))
    contribute_summed(r, g, i.in[1],
                      times(g, product(g, da, lk_saved(r, i.out[0])), -1));
}

void gradient_affine(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_contribute(r, i.in[0],
                times(g, lk_gradient_of(r, i.out[0]), i.attr.scale));
}

/* d x^n = n x^(n−1) */
void gradient_pow(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value d = lk_emit1(g, LK_OP_pow, LK_IN(lk_saved(r, i.in[0])),
                        LK_ATTRS(.value = i.attr.value - 1));
  d = product(g, times(g, d, i.attr.value), lk_gradient_of(r, i.out[0]));
  lk_contribute(r, i.in[0], d);
}

void gradient_exp(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_contribute(r, i.in[0], product(g, lk_gradient_of(r, i.out[0]),
                                    lk_saved(r, i.out[0])));
}

void gradient_log(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_contribute(r, i.in[0],
                lk_emit1(g, LK_OP_div, LK_IN(lk_gradient_of(r, i.out[0]),
                                             lk_saved(r, i.in[0])),
                         LK_ATTRS(0)));
}

/* d √x = 1 / (2 y) */
void gradient_sqrt(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value half = times(g, lk_gradient_of(r, i.out[0]), 0.5);
  lk_contribute(r, i.in[0],
                lk_emit1(g, LK_OP_div, LK_IN(half, lk_saved(r, i.out[0])),
                         LK_ATTRS(0)));
}

/* d tanh = 1 − y² */
void gradient_tanh(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value y = lk_saved(r, i.out[0]);
  lk_value slope = lk_emit1(g, LK_OP_affine, LK_IN(product(g, y, y)),
                            LK_ATTRS(.scale = -1, .value = 1));
  lk_contribute(r, i.in[0],
                product(g, lk_gradient_of(r, i.out[0]), slope));
}

/* d sigmoid = y (1 − y) */
void gradient_sigmoid(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value y = lk_saved(r, i.out[0]);
  lk_value rest = lk_emit1(g, LK_OP_affine, LK_IN(y),
                           LK_ATTRS(.scale = -1, .value = 1));
  lk_contribute(r, i.in[0], product(g, lk_gradient_of(r, i.out[0]),
                                    product(g, y, rest)));
}

void gradient_relu(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_contribute(r, i.in[0],
                lk_emit1(g, LK_OP_relu_backward,
                         LK_IN(lk_gradient_of(r, i.out[0]),
                               lk_saved(r, i.in[0])), LK_ATTRS(0)));
}

/* The gradient of a reduction, spread over x's shape: first with the reduced
 * dimension as 1, then broadcast. */
static lk_value spread(lk_reverse *r, lk_graph *g, const lk_instr *i) {
  lk_value dy = lk_gradient_of(r, i->out[0]);
  lk_shape x = lk_value_shape(g, i->in[0]), kept = x;
  for (int d = 0; d < x.rank; d++)
    if (i->attr.dim < 0 || i->attr.dim == d) kept.dim[d] = 1;
  dy = lk_emit_reshape(g, dy, kept);
  return lk_emit_as(g, LK_OP_broadcast, LK_IN(dy), lk_value_dtype(g, dy), x,
                    LK_ATTRS(0));
}

void gradient_sum(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_contribute(r, i.in[0], spread(r, g, &i));
}

void gradient_mean(lk_reverse *r, lk_graph *g, lk_instr i) {
  double n = (double)lk_shape_count(lk_value_shape(g, i.in[0])) /
             (double)lk_shape_count(lk_value_shape(g, i.out[0]));
  lk_contribute(r, i.in[0], times(g, spread(r, g, &i), 1 / n));
}

void gradient_sum_to(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_contribute(r, i.in[0],
                lk_emit_as(g, LK_OP_broadcast,
                           LK_IN(lk_gradient_of(r, i.out[0])),
                           lk_value_dtype(g, i.in[0]),
                           lk_value_shape(g, i.in[0]), LK_ATTRS(0)));
}

void gradient_broadcast(lk_reverse *r, lk_graph *g, lk_instr i) {
  contribute_summed(r, g, i.in[0], lk_gradient_of(r, i.out[0]));
}

void gradient_softmax(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_contribute(r, i.in[0],
                lk_emit1(g, LK_OP_softmax_backward,
                         LK_IN(lk_gradient_of(r, i.out[0]),
                               lk_saved(r, i.out[0])), LK_ATTRS(0)));
}
