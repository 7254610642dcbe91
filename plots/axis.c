/* axis.c: nice ranges and ticks, and numbers as text. No printf of floating
 * point without need: a locale must not turn points into commas. */
#include "axis.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- numbers */

/* `decimals` digits after the point, none after 15 before it. */
static void put_fixed(char out[24], double v, int decimals) {
  char text[64];
  if (decimals < 0 || decimals > 9) decimals = 9;
  double unit = pow(10, decimals);
  if (!(fabs(v) * unit < 1e15)) {
    snprintf(out, 24, "%.2e", v);
    char *comma = strchr(out, ',');
    if (comma) *comma = '.';
    return;
  }
  long long n = llround(fabs(v) * unit), u = (long long)unit;
  const char *sign = v < 0 && n ? "-" : "";
  if (decimals > 0)
    snprintf(text, sizeof text, "%s%lld.%0*lld", sign, n / u, decimals & 15,
             n % u);
  else
    snprintf(text, sizeof text, "%s%lld", sign, n);
  memcpy(out, text, 23);
  out[23] = 0;
}

static void drop_zeros(char *s) {
  if (!strchr(s, '.') || strchr(s, 'e')) return;
  char *end = s + strlen(s);
  while (end[-1] == '0') *--end = 0;
  if (end[-1] == '.') end[-1] = 0;
}

/* Divide *v by the thousands its suffix stands for. */
static const char *suffix(double *v) {
  static const char *const names[] = {"", "k", "M", "G", "T", "P"};
  int i = 0;
  while (i < 5 && fabs(*v) >= 999.95) {
    *v /= 1000;
    i++;
  }
  return names[i];
}

static int decimals_for(double v, int digits) {
  if (v == 0) return 0;
  int d = digits - 1 - (int)floor(log10(fabs(v)) + 1e-9);
  return d < 0 ? 0 : d > 6 ? 6 : d;
}

void lp_format_value(char out[24], double v, enum lp_format format,
                     int digits) {
  const char *end = "";
  if (format == LP_SI) end = suffix(&v);
  if (format == LP_PERCENT) end = " %";
  put_fixed(out, v, decimals_for(v, digits));
  if (format == LP_SI) drop_zeros(out);
  strncat(out, end, 23 - strlen(out));
}

/* ----------------------------------------------------------------- ranges */

void lp_range_add(lp_range *r, double v, bool log) {
  if (isnan(v) || (log && v <= 0)) return;
  if (v < r->low) r->low = v;
  if (v > r->high) r->high = v;
}

/* The nicest step that cuts `span` into about `wanted` pieces. */
static double nice_step(double span, int wanted) {
  double raw = span / (wanted < 1 ? 1 : wanted);
  double power = pow(10, floor(log10(raw))), m = raw / power;
  return (m <= 1 ? 1 : m <= 2 ? 2 : m <= 2.5 ? 2.5 : m <= 5 ? 5 : 10) * power;
}

static lp_range some_range(lp_range r, bool log) {
  if (r.low > r.high) return log ? (lp_range){1, 10} : (lp_range){0, 1};
  if (log && r.high < r.low * 1.02)
    return (lp_range){r.low / 1.5, r.high * 1.5};
  double least = 1e-6 * fmax(fabs(r.low), fabs(r.high));
  if (!log && r.high - r.low <= least) {
    double half = r.low == 0 ? 0.5 : 0.1 * fabs(r.low);
    return (lp_range){r.low - half, r.high + half};
  }
  return r;
}

static void widen_to_steps(lp_range *r, int wanted) {
  double step = nice_step(r->high - r->low, wanted);
  double low = floor(r->low / step + 1e-9) * step;
  double high = ceil(r->high / step - 1e-9) * step;
  if (high > low) *r = (lp_range){low, high};
}

static void widen_log(lp_range *r) {
  double room = pow(r->high / r->low, 0.05);
  r->low /= room;
  r->high *= room;
}

