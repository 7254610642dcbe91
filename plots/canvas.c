/* canvas.c: what every surface shares: clean coordinates, clipping, markers,
 * fitted text. */
#include "canvas.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { RUN = 512, TEXT = 512, MOST = 120 };  /* points, bytes, letters */

/* Whatever the caller computed, libplot sees a number near the page. */
static double clean(const lp_canvas *c, double v) {
  double far = 4 * (c->width + c->height);
  if (!isfinite(v)) return 0;
  return v < -far ? -far : v > far ? far : v;
}

static lp_point clean_point(const lp_canvas *c, double x, double y) {
  return (lp_point){clean(c, x), clean(c, y)};
}

/* Cut one parameter range [t0, t1] by p·t <= q (Liang and Barsky 1984). */
static bool cut(double p, double q, double *t0, double *t1) {
  if (p == 0) return q >= 0;
  double t = q / p;
  if (p < 0 ? t > *t1 : t < *t0) return false;
  if (p < 0 && t > *t0) *t0 = t;
  if (p > 0 && t < *t1) *t1 = t;
  return true;
}

/* Cut the segment a-b to the box, in place; false when nothing is left. */
static bool clip_segment(lp_point *a, lp_point *b, const lp_box *k) {
  double dx = b->x - a->x, dy = b->y - a->y, t0 = 0, t1 = 1;
  if (!cut(-dx, a->x - k->x0, &t0, &t1) || !cut(dx, k->x1 - a->x, &t0, &t1) ||
      !cut(-dy, a->y - k->y0, &t0, &t1) || !cut(dy, k->y1 - a->y, &t0, &t1))
    return false;
  *b = (lp_point){a->x + t1 * dx, a->y + t1 * dy};
  *a = (lp_point){a->x + t0 * dx, a->y + t0 * dy};
  return true;
}

static bool same(lp_point a, lp_point b) { return a.x == b.x && a.y == b.y; }

void lp_draw_path(lp_canvas *c, const lp_point *p, int n, const lp_pen *pen,
                  const lp_box *clip) {
  lp_box page = {0, 0, c->width, c->height};
  lp_point run[RUN];
  int length = 0;
  if (!clip) clip = &page;
  for (int i = 0; i + 1 < n; i++) {
    lp_point a = clean_point(c, p[i].x, p[i].y);
    lp_point b = clean_point(c, p[i + 1].x, p[i + 1].y);
    if (!clip_segment(&a, &b, clip)) continue;
    if (length == RUN || (length && !same(run[length - 1], a))) {
      c->surface->path(c, run, length, pen);
      length = 0;
    }
    if (!length) run[length++] = a;
    run[length++] = b;
    if (length == RUN) {  /* flush, and go on from the same point */
      c->surface->path(c, run, length, pen);
      run[0] = b;
      length = 1;
    }
  }
  if (length > 1) c->surface->path(c, run, length, pen);
}

void lp_draw_line(lp_canvas *c, double x0, double y0, double x1, double y1,
                  const lp_pen *pen) {
  lp_draw_path(c, (lp_point[]){{x0, y0}, {x1, y1}}, 2, pen, NULL);
}

void lp_draw_polygon(lp_canvas *c, const lp_point *p, int n, uint32_t color) {
  lp_point q[8];
  if (n > 8) n = 8;
  for (int i = 0; i < n; i++) q[i] = clean_point(c, p[i].x, p[i].y);
  c->surface->fill(c, q, n, color);
}

void lp_draw_box(lp_canvas *c, lp_box k, uint32_t color) {
  lp_point p[] = {{k.x0, k.y0}, {k.x1, k.y0}, {k.x1, k.y1}, {k.x0, k.y1}};
  if (k.x1 > k.x0 && k.y1 > k.y0) lp_draw_polygon(c, p, 4, color);
}

void lp_draw_disc(lp_canvas *c, double x, double y, double radius,
                  uint32_t color) {
  double r = clean(c, radius);
  if (r > 0) c->surface->disc(c, clean_point(c, x, y), r, color);
}

