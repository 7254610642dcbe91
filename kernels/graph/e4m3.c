/* Linear layers in e4m3: products of rows of codes with one scale a row, and
 * their gradients. The input's gradient is such a product too, by the turned
 * weight; the weight's is taken from the values themselves. */
#include <string.h>

#include "graph.h"
#include "store.h"

static bool whole(int64_t n) { return n > 0 && n % 16 == 0; }

bool lk_can_e4m3(const lk_graph *g, lk_value x, lk_shape weight) {
  lk_shape s = lk_value_shape(g, x);
  return lk_graph_ok(g) && g->e4m3 && s.rank == 2 && weight.rank == 2 &&
         s.dim[1] == weight.dim[1] && whole(s.dim[0]) && whole(s.dim[1]) &&
         whole(weight.dim[0]);
}

/* --- codes of a value ---------------------------------------------------- */

static int result_named(const lk_op_info *info, const char *name) {
  for (int k = 0; k < info->results; k++)
    if (strcmp(info->result[k].name, name) == 0) return k;
  return -1;
}

/* The instruction that can give codes of v beside it, and in *at where; -1. */
static int willing_maker(const lk_graph *g, lk_value v, int *at) {
  for (int n = g->instr_count - 1; n >= 0; n--) {
    const lk_instr *i = &g->instrs[n];
    const lk_op_info *info = lk_op_info_of(i->op);
    for (int k = 0; k < info->results; k++) {
      if (i->out[k] != v) continue;
      int y = result_named(info, "y");
      *at = result_named(info, "codes");
      bool can = *at > 0 && info->result[*at].optional && k == (y > 0 ? y : 0);
      return can && i->section == g->section && i->out[*at] == LK_NONE ? n
                                                                       : -1;
    }
  }
  return -1;
}

static lk_rows rows_new(lk_graph *g, lk_shape s, lk_category category) {
  lk_rows r = {lk_value_new(g, LK_E4M3, s, category, "codes"),
               lk_value_new(g, LK_F32, lk_shape_of(s.dim[0]), category,
                            "scales")};
  return r;
}

/* Codes that the maker of x gives; the backward makes them again from x. */
static lk_rows rows_of_maker(lk_graph *g, lk_value x, int maker, int at,
                             lk_attr attr) {
  lk_rows r = rows_new(g, lk_value_shape(g, x), LK_ACTIVATIONS);
  if (!lk_graph_ok(g)) return r;
  g->instrs[maker].out[at] = r.codes;
  g->instrs[maker].out[at + 1] = r.scales;
  lk_instr_count(g, maker);
  lk_value_get(g, r.codes)->wants = lk_value_get(g, x)->wants;
  if (!g->in_backward)
    lk_value_recipe(g, (lk_instr){.op = LK_OP_quantize, .in = {x},
                                  .out = {r.codes, r.scales}, .attr = attr});
  return r;
}

lk_rows lk_emit_rows(lk_graph *g, lk_value x) {
  lk_rows r = {0};
  x = lk_force(g, x);
  if (!lk_graph_ok(g)) return r;
  const lk_value_info *v = lk_value_get(g, x);
  if (v->codes) return (lk_rows){v->codes, v->scales};
  lk_attr attr = {.format = LK_FORMAT_E4M3, .block = v->shape.dim[1]};
  int at = 0, maker = willing_maker(g, x, &at);
  if (maker >= 0) {
    r = rows_of_maker(g, x, maker, at, attr);
  } else {
    lk_results q = lk_emit(g, LK_OP_quantize, LK_IN(x), NULL, attr);
    r = (lk_rows){q.v[0], q.v[1]};
  }
  if (!lk_graph_ok(g)) return r;
  lk_value_get(g, r.codes)->source = x;
  lk_value_get(g, x)->codes = r.codes;
  lk_value_get(g, x)->scales = r.scales;
  return r;
}

/* --- the product --------------------------------------------------------- */

lk_value lk_emit_e4m3(lk_graph *g, lk_value x, int parameter) {
  lk_rows a = lk_emit_rows(g, x), b = lk_weight_rows(g, parameter, false);
  if (!lk_graph_ok(g)) return LK_NONE;
  lk_shape s = lk_shape_of(lk_value_shape(g, x).dim[0],
                           lk_value_shape(g, b.codes).dim[0]);
  return lk_emit_as(g, LK_OP_e4m3_matmul,
                    LK_IN(a.codes, a.scales, b.codes, b.scales), g->compute, s,
                    LK_ATTRS(0));
}

/* y = x wᵀ: dx = dy w in e4m3, first, as it reads the weight that a fused
 * update changes; dw = dyᵀ x. */
void gradient_e4m3_matmul(lk_reverse *r, lk_graph *g, lk_instr i) {
  lk_value dy = lk_gradient_of(r, i.out[0]);
  lk_value x = lk_value_get(g, i.in[0])->source;
  int parameter = lk_value_get(g, i.in[2])->parameter;
  if (lk_wants(r, x)) {
    lk_rows a = lk_emit_rows(g, dy), b = lk_weight_rows(g, parameter, true);
    lk_contribute(r, x, lk_emit_as(g, LK_OP_e4m3_matmul,
                                   LK_IN(a.codes, a.scales, b.codes, b.scales),
                                   lk_value_dtype(g, x), lk_value_shape(g, x),
                                   LK_ATTRS(0)));
  }
  if (!lk_graph_ok(g)) return;
  lk_attr attr = {.transpose_a = true};
  x = lk_saved(r, x);
  lk_value sum = lk_accumulator(r, i.in[2], &attr.accumulate);
  lk_emit(g, LK_OP_matmul, LK_IN(dy, x), LK_OUT(sum), attr);
}
