/* surface_svg.c: a canvas that writes SVG text. libplot's own SVG driver maps
 * every length into a unit square and strokes labels as polylines; this one
 * keeps pixels, real text and descriptions under the pointer. */
#include "canvas.h"

#include <stdio.h>
#include <string.h>

typedef struct { lp_canvas canvas; lp_buffer *out; } svg;

static lp_buffer *out_of(lp_canvas *c) { return ((svg *)c)->out; }

static void put_color(lp_buffer *b, const char *name, uint32_t color) {
  char text[48];
  snprintf(text, sizeof text, " %s=\"#%06x\"", name,
           (unsigned)(color & 0xFFFFFF));
  lp_buffer_text(b, text);
}

static void put_number(lp_buffer *b, const char *name, double value) {
  lp_buffer_text(b, " ");
  lp_buffer_text(b, name);
  lp_buffer_text(b, "=\"");
  lp_buffer_number(b, value);
  lp_buffer_text(b, "\"");
}

static void put_code(lp_buffer *b, uint32_t u) {
  char s[4];
  int n = u < 0x80 ? 1 : u < 0x800 ? 2 : u < 0x10000 ? 3 : 4;
  static const unsigned char first[] = {0, 0, 0xC0, 0xE0, 0xF0};
  for (int i = n - 1; i > 0; i--, u >>= 6) s[i] = (char)(0x80 | (u & 0x3F));
  s[0] = (char)(first[n] | u);
  lp_buffer_add(b, s, (size_t)n);
}

/* Text between tags: valid UTF-8, XML's own signs escaped. */
static void put_text(lp_buffer *b, const char *utf8) {
  for (uint32_t u; (u = lp_text_next(&utf8)) != 0;) {
    if (u == '&') lp_buffer_text(b, "&amp;");
    else if (u == '<') lp_buffer_text(b, "&lt;");
    else if (u == '>') lp_buffer_text(b, "&gt;");
    else put_code(b, u);
  }
}

static void put_points(lp_buffer *b, const lp_point *p, int n) {
  lp_buffer_text(b, " points=\"");
  for (int i = 0; i < n; i++) {
    if (i) lp_buffer_text(b, " ");
    lp_buffer_number(b, p[i].x);
    lp_buffer_text(b, ",");
    lp_buffer_number(b, p[i].y);
  }
  lp_buffer_text(b, "\"");
}

static void svg_path(lp_canvas *c, const lp_point *p, int n,
                     const lp_pen *pen) {
  lp_buffer *b = out_of(c);
  double dash[4];
  int dashes = lp_dash_lengths(pen, dash);
  lp_buffer_text(b, "<polyline fill=\"none\"");
  put_color(b, "stroke", pen->color);
  put_number(b, "stroke-width", pen->width);
  for (int i = 0; i < dashes; i++) {
    lp_buffer_text(b, i ? " " : " stroke-dasharray=\"");
    lp_buffer_number(b, dash[i]);
  }
  if (dashes) lp_buffer_text(b, "\"");
  put_points(b, p, n);
  lp_buffer_text(b, "/>\n");
}

static void svg_fill(lp_canvas *c, const lp_point *p, int n, uint32_t color) {
  lp_buffer *b = out_of(c);
  lp_buffer_text(b, "<polygon");
  put_color(b, "fill", color);
  put_points(b, p, n);
  lp_buffer_text(b, "/>\n");
}

static void svg_disc(lp_canvas *c, lp_point centre, double radius,
                     uint32_t color) {
  lp_buffer *b = out_of(c);
  lp_buffer_text(b, "<circle");
  put_color(b, "fill", color);
  put_number(b, "cx", centre.x);
  put_number(b, "cy", centre.y);
  put_number(b, "r", radius);
  lp_buffer_text(b, "/>\n");
}

static void svg_text(lp_canvas *c, lp_point base, const char *utf8,
                     const lp_font *font, enum lp_anchor anchor, bool upward) {
  static const char *const anchors[] = {"", " text-anchor=\"middle\"",
                                        " text-anchor=\"end\""};
  lp_buffer *b = out_of(c);
  lp_buffer_text(b, "<text");
  put_number(b, "x", base.x);
  put_number(b, "y", base.y);
  put_number(b, "font-size", font->size);
  put_color(b, "fill", font->color);
  lp_buffer_text(b, anchors[anchor]);
  if (font->bold) lp_buffer_text(b, " font-weight=\"bold\"");
  if (upward) {
    lp_buffer_text(b, " transform=\"rotate(-90 ");
    lp_buffer_number(b, base.x);
    lp_buffer_text(b, " ");
    lp_buffer_number(b, base.y);
    lp_buffer_text(b, ")\"");
  }
  lp_buffer_text(b, ">");
  put_text(b, utf8);
  lp_buffer_text(b, "</text>\n");
}

/* Advance widths of Helvetica from ' ' to '~', thousandths of the size
 * (Adobe's metrics). */
static const short advance[95] = {
  278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278,
  278, 556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584,
  584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556,
  833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278,
  278, 278, 469, 556, 333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222,
  500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500,
  500, 334, 260, 334, 584,
};

/* An estimate that also holds for the wider fonts a viewer may put in
 * Helvetica's place (DejaVu Sans is about 12 % wider). */
static double svg_width(lp_canvas *c, const char *utf8, const lp_font *font) {
  double sum = 0;
  (void)c;
  for (uint32_t u; (u = lp_text_next(&utf8)) != 0;)
    sum += u >= ' ' && u <= '~' ? advance[u - ' '] : u < 0x1100 ? 600 : 1000;
  return sum * font->size * (font->bold ? 1.22 : 1.12) / 1000;
}

static void svg_note(lp_canvas *c, const char *utf8) {
  lp_buffer *b = out_of(c);
  if (!utf8) {
    lp_buffer_text(b, "</g>\n");
    return;
  }
  lp_buffer_text(b, "<g><title>");
  put_text(b, utf8);
  lp_buffer_text(b, "</title>\n");
}

static const struct lp_surface surface = {
  svg_path, svg_fill, svg_disc, svg_text, svg_width, svg_note,
};

const char *lp_render_svg(int width, int height, const char *title,
                          lp_painter paint, const void *what,
                          lp_buffer *out) {
  svg s = {{&surface, width, height}, out};
  char head[240];
  snprintf(head, sizeof head,
           "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" "
           "height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\" "
           "font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" "
           "stroke-linejoin=\"round\">\n", width, height, width, height);
  lp_buffer_text(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
  lp_buffer_text(out, head);
  lp_buffer_text(out, "<title>");
  put_text(out, title ? title : "");
  lp_buffer_text(out, "</title>\n");
  lp_draw_box(&s.canvas, (lp_box){0, 0, width, height}, 0xFFFFFF);
  paint(&s.canvas, what);
  lp_buffer_text(out, "</svg>\n");
  return out->failed ? "out of memory" : NULL;
}
