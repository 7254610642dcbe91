/* bars.c: values by category: bars side by side, piled up, or as points on a
 * free axis (bars must stand on zero; losses that differ by 2 % then all look
 * alike). A missing value leaves a gap with its note, e.g. "oom". */
#include "view.h"

#include <math.h>
#include <stdio.h>

enum { ROW = 20, MOST = 90 };  /* pixels: a label's row, a bar's width */

typedef struct {
  lp_view view;
  double unit;        /* pixels a category */
  bool upright;       /* category labels read upwards: no room across */
  double label_room;  /* height of the labels' row */
} bars;

static bool new_group(const lp_panel *p, int i) {
  const char *a = i > 0 ? p->category[i - 1].group : NULL;
  const char *b = p->category[i].group;
  if (i == 0 || !a || !b) return false;
  while (*a && *a == *b) a++, b++;
  return *a != *b;
}

static bool grouped(const lp_panel *p) {
  return p->categories > 0 && p->category[0].group;
}

/* Units across: one a category, half a unit between groups, and edges. */
static double units(const lp_panel *p) {
  double n = p->categories + 0.3;
  for (int i = 1; i < p->categories; i++) n += new_group(p, i) ? 0.5 : 0;
  return n;
}

static double centre(const bars *b, int i) {
  double n = 0.65 + i;
  for (int k = 1; k <= i; k++) n += new_group(b->view.p, k) ? 0.5 : 0;
  return b->view.plot.x0 + n * b->unit;
}

/* ----------------------------------------------------------------- ranges */

static double pile(const lp_panel *p, int i, bool below) {
  double sum = NAN;
  for (int s = 0; s < p->series_count; s++) {
    double v = p->series[s].y ? p->series[s].y[i] : NAN;
    if (isnan(v) || (v < 0) != below) continue;
    sum = (isnan(sum) ? 0 : sum) + v;
  }
  return sum;
}

static lp_range value_range(const lp_panel *p) {
  lp_range r = LP_NO_RANGE;
  for (int i = 0; i < p->categories; i++) {
    for (int s = 0; s < p->series_count && !p->stacked; s++) {
      const lp_series *e = &p->series[s];
      double d = e->spread && !isnan(e->spread[i]) ? fabs(e->spread[i]) : 0;
      if (!e->y || isnan(e->y[i])) continue;
      lp_range_add(&r, e->y[i] + d, false);
      lp_range_add(&r, e->y[i] - d, false);
    }
    if (p->stacked) {
      lp_range_add(&r, pile(p, i, false), false);
      lp_range_add(&r, pile(p, i, true), false);
    }
  }
  return r;
}

/* Room for the texts above (and below) the bars. */
static lp_range with_headroom(const lp_panel *p, lp_range r) {
  double span = r.high - (p->dots ? r.low : fmin(r.low, 0));
  if (!(r.low <= r.high)) return r;
  if (p->dots) {
    double pad = span > 0 ? 0.12 * span : 0.02 * fabs(r.high);
    return (lp_range){r.low - pad, r.high + pad};
  }
  if (!p->values) return r;
  if (r.high > 0) r.high += 0.09 * span;
  if (r.low < 0) r.low -= 0.09 * span;
  return r;
}

/* ----------------------------------------------------------------- labels */

/* How much room labels need below, across or upright; before the plot's width
 * is known exactly, so a little pessimistic. */
static void plan_labels(bars *b, lp_canvas *c, const lp_panel *p, lp_box box) {
  double room = (box.x1 - box.x0 - 70) / units(p), widest = 0;
  for (int i = 0; i < p->categories; i++)
    widest = fmax(widest, lp_text_width(c, p->category[i].label,
                                        &lp_font_tick));
  b->upright = widest + 6 > room;
  b->label_room = b->upright
      ? fmin(widest, 0.3 * (box.y1 - box.y0)) + 12 : ROW + 2;
}

