/* The program's one Lua state: made with a capped allocator, paths, modules,
 * and calls whose errors become reports. */
#ifndef LH_STATE_H
#define LH_STATE_H

#include <lua.h>

/* A new state with the standard libraries, package.path and cpath for lua/,
 * plots/ and the modules next to the program, and `gpu` and `host` preloaded
 * (not global). NULL only if there is no memory at all. Its VM never sees a
 * failed allocation: past the limit (LLMHOST_LUA_MEMORY, else what the machine
 * has) the process ends with LH_EXIT_LUA_MEMORY. */
lua_State *lh_state_new(void);

/* Call as lua_pcall does, with a traceback added to an error's message. */
int lh_state_call(lua_State *L, int arguments, int results);

/* Print the message on top of the stack as "llmhost: …" on stderr, pop it, and
 * give the exit code it deserves. */
int lh_state_report(lua_State *L);

/* The folder that holds lua/ and experiments/; "" if none was found. */
const char *lh_state_root(lua_State *L);

#endif
