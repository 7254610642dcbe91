/* The Lua state: allocator, paths, modules, protected calls. */
#define _GNU_SOURCE
#include "state.h"

#include <lauxlib.h>
#include <limits.h>
#include <lualib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bind/bind.h"
#include "bind/modules.h"
#include "sys/exit.h"
#include "sys/machine.h"

#define CODE_FIELD "llmhost.error_code"

/* --- allocator ---
 * A failed allocation inside the VM of Lua 5.4.4 can corrupt its heap, so it is
 * never told of one: the process ends, and the parent calls that `oom`. */

typedef struct account {
  size_t used, limit; /* bytes */
} account;

static void end_out_of_memory(const account *a, size_t wanted)
    __attribute__((noreturn));
static void end_out_of_memory(const account *a, size_t wanted) {
  char text[160];
  fflush(stdout);
  int n = snprintf(text, sizeof text,
                   "llmhost: out of memory: Lua holds %.0f MB and asks for "
                   "%.0f MB more; its limit is %.0f MB\n",
                   (double)a->used / 1e6, (double)wanted / 1e6,
                   (double)a->limit / 1e6);
  if (write(STDERR_FILENO, text, (size_t)n) < 0) _exit(LH_EXIT_LUA_MEMORY);
  _exit(LH_EXIT_LUA_MEMORY);
}

static void *allocate(void *data, void *block, size_t before, size_t after) {
  account *a = data;
  if (block == NULL) before = 0; /* then it is a kind of object */
  if (after == 0) {
    free(block);
    a->used -= before;
    return NULL;
  }
  size_t rest = a->used - before;
  if (after > before && (rest > a->limit || after > a->limit - rest)) {
    end_out_of_memory(a, after - before);
  }
  void *moved = realloc(block, after);
  if (moved == NULL && after <= before) return block;
  if (moved == NULL) end_out_of_memory(a, after - before);
  a->used = rest + after;
  return moved;
}

static size_t memory_limit(void) {
  int64_t bytes = 0;
  if (lh_parse_size(getenv("LLMHOST_LUA_MEMORY"), &bytes) && bytes > 0) {
    return (size_t)bytes;
  }
  bytes = lh_machine_memory();
  return bytes > 0 ? (size_t)bytes : SIZE_MAX / 2;
}

/* --- paths --- */

static void cut_last(char *path) {
  char *slash = strrchr(path, '/');
  if (slash) *slash = '\0';
}

/* The folder of the running program: build/<variant> or PREFIX/bin. */
static void program_folder(char *folder) {
  if (realpath("/proc/self/exe", folder) == NULL) folder[0] = '\0';
  cut_last(folder);
}

/* Does <folder><suffix>/lua/host exist? Then it is the root: set `root`. */
static bool is_root(const char *folder, const char *suffix, char *root) {
  char probe[PATH_MAX + 64];
  snprintf(probe, sizeof probe, "%s%s", folder, suffix);
  char real[PATH_MAX];
  if (realpath(probe, real) == NULL) return false;
  snprintf(probe, sizeof probe, "%s/lua/host", real);
  if (access(probe, R_OK) != 0) return false;
  memcpy(root, real, strlen(real) + 1);
  return true;
}

static void prepend(lua_State *L, const char *field, const char *more) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, field);
  lua_pushfstring(L, "%s;%s", more, lua_tostring(L, -1));
  lua_setfield(L, -3, field);
  lua_pop(L, 2);
}

/* In the build tree the program is <root>/build/<variant>/llmhost; installed it
 * is PREFIX/bin/llmhost, with PREFIX/share/llmhost and PREFIX/lib/llmhost. */
