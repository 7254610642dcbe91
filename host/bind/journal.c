/* host.journal: appending tables to a journal, and reading it back. */
#include "../sys/journal.h"

#include <stdlib.h>
#include <string.h>

#include "../sys/file.h"
#include "bind.h"
#include "modules.h"

static void close_journal(void *object) { lh_journal_close(object); }

static const lh_class journal_class;

/* Push host.json's function of that name. */
static void push_json(lua_State *L, const char *name) {
  lua_getglobal(L, "require");
  lua_pushliteral(L, "host.json");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, name);
  lua_remove(L, -2);
}

/* The record at `index` must be a table without the journal's own fields. */
static void check_record(lua_State *L, int index) {
  static const char *const own[] = {"seq", "time", "crc"};
  if (!lua_istable(L, index)) {
    lh_raise(L, LK_ARGUMENT, "a record must be a table, got %s",
             lh_show(L, index));
  }
  for (int i = 0; i < 3; i++) {
    lua_pushstring(L, own[i]);
    if (lua_rawget(L, index) != LUA_TNIL) {
      lh_raise(L, LK_ARGUMENT, "a record must not have the field '%s': the "
               "journal sets it", own[i]);
    }
    lua_pop(L, 1);
  }
}

static int journal_append(lua_State *L) {
  lh_journal *j = lh_object_check(L, 1, &journal_class);
  check_record(L, 2);
  push_json(L, "encode");
  lua_pushvalue(L, 2);
  lua_call(L, 1, 1);
  size_t size;
  const char *body = lua_tolstring(L, -1, &size);
  if (body[0] != '{') {
    lh_raise(L, LK_ARGUMENT, "a record must be an object, not an array");
  }
  int64_t seq;
  lk_error error;
  lk_status status = lh_journal_append(j, body, (int64_t)size, &seq, &error);
  if (status != LK_OK) return lh_world_error(L, &error);
  lua_pushinteger(L, seq);
  return 1;
}

static int journal_open(lua_State *L) {
  const char *path = lh_check_path(L, 1);
  lk_error error;
  lh_journal *j = lh_object_new(L, &journal_class, sizeof *j);
  if (lh_journal_open(j, path, &error) != LK_OK) {
    return lh_world_error(L, &error);
  }
  return 1;
}

/* Decode a good line into records[#records + 1]; false if it is no JSON. */
static bool add_record(lua_State *L, int records, const char *line,
                       int64_t length) {
  push_json(L, "decode");
  lua_pushlstring(L, line, (size_t)length);
  lua_call(L, 1, 1);
  bool good = lua_istable(L, -1);
  if (good) {
    lua_rawseti(L, records, (lua_Integer)lua_rawlen(L, records) + 1);
  } else {
    lua_pop(L, 1);
  }
  return good;
}

static void add_number(lua_State *L, int list, int64_t n) {
  lua_pushinteger(L, n);
  lua_rawseti(L, list, (lua_Integer)lua_rawlen(L, list) + 1);
}

/* Fill the tables at the indices; true if the last line is torn. */
static bool read_lines(lua_State *L, const char *text, int64_t size,
                       int records, int damaged, int gaps) {
  const char *line;
  lh_line kind;
  int64_t length, seq = 0, number = 0, expected = 1, at = 0;
  while (lh_journal_next(text, size, &at, &line, &length, &kind, &seq)) {
    number++;
    if (kind == LH_LINE_TORN) return true;
    if (kind != LH_LINE_GOOD || !add_record(L, records, line, length)) {
      add_number(L, damaged, number);
      expected++;
      continue;
    }
    if (seq != expected) add_number(L, gaps, number);
    expected = seq + 1;
  }
  return false;
}

static int journal_read(lua_State *L) {
  const char *path = lh_check_path(L, 1);
  lk_error error;
  int64_t size;
  lua_settop(L, 1);
  void **box = lh_box_new(L);
  if (lh_file_read(path, 0, box, &size, &error) != LK_OK) {
    return lh_world_error(L, &error);
  }
  lua_newtable(L); /* 3: records */
  lua_newtable(L); /* 4: damaged */
  lua_newtable(L); /* 5: gaps */
  bool torn = read_lines(L, *box, size, 3, 4, 5);
  free(*box);
  *box = NULL;
  lua_pushvalue(L, 3);
  lua_newtable(L);
  lua_pushboolean(L, torn);
  lua_setfield(L, -2, "torn");
  lua_pushvalue(L, 4);
  lua_setfield(L, -2, "damaged");
  lua_pushvalue(L, 5);
  lua_setfield(L, -2, "gaps");
  return 2;
}

static const lh_function methods[] = {
    {"append", journal_append,
     "(self, record: table): integer|nil, string?, string?",
     "Append a record durably; its number.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static const lh_class journal_class = {
    .name = "host.journal", .methods = methods, .close = close_journal};

static const lh_function functions[] = {
    {"open", journal_open, "(path: string): host.journal|nil, string?, string?",
     "Open a journal for appending; a torn last line is cut off.", NULL},
    {"read", journal_read, "(path: string): table[]|nil, table|string, string?",
     "The records, and what is wrong: torn, damaged line numbers, gaps.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL}};

int lh_open_journal(lua_State *L) {
  lh_class_new(L, &journal_class);
  lua_newtable(L);
  lh_register(L, "host.journal", functions);
  return 1;
}
