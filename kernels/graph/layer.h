/* Layers: descriptions of a model. Nothing is allocated on a device and nothing
 * computed; compiling walks the tree and lets each layer emit operators. */
#ifndef LK_GRAPH_LAYER_H
#define LK_GRAPH_LAYER_H

#include "graph.h"
#include "store.h"

typedef enum lk_layer_kind {
#define LAYER(name, doc) LK_LAYER_##name,
#include "layers.def"
#undef LAYER
  LK_LAYER_COUNT
} lk_layer_kind;
const char *lk_layer_kind_word(lk_layer_kind kind);

typedef struct lk_layer lk_layer;

/* A user's layer: emits operators on x and the operands of its parameters (in
 * the order declared); reports failure in the graph. x and the result are
 * [B, T, C] (x is [B, T] ids where nothing came before). */
typedef struct lk_custom {
  lk_value (*emit)(lk_graph *graph, lk_value x, const lk_value *parameters,
                   void *state);
  void (*release)(void *state);
  void *state;
} lk_custom;

/* Options of all kinds; each reads its own. Zero is every option's "off". */
typedef struct lk_layer_options {
  int64_t in, out;          /* channels; embedding, untied head: V and C */
  int64_t hidden;           /* gated: F */
  int64_t heads, kv_heads, width;
  bool bias;
  double p;                 /* dropout; attention: on its probabilities */
  double eps, scale;
  bool rope, rope_inclusive, rope_inverse, qk_norm;
  double rope_base, rope_fraction;
  double std;               /* of initial weights */
  lk_layer *tied;           /* head: the embedding whose table it shares */
  lk_custom custom;
} lk_layer_options;

enum { LK_LAYER_PARAMETERS = 16 };

/* What a layer declares; `id` is its place in the store of the program being
 * compiled. */
typedef struct lk_layer_parameter {
  char name[32];
  lk_shape shape;
  lk_parameter_kind kind;
  lk_init init;
  double std;
  int64_t parts[3];         /* see lk_parameter */
  int id;
} lk_layer_parameter;

struct lk_layer {
  lk_layer_kind kind;
  char name[32];            /* given by the user; "" otherwise */
  lk_layer_options o;
  lk_layer **child;
  int children;
  lk_layer_parameter parameter[LK_LAYER_PARAMETERS];
  int parameters;
  int references;
};

/* A layer of `kind`; checks the options and declares the parameters. Takes a
 * reference of each child and of o->tied, and owns o->custom.state from here,
 * also on failure. The caller owns one reference of the result. */
lk_status lk_layer_new(lk_layer_kind kind, const char *name,
                       const lk_layer_options *options,
                       lk_layer *const *children, int count, lk_layer **layer,
                       lk_error *error);
void lk_layer_retain(lk_layer *layer);
void lk_layer_release(lk_layer *layer);

/* One more parameter of a custom layer (before it is compiled). */
lk_status lk_layer_add_parameter(lk_layer *layer, const char *name,
                                 lk_shape shape, lk_init init, double std,
                                 lk_error *error);

/* Give every parameter in the tree a name and a place in `store`, in the
 * order of the tree. */
lk_status lk_layer_collect(lk_layer *layer, lk_store *store, lk_error *error);

/* Emit a layer on x. */
lk_value lk_layer_emit(lk_graph *graph, lk_layer *layer, lk_value x);

/* --- for layer_*.c ------------------------------------------------------- */

typedef struct lk_layer_rules {
  lk_status (*declare)(lk_layer *layer, lk_error *error);
  lk_value (*emit)(lk_graph *graph, lk_layer *layer, lk_value x);
} lk_layer_rules;
#define LAYER(name, doc)                                                    \
  lk_status layer_##name##_declare(lk_layer *layer, lk_error *error);       \
  lk_value layer_##name##_emit(lk_graph *graph, lk_layer *layer, lk_value x);
#include "layers.def"
#undef LAYER

void lk_layer_declare(lk_layer *layer, const char *name, lk_shape shape,
                      lk_parameter_kind kind, lk_init init, double std);
/* The operand of the layer's n-th parameter, from 0. */
lk_value lk_layer_operand(lk_graph *graph, const lk_layer *layer, int n);
/* x wᵀ (+ bias) with the layer's parameters n (and n + 1). */
lk_value lk_layer_product(lk_graph *graph, const lk_layer *layer, int n,
                          bool bias, lk_value x);

#endif
