/* Symmetric products of Newton-Schulz by a kernel of our own. */
#ifndef LK_CUDA_SCHULZ_CUH
#define LK_CUDA_SCHULZ_CUH

#include "device.cuh"

/* d [side, side] = alpha · a bᵀ + beta · c, symmetric, in f16: a and b are
 * [side, depth] or, turned, [depth, side], with `pitch` elements from row to
 * row, of a batch's products `step` apart; c (symmetric, not read if beta is 0)
 * and d are dense, and none of what is read is d. Where `shifted` is not NULL
 * it becomes d with `shift` added on the diagonal. Multiples of 16 bytes. */
typedef struct schulz_product {
  const void *a, *b, *c;
  void *d, *shifted;
  int64_t side, depth, pitch, step;
  float alpha, beta, shift;
  bool turned;
} schulz_product;

/* Whether there is a kernel for `count` of them here, and it is the sooner. */
CUDA_HIDDEN bool schulz_square_fits(const cuda_state *s, lk_dtype dtype,
                                    int64_t side, int64_t pitch,
                                    int64_t count);
/* Enqueue `count` of them on that many processors; gives the launch's error. */
CUDA_HIDDEN cudaError_t schulz_square_run(const schulz_product *product,
                                          int64_t count, int processors,
                                          cudaStream_t stream);

#endif
