/* What gemm.cu (descriptions, table, launches), gemm_choose.cu (which
 * algorithm), gemm_candidates.cu (of which ones) and gemm_measure.cu (which is
 * fastest) share. */
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

enum {
  GEMM_ROOM = 2048,    /* entries; more than half full: start over */
  GEMM_CANDIDATES = 48 /* algorithms that a choice is made of, at most */
};

/* Best guess first; from `plain` on variants that the library did not offer. */
typedef struct gemm_candidates {
  cublasLtMatmulAlgo_t algorithm[GEMM_CANDIDATES];
  int plain, count;
} gemm_candidates;

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

/* `list` = the library's usable candidates; how many. */
CUDA_HIDDEN int gemm_offered(lk_context *context, const gemm_entry *e,
                             gemm_candidates *list);

/* Behind them what is worth measuring, too. */
CUDA_HIDDEN void gemm_offer_more(lk_context *context, const gemm_entry *e,
                                 gemm_candidates *list);

/* Whether the library takes an algorithm that it did not offer just now. */
CUDA_HIDDEN bool gemm_fits(lk_context *context, const gemm_entry *e,
                           const cublasLtMatmulAlgo_t *algorithm);

/* The candidate that runs the product fastest: back to back when it is long,
 * alone when it is short; an earlier one where they are about the same. -1
 * when it cannot be measured. About half a second for a long product. */
CUDA_HIDDEN int gemm_measure(lk_context *context, const gemm *g,
                             const gemm_entry *e,
                             const gemm_candidates *list);

#endif
