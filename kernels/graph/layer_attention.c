/* The attention layer: fused qkv projection, rotary positions, causal attention
 * with grouped key/value heads, output projection. */
#include <math.h>
#include <stdio.h>

#include "../core/attention.h"
#include "layer.h"

static lk_status check_heads(lk_layer *l, lk_error *error) {
  lk_layer_options *o = &l->o;
  if (o->in < 1 || o->heads < 1)
    return lk_fail(error, LK_ARGUMENT, "attention: needs the channels and "
                   "heads, e.g. nn.attention{768, heads = 12}");
  if (o->kv_heads == 0) o->kv_heads = o->heads;
  if (o->heads % o->kv_heads)
    return lk_fail(error, LK_ARGUMENT, "attention: kv_heads = %lld must divide "
                   "heads = %lld", (long long)o->kv_heads,
                   (long long)o->heads);
  if (o->width == 0 && o->in % o->heads)
    return lk_fail(error, LK_ARGUMENT, "attention: %lld channels are not a "
                   "multiple of heads = %lld", (long long)o->in,
                   (long long)o->heads);
  if (o->width == 0) o->width = o->in / o->heads;
  if (o->rope && o->width % 2)
    return lk_fail(error, LK_ARGUMENT, "attention: rope needs an even head "
                   "width, got %lld", (long long)o->width);
  return LK_OK;
}

lk_status layer_attention_declare(lk_layer *l, lk_error *error) {
  LK_TRY(check_heads(l, error));
  lk_layer_options *o = &l->o;
  if (o->eps == 0) o->eps = ldexp(1, -23);
  int64_t rows = (o->heads + 2 * o->kv_heads) * o->width;
  lk_layer_declare(l, "qkv.weight", lk_shape_of(rows, o->in), LK_KIND_LINEAR,
                   LK_INIT_NORMAL, o->std);
  int64_t *parts = l->parameter[0].parts;
  parts[0] = o->heads * o->width;
  parts[1] = parts[2] = o->kv_heads * o->width;
  lk_layer_declare(l, "out.weight", lk_shape_of(o->in, o->heads * o->width),
                   LK_KIND_LINEAR, LK_INIT_NORMAL, o->std);
  if (!o->qk_norm) return LK_OK;
  lk_layer_declare(l, "q_norm.weight", lk_shape_of(o->width), LK_KIND_NORM,
                   LK_INIT_ONES, 0);
  lk_layer_declare(l, "k_norm.weight", lk_shape_of(o->width), LK_KIND_NORM,
                   LK_INIT_ONES, 0);
  return LK_OK;
}

/* The table of cos and sin, one buffer per setting, made once. */
static lk_value rope_table(lk_graph *g, const lk_layer_options *o) {
  char name[96];
  int64_t most = g->generation.cached ? g->generation.context : g->seq;
  snprintf(name, sizeof name, "rope.%lld.%lld.%g.%g.%d", (long long)most,
           (long long)o->width, o->rope_base, o->rope_fraction,
           o->rope_inclusive);
  int known = g->store->buffer_count;
  int buffer = lk_store_add_buffer(g->store, name, LK_F32,
                                   lk_shape_of(most, o->width / 2, 2),
                                   LK_DATA);
  lk_value table = lk_value_of_buffer(g, buffer);
  bool fresh = g->store->buffer_count != known;
  if (!fresh || !lk_graph_ok(g)) return table;
  lk_section section = g->section;
  g->section = LK_SETUP;
  lk_emit(g, LK_OP_rope_table, NULL, LK_OUT(table),
          LK_ATTRS(.base = o->rope_base, .fraction = o->rope_fraction,
                   .inclusive = o->rope_inclusive));
  g->section = section;
  lk_value_get(g, table)->producer = 0;
  return table;
}

