/* Two states by turns: what one does changes nothing in the other, also after
 * it is closed. */
#include <lauxlib.h>
#include <llmhost.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

static const char begin[] =
    "gpu = require 'gpu'\n"
    "gpu.seed(3)\n"
    "gpu.memory.budget('1GB')\n"
    "kept = gpu.randn { 64, 64 }\n";

static const char disturb[] =
    "local gpu = require 'gpu'\n"
    "gpu.seed(99)\n"
    "gpu.memory.budget('1MB')\n"
    "pcall(gpu.randn, { 1024, 1024 })\n";

static const char look[] =
    "return ('%a %a %d'):format(kept:matmul(kept):sum():item(),\n"
    "  gpu.randn { 8 }:sum():item(), gpu.memory.stats().budget)\n";

static lua_State *open_state(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  llmhost_preload(L);
  return L;
}

static int run(lua_State *L, const char *code) {
  if (luaL_dostring(L, code) == LUA_OK) return 1;
  printf("error: %s\n", luaL_tolstring(L, -1, NULL));
  return 0;
}

int main(void) {
  lua_State *a = open_state(), *b = open_state(), *alone = open_state();
  if (!run(alone, begin) || !run(alone, look)) return 1;
  if (!run(a, begin) || !run(b, begin) || !run(b, disturb)) return 1;
  lua_close(b);
  if (!run(a, look)) return 1;
  int same = strcmp(lua_tostring(a, -1), lua_tostring(alone, -1)) == 0;
  puts(same ? "same" : lua_tostring(a, -1));
  lua_close(a);
  lua_close(alone);
  return !same;
}
