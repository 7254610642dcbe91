/* spec.c: from a Lua table to a chart description.
 *
 * Everything is read raw (no metamethod runs), every size has a limit, every
 * number that is not finite or beyond 1e30 becomes "missing". Memory comes as
 * userdata kept in one Lua table, so that a raised error leaks nothing. */
#include "spec.h"

#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PANELS = 12, SERIES = 64, CATEGORIES = 400, POINTS = 20000, COLUMNS = 24,
       ROWS = 400, REFERENCES = 8, ENTRIES = 64 };

typedef struct {
  lua_State *L;
  int anchor;        /* the table that keeps our memory */
  char where[72];    /* for messages: what is being read, ... */
  char outer[72];    /* ... and what it is an entry of */
} reader;

static void *keep(reader *r, int count, size_t size) {
  if (count == 0) return NULL;
  void *p = lua_newuserdatauv(r->L, (size_t)count * size, 0);
  memset(p, 0, (size_t)count * size);
  lua_rawseti(r->L, r->anchor, (lua_Integer)lua_rawlen(r->L, r->anchor) + 1);
  return p;
}

static int bad(reader *r, const char *key, const char *want) {
  return luaL_error(r->L, "chart: %s%s%s must be %s, not a %s", r->where,
                    *r->where ? "." : "", key, want, luaL_typename(r->L, -1));
}

/* Push t[key]; false (nothing pushed) when it is nil or JSON's null. */
static bool push(reader *r, int t, const char *key) {
  lua_pushstring(r->L, key);
  lua_rawget(r->L, t);
  if (!lua_isnil(r->L, -1) && !lua_islightuserdata(r->L, -1)) return true;
  lua_pop(r->L, 1);
  return false;
}

static const char *text(reader *r, int t, const char *key) {
  if (!push(r, t, key)) return NULL;
  if (lua_type(r->L, -1) != LUA_TSTRING) bad(r, key, "a string");
  const char *s = lua_tostring(r->L, -1);
  lua_pop(r->L, 1);
  return s;
}

/* The number on the top, or NaN: missing, not a number, not drawable. */
static double top_number(lua_State *L) {
  double v = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : NAN;
  return fabs(v) <= 1e30 ? v : NAN;
}

static double number(reader *r, int t, const char *key, double otherwise) {
  if (!push(r, t, key)) return otherwise;
  if (lua_type(r->L, -1) != LUA_TNUMBER) bad(r, key, "a number");
  double v = top_number(r->L);
  lua_pop(r->L, 1);
  return v;
}

static bool flag(reader *r, int t, const char *key) {
  if (!push(r, t, key)) return false;
  if (!lua_isboolean(r->L, -1)) bad(r, key, "a boolean");
  bool v = lua_toboolean(r->L, -1);
  lua_pop(r->L, 1);
  return v;
}

static uint32_t color(reader *r, int t, const char *key, uint32_t otherwise) {
  double v = number(r, t, key, otherwise);
  return v >= 0 && v <= 0xFFFFFF ? (uint32_t)v : otherwise;
}

/* The place of t[key] among NULL-ended `names`; 0 when absent. */
static int choice(reader *r, int t, const char *key,
                  const char *const *names) {
  const char *s = text(r, t, key);
  if (!s) return 0;
  for (int i = 0; names[i]; i++)
    if (strcmp(s, names[i]) == 0) return i;
  return luaL_error(r->L, "chart: %s%s%s: no '%s' here", r->where,
                    *r->where ? "." : "", key, s);
}

void lp_spec_keys(lua_State *L, int index, const char *where,
                  const char *const *keys) {
  lua_pushnil(L);
  while (lua_next(L, index)) {
    const char *s = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    int i = 0;
    while (keys[i] && strcmp(keys[i], s) != 0) i++;
    if (!keys[i])
      luaL_error(L, "chart: unknown key '%s' in %s", s,
                 *where ? where : "the chart");
    lua_pop(L, 1);
  }
}

