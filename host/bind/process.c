/* host.process: starting, reading, waiting for and ending child processes. */
#include "../sys/process.h"

#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../sys/machine.h"
#include "../sys/signal.h"
#include "bind.h"
#include "modules.h"

extern char **environ;

static const lh_class process_class;

static lh_process *check_process(lua_State *L, int index) {
  return lh_object_check(L, index, &process_class);
}

static void close_process(void *object) { lh_process_close(object); }

/* Seconds at `index`; none, nil or infinity is -1: no limit. */
static double optional_seconds(lua_State *L, int index) {
  if (lua_isnoneornil(L, index)) return -1;
  if (lua_type(L, index) != LUA_TNUMBER) {
    lh_raise(L, LK_ARGUMENT, "a timeout must be a number of seconds, got %s",
             lh_show(L, index));
  }
  double seconds = lua_tonumber(L, index);
  if (!(seconds >= 0)) return 0;
  return seconds > 1e9 ? -1 : seconds;
}

/* --- spawn --------------------------------------------------------------- */

typedef struct spawn_options {
  const char *cwd;
  int env;
  int in, out, err;
  bool group, die_with_parent;
} spawn_options;

static const char *const stream_words[] = {"pipe", "null", "inherit", NULL};
#define FIELD(name) offsetof(spawn_options, name)
static const lh_option spawn_list[] = {
    {"cwd", LH_STRING, FIELD(cwd), 0, 0, NULL, "folder to start in (ours)"},
    {"env", LH_ANY, FIELD(env), 0, 0, NULL,
     "variables to set; false removes one"},
    {"stdin", LH_WORD, FIELD(in), 0, 0, stream_words, "its input (inherit)"},
    {"stdout", LH_WORD, FIELD(out), 0, 0, stream_words, "its output (pipe)"},
    {"stderr", LH_WORD, FIELD(err), 0, 0, stream_words, "its errors (inherit)"},
    {"group", LH_BOOLEAN, FIELD(group), 0, 0, NULL,
     "a process group of its own, ended as one (true)"},
    {"die_with_parent", LH_BOOLEAN, FIELD(die_with_parent), 0, 0, NULL,
     "killed when this process ends (true)"},
    {NULL, LH_ANY, 0, 0, 0, NULL, NULL}};

/* Check that the string on top holds no zero byte. */
static const char *check_word(lua_State *L, const char *what) {
  size_t size;
  const char *word = lua_tolstring(L, -1, &size);
  if (word == NULL || strlen(word) != size) {
    lh_raise(L, LK_ARGUMENT, "host.process.spawn: %s must be a string without "
             "zero bytes, got %s", what, lh_show(L, -1));
  }
  return word;
}

/* A NULL-ended char * list of room n + 1 as a userdata on the stack. */
static char **new_list(lua_State *L, size_t n) {
  char **list = lua_newuserdatauv(L, (n + 1) * sizeof *list, 0);
  memset(list, 0, (n + 1) * sizeof *list);
  return list;
}

/* The words {[1], [2], …} of the table at `index`; numbers become text. The
 * strings live in a table pushed before the list. */
static char **push_argv(lua_State *L, int index) {
  size_t n = lua_rawlen(L, index);
  if (n == 0) {
    lh_raise(L, LK_ARGUMENT, "host.process.spawn: no program is named");
  }
  lua_newtable(L);
  int keep = lua_gettop(L);
  char **list = new_list(L, n);
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, index, (lua_Integer)i + 1);
    list[i] = (char *)check_word(L, "a word of the command");
    lua_rawseti(L, keep, (lua_Integer)i + 1);
  }
  return list;
}

/* Is the variable of this "NAME=value" a key of the table at `index`? */
static bool is_overridden(lua_State *L, int index, const char *entry) {
  lua_pushlstring(L, entry, strcspn(entry, "="));
  bool found = lua_rawget(L, index) != LUA_TNIL;
  lua_pop(L, 1);
  return found;
}

/* Push "NAME=value" for the key and value on top, or nil for false. */
static void push_variable(lua_State *L) {
  if (lua_isboolean(L, -1) && !lua_toboolean(L, -1)) {
    lua_pushnil(L);
    return;
  }
  if (lua_type(L, -2) != LUA_TSTRING || strchr(lua_tostring(L, -2), '=')) {
    lh_raise(L, LK_ARGUMENT, "host.process.spawn: %s is no variable's name",
             lh_show(L, -2));
  }
  const char *value = check_word(L, "a variable");
  lua_pushfstring(L, "%s=%s", lua_tostring(L, -2), value);
}

/* Our environment with the changes of the table at `index`. */
static char **push_env(lua_State *L, int index) {
  size_t n = 0, used = 0;
  if (!lua_istable(L, index)) {
    lh_raise(L, LK_ARGUMENT, "host.process.spawn: option 'env' must be a "
             "table, got %s", lh_show(L, index));
  }
  while (environ[n]) n++;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) n++;
  lua_newtable(L);
  int keep = lua_gettop(L);
  char **list = new_list(L, n);
  for (char **e = environ; *e; e++) {
    if (!is_overridden(L, index, *e)) list[used++] = *e;
  }
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    push_variable(L);
    if (lua_isnil(L, -1)) {
      lua_pop(L, 1);
      continue;
    }
    list[used++] = (char *)lua_tostring(L, -1);
    lua_rawseti(L, keep, (lua_Integer)used);
  }
  return list;
}

