/* The interactive prompt. */
#ifndef LH_REPL_H
#define LH_REPL_H

#include <lua.h>

/* Read, evaluate and print until the end of standard input, with `gpu`, `host`
 * and `help` as globals. Errors are reported and do not end it; Ctrl-C ends an
 * evaluation, native work included, or drops the line that is typed. */
void lh_repl(lua_State *L);

#endif
