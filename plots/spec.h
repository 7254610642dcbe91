/* spec.h: a chart as data: what chart.render() was given, checked. */
#ifndef LP_SPEC_H
#define LP_SPEC_H

#include <lua.h>

#include "canvas.h"

#pragma GCC visibility push(hidden)

enum lp_kind { LP_BARS, LP_LINES, LP_SCATTER, LP_TABLE };
enum lp_format { LP_PLAIN, LP_SI, LP_PERCENT };

/* Numbers: NaN = missing. Texts: NULL = missing; they belong to Lua and live
 * as long as the table they came from. Everything else lives in `anchor`. */
typedef struct {
  const char *label;
  enum lp_format format;
  double low, high;  /* fixed ends, or NaN */
  bool log;
} lp_axis;

typedef struct {
  const char *name;
  uint32_t color;
  int dash, marker;
  double width;
  int count;
  double *x, *y, *spread, *area;
  const char **notes;  /* bars: what stands in a missing bar's place;
                          scatter: the point's label */
} lp_series;

typedef struct { const char *label, *group, *note; } lp_category;

typedef struct {
  double value;
  const char *label;
  bool vertical;
  uint32_t color;
} lp_reference;

typedef struct { const char *title; enum lp_anchor align; } lp_column;

typedef struct {
  const char *text;
  uint32_t color;
  bool bold;
} lp_cell;

typedef struct {
  const char *name;
  uint32_t color;
  int dash, marker;
  bool line;
} lp_entry;

typedef struct {
  enum lp_kind kind;
  const char *title, *empty;
  lp_axis x, y;
  bool stacked, dots;       /* bars: piled up; points instead of bars */
  bool values;              /* bars: each value as text */
  enum lp_format value_format;
  int digits;               /* significant, of those texts */
  const char *area_label;   /* scatter: what the areas mean */
  enum lp_format area_format;
  int categories, series_count, references, columns, rows;
  lp_category *category;
  lp_series *series;
  lp_reference *reference;
  lp_column *column;
  lp_cell *cell;            /* rows × columns */
  bool *rule;               /* a thin line above this row */
} lp_panel;

typedef struct {
  const char *title, *subtitle, *note;
  int columns, panels, entries;
  lp_panel *panel;
  lp_entry *entry;          /* the legend */
} lp_chart;

/* Read the table at `index` into a chart that lives as long as the value this
 * pushes on the stack. Raises what is wrong and where. */
lp_chart *lp_spec_read(lua_State *L, int index);

/* The option `key` must be one of `keys` (NULL-ended); raises otherwise. */
void lp_spec_keys(lua_State *L, int index, const char *where,
                  const char *const *keys);

#pragma GCC visibility pop
#endif
