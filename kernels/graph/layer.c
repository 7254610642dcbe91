/* Layers: making, naming and releasing a tree of them. */
#include "layer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const lk_layer_rules rules[] = {
#define LAYER(name, doc) {layer_##name##_declare, layer_##name##_emit},
#include "layers.def"
#undef LAYER
};

const char *lk_layer_kind_word(lk_layer_kind kind) {
  static const char *const words[] = {
#define LAYER(name, doc) #name,
#include "layers.def"
#undef LAYER
  };
  return (unsigned)kind < LK_LAYER_COUNT ? words[kind] : "?";
}

lk_status lk_layer_new(lk_layer_kind kind, const char *name,
                       const lk_layer_options *o, lk_layer *const *children,
                       int count, lk_layer **out, lk_error *error) {
  lk_layer *layer = calloc(1, sizeof *layer);
  if (layer) layer->child = calloc((size_t)count + 1, sizeof *layer->child);
  if (layer == NULL || layer->child == NULL) {
    if (o->custom.release) o->custom.release(o->custom.state);
    free(layer);
    return lk_fail(error, LK_OOM, "no host memory for a layer");
  }
  layer->kind = kind;
  layer->o = *o;
  layer->references = 1;
  lk_clip_text(layer->name, sizeof layer->name, name ? name : "", "");
  for (int i = 0; i < count; i++) {
    layer->child[layer->children++] = children[i];
    lk_layer_retain(children[i]);
  }
  if (o->tied) lk_layer_retain(o->tied);
  lk_status status = rules[kind].declare(layer, error);
  if (status != LK_OK) {
    lk_layer_release(layer);
    return status;
  }
  *out = layer;
  return LK_OK;
}

void lk_layer_retain(lk_layer *layer) { layer->references++; }

void lk_layer_release(lk_layer *layer) {
  if (layer == NULL || --layer->references > 0) return;
  for (int i = 0; i < layer->children; i++) lk_layer_release(layer->child[i]);
  lk_layer_release(layer->o.tied);
  if (layer->o.custom.release) layer->o.custom.release(layer->o.custom.state);
  free(layer->child);
  free(layer);
}

void lk_layer_declare(lk_layer *layer, const char *name, lk_shape shape,
                      lk_parameter_kind kind, lk_init init, double std) {
  lk_layer_parameter *p = &layer->parameter[layer->parameters++];
  *p = (lk_layer_parameter){.shape = shape, .kind = kind, .init = init,
                            .std = std};
  lk_clip_text(p->name, sizeof p->name, name, "");
}

lk_status lk_layer_add_parameter(lk_layer *layer, const char *name,
                                 lk_shape shape, lk_init init, double std,
                                 lk_error *error) {
  if (layer->parameters == LK_LAYER_PARAMETERS)
    return lk_fail(error, LK_ARGUMENT, "a layer has at most %d parameters",
                   LK_LAYER_PARAMETERS);
  lk_layer_declare(layer, name, shape, LK_KIND_CUSTOM, init, std);
  return LK_OK;
}

/* --- names -----------------------------------------------------------------
 * A parameter is called <path>.<its name>; the path holds the names that
 * the user gave and, for an unnamed sequential inside a sequential, its
 * position. A leaf without a name is called after its kind. */

typedef struct lk_path {
  char text[96];
} lk_path;

static lk_path path_join(lk_path path, const char *word) {
  lk_path joined;
  lk_clip_text(joined.text, sizeof joined.text, path.text,
               path.text[0] ? "." : "");
  lk_path whole;
  lk_clip_text(whole.text, sizeof whole.text, joined.text, word);
  return whole;
}

