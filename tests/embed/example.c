/* A program of its own that trains a small model through libllmhost:
 *   cc example.c $(pkg-config --cflags --libs llmhost lua5.4) -o example
 */
#include <lauxlib.h>
#include <llmhost.h>
#include <lualib.h>
#include <stdio.h>

static const char script[] =
    "local gpu = require 'gpu'\n"
    "local nn = gpu.nn\n"
    "local table_ = nn.embedding { 16, 8, name = 'embedding' }\n"
    "local model = nn.sequential { table_, nn.rmsnorm { 8 },\n"
    "  nn.head { tied = table_ } }\n"
    "local p <close> = gpu.compile(model, { batch = 1, seq = 4, seed = 7,\n"
    "  optimizer = gpu.optim.groups { { gpu.optim.adamw { lr = .1 } } } })\n"
    "local x = gpu.tensor { { 1, 2, 3, 4 }, dtype = 'i32' }\n"
    "local loss\n"
    "for step = 1, 20 do loss = p:step(x, x, step).loss end\n"
    "return loss\n";

int main(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  llmhost_preload(L);
  int failed = luaL_dostring(L, script);
  printf("llmhost %s: %s %s\n", llmhost_version(),
         failed ? "error:" : "loss after 20 steps:", lua_tostring(L, -1));
  lua_close(L);
  return failed;
}
