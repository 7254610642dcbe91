/* view.h: a panel being drawn: its axes, and the kinds of charts in it. */
#ifndef LP_VIEW_H
#define LP_VIEW_H

#include "axis.h"

#pragma GCC visibility push(hidden)

enum { LP_INK = 0x222222, LP_GRAY = 0x666666, LP_GRID = 0xE2E2E2,
       LP_EDGE = 0x888888, LP_ALERT = 0xB00020 };

extern const lp_font lp_font_title, lp_font_subtitle, lp_font_panel,
    lp_font_label, lp_font_tick, lp_font_small, lp_font_alert;

typedef struct {
  lp_canvas *c;
  const lp_panel *p;
  lp_box plot;
  lp_scale x, y;
} lp_view;

/* Lay out the panel in `box` for these ranges and draw title, grid, ticks and
 * axis titles. x == NULL: no scale across, `below` pixels are left for what
 * the caller writes there. `base`: y shows 0. False when there is no room. */
bool lp_view_open(lp_view *v, lp_canvas *c, const lp_panel *p, lp_box box,
                  const lp_range *x, lp_range y, bool base, double below);
/* Budget lines and the like; one far off the scale becomes an arrow. */
void lp_view_references(lp_view *v);

/* One panel each, in `box`. */
void lp_bars_draw(lp_canvas *c, const lp_panel *p, lp_box box);
void lp_lines_draw(lp_canvas *c, const lp_panel *p, lp_box box);
void lp_scatter_draw(lp_canvas *c, const lp_panel *p, lp_box box);
void lp_table_draw(lp_canvas *c, const lp_panel *p, lp_box box);
void lp_empty_draw(lp_canvas *c, const lp_panel *p, lp_box box);

/* The whole page; `what` is a const lp_chart *. An lp_painter. */
void lp_chart_draw(lp_canvas *c, const void *what);

#pragma GCC visibility pop
#endif
