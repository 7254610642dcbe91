/* require "gpu": the module table, its contexts and its random seed. */
#include "gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "modules.h"
#include "plugin.h"

#include "../sys/signal.h"
#include "../version.h"

/* Where the CBLAS is OpenBLAS, it says what it was built as. */
char *openblas_get_config(void) __attribute__((weak));

enum { MOST_CONTEXTS = 17 };

typedef struct gpu_state {
  lk_context *context[MOST_CONTEXTS];
  int count;
  lk_context *current;
  uint64_t seed;
  int64_t streams;
  lua_State *compiling;
} gpu_state;

static void state_close(void *object) {
  gpu_state *s = object;
  for (int i = 0; i < s->count; i++) lk_context_close(s->context[i]);
}

static const lh_class state_class = {.name = "gpu.state",
                                     .close = state_close};
static const char state_key;

static gpu_state *state_of(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
  gpu_state *s = lh_object_check(L, -1, &state_class);
  lua_pop(L, 1);
  return s;
}

/* --- contexts ------------------------------------------------------------ */

static lk_context *open_context(lua_State *L, const lk_backend *backend,
                                int index) {
  gpu_state *s = state_of(L);
  for (int i = 0; i < s->count; i++)
    if (s->context[i]->backend == backend && s->context[i]->device == index)
      return s->context[i];
  lk_error error = {0};
  if (s->count == MOST_CONTEXTS)
    lh_raise(L, LK_ARGUMENT, "at most %d devices", MOST_CONTEXTS);
  lh_check(L, lk_context_open(backend, index, &s->context[s->count], &error),
           &error);
  s->context[s->count]->interrupted = lh_signal_broken;
  return s->context[s->count++];
}

lk_context *lh_context_of(lua_State *L, const char *device) {
  char name[32];
  int index = 0;
  if (strcmp(device, "auto") == 0)
    device = lk_backend_find("cuda") ? "cuda" : "cpu";
  snprintf(name, sizeof name, "%.31s", device);
  char *colon = strchr(name, ':');
  if (colon) {
    *colon = 0;
    index = atoi(colon + 1);
  }
  const lk_backend *backend = lk_backend_find(name);
  if (backend == NULL)
    lh_raise(L, LK_ARGUMENT, "no device is called '%s'; this build has: %s",
             device, lk_backend_find("cuda") ? "cpu, cuda" : "cpu");
  return open_context(L, backend, index);
}

/* The word of --device, "auto" when the host set none. */
static const char *wished_device(lua_State *L) {
  const char *word = "auto";
  if (lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE) == LUA_TTABLE &&
      lua_getfield(L, -1, "host") == LUA_TTABLE &&
      lua_getfield(L, -1, "options") == LUA_TTABLE &&
      lua_getfield(L, -1, "device") == LUA_TSTRING)
    word = lua_tostring(L, -1);
  return word;  /* kept alive by the options table */
}

lk_context *lh_context(lua_State *L) {
  gpu_state *s = state_of(L);
  if (s->current == NULL) {
    int top = lua_gettop(L);
    s->current = lh_context_of(L, wished_device(L));
    lua_settop(L, top);
  }
  return s->current;
}

void lh_context_name(const lk_context *c, char *text, size_t size) {
  if (strcmp(c->backend->name, "cpu") == 0)
    snprintf(text, size, "cpu");
  else
    snprintf(text, size, "%s:%d", c->backend->name, c->device);
}

void lh_retry(lua_State *L, lk_context *context,
              lk_status (*try_)(lua_State *L, void *argument),
              void *argument) {
  lk_status status = try_(L, argument);
  if (status == LK_OOM) {
    lua_gc(L, LUA_GCCOLLECT);
    status = try_(L, argument);
  }
  lh_check(L, status, &context->error);
}

/* --- functions ----------------------------------------------------------- */

