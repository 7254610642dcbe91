/* What a program holds; for program*.c and generate.c only. */
#ifndef LK_GRAPH_PROGRAM_PRIVATE_H
#define LK_GRAPH_PROGRAM_PRIVATE_H

#include "program.h"

struct lk_program {
  lk_program_options o;
  lk_layer *model;
  lk_optimizer optimizer;
  bool has_optimizer, fused;
  bool scales;                /* losses, by what became of the gradients */
  const lk_profile *profile;
  lk_store store;
  lk_graph graph[2];          /* training (with an optimizer), evaluation */
  lk_plan plan[2];
  int graphs;
  lk_needs needs;
  int ids, targets, clock, control, metrics, slots;  /* buffers */
  /* while open */
  bool open;
  lk_machine machine;
  int64_t step, micro;        /* of the step that runs */
  int64_t steps;              /* made since the initial weights */
  double rate, muon_factor;
  lk_scaling scaling;
};

/* Put the parameters of the program's model into `store`, with their buffers
 * in the program's formats. */
lk_status lk_program_declare(const lk_program *program, lk_store *store,
                             lk_error *error);

#endif
