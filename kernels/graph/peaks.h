/* What a device attains at best: the yardstick of a profile. */
#ifndef LK_GRAPH_PEAKS_H
#define LK_GRAPH_PEAKS_H

#include "../core/context.h"

typedef struct lk_peaks {
  double flops;      /* of a large matrix product in `dtype`, a second */
  double e4m3;       /* of products in e4m3: twice that beside 16-bit types,
                        by the tensor cores' design, not measured */
  double bandwidth;  /* bytes read and written by a large copy, a second */
} lk_peaks;

/* Measure both, in about a fifth of a second; the best of a few runs. */
lk_status lk_peaks_measure(lk_context *context, lk_dtype dtype,
                           lk_peaks *peaks);

/* c[m,n] = a · b, each stored as it is multiplied or turned. */
typedef struct lk_product {
  int64_t m, n, k;
  bool transpose_a, transpose_b; /* a is stored [k,m], b [n,k] */
} lk_product;

/* Seconds of one such product in `dtype`, the least of `runs` after one that
 * is not counted; fails with LK_OOM when it does not fit. */
lk_status lk_peaks_product(lk_context *context, lk_dtype dtype,
                           const lk_product *p, int runs, double *seconds);

#endif
