/* Reading a line: libedit with completion and Ctrl-R where a terminal allows
 * it, plain getline elsewhere. */
#define _GNU_SOURCE
#include "line.h"

#include <errno.h>
#include <lauxlib.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "history.h"

#ifdef HAVE_EDIT
#include <histedit.h>
#else
typedef void EditLine;
#endif

static struct reader {
  lua_State *L;
  EditLine *edit;      /* NULL: plain reading */
  const char *prompt;  /* of the line that is being read */
  const char *pending; /* text of its chunk before it */
  volatile sig_atomic_t interrupted;
} reader;

bool lh_line_person(void) { return isatty(STDIN_FILENO); }

static void on_interrupt(int number) {
  (void)number;
  reader.interrupted = 1;
}

#ifdef HAVE_EDIT

static History *history_list;

/* --- libedit's questions ------------------------------------------------- */

static char *give_prompt(EditLine *edit) {
  (void)edit;
  return (char *)reader.prompt;
}

/* One character of the locale's encoding; libedit's own reader would swallow
 * the interruption of a read. Bytes that form no character are dropped. */
static int get_character(EditLine *edit, wchar_t *wide) {
  char bytes[MB_LEN_MAX];
  size_t n = 0;
  (void)edit;
  for (;;) {
    ssize_t got = reader.interrupted ? -1 : read(STDIN_FILENO, bytes + n, 1);
    if (got == 0) return 0;
    if (reader.interrupted) return -1;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    mbstate_t state = {0};
    size_t used = mbrtowc(wide, bytes, ++n, &state);
    if (used == (size_t)-2 && n < sizeof bytes) continue;
    if (used != (size_t)-1 && used != (size_t)-2) return 1;
    n = 0;
  }
}

/* Call llm.complete.edit(pending, line, width): pushes what to insert and what
 * to list, two strings or nils; false and nothing pushed on failure. */
static bool ask_completion(lua_State *L, const LineInfo *line) {
  if (!lua_checkstack(L, LUA_MINSTACK)) return false;
  lua_getglobal(L, "require");
  lua_pushliteral(L, "llm.complete");
  if (lua_pcall(L, 1, 1, 0) != LUA_OK) goto failed;
  lua_getfield(L, -1, "edit");
  lua_remove(L, -2);
  lua_pushstring(L, reader.pending);
  lua_pushlstring(L, line->buffer, (size_t)(line->cursor - line->buffer));
  if (lua_pcall(L, 2, 2, 0) == LUA_OK) return true;
failed:
  lua_pop(L, 1);
  return false;
}

/* Tab. */
static unsigned char complete(EditLine *edit, int key) {
  lua_State *L = reader.L;
  unsigned char result = CC_REFRESH_BEEP;
  (void)key;
  if (!ask_completion(L, el_line(edit))) return result;
  const char *more = lua_tostring(L, -2), *list = lua_tostring(L, -1);
  if (more && *more && el_insertstr(edit, more) == 0) {
    result = CC_REFRESH;
  } else if (list) {
    printf("\n%s", list);
    fflush(stdout);
    result = CC_REDISPLAY;
  }
  lua_pop(L, 2);
  return result;
}

/* --- a reader that edits ------------------------------------------------- */

static void remember(const char *text) {
  HistEvent event;
  history(history_list, &event, H_ENTER, text);
}

static const char *const bindings[][2] = {
    {"\t", "llm-complete"},        {"^R", "em-inc-search-prev"},
    {"\\e[1~", "ed-move-to-beg"},  {"\\e[4~", "ed-move-to-end"},
    {"\\e[H", "ed-move-to-beg"},   {"\\e[F", "ed-move-to-end"},
    {"\\eOH", "ed-move-to-beg"},   {"\\eOF", "ed-move-to-end"},
    {"\\e[3~", "ed-delete-next-char"},
    {"\\e[1;5C", "em-next-word"},  {"\\e[1;5D", "ed-prev-word"}};

