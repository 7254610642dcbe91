/* Sampling: from logits to a token, on the host; the same bits on every
 * machine for the same logits. */
#ifndef LK_GRAPH_SAMPLE_H
#define LK_GRAPH_SAMPLE_H

#include <stdint.h>

#include "../base/status.h"

typedef struct lk_sampling {
  double temperature;  /* logits are divided by it; 0: the largest wins */
  int64_t top_k;       /* of the k most probable alone; 0: of all */
  double top_p;        /* then of the fewest whose probabilities reach this
                          share; 1: of all */
  uint64_t seed;
} lk_sampling;

/* Draw one of `words` tokens: number `draw` of sequence `stream`. Among equals
 * the smaller id comes first. LK_NONFINITE when a logit is NaN or all are
 * -inf, LK_ARGUMENT for a setting out of range, LK_OOM. */
lk_status lk_sample(const lk_sampling *sampling, const float *logits,
                    int64_t words, uint32_t stream, uint32_t draw,
                    int32_t *id, lk_error *error);

#endif
