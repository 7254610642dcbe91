/* canvas.h: the drawing surface of the charts: few shapes, pixels, y down.
 *
 * Two surfaces stand behind it: libplot bitmaps (surface_plot.c) and SVG text
 * (surface_svg.c). Callers use the lp_draw_* functions, which let only finite,
 * bounded coordinates through: libplot hangs on anything else. */
#ifndef LP_CANVAS_H
#define LP_CANVAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

enum lp_dash { LP_SOLID, LP_DASHED, LP_DOTTED, LP_DASHDOT, LP_DASHES };
enum lp_anchor { LP_LEFT, LP_CENTRE, LP_RIGHT };
enum lp_marker {
  LP_NONE, LP_CIRCLE, LP_SQUARE, LP_TRIANGLE, LP_DIAMOND, LP_MARKERS
};

typedef struct { double x, y; } lp_point;
typedef struct { double x0, y0, x1, y1; } lp_box;  /* y0 is the upper edge */
typedef struct { uint32_t color; double width; int dash; } lp_pen;
typedef struct { double size; bool bold; uint32_t color; } lp_font;

typedef struct lp_canvas lp_canvas;

/* What a surface implements; coordinates arrive clean, texts not empty. */
struct lp_surface {
  void (*path)(lp_canvas *c, const lp_point *p, int n, const lp_pen *pen);
  void (*fill)(lp_canvas *c, const lp_point *p, int n, uint32_t color);
  void (*disc)(lp_canvas *c, lp_point centre, double radius, uint32_t color);
  void (*text)(lp_canvas *c, lp_point base, const char *utf8,
               const lp_font *font, enum lp_anchor anchor, bool upward);
  double (*width)(lp_canvas *c, const char *utf8, const lp_font *font);
  void (*note)(lp_canvas *c, const char *utf8);  /* NULL ends the mark */
};

struct lp_canvas {
  const struct lp_surface *surface;
  double width, height;
};

/* Straight lines through n points, the parts outside `clip` cut away. */
void lp_draw_path(lp_canvas *c, const lp_point *p, int n, const lp_pen *pen,
                  const lp_box *clip);
void lp_draw_line(lp_canvas *c, double x0, double y0, double x1, double y1,
                  const lp_pen *pen);
void lp_draw_box(lp_canvas *c, lp_box box, uint32_t color);
void lp_draw_polygon(lp_canvas *c, const lp_point *p, int n, uint32_t color);
void lp_draw_disc(lp_canvas *c, double x, double y, double radius,
                  uint32_t color);
/* A data point of the given shape, `radius` wide each way, outlined white. */
void lp_draw_marker(lp_canvas *c, enum lp_marker shape, double x, double y,
                    double radius, uint32_t color);
/* One line of text; (x, y) lies on the base line at the anchor. */
void lp_draw_text(lp_canvas *c, double x, double y, const char *utf8,
                  const lp_font *font, enum lp_anchor anchor);
/* The same, reading upwards. */
void lp_draw_upward(lp_canvas *c, double x, double y, const char *utf8,
                    const lp_font *font, enum lp_anchor anchor);
/* As lp_draw_text, cut with an ellipsis where wider than `room`. */
void lp_draw_fitted(lp_canvas *c, double x, double y, const char *utf8,
                    const lp_font *font, enum lp_anchor anchor, double room);
void lp_draw_fitted_upward(lp_canvas *c, double x, double y, const char *utf8,
                           const lp_font *font, enum lp_anchor anchor,
                           double room);
double lp_text_width(lp_canvas *c, const char *utf8, const lp_font *font);
/* Shapes drawn between these belong to one mark, whose description a reader
 * of the SVG sees under the pointer. */
void lp_open_mark(lp_canvas *c, const char *description);
void lp_close_mark(lp_canvas *c);

/* Dash lengths in pixels for a pen; gives their number, 0 for a solid line. */
int lp_dash_lengths(const lp_pen *pen, double lengths[4]);

/* ------------------------------------------------------------------ text */
/* The next code point; damaged bytes, controls and the end's neighbours come
 * as U+FFFD. 0 at the end. Moves *text on. */
uint32_t lp_text_next(const char **text);
/* Latin-1 for libplot: what it lacks is transliterated, "?" at worst. */
void lp_text_latin1(char *out, size_t size, const char *utf8);

/* --------------------------------------------------- a text that can grow */
typedef struct { char *data; size_t size, room; bool failed; } lp_buffer;
void lp_buffer_add(lp_buffer *b, const void *data, size_t size);
void lp_buffer_text(lp_buffer *b, const char *text);
void lp_buffer_number(lp_buffer *b, double value);  /* two decimals */

/* -------------------------------------------------------------- surfaces */
typedef void (*lp_painter)(lp_canvas *c, const void *what);

/* Call `paint` and give the picture as a PNG or SVG file in *out (malloc'd
 * data; the caller frees it, after failures too). NULL, or what went wrong. */
const char *lp_render_png(int width, int height, int scale, lp_painter paint,
                          const void *what, lp_buffer *out);
const char *lp_render_svg(int width, int height, const char *title,
                          lp_painter paint, const void *what, lp_buffer *out);

#pragma GCC visibility pop
#endif