/* Push the list t[key] and give its length; 0 and nothing pushed when it is
 * absent or empty. */
static int list(reader *r, int t, const char *key, int most) {
  if (!push(r, t, key)) return 0;
  if (!lua_istable(r->L, -1)) bad(r, key, "a table");
  lua_Unsigned n = lua_rawlen(r->L, -1);
  if (n > (lua_Unsigned)most)
    luaL_error(r->L, "chart: %s%s%s has %d entries, at most %d fit", r->where,
               *r->where ? "." : "", key, (int)n, most);
  if (n == 0) lua_pop(r->L, 1);
  return (int)n;
}

/* Push entry i of the list on the top, a table, and name it for messages. */
static int entry(reader *r, const char *key, int i) {
  lua_rawgeti(r->L, -1, i + 1);
  snprintf(r->where, sizeof r->where, "%.36s%s%.14s[%d]", r->outer,
           *r->outer ? "." : "", key, i + 1);
  if (!lua_istable(r->L, -1))
    luaL_error(r->L, "chart: %s must be a table, not a %s", r->where,
               luaL_typename(r->L, -1));
  return lua_gettop(r->L);
}

/* Pop an entry; back to naming what it is an entry of. */
static void leave(reader *r) {
  lua_pop(r->L, 1);
  memcpy(r->where, r->outer, sizeof r->where);
}

/* t[key] as `count` numbers, missing ones NaN; NULL when absent. */
static double *numbers(reader *r, int t, const char *key, int count) {
  if (!push(r, t, key)) return NULL;
  if (!lua_istable(r->L, -1)) bad(r, key, "a table");
  int at = lua_gettop(r->L);
  double *v = keep(r, count, sizeof *v);
  for (int i = 0; i < count; i++) {
    lua_rawgeti(r->L, at, i + 1);
    v[i] = top_number(r->L);
    lua_pop(r->L, 1);
  }
  lua_pop(r->L, 1);
  return v;
}

static const char **texts(reader *r, int t, const char *key, int count) {
  if (!push(r, t, key)) return NULL;
  if (!lua_istable(r->L, -1)) bad(r, key, "a table");
  int at = lua_gettop(r->L);
  const char **v = keep(r, count, sizeof *v);
  for (int i = 0; i < count; i++) {
    lua_rawgeti(r->L, at, i + 1);
    if (lua_type(r->L, -1) == LUA_TSTRING) v[i] = lua_tostring(r->L, -1);
    lua_pop(r->L, 1);
  }
  lua_pop(r->L, 1);
  return v;
}

static const char *const formats[] = {"plain", "si", "percent", NULL};
static const char *const dashes[] = {"solid", "dashed", "dotted", "dashdot",
                                     NULL};
static const char *const markers[] = {"none", "circle", "square", "triangle",
                                      "diamond", NULL};

static lp_axis read_axis(reader *r, int t, const char *key) {
  static const char *const keys[] = {"label", "format", "min", "max", "log",
                                     NULL};
  lp_axis a = {.low = NAN, .high = NAN};
  if (!push(r, t, key)) return a;
  if (!lua_istable(r->L, -1)) bad(r, key, "a table");
  int at = lua_gettop(r->L);
  lp_spec_keys(r->L, at, key, keys);
  a.label = text(r, at, "label");
  a.format = (enum lp_format)choice(r, at, "format", formats);
  a.low = number(r, at, "min", NAN);
  a.high = number(r, at, "max", NAN);
  a.log = flag(r, at, "log");
  lua_pop(r->L, 1);
  return a;
}

static int series_length(reader *r, int t, const lp_panel *p) {
  if (p->kind == LP_BARS) return p->categories;
  int n = list(r, t, "x", POINTS);
  if (n) lua_pop(r->L, 1);
  return n;
}

