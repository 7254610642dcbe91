/* The prompt: expressions are printed without `return`, a chunk may take
 * several lines, and Ctrl-C ends an evaluation, not the program. How values
 * and errors look is lua/llm/show.lua's. */
#define _GNU_SOURCE
#include "repl.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "line.h"
#include "state.h"
#include "sys/exit.h"
#include "sys/signal.h"
#include "version.h"

/* --- Ctrl-C during an evaluation ----------------------------------------- */

static lua_State *running;                 /* what the handler interrupts */
static volatile sig_atomic_t interruptions; /* of this evaluation */

static void raise_interrupt(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  luaL_error(L, "interrupted");
}

/* Say it to a person: what runs did not look up yet. */
static void tell(const char *text) {
  if (write(STDERR_FILENO, text, strlen(text)) < 0) return;
}

static void on_interrupt(int number) {
  int events = LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT;
  (void)number;
  lh_signal_note(); /* what runs natively looks at the count */
  lua_sethook(running, raise_interrupt, events, 1);
  interruptions++;
  if (interruptions == 2) {
    tell("\nllmhost: it does not stop yet; once more leaves the program\n");
  }
  if (interruptions > 2) _exit(LH_EXIT_INTERRUPTED);
}

/* --- errors -------------------------------------------------------------- */

/* Is this function the user's: Lua, and not of the library? */
static bool is_users(const lua_Debug *ar, const char *root) {
  size_t n = strlen(root);
  if (*ar->what == 'C' || ar->currentline < 0) return false;
  if (n == 0 || strncmp(ar->source + 1, root, n) != 0) return true;
  const char *rest = ar->source + 1 + n;
  return strncmp(rest, "/lua/", 5) != 0 && strncmp(rest, "/plots/", 7) != 0;
}

static void add_frame(lua_State *L, luaL_Buffer *b, const lua_Debug *ar) {
  char line[200];
  const char *name = ar->name ? ar->name : "a function";
  if (*ar->what == 'm') name = "main chunk";
  snprintf(line, sizeof line, "\n  %s:%d: in %s", ar->short_src,
           ar->currentline, name);
  (void)L;
  luaL_addstring(b, line);
}

/* Add the user's frames to the message on top of the stack; one alone says no
 * more than the message. */
static void add_frames(lua_State *L) {
  enum { MOST = 8 };
  lua_Debug ar;
  luaL_Buffer b;
  int count = 0;
  const char *root = lh_state_root(L);
  luaL_buffinit(L, &b);
  for (int level = 0; count < MOST && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sln", &ar);
    if (!is_users(&ar, root)) continue;
    add_frame(L, &b, &ar);
    count++;
  }
  luaL_pushresult(&b);
  if (count > 1) {
    lua_concat(L, 2);
  } else {
    lua_pop(L, 1);
  }
}

/* Message handler: any error value as text with the user's frames. */
static int explain(lua_State *L) {
  lua_sethook(L, NULL, 0, 0); /* a late Ctrl-C must not fail the handler */
  if (!lua_checkstack(L, 2 * LUA_MINSTACK)) return 1;
  if (lua_type(L, 1) != LUA_TSTRING &&
      luaL_getmetafield(L, 1, "__tostring") == LUA_TNIL) {
    lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  } else {
    luaL_tolstring(L, 1, NULL);
  }
  add_frames(L);
  return 1;
}

/* lua_pcall, with INT ending the call and nothing else. */
static int call_interruptible(lua_State *L, int arguments, int results) {
  struct sigaction action, before;
  int base = lua_gettop(L) - arguments;
  lua_pushcfunction(L, explain);
  lua_insert(L, base);
  memset(&action, 0, sizeof action);
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  running = L;
  interruptions = 0;
  lh_signal_reset();
  lh_signal_breaks(true);
  sigaction(SIGINT, &action, &before);
  int status = lua_pcall(L, arguments, results, base);
  sigaction(SIGINT, &before, NULL);
  lua_sethook(L, NULL, 0, 0);
  lh_signal_breaks(false);
  lh_signal_reset();
  lua_remove(L, base);
  return status;
}

/* --- reading ------------------------------------------------------------- */

/* Compile the string on top of the stack; pushes a function or a message. */
static int load_top(lua_State *L) {
  size_t size;
  const char *text = lua_tolstring(L, -1, &size);
  return luaL_loadbufferx(L, text, size, "=stdin", "t");
}

/* Does the message on top say that the chunk ended too early? */
static bool is_incomplete(lua_State *L) {
  static const char mark[] = "<eof>";
  size_t size;
  const char *message = lua_tolstring(L, -1, &size);
  size_t n = sizeof mark - 1;
  return message && size >= n && strcmp(message + size - n, mark) == 0;
}

/* Compile the text at the top of the stack, as an expression if it is one;
 * pushes the function or the message of the statement. `more`: another line
 * may complete it. */
