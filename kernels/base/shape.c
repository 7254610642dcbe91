/* Shapes: up to LK_MAX_RANK row-major dimensions, and checked size products. */
#include "shape.h"

#include <inttypes.h>
#include <stdio.h>

lk_shape lk_shape_from(const int64_t *dim, int rank) {
  lk_shape shape = {.rank = rank};
  for (int i = 0; i < rank; i++) shape.dim[i] = dim[i];
  return shape;
}

int64_t lk_shape_count(lk_shape shape) {
  int64_t count = 1;
  for (int i = 0; i < shape.rank; i++) count *= shape.dim[i];
  return count;
}

bool lk_shape_equal(lk_shape a, lk_shape b) {
  if (a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; i++)
    if (a.dim[i] != b.dim[i]) return false;
  return true;
}

char *lk_shape_text(lk_shape shape, char *text, size_t size) {
  size_t used = (size_t)snprintf(text, size, "[");
  for (int i = 0; i < shape.rank && used < size; i++)
    used += (size_t)snprintf(text + used, size - used, "%s%" PRId64,
                             i ? ", " : "", shape.dim[i]);
  if (used < size) snprintf(text + used, size - used, "]");
  return text;
}

bool lk_size_product(int64_t a, int64_t b, int64_t *product) {
  return a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, product);
}
