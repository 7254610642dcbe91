/* page.c: a whole chart: title, subtitle, legend, panels in a grid, note. */
#include "view.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MARGIN = 24, SWATCH = 26, LINE = 24, MOST = 64 };

/* ----------------------------------------------------------------- legend */

static bool known(const lp_entry *e, int n, const char *name) {
  for (int i = 0; i < n; i++)
    if (strcmp(e[i].name, name) == 0) return true;
  return false;
}

/* The legend that was given, or one entry a named series. */
static int collect(const lp_chart *chart, lp_entry out[MOST]) {
  int n = 0;
  for (int i = 0; i < chart->entries && n < MOST; i++)
    if (chart->entry[i].name) out[n++] = chart->entry[i];
  if (chart->entries) return n;
  for (int p = 0; p < chart->panels; p++) {
    const lp_panel *panel = &chart->panel[p];
    for (int i = 0; i < panel->series_count && n < MOST; i++) {
      const lp_series *s = &panel->series[i];
      if (!s->name || known(out, n, s->name)) continue;
      out[n++] = (lp_entry){s->name, s->color, s->dash, s->marker,
                            panel->kind == LP_LINES};
    }
  }
  return n;
}

static void draw_swatch(lp_canvas *c, const lp_entry *e, double x, double y) {
  lp_pen pen = {e->color, 2.5, e->dash};
  if (e->line) lp_draw_line(c, x, y, x + SWATCH, y, &pen);
  if (e->marker)
    lp_draw_marker(c, e->marker, x + SWATCH / 2, y, 5, e->color);
  else if (!e->line)
    lp_draw_box(c, (lp_box){x + 6, y - 7, x + 20, y + 7}, e->color);
}

/* The entries from left to right, as many rows as it takes; gives the y below
 * them. */
static double draw_legend(lp_canvas *c, const lp_chart *chart, double y) {
  lp_entry e[MOST];
  int n = collect(chart, e);
  double x = MARGIN, end = c->width - MARGIN;
  if (n == 0) return y;
  for (int i = 0; i < n; i++) {
    double w = fmin(lp_text_width(c, e[i].name, &lp_font_label), 320);
    if (x > MARGIN && x + SWATCH + 6 + w > end) {
      x = MARGIN;
      y += LINE;
    }
    draw_swatch(c, &e[i], x, y + 12);
    lp_draw_fitted(c, x + SWATCH + 6, y + 17, e[i].name, &lp_font_label,
                   LP_LEFT, w + 1);
    x += SWATCH + 6 + w + 22;
  }
  return y + LINE + 4;
}

/* ----------------------------------------------------------------- panels */

static void draw_panel(lp_canvas *c, const lp_panel *p, lp_box box) {
  switch (p->kind) {
    case LP_BARS: lp_bars_draw(c, p, box); break;
    case LP_LINES: lp_lines_draw(c, p, box); break;
    case LP_SCATTER: lp_scatter_draw(c, p, box); break;
    case LP_TABLE: lp_table_draw(c, p, box); break;
  }
}

static void draw_panels(lp_canvas *c, const lp_chart *chart, lp_box page) {
  int n = chart->panels, across = chart->columns < n ? chart->columns : n;
  if (n == 0) {
    lp_empty_draw(c, NULL, page);
    return;
  }
  int down = (n + across - 1) / across;
  double w = (page.x1 - page.x0 + 28) / across;
  double h = (page.y1 - page.y0 + 16) / down;
  for (int i = 0; i < n; i++) {
    double x = page.x0 + w * (i % across), y = page.y0 + h * (i / across);
    draw_panel(c, &chart->panel[i], (lp_box){x, y, x + w - 28, y + h - 16});
  }
}

/* ------------------------------------------------------------------- page */

/* The end of the longest start of `s` that fits, at a space; the whole when
 * it fits or has no space. */
static const char *line_end(lp_canvas *c, const char *s, const lp_font *font,
                            double room) {
  const char *best = NULL;
  char part[512];
  for (const char *e = s; ; e++) {
    if (*e && *e != ' ') continue;
    if ((size_t)(e - s) >= sizeof part) break;
    memcpy(part, s, (size_t)(e - s));
    part[e - s] = 0;
    if (best && lp_text_width(c, part, font) > room) break;
    best = e;
    if (!*e) break;
  }
  return best ? best : s + strlen(s);
}

/* Text over at most three lines upwards from `y`; gives their number. With
 * draw = false only counts. */
static int note_lines(lp_canvas *c, const char *note, double y, bool draw) {
  double room = c->width - 2 * MARGIN;
  int n = 0;
  for (const char *s = note; s && *s && n < 3; n++) {
    const char *e = line_end(c, s, &lp_font_small, room);
    char part[512];
    snprintf(part, sizeof part, "%.*s", (int)(e - s), s);
    if (draw)
      lp_draw_fitted(c, MARGIN, y + 16 * n, part, &lp_font_small, LP_LEFT,
                     room);
    s = *e ? e + 1 : e;
  }
  return n;
}

void lp_chart_draw(lp_canvas *c, const void *what) {
  const lp_chart *chart = what;
  double room = c->width - 2 * MARGIN, y = 14, foot = c->height - 14;
  if (chart->title) {
    lp_draw_fitted(c, MARGIN, y + 22, chart->title, &lp_font_title, LP_LEFT,
                   room);
    y += 32;
  }
  if (chart->subtitle) {
    lp_draw_fitted(c, MARGIN, y + 15, chart->subtitle, &lp_font_subtitle,
                   LP_LEFT, room);
    y += 24;
  }
  y = draw_legend(c, chart, y + 4) + 8;
  if (chart->note) {
    int n = note_lines(c, chart->note, 0, false);
    foot -= 16 * n + 6;
    note_lines(c, chart->note, foot + 20, true);
  }
  draw_panels(c, chart, (lp_box){MARGIN, y, c->width - MARGIN, foot});
}
