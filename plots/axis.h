/* axis.h: from values to pixels: ranges, ticks, numbers as text. */
#ifndef LP_AXIS_H
#define LP_AXIS_H

#include "spec.h"

#pragma GCC visibility push(hidden)

enum { LP_TICKS = 24 };

typedef struct {
  double low, high;   /* values at the axis' ends; low < high */
  bool log;
  double from, to;    /* pixels at these ends */
} lp_scale;

typedef struct { double value; char text[24]; } lp_tick;

/* What values an axis must show. Start with LP_NO_RANGE. */
typedef struct { double low, high; } lp_range;
#define LP_NO_RANGE ((lp_range){INFINITY, -INFINITY})
/* Widen by a value; NaN, and on a log axis what is not positive, is skipped. */
void lp_range_add(lp_range *r, double value, bool log);

/* A scale for the values, with ends on nice numbers; `base`: bars stand on 0,
 * so show it. `wanted`: how many ticks there is room for. */
lp_scale lp_scale_fit(lp_range r, const lp_axis *a, bool base, int wanted);
/* Pixel of a value; NaN for NaN and for what a log axis cannot show. */
double lp_scale_at(const lp_scale *s, double value);
/* Ticks with their texts, ascending; gives their number. */
int lp_scale_ticks(const lp_scale *s, enum lp_format format, int wanted,
                   lp_tick ticks[LP_TICKS]);

/* A value with `digits` significant digits: "0.123", "12.3k", "45 %". */
void lp_format_value(char out[24], double value, enum lp_format format,
                     int digits);

#pragma GCC visibility pop
#endif
