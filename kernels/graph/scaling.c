/* Loss scaling: the rule by which the scale moves. */
#include "scaling.h"

lk_scaling lk_scaling_first(bool scales) {
  return (lk_scaling){.scale = scales ? LK_SCALING_FIRST : 1};
}

lk_scaling lk_scaling_next(lk_scaling s, bool finite) {
  if (!finite) {
    s.skipped++;
    s.good = 0;
    if (s.scale * LK_SCALING_MOST > 1) s.scale /= 2;
    return s;
  }
  if (++s.good < LK_SCALING_PATIENCE) return s;
  s.good = 0;
  if (s.scale < LK_SCALING_MOST) s.scale *= 2;
  return s;
}
