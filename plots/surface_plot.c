/* surface_plot.c: a canvas on libplot's bitmap driver, four times too large,
 * box-filtered and encoded as PNG.
 *
 * The page is painted in bands of at most BAND rows, so that memory stays
 * bounded (libplot ends the process when it runs out). Its pixels are not
 * antialiased, hence the enlargement; its stroked fonts are thin, hence
 * several strokes a letter. */
#include "canvas.h"
#include "png.h"

#include <math.h>
#include <stdio.h>
#include <plot.h>  /* needs FILE */
#include <stdlib.h>
#include <string.h>

enum { OVER = 4, BAND = 128 };

typedef struct {
  lp_canvas canvas;
  plPlotter *plot;
  double top, bottom;  /* the page's rows in this band */
} page;

static void set_color(plPlotter *p, uint32_t color) {
  int r = (color >> 16 & 255) * 257, g = (color >> 8 & 255) * 257;
  int b = (color & 255) * 257;
  pl_pencolor_r(p, r, g, b);
  pl_fillcolor_r(p, r, g, b);
}

/* Does anything between the rows y0 and y1 show in this band? */
static bool shows(const page *g, double y0, double y1) {
  return y1 >= g->top && y0 <= g->bottom;
}

static bool path_shows(const page *g, const lp_point *p, int n, double pen) {
  double low = p[0].y, high = p[0].y;
  for (int i = 1; i < n; i++) {
    low = fmin(low, p[i].y);
    high = fmax(high, p[i].y);
  }
  return shows(g, low - pen, high + pen);
}

static void trace(page *g, const lp_point *p, int n) {
  pl_fmove_r(g->plot, p[0].x, g->bottom - p[0].y);
  for (int i = 1; i < n; i++)
    pl_fcont_r(g->plot, p[i].x, g->bottom - p[i].y);
}

static void plot_path(lp_canvas *c, const lp_point *p, int n,
                      const lp_pen *pen) {
  page *g = (page *)c;
  double dash[4];
  int dashes = lp_dash_lengths(pen, dash);
  if (!path_shows(g, p, n, pen->width)) return;
  set_color(g->plot, pen->color);
  pl_filltype_r(g->plot, 0);
  pl_flinewidth_r(g->plot, pen->width);
  if (dashes) pl_flinedash_r(g->plot, dashes, dash, 0);
  else pl_linemod_r(g->plot, "solid");
  trace(g, p, n);
  pl_endpath_r(g->plot);
}

static void plot_fill(lp_canvas *c, const lp_point *p, int n, uint32_t color) {
  page *g = (page *)c;
  if (!path_shows(g, p, n, 1)) return;
  set_color(g->plot, color);
  pl_filltype_r(g->plot, 1);
  pl_pentype_r(g->plot, 0);
  trace(g, p, n);
  pl_closepath_r(g->plot);
  pl_endpath_r(g->plot);
  pl_pentype_r(g->plot, 1);
}

static void plot_disc(lp_canvas *c, lp_point centre, double radius,
                      uint32_t color) {
  page *g = (page *)c;
  if (!shows(g, centre.y - radius, centre.y + radius)) return;
  set_color(g->plot, color);
  pl_filltype_r(g->plot, 1);
  pl_pentype_r(g->plot, 0);
  pl_fcircle_r(g->plot, centre.x, g->bottom - centre.y, radius);
  pl_pentype_r(g->plot, 1);
}

static void set_font(page *g, const lp_font *font) {
  pl_fontname_r(g->plot, "HersheySans");
  pl_ffontsize_r(g->plot, font->size);
}

static double plot_width(lp_canvas *c, const char *utf8, const lp_font *font) {
  page *g = (page *)c;
  char label[512];
  lp_text_latin1(label, sizeof label, utf8);
  set_font(g, font);
  return label[0] ? pl_flabelwidth_r(g->plot, label) : 0;
}

/* The label once in its place and, in a ring around it, eight times more:
 * the ring's radius decides how bold it looks. */
static void stroke_label(page *g, lp_point at, const char *label,
                         const lp_font *font, int justify) {
  double ring = (font->bold ? 0.045 : 0.021) * font->size;
  for (int i = -1; i < 8; i++) {
    double x = i < 0 ? 0 : ring * cos(i * M_PI / 4);
    double y = i < 0 ? 0 : ring * sin(i * M_PI / 4);
    pl_fmove_r(g->plot, at.x + x, g->bottom - at.y + y);
    pl_alabel_r(g->plot, justify, 'x', label);
  }
}

