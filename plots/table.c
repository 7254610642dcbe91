/* table.c: rows and columns of text, as large as fits. */
#include "view.h"

#include <math.h>

enum { GAP = 22 };

typedef struct {
  lp_canvas *c;
  const lp_panel *p;
  lp_box box;
  double scale, row;  /* of every font; height of a row */
  double shrink;      /* of the columns' widths, when too wide at any size */
  double extra;       /* what is added to every column, to fill the width */
} table;

static lp_font font_of(const table *t, bool bold, uint32_t color) {
  return (lp_font){14.5 * t->scale, bold, color};
}

static double column_width(const table *t, int k) {
  lp_font bold = font_of(t, true, LP_INK);
  double most = lp_text_width(t->c, t->p->column[k].title, &bold);
  for (int i = 0; i < t->p->rows; i++) {
    const lp_cell *cell = &t->p->cell[i * t->p->columns + k];
    lp_font font = font_of(t, cell->bold, LP_INK);
    most = fmax(most, lp_text_width(t->c, cell->text, &font));
  }
  return most + GAP * t->scale;
}

static double total_width(const table *t) {
  double sum = 0;
  for (int k = 0; k < t->p->columns; k++) sum += column_width(t, k);
  return sum;
}

/* Choose the scale: full size, else what height and width allow. */
static void plan(table *t) {
  double width = t->box.x1 - t->box.x0, height = t->box.y1 - t->box.y0;
  t->scale = fmin(1, height / (30 * (t->p->rows + 1.3)));
  double wide = total_width(t);
  if (wide > width) t->scale *= fmax(width / wide, 0.5);
  t->scale = fmax(t->scale, 0.25);
  wide = total_width(t);
  t->shrink = wide > width ? width / wide : 1;
  t->extra = wide > width ? 0 : (width - wide) / t->p->columns;
  t->extra = fmin(t->extra, 40);
  t->row = fmin(30 * t->scale, height / (t->p->rows + 1.3));
}

static void draw_cell(const table *t, double x, double width, double y,
                      const char *text, lp_font font, enum lp_anchor align) {
  double pad = GAP * t->scale / 2, at = x + pad;
  if (align == LP_CENTRE) at = x + width / 2;
  if (align == LP_RIGHT) at = x + width - pad;
  lp_draw_fitted(t->c, at, y + t->row / 2 + 0.35 * font.size, text, &font,
                 align, width - pad + 1);
}

static void draw_row(const table *t, int i, double y, double end) {
  static const lp_pen rule = {0xBBBBBB, 1, LP_SOLID};
  if (i % 2 == 1)
    lp_draw_box(t->c, (lp_box){t->box.x0, y, end, y + t->row}, 0xF5F6F8);
  if (t->p->rule[i] && i > 0)
    lp_draw_line(t->c, t->box.x0, y, end, y, &rule);
}

static void draw_column(const table *t, int k, double x, double width) {
  const lp_column *column = &t->p->column[k];
  double y = t->box.y0;
  draw_cell(t, x, width, y, column->title, font_of(t, true, LP_INK),
            column->align);
  y += 1.15 * t->row;
  for (int i = 0; i < t->p->rows; i++, y += t->row) {
    const lp_cell *cell = &t->p->cell[i * t->p->columns + k];
    draw_cell(t, x, width, y, cell->text, font_of(t, cell->bold, cell->color),
              column->align);
  }
}

void lp_table_draw(lp_canvas *c, const lp_panel *p, lp_box box) {
  static const lp_pen line = {LP_INK, 1.5, LP_SOLID};
  table t = {.c = c, .p = p, .box = box};
  if (p->rows == 0 || p->columns == 0) {
    lp_empty_draw(c, p, box);
    return;
  }
  plan(&t);
  double x = box.x0, y = box.y0 + 1.08 * t.row;
  double end = fmin(box.x1, x + total_width(&t) * t.shrink +
                            t.extra * p->columns);
  for (int i = 0; i < p->rows; i++)
    draw_row(&t, i, box.y0 + (1.15 + i) * t.row, end);
  lp_draw_line(c, box.x0, y, end, y, &line);
  for (int k = 0; k < p->columns; k++) {
    double width = column_width(&t, k) * t.shrink + t.extra;
    draw_column(&t, k, x, width);
    x += width;
  }
  y = box.y0 + (1.15 + p->rows) * t.row + 3;
  lp_draw_line(c, box.x0, y, end, y, &line);
}
