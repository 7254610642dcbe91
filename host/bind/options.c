/* Option tables: strict, typed, with ranges, and with the nearest known key
 * in every complaint. */
#include "bind.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { LONGEST_WORD = 48 };

static int least3(int a, int b, int c) {
  int m = a < b ? a : b;
  return m < c ? m : c;
}

/* Edit distance of two short words (optimal string alignment: a swap of
 * neighbours counts one); words over LONGEST_WORD are far from everything. */
static int edit_distance(const char *a, const char *b) {
  int n = (int)strlen(a), m = (int)strlen(b);
  if (n > LONGEST_WORD || m > LONGEST_WORD) return LONGEST_WORD;
  int d[LONGEST_WORD + 1][LONGEST_WORD + 1];
  for (int i = 0; i <= n; i++) d[i][0] = i;
  for (int j = 0; j <= m; j++) d[0][j] = j;
  for (int i = 1; i <= n; i++) {
    for (int j = 1; j <= m; j++) {
      int change = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      d[i][j] = least3(d[i - 1][j] + 1, d[i][j - 1] + 1, change);
      bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
                     a[i - 2] == b[j - 1];
      if (swapped && d[i - 2][j - 2] + 1 < d[i][j]) {
        d[i][j] = d[i - 2][j - 2] + 1;
      }
    }
  }
  return d[n][m];
}

/* Edit distance, but a word that was broken off (three letters or more) is as
 * near as one wrong letter. */
static int distance(const char *word, const char *known) {
  size_t length = strlen(word);
  bool begins = length >= 3 && strncmp(word, known, length) == 0;
  return begins ? 1 : edit_distance(word, known);
}

const char *lh_nearest(const char *word, const char *const *words) {
  int length = (int)strlen(word);
  int limit = length <= 2 ? 1 : length <= 4 ? 2 : length <= 8 ? 3 : 4;
  const char *best = NULL;
  for (; *words; words++) {
    int d = distance(word, *words);
    /* A word with nothing in common is no suggestion, however short. */
    if (d >= (int)strlen(*words)) continue;
    if (d <= limit - (best != NULL)) best = *words, limit = d;
  }
  return best;
}

/* Push "; did you mean 'x'?", or "" when nothing is near. */
static const char *push_suggestion(lua_State *L, const char *word,
                                   const char *const *words) {
  const char *near_word = lh_nearest(word, words);
  return near_word ? lua_pushfstring(L, "; did you mean '%s'?", near_word)
                   : lua_pushstring(L, "");
}

static const lh_option *find_option(const lh_option *options,
                                    const char *name) {
  for (; options->name; options++) {
    if (strcmp(options->name, name) == 0) return options;
  }
  return NULL;
}

static int count_options(const lh_option *options) {
  int n = 0;
  while (options[n].name) n++;
  return n;
}

static void raise_unknown(lua_State *L, const char *who, const char *key,
                          const lh_option *options) {
  int n = count_options(options);
  const char **words = lua_newuserdatauv(L, sizeof *words * (size_t)(n + 1), 0);
  for (int i = 0; i <= n; i++) words[i] = options[i].name;
  lh_raise(L, LK_ARGUMENT, "%s: unknown option '%s'%s", who, key,
           push_suggestion(L, key, words));
}

/* Raise for a key that is no position and no known name. Of several unknown
 * names the alphabetically first is named, so that a message is repeatable. */
static void check_keys(lua_State *L, int index, const char *who,
                       const lh_option *options, int positional) {
  const char *unknown = NULL;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_type(L, -2) == LUA_TSTRING) {
      const char *key = lua_tostring(L, -2);
      if (find_option(options, key)) continue;
      if (!unknown || strcmp(key, unknown) < 0) unknown = key;
    } else if (lua_isinteger(L, -2)) {
      lua_Integer i = lua_tointeger(L, -2);
      if (i >= 1 && (i <= positional || positional < 0)) continue;
      lh_raise(L, LK_ARGUMENT, "%s: takes %d positional value%s, got [%lld]",
               who, positional, positional == 1 ? "" : "s", (long long)i);
    } else {
      lh_raise(L, LK_ARGUMENT, "%s: an option's name must be a string, got %s",
               who, lh_show(L, -2));
    }
  }
  if (unknown) raise_unknown(L, who, unknown, options);
}

static void raise_type(lua_State *L, const char *who, const lh_option *o,
                       const char *wanted) {
  lh_raise(L, LK_ARGUMENT, "%s: option '%s' must be %s, got %s", who, o->name,
           wanted, lh_show(L, -1));
}

