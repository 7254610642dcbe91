/* Shapes: up to LK_MAX_RANK row-major dimensions, and checked size products. */
#ifndef LK_BASE_SHAPE_H
#define LK_BASE_SHAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LK_MAX_RANK = 6 };

typedef struct lk_shape {
  int rank;
  int64_t dim[LK_MAX_RANK];
} lk_shape;

/* A shape from a list: lk_shape_of(3, 4) is [3, 4]. */
#define lk_shape_of(...)                                            \
  lk_shape_from((int64_t[]){__VA_ARGS__},                           \
                (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))
lk_shape lk_shape_from(const int64_t *dim, int rank);
/* The number of elements; 1 for rank 0. */
int64_t lk_shape_count(lk_shape shape);
bool lk_shape_equal(lk_shape a, lk_shape b);
/* "[3, 4]" into `text`; returns `text`. */
char *lk_shape_text(lk_shape shape, char *text, size_t size);

/* a * b into *product; false on overflow or a negative factor. Every product
 * of sizes that come from outside goes through here. */
bool lk_size_product(int64_t a, int64_t b, int64_t *product);

#endif
