/* Optimizers: who updates which parameter, by which rule, at which rate. */
#ifndef LK_GRAPH_OPTIMIZER_H
#define LK_GRAPH_OPTIMIZER_H

#include "graph.h"
#include "store.h"

typedef enum lk_optimizer_kind {
  LK_ADAMW, LK_MUON, LK_SGD
} lk_optimizer_kind;

/* One rule for the parameters whose name matches. */
typedef struct lk_optimizer_group {
  char match[96];       /* a name with '*'s; "" or "*" matches all */
  lk_optimizer_kind kind;
  double lr;
  double beta1, beta2;  /* momentum is beta1 */
  double eps, decay;
  bool nesterov;        /* SGD */
  int64_t steps;        /* Muon: Newton–Schulz iterations */
  bool split;           /* Muon: q, k and v apart, though stored as one */
} lk_optimizer_group;

typedef enum lk_schedule_kind {
  LK_CONSTANT, LK_COSINE, LK_LINEAR
} lk_schedule_kind;

typedef struct lk_schedule {
  lk_schedule_kind kind;
  double warmup;        /* fraction of `steps` with a rising rate */
  double final;         /* the rate at the end, as a fraction */
  int64_t steps;        /* optimizer steps in all; 0: constant after warm-up */
} lk_schedule;

enum { LK_OPTIMIZER_GROUPS = 16 };

typedef struct lk_optimizer {
  lk_optimizer_group group[LK_OPTIMIZER_GROUPS];
  int groups;
  lk_schedule schedule;
  double clip;          /* largest gradient norm; 0: none */
} lk_optimizer;

/* The factor on every rate at optimizer step `step`, from 0:
 * (t+1)/w over the first w = max(1, round(warmup · steps)) steps, then from 1
 * to `final` over the rest, by half a cosine or a line. */
double lk_schedule_rate(const lk_schedule *schedule, int64_t step);

/* '*' stands for any characters, dots included. */
bool lk_glob_match(const char *pattern, const char *text);

/* Choose each parameter's group: the first that matches (Muon: matrices
 * only). A parameter that none takes is an error. */
lk_status lk_optimizer_assign(const lk_optimizer *optimizer, lk_store *store,
                              lk_error *error);
/* Give each parameter the state that its group and format need. */
lk_status lk_optimizer_declare(lk_store *store, lk_error *error);

/* Where the sums of squares of a parameter's gradient begin among the slots:
 * behind those of all parameters before it. So of the count + 1st: how many
 * slots there are. */
int64_t lk_optimizer_slot(const lk_store *store, int parameter);

/* Emits updates while the reverse pass tells of final gradients. */
typedef struct lk_updates {
  const lk_weight_options *weights;
  lk_value slots;          /* Σ g² by pieces of parameters' gradients */
  bool fused;              /* Muon inside the backward */
  int fuse_group;          /* same-shaped matrices in one batch */
  struct lk_final_gradient {
    int parameter;
    lk_value gradient;
  } *fresh,                /* not measured yet */
    *waiting, *late;       /* for a batch; for the end of the step */
  int fresh_count, waiting_count, late_count;
} lk_updates;

lk_status lk_updates_open(lk_updates *updates, const lk_store *store,
                          lk_error *error);
void lk_updates_close(lk_updates *updates);
/* An lk_final; `state` is the lk_updates. */
void lk_updates_final(lk_graph *graph, int parameter, lk_value gradient,
                      void *state);
/* After the reverse pass: what is left, clipping, and all late updates. */
void lk_updates_finish(lk_graph *graph, lk_updates *updates);

#endif
