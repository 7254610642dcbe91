/* The store: a model's parameters and every buffer that outlives a step. */
#ifndef LK_GRAPH_STORE_H
#define LK_GRAPH_STORE_H

#include "graph.h"

typedef enum lk_init { LK_INIT_NORMAL, LK_INIT_ONES, LK_INIT_ZEROS } lk_init;

typedef enum lk_parameter_kind {
  LK_KIND_LINEAR, LK_KIND_EMBEDDING, LK_KIND_HEAD, LK_KIND_NORM, LK_KIND_BIAS,
  LK_KIND_CUSTOM, LK_KIND_COUNT
} lk_parameter_kind;
const char *lk_parameter_kind_word(lk_parameter_kind kind);

/* Buffers a parameter can have; which of them depends on its weight format and
 * its optimizer. */
typedef enum lk_part {
  LK_PART_MASTER,     /* f32 weights */
  LK_PART_COPY,       /* weights in the compute dtype */
  LK_PART_CODES,      /* 4-bit codes */
  LK_PART_SCALES,     /* one per block of codes */
  LK_PART_RESIDUAL,   /* int8 rest */
  LK_PART_MOMENT1,    /* AdamW's first moment, momentum */
  LK_PART_MOMENT2,    /* AdamW's second moment */
  LK_PART_MSCALE,     /* scales of an int8 momentum */
  LK_PART_COUNT
} lk_part;
const char *lk_part_word(lk_part part);

struct lk_weight_format;
struct lk_optimizer_group;

typedef struct lk_parameter {
  char name[96];            /* "blocks.0.attention.qkv.weight" */
  lk_shape shape;           /* linear weights: [out, in] */
  lk_parameter_kind kind;
  lk_init init;
  double std;
  int index;                /* from 1 */
  int64_t block;            /* quantized: values a scale */
  int64_t parts[3];         /* rows of the matrices stored as one, or 0 */
  const struct lk_weight_format *format;
  const struct lk_optimizer_group *group;
  int part[LK_PART_COUNT];  /* buffers, 0: none */
} lk_parameter;

/* One persistent piece of device memory. */
typedef struct lk_buffer {
  char name[112];
  lk_dtype dtype;
  lk_shape shape;
  lk_category category;
  int parameter;            /* 0: none */
  lk_part part;
  int64_t offset;           /* in its category's arena, once planned */
} lk_buffer;

typedef struct lk_store {
  lk_parameter *parameters; /* [0] unused */
  int parameter_count, parameter_room;
  lk_buffer *buffers;       /* [0] unused */
  int buffer_count, buffer_room;
  bool starved; /* an entry found no memory */
} lk_store;

void lk_store_free(lk_store *store);
/* LK_OOM when an entry found no memory since the store was made. */
lk_status lk_store_check(const lk_store *store, lk_error *error);
/* A new parameter; returns its index, 0 without memory. */
int lk_store_add_parameter(lk_store *store, const lk_parameter *parameter);
int lk_store_parameter_count(const lk_store *store);
lk_parameter *lk_store_parameter(const lk_store *store, int index);
/* The parameter called `name`, or NULL. */
lk_parameter *lk_store_find(const lk_store *store, const char *name);
/* The buffer called `name`; 0 when there is none. */
int lk_store_find_buffer(const lk_store *store, const char *name);
/* A new buffer, or the one of that name; returns its index, 0 without
 * memory. */
int lk_store_add_buffer(lk_store *store, const char *name, lk_dtype dtype,
                        lk_shape shape, lk_category category);
/* A buffer for a part of a parameter, named "<parameter>.<part>". */
void lk_store_add_part(lk_store *store, lk_parameter *parameter, lk_part part,
                       lk_dtype dtype, lk_shape shape, lk_category category);

/* --- weight formats --------------------------------------------------------
 * How a parameter is kept: its buffers, the operand that layers multiply with,
 * and how an update is applied. Layers and optimizers do not know which. */

typedef struct lk_update {
  lk_value direction;       /* o, the parameter's shape, f32 or bf16 */
  double lr, scale, decay;
} lk_update;

typedef struct lk_weight_format {
  const char *name;         /* "f32", "nf4r", … */
  bool quantized;
  bool int8_momentum;
  bool stochastic;          /* rounding of a format without residual */
  bool frozen;              /* codes never change: a control */
  bool residual;
} lk_weight_format;

/* NULL-name-ended: f32, nf4r, and the controls of fp4.md §4. */
extern const lk_weight_format lk_weight_formats[];
const lk_weight_format *lk_weight_format_find(const char *name);

typedef struct lk_weight_options {
  const lk_weight_format *format;
  int64_t block;            /* values a scale */
  bool search;              /* search each block's scale */
  lk_dtype compute;
} lk_weight_options;

/* Whether a quantizer takes a parameter of at least `from` elements: linear
 * weights, also a user's; never embeddings, norms, biases, the head. */
bool lk_is_quantizable(const lk_parameter *parameter, int64_t from);
/* Give a parameter its buffers under `options`. */
void lk_weight_declare(lk_store *store, lk_parameter *parameter,
                       const lk_weight_options *options);
/* Where nothing is made again, and so what is decoded is kept: decode all
 * weights in a row, before the first layer (many small calls: beside.h). */
void lk_weights_decode(lk_graph *graph);
/* The value to multiply with, in the graph's compute dtype (norm weights and
 * biases: f32). */
lk_value lk_weight_operand(lk_graph *graph, int parameter);
/* The same in e4m3 by rows, from what is kept; `turned`: rows of its
 * transpose. */
lk_rows lk_weight_rows(lk_graph *graph, int parameter, bool turned);
/* Emit an update of the weights. */
void lk_weight_update(lk_graph *graph, lk_parameter *parameter,
                      const lk_weight_options *options, lk_update update);
/* The dtype in which a parameter's gradient gathers; no library multiplies f16
 * into bf16. */
lk_dtype lk_parameter_gradient_dtype(const lk_parameter *parameter,
                                     lk_dtype compute, int64_t accumulate);

/* "<a><b>" into text, cut where it does not fit. */
void lk_clip_text(char *text, size_t size, const char *a, const char *b);

#endif
