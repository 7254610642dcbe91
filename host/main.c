/* The program: what the command line asks for, in its order, and the exit
 * code. */
#include <lauxlib.h>
#include <locale.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arguments.h"
#include "bind/bind.h"
#include "bind/plugin.h"
#include "repl.h"
#include "state.h"
#include "sys/exit.h"
#include "sys/signal.h"
#include "version.h"

/* OpenBLAS's name for itself, where the BLAS is OpenBLAS. */
extern char *openblas_get_config(void) __attribute__((weak));

/* Backends and libraries are gpu's to know. */
static const char backends_code[] =
    "local ok, gpu = pcall(require, 'gpu')\n"
    "if not ok then return 'none (this build has no gpu module)' end\n"
    "local names = {}\n"
    "for _, d in ipairs(gpu.devices()) do names[#names + 1] = d.name end\n"
    "return table.concat(names, ' ')\n";

static void print_versions(lua_State *L) {
  printf("llmhost %s\n%s\n", LH_VERSION, LUA_RELEASE);
  printf("BLAS: %s\n", openblas_get_config ? openblas_get_config() : "CBLAS");
  int status = luaL_loadstring(L, backends_code);
  if (status == LUA_OK) status = lua_pcall(L, 0, 1, 0);
  const char *text = lua_tostring(L, -1);
  const char *why = lh_plugin_absence(); /* gpu has looked for it */
  printf("devices: %s", text ? text : "unknown");
  if (why) printf(" (no CUDA: %s)", why);
  putchar('\n');
  lua_settop(L, 0);
}

static void print_welcome(void) {
  printf(
      "llmhost %s: train and compare small language models\n"
      "  llmhost script.lua [key=value …]   run a script\n"
      "  llmhost -i                         prompt\n"
      "  llmhost --help                     all options\n"
      "next: llmhost experiments/check.lua\n",
      LH_VERSION);
}

/* --- running --- */

/* Set host.options, and the global `arg`. */
static int set_options(lua_State *L) {
  const lh_arguments *a = lua_touserdata(L, 1);
  lh_arguments_set_arg(L, a);
  lua_getglobal(L, "require");
  lua_pushstring(L, "host");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "options");
  lh_arguments_push(L, a);
  lh_arguments_document(L);
  lua_pushstring(L, lh_state_root(L));
  lua_setfield(L, -2, "root");
  return 0;
}

static int run_code(lua_State *L, const char *code) {
  int status = luaL_loadbufferx(L, code, strlen(code), "=(command line)", "t");
  if (status == LUA_OK) status = lh_state_call(L, 0, 0);
  return status == LUA_OK ? LH_EXIT_OK : lh_state_report(L);
}

/* name = require(name) */
static int run_module(lua_State *L, const char *name) {
  lua_getglobal(L, "require");
  lua_pushstring(L, name);
  if (lh_state_call(L, 1, 1) != LUA_OK) return lh_state_report(L);
  lua_setglobal(L, name);
  return LH_EXIT_OK;
}

static int run_actions(lua_State *L, const lh_arguments *a) {
  char kind;
  const char *text;
  int code = LH_EXIT_OK;
  for (int at = 1; code == LH_EXIT_OK &&
                   lh_arguments_action(a, &at, &kind, &text);) {
    code = kind == 'e' ? run_code(L, text) : run_module(L, text);
  }
  return code;
}

/* Push the path to load: as given, or below the root when there is no such
 * file here, so that "experiments/sweep.lua" works anywhere. */
static const char *push_script_path(lua_State *L, const char *name) {
  if (name[0] != '/' && access(name, F_OK) != 0) {
    lua_pushfstring(L, "%s/%s", lh_state_root(L), name);
    if (access(lua_tostring(L, -1), F_OK) == 0) return lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  return lua_pushstring(L, name);
}

static int exit_code_of(lua_State *L, int index) {
  if (lua_isinteger(L, index)) return (int)lua_tointeger(L, index) & 255;
  if (lua_isboolean(L, index) && !lua_toboolean(L, index)) {
    return LH_EXIT_FAILED;
  }
  return LH_EXIT_OK;
}

/* A script may return an object that knows how to run (a sweep): run it. */
static int run_returned(lua_State *L, int index) {
  if (lua_gettop(L) < index) return LH_EXIT_OK;
  if (luaL_getmetafield(L, index, "__run") == LUA_TNIL) return LH_EXIT_OK;
  lua_pushvalue(L, index);
  if (lh_state_call(L, 1, 1) != LUA_OK) return lh_state_report(L);
  return exit_code_of(L, -1);
}

static int push_words(lua_State *L, const lh_arguments *a) {
  int n = a->argc - a->script - 1;
  luaL_checkstack(L, n + LUA_MINSTACK, "too many arguments");
  for (int i = 0; i < n; i++) lua_pushstring(L, a->argv[a->script + 1 + i]);
  return n;
}

static void set_script_option(lua_State *L, const char *path) {
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, -1, "host");
  lua_getfield(L, -1, "options");
  lua_pushstring(L, path);
  lua_setfield(L, -2, "script");
  lua_pop(L, 3);
}

