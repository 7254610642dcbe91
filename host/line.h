/* One line from the user: edited by libedit on a terminal that can move its
 * cursor, read plainly elsewhere (a pipe, TERM=dumb, a build without libedit).
 * Lines are remembered across runs in $XDG_STATE_HOME/llmhost/history. */
#ifndef LH_LINE_H
#define LH_LINE_H

#include <lua.h>
#include <stdbool.h>

typedef enum lh_line {
  LH_LINE_TEXT,    /* a line, pushed without its newline */
  LH_LINE_CLEARED, /* Ctrl-C: what was typed is dropped; nothing pushed */
  LH_LINE_END      /* the end of input; nothing pushed */
} lh_line;

/* Begin to read: one reader a process. With a person SIGINT drops the line that
 * is typed from now on, until close. */
void lh_line_open(lua_State *L);
void lh_line_close(void);

/* Is this a session with a person: standard input is a terminal. */
bool lh_line_person(void);

/* The next line. `pending` is the text of the chunk before it ("" at its
 * start), which completion reads. */
lh_line lh_line_read(lua_State *L, const char *prompt, const char *pending);

#endif
