/* Programs: a model compiled for one batch shape — planned before anything is
 * allocated, then run without a thought.
 *
 *   lk_program_new(&options, model, &optimizer, profile, &p, &e);  // no device
 *   lk_program_memory(p, &m);                                      // exact
 *   lk_program_open(p, context, LK_RUN_ARENA);                     // allocates
 *   lk_program_begin(p, step);
 *   lk_program_micro(p, ids, targets);       // `accumulate` times
 *   lk_program_finish(p, &result);           // the one synchronization
 */
#ifndef LK_GRAPH_PROGRAM_H
#define LK_GRAPH_PROGRAM_H

#include "layer.h"
#include "optimizer.h"
#include "recompute.h"
#include "run.h"
#include "scaling.h"

typedef struct lk_program_options {
  int64_t batch, seq;       /* sequences of a micro-batch, their positions */
  int64_t accumulate;       /* micro-batches of an optimizer step */
  lk_recompute recompute;
  bool saved_int8;
  bool e4m3;                /* linear layers multiply in e4m3 */
  bool tf32;                /* products of f32 in tf32 (lk_context) */
  lk_weight_options weights;/* .compute is the activations' dtype, too */
  int64_t quantize_from;    /* elements from which a weight is quantized */
  int fuse;                 /* Muon inside the backward: 1, 0, -1: when weights
                               are quantized, accumulate is 1 and losses are
                               not scaled */
  int fuse_group;           /* same-shaped matrices orthogonalized at once; 0:
                               by the device */
  int64_t head_chunk;       /* rows of logits at a time; 0 auto, -1 all */
  bool scale_losses;        /* loss scaling without f16, too: to look at it */
  uint64_t seed;
} lk_program_options;

/* batch 1, seq 128, accumulate 1, recompute light, f32, block 64, fuse -1,
 * groups by the device. */
lk_program_options lk_program_defaults(void);

typedef struct lk_program lk_program;

/* Compile. Keeps a reference of `model` and a copy of the rest; no device. An
 * absent optimizer (NULL) gives an evaluation program alone. */
lk_status lk_program_new(const lk_program_options *options, lk_layer *model,
                         const lk_optimizer *optimizer,
                         const lk_profile *profile, lk_program **program,
                         lk_error *error);
void lk_program_free(lk_program *program);

/* The same model and optimizer with another batch; otherwise lk_program_new. */
lk_status lk_program_rebatch(const lk_program *program, int64_t batch,
                             int64_t accumulate, lk_program **other,
                             lk_error *error);

/* --- before it runs ------------------------------------------------------ */

typedef struct lk_program_memory {
  int64_t peak;                          /* bytes the accountant will see */
  int64_t category[LK_CATEGORY_COUNT];   /* sums to `peak` */
  int64_t live_peak;                     /* without what packing loses */
  int64_t arena;                         /* of transient memory */
  double state_per_weight;               /* bytes of weights, gradients and
                                            optimizer a quantizable element */
} lk_program_memory;
void lk_program_memory_of(const lk_program *program, lk_program_memory *memory);

typedef struct lk_program_count {
  int64_t parameters, quantized, quantizable, muon, adamw, sgd;
} lk_program_count;
void lk_program_count_of(const lk_program *program, lk_program_count *count);

typedef struct lk_program_work {
  double micro_flops, micro_bytes;       /* a micro-batch, as executed */
  double update_flops, update_bytes;     /* the rest of an optimizer step */
  double model_flops;                    /* 6·N + 6·L·d·T a token, times the
                                            tokens of a micro-batch */
} lk_program_work;
void lk_program_work_of(const lk_program *program, lk_program_work *work);

const lk_program_options *lk_program_options_of(const lk_program *program);
const lk_store *lk_program_store(const lk_program *program);
const lk_graph *lk_program_graph(const lk_program *program, bool training);
const lk_plan *lk_program_plan(const lk_program *program, bool training);
const lk_profile *lk_program_profile(const lk_program *program);
bool lk_program_fused(const lk_program *program);

/* --- running ------------------------------------------------------------- */

/* Allocate, then initialize every parameter from the seed. */
lk_status lk_program_open(lk_program *program, lk_context *context,
                          lk_run_mode mode);
/* Free device memory; the program can be opened again. */
void lk_program_close(lk_program *program);
/* Back to step 0: initial weights, empty optimizer state. */
lk_status lk_program_reset(lk_program *program);
lk_machine *lk_program_machine(lk_program *program);   /* NULL when closed */

typedef struct lk_step_result {
  double loss;              /* mean over the step's tokens, nats */
  double accuracy;          /* top-1 */
  double norm;              /* of the gradient, before clipping */
  double rate;              /* the schedule's factor */
  int64_t tokens;
  bool finite;              /* false: no update was made from then on */
  bool skipped;             /* losses are scaled and gradients were not finite:
                               nothing but the scale has changed */
  double scale;             /* what the losses were multiplied with */
} lk_step_result;

/* One optimizer step, `step` from 0: begin, `accumulate` micro-batches of
 * ids and targets i32 [B·T] on the host, finish. */
lk_status lk_program_begin(lk_program *program, int64_t step);
lk_status lk_program_micro(lk_program *program, const int32_t *ids,
                           const int32_t *targets);
lk_status lk_program_finish(lk_program *program, lk_step_result *result);

/* Evaluation without dropout: sums over one batch added to *loss, *correct. */
lk_status lk_program_evaluate(lk_program *program, const int32_t *ids,
                              const int32_t *targets, double *loss,
                              double *correct);

/* Ids and targets of one micro-batch spread over the vocabulary of the model's
 * embedding, for timing: a batch of few words is slower to embed. */
void lk_program_spread(const lk_program *program, int32_t *ids,
                       int32_t *targets);

/* What a checkpoint holds beside the store's buffers: how many steps were
 * made, which is the number of the next one, and Muon's clip factor for it. */
int64_t lk_program_steps(const lk_program *program);
void lk_program_set_steps(lk_program *program, int64_t steps);
double lk_program_muon_factor(const lk_program *program);
void lk_program_set_muon_factor(lk_program *program, double factor);

/* Whether losses are scaled, as in f16; and where the scale stands, which a
 * checkpoint holds, too. Set on a program that does not scale it stays. */
bool lk_program_scales(const lk_program *program);
lk_scaling lk_program_scaling(const lk_program *program);
void lk_program_set_scaling(lk_program *program, lk_scaling scaling);

/* The gradient of a parameter after lk_program_micro and before finish, f32 or
 * bf16, times the loss scale, as a tensor in the arena; LK_ARGUMENT when the
 * program is fused or the name unknown. For tests. */
lk_status lk_program_gradient(lk_program *program, const char *name,
                              lk_tensor *gradient);

/* One line an instruction: section, operator, values with shapes, bytes,
 * offsets. The caller frees *text. */
lk_status lk_program_listing(const lk_program *program, bool training,
                             char **text, lk_error *error);

#endif
