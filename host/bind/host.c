/* The module host: clocks, machine, checksums, errors, and its sub-modules. */
#define _GNU_SOURCE
#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "../sys/folder.h"
#include "../sys/fetch.h"
#include "../sys/hash.h"
#include "../sys/machine.h"
#include "../text/unpack.h"
#include "../version.h"
#include "bind.h"
#include "modules.h"

/* --- clocks -------------------------------------------------------------- */

static int host_clock(lua_State *L) {
  lua_pushnumber(L, lh_clock());
  return 1;
}

static int host_time(lua_State *L) {
  lua_pushnumber(L, lh_time());
  return 1;
}

/* A number of seconds at `index`, or raise. */
static double check_seconds(lua_State *L, int index, const char *who) {
  if (lua_type(L, index) != LUA_TNUMBER || isnan(lua_tonumber(L, index))) {
    lh_raise(L, LK_ARGUMENT, "%s: seconds must be a number, got %s", who,
             lh_show(L, index));
  }
  return lua_tonumber(L, index);
}

static int host_sleep(lua_State *L) {
  lh_sleep(check_seconds(L, 1, "host.sleep"));
  return 0;
}

/* host.date([seconds]) -> "2025-01-31T12:34:56+01:00" */
static int host_date(lua_State *L) {
  double seconds = lua_isnoneornil(L, 1) ? lh_time()
                                         : check_seconds(L, 1, "host.date");
  if (fabs(seconds) > 1e11) {
    lh_raise(L, LK_ARGUMENT, "host.date: %f seconds is no date", seconds);
  }
  time_t t = (time_t)floor(seconds);
  struct tm tm;
  char text[64], zone[16];
  localtime_r(&t, &tm);
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
  strftime(zone, sizeof zone, "%z", &tm);
  lua_pushfstring(L, "%s%c%c%c:%s", text, zone[0], zone[1], zone[2], zone + 3);
  return 1;
}

/* --- machine ------------------------------------------------------------- */

static void set_text(lua_State *L, const char *key, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
}

static void set_integer(lua_State *L, const char *key, int64_t value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, key);
}

static int host_machine(lua_State *L) {
  lh_machine m;
  lh_machine_get(&m);
  lua_newtable(L);
  set_text(L, "cpu", m.cpu);
  set_text(L, "os", m.os);
  set_text(L, "kernel", m.kernel);
  set_text(L, "isa", m.isa);
  set_integer(L, "cores", m.cores);
  set_integer(L, "threads", m.threads);
  set_integer(L, "memory", m.memory);
  set_integer(L, "available", m.available);
  lua_pushboolean(L, m.wsl);
  lua_setfield(L, -2, "wsl");
  return 1;
}

static int host_disk(lua_State *L) {
  int64_t free_bytes, total;
  lk_error error;
  const char *path = luaL_optstring(L, 1, ".");
  if (lh_folder_disk(path, &free_bytes, &total, &error) != LK_OK) {
    return lh_world_error(L, &error);
  }
  lua_newtable(L);
  set_integer(L, "free", free_bytes);
  set_integer(L, "total", total);
  return 1;
}

/* Set a library's version, or false where the build has none. */
static void set_version(lua_State *L, const char *key, const char *version) {
  if (version) lua_pushstring(L, version);
  else lua_pushboolean(L, 0);
  lua_setfield(L, -2, key);
}

static int host_libraries(lua_State *L) {
  lua_newtable(L);
  set_version(L, "zlib", lh_packing_version(LH_GZIP));
  set_version(L, "zstd", lh_packing_version(LH_ZSTD));
  set_version(L, "curl", lh_fetch_version());
#ifdef HAVE_MICROHTTPD
  set_version(L, "microhttpd", "present");
#else
  set_version(L, "microhttpd", NULL);
#endif
#ifdef HAVE_EDIT
  set_version(L, "edit", "present");
#else
  set_version(L, "edit", NULL);
#endif
  return 1;
}

/* --- checksums and sizes ------------------------------------------------- */

static const char *check_text(lua_State *L, const char *who, size_t *size) {
  if (lua_type(L, 1) != LUA_TSTRING) {
    lh_raise(L, LK_ARGUMENT, "%s: expected a string, got %s", who,
             lh_show(L, 1));
  }
  return lua_tolstring(L, 1, size);
}

static int host_crc32(lua_State *L) {
  size_t size;
  char text[16];
  const char *data = check_text(L, "host.crc32", &size);
  snprintf(text, sizeof text, "%08x", (unsigned)lh_crc32(0, data, size));
  lua_pushstring(L, text);
  return 1;
}

static int host_crc32c(lua_State *L) {
  size_t size;
  const char *data = check_text(L, "host.crc32c", &size);
  lua_pushinteger(L, lh_crc32c(0, data, size));
  return 1;
}

static int host_fnv1a64(lua_State *L) {
  size_t size;
  char text[24];
  const char *data = check_text(L, "host.fnv1a64", &size);
  snprintf(text, sizeof text, "%016llx",
           (unsigned long long)lh_fnv1a64(LH_FNV1A64, data, size));
  lua_pushstring(L, text);
  return 1;
}

