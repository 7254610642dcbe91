/* Simple layers: embedding, linear, norm, activations, dropout, head. */
#include <math.h>

#include "layer.h"

/* --- embedding ----------------------------------------------------------- */

lk_status layer_embedding_declare(lk_layer *l, lk_error *error) {
  if (l->o.in < 1 || l->o.out < 1)
    return lk_fail(error, LK_ARGUMENT, "embedding: needs the vocabulary and "
                   "the channels, e.g. nn.embedding{50257, 768}");
  if (l->o.scale == 0) l->o.scale = 1;
  lk_layer_declare(l, "weight", lk_shape_of(l->o.in, l->o.out),
                   LK_KIND_EMBEDDING, LK_INIT_NORMAL, l->o.std);
  return LK_OK;
}

lk_value layer_embedding_emit(lk_graph *g, lk_layer *l, lk_value ids) {
  lk_value table = lk_layer_operand(g, l, 0);
  if (lk_graph_ok(g) && lk_value_dtype(g, ids) != LK_I32)
    return lk_graph_fail(g, LK_DTYPE, "embedding: x must be token ids (i32), "
                         "got %s", lk_dtype_word(lk_value_dtype(g, ids)));
  int64_t rows = lk_shape_count(lk_value_shape(g, ids));
  return lk_emit_as(g, LK_OP_embed, LK_IN(ids, table), g->compute,
                    lk_shape_of(rows, l->o.out),
                    LK_ATTRS(.scale = l->o.scale));
}

/* --- linear -------------------------------------------------------------- */

lk_status layer_linear_declare(lk_layer *l, lk_error *error) {
  if (l->o.in < 1 || l->o.out < 1)
    return lk_fail(error, LK_ARGUMENT, "linear: needs the channels in and out, "
                   "e.g. nn.linear{768, 3072}");
  lk_layer_declare(l, "weight", lk_shape_of(l->o.out, l->o.in), LK_KIND_LINEAR,
                   LK_INIT_NORMAL, l->o.std);
  if (l->o.bias)
    lk_layer_declare(l, "bias", lk_shape_of(l->o.out), LK_KIND_BIAS,
                     LK_INIT_ZEROS, 0);
  return LK_OK;
}

lk_value layer_linear_emit(lk_graph *g, lk_layer *l, lk_value x) {
  return lk_layer_product(g, l, 0, l->o.bias, x);
}

/* --- norm ---------------------------------------------------------------- */

lk_status layer_rmsnorm_declare(lk_layer *l, lk_error *error) {
  if (l->o.in < 1)
    return lk_fail(error, LK_ARGUMENT,
                   "rmsnorm: needs the channels, e.g. nn.rmsnorm{768}");
  if (l->o.eps == 0) l->o.eps = ldexp(1, -23);
  lk_layer_declare(l, "weight", lk_shape_of(l->o.in), LK_KIND_NORM,
                   LK_INIT_ONES, 0);
  return LK_OK;
}

lk_value layer_rmsnorm_emit(lk_graph *g, lk_layer *l, lk_value x) {
  return lk_emit_norm(g, x, lk_layer_operand(g, l, 0), l->o.eps);
}

/* --- activations --------------------------------------------------------- */

lk_status layer_silu_declare(lk_layer *l, lk_error *error) {
  (void)l, (void)error;
  return LK_OK;
}

lk_value layer_silu_emit(lk_graph *g, lk_layer *l, lk_value x) {
  (void)l;
  return lk_pending_unary(g, LK_OP_silu, lk_emit_saved(g, x));
}

lk_status layer_gated_declare(lk_layer *l, lk_error *error) {
  if (l->o.in < 1 || l->o.hidden < 1)
    return lk_fail(error, LK_ARGUMENT, "gated: needs the channels and the "
                   "hidden width, e.g. nn.gated{768, 2048}");
  lk_layer_declare(l, "gate_up.weight", lk_shape_of(2 * l->o.hidden, l->o.in),
                   LK_KIND_LINEAR, LK_INIT_NORMAL, l->o.std);
  lk_layer_declare(l, "down.weight", lk_shape_of(l->o.in, l->o.hidden),
                   LK_KIND_LINEAR, LK_INIT_NORMAL, l->o.std);
  return LK_OK;
}

lk_value layer_gated_emit(lk_graph *g, lk_layer *l, lk_value x) {
  lk_value both = lk_emit_saved(g, lk_layer_product(g, l, 0, false, x));
  lk_value hidden = lk_pending_unary(g, LK_OP_gated_silu, both);
  return lk_layer_product(g, l, 1, false,
                          lk_emit_dropout(g, hidden, l->o.p));
}

/* --- dropout ------------------------------------------------------------- */

lk_status layer_dropout_declare(lk_layer *l, lk_error *error) {
  if (l->o.p < 0 || l->o.p >= 1)
    return lk_fail(error, LK_ARGUMENT,
                   "dropout: p must be in [0, 1), got %g", l->o.p);
  return LK_OK;
}

