/* host.terminal: width, colour, and one line of progress. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../sys/machine.h"
#include "bind.h"
#include "modules.h"

enum { DEFAULT_WIDTH = 80 };
static const double PLAIN_SECONDS = 5; /* between lines where no tty is */

static int optional_fd(lua_State *L, int index) {
  if (lua_isnoneornil(L, index)) return STDOUT_FILENO;
  return (int)lh_check_integer(L, index, "a file descriptor", 0, 1 << 20);
}

/* Columns of a terminal; what COLUMNS says, or 80, where there is none. */
static int width_of(int fd) {
  struct winsize size;
  if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char *columns = getenv("COLUMNS");
  int n = columns ? atoi(columns) : 0;
  return n >= 20 && n <= 1000 ? n : DEFAULT_WIDTH;
}

static int terminal_width(lua_State *L) {
  lua_pushinteger(L, width_of(optional_fd(L, 1)));
  return 1;
}

static int terminal_isatty(lua_State *L) {
  lua_pushboolean(L, isatty(optional_fd(L, 1)));
  return 1;
}

/* --- colour -------------------------------------------------------------- */

/* What --color says: host.options.color; "auto" where nobody set it. */
static const char *push_choice(lua_State *L) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  const char *choice = NULL;
  if (lua_getfield(L, -1, "host") == LUA_TTABLE &&
      lua_getfield(L, -1, "options") == LUA_TTABLE) {
    lua_getfield(L, -1, "color");
    choice = lua_tostring(L, -1);
  }
  return choice ? choice : "auto";
}

static bool wants_color(lua_State *L, int fd) {
  const char *choice = push_choice(L), *refusal = getenv("NO_COLOR");
  if (strcmp(choice, "always") == 0) return true;
  if (strcmp(choice, "never") == 0 || (refusal && *refusal)) return false;
  const char *term = getenv("TERM");
  return isatty(fd) && term && strcmp(term, "dumb") != 0;
}

static const char *const color_names[] = {
    "bold", "dim",  "red",  "green",   "yellow",
    "blue", "magenta", "cyan", "gray", NULL};
static const int color_codes[] = {1, 2, 31, 32, 33, 34, 35, 36, 90};

static int find_color(lua_State *L, const char *name) {
  for (int i = 0; color_names[i]; i++) {
    if (strcmp(name, color_names[i]) == 0) return color_codes[i];
  }
  const char *meant = lh_nearest(name, color_names);
  lh_raise(L, LK_ARGUMENT, "unknown colour '%s'%s%s%s", name,
           meant ? "; did you mean '" : "", meant ? meant : "",
           meant ? "'?" : "");
}

static int terminal_color(lua_State *L) {
  int code = find_color(L, luaL_checkstring(L, 1));
  const char *text = luaL_checkstring(L, 2);
  if (wants_color(L, optional_fd(L, 3))) {
    lua_pushfstring(L, "\033[%dm%s\033[0m", code, text);
  } else {
    lua_pushvalue(L, 2);
  }
  return 1;
}

/* --- progress ------------------------------------------------------------ */

typedef struct progress {
  double told; /* when the last plain line was written; 0: never */
  bool shown;  /* a line stands on the terminal */
} progress;

static progress *get_progress(lua_State *L) {
  static const char field[] = "llmhost.progress";
  if (lua_getfield(L, LUA_REGISTRYINDEX, field) == LUA_TUSERDATA) {
    return lua_touserdata(L, -1);
  }
  progress *p = lua_newuserdatauv(L, sizeof *p, 0);
  *p = (progress){0};
  lua_setfield(L, LUA_REGISTRYINDEX, field);
  return p;
}

/* Bytes of the first `columns` characters of UTF-8 text. */
static size_t cut(const char *text, int columns) {
  size_t n = 0;
  for (; text[n]; n++) {
    bool starts = ((unsigned char)text[n] & 0xC0) != 0x80;
    if (starts && columns-- == 0) break;
  }
  return n;
}

static void show_on_terminal(progress *p, const char *line) {
  if (line == NULL && !p->shown) return;
  int n = line ? (int)cut(line, width_of(STDERR_FILENO) - 1) : 0;
  fprintf(stderr, "\r%.*s\033[K", n, line ? line : "");
  fflush(stderr);
  p->shown = line != NULL;
}

static int terminal_progress(lua_State *L) {
  const char *line = luaL_optstring(L, 1, NULL);
  progress *p = get_progress(L);
  if (isatty(STDERR_FILENO)) {
    show_on_terminal(p, line);
    return 0;
  }
  double now = lh_clock();
  if (line == NULL || (p->told > 0 && now - p->told < PLAIN_SECONDS)) return 0;
  p->told = now;
  fprintf(stderr, "%s\n", line);
  fflush(stderr);
  return 0;
}

static const lh_function functions[] = {
    {"width", terminal_width, "(fd?: integer): integer",
     "Columns of the terminal; 80 where there is none.", NULL},
    {"isatty", terminal_isatty, "(fd?: integer): boolean",
     "Is it a terminal? 0 input, 1 output (default), 2 errors.", NULL},
    {"color", terminal_color,
     "(name: string, text: string, fd?: integer): string",
     "The text in a colour, or plain: --color, NO_COLOR and the terminal "
     "decide.",
     NULL},
    {"progress", terminal_progress, "(line?: string)",
     "Show one line on stderr, over the last one; nil removes it. Without a "
     "terminal: a plain line every 5 seconds.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL}};

int lh_open_terminal(lua_State *L) {
  lua_newtable(L);
  lh_register(L, "host.terminal", functions);
  return 1;
}
