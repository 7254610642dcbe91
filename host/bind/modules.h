/* The openers of the two modules and of what host is put together from. Each
 * pushes one table. */
#ifndef LH_MODULES_H
#define LH_MODULES_H

#include <lua.h>

int luaopen_host(lua_State *L);
int luaopen_gpu(lua_State *L) __attribute__((weak)); /* absent: host only */

int lh_open_file(lua_State *L);
int lh_open_process(lua_State *L) __attribute__((weak));
int lh_open_journal(lua_State *L) __attribute__((weak));
int lh_open_terminal(lua_State *L) __attribute__((weak));
int lh_open_lock(lua_State *L) __attribute__((weak)); /* the function */
int lh_open_text(lua_State *L) __attribute__((weak));
int lh_open_fetch(lua_State *L) __attribute__((weak)); /* the function */
int lh_open_web(lua_State *L) __attribute__((weak));

#endif
