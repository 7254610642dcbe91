/* Recompute: which forward values are dropped, and making them again where the
 * backward asks for one. */
#include "recompute.h"

#include <stdlib.h>

const char *const lk_recompute_words[] = {"none", "light", "mlp", "block",
                                          NULL};

bool lk_remade_open(lk_remade *made, const lk_graph *g) {
  made->room = g->value_count;
  made->by_value = calloc((size_t)g->value_count, sizeof *made->by_value);
  return made->by_value != NULL;
}

void lk_remade_close(lk_remade *made) { free(made->by_value); }

bool lk_is_dropped(const lk_graph *g, lk_value value) {
  const lk_value_info *v = &g->values[value];
  if (v->buffer || v->producer == 0) return false;
  if (v->forced) return true;
  if (g->recompute >= LK_RECOMPUTE_LIGHT && v->cheap) return true;
  if (g->recompute >= LK_RECOMPUTE_MLP && v->in_mlp) return true;
  return g->recompute >= LK_RECOMPUTE_BLOCK && v->block > 0;
}

/* Record the results of a remade call under the forward values they repeat,
 * without touching those that were made again before. */
static void note_remade(lk_remade *made, const lk_instr *i, lk_results again) {
  for (int k = 0; k < LK_MAX_RESULTS; k++)
    if (i->out[k] && i->out[k] < made->room && !made->by_value[i->out[k]])
      made->by_value[i->out[k]] = again.v[k];
}

static lk_instr producer_of(const lk_graph *g, lk_value value) {
  int producer = g->values[value].producer;
  return producer > 0 ? g->instrs[producer - 1] : g->recipes[-producer - 1];
}

/* Fresh results with the forward's dtypes and shapes; of the optional ones
 * those that are there for `wanted`. */
static void fresh_results(lk_graph *g, const lk_instr *i, lk_value wanted,
                          lk_value *out) {
  const lk_op_info *info = lk_op_info_of(i->op);
  bool all = false;
  for (int k = 0; k < info->results; k++)
    all |= i->out[k] == wanted && info->result[k].optional;
  for (int k = 0; k < info->results; k++) {
    if (i->out[k] == LK_NONE || (info->result[k].optional && !all)) continue;
    lk_value_info v = g->values[i->out[k]];
    out[k] = lk_value_new(g, v.dtype, v.shape, v.category, v.name);
  }
}

lk_value lk_make_again(lk_graph *g, lk_remade *made, lk_value value) {
  if (value == LK_NONE || !lk_graph_ok(g)) return LK_NONE;
  if (value >= made->room || !lk_is_dropped(g, value)) return value;
  if (made->by_value[value]) return made->by_value[value];
  lk_instr i = producer_of(g, value);
  lk_value in[LK_MAX_INPUTS], out[LK_MAX_RESULTS] = {0};
  for (int k = 0; k < LK_MAX_INPUTS; k++)
    in[k] = lk_make_again(g, made, i.in[k]);
  fresh_results(g, &i, value, out);
  bool outer = g->in_recompute;
  g->in_recompute = true;
  note_remade(made, &i, lk_emit(g, i.op, in, out, i.attr));
  g->in_recompute = outer;
  return made->by_value[value];
}
