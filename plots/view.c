/* view.c: a panel's frame: title, grid, ticks, axis titles, reference lines. */
#include "view.h"

#include <math.h>
#include <stdio.h>

const lp_font lp_font_title = {22, true, LP_INK};
const lp_font lp_font_subtitle = {14, false, LP_GRAY};
const lp_font lp_font_panel = {15, true, LP_INK};
const lp_font lp_font_label = {14, false, LP_INK};
const lp_font lp_font_tick = {13, false, LP_INK};
const lp_font lp_font_small = {12, false, LP_GRAY};
const lp_font lp_font_alert = {12.5, true, LP_ALERT};

/* A line further off than this many times the data does not stretch the
 * axis, or the data would be a thin smear at its foot. */
static const double reach = 2.5;

static bool in_reach(const lp_reference *ref, lp_range data) {
  return !isnan(ref->value) && data.high > 0 &&
         ref->value <= reach * data.high && ref->value >= data.low / reach;
}

static lp_range with_references(const lp_panel *p, lp_range data,
                                bool vertical) {
  lp_range r = data;
  for (int i = 0; i < p->references; i++)
    if (p->reference[i].vertical == vertical &&
        (p->reference[i].value < data.low || in_reach(&p->reference[i], data)))
      lp_range_add(&r, p->reference[i].value, false);
  return r;
}

static double widest(lp_canvas *c, const lp_tick *t, int n) {
  double most = 0;
  for (int i = 0; i < n; i++)
    most = fmax(most, lp_text_width(c, t[i].text, &lp_font_tick));
  return most;
}

static void draw_y_axis(const lp_view *v, const lp_tick *t, int n) {
  static const lp_pen grid = {LP_GRID, 1, LP_SOLID};
  for (int i = 0; i < n; i++) {
    double y = lp_scale_at(&v->y, t[i].value);
    if (isnan(y) || y < v->plot.y0 - 1 || y > v->plot.y1 + 1) continue;
    lp_draw_line(v->c, v->plot.x0, y, v->plot.x1, y, &grid);
    lp_draw_text(v->c, v->plot.x0 - 8, y + 4.5, t[i].text, &lp_font_tick,
                 LP_RIGHT);
  }
}

static void draw_x_axis(const lp_view *v, int wanted) {
  static const lp_pen grid = {LP_GRID, 1, LP_SOLID};
  lp_tick t[LP_TICKS];
  int n = lp_scale_ticks(&v->x, v->p->x.format, wanted, t);
  double end = -INFINITY;
  for (int i = 0; i < n; i++) {
    double x = lp_scale_at(&v->x, t[i].value);
    double half = lp_text_width(v->c, t[i].text, &lp_font_tick) / 2;
    if (isnan(x) || x < v->plot.x0 - 1 || x > v->plot.x1 + 1) continue;
    lp_draw_line(v->c, x, v->plot.y0, x, v->plot.y1, &grid);
    if (x - half < end + 6) continue;  /* it would touch its neighbour */
    lp_draw_text(v->c, x, v->plot.y1 + 19, t[i].text, &lp_font_tick,
                 LP_CENTRE);
    end = x + half;
  }
}

static void draw_titles(const lp_view *v, lp_box box) {
  double x = (v->plot.x0 + v->plot.x1) / 2, y = (v->plot.y0 + v->plot.y1) / 2;
  lp_draw_fitted(v->c, box.x0, box.y0 + 14, v->p->title, &lp_font_panel,
                 LP_LEFT, box.x1 - box.x0);
  lp_draw_fitted(v->c, x, box.y1 - 6, v->p->x.label, &lp_font_label, LP_CENTRE,
                 box.x1 - box.x0);
  lp_draw_fitted_upward(v->c, box.x0 + 13, y, v->p->y.label, &lp_font_label,
                        LP_CENTRE, box.y1 - box.y0);
}

/* Axis lines last, over the grid: left edge, foot, and the zero line. */
static void draw_edges(const lp_view *v) {
  static const lp_pen edge = {LP_EDGE, 1.2, LP_SOLID};
  double zero = v->y.log ? NAN : lp_scale_at(&v->y, 0);
  lp_draw_line(v->c, v->plot.x0, v->plot.y0, v->plot.x0, v->plot.y1, &edge);
  lp_draw_line(v->c, v->plot.x0, v->plot.y1, v->plot.x1, v->plot.y1, &edge);
  if (zero > v->plot.y0 && zero < v->plot.y1 - 1)
    lp_draw_line(v->c, v->plot.x0, zero, v->plot.x1, zero, &edge);
}

