/* gpu.tune and gpu.tuning: choices that a device makes by measuring, and the
 * file that keeps them. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../sys/tuning.h"
#include "gpu.h"
#include "plugin.h"

/* Of one context: its tuner's state while the collector has not come. */
typedef struct tune_state {
  lk_context *context;
  lh_tuning *tuning;
} tune_state;

static void tune_close(void *object) {
  tune_state *s = object;
  lh_tuning_close(s->tuning);
}

static const lh_class tune_class = {.name = "gpu.tune.state",
                                    .close = tune_close};
static const char tune_key;

/* Push the table of tunings by context, kept in the registry. */
static void push_tunings(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &tune_key) == LUA_TTABLE) return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &tune_key);
}

static lh_tuning *tuning_of(const lk_context *c) {
  return c->tuner.find == lh_tuning_find ? c->tuner.state : NULL;
}

/* Device and versions in a line: what choices are for. */
static bool identity_of(const lk_context *c, char *text, size_t size) {
  lk_device_info info;
  lk_plugin_facts f;
  lk_error error = {0};
  char why[256];
  if (strcmp(c->backend->name, "cuda") != 0 ||
      !lh_plugin_about(&f, why, sizeof why) ||
      c->backend->device_info(c->device, &info, &error) != LK_OK)
    return false;
  snprintf(text, size, "%s %s, cublaslt %d, driver %d, runtime %d", info.name,
           info.capability, f.library, f.driver, f.runtime);
  return true;
}

static int no_tuning(lua_State *L, const char *why) {
  lua_pushnil(L);
  lua_pushstring(L, why);
  return 2;
}

static int gpu_tune(lua_State *L) {
  lk_context *c = lh_context(L);
  char identity[256], path[4096];
  lk_error error = {0};
  lk_tuner none = {0};
  bool off = lua_isboolean(L, 1) && !lua_toboolean(L, 1);
  if (off || !identity_of(c, identity, sizeof identity)) {
    c->tuner = none;
    return no_tuning(L, off ? "off" : "there is nothing to tune on the cpu");
  }
  const char *asked = luaL_optstring(L, 1, NULL);
  if (asked)
    snprintf(path, sizeof path, "%s", asked);
  else if (!lh_tuning_place(identity, path, sizeof path))
    return no_tuning(L, "there is no cache folder: HOME is not set");
  push_tunings(L);
  tune_state *s = lh_object_new(L, &tune_class, sizeof *s);
  s->context = c;
  lh_check(L, lh_tuning_open(&s->tuning, path, identity, &error), &error);
  lua_rawsetp(L, -2, c);
  c->tuner = (lk_tuner){lh_tuning_find, lh_tuning_note, s->tuning};
  lua_pushstring(L, path);
  return 1;
}

static int gpu_tuning(lua_State *L) {
  const lh_tuning *t = tuning_of(lh_context(L));
  char hash[20];
  if (t == NULL) return no_tuning(L, "the libraries choose");
  snprintf(hash, sizeof hash, "%016" PRIx64, lh_tuning_hash(t));
  lua_createtable(L, 0, 5);
  lua_pushstring(L, lh_tuning_path(t));
  lua_setfield(L, -2, "path");
  lua_pushstring(L, hash);
  lua_setfield(L, -2, "hash");
  lua_pushinteger(L, lh_tuning_count(t));
  lua_setfield(L, -2, "known");
  lua_pushinteger(L, lh_tuning_noted(t));
  lua_setfield(L, -2, "measured");
  lua_pushstring(L, lh_tuning_error(t));
  lua_setfield(L, -2, "error");
  return 1;
}

static const lh_function functions[] = {
    {"tune", gpu_tune, "(path?: string|false): string|nil, string?",
     "From now on choose the algorithms of matrix products by measuring, once "
     "a shape, and keep the choices in a file, by default in the cache folder, "
     "one for each device and version; false: take the libraries' own, as at "
     "the start. Returns the file's path; nil and the reason where nothing is "
     "chosen.", NULL},
    {"tuning", gpu_tuning, "(): table|nil, string?",
     "The choices in force: path, hash (of device, versions and choices), "
     "known, measured (by this process), error (why the file could not be "
     "written); nil and the reason where the libraries choose.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

void lh_add_tune(lua_State *L) { lh_register(L, "gpu", functions); }