static int process_spawn(lua_State *L) {
  spawn_options o = {.in = LH_INHERIT, .out = LH_PIPE, .err = LH_INHERIT,
                     .group = true, .die_with_parent = true};
  lua_settop(L, 1);
  luaL_checkstack(L, 40, NULL);
  if (!lua_istable(L, 1)) {
    lh_raise(L, LK_ARGUMENT, "host.process.spawn: expected a table, got %s",
             lh_show(L, 1));
  }
  lh_options(L, 1, "host.process.spawn", spawn_list, -1, &o);
  lh_spawn s = {.cwd = o.cwd, .in = o.in, .out = o.out, .err = o.err,
                .group = o.group, .die_with_parent = o.die_with_parent};
  s.argv = push_argv(L, 1);
  s.env = o.env ? push_env(L, o.env) : NULL;
  lk_error error;
  lh_process *p = lh_object_new(L, &process_class, sizeof *p);
  if (lh_process_spawn(p, &s, &error) == LK_OK) return 1;
  return lh_world_error(L, &error);
}

/* --- methods ------------------------------------------------------------- */

static int push_line(lua_State *L, lh_process *p, lh_inlet *inlet) {
  const char *line;
  size_t size;
  double seconds = optional_seconds(L, 2);
  lh_wait got = lh_process_line(p, inlet, seconds, &line, &size);
  if (got == LH_READY) {
    lua_pushlstring(L, line, size);
    return 1;
  }
  lua_pushnil(L);
  lua_pushstring(L, got == LH_END ? "eof" : got == LH_STARVED ? "oom"
                                                               : "timeout");
  return 2;
}

static int read_line(lua_State *L) {
  lh_process *p = check_process(L, 1);
  return push_line(L, p, &p->out);
}

static int read_error_line(lua_State *L) {
  lh_process *p = check_process(L, 1);
  return push_line(L, p, &p->err);
}

static int process_write(lua_State *L) {
  lh_process *p = check_process(L, 1);
  size_t size;
  const char *data = luaL_checklstring(L, 2, &size);
  lk_error error;
  if (lh_process_write(p, data, size, &error) != LK_OK) {
    return lh_world_error(L, &error);
  }
  lua_pushboolean(L, 1);
  return 1;
}

static int close_stdin(lua_State *L) {
  lh_process_close_input(check_process(L, 1));
  return 0;
}

static void push_ending(lua_State *L, const lh_ending *e) {
  lua_newtable(L);
  lua_pushinteger(L, e->signal ? e->signal : e->exit);
  lua_setfield(L, -2, e->signal ? "signal" : "exit");
  lua_pushboolean(L, e->core);
  lua_setfield(L, -2, "core");
  lua_pushinteger(L, e->max_rss);
  lua_setfield(L, -2, "max_rss");
  lua_pushnumber(L, e->user);
  lua_setfield(L, -2, "user");
  lua_pushnumber(L, e->system);
  lua_setfield(L, -2, "system");
}

static int process_wait(lua_State *L) {
  lh_process *p = check_process(L, 1);
  if (lh_process_wait(p, optional_seconds(L, 2)) == LH_READY) {
    push_ending(L, &p->ending);
    return 1;
  }
  lua_pushnil(L);
  lua_pushliteral(L, "timeout");
  return 2;
}

static const struct {
  const char *name;
  int number;
} signals[] = {{"TERM", SIGTERM}, {"KILL", SIGKILL}, {"INT", SIGINT},
               {"HUP", SIGHUP},   {"STOP", SIGSTOP}, {"CONT", SIGCONT},
               {"QUIT", SIGQUIT}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}};

static int check_signal(lua_State *L, int index) {
  const char *name = luaL_optstring(L, index, "TERM");
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
    if (strcmp(signals[i].name, name) == 0) return signals[i].number;
  }
  lh_raise(L, LK_ARGUMENT, "unknown signal '%s': TERM, KILL, INT, HUP, STOP, "
           "CONT, QUIT, USR1, USR2", name);
}

static int process_kill(lua_State *L) {
  lh_process *p = check_process(L, 1);
  lua_pushboolean(L, lh_process_kill(p, check_signal(L, 2)));
  return 1;
}