/* A marker without its outline. */
static void marker_body(lp_canvas *c, enum lp_marker shape, double x, double y,
                        double r, uint32_t color) {
  double s = 0.89 * r, t = 1.2 * r;  /* areas about equal to the circle's */
  double foot = y + 0.8 * t;
  lp_point triangle[] = {{x, y - t}, {x + t, foot}, {x - t, foot}};
  lp_point diamond[] = {{x, y - t}, {x + t, y}, {x, y + t}, {x - t, y}};
  switch (shape) {
    case LP_SQUARE:
      lp_draw_box(c, (lp_box){x - s, y - s, x + s, y + s}, color);
      break;
    case LP_TRIANGLE: lp_draw_polygon(c, triangle, 3, color); break;
    case LP_DIAMOND: lp_draw_polygon(c, diamond, 4, color); break;
    case LP_CIRCLE: lp_draw_disc(c, x, y, r, color); break;
    default: break;
  }
}

void lp_draw_marker(lp_canvas *c, enum lp_marker shape, double x, double y,
                    double radius, uint32_t color) {
  marker_body(c, shape, x, y, radius + 1.2, 0xFFFFFF);
  marker_body(c, shape, x, y, radius, color);
}

void lp_draw_text(lp_canvas *c, double x, double y, const char *utf8,
                  const lp_font *font, enum lp_anchor anchor) {
  if (utf8 && *utf8)
    c->surface->text(c, clean_point(c, x, y), utf8, font, anchor, false);
}

void lp_draw_upward(lp_canvas *c, double x, double y, const char *utf8,
                    const lp_font *font, enum lp_anchor anchor) {
  if (utf8 && *utf8)
    c->surface->text(c, clean_point(c, x, y), utf8, font, anchor, true);
}

double lp_text_width(lp_canvas *c, const char *utf8, const lp_font *font) {
  return utf8 && *utf8 ? c->surface->width(c, utf8, font) : 0;
}

static int code_points(const char *text) {
  int n = 0;
  while (lp_text_next(&text)) n++;
  return n;
}

static size_t bytes_of(const char *text, int n) {
  const char *end = text;
  for (int i = 0; i < n && *end; i++) lp_text_next(&end);
  return (size_t)(end - text);
}

/* `text`, `length` code points long, cut down to n of them: names that begin
 * alike must stay apart, so what goes is the middle. */
static void shorten(char out[TEXT], const char *text, int length, int n) {
  size_t head = bytes_of(text, n - n / 3);
  const char *tail = text + bytes_of(text, length - n / 3);
  snprintf(out, TEXT, "%.*s\xE2\x80\xA6%s", (int)head, text, tail);
}

/* `text` itself where it fits into `room`, else as much of it as does, in
 * `out`; "" when not even one letter does. */
static const char *fitted(lp_canvas *c, const char *text, const lp_font *font,
                          double room, char out[TEXT]) {
  if (!text || !*text) return "";
  int length = code_points(text), low = 0, high = length < MOST ? length : MOST;
  if (strlen(text) < TEXT && lp_text_width(c, text, font) <= room) return text;
  while (low < high) {
    int middle = (low + high + 1) / 2;
    shorten(out, text, length, middle);
    if (lp_text_width(c, out, font) <= room) low = middle;
    else high = middle - 1;
  }
  if (!low) return "";
  shorten(out, text, length, low);
  return out;
}

void lp_draw_fitted(lp_canvas *c, double x, double y, const char *utf8,
                    const lp_font *font, enum lp_anchor anchor, double room) {
  char out[TEXT];
  lp_draw_text(c, x, y, fitted(c, utf8, font, room, out), font, anchor);
}

void lp_draw_fitted_upward(lp_canvas *c, double x, double y, const char *utf8,
                           const lp_font *font, enum lp_anchor anchor,
                           double room) {
  char out[TEXT];
  lp_draw_upward(c, x, y, fitted(c, utf8, font, room, out), font, anchor);
}

void lp_open_mark(lp_canvas *c, const char *description) {
  c->surface->note(c, description ? description : "");
}

void lp_close_mark(lp_canvas *c) { c->surface->note(c, NULL); }

int lp_dash_lengths(const lp_pen *pen, double lengths[4]) {
  static const double patterns[LP_DASHES][4] = {
    [LP_DASHED] = {7, 4}, [LP_DOTTED] = {2, 3}, [LP_DASHDOT] = {8, 3, 2, 3},
  };
  if (pen->dash <= LP_SOLID || pen->dash >= LP_DASHES) return 0;
  memcpy(lengths, patterns[pen->dash], sizeof patterns[0]);
  return pen->dash == LP_DASHDOT ? 4 : 2;
}
