/* host.file: reading, atomic writing, folders. */
#include <errno.h>
#include <limits.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../sys/file.h"
#include "../sys/folder.h"
#include "bind.h"
#include "modules.h"

/* --- checkers ------------------------------------------------------------ */

static const char *check_bytes(lua_State *L, int index, size_t *size) {
  if (lua_type(L, index) != LUA_TSTRING) {
    lh_raise(L, LK_ARGUMENT, "what is written must be a string, got %s",
             lh_show(L, index));
  }
  return lua_tolstring(L, index, size);
}

/* true, or nil, message, code. */
static int push_done(lua_State *L, lk_status status, const lk_error *error) {
  if (status != LK_OK) return lh_world_error(L, error);
  lua_pushboolean(L, 1);
  return 1;
}

/* A list of names that is freed when a push raises: the box below owns it. */
static int free_names(lua_State *L) {
  lh_names_free(lua_touserdata(L, 1));
  return 0;
}

static lh_names *new_names(lua_State *L) {
  lh_names *names = lua_newuserdatauv(L, sizeof *names, 0);
  *names = (lh_names){0};
  if (luaL_newmetatable(L, "llmhost.names")) {
    lua_pushcfunction(L, free_names);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return names;
}

static int push_names(lua_State *L, lh_names *names, lk_status status,
                      const lk_error *error) {
  if (status != LK_OK) return lh_world_error(L, error);
  lua_createtable(L, (int)(names->count < INT_MAX ? names->count : 0), 0);
  for (int64_t i = 0; i < names->count; i++) {
    lua_pushstring(L, names->names[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lh_names_free(names);
  return 1;
}

/* --- functions ----------------------------------------------------------- */

static int file_read(lua_State *L) {
  const char *path = lh_check_path(L, 1);
  int64_t most = 0, size;
  if (!lua_isnoneornil(L, 2)) {
    most = lh_check_integer(L, 2, "max_bytes", 1, INT64_MAX);
  }
  lk_error error;
  void **box = lh_box_new(L);
  lk_status status = lh_file_read(path, most, box, &size, &error);
  if (status != LK_OK) return lh_world_error(L, &error);
  lua_pushlstring(L, *box, (size_t)size);
  free(*box);
  *box = NULL;
  return 1;
}

static int file_write(lua_State *L) {
  size_t size;
  lk_error error;
  const char *path = lh_check_path(L, 1), *data = check_bytes(L, 2, &size);
  lk_status status = lh_file_write(path, data, (int64_t)size, &error);
  return push_done(L, status, &error);
}

static int file_append(lua_State *L) {
  size_t size;
  lk_error error;
  const char *path = lh_check_path(L, 1), *data = check_bytes(L, 2, &size);
  bool sync = lua_toboolean(L, 3);
  lk_status status = lh_file_append(path, data, (int64_t)size, sync, &error);
  return push_done(L, status, &error);
}

static int push_mode_test(lua_State *L, mode_t kind) {
  struct stat st;
  bool found = stat(lh_check_path(L, 1), &st) == 0;
  lua_pushboolean(L, found && (kind == 0 || (st.st_mode & S_IFMT) == kind));
  return 1;
}

static int file_exists(lua_State *L) { return push_mode_test(L, 0); }
static int file_is_file(lua_State *L) { return push_mode_test(L, S_IFREG); }
static int file_is_directory(lua_State *L) {
  return push_mode_test(L, S_IFDIR);
}

static int file_list(lua_State *L) {
  lk_error error;
  const char *path = lh_check_path(L, 1);
  lh_names *names = new_names(L);
  lk_status status = lh_folder_list(path, names, &error);
  return push_names(L, names, status, &error);
}

static int file_glob(lua_State *L) {
  lk_error error;
  const char *pattern = lh_check_path(L, 1);
  lh_names *names = new_names(L);
  lk_status status = lh_folder_glob(pattern, names, &error);
  return push_names(L, names, status, &error);
}

static int file_mkdir(lua_State *L) {
  lk_error error;
  return push_done(L, lh_folder_make(lh_check_path(L, 1), &error), &error);
}

static int file_remove(lua_State *L) {
  lk_error error;
  return push_done(L, lh_file_remove(lh_check_path(L, 1), &error), &error);
}

static int file_remove_tree(lua_State *L) {
  lk_error error;
  lk_status status = lh_folder_remove_tree(lh_check_path(L, 1), &error);
  return push_done(L, status, &error);
}

static int file_rename(lua_State *L) {
  lk_error error;
  const char *from = lh_check_path(L, 1), *to = lh_check_path(L, 2);
  return push_done(L, lh_file_rename(from, to, &error), &error);
}

/* stat or nil, message, code (returned count in *results). */
static bool stat_path(lua_State *L, struct stat *st, int *results) {
  const char *path = lh_check_path(L, 1);
  if (stat(path, st) == 0) return true;
  lk_error error;
  lk_fail_errno(&error, errno, "cannot examine '%s'", path);
  *results = lh_world_error(L, &error);
  return false;
}

static int file_size(lua_State *L) {
  struct stat st;
  int results = 1;
  if (stat_path(L, &st, &results)) lua_pushinteger(L, st.st_size);
  return results;
}

static int file_mtime(lua_State *L) {
  struct stat st;
  int results = 1;
  if (stat_path(L, &st, &results)) {
    lua_pushnumber(L, (double)st.st_mtim.tv_sec +
                          (double)st.st_mtim.tv_nsec * 1e-9);
  }
  return results;
}

static int file_realpath(lua_State *L) {
  char real[PATH_MAX];
  const char *path = lh_check_path(L, 1);
  if (realpath(path, real) == NULL) {
    lk_error error;
    lk_fail_errno(&error, errno, "cannot resolve '%s'", path);
    return lh_world_error(L, &error);
  }
  lua_pushstring(L, real);
  return 1;
}

static int file_crc32(lua_State *L) {
  lk_error error;
  uint32_t crc;
  lk_status status = lh_file_crc32(lh_check_path(L, 1), &crc, &error);
  if (status != LK_OK) return lh_world_error(L, &error);
  char text[16];
  snprintf(text, sizeof text, "%08x", (unsigned)crc);
  lua_pushstring(L, text);
  return 1;
}

#define OR_ERROR "|nil, string?, string?"
static const lh_function functions[] = {
    {"read", file_read, "(path: string, max_bytes?: integer): string" OR_ERROR,
     "The whole of a regular file.", NULL},
    {"write", file_write, "(path: string, data: string): true" OR_ERROR,
     "Replace a file atomically and durably; on failure the old one stays.",
     NULL},
    {"append", file_append,
     "(path: string, data: string, sync?: boolean): true" OR_ERROR,
     "Append in one piece; a failed append is cut off again.", NULL},
    {"exists", file_exists, "(path: string): boolean", "Is anything there?",
     NULL},
    {"is_file", file_is_file, "(path: string): boolean",
     "Is it a regular file?", NULL},
    {"is_directory", file_is_directory, "(path: string): boolean",
     "Is it a folder?", NULL},
    {"list", file_list, "(path: string): string[]" OR_ERROR,
     "The names in a folder, sorted.", NULL},
    {"glob", file_glob, "(pattern: string): string[]" OR_ERROR,
     "The paths that match a shell pattern, sorted.", NULL},
    {"mkdir", file_mkdir, "(path: string): true" OR_ERROR,
     "Make a folder and those above it.", NULL},
    {"remove", file_remove, "(path: string): true" OR_ERROR,
     "Remove a file or an empty folder.", NULL},
    {"remove_tree", file_remove_tree, "(path: string): true" OR_ERROR,
     "Remove a folder with everything in it; links are not followed.", NULL},
    {"rename", file_rename, "(from: string, to: string): true" OR_ERROR,
     "Rename, durably.", NULL},
    {"size", file_size, "(path: string): integer" OR_ERROR, "Bytes.", NULL},
    {"mtime", file_mtime, "(path: string): number" OR_ERROR,
     "When the content last changed, in seconds since 1970.", NULL},
    {"realpath", file_realpath, "(path: string): string" OR_ERROR,
     "The absolute path without links.", NULL},
    {"crc32", file_crc32, "(path: string): string" OR_ERROR,
     "CRC-32 of a file's content, 8 hexadecimal digits.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

int lh_open_file(lua_State *L) {
  lua_newtable(L);
  lh_register(L, "host.file", functions);
  return 1;
}