/* p.pid, and the methods (upvalue 1). */
static int process_index(lua_State *L) {
  lua_pushvalue(L, 2);
  if (lua_gettable(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
  const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
  if (strcmp(key, "pid") != 0) return 0;
  lua_pushinteger(L, check_process(L, 1)->pid);
  return 1;
}

static const lh_function methods[] = {
    {"read_line", read_line,
     "(self, seconds?: number): string|nil, string?",
     "The next line of its output; nil and \"timeout\", \"eof\" or \"oom\".",
     NULL},
    {"read_error_line", read_error_line,
     "(self, seconds?: number): string|nil, string?",
     "The next line of its errors.", NULL},
    {"write", process_write,
     "(self, text: string): true|nil, string?, string?",
     "Write to its input.", NULL},
    {"close_stdin", close_stdin, "(self)", "Close its input.", NULL},
    {"wait", process_wait, "(self, seconds?: number): table|nil, string?",
     "Wait for its end: exit or signal, core, max_rss (bytes), user, system "
     "(seconds). What it left in its group is killed.",
     NULL},
    {"kill", process_kill, "(self, signal?: string): boolean",
     "Send TERM, KILL, INT, … to its whole group.", NULL},
    {"__index", process_index, "", "", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static const lh_function fields[] = {
    {"pid", NULL, "integer", "Its process id.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static const lh_class process_class = {
    .name = "host.process", .methods = methods, .close = close_process};

/* --- functions ----------------------------------------------------------- */

static int process_poll(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  double seconds = optional_seconds(L, 2);
  int count = (int)lua_rawlen(L, 1);
  lh_process **list =
      lua_newuserdatauv(L, (size_t)(count + 1) * sizeof *list, 0);
  bool *ready = lua_newuserdatauv(L, (size_t)(count + 1) * sizeof *ready, 0);
  for (int i = 0; i < count; i++) {
    lua_rawgeti(L, 1, i + 1);
    list[i] = check_process(L, -1);
    lua_pop(L, 1);
  }
  lh_process_poll(list, count, seconds, ready);
  lua_newtable(L);
  for (int i = 0, n = 0; i < count; i++) {
    if (!ready[i]) continue;
    lua_rawgeti(L, 1, i + 1);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

/* Upvalue 1: the path when the module was opened. Asked for later it could be
 * gone, as when the program is built again while it runs. */
static int process_executable(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  return 1;
}

/* Set field "executable" of the module on top of the stack. */
static void set_executable(lua_State *L) {
  void **box = lh_box_new(L);
  *box = realpath("/proc/self/exe", NULL);
  lua_pushstring(L, *box); /* nil if unknown */
  lua_pushcclosure(L, process_executable, 1);
  lua_setfield(L, -3, "executable");
  lua_pop(L, 1);
}

static int process_pid(lua_State *L) {
  lua_pushinteger(L, getpid());
  return 1;
}

static int process_memory(lua_State *L) {
  int64_t resident, peak;
  lh_process_memory(&resident, &peak);
  lua_newtable(L);
  lua_pushinteger(L, resident);
  lua_setfield(L, -2, "resident");
  lua_pushinteger(L, peak);
  lua_setfield(L, -2, "peak");
  return 1;
}

static int process_reset_peak(lua_State *L) {
  lua_pushboolean(L, lh_process_reset_peak());
  return 1;
}

static int process_interrupted(lua_State *L) {
  lua_pushinteger(L, lh_signal_count());
  return 1;
}

static int process_on_stdin_close(lua_State *L) {
  lk_error error;
  lh_check(L, lh_signal_watch_stdin(&error), &error);
  return 0;
}

static int process_start_time(lua_State *L) {
  int64_t pid = lh_check_integer(L, 1, "a process id", 1, INT32_MAX);
  int64_t start = lh_process_start_time((pid_t)pid);
  if (start < 0) return 0;
  lua_pushinteger(L, start);
  return 1;
}

static int process_signal(lua_State *L) {
  int64_t pid = lh_check_integer(L, 1, "a process id", 1, INT32_MAX);
  int64_t start = lh_check_integer(L, 2, "a start time", 0, INT64_MAX);
  int number = check_signal(L, 3);
  bool same = lh_process_start_time((pid_t)pid) == start;
  lua_pushboolean(L, same && kill((pid_t)pid, number) == 0);
  return 1;
}

static const lh_function functions[] = {
    {"spawn", process_spawn,
     "(command: table): host.process|nil, string?, string?",
     "Start a program: { \"name\", \"word\", …, options }.", spawn_list},
    {"poll", process_poll, "(processes: table, seconds?: number): table",
     "Those with something to read or an end to collect.", NULL},
    {"executable", process_executable, "(): string", "Path of this program.",
     NULL},
    {"pid", process_pid, "(): integer", "This process's id.", NULL},
    {"memory", process_memory, "(): table",
     "resident and peak bytes of this process.", NULL},
    {"reset_peak", process_reset_peak, "(): boolean",
     "Start the peak again from what is resident.", NULL},
    {"interrupted", process_interrupted, "(): integer",
     "How many INT or TERM came: 0, or 1 to stop at the next step.", NULL},
    {"on_stdin_close", process_on_stdin_close, "()",
     "End this process when its standard input closes.", NULL},
    {"start_time", process_start_time, "(pid: integer): integer|nil",
     "When a process started: with its id, a name for good.", NULL},
    {"signal", process_signal,
     "(pid: integer, start: integer, signal?: string): boolean",
     "Send a signal to any process, if it still is the one that started then.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL}};

int lh_open_process(lua_State *L) {
  lh_class_new(L, &process_class);
  lh_document(L, process_class.name, fields);
  lua_newtable(L);
  lh_register(L, "host.process", functions);
  set_executable(L);
  return 1;
}
