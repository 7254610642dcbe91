/* libllmhost: what a program that brings its own lua_State calls. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <lauxlib.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llmhost.h"
#include "version.h"

const char *llmhost_version(void) { return LH_VERSION; }

/* Where the library's Lua files are, seen from its own folder: installed in
 * PREFIX/lib, or build/<variant> of the source tree. */
static const char *const places[] = {"/../share/llmhost", "/../.."};

/* The folder that holds lua/llm into `root`; false if there is none. */
static int find_root(char *root) {
  Dl_info info;
  char file[PATH_MAX], probe[PATH_MAX + 64];
  if (!dladdr((void *)(size_t)&llmhost_version, &info)) return 0;
  if (realpath(info.dli_fname, file) == NULL) return 0;
  *strrchr(file, '/') = '\0';
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    strcat(strcat(strcpy(probe, file), places[i]), "/lua/llm");
    if (access(probe, R_OK) != 0 || realpath(probe, root) == NULL) continue;
    *strrchr(root, '/') = '\0';
    return 1;
  }
  return 0;
}

static void preload(lua_State *L, const char *name, lua_CFunction open) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, open);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
}

/* Put lua/?.lua behind what package.path has, if the state has `package`. */
static void extend_path(lua_State *L, const char *lua) {
  int top = lua_gettop(L);
  if (lua_getglobal(L, "package") == LUA_TTABLE &&
      lua_getfield(L, -1, "path") == LUA_TSTRING) {
    lua_pushfstring(L, "%s;%s/?.lua;%s/?/init.lua", lua_tostring(L, -1), lua,
                    lua);
    lua_setfield(L, top + 1, "path");
  }
  lua_settop(L, top);
}

void llmhost_preload(lua_State *L) {
  char lua[PATH_MAX];
  preload(L, "gpu", luaopen_gpu);
  preload(L, "host", luaopen_host);
  if (find_root(lua)) extend_path(L, lua);
}