lk_value layer_dropout_emit(lk_graph *g, lk_layer *l, lk_value x) {
  return lk_emit_dropout(g, x, l->o.p);
}

/* --- head ---------------------------------------------------------------- */

lk_status layer_head_declare(lk_layer *l, lk_error *error) {
  if (l->o.tied) {
    if (l->o.tied->kind != LK_LAYER_embedding)
      return lk_fail(error, LK_ARGUMENT, "head: tied must be an embedding, got "
                     "%s", lk_layer_kind_word(l->o.tied->kind));
    l->o.in = l->o.tied->o.out;
    l->o.out = l->o.tied->o.in;
    return LK_OK;
  }
  if (l->o.in < 1 || l->o.out < 1)
    return lk_fail(error, LK_ARGUMENT, "head: needs tied = embedding, or the "
                   "channels and the vocabulary, e.g. nn.head{768, 50257}");
  lk_layer_declare(l, "weight", lk_shape_of(l->o.out, l->o.in), LK_KIND_HEAD,
                   LK_INIT_NORMAL, l->o.std);
  return LK_OK;
}

/* Rows of logits at a time: what was asked, or about the profile's bytes, but
 * no more chunks than its. Twice as large where nothing is done for the sake of
 * memory, else a third more of them where the profile limits their number. */
static int64_t head_chunk(const lk_graph *g, int64_t rows, int64_t vocabulary) {
  if (g->head_chunk < 0) return rows;
  if (g->head_chunk > 0) return g->head_chunk < rows ? g->head_chunk : rows;
  int64_t bytes = lk_dtype_bytes(g->compute, vocabulary);
  int64_t most = g->profile->head_chunks, room = g->profile->head_chunk_bytes;
  if (g->recompute == LK_RECOMPUTE_NONE && !g->saved_int8)
    room *= 2;
  else
    most = most * 4 / 3;
  int64_t chunk = room / bytes / 64 * 64;
  if (chunk < 64) chunk = 64;
  if (most == 0) return chunk < rows ? chunk : rows;
  int64_t count = (rows + chunk - 1) / chunk; /* all about equally large */
  if (count > most) count = most;
  chunk = ((rows + count - 1) / count + 63) / 64 * 64;
  return chunk < rows ? chunk : rows;
}

static lk_value emit_training_head(lk_graph *g, lk_layer *l, lk_value x,
                                   lk_value w, int64_t rows) {
  bool accumulate = false;
  int parameter = lk_value_get(g, w)->parameter;
  lk_value dw = lk_parameter_accumulator(g, parameter, &accumulate);
  lk_value dx = lk_value_new(g, lk_value_dtype(g, x), lk_value_shape(g, x),
                             LK_ACTIVATIONS, "dx");
  lk_results r = lk_emit(
      g, LK_OP_head_loss_train, LK_IN(x, w, g->targets, g->control),
      LK_OUT(LK_NONE, LK_NONE, dx, dw),
      LK_ATTRS(.chunk = head_chunk(g, rows, l->o.out), .accumulate = accumulate,
               .value = 1.0 / ((double)rows * (double)g->accumulate)));
  lk_emit(g, LK_OP_metrics, LK_IN(r.v[0], r.v[1]), LK_OUT(g->metrics),
          LK_ATTRS(0));
  return r.v[0];
}

/* Logits of one row a sequence, f32, in a buffer of the store. */
static lk_value emit_logits(lk_graph *g, lk_layer *l, lk_value x, lk_value w) {
  int buffer = lk_store_add_buffer(g->store, "logits", LK_F32,
                                   lk_shape_of(g->batch, l->o.out), LK_DATA);
  g->generation.logits = lk_value_of_buffer(g, buffer);
  lk_value rows = lk_emit_as(g, LK_OP_embed, LK_IN(g->generation.row, x),
                             lk_value_dtype(g, x),
                             lk_shape_of(g->batch, l->o.in),
                             LK_ATTRS(.scale = 1));
  lk_emit(g, LK_OP_matmul, LK_IN(rows, w), LK_OUT(g->generation.logits),
          LK_ATTRS(.transpose_b = true));
  return g->generation.logits;
}

lk_value layer_head_emit(lk_graph *g, lk_layer *l, lk_value x) {
  x = lk_force(g, x);
  const lk_layer *owner = l->o.tied ? l->o.tied : l;
  lk_value w = lk_layer_operand(g, owner, 0);
  if (!lk_graph_ok(g)) return LK_NONE;
  if (g->generation.on) return emit_logits(g, l, x, w);
  int64_t rows = lk_value_shape(g, x).dim[0];
  if (g->training) return emit_training_head(g, l, x, w, rows);
  lk_results r = lk_emit(g, LK_OP_head_loss, LK_IN(x, w, g->targets), NULL,
                         LK_ATTRS(.chunk = head_chunk(g, rows, l->o.out)));
  lk_emit(g, LK_OP_metrics, LK_IN(r.v[0], r.v[1]), LK_OUT(g->metrics),
          LK_ATTRS(0));
  return r.v[0];
}
