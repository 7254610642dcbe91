/* Functions: a few values in, one value out, and the gradients of its sum:
 * for looking at layers and for tests, through the machinery of programs. */
#ifndef LK_GRAPH_FUNCTION_H
#define LK_GRAPH_FUNCTION_H

#include "layer.h"
#include "run.h"

enum { LK_FUNCTION_INPUTS = 16 };

typedef struct lk_function {
  lk_store store;
  lk_graph graph;
  lk_plan plan;
  lk_machine machine;
  int clock;                              /* buffer */
  int inputs, input[LK_FUNCTION_INPUTS];  /* parameters, from 1 */
  lk_value value[LK_FUNCTION_INPUTS];     /* what the caller emits on */
  int output;                             /* buffer of the result */
  int gradient[LK_FUNCTION_INPUTS];       /* buffers, 0: not reached */
} lk_function;

/* Begin: inputs of the given f32 shapes (or i32: never differentiated), and
 * the parameters of `layer` (may be NULL) drawn from `seed`. */
lk_status lk_function_begin(lk_function *function, const lk_profile *profile,
                            const lk_tensor *inputs, int count,
                            lk_layer *layer, bool training, lk_error *error);
/* End: `result` is the value that the caller emitted. */
lk_status lk_function_end(lk_function *function, lk_value result,
                          bool differentiate, lk_error *error);
/* Allocate, copy the inputs' data (same device) in, and run. Afterwards the
 * output and gradient buffers hold results. */
lk_status lk_function_run(lk_function *function, lk_context *context,
                          const lk_tensor *inputs, uint64_t seed);
/* Frees everything; a zeroed function is fine. */
void lk_function_free(lk_function *function);

#endif
