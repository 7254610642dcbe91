/* The interactive prompt. */
#ifndef LH_REPL_H
#define LH_REPL_H

#include <lua.h>

/* Read, evaluate and print until the end of standard input, with `gpu` and
 * `host` as globals. Errors are reported and do not end it. */
void lh_repl(lua_State *L);

#endif
