/* scatter.c: discs over two numeric axes, their area a third value, each with
 * a label where there is room for one. */
#include "view.h"

#include <math.h>
#include <stdio.h>

enum { LABELS = 256, MOST = 24, LEAST = 5 };

typedef struct {
  lp_view view;
  double largest;           /* the largest area value; NaN: all alike */
  lp_box taken[2 * LABELS]; /* discs and labels already drawn */
  int count;
} scatter;

static bool overlaps(const scatter *s, lp_box k) {
  for (int i = 0; i < s->count; i++) {
    const lp_box *t = &s->taken[i];
    if (k.x0 < t->x1 && t->x0 < k.x1 && k.y0 < t->y1 && t->y0 < k.y1)
      return true;
  }
  return k.x0 < s->view.plot.x0 || k.x1 > s->view.plot.x1 ||
         k.y0 < s->view.plot.y0 || k.y1 > s->view.plot.y1;
}

static void take(scatter *s, lp_box k) {
  if (s->count < 2 * LABELS) s->taken[s->count++] = k;
}

static double radius(const scatter *s, double area) {
  if (isnan(area) || isnan(s->largest) || area <= 0) return 8;
  return fmax(MOST * sqrt(area / s->largest), LEAST);
}

/* Point i in pixels; false when it cannot be shown. */
static bool place(const scatter *s, const lp_series *e, int i, lp_point *at) {
  at->x = lp_scale_at(&s->view.x, e->x[i]);
  at->y = lp_scale_at(&s->view.y, e->y[i]);
  return !isnan(at->x) && !isnan(at->y);
}

static double area_of(const lp_series *e, int i) {
  return e->area ? e->area[i] : NAN;
}

static void draw_disc(scatter *s, const lp_series *e, int i) {
  lp_point at;
  char note[200];
  if (!place(s, e, i, &at)) return;
  double r = radius(s, area_of(e, i));
  snprintf(note, sizeof note, "%.80s %.80s",
           e->notes && e->notes[i] ? e->notes[i] : "", e->name ? e->name : "");
  lp_open_mark(s->view.c, note);
  lp_draw_disc(s->view.c, at.x, at.y, r + 1.5, 0xFFFFFF);
  lp_draw_disc(s->view.c, at.x, at.y, r, e->color);
  lp_close_mark(s->view.c);
  double k = 0.8 * r;
  take(s, (lp_box){at.x - k, at.y - k, at.x + k, at.y + k});
}

/* The discs from the largest to the smallest, so that none is hidden. */
static void draw_discs(scatter *s) {
  const lp_panel *p = s->view.p;
  double below = INFINITY;
  for (;;) {
    double next = -1;
    for (int k = 0; k < p->series_count; k++) {
      const lp_series *e = &p->series[k];
      for (int i = 0; e->x && e->y && i < e->count; i++) {
        double r = radius(s, area_of(e, i));
        if (r < below && r > next) next = r;
      }
    }
    if (next < 0) return;
    for (int k = 0; k < p->series_count; k++) {
      const lp_series *e = &p->series[k];
      for (int i = 0; e->x && e->y && i < e->count; i++)
        if (radius(s, area_of(e, i)) == next) draw_disc(s, e, i);
    }
    below = next;
  }
}

/* Try right, left, above, below the disc; leave the label out otherwise. */
static void draw_label(scatter *s, const lp_series *e, int i) {
  lp_point at;
  if (!e->notes || !e->notes[i] || !place(s, e, i, &at)) return;
  double r = radius(s, area_of(e, i)) + 4;
  double w = lp_text_width(s->view.c, e->notes[i], &lp_font_small);
  lp_box tries[] = {
    {at.x + r, at.y - 7, at.x + r + w, at.y + 6},
    {at.x - r - w, at.y - 7, at.x - r, at.y + 6},
    {at.x - w / 2, at.y - r - 12, at.x + w / 2, at.y - r},
    {at.x - w / 2, at.y + r, at.x + w / 2, at.y + r + 13},
  };
  for (int k = 0; k < 4; k++) {
    if (overlaps(s, tries[k])) continue;
    lp_draw_text(s->view.c, tries[k].x0, tries[k].y1 - 2, e->notes[i],
                 &lp_font_small, LP_LEFT);
    take(s, tries[k]);
    return;
  }
}

/* Which areas mean what: three discs in the row above the plot. */
static void draw_area_key(scatter *s) {
  const lp_panel *p = s->view.p;
  double x = s->view.plot.x1, y = s->view.plot.y0 - 30;
  if (isnan(s->largest) || !p->area_label) return;
  for (double part = 1; part > 0.05; part *= 0.3) {
    char text[24];
    double r = radius(s, part * s->largest);
    lp_format_value(text, part * s->largest, p->area_format, 2);
    double w = lp_text_width(s->view.c, text, &lp_font_small);
    lp_draw_text(s->view.c, x, y + 4, text, &lp_font_small, LP_RIGHT);
    x -= w + 5 + r;
    lp_draw_disc(s->view.c, x, y, r, 0xB5B5B5);
    x -= r + 14;
  }
  lp_draw_text(s->view.c, x, y + 4, p->area_label, &lp_font_small, LP_RIGHT);
}

static bool measure(scatter *s, const lp_panel *p, lp_range *x, lp_range *y) {
  s->largest = NAN;
  for (int k = 0; k < p->series_count; k++) {
    const lp_series *e = &p->series[k];
    for (int i = 0; e->x && e->y && i < e->count; i++) {
      if (isnan(e->x[i]) || isnan(e->y[i])) continue;
      lp_range_add(x, e->x[i], p->x.log);
      lp_range_add(y, e->y[i], p->y.log);
      double a = area_of(e, i);
      if (a > 0 && !(a <= s->largest)) s->largest = a;
    }
  }
  return x->low <= x->high && y->low <= y->high;
}

/* Room for whole discs at the edges. */
static lp_range padded(lp_range r, const lp_axis *a) {
  double pad = 0.07 * (r.high - r.low), f = pow(r.high / r.low, 0.07);
  if (a->log) return (lp_range){r.low / f, r.high * f};
  double low = r.low >= 0 && r.low - pad < 0.3 * r.high ? 0 : r.low - pad;
  return (lp_range){low, r.high + pad};
}

void lp_scatter_draw(lp_canvas *c, const lp_panel *p, lp_box box) {
  scatter s = {.count = 0};
  lp_range x = LP_NO_RANGE, y = LP_NO_RANGE;
  if (!measure(&s, p, &x, &y)) {
    lp_empty_draw(c, p, box);
    return;
  }
  x = padded(x, &p->x);
  if (p->area_label) box.y0 += 44;
  if (!lp_view_open(&s.view, c, p, box, &x, padded(y, &p->y), false, 0))
    return;
  if (p->area_label) draw_area_key(&s);
  lp_view_references(&s.view);
  draw_discs(&s);
  for (int k = 0; k < p->series_count; k++)
    for (int i = 0; p->series[k].x && p->series[k].y &&
                    i < p->series[k].count; i++)
      draw_label(&s, &p->series[k], i);
}
