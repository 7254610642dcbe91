/* bitsandbytes' dynamic 8-bit map. */
#include "codebook.h"

#include <stdlib.h>

static int ascending(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

/* Point i of `count` evenly spaced ones from 0.1 to 1, both ends exact. */
static float boundary(int i, int count) {
  float step = (1.0f - 0.1f) / (float)(count - 1);
  if (i < count / 2) return 0.1f + step * (float)i;
  return 1.0f - step * (float)(count - 1 - i);
}

/* For every decade 10^-6 … 10^0, twice as many as in the one before: the
 * middles of an even division of [0.1, 1], with both signs; and 0 and 1. */
void lk_dynamic_map(float map[256]) {
  static const float decades[7] = {1e-6f, 1e-5f, 1e-4f, 1e-3f,
                                   1e-2f, 1e-1f, 1.0f};
  int count = 0;
  for (int decade = 0; decade < 7; decade++) {
    int points = (1 << decade) + 1;
    for (int i = 0; i + 1 < points; i++) {
      float middle = (boundary(i, points) + boundary(i + 1, points)) / 2.0f;
      map[count++] = decades[decade] * middle;
      map[count++] = -(decades[decade] * middle);
    }
  }
  map[count++] = 0.0f;
  map[count++] = 1.0f;
  qsort(map, (size_t)count, sizeof *map, ascending);
}
