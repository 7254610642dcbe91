/* Error objects, registration with documentation, and small checkers: the
 * part of bind.h that is neither an option table nor a class. */
#include "bind.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define ERROR_META "llmhost.error"

/* --- error objects ------------------------------------------------------- */

/* error:__tostring() -> "where: message" */
static int error_tostring(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_getfield(L, 1, "where");
  lua_getfield(L, 1, "message");
  const char *where = lua_tostring(L, -2);
  const char *message = luaL_tolstring(L, -1, NULL);
  if (where) lua_pushfstring(L, "%s: %s", where, message);
  return 1;
}

/* Errors concatenate like the strings they stand for. */
static int error_concat(lua_State *L) {
  luaL_tolstring(L, 1, NULL);
  luaL_tolstring(L, 2, NULL);
  lua_concat(L, 2);
  return 1;
}

static void push_error_meta(lua_State *L) {
  if (!luaL_newmetatable(L, ERROR_META)) return;
  lua_pushcfunction(L, error_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushcfunction(L, error_concat);
  lua_setfield(L, -2, "__concat");
}

static bool starts_with(const char *text, const char *prefix) {
  return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Is this chunk part of the library (below <root>/lua/ or <root>/plots/)?
 * `root` is NULL where the modules run in somebody else's program. */
static bool is_library(const char *source, const char *root) {
  if (source[0] != '@' || root == NULL) return false;
  if (!starts_with(source + 1, root)) return false;
  const char *rest = source + 1 + strlen(root);
  return starts_with(rest, "/lua/") || starts_with(rest, "/plots/");
}

/* Push "file:line" of the innermost function that is the user's, or nil. */
static void push_user_position(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, LH_ROOT_FIELD);
  const char *root = lua_tostring(L, -1);
  lua_Debug ar;
  for (int level = 0; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline < 0 || is_library(ar.source, root)) continue;
    lua_pushfstring(L, "%s:%d", ar.short_src, ar.currentline);
    lua_remove(L, -2);
    return;
  }
  lua_pop(L, 1);
  lua_pushnil(L);
}

int lh_raise_text(lua_State *L, const char *code, const char *message) {
  luaL_checkstack(L, 8, NULL);
  lua_createtable(L, 0, 3);
  lua_pushstring(L, code);
  lua_setfield(L, -2, "code");
  lua_pushstring(L, message);
  lua_setfield(L, -2, "message");
  push_user_position(L);
  lua_setfield(L, -2, "where");
  push_error_meta(L);
  lua_setmetatable(L, -2);
  lua_error(L);
  abort(); /* lua_error does not return */
}

int lh_raise(lua_State *L, lk_status code, const char *format, ...) {
  char message[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  lh_raise_text(L, lk_status_word(code), message);
}

int lh_raise_error(lua_State *L, const lk_error *error) {
  lh_raise_text(L, lk_status_word(error->code), error->message);
}

int lh_world_error(lua_State *L, const lk_error *error) {
  lua_pushnil(L);
  lua_pushstring(L, error->message);
  lua_pushstring(L, lk_status_word(error->code));
  return 3;
}

void lh_check(lua_State *L, lk_status status, const lk_error *error) {
  if (status != LK_OK) lh_raise_error(L, error);
}

/* --- functions with documentation ---------------------------------------- */

static const char *type_name(const lh_option *o) {
  static const char *const names[] = {"integer", "number", "boolean",
                                      "string",  "string", "any"};
  return names[o->type];
}

/* Push the words of an option as "a|b|c". */
static void push_words(lua_State *L, const char *const *words) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int i = 0; words[i]; i++) {
    if (i) luaL_addchar(&b, '|');
    luaL_addstring(&b, words[i]);
  }
  luaL_pushresult(&b);
}

static void set_string(lua_State *L, const char *key, const char *value) {
  lua_pushstring(L, value ? value : "");
  lua_setfield(L, -2, key);
}

/* Push the array {{name, type, doc [, words]}…} of an option list. */
static void push_option_docs(lua_State *L, const lh_option *options) {
  lua_newtable(L);
  for (int i = 0; options[i].name; i++) {
    lua_newtable(L);
    set_string(L, "name", options[i].name);
    set_string(L, "type", type_name(&options[i]));
    set_string(L, "doc", options[i].doc);
    if (options[i].type == LH_WORD && options[i].words) {
      push_words(L, options[i].words);
      lua_setfield(L, -2, "words");
    }
    lua_rawseti(L, -2, i + 1);
  }
}