static void read_one_series(reader *r, int t, lp_panel *p, lp_series *s) {
  static const char *const keys[] = {"name", "color", "dash", "marker", "width",
    "x", "y", "spread", "area", "notes", NULL};
  lp_spec_keys(r->L, t, r->where, keys);
  s->name = text(r, t, "name");
  s->color = color(r, t, "color", 0x555555);
  s->dash = choice(r, t, "dash", dashes);
  s->marker = choice(r, t, "marker", markers);
  s->width = number(r, t, "width", 2);
  if (!(s->width >= 0.2 && s->width <= 20)) s->width = 2;
  s->count = series_length(r, t, p);
  s->x = numbers(r, t, "x", s->count);
  s->y = numbers(r, t, "y", s->count);
  s->spread = numbers(r, t, "spread", s->count);
  s->area = numbers(r, t, "area", s->count);
  s->notes = texts(r, t, "notes", s->count);
}

static void read_series(reader *r, int t, lp_panel *p) {
  p->series_count = list(r, t, "series", SERIES);
  p->series = keep(r, p->series_count, sizeof *p->series);
  for (int i = 0; i < p->series_count; i++) {
    read_one_series(r, entry(r, "series", i), p, &p->series[i]);
    leave(r);
  }
  if (p->series_count) lua_pop(r->L, 1);
}

static void read_categories(reader *r, int t, lp_panel *p) {
  static const char *const keys[] = {"label", "group", "note", NULL};
  p->categories = list(r, t, "categories", CATEGORIES);
  p->category = keep(r, p->categories, sizeof *p->category);
  for (int i = 0; i < p->categories; i++) {
    int at = entry(r, "categories", i);
    lp_spec_keys(r->L, at, r->where, keys);
    p->category[i] = (lp_category){text(r, at, "label"), text(r, at, "group"),
                                   text(r, at, "note")};
    leave(r);
  }
  if (p->categories) lua_pop(r->L, 1);
}

static void read_references(reader *r, int t, lp_panel *p) {
  static const char *const keys[] = {"value", "label", "vertical", "color",
                                     NULL};
  p->references = list(r, t, "references", REFERENCES);
  p->reference = keep(r, p->references, sizeof *p->reference);
  for (int i = 0; i < p->references; i++) {
    int at = entry(r, "references", i);
    lp_spec_keys(r->L, at, r->where, keys);
    p->reference[i] = (lp_reference){number(r, at, "value", NAN),
      text(r, at, "label"), flag(r, at, "vertical"),
      color(r, at, "color", 0xB00020)};
    leave(r);
  }
  if (p->references) lua_pop(r->L, 1);
}

static void read_columns(reader *r, int t, lp_panel *p) {
  static const char *const keys[] = {"title", "align", NULL};
  static const char *const aligns[] = {"left", "centre", "right", NULL};
  p->columns = list(r, t, "table_columns", COLUMNS);
  p->column = keep(r, p->columns, sizeof *p->column);
  for (int i = 0; i < p->columns; i++) {
    int at = entry(r, "table_columns", i);
    lp_spec_keys(r->L, at, r->where, keys);
    p->column[i] = (lp_column){text(r, at, "title"),
      (enum lp_anchor)choice(r, at, "align", aligns)};
    leave(r);
  }
  if (p->columns) lua_pop(r->L, 1);
}

/* A cell is a string or {text=, color=, bold=}; anything else is empty. */
static lp_cell read_cell(reader *r) {
  static const char *const keys[] = {"text", "color", "bold", NULL};
  lp_cell c = {.color = 0x222222};
  int at = lua_gettop(r->L);
  if (lua_type(r->L, at) == LUA_TSTRING) c.text = lua_tostring(r->L, at);
  if (!lua_istable(r->L, at)) return c;
  lp_spec_keys(r->L, at, "a cell", keys);
  c.text = text(r, at, "text");
  c.color = color(r, at, "color", 0x222222);
  c.bold = flag(r, at, "bold");
  return c;
}