static int gpu_device(lua_State *L) {
  char name[32];
  if (!lua_isnoneornil(L, 1))
    state_of(L)->current = lh_context_of(L, luaL_checkstring(L, 1));
  lh_context_name(lh_context(L), name, sizeof name);
  lua_pushstring(L, name);
  return 1;
}

static int gpu_seed(lua_State *L) {
  gpu_state *s = state_of(L);
  s->seed = (uint64_t)luaL_checkinteger(L, 1);
  s->streams = 0;
  return 0;
}

uint64_t lh_seed(lua_State *L) { return state_of(L)->seed; }

lua_State **lh_compiling(lua_State *L) { return &state_of(L)->compiling; }

int64_t lh_next_stream(lua_State *L) { return ++state_of(L)->streams; }

static int gpu_operators(lua_State *L) {
  lua_createtable(L, LK_OP_COUNT, 0);
  for (int op = 0; op < LK_OP_COUNT; op++) {
    lua_pushstring(L, lk_op_info_of((lk_op)op)->name);
    lua_rawseti(L, -2, op + 1);
  }
  return 1;
}

static const lh_function functions[] = {
    {"device", gpu_device, "(name?: string): string",
     "Make a device (\"cpu\", \"cuda:0\") the current one; returns its name.",
     NULL},
    {"seed", gpu_seed, "(seed: integer)",
     "Seed the random numbers of tensors made from now on.", NULL},
    {"operators", gpu_operators, "(): string[]",
     "The names of all operators, in the order of their list.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static const lh_function fields[] = {
    {"version", NULL, "table", "version, build, compiler, blas, isa, backends; "
     "as a string, the version.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static void open_field(lua_State *L, const char *name, lua_CFunction open) {
  if (open == NULL) return;
  lua_pushcfunction(L, open);
  lua_call(L, 0, 1);
  lua_setfield(L, -2, name);
}

static int version_tostring(lua_State *L) {
  lua_getfield(L, 1, "version");
  return 1;
}

/* gpu.version: {version, build, compiler, blas, isa, backends}; as a string,
 * the version. */
static void push_version(lua_State *L) {
  lk_device_info info = {0};
  lk_cpu_backend()->device_info(0, &info, NULL);
  lua_newtable(L);
  lua_pushliteral(L, LH_VERSION);
  lua_setfield(L, -2, "version");
  lua_pushfstring(L, "llmhost %s, %s", LH_VERSION, "gcc " __VERSION__);
  lua_setfield(L, -2, "build");
  lua_pushliteral(L, "gcc " __VERSION__);
  lua_setfield(L, -2, "compiler");
  lua_pushstring(L, openblas_get_config ? openblas_get_config() : "cblas");
  lua_setfield(L, -2, "blas");
  lua_pushstring(L, info.capability);
  lua_setfield(L, -2, "isa");
  lua_newtable(L);
  for (int i = 0; lk_backend_at(i); i++) {
    lua_pushstring(L, lk_backend_at(i)->name);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "backends");
  lua_newtable(L);
  lua_pushcfunction(L, version_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_setmetatable(L, -2);
}

static void make_state(lua_State *L) {
  lh_class_new(L, &state_class);
  gpu_state *s = lh_object_new(L, &state_class, sizeof *s);
  s->seed = 42;
  lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
}

int luaopen_gpu(lua_State *L) {
  lk_backend_register(lk_cpu_backend());
  lh_plugin_load();
  make_state(L);
  lua_newtable(L);
  lh_register(L, "gpu", functions);
  lh_document(L, "gpu", fields);
  push_version(L);
  lua_setfield(L, -2, "version");
  lh_add_tensor(L);
  lh_add_program(L);
  lh_add_grad(L);
  if (lh_add_safetensors) lh_add_safetensors(L);
  if (lh_add_device) lh_add_device(L);
  lh_add_tune(L);
  open_field(L, "nn", lh_open_nn);
  open_field(L, "optim", lh_open_optim);
  open_field(L, "quant", lh_open_quant);
  open_field(L, "memory", lh_open_memory);
  return 1;
}