static int host_size(lua_State *L) {
  size_t size;
  int64_t bytes;
  if (lua_isinteger(L, 1)) {
    lua_settop(L, 1);
    return 1;
  }
  const char *text = check_text(L, "host.size", &size);
  if (lh_parse_size(text, &bytes)) {
    lua_pushinteger(L, bytes);
    return 1;
  }
  lk_error error;
  lk_fail(&error, LK_ARGUMENT,
          "'%.40s' is no size; write it like 24GB, 1.5GiB or 512MB", text);
  return lh_world_error(L, &error);
}

/* --- errors and options for libraries ------------------------------------ */

/* host.raise(code, format, ...) */
static int host_raise(lua_State *L) {
  const char *code = luaL_checkstring(L, 1);
  luaL_checkstring(L, 2);
  lua_getglobal(L, "string");
  lua_getfield(L, -1, "format");
  lua_replace(L, -2);
  lua_insert(L, 2);
  lua_call(L, lua_gettop(L) - 2, 1);
  lh_raise_text(L, code, lua_tostring(L, -1));
}

/* The array of strings at `index` as a NULL-ended list in a new userdata. */
static const char **check_words(lua_State *L, int index) {
  luaL_checktype(L, index, LUA_TTABLE);
  size_t n = lua_rawlen(L, index);
  const char **words = lua_newuserdatauv(L, (n + 1) * sizeof *words, 0);
  size_t used = 0;
  for (size_t i = 1; i <= n; i++) {
    /* Only strings: the table keeps them alive, converted ones it would not. */
    if (lua_rawgeti(L, index, (lua_Integer)i) == LUA_TSTRING) {
      words[used++] = lua_tostring(L, -1);
    }
    lua_pop(L, 1);
  }
  words[used] = NULL;
  return words;
}

static int host_nearest(lua_State *L) {
  const char *word = luaL_checkstring(L, 1);
  const char *found = lh_nearest(word, check_words(L, 2));
  lua_pushstring(L, found); /* nil if none */
  return 1;
}

/* --- the module ---------------------------------------------------------- */

static const lh_function functions[] = {
    {"clock", host_clock, "(): number", "Seconds that only grow.", NULL},
    {"time", host_time, "(): number", "Seconds since 1970.", NULL},
    {"date", host_date, "(seconds?: number): string",
     "Local date and time in ISO 8601.", NULL},
    {"sleep", host_sleep, "(seconds: number)",
     "Wait; a signal ends the wait early.", NULL},
    {"machine", host_machine, "(): table",
     "cpu, cores, threads, memory, available, os, kernel, isa, wsl.", NULL},
    {"disk", host_disk, "(path?: string): table|nil, string?, string?",
     "free and total bytes of the disk that holds a path.", NULL},
    {"libraries", host_libraries, "(): table",
     "zlib, zstd, curl, microhttpd, edit: versions, or \"present\"; false: the "
     "build has none.",
     NULL},
    {"crc32", host_crc32, "(text: string): string",
     "CRC-32 of a string, 8 hexadecimal digits.", NULL},
    {"crc32c", host_crc32c, "(text: string): integer",
     "CRC-32C (Castagnoli) of a string.", NULL},
    {"fnv1a64", host_fnv1a64, "(text: string): string",
     "FNV-1a hash of a string, 16 hexadecimal digits.", NULL},
    {"size", host_size,
     "(text: string|integer): integer|nil, string?, string?",
     "Bytes of \"24GB\", \"1.5GiB\", \"512MB\".", NULL},
    {"raise", host_raise, "(code: string, format: string, ...)",
     "Raise an error object with a code word, positioned at the line of the "
     "user's script that led here.",
     NULL},
    {"nearest", host_nearest, "(word: string, words: string[]): string|nil",
     "The word that was probably meant.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static const lh_function fields[] = {
    {"version", NULL, "string", "The program's version.", NULL},
    {"options", NULL, "table", "What the command line said: device, devices, "
     "memory, color, json, force, fresh, help, args, script, root.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static void add(lua_State *L, const char *name, lua_CFunction open) {
  if (open == NULL) return;
  open(L);
  lua_setfield(L, -2, name);
}

/* host.json and other Lua parts are loaded when first asked for. */
static int load_part(lua_State *L) {
  static const char *const parts[] = {"json", NULL};
  if (lua_type(L, 2) != LUA_TSTRING) return 0;
  const char *name = lua_tostring(L, 2);
  for (int i = 0; parts[i]; i++) {
    if (strcmp(parts[i], name) != 0) continue;
    lua_getglobal(L, "require");
    lua_pushfstring(L, "host.%s", name);
    lua_call(L, 1, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, 1, name);
    return 1;
  }
  return 0;
}

int luaopen_host(lua_State *L) {
  lua_newtable(L);
  lh_register(L, "host", functions);
  lh_document(L, "host", fields);
  add(L, "file", lh_open_file);
  add(L, "process", lh_open_process);
  add(L, "journal", lh_open_journal);
  add(L, "terminal", lh_open_terminal);
  add(L, "lock", lh_open_lock);
  add(L, "text", lh_open_text);
  add(L, "fetch", lh_open_fetch);
  add(L, "web", lh_open_web);
  set_text(L, "version", LH_VERSION);
  lua_newtable(L);
  lua_setfield(L, -2, "options");
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, load_part);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
  return 1;
}