static void check_range(lua_State *L, const char *who, const lh_option *o,
                        double value) {
  if (o->least == o->most && !isnan(value)) return;
  if (value >= o->least && value <= o->most) return;
  if (o->least == o->most) raise_type(L, who, o, "a number");
  const char *got = lh_show(L, -1);
  if (o->most >= 9e18) {
    lh_raise(L, LK_ARGUMENT, "%s: option '%s' must be at least %.14g, got %s",
             who, o->name, o->least, got);
  }
  lh_raise(L, LK_ARGUMENT,
           "%s: option '%s' must be from %.14g to %.14g, got %s", who, o->name,
           o->least, o->most, got);
}

static int find_word(lua_State *L, const char *who, const lh_option *o) {
  if (lua_type(L, -1) != LUA_TSTRING) raise_type(L, who, o, "a string");
  const char *word = lua_tostring(L, -1);
  for (int i = 0; o->words[i]; i++) {
    if (strcmp(o->words[i], word) == 0) return i;
  }
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (int i = 0; o->words[i]; i++) {
    if (i) luaL_addstring(&b, o->words[i + 1] ? ", " : " or ");
    luaL_addstring(&b, o->words[i]);
  }
  luaL_pushresult(&b);
  const char *all = lua_tostring(L, -1);
  lh_raise(L, LK_ARGUMENT, "%s: option '%s' must be %s, got '%s'%s", who,
           o->name, all, word, push_suggestion(L, word, o->words));
}

static int64_t read_integer(lua_State *L, const char *who,
                            const lh_option *o) {
  int fits = 0;
  lua_Integer n = 0;
  if (lua_type(L, -1) == LUA_TNUMBER) n = lua_tointegerx(L, -1, &fits);
  if (!fits) raise_type(L, who, o, "an integer");
  check_range(L, who, o, (double)n);
  return n;
}

static double read_number(lua_State *L, const char *who, const lh_option *o) {
  if (lua_type(L, -1) != LUA_TNUMBER) raise_type(L, who, o, "a number");
  check_range(L, who, o, lua_tonumber(L, -1));
  return lua_tonumber(L, -1);
}

/* Store the value on top of the stack in its field; true if it must stay on
 * the stack. */
static bool store(lua_State *L, const char *who, const lh_option *o,
                  void *out) {
  void *field = (char *)out + o->offset;
  switch (o->type) {
    case LH_INTEGER: *(int64_t *)field = read_integer(L, who, o); break;
    case LH_NUMBER: *(double *)field = read_number(L, who, o); break;
    case LH_BOOLEAN:
      if (!lua_isboolean(L, -1)) raise_type(L, who, o, "true or false");
      *(bool *)field = lua_toboolean(L, -1);
      break;
    case LH_STRING:
      if (lua_type(L, -1) != LUA_TSTRING) raise_type(L, who, o, "a string");
      *(const char **)field = lua_tostring(L, -1);
      break;
    case LH_WORD: *(int *)field = find_word(L, who, o); break;
    case LH_ANY: *(int *)field = lua_gettop(L); return true;
  }
  return false;
}

/* Push the value of option `i`, given by name or by position, or nil. */
static void push_value(lua_State *L, int index, const char *who,
                       const lh_option *o, int i, int positional) {
  lua_pushstring(L, o->name);
  lua_rawget(L, index);
  if (i >= positional) return;
  if (lua_rawgeti(L, index, i + 1) == LUA_TNIL) {
    lua_pop(L, 1);
  } else if (!lua_isnil(L, -2)) {
    lh_raise(L, LK_ARGUMENT, "%s: option '%s' is given by name and by position",
             who, o->name);
  } else {
    lua_remove(L, -2);
  }
}

void lh_options(lua_State *L, int index, const char *who,
                const lh_option *options, int positional, void *out) {
  for (const lh_option *o = options; o->name; o++) {
    if (o->type == LH_ANY) *(int *)((char *)out + o->offset) = 0;
  }
  if (lua_isnoneornil(L, index)) return;
  index = lua_absindex(L, index);
  if (!lua_istable(L, index)) {
    lh_raise(L, LK_ARGUMENT, "%s: expected a table of options, got %s", who,
             lh_show(L, index));
  }
  luaL_checkstack(L, count_options(options) + 12, NULL);
  check_keys(L, index, who, options, positional);
  for (int i = 0; options[i].name; i++) {
    push_value(L, index, who, &options[i], i, positional);
    if (lua_isnil(L, -1) || !store(L, who, &options[i], out)) lua_pop(L, 1);
  }
}
