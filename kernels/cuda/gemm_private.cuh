/* What gemm.cu (descriptions, table, launches) and gemm_choose.cu (which
 * algorithm) share. */
#ifndef LK_CUDA_GEMM_PRIVATE_CUH
#define LK_CUDA_GEMM_PRIVATE_CUH

#include <cublasLt.h>

#include "gemm.cuh"

/* What an algorithm is chosen for; compared byte by byte. */
typedef struct gemm_key {
  int64_t m, n, k, batch, lda, ldb, ldd, step_a, step_b, step_d;
  int32_t in, out, transposes, in_place, adds, align, fast;
} gemm_key;

typedef struct gemm_entry {
  bool used;
  bool rescaled;   /* e4m3: the library knows no scales by row: a pass after */
  gemm_key key;
  cublasLtMatmulDesc_t product;
  cublasLtMatrixLayout_t a, b, d;
  cublasLtMatmulAlgo_t algorithm;
} gemm_entry;

enum { GEMM_ROOM = 2048 }; /* entries; more than half full: start over */

struct gemm_table {
  cublasLtHandle_t library;
  cublasLtMatmulPreference_t preference;
  int count;
  gemm_entry entry[GEMM_ROOM];
};

CUDA_HIDDEN lk_status gemm_check(lk_context *context, cublasStatus_t code,
                                 const char *what);
#define LT_TRY(what, call) LK_TRY(gemm_check(context, call, what))

/* One run by an algorithm, without what comes after it. */
CUDA_HIDDEN cublasStatus_t gemm_launch(lk_context *context, const gemm *g,
                                       const gemm_entry *e,
                                       const cublasLtMatmulAlgo_t *algorithm,
                                       const void *c, void *d);

/* e4m3: tell the description where the scales of a and b are; candidates are
 * found only with them. */
CUDA_HIDDEN lk_status gemm_set_scales(lk_context *context, const gemm *g,
                                      const gemm_entry *e, const char *what);

/* e4m3: scales by row, or the library's plain product (scales of 1). */
CUDA_HIDDEN lk_status gemm_scale_mode(lk_context *context, gemm_entry *e,
                                      bool by_row, const char *what);

/* Put an algorithm into an entry that is described: what the context's tuner
 * knows, else measured and told it; without a tuner the library's first.
 * LK_UNSUPPORTED when there is none. */
CUDA_HIDDEN lk_status gemm_choose(lk_context *context, const gemm *g,
                                  gemm_entry *e, const char *what);

#endif