/* The table's rows for the positions of this graph. */
static lk_value rope_rows(lk_graph *g, const lk_layer_options *o) {
  lk_value table = rope_table(g, o);
  if (!g->generation.cached) return table;
  lk_shape flat = lk_shape_of(g->generation.context, o->width);
  lk_value rows = lk_emit_as(
      g, LK_OP_embed,
      LK_IN(g->generation.positions, lk_emit_reshape(g, table, flat)), LK_F32,
      lk_shape_of(g->seq, o->width), LK_ATTRS(.scale = 1));
  return lk_emit_reshape(g, rows, lk_shape_of(g->seq, o->width / 2, 2));
}

static lk_value emit_positions(lk_graph *g, lk_layer *l, lk_value qkv) {
  const lk_layer_options *o = &l->o;
  lk_attr attr = {.heads = o->heads, .kv_heads = o->kv_heads,
                  .width = o->width, .eps = o->eps};
  if (o->qk_norm)
    qkv = lk_emit1(g, LK_OP_head_norm,
                   LK_IN(qkv, lk_layer_operand(g, l, 2),
                         lk_layer_operand(g, l, 3)), attr);
  attr.inverse = o->rope_inverse;
  if (o->rope)
    qkv = lk_emit1(g, LK_OP_rope, LK_IN(qkv, rope_rows(g, o)), attr);
  return qkv;
}

/* Attention through a cache of this layer's own, a buffer of the store. */
static lk_value emit_cached(lk_graph *g, const lk_layer_options *o,
                            lk_value qkv) {
  char name[32];
  snprintf(name, sizeof name, "cache.%d", g->generation.caches++);
  int buffer = lk_store_add_buffer(
      g->store, name, g->compute,
      lk_shape_of(2, g->batch, o->kv_heads, g->generation.context, o->width),
      LK_ACTIVATIONS);
  lk_value cache = lk_value_of_buffer(g, buffer);
  return lk_emit(g, LK_OP_attention_cached,
                 LK_IN(qkv, g->generation.positions), LK_OUT(LK_NONE, cache),
                 LK_ATTRS(.batch = g->batch, .heads = o->heads,
                          .kv_heads = o->kv_heads, .width = o->width,
                          .scale = 1 / sqrt((double)o->width))).v[0];
}

/* Where attention keeps its draws: where the device makes them dearly and
 * memory is not what counts. */
static lk_value kept_value(lk_graph *g, const lk_attr *a) {
  if (a->p <= 0 || !g->profile->keeps_draws || g->saved_int8 ||
      g->recompute != LK_RECOMPUTE_NONE || !lk_attention_tiled(a, g->compute))
    return LK_NONE;
  return lk_value_new(g, LK_U32,
                      lk_shape_of(a->batch, a->heads,
                                  lk_attention_kept_words(a->seq)),
                      LK_ACTIVATIONS, "kept");
}

lk_value layer_attention_emit(lk_graph *g, lk_layer *l, lk_value x) {
  const lk_layer_options *o = &l->o;
  lk_value qkv = lk_layer_product(g, l, 0, false, x);
  if (g->generation.cached) {
    qkv = emit_cached(g, o, emit_positions(g, l, qkv));
    return lk_layer_product(g, l, 1, false, qkv);
  }
  qkv = lk_emit_saved(g, emit_positions(g, l, qkv));
  double p = g->training ? o->p : 0;
  lk_attr attr = {.batch = g->batch, .seq = g->seq, .heads = o->heads,
                  .kv_heads = o->kv_heads, .width = o->width, .p = p,
                  .scale = 1 / sqrt((double)o->width)};
  if (p > 0) attr.stream = lk_graph_stream(g);
  lk_value y = lk_emit(g, LK_OP_attention,
                       LK_IN(qkv, p > 0 ? g->clock : LK_NONE),
                       LK_OUT(LK_NONE, LK_NONE, kept_value(g, &attr)),
                       attr).v[0];
  return lk_layer_product(g, l, 1, false, lk_emit_saved(g, y));
}