/* Push the result of function `name` of llm.usage for `path`, or nil where
 * there is no such library. */
static void ask_usage(lua_State *L, const char *name, const char *path) {
  int top = lua_gettop(L);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "llm.usage");
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
    lua_getfield(L, -1, name);
    lua_pushstring(L, path);
    if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
      lua_replace(L, top + 1);
      lua_settop(L, top + 1);
      return;
    }
  }
  lua_settop(L, top);
  lua_pushnil(L);
}

/* A file that is not there: the message of the loader, and what may have been
 * meant. */
static void add_suggestion(lua_State *L, const char *path) {
  if (path == NULL || access(path, F_OK) == 0) return;
  ask_usage(L, "suggest", path);
  if (lua_isstring(L, -1)) {
    lua_concat(L, 2);
  } else {
    lua_pop(L, 1);
  }
}

/* Not every message of the loader says which file. */
static int report_load(lua_State *L, const char *path) {
  add_suggestion(L, path);
  const char *message = lua_tostring(L, -1);
  if (path && message && strstr(message, path) == NULL) {
    lua_pushfstring(L, "%s: %s", path, message);
  }
  return lh_state_report(L);
}

/* Run the file, or standard input if name is NULL. */
static int run_script(lua_State *L, const lh_arguments *a, const char *name) {
  lua_settop(L, 0);
  const char *path = name ? push_script_path(L, name) : NULL;
  if (path) set_script_option(L, path);
  int base = lua_gettop(L);
  if (path && a->script_help) {
    ask_usage(L, "script", path);
    if (lua_toboolean(L, -1)) return LH_EXIT_OK;
    lua_settop(L, base);
  }
  if (luaL_loadfilex(L, path, "t") != LUA_OK) return report_load(L, path);
  int n = a->script ? push_words(L, a) : 0;
  if (lh_state_call(L, n, LUA_MULTRET) != LUA_OK) return lh_state_report(L);
  int code = run_returned(L, base + 1);
  lua_settop(L, 0);
  return code;
}

/* Everything but -v and --help; the exit code. */
static int run(lua_State *L, const lh_arguments *a) {
  int code = run_actions(L, a);
  if (code != LH_EXIT_OK) return code;
  int at = 1;
  char kind;
  const char *text;
  bool acted = lh_arguments_action(a, &at, &kind, &text);
  if (a->script) {
    const char *name = a->argv[a->script];
    code = run_script(L, a, strcmp(name, "-") == 0 ? NULL : name);
    if (code != LH_EXIT_OK) return code;
  }
  if (a->interactive) {
    lh_repl(L);
  } else if (!a->script && !acted && !a->version) {
    if (!isatty(STDIN_FILENO)) return run_script(L, a, NULL);
    print_welcome();
  }
  return LH_EXIT_OK;
}

/* Make the state and do what was asked. */
static int run_state(lh_arguments *a) {
  lua_State *L = lh_state_new();
  if (L == NULL) {
    fputs("llmhost: no memory for a Lua state\n", stderr);
    return LH_EXIT_LUA_MEMORY;
  }
  lua_pushcfunction(L, set_options);
  lua_pushlightuserdata(L, a);
  int code = LH_EXIT_OK;
  if (lh_state_call(L, 1, 0) != LUA_OK) code = lh_state_report(L);
  if (code == LH_EXIT_OK && a->version) print_versions(L);
  if (code == LH_EXIT_OK) code = run(L, a);
  lua_close(L);
  if (code == LH_EXIT_OK && lh_signal_count() > 0) code = LH_EXIT_INTERRUPTED;
  return code;
}

int main(int argc, char **argv) {
  lh_arguments arguments;
  setlocale(LC_CTYPE, ""); /* never LC_NUMERIC: numbers keep their point */
  if (!lh_arguments_parse(&arguments, argc, argv)) {
    lh_arguments_free(&arguments);
    return LH_EXIT_USAGE;
  }
  int code = LH_EXIT_OK;
  if (arguments.help) {
    lh_arguments_help();
  } else {
    lh_signal_install();
    code = run_state(&arguments);
  }
  lh_arguments_free(&arguments);
  bool lost = fflush(stdout) != 0 || ferror(stdout); /* a full disk */
  return lost && code == LH_EXIT_OK ? LH_EXIT_FAILED : code;
}