static void plot_text(lp_canvas *c, lp_point base, const char *utf8,
                      const lp_font *font, enum lp_anchor anchor,
                      bool upward) {
  page *g = (page *)c;
  char label[512];
  double reach = upward ? c->height : 1.5 * font->size;
  if (!shows(g, base.y - reach, base.y + reach)) return;
  lp_text_latin1(label, sizeof label, utf8);
  if (!label[0]) return;
  set_font(g, font);
  set_color(g->plot, font->color);
  pl_linemod_r(g->plot, "solid");
  pl_ftextangle_r(g->plot, upward ? 90 : 0);
  stroke_label(g, base, label, font, "lcr"[anchor]);
  pl_ftextangle_r(g->plot, 0);
}

static void plot_note(lp_canvas *c, const char *utf8) {
  (void)c;
  (void)utf8;
}

static const struct lp_surface surface = {
  plot_path, plot_fill, plot_disc, plot_text, plot_width, plot_note,
};

/* A plotter for `rows` rows of the page that writes to `file`; NULL when
 * libplot refuses. */
static plPlotter *open_plotter(int width, int rows, int over, FILE *file) {
  plPlotterParams *params = pl_newplparams();
  char size[40];
  snprintf(size, sizeof size, "%dx%d", width * over, rows * over);
  pl_setplparam(params, "BITMAPSIZE", size);
  pl_setplparam(params, "BG_COLOR", (void *)"white");
  pl_setplparam(params, "MAX_LINE_LENGTH", (void *)"4096");
  plPlotter *p = pl_newpl_r("pnm", NULL, file, NULL, params);
  pl_deleteplparams(params);
  if (p && pl_openpl_r(p) < 0) {
    pl_deletepl_r(p);
    return NULL;
  }
  return p;
}

/* Paint the rows [top, top + rows) of the page to `file`. */
static const char *paint_band(page *g, int top, int rows, int over, FILE *file,
                              lp_painter paint, const void *what) {
  g->top = top;
  g->bottom = top + rows;
  g->plot = open_plotter((int)g->canvas.width, rows, over, file);
  if (!g->plot) return "libplot opens no bitmap";
  pl_fspace_r(g->plot, 0, 0, g->canvas.width, rows);
  pl_erase_r(g->plot);
  pl_joinmod_r(g->plot, "round");
  pl_capmod_r(g->plot, "butt");
  paint(&g->canvas, what);
  const char *error = pl_closepl_r(g->plot) < 0 ? "libplot failed" : NULL;
  pl_deletepl_r(g->plot);
  return error;
}

/* One band as averaged RGB rows into `rgb`. `over` = OVER × scale libplot
 * pixels a page unit. */
static const char *filter_band(page *g, int top, int rows, int scale,
                               lp_painter paint, const void *what,
                               unsigned char *rgb) {
  char *pixels = NULL;
  size_t size = 0;
  int over = OVER * scale, width = (int)g->canvas.width;
  FILE *file = open_memstream(&pixels, &size);
  if (!file) return "out of memory";
  const char *error = paint_band(g, top, rows, over, file, paint, what);
  if (fclose(file) != 0 && !error) error = "out of memory";
  if (!error)
    error = lp_pnm_average(pixels, size, width * scale, rows * scale, OVER,
                           rgb);
  free(pixels);
  return error;
}

const char *lp_render_png(int width, int height, int scale, lp_painter paint,
                          const void *what, lp_buffer *out) {
  page g = {.canvas = {&surface, width, height}};
  size_t row = (size_t)width * (size_t)scale * 3;
  unsigned char *rgb = malloc(row * (size_t)(height * scale));
  const char *error = rgb ? NULL : "out of memory";
  int band = BAND / scale;
  for (int top = 0; !error && top < height; top += band) {
    int rows = height - top < band ? height - top : band;
    error = filter_band(&g, top, rows, scale, paint, what,
                        rgb + row * (size_t)(top * scale));
  }
  if (!error) error = lp_png_encode(rgb, width * scale, height * scale, out);
  free(rgb);
  return error;
}
