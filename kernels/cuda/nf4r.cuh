/* What NF4R's kernels work on. */
#ifndef LK_CUDA_NF4R_CUH
#define LK_CUDA_NF4R_CUH

#include "blocks.cuh"

typedef struct nf4r_args {
  view w;                /* encode: the weights; master: the result */
  view o;                /* update: the direction */
  uint8_t *codes;
  float *absmax;
  int8_t *residual;      /* or NULL */
  const uint32_t *clock;
  const float *control;
  double lr;
  float scale, decay;
  uint32_t stream;
  bool stochastic, whole;
} nf4r_args;

/* The update as layers have it: a residual, a direction in bf16, whole groups,
 * blocks of one turn, no search. False, with nothing done, where it is not. */
CUDA_HIDDEN bool nf4r_update_fast(lk_context *context, const lk_call *call,
                                  const block_walk &w, const nf4r_args &a);

#endif