static void push_function_docs(lua_State *L, const lh_function *f) {
  lua_newtable(L);
  set_string(L, "name", f->name);
  set_string(L, "signature", f->signature);
  set_string(L, "doc", f->doc);
  if (f->options) {
    push_option_docs(L, f->options);
    lua_setfield(L, -2, "options");
  }
}

void lh_document(lua_State *L, const char *module, const lh_function *list) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, "llmhost.docs");
  luaL_getsubtable(L, -1, module);
  for (; list->name; list++) {
    push_function_docs(L, list);
    lua_rawseti(L, -2, luaL_len(L, -2) + 1);
  }
  lua_pop(L, 2);
}

void lh_register(lua_State *L, const char *module, const lh_function *list) {
  luaL_checkstack(L, 12, NULL);
  for (const lh_function *f = list; f->name; f++) {
    lua_pushcfunction(L, f->function);
    lua_setfield(L, -2, f->name);
  }
  lh_document(L, module, list);
}

/* --- checkers ------------------------------------------------------------ */

int64_t lh_check_integer(lua_State *L, int index, const char *what,
                         int64_t least, int64_t most) {
  int fits = 0;
  lua_Integer n = 0;
  if (lua_type(L, index) == LUA_TNUMBER) n = lua_tointegerx(L, index, &fits);
  if (!fits) {
    lh_raise(L, LK_ARGUMENT, "%s must be an integer, got %s", what,
             lh_show(L, index));
  }
  if (n >= least && n <= most) return n;
  if (most == INT64_MAX) {
    lh_raise(L, LK_ARGUMENT, "%s must be at least %lld, got %lld", what,
             (long long)least, (long long)n);
  }
  lh_raise(L, LK_ARGUMENT, "%s must be from %lld to %lld, got %lld", what,
           (long long)least, (long long)most, (long long)n);
}

const char *lh_check_path(lua_State *L, int index) {
  size_t size;
  if (lua_type(L, index) != LUA_TSTRING) {
    lh_raise(L, LK_ARGUMENT, "a path must be a string, got %s",
             lh_show(L, index));
  }
  const char *path = lua_tolstring(L, index, &size);
  if (strlen(path) != size || size == 0) {
    lh_raise(L, LK_ARGUMENT, size ? "a path must not hold a zero byte"
                                  : "a path must not be empty");
  }
  return path;
}

const char *lh_show(lua_State *L, int index) {
  static const size_t longest = 40;
  int type = lua_type(L, index);
  if (type == LUA_TSTRING) {
    size_t size;
    const char *s = lua_tolstring(L, index, &size);
    if (size <= longest) return lua_pushfstring(L, "'%s'", s);
    lua_pushlstring(L, s, longest);
    return lua_pushfstring(L, "'%s…'", lua_tostring(L, -1));
  }
  if (type == LUA_TNUMBER || type == LUA_TBOOLEAN) {
    return luaL_tolstring(L, index, NULL);
  }
  if (luaL_getmetafield(L, index, "__name") == LUA_TSTRING) {
    return lua_tostring(L, -1);
  }
  return lua_pushfstring(L, "%s", type == LUA_TNONE ? "nothing"
                                                    : lua_typename(L, type));
}

/* Read digits with at most one point from *text, advancing it. */
static bool parse_decimal(const char **text, double *value) {
  size_t digits = strspn(*text, "0123456789");
  size_t whole = digits;
  if ((*text)[whole] == '.') {
    size_t fraction = strspn(*text + whole + 1, "0123456789");
    digits += fraction;
    whole += 1 + fraction;
  }
  if (digits == 0) return false;
  *value = strtod(*text, NULL);
  *text += whole;
  return true;
}

int lh_parse_size(const char *text, int64_t *bytes) {
  static const struct { const char *name; double scale; } units[] = {
      {"", 1},       {"B", 1},
      {"kB", 1e3},   {"KB", 1e3},  {"KiB", 1024.0},
      {"MB", 1e6},   {"MiB", 1024.0 * 1024},
      {"GB", 1e9},   {"GiB", 1024.0 * 1024 * 1024},
      {"TB", 1e12},  {"TiB", 1024.0 * 1024 * 1024 * 1024}};
  double value;
  if (text == NULL || !parse_decimal(&text, &value)) return 0;
  while (*text == ' ') text++;
  for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
    if (strcmp(text, units[i].name) != 0) continue;
    if (value * units[i].scale >= 9.2e18) return 0;
    *bytes = (int64_t)(value * units[i].scale);
    return 1;
  }
  return 0;
}
