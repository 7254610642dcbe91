/* A graph: symbolic values and the list of operator calls on them, before and
 * after the reverse pass. Layers, gradient rules and optimizers only emit.
 *
 *   lk_value h = lk_emit1(g, LK_OP_matmul, LK_IN(x, w), attr);
 *
 * Emitting never fails visibly: the first failure sticks in graph->error, later
 * emissions do nothing and give LK_NONE; whoever built the graph looks once. */
#ifndef LK_GRAPH_GRAPH_H
#define LK_GRAPH_GRAPH_H

#include "../core/context.h"

typedef int32_t lk_value;
enum { LK_NONE = 0 };

/* Where an instruction runs. */
typedef enum lk_section {
  LK_SETUP,   /* once, after allocation */
  LK_BEGIN,   /* once an optimizer step, first */
  LK_MICRO,   /* for every micro-batch */
  LK_UPDATE,  /* once an optimizer step, last */
  LK_SECTION_COUNT
} lk_section;

typedef struct lk_instr {
  lk_op op;
  lk_section section;
  lk_value out[LK_MAX_RESULTS], in[LK_MAX_INPUTS];
  lk_attr attr;
  lk_cost cost;
  bool backward, recomputed;  /* for listings and counts */
  int block;                  /* of the layer tree, 0: none */
} lk_instr;

typedef struct lk_value_info {
  lk_dtype dtype;
  lk_shape shape;
  lk_category category;
  int buffer;        /* > 0: a persistent buffer of the store; 0: transient */
  lk_value base;     /* a view of this value's memory, from byte `offset` */
  int64_t offset;
  int producer;      /* > 0: instruction + 1 that makes it (again); < 0: the
                        recipe -1 - producer makes it again; 0: none */
  int result;        /* which of its results */
  lk_value seen;     /* what the backward reads in its place */
  int parameter;     /* > 0: what multiplies in for this parameter */
  lk_value codes, scales; /* its rows in e4m3, once somebody asked */
  lk_value source;   /* codes: the value they stand for */
  bool cheap;        /* norms, activations: dropped by `light` */
  bool forced;       /* dropped always (saved in int8; weights decoded to be
                        multiplied with, where anything is made again) */
  bool in_mlp;       /* dropped by `mlp` */
  int block;         /* > 0: dropped by `block` */
  bool wants;        /* a gradient is needed */
  char name[48];
} lk_value_info;

typedef enum lk_recompute {
  LK_RECOMPUTE_NONE, LK_RECOMPUTE_LIGHT, LK_RECOMPUTE_MLP, LK_RECOMPUTE_BLOCK
} lk_recompute;

struct lk_store;

typedef struct lk_graph {
  const lk_profile *profile;
  struct lk_store *store;      /* parameters and persistent buffers */
  lk_value_info *values;       /* [0] is LK_NONE */
  int value_count, value_room;
  lk_instr *instrs;
  int instr_count, instr_room;
  lk_error error;              /* code LK_OK while all is well */
  /* what layers may ask */
  bool training;
  int64_t batch, seq, accumulate;
  lk_recompute recompute;
  bool saved_int8;
  bool e4m3;                   /* linear layers multiply in e4m3 */
  lk_dtype compute;
  int64_t head_chunk;          /* rows of logits at a time; 0: by profile */
  lk_value ids, targets, clock, control, metrics;
  struct lk_generation {       /* of text (generate.c); else all zero */
    bool on;                   /* the head gives logits */
    bool cached;               /* attention goes through caches */
    int64_t context;           /* positions that a cache has room for */
    lk_value positions;        /* i32 [seq], where the rows stand */
    lk_value row;              /* i32 [batch], whose logits are wanted */
    lk_value logits;           /* f32 [batch, V], once the head was emitted */
    int caches;                /* of attention layers so far */
  } generation;
  /* where emission stands */
  lk_section section;
  bool in_backward, in_recompute;
  int block, block_count;
  bool in_mlp;
  uint32_t streams;            /* random streams handed out */
  struct lk_pending *pending;  /* sums not yet emitted */
  int pending_count, pending_room;
  lk_instr *recipes;           /* cheaper ways to make a value again */
  int recipe_count, recipe_room;
  struct lk_parameter_gradient {
    lk_value value;            /* where the gradient of a parameter gathers */
    bool written;              /* something was put there this micro-batch */
  } *parameter_gradients;      /* by parameter, from 1 */
  lk_value *decoded;           /* likewise, its weight; NULL: when wanted */
} lk_graph;

#define LK_IN(...) ((const lk_value[LK_MAX_INPUTS]){__VA_ARGS__})
#define LK_OUT(...) ((const lk_value[LK_MAX_RESULTS]){__VA_ARGS__})
#define LK_ATTRS(...) ((lk_attr){__VA_ARGS__})

typedef struct lk_results {
  lk_value v[LK_MAX_RESULTS];
} lk_results;

void lk_graph_init(lk_graph *graph);
void lk_graph_free(lk_graph *graph);

/* A transient value; its name is for listings. */
lk_value lk_value_new(lk_graph *graph, lk_dtype dtype, lk_shape shape,
                      lk_category category, const char *name);
/* The value that stands for a persistent buffer of the store. */
lk_value lk_value_of_buffer(lk_graph *graph, int buffer);
/* `shape` of dtype `dtype` inside the memory of `base`, from byte `offset`. */
lk_value lk_value_view(lk_graph *graph, lk_value base, int64_t offset,
                       lk_dtype dtype, lk_shape shape);
lk_value_info *lk_value_get(const lk_graph *graph, lk_value value);
lk_shape lk_value_shape(const lk_graph *graph, lk_value value);
lk_dtype lk_value_dtype(const lk_graph *graph, lk_value value);