static void set_paths(lua_State *L) {
  char folder[PATH_MAX], root[PATH_MAX] = "";
  program_folder(folder);
  bool found = is_root(folder, "/../..", root) ||
               is_root(folder, "/../share/llmhost", root);
  if (found) {
    lua_pushfstring(L, "%s/lua/?.lua;%s/lua/?/init.lua;%s/?.lua;%s/?/init.lua",
                    root, root, root, root);
    prepend(L, "path", lua_tostring(L, -1));
    lua_pop(L, 1);
    lua_pushstring(L, root);
    lua_setfield(L, LUA_REGISTRYINDEX, LH_ROOT_FIELD);
  }
  lua_pushfstring(L, "%s/?.so;%s/../lib/llmhost/?.so", folder, folder);
  prepend(L, "cpath", lua_tostring(L, -1));
  lua_pop(L, 1);
}

const char *lh_state_root(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, LH_ROOT_FIELD);
  const char *root = lua_tostring(L, -1); /* the registry keeps it alive */
  lua_pop(L, 1);
  return root ? root : "";
}

/* --- the state --- */

static void preload(lua_State *L, const char *name, lua_CFunction open) {
  if (open == NULL) return;
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, open);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
}

static int panic(lua_State *L) {
  fprintf(stderr, "llmhost: unprotected error: %s\n", lua_tostring(L, -1));
  return 0; /* Lua aborts */
}

lua_State *lh_state_new(void) {
  static account lua_account; /* one state a process */
  lua_account.limit = memory_limit();
  lua_State *L = lua_newstate(allocate, &lua_account);
  if (L == NULL) return NULL;
  lua_atpanic(L, panic);
  luaL_openlibs(L);
  set_paths(L);
  preload(L, "host", luaopen_host);
  preload(L, "gpu", luaopen_gpu);
  return L;
}

/* --- calls --- */

/* Remember the code word of an error object for the exit code. */
static void keep_code(lua_State *L) {
  if (lua_istable(L, 1)) {
    lua_pushstring(L, "code");
    lua_rawget(L, 1);
  } else {
    lua_pushnil(L);
  }
  lua_setfield(L, LUA_REGISTRYINDEX, CODE_FIELD);
}

/* Is the kept code `word`? */
static bool code_is(lua_State *L, const char *word) {
  lua_getfield(L, LUA_REGISTRYINDEX, CODE_FIELD);
  const char *code = lua_tostring(L, -1);
  bool same = code && strcmp(code, word) == 0;
  lua_pop(L, 1);
  return same;
}

/* Message handler: any error value to text, with a traceback; a command line
 * that makes no sense (code "usage") needs none, and neither does a state of
 * the world that the message tells in full ("world") or a wish to stop
 * ("interrupted"). */
static int add_traceback(lua_State *L) {
  if (!lua_checkstack(L, 2 * LUA_MINSTACK)) return 1;
  keep_code(L);
  const char *message = lua_tostring(L, 1);
  if (message == NULL) {
    if (luaL_getmetafield(L, 1, "__tostring") != LUA_TNIL) {
      message = luaL_tolstring(L, 1, NULL);
    } else {
      message = lua_pushfstring(L, "(error object is a %s value)",
                                luaL_typename(L, 1));
    }
  }
  if (code_is(L, "usage") || code_is(L, "world") ||
      code_is(L, "interrupted")) {
    lua_pushstring(L, message);
    return 1;
  }
  luaL_traceback(L, L, message, 1);
  return 1;
}

int lh_state_call(lua_State *L, int arguments, int results) {
  int base = lua_gettop(L) - arguments;
  lua_pushcfunction(L, add_traceback);
  lua_insert(L, base);
  int status = lua_pcall(L, arguments, results, base);
  lua_remove(L, base);
  return status;
}

int lh_state_report(lua_State *L) {
  const char *message = lua_tostring(L, -1);
  fflush(stdout);
  fprintf(stderr, "llmhost: %s\n", message ? message : "(no message)");
  lua_pop(L, 1);
  int exit_code = LH_EXIT_FAILED;
  if (code_is(L, "usage")) exit_code = LH_EXIT_USAGE;
  if (code_is(L, "interrupted")) exit_code = LH_EXIT_INTERRUPTED;
  if (code_is(L, "oom")) exit_code = LH_EXIT_NOTHING_FITS;
  lua_pushnil(L);
  lua_setfield(L, LUA_REGISTRYINDEX, CODE_FIELD);
  return exit_code;
}
