/* Loss scaling: losses are multiplied so that f16 gradients keep clear of its
 * smallest numbers, and the factor finds itself. A step whose gradients are not
 * finite changes nothing and halves the scale; after 2000 good steps in a row
 * it doubles (Micikevicius et al. 2018, §3.2; torch.amp.GradScaler). A power of
 * two leaves no trace in what does not overflow or underflow. */
#ifndef LK_GRAPH_SCALING_H
#define LK_GRAPH_SCALING_H

#include <stdbool.h>
#include <stdint.h>

enum {
  LK_SCALING_FIRST = 1 << 16,
  LK_SCALING_MOST = 1 << 24,  /* it grows no further; set higher, it falls */
  LK_SCALING_PATIENCE = 2000  /* good steps in a row before it doubles */
};

typedef struct lk_scaling {
  double scale;     /* of the next step's losses */
  int64_t good;     /* steps in a row since the scale changed */
  int64_t skipped;  /* steps that changed nothing, from the start */
} lk_scaling;

/* Where a program begins: LK_SCALING_FIRST when it scales, else 1. */
lk_scaling lk_scaling_first(bool scales);

/* What follows a step that updated (`finite`) or was skipped. The scale does
 * not fall below 1 / LK_SCALING_MOST. */
lk_scaling lk_scaling_next(lk_scaling s, bool finite);

#endif
