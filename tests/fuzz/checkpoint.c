/* Checkpoints of a small 4-bit program: the first byte says which of its two
 * files the rest replaces. What is refused leaves the program as it was; what
 * is accepted trains on. */
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../../host/llmhost.h"
#include "fuzz.h"

static const char prepare[] =
    "local folder = ...\n"
    "local gpu, nn = require 'gpu', require('gpu').nn\n"
    "local e = nn.embedding { 16, 8, name = 'embedding' }\n"
    "p = gpu.compile(nn.sequential { e,\n"
    "  nn.linear { 8, 128, name = 'blocks.up' },\n"
    "  nn.linear { 128, 8, name = 'blocks.down' }, nn.rmsnorm { 8 },\n"
    "  nn.head { tied = e } }, { batch = 1, seq = 4, quantize = 'nf4r',\n"
    "  optimizer = gpu.optim.groups { { match = 'blocks.*',\n"
    "    gpu.optim.muon { lr = .01 } }, { gpu.optim.adamw { lr = .1 } } } })\n"
    "x = gpu.tensor { { 1, 2, 3, 4 }, dtype = 'i32' }\n"
    "p:step(x, x, 1)\n"
    "assert(p:save(folder))\n"
    "before = p:parameter('embedding.weight')\n";

static const char attempt[] =
    "local folder = ...\n"
    "if p:load(folder) then p:step(x, x, 2)\n"
    "  return true end\n"
    "return p:parameter('embedding.weight'):equal(before)\n";

static const char mend[] = "assert(p:load(...))\n"
    "before = p:parameter('embedding.weight')\n";

static void run(lua_State *L, const char *code, const char *folder) {
  if (luaL_loadstring(L, code) == LUA_OK) {
    lua_pushstring(L, folder);
    if (lua_pcall(L, 1, 1, 0) == LUA_OK) return;
  }
  fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
  fuzz_broken("a checkpoint is read or refused, not raised about");
}

static void copy(const char *from, const char *name) {
  static uint8_t bytes[1 << 20];
  char path[512];
  snprintf(path, sizeof path, "%s/%s", from, name);
  FILE *f = fopen(path, "rb");
  if (f == NULL) fuzz_broken("a saved checkpoint has both files");
  size_t n = fread(bytes, 1, sizeof bytes, f);
  fclose(f);
  fuzz_file(name, bytes, n);
}

/* A state with the program, and its checkpoint in `folder`/good. */
static lua_State *open_state(char *folder, char *good) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  llmhost_preload(L);
  strcpy(folder, fuzz_file("any", NULL, 0));
  *strrchr(folder, '/') = 0;
  strcat(strcpy(good, folder), "/good");
  if (mkdir(good, 0700) != 0) fuzz_broken("the harness can make a folder");
  run(L, prepare, good);
  return L;
}

int fuzz_checkpoint(const uint8_t *data, size_t size) {
  static const char *const names[] = {"model.safetensors",
                                      "training.safetensors"};
  static lua_State *L;
  static char good[256], folder[256];
  if (L == NULL) L = open_state(folder, good);
  if (size < 1) return 0;
  fuzz_file(names[data[0] & 1], data + 1, size - 1);
  copy(good, names[!(data[0] & 1)]);
  run(L, attempt, folder);
  if (!lua_toboolean(L, -1))
    fuzz_broken("a refused checkpoint changes nothing");
  run(L, mend, good);
  lua_settop(L, 0);
  return 0;
}
