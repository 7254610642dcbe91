/* Matrix products through cuBLASLt, row-major: descriptions and algorithms are
 * found once per shape and kept in the context. */
#ifndef LK_CUDA_GEMM_CUH
#define LK_CUDA_GEMM_CUH

#include "device.cuh"

/* `batch` products d [m, n] = alpha · op(a) · op(b) + beta · c with f32
 * accumulation; op(a) is [m, k], op(b) [k, n]. ld*: elements from row to row,
 * step*: from product to product. c may be d; it is not read if beta is 0.
 * in = e4m3: a is as it lies, b transposed, one dense product, beta 0; row m of
 * a counts scale_a[m] times, row n of b scale_b[n] times. fast: in = e4m3:
 * sums may be kept with fewer bits than f32 has; in = f32: a and b may be
 * rounded to tf32, as they are while the context says so. */
typedef struct gemm {
  lk_dtype in, out;
  bool transpose_a, transpose_b;
  int64_t m, n, k, batch;
  float alpha, beta;
  const void *a, *b, *c;
  void *d;
  int64_t lda, ldb, ldd, step_a, step_b, step_d;
  const float *scale_a, *scale_b;
  bool fast;
} gemm;

/* One dense product, or `batch` of them one after the other in memory: leading
 * dimensions and steps follow. beta 0 or 1 adds to d. */
CUDA_HIDDEN gemm gemm_dense(lk_dtype in, lk_dtype out, bool transpose_a,
                            bool transpose_b, int64_t m, int64_t n, int64_t k,
                            int64_t batch);

/* LK_UNSUPPORTED when the library has no algorithm for these types. `what`
 * names the operator in messages. */
CUDA_HIDDEN lk_status gemm_run(lk_context *context, const gemm *product,
                               const char *what);

CUDA_HIDDEN lk_status gemm_open(lk_context *context);
CUDA_HIDDEN void gemm_close(lk_context *context);

/* y [width] = (or +=) the sum of `parts` rows of part [parts, stride]: how
 * every gradient of a row vector ends. */
CUDA_HIDDEN void cuda_parts_add(lk_context *context, const float *part,
                                int64_t parts, int64_t stride, int64_t width,
                                bool accumulate, float *y);

#endif