static void read_rows(reader *r, int t, lp_panel *p) {
  p->rows = list(r, t, "rows", ROWS);
  p->cell = keep(r, p->rows * p->columns, sizeof *p->cell);
  p->rule = keep(r, p->rows, sizeof *p->rule);
  for (int i = 0; i < p->rows; i++) {
    int at = entry(r, "rows", i);
    p->rule[i] = flag(r, at, "rule");
    for (int k = 0; k < p->columns; k++) {
      lua_rawgeti(r->L, at, k + 1);
      p->cell[i * p->columns + k] = read_cell(r);
      lua_pop(r->L, 1);
    }
    leave(r);
  }
  if (p->rows) lua_pop(r->L, 1);
}

static void read_panel(reader *r, int t, lp_panel *p) {
  static const char *const kinds[] = {"bars", "lines", "scatter", "table",
                                      NULL};
  static const char *const keys[] = {"kind", "title", "empty", "x", "y",
    "stacked", "dots", "values", "value_format", "digits", "area_label",
    "area_format", "categories", "series", "references", "table_columns",
    "rows", NULL};
  lp_spec_keys(r->L, t, r->where, keys);
  if (!text(r, t, "kind"))
    luaL_error(r->L, "chart: %s.kind is missing", r->where);
  p->kind = (enum lp_kind)choice(r, t, "kind", kinds);
  p->title = text(r, t, "title");
  p->empty = text(r, t, "empty");
  p->x = read_axis(r, t, "x");
  p->y = read_axis(r, t, "y");
  p->stacked = flag(r, t, "stacked");
  p->dots = flag(r, t, "dots");
  p->values = flag(r, t, "values");
  p->value_format = (enum lp_format)choice(r, t, "value_format", formats);
  p->digits = (int)fmin(fmax(number(r, t, "digits", 3), 1), 9);
  p->area_label = text(r, t, "area_label");
  p->area_format = (enum lp_format)choice(r, t, "area_format", formats);
  read_categories(r, t, p);
  read_series(r, t, p);
  read_references(r, t, p);
  read_columns(r, t, p);
  read_rows(r, t, p);
}

static void read_legend(reader *r, int t, lp_chart *c) {
  static const char *const keys[] = {"name", "color", "dash", "marker", "line",
                                     NULL};
  c->entries = list(r, t, "legend", ENTRIES);
  c->entry = keep(r, c->entries, sizeof *c->entry);
  for (int i = 0; i < c->entries; i++) {
    int at = entry(r, "legend", i);
    lp_spec_keys(r->L, at, r->where, keys);
    c->entry[i] = (lp_entry){text(r, at, "name"),
      color(r, at, "color", 0x555555), choice(r, at, "dash", dashes),
      choice(r, at, "marker", markers), flag(r, at, "line")};
    leave(r);
  }
  if (c->entries) lua_pop(r->L, 1);
}

lp_chart *lp_spec_read(lua_State *L, int index) {
  static const char *const keys[] = {"title", "subtitle", "note", "columns",
                                     "panels", "legend", NULL};
  reader r = {.L = L};
  luaL_checkstack(L, 20, "chart");
  lua_newtable(L);
  r.anchor = lua_gettop(L);
  lp_spec_keys(L, index, "", keys);
  lp_chart *c = keep(&r, 1, sizeof *c);
  c->title = text(&r, index, "title");
  c->subtitle = text(&r, index, "subtitle");
  c->note = text(&r, index, "note");
  c->columns = (int)fmin(fmax(number(&r, index, "columns", 1), 1), PANELS);
  read_legend(&r, index, c);
  c->panels = list(&r, index, "panels", PANELS);
  c->panel = keep(&r, c->panels, sizeof *c->panel);
  for (int i = 0; i < c->panels; i++) {
    int at = entry(&r, "panels", i);
    memcpy(r.outer, r.where, sizeof r.outer);
    read_panel(&r, at, &c->panel[i]);
    r.outer[0] = 0;
    leave(&r);
  }
  lua_settop(L, r.anchor);
  return c;
}
