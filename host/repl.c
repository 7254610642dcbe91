/* The prompt: expressions are printed without `return`, a chunk may take
 * several lines, and Ctrl-C ends an evaluation, not the program. */
#include "repl.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "state.h"
#include "sys/signal.h"
#include "version.h"

/* --- Ctrl-C during an evaluation --- */

static lua_State *running; /* what the handler interrupts */

static void raise_interrupt(lua_State *L, lua_Debug *ar) {
  (void)ar;
  lua_sethook(L, NULL, 0, 0);
  luaL_error(L, "interrupted");
}

static void on_interrupt(int number) {
  int events = LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT;
  (void)number;
  lh_signal_note(); /* what runs natively looks at the count */
  lua_sethook(running, raise_interrupt, events, 1);
}

/* lh_state_call, with INT ending the call and nothing else. */
static int call_interruptible(lua_State *L, int arguments) {
  struct sigaction action, before;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  running = L;
  sigaction(SIGINT, &action, &before);
  int status = lh_state_call(L, arguments, LUA_MULTRET);
  sigaction(SIGINT, &before, NULL);
  lua_sethook(L, NULL, 0, 0);
  lh_signal_reset();
  return status;
}

/* --- reading --- */

/* Push the next line without its newline; false at the end of input. */
static bool push_line(lua_State *L, const char *prompt) {
  char *line = NULL;
  size_t room = 0;
  if (isatty(STDIN_FILENO)) {
    fputs(prompt, stdout);
    fflush(stdout);
  }
  ssize_t n = getline(&line, &room, stdin);
  if (n > 0 && line[n - 1] == '\n') n--;
  if (n >= 0) lua_pushlstring(L, line, (size_t)n);
  free(line);
  return n >= 0;
}

static int load_text(lua_State *L, const char *text, size_t size) {
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

/* Try the first line as an expression; on failure the stack is as before. */
static bool load_expression(lua_State *L) {
  size_t size;
  lua_pushfstring(L, "return %s", lua_tostring(L, -1));
  const char *text = lua_tolstring(L, -1, &size);
  int status = load_text(L, text, size);
  if (status != LUA_OK) {
    lua_pop(L, 2);
    return false;
  }
  lua_remove(L, -2);
  return true;
}

/* Compile the text on top, reading on while it is incomplete. Replaces it by
 * the function, or by the message (returns the status). */
static int load_statements(lua_State *L) {
  for (;;) {
    size_t size;
    const char *text = lua_tolstring(L, -1, &size);
    int status = load_text(L, text, size);
    if (status != LUA_ERRSYNTAX || !is_incomplete(L) || !push_line(L, ">> ")) {
      lua_remove(L, -2);
      return status;
    }
    lua_remove(L, -2); /* the message */
    lua_pushliteral(L, "\n");
    lua_insert(L, -2);
    lua_concat(L, 3);
  }
}

/* Read one chunk: -1 at the end of input, else a status and a function or
 * message on the stack. */
static int read_chunk(lua_State *L) {
  if (!push_line(L, "> ")) return -1;
  if (load_expression(L)) {
    lua_remove(L, -2);
    return LUA_OK;
  }
  return load_statements(L);
}

/* --- printing --- */

static void print_results(lua_State *L) {
  int n = lua_gettop(L);
  if (n == 0) return;
  luaL_checkstack(L, LUA_MINSTACK, "too many results to print");
  lua_getglobal(L, "print");
  lua_insert(L, 1);
  if (lua_pcall(L, n, 0, 0) == LUA_OK) return;
  lua_pushfstring(L, "cannot print the results: %s", lua_tostring(L, -1));
  lua_remove(L, -2);
  lh_state_report(L);
}

static void set_global_module(lua_State *L, const char *name) {
  lua_getglobal(L, "require");
  lua_pushstring(L, name);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
    lua_setglobal(L, name);
  } else {
    lua_pop(L, 1); /* a part that this build lacks */
  }
}

void lh_repl(lua_State *L) {
  set_global_module(L, "host");
  set_global_module(L, "gpu");
  if (isatty(STDIN_FILENO)) {
    printf("llmhost %s (%s); gpu and host are loaded; Ctrl-D leaves\n",
           LH_VERSION, LUA_RELEASE);
  }
  signal(SIGINT, SIG_DFL); /* at the prompt Ctrl-C leaves */
  lua_settop(L, 0);
  for (int status; (status = read_chunk(L)) != -1; lua_settop(L, 0)) {
    if (status == LUA_OK) status = call_interruptible(L, 0);
    if (status == LUA_OK) {
      print_results(L);
    } else {
      lh_state_report(L);
    }
    fflush(stdout);
  }
  if (isatty(STDIN_FILENO)) putchar('\n');
}
