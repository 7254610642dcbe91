/* llmhost.h: the modules `gpu` and `host` in any lua_State of Lua 5.4.
 *
 * The library keeps no state between calls but tables that never change and
 * its worker threads; everything else belongs to the lua_State. It prints
 * nothing, ends no process and installs no signal handler. States are
 * independent of each other; one state is used by one thread at a time, as
 * Lua demands. Link with `pkg-config --cflags --libs llmhost` and a Lua 5.4.
 */
#ifndef LLMHOST_H
#define LLMHOST_H

#include <lua.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Make require "gpu" and require "host" find this library in L, and put its
 * Lua files (require "llm.model" and so on) on package.path where they are
 * installed beside it. No global is set. May raise a Lua error (memory). */
void llmhost_preload(lua_State *L);

/* The openers themselves: each pushes its module's table. */
int luaopen_gpu(lua_State *L);
int luaopen_host(lua_State *L);

/* The library's version, "major.minor.patch". */
const char *llmhost_version(void);

#ifdef __cplusplus
}
#endif

#endif
