/* chart.c: the Lua module `chart`: chart.render(spec, options) -> bytes.
 *
 * A module of its own, not part of llmhost, because libplot is GPL
 * (plots/README.md). Everything a chart needs is read from Lua before the
 * first stroke; no Lua call happens while C memory is open, except under the
 * box whose finalizer frees it. */
#include <lauxlib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "spec.h"
#include "view.h"

enum { LEAST = 64, MOST = 8000, MOST_PIXELS = 40000000 };

typedef struct { int width, height, scale; bool svg; } options;

static int option_int(lua_State *L, const char *key, int otherwise, int least,
                      int most) {
  lua_pushstring(L, key);
  lua_rawget(L, 2);
  double v = lua_isnil(L, -1) ? otherwise : NAN;
  if (lua_type(L, -1) == LUA_TNUMBER) v = lua_tonumber(L, -1);
  if (!(v >= least && v <= most) || v != floor(v))
    luaL_error(L, "chart: %s must be a whole number from %d to %d", key, least,
               most);
  lua_pop(L, 1);
  return (int)v;
}

/* format = "png" or "svg". */
static bool option_svg(lua_State *L) {
  lua_pushliteral(L, "format");
  lua_rawget(L, 2);
  const char *s = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
  bool svg = s && strcmp(s, "svg") == 0;
  if (!lua_isnil(L, -1) && !svg && !(s && strcmp(s, "png") == 0))
    luaL_error(L, "chart: format must be \"png\" or \"svg\"");
  lua_pop(L, 1);
  return svg;
}

static options read_options(lua_State *L) {
  static const char *const keys[] = {"format", "width", "height", "scale",
                                     NULL};
  options o = {1200, 700, 1, false};
  if (lua_isnoneornil(L, 2)) return o;
  luaL_checktype(L, 2, LUA_TTABLE);
  lp_spec_keys(L, 2, "options", keys);
  o.svg = option_svg(L);
  o.width = option_int(L, "width", o.width, LEAST, MOST);
  o.height = option_int(L, "height", o.height, LEAST, MOST);
  o.scale = option_int(L, "scale", o.scale, 1, 4);
  if ((double)o.width * o.height * o.scale * o.scale > MOST_PIXELS)
    luaL_error(L, "chart: %d x %d pixels at scale %d are too many", o.width,
               o.height, o.scale);
  return o;
}

static int free_box(lua_State *L) {
  lp_buffer *b = luaL_checkudata(L, 1, "chart.buffer");
  free(b->data);
  *b = (lp_buffer){0};
  return 0;
}

/* A buffer that the collector frees should a later call raise. */
static lp_buffer *push_box(lua_State *L) {
  lp_buffer *b = lua_newuserdatauv(L, sizeof *b, 0);
  *b = (lp_buffer){0};
  luaL_setmetatable(L, "chart.buffer");
  return b;
}

/* chart.render(spec, {format=, width=, height=, scale=}) -> the file's bytes.
 * Raises on a spec that is not one and when memory runs out. */
static int render(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 2);
  options o = read_options(L);
  const lp_chart *chart = lp_spec_read(L, 1);
  lp_buffer *out = push_box(L);
  const char *error =
      o.svg ? lp_render_svg(o.width, o.height, chart->title, lp_chart_draw,
                            chart, out)
            : lp_render_png(o.width, o.height, o.scale, lp_chart_draw, chart,
                            out);
  if (error) return luaL_error(L, "chart: %s", error);
  lua_pushlstring(L, out->data, out->size);
  free(out->data);
  *out = (lp_buffer){0};
  return 1;
}

__attribute__((visibility("default"))) int luaopen_chart(lua_State *L) {
  static const luaL_Reg functions[] = {{"render", render}, {NULL, NULL}};
  luaL_newmetatable(L, "chart.buffer");
  lua_pushcfunction(L, free_box);
  lua_setfield(L, -2, "__gc");
  luaL_newlib(L, functions);
  return 1;
}