/* Append a call. `in` in the operator's order (LK_NONE: absent); `out` NULL, or
 * the results that exist already (LK_NONE: inferred and created). */
lk_results lk_emit(lk_graph *graph, lk_op op, const lk_value *in,
                   const lk_value *out, lk_attr attr);
/* The same, for the first result. */
lk_value lk_emit1(lk_graph *graph, lk_op op, const lk_value *in, lk_attr attr);
/* A call with one result of preset dtype and shape. */
lk_value lk_emit_as(lk_graph *graph, lk_op op, const lk_value *in,
                    lk_dtype dtype, lk_shape shape, lk_attr attr);

/* x under another shape (no copy). */
lk_value lk_emit_reshape(lk_graph *graph, lk_value x, lk_shape shape);
/* A random stream of this program's own. */
int64_t lk_graph_stream(lk_graph *graph);
/* Leave `message` as the graph's failure; returns LK_NONE. */
lk_value lk_graph_fail(lk_graph *graph, lk_status code, const char *format,
                       ...) __attribute__((format(printf, 3, 4)));
bool lk_graph_ok(const lk_graph *graph);

/* --- sums that wait for their consumer -------------------------------------
 * A residual layer's x + dropout(delta) is not emitted at once: a norm that
 * consumes it emits residual_norm, one pass over memory; anything else emits
 * residual. Likewise silu waits for a dropout. */

/* A value that stands for x + dropout(delta); materialized by lk_force. */
lk_value lk_pending_residual(lk_graph *graph, lk_value x, lk_value delta,
                             double p, int64_t stream);
/* A value that stands for dropout(x) with an activation or a bare value
 * underneath; `op` is silu, gated_silu or dropout. */
lk_value lk_pending_unary(lk_graph *graph, lk_op op, lk_value x);
/* The same value with its memory promised: emits what is pending. Every emit
 * does this for its inputs. */
lk_value lk_force(lk_graph *graph, lk_value value);
/* dropout(x), merged into x when x is pending and can take it. */
lk_value lk_emit_dropout(lk_graph *graph, lk_value x, double p);
/* x's parts, when it is a pending bare dropout: true, and *delta, p, stream. */
bool lk_pending_take_dropout(lk_graph *graph, lk_value x, lk_value *delta,
                             double *p, int64_t *stream);
/* rmsnorm(x) · w, merged with the sum that makes x when x is pending. */
lk_value lk_emit_norm(lk_graph *graph, lk_value x, lk_value w, double eps);
/* x as the backward will see it: with `saved = int8`, rounded to int8 with one
 * scale per up to 64 values of a row, only codes and scales being kept. */
lk_value lk_emit_saved(lk_graph *graph, lk_value x);
/* x [N, C] by rows in e4m3, made by what makes x where that can, else by a call
 * of its own; once for all who ask. */
typedef struct lk_rows {
  lk_value codes, scales;
} lk_rows;
lk_rows lk_emit_rows(lk_graph *graph, lk_value x);
/* Whether x · wᵀ can be had in e4m3, w of this shape: the graph's wish, and
 * sizes that are multiples of 16. */
bool lk_can_e4m3(const lk_graph *graph, lk_value x, lk_shape weight);
/* x · wᵀ in e4m3 for a parameter. */
lk_value lk_emit_e4m3(lk_graph *graph, lk_value x, int parameter);
/* The backward makes the results `out` of `recipe` by it, whatever made them
 * first. */
void lk_value_recipe(lk_graph *graph, lk_instr recipe);
/* Run the rule of an instruction again, whose results grew. */
void lk_instr_count(lk_graph *graph, int instr);
/* From here on x, the output of a block, survives `block` recompute. */
void lk_mark_boundary(lk_graph *graph, lk_value x);

/* --- the reverse pass ---------------------------------------------------- */

/* Told when the gradient of a parameter is final. */
typedef void (*lk_final)(lk_graph *graph, int parameter, lk_value gradient,
                         void *state);

/* Emit the backward of everything emitted so far. `seed` is a value whose
 * gradient is given as `seed_gradient`, or LK_NONE when a loss operator seeds
 * itself. */
void lk_graph_reverse(lk_graph *graph, lk_value seed, lk_value seed_gradient,
                      lk_final final, void *state);

/* What gradient rules use. */
typedef struct lk_reverse lk_reverse;
typedef void (*lk_gradient_rule)(lk_reverse *r, lk_graph *g, lk_instr i);
#define OP(name, results, inputs, attributes, gradient) \
  void gradient_##gradient(lk_reverse *r, lk_graph *g, lk_instr i);
#include "../core/ops.def"
#undef OP

/* The gradient that has reached `value`; LK_NONE if none. */
lk_value lk_gradient_of(lk_reverse *r, lk_value value);
/* Whether `value` needs a gradient. */
bool lk_wants(lk_reverse *r, lk_value value);
/* Add `gradient` to what reaches `value`. Its memory may be shared. */
void lk_contribute(lk_reverse *r, lk_value value, lk_value gradient);
/* Where an operator with a '+' result writes the gradient of `value`;
 * *accumulate says whether it adds. Follow with the emission, at once. */
lk_value lk_accumulator(lk_reverse *r, lk_value value, bool *accumulate);
/* The same for a parameter's operand, also before the reverse pass. */
lk_value lk_parameter_accumulator(lk_graph *graph, int parameter,
                                  bool *accumulate);
/* `value` as the backward sees it: itself, or made again if it was dropped. */
lk_value lk_saved(lk_reverse *r, lk_value value);

#endif