lp_scale lp_scale_fit(lp_range r, const lp_axis *a, bool base, int wanted) {
  bool log = a->log && !base;
  if (base) lp_range_add(&r, 0, false);
  if (base && r.low >= r.high) r.high = r.low + 1;
  r = some_range(r, log);
  if (log) widen_log(&r);
  else widen_to_steps(&r, wanted);
  lp_range fixed = r;
  if (!isnan(a->low) && !(log && a->low <= 0)) fixed.low = a->low;
  if (!isnan(a->high)) fixed.high = a->high;
  if (fixed.high > fixed.low) r = fixed;
  return (lp_scale){.low = r.low, .high = r.high, .log = log};
}

double lp_scale_at(const lp_scale *s, double v) {
  double low = s->low, high = s->high;
  if (isnan(v) || (s->log && v <= 0)) return NAN;
  if (s->log) {
    low = log10(low);
    high = log10(high);
    v = log10(v);
  }
  return s->from + (v - low) / (high - low) * (s->to - s->from);
}

/* ------------------------------------------------------------------ ticks */

static void tick_text(lp_tick *t, enum lp_format format, int decimals) {
  double v = t->value;
  if (format == LP_SI && fabs(v) >= 999.95) {
    lp_format_value(t->text, v, LP_SI, 4);
    return;
  }
  put_fixed(t->text, v, decimals);
  if (format == LP_PERCENT) strncat(t->text, " %", 23 - strlen(t->text));
}

static int linear_ticks(const lp_scale *s, enum lp_format format, int wanted,
                        lp_tick ticks[LP_TICKS]) {
  double step = nice_step(s->high - s->low, wanted);
  double first = ceil(s->low / step - 1e-9);
  int decimals = 0, n = 0;
  while (decimals < 6 &&
         fabs(step * pow(10, decimals) - round(step * pow(10, decimals))) >
             1e-6 * step * pow(10, decimals))
    decimals++;
  for (; n < LP_TICKS && (first + n) * step <= s->high + step * 1e-9; n++) {
    ticks[n].value = (first + n) * step;
    if (fabs(ticks[n].value) < step * 1e-9) ticks[n].value = 0;
    tick_text(&ticks[n], format, decimals);
  }
  return n;
}

/* Multiples from `set` (digits) of every `skip`-th power of ten in range;
 * gives how many there are, and the first LP_TICKS of them. */
static int power_ticks(const lp_scale *s, const char *set, int skip,
                       lp_tick ticks[LP_TICKS]) {
  int n = 0, last = (int)floor(log10(s->high));
  for (int e = (int)floor(log10(s->low)); e <= last; e++)
    for (const char *m = set; *m && e % skip == 0; m++) {
      double v = (*m - '0') * pow(10, e);
      if (v < s->low * (1 - 1e-9) || v > s->high * (1 + 1e-9)) continue;
      if (n < LP_TICKS) ticks[n].value = v;
      n++;
    }
  return n;
}

static int log_ticks(const lp_scale *s, enum lp_format format, int wanted,
                     lp_tick ticks[LP_TICKS]) {
  static const struct { const char *set; int skip; } grids[] = {
    {"123456789", 1}, {"12357", 1}, {"125", 1}, {"13", 1}, {"1", 1}, {"1", 2},
    {"1", 5}, {"1", 10}};
  int n = 0;
  for (size_t i = 0; i < sizeof grids / sizeof grids[0]; i++) {
    n = power_ticks(s, grids[i].set, grids[i].skip, ticks);
    if (n <= wanted + 2) break;
  }
  if (n < 4 && s->high / s->low < 10)
    return linear_ticks(s, format, wanted, ticks);
  if (n > LP_TICKS) n = LP_TICKS;
  for (int i = 0; i < n; i++) {
    double v = ticks[i].value;
    tick_text(&ticks[i], format, v < 1 ? decimals_for(v, 1) : 0);
  }
  return n;
}

int lp_scale_ticks(const lp_scale *s, enum lp_format format, int wanted,
                   lp_tick ticks[LP_TICKS]) {
  if (wanted > LP_TICKS - 4) wanted = LP_TICKS - 4;
  if (wanted < 1) wanted = 1;
  return s->log ? log_ticks(s, format, wanted, ticks)
                : linear_ticks(s, format, wanted, ticks);
}