static void set_keys(EditLine *edit) {
  el_set(edit, EL_EDITOR, "emacs");
  el_set(edit, EL_ADDFN, "llm-complete", "Complete a name", complete);
  for (size_t i = 0; i < sizeof bindings / sizeof *bindings; i++) {
    el_set(edit, EL_BIND, bindings[i][0], bindings[i][1], NULL);
  }
  el_source(edit, NULL); /* ~/.editrc has the last word */
}

/* Does the terminal know how to edit? */
static bool can_edit(void) {
  const char *term = getenv("TERM");
  return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && term && *term &&
         strcmp(term, "dumb") != 0;
}

static void open_editor(void) {
  HistEvent event;
  if (!can_edit()) return;
  EditLine *edit = el_init("llmhost", stdin, stdout, stderr);
  if (edit == NULL) return;
  history_list = history_init();
  if (history_list) {
    history(history_list, &event, H_SETSIZE, LH_HISTORY_LINES);
    history(history_list, &event, H_SETUNIQUE, 1);
    el_set(edit, EL_HIST, history, history_list);
  }
  el_set(edit, EL_PROMPT, give_prompt);
  el_set(edit, EL_SIGNAL, 1);
  el_set(edit, EL_GETCFN, get_character);
  set_keys(edit);
  reader.edit = edit;
}

static void close_editor(void) {
  if (reader.edit) el_end(reader.edit);
  if (history_list) history_end(history_list);
  reader.edit = NULL;
  history_list = NULL;
}

static lh_line read_edited(lua_State *L) {
  int count;
  const char *text = el_gets(reader.edit, &count);
  if (reader.interrupted) return LH_LINE_CLEARED;
  if (text == NULL || count <= 0) return LH_LINE_END;
  size_t size = strlen(text);
  if (size > 0 && text[size - 1] == '\n') size--;
  lua_pushlstring(L, text, size);
  return LH_LINE_TEXT;
}

#else

static void remember(const char *text) { (void)text; }
static void open_editor(void) {}
static void close_editor(void) {}
static lh_line read_edited(lua_State *L) {
  (void)L;
  return LH_LINE_END;
}

#endif

/* --- a plain reader ------------------------------------------------------ */

static lh_line read_plain(lua_State *L) {
  char *line = NULL;
  size_t room = 0;
  if (lh_line_person()) {
    fputs(reader.prompt, stdout);
    fflush(stdout);
  }
  clearerr(stdin);
  ssize_t n = reader.interrupted ? -1 : getline(&line, &room, stdin);
  lh_line result = reader.interrupted ? LH_LINE_CLEARED
                   : n < 0            ? LH_LINE_END
                                      : LH_LINE_TEXT;
  if (n > 0 && line[n - 1] == '\n') n--;
  if (result == LH_LINE_TEXT) lua_pushlstring(L, line, (size_t)n);
  free(line);
  return result;
}

/* --- both ---------------------------------------------------------------- */

static struct sigaction before; /* what SIGINT did */

void lh_line_open(lua_State *L) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_interrupt; /* no SA_RESTART: the read must end */
  sigemptyset(&action.sa_mask);
  reader = (struct reader){.L = L};
  if (lh_line_person()) sigaction(SIGINT, &action, &before);
  open_editor();
  if (reader.edit) lh_history_open(remember);
}

void lh_line_close(void) {
  if (lh_line_person()) sigaction(SIGINT, &before, NULL);
  close_editor();
}

/* Lines of a person's session are kept, but not those that begin with a
 * blank. */
static void keep(const char *text) {
  if (reader.edit == NULL || text[0] == '\0' || text[0] == ' ') return;
  remember(text);
  lh_history_add(text);
}

lh_line lh_line_read(lua_State *L, const char *prompt, const char *pending) {
  reader.prompt = prompt;
  reader.pending = pending;
  lh_line result = reader.edit ? read_edited(L) : read_plain(L);
  if (result == LH_LINE_CLEARED) puts(reader.edit ? "^C" : "");
  reader.interrupted = 0; /* one that comes between two lines clears the next */
  if (result == LH_LINE_TEXT) keep(lua_tostring(L, -1));
  return result;
}