static int compile(lua_State *L, bool *more) {
  int text = lua_gettop(L);
  const char *code = lua_tostring(L, text);
  if (*code == '=') code++;
  lua_pushfstring(L, "return %s", code);
  int status = load_top(L);
  *more = status == LUA_ERRSYNTAX && is_incomplete(L);
  lua_settop(L, text + 1);
  if (status == LUA_OK) { /* no tail call: errors name this frame; the end is
                             on a line of its own only after a comment */
    lua_pushfstring(L, "return (function(...) return ... end)(%s%s)", code,
                    strstr(code, "--") ? "\n" : "");
    lua_replace(L, text + 1);
    status = load_top(L);
  } else {
    lua_pushvalue(L, text);
    status = load_top(L);
    *more = status != LUA_OK &&
            (*more || (status == LUA_ERRSYNTAX && is_incomplete(L)));
  }
  lua_replace(L, text + 1);
  lua_settop(L, text + 1);
  return status;
}

enum { NO_CHUNK = -1, NEXT_CHUNK = -2 };

/* Add a line to the text on top of the stack. */
static lh_line read_on(lua_State *L) {
  lh_line line = lh_line_read(L, ">> ", lua_tostring(L, -1));
  if (line != LH_LINE_TEXT) return line;
  lua_pushliteral(L, "\n");
  lua_insert(L, -2);
  lua_concat(L, 3);
  return line;
}

/* Is the line on top of the stack a wish to leave: exit or quit, where no
 * variable is called that? */
static bool is_farewell(lua_State *L) {
  const char *line = lua_tostring(L, -1);
  if (strcmp(line, "exit") != 0 && strcmp(line, "quit") != 0) return false;
  bool variable = lua_getglobal(L, line) != LUA_TNIL;
  lua_pop(L, 1);
  return !variable;
}

/* Read one chunk on an empty stack: a status with a function or a message on
 * it, NO_CHUNK at the end of input, NEXT_CHUNK when it was dropped. */
static int read_chunk(lua_State *L) {
  bool more;
  lh_line line = lh_line_read(L, "> ", "");
  if (line == LH_LINE_CLEARED) return NEXT_CHUNK;
  if (line == LH_LINE_END || is_farewell(L)) return NO_CHUNK;
  for (;;) {
    int status = compile(L, &more);
    if (!more) return status;
    lua_insert(L, 1); /* the message, for when no more comes */
    line = read_on(L);
    if (line == LH_LINE_CLEARED) return NEXT_CHUNK;
    if (line == LH_LINE_END) {
      lua_settop(L, 1);
      return status;
    }
    lua_remove(L, 1);
  }
}

/* --- printing ------------------------------------------------------------ */

/* Push function `name` of llm.show, or a global where there is no such
 * library. */
static void push_show(lua_State *L, const char *name, const char *global) {
  lua_getglobal(L, "require");
  lua_pushliteral(L, "llm.show");
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
    lua_getfield(L, -1, name);
  } else {
    lua_getglobal(L, global);
  }
  lua_remove(L, -2);
}

/* Report the message on top of the stack, and pop it. */
static void report(lua_State *L) {
  fflush(stdout);
  push_show(L, "failure", "tostring");
  lua_pushvalue(L, -2);
  if (lua_pcall(L, 1, 1, 0) != LUA_OK) lua_pop(L, 1);
  const char *text = lua_tostring(L, -1);
  fprintf(stderr, "%s\n", text ? text : "(no message)");
  lua_pop(L, 2);
}

static void print_results(lua_State *L) {
  int n = lua_gettop(L);
  if (n == 0) return;
  luaL_checkstack(L, LUA_MINSTACK, "too many results to print");
  push_show(L, "results", "print");
  lua_insert(L, 1);
  if (call_interruptible(L, n, 0) != LUA_OK) report(L);
}

/* --- the prompt ---------------------------------------------------------- */

/* global = require(module), unless the script before made one of its own. */
static void set_global(lua_State *L, const char *global, const char *module) {
  bool taken = lua_getglobal(L, global) != LUA_TNIL;
  lua_pop(L, 1);
  if (taken) return;
  lua_getglobal(L, "require");
  lua_pushstring(L, module);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
    lua_setglobal(L, global);
  } else {
    lua_pop(L, 1); /* a part that this build lacks */
  }
}

static void evaluate(lua_State *L) {
  if (call_interruptible(L, 0, LUA_MULTRET) == LUA_OK) {
    print_results(L);
  } else {
    report(L);
  }
}

void lh_repl(lua_State *L) {
  set_global(L, "host", "host");
  set_global(L, "gpu", "gpu");
  set_global(L, "help", "llm.help");
  if (lh_line_person()) {
    printf("llmhost %s (%s); help() says what there is; Ctrl-D leaves\n",
           LH_VERSION, LUA_RELEASE);
  }
  lh_line_open(L);
  lua_settop(L, 0);
  for (int status; (status = read_chunk(L)) != NO_CHUNK; lua_settop(L, 0)) {
    if (status == LUA_OK) {
      lua_replace(L, 1); /* the function, over its text */
      lua_settop(L, 1);
      evaluate(L);
    } else if (status != NEXT_CHUNK) {
      report(L);
    }
    fflush(stdout);
  }
  lh_line_close();
  if (lh_line_person() && lua_gettop(L) == 0) putchar('\n');
}