static void draw_category(const bars *b, int i) {
  const lp_view *v = &b->view;
  double x = centre(b, i), y = v->plot.y1;
  const char *label = v->p->category[i].label;
  if (b->upright)
    lp_draw_fitted_upward(v->c, x + 4.5, y + 8, label, &lp_font_tick, LP_RIGHT,
                          b->label_room - 10);
  else
    lp_draw_text(v->c, x, y + 18, label, &lp_font_tick, LP_CENTRE);
}

/* The group's name under a line that spans its categories. */
static void draw_group(const bars *b, int from, int to) {
  static const lp_font font = {14, true, LP_INK};
  static const lp_pen pen = {LP_EDGE, 1, LP_SOLID};
  const lp_view *v = &b->view;
  double x0 = centre(b, from) - 0.42 * b->unit;
  double x1 = centre(b, to) + 0.42 * b->unit;
  double y = v->plot.y1 + b->label_room + 4;
  lp_draw_line(v->c, x0, y, x1, y, &pen);
  lp_draw_fitted(v->c, (x0 + x1) / 2, y + 17, v->p->category[from].group,
                 &font, LP_CENTRE, x1 - x0 + 0.4 * b->unit);
}

static void draw_categories(const bars *b) {
  const lp_panel *p = b->view.p;
  for (int i = 0, from = 0; i < p->categories; i++) {
    draw_category(b, i);
    bool last = i + 1 == p->categories || new_group(p, i + 1);
    if (grouped(p) && last) {
      draw_group(b, from, i);
      from = i + 1;
    }
  }
}

/* ------------------------------------------------------------------- bars */

/* A note where a bar is missing, reading upwards from the zero line. */
static void draw_gap(const bars *b, double x, const char *note) {
  const lp_view *v = &b->view;
  double foot = v->p->dots || v->y.low >= 0 ? v->plot.y1
                                            : lp_scale_at(&v->y, 0);
  lp_draw_fitted_upward(v->c, x + 4.5, foot - 7, note, &lp_font_alert, LP_LEFT,
                        foot - v->plot.y0 - 10);
}

/* The value's text beyond the end of its bar, upright where it is wider than
 * `room`. `y`: where the bar, or its whisker, ends. */
static void draw_value(const bars *b, double x, double y, double value,
                       double room) {
  const lp_view *v = &b->view;
  static const lp_font font = {12, false, LP_INK};
  char text[24];
  lp_format_value(text, value, v->p->value_format, v->p->digits);
  double width = lp_text_width(v->c, text, &font);
  bool down = value < 0 && !v->p->dots;
  if (width <= room)
    lp_draw_text(v->c, x, down ? y + 14 : y - 5, text, &font, LP_CENTRE);
  else if (room >= 11)
    lp_draw_upward(v->c, x + 4, down ? y + 5 : y - 5, text, &font,
                   down ? LP_RIGHT : LP_LEFT);
}

static void describe(char out[200], const lp_panel *p, const lp_series *s,
                     int i) {
  char value[24];
  const lp_category *k = &p->category[i];
  lp_format_value(value, s->y[i], p->value_format, p->digits);
  snprintf(out, 200, "%.60s%s%.60s%s%.40s: %s", k->group ? k->group : "",
           k->group ? " " : "", k->label ? k->label : "", s->name ? " " : "",
           s->name ? s->name : "", value);
}

static double draw_whisker(const bars *b, const lp_series *s, int i, double x,
                           double half) {
  static const lp_pen pen = {LP_INK, 1.4, LP_SOLID};
  const lp_view *v = &b->view;
  double d = s->spread ? fabs(s->spread[i]) : NAN;
  double top = lp_scale_at(&v->y, s->y[i] + d);
  double low = lp_scale_at(&v->y, s->y[i] - d);
  if (isnan(top) || isnan(low) || d == 0) return lp_scale_at(&v->y, s->y[i]);
  half = fmin(half, 6);
  lp_draw_line(v->c, x, top, x, low, &pen);
  lp_draw_line(v->c, x - half, top, x + half, top, &pen);
  lp_draw_line(v->c, x - half, low, x + half, low, &pen);
  return s->y[i] < 0 ? low : top;
}

