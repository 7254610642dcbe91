/* Sections as recordings (CUDA graphs): noted down once, replayed after that.
 * What changes from step to step lies in device memory: ids, targets, clock,
 * control. */
#ifndef LK_GRAPH_RECORD_H
#define LK_GRAPH_RECORD_H

#include "../core/context.h"

typedef struct lk_recording {
  int runs;       /* call by call, before it was made */
  bool refused;   /* it cannot be made: call by call for good */
  void *made;
} lk_recording;

/* Run what `run(state)` runs: itself the first time (libraries choose, code is
 * loaded), then through `recording`, which is made the second time; itself
 * again wherever the backend cannot record it. */
lk_status lk_record_run(lk_context *context, lk_recording *recording,
                        lk_status (*run)(void *state), void *state);
void lk_record_forget(lk_context *context, lk_recording *recording);

#endif
