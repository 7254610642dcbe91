/* The memory plan: where every transient value of a graph lives, and the exact
 * bytes of everything, before anything is allocated. */
#ifndef LK_GRAPH_PLAN_H
#define LK_GRAPH_PLAN_H

#include "graph.h"

/* The life of one piece of transient memory: a value with all its views and
 * in-place successors, or the scratch of one instruction. */
typedef struct lk_block {
  int64_t bytes, offset;
  int first, last;         /* instructions, inclusive */
  lk_category category;
  lk_value value;          /* its first value; LK_NONE: scratch of `first` */
} lk_block;

typedef struct lk_plan {
  int64_t arena;           /* bytes of the transient arena */
  int64_t live_peak;       /* largest sum of live bytes; arena − this is lost
                              to packing */
  int peak_instr;          /* where that is */
  int64_t at_peak[LK_CATEGORY_COUNT];  /* what is live there */
  lk_block *blocks;
  int block_count;
  int *block_of_value;     /* by value; -1: not transient */
  int *block_of_scratch;   /* by instruction; -1: none */
  int instr_count;
} lk_plan;

/* Plan `graph`. LK_OOM without host memory. */
lk_status lk_plan_make(const lk_graph *graph, lk_plan *plan, lk_error *error);
void lk_plan_free(lk_plan *plan);

/* Bytes live at each instruction, by category, into
 * live[instr_count][LK_CATEGORY_COUNT]. */
void lk_plan_timeline(const lk_plan *plan,
                      int64_t (*live)[LK_CATEGORY_COUNT]);

#endif