static void draw_bar(const bars *b, const lp_series *s, int i, double x,
                     double width) {
  const lp_view *v = &b->view;
  char note[200];
  double zero = lp_scale_at(&v->y, fmax(0, v->y.low));
  double y = lp_scale_at(&v->y, s->y[i]), half = width / 2;
  lp_box box = {x - half, fmin(y, zero), x + half, fmax(y, zero)};
  describe(note, v->p, s, i);
  lp_open_mark(v->c, note);
  if (!v->p->dots) lp_draw_box(v->c, box, s->color);
  if (v->p->dots)
    lp_draw_marker(v->c, s->marker ? s->marker : LP_CIRCLE, x, y, 6, s->color);
  double end = draw_whisker(b, s, i, x, half);
  if (v->p->dots) end = fmin(end, y - 7);
  lp_close_mark(v->c);
  if (v->p->values) draw_value(b, x, end, s->y[i], width + 3);
}

/* A category's bars side by side. */
static void draw_side_by_side(const bars *b, int i) {
  const lp_panel *p = b->view.p;
  int n = p->series_count;
  double width = fmin(b->unit * (n == 1 ? 0.72 : 0.86) / n, MOST);
  double x = centre(b, i) - width * (n - 1) / 2;
  for (int s = 0; s < n; s++, x += width) {
    const lp_series *e = &p->series[s];
    if (e->y && !isnan(e->y[i])) draw_bar(b, e, i, x, fmax(width - 1.5, 1));
    else if (e->notes) draw_gap(b, x, e->notes[i]);
  }
}

static void draw_piece(const bars *b, const lp_series *s, int i, double *up,
                       double *down) {
  const lp_view *v = &b->view;
  double *end = s->y[i] < 0 ? down : up, from = *end;
  double half = fmin(0.36 * b->unit, MOST / 2);
  char note[200];
  *end += s->y[i];
  double y0 = lp_scale_at(&v->y, from), y1 = lp_scale_at(&v->y, *end);
  describe(note, v->p, s, i);
  lp_open_mark(v->c, note);
  lp_draw_box(v->c, (lp_box){centre(b, i) - half, fmin(y0, y1),
                             centre(b, i) + half, fmax(y0, y1)}, s->color);
  lp_close_mark(v->c);
}

/* A category's values piled up, their sum on top. */
static void draw_pile(const bars *b, int i) {
  const lp_view *v = &b->view;
  double up = 0, down = 0;
  bool any = false;
  for (int s = 0; s < v->p->series_count; s++) {
    const lp_series *e = &v->p->series[s];
    if (!e->y || isnan(e->y[i])) continue;
    draw_piece(b, e, i, &up, &down);
    any = true;
  }
  if (any && v->p->values)
    draw_value(b, centre(b, i), lp_scale_at(&v->y, up), up + down,
               b->unit * 0.95);
}

void lp_bars_draw(lp_canvas *c, const lp_panel *p, lp_box box) {
  bars b = {.unit = 0};
  bool noted = false;
  lp_range r = value_range(p);
  for (int i = 0; i < p->categories; i++)
    noted |= p->category[i].note != NULL;
  for (int s = 0; s < p->series_count; s++) noted |= p->series[s].notes != NULL;
  if (p->categories == 0 || (r.low > r.high && !noted)) {
    lp_empty_draw(c, p, box);
    return;
  }
  plan_labels(&b, c, p, box);
  double below = b.label_room + (grouped(p) ? ROW + 6 : 0);
  if (!lp_view_open(&b.view, c, p, box, NULL, with_headroom(p, r), !p->dots,
                    below))
    return;
  b.unit = (b.view.plot.x1 - b.view.plot.x0) / units(p);
  for (int i = 0; i < p->categories; i++) {
    if (p->stacked) draw_pile(&b, i);
    else draw_side_by_side(&b, i);
    if (p->category[i].note) draw_gap(&b, centre(&b, i), p->category[i].note);
  }
  draw_categories(&b);
  lp_view_references(&b.view);
}
