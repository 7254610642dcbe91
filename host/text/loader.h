/* Batches from tokens. Training: sample i of optimizer step s is a function of
 * (seed, s, i) alone, so the order does not depend on how a step is split into
 * micro-batches, on threads, or on where a run was resumed. Evaluation: fixed
 * windows, one after the other.
 *
 * An epoch is a random permutation of the windows of seq tokens (a Feistel
 * network keyed by Philox, so no table), each epoch starting at another offset
 * below seq; every window is drawn once per epoch. Sample s · batch + i of the
 * run is window number (that mod windows) of epoch (that / windows). */
#ifndef LH_TEXT_LOADER_H
#define LH_TEXT_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "../../kernels/base/status.h"
#include "tokens.h"

typedef struct lh_loader_options {
  int64_t seq;            /* T: tokens of a sample */
  int64_t batch;          /* samples of one optimizer step */
  uint64_t seed;
  bool sequential;        /* for evaluation */
  int64_t max_tokens;     /* sequential: targets at most (whole windows, one
                             at least); 0: all */
} lh_loader_options;

typedef struct lh_loader lh_loader;

/* A loader that keeps a reference to its tokens. ARGUMENT when they are fewer
 * than seq + 1; OOM. */
lk_status lh_loader_new(lh_tokens *tokens, const lh_loader_options *options,
                        lh_loader **out, lk_error *e);
void lh_loader_free(lh_loader *loader); /* NULL is fine */

/* Samples first … first + count − 1 of optimizer step `step` (all 0-based) as
 * x [count, seq] and y [count, seq], y one token ahead. Where a sequential
 * loader has no window left, x is 0 and y −1. The samples that follow are
 * prepared on a thread meanwhile. Calls from one thread at a time. ARGUMENT;
 * IO, FORMAT when the token file fails. */
lk_status lh_loader_fill(lh_loader *loader, int64_t step, int64_t first,
                         int64_t count, int32_t *x, int32_t *y, lk_error *e);
/* Prepare these samples on the thread; a hint that may be ignored. */
void lh_loader_prefetch(lh_loader *loader, int64_t step, int64_t first,
                        int64_t count);

const lh_loader_options *lh_loader_about(const lh_loader *loader);
const lh_tokens *lh_loader_tokens(const lh_loader *loader);
/* Windows of an epoch; of the whole, where sequential. */
int64_t lh_loader_windows(const lh_loader *loader);
/* Optimizer steps that cover all windows once, rounded up. */
int64_t lh_loader_steps(const lh_loader *loader);
/* Epochs done before optimizer step `step`, with fraction. */
double lh_loader_epochs(const lh_loader *loader, int64_t step);

#endif