/* `<path>.<name>`, or with _2, _3, … before the last part when taken. */
static void unique_name(const lk_store *s, lk_path path, const char *name,
                        char *text, size_t size) {
  lk_path full = path_join(path, name);
  lk_clip_text(text, size, full.text, "");
  for (int n = 2; lk_store_find(s, text); n++) {
    char counted[96 + 16];
    snprintf(counted, sizeof counted, "%s_%d", path.text, n);
    lk_path base;
    lk_clip_text(base.text, sizeof base.text, counted, "");
    full = path_join(base, name);
    lk_clip_text(text, size, full.text, "");
  }
}

static lk_status collect_own(lk_layer *layer, lk_store *store, lk_path path,
                             lk_error *error) {
  for (int i = 0; i < layer->parameters; i++) {
    lk_layer_parameter *d = &layer->parameter[i];
    lk_parameter p = {.shape = d->shape, .kind = d->kind, .init = d->init,
                      .std = d->std,
                      .parts = {d->parts[0], d->parts[1], d->parts[2]}};
    unique_name(store, path, d->name, p.name, sizeof p.name);
    d->id = lk_store_add_parameter(store, &p);
    if (d->id == 0)
      return lk_fail(error, LK_OOM, "no host memory for a parameter's entry");
  }
  return LK_OK;
}

static bool is_container(const lk_layer *layer) {
  return layer->kind == LK_LAYER_sequential || layer->kind == LK_LAYER_residual;
}

/* The word that `layer`, child number `n` of `parent`, adds to the path. */
static const char *path_word(const lk_layer *layer, const lk_layer *parent,
                             int n, char *number, size_t size) {
  if (layer->name[0]) return layer->name;
  if (!is_container(layer)) return lk_layer_kind_word(layer->kind);
  if (layer->kind == LK_LAYER_residual || parent == NULL ||
      parent->kind != LK_LAYER_sequential)
    return "";
  snprintf(number, size, "%d", n);
  return number;
}

static lk_status collect(lk_layer *layer, const lk_layer *parent, int n,
                         lk_store *store, lk_path path, lk_error *error) {
  char number[16];
  const char *word = path_word(layer, parent, n, number, sizeof number);
  if (word[0]) path = path_join(path, word);
  LK_TRY(collect_own(layer, store, path, error));
  for (int i = 0; i < layer->children; i++)
    LK_TRY(collect(layer->child[i], layer, i, store, path, error));
  return LK_OK;
}

static void forget(lk_layer *layer) {
  for (int i = 0; i < layer->parameters; i++) layer->parameter[i].id = 0;
  for (int i = 0; i < layer->children; i++) forget(layer->child[i]);
}

lk_status lk_layer_collect(lk_layer *layer, lk_store *store,
                           lk_error *error) {
  forget(layer);
  return collect(layer, NULL, 0, store, (lk_path){""}, error);
}

/* --- emission ------------------------------------------------------------ */

lk_value lk_layer_emit(lk_graph *g, lk_layer *layer, lk_value x) {
  if (!lk_graph_ok(g)) return LK_NONE;
  return rules[layer->kind].emit(g, layer, x);
}

lk_value lk_layer_operand(lk_graph *g, const lk_layer *layer, int n) {
  int id = layer->parameter[n].id;
  if (id == 0)
    return lk_graph_fail(g, LK_ARGUMENT, "%s: its parameters are not in this "
                         "model (a tied head needs its embedding in it)",
                         lk_layer_kind_word(layer->kind));
  return lk_weight_operand(g, id);
}

lk_value lk_layer_product(lk_graph *g, const lk_layer *layer, int n, bool bias,
                          lk_value x) {
  int id = layer->parameter[n].id;
  x = lk_force(g, x);
  lk_value y =
      id && lk_can_e4m3(g, x, layer->parameter[n].shape)
          ? lk_emit_e4m3(g, x, id)
          : lk_emit1(g, LK_OP_matmul, LK_IN(x, lk_layer_operand(g, layer, n)),
                     LK_ATTRS(.transpose_b = true));
  if (!bias) return y;
  return lk_emit1(g, LK_OP_bias, LK_IN(y, lk_layer_operand(g, layer, n + 1)),
                  LK_ATTRS(0));
}