bool lp_view_open(lp_view *v, lp_canvas *c, const lp_panel *p, lp_box box,
                  const lp_range *x, lp_range y, bool base, double below) {
  lp_tick ticks[LP_TICKS];
  *v = (lp_view){.c = c, .p = p};
  double top = box.y0 + (p->title ? 30 : 10);
  double foot = box.y1 - below - (p->x.label ? 24 : 4) - (x ? 24 : 0);
  int wanted = (int)((foot - top) / 65) + 1;
  v->y = lp_scale_fit(with_references(p, y, false), &p->y, base, wanted);
  int n = y.low > y.high ? 0  /* nothing to measure: no numbers */
                         : lp_scale_ticks(&v->y, p->y.format, wanted, ticks);
  double left = box.x0 + (p->y.label ? 22 : 0) + widest(c, ticks, n) + 12;
  v->plot = (lp_box){left, top, box.x1 - (x ? 16 : 4), foot};
  double across = v->plot.x1 - left;
  if (across < 40 || foot - top < 30) return false;
  v->y.from = foot;
  v->y.to = top;
  draw_y_axis(v, ticks, n);
  if (x) {
    wanted = (int)(across / 95) + 1;
    v->x = lp_scale_fit(with_references(p, *x, true), &p->x, false, wanted);
    v->x.from = left;
    v->x.to = v->plot.x1;
    draw_x_axis(v, wanted);
  }
  draw_edges(v);
  draw_titles(v, box);
  return true;
}

/* "budget 24 GB" with an arrow out of the upper right corner. */
static void draw_off_scale(lp_view *v, const lp_reference *ref, int *count) {
  double x = v->plot.x1 - 8, y = v->plot.y0 + 14 + 18 * (*count)++;
  lp_font font = {13, false, ref->color};
  lp_point up[] = {{x - 5, y - 2}, {x, y - 11}, {x + 5, y - 2}};
  lp_point right[] = {{x - 4, y - 11}, {x + 5, y - 6}, {x - 4, y - 1}};
  lp_draw_polygon(v->c, ref->vertical ? right : up, 3, ref->color);
  lp_draw_fitted(v->c, x - 11, y, ref->label, &font, LP_RIGHT,
                 v->plot.x1 - v->plot.x0 - 20);
}

static void draw_reference(lp_view *v, const lp_reference *ref, double at) {
  lp_pen pen = {ref->color, 1.8, LP_DASHED};
  lp_font font = {13, false, ref->color};
  const lp_box *k = &v->plot;
  if (ref->vertical) {
    lp_draw_line(v->c, at, k->y0, at, k->y1, &pen);
    lp_draw_fitted_upward(v->c, at - 5, k->y0 + 6, ref->label, &font, LP_RIGHT,
                          k->y1 - k->y0 - 12);
  } else {
    lp_draw_line(v->c, k->x0, at, k->x1, at, &pen);
    lp_draw_fitted(v->c, k->x1 - 4, at - 6, ref->label, &font, LP_RIGHT,
                   k->x1 - k->x0 - 8);
  }
}

void lp_view_references(lp_view *v) {
  int off = 0;
  for (int i = 0; i < v->p->references; i++) {
    const lp_reference *ref = &v->p->reference[i];
    const lp_scale *s = ref->vertical ? &v->x : &v->y;
    double at = lp_scale_at(s, ref->value);
    if (isnan(at)) continue;
    if (ref->value > s->high) draw_off_scale(v, ref, &off);
    else if (ref->value >= s->low) draw_reference(v, ref, at);
  }
}

void lp_empty_draw(lp_canvas *c, const lp_panel *p, lp_box box) {
  const char *why = p && p->empty ? p->empty : "no data";
  static const lp_font font = {17, false, LP_GRAY};
  double x = (box.x0 + box.x1) / 2, y = (box.y0 + box.y1) / 2;
  if (p)
    lp_draw_fitted(c, box.x0, box.y0 + 14, p->title, &lp_font_panel, LP_LEFT,
                   box.x1 - box.x0);
  lp_draw_fitted(c, x, y, why, &font, LP_CENTRE, box.x1 - box.x0 - 20);
}
