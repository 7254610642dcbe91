/* lines.c: series of points over a numeric axis, joined; breaks where a value
 * is missing. */
#include "view.h"

#include <math.h>

enum { RUN = 256 };

static void add_series(const lp_series *s, const lp_panel *p, lp_range *x,
                       lp_range *y) {
  for (int i = 0; i < s->count; i++) {
    bool shown = !isnan(s->x[i]) && !isnan(s->y[i]) &&
                 !(p->x.log && s->x[i] <= 0) && !(p->y.log && s->y[i] <= 0);
    if (!shown) continue;
    lp_range_add(x, s->x[i], p->x.log);
    lp_range_add(y, s->y[i], p->y.log);
  }
}

static void draw_line(const lp_view *v, const lp_series *s) {
  lp_pen pen = {s->color, s->width, s->dash};
  lp_point run[RUN];
  int n = 0;
  for (int i = 0; i < s->count; i++) {
    lp_point q = {lp_scale_at(&v->x, s->x[i]), lp_scale_at(&v->y, s->y[i])};
    bool gap = isnan(q.x) || isnan(q.y);
    if (gap || n == RUN) {
      if (n > 1) lp_draw_path(v->c, run, n, &pen, &v->plot);
      if (n == RUN) run[0] = run[RUN - 1];
      n = gap ? 0 : 1;
    }
    if (!gap) run[n++] = q;
  }
  if (n > 1) lp_draw_path(v->c, run, n, &pen, &v->plot);
}

static void draw_markers(const lp_view *v, const lp_series *s) {
  for (int i = 0; i < s->count; i++) {
    double x = lp_scale_at(&v->x, s->x[i]), y = lp_scale_at(&v->y, s->y[i]);
    if (x >= v->plot.x0 - 1 && x <= v->plot.x1 + 1 && y >= v->plot.y0 - 1 &&
        y <= v->plot.y1 + 1)
      lp_draw_marker(v->c, s->marker, x, y, 2 + s->width, s->color);
  }
}

void lp_lines_draw(lp_canvas *c, const lp_panel *p, lp_box box) {
  lp_range x = LP_NO_RANGE, y = LP_NO_RANGE;
  lp_view v;
  for (int s = 0; s < p->series_count; s++)
    if (p->series[s].x && p->series[s].y) add_series(&p->series[s], p, &x, &y);
  if (x.low > x.high) {
    lp_empty_draw(c, p, box);
    return;
  }
  if (!lp_view_open(&v, c, p, box, &x, y, false, 0)) return;
  lp_view_references(&v);
  for (int s = 0; s < p->series_count; s++) {
    const lp_series *e = &p->series[s];
    if (!e->x || !e->y) continue;
    lp_open_mark(c, e->name);
    draw_line(&v, e);
    if (e->marker) draw_markers(&v, e);
    lp_close_mark(c);
  }
}
