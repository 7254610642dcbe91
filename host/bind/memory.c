/* gpu.memory: what the accountant of the current device says and enforces. */
#include <math.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "gpu.h"

static void set_integer(lua_State *L, const char *key, int64_t value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, key);
}

/* Set field `key` to {parameters = …, gradients = …, …}. */
static void set_categories(lua_State *L, const char *key,
                           const int64_t bytes[LK_CATEGORY_COUNT]) {
  lua_createtable(L, 0, LK_CATEGORY_COUNT);
  for (int c = 0; c < LK_CATEGORY_COUNT; c++)
    set_integer(L, lk_category_word((lk_category)c), bytes[c]);
  lua_setfield(L, -2, key);
}

/* Set what the device itself says. */
static void set_device(lua_State *L, const lk_context *context) {
  lk_device_info info;
  lk_error error = {0};
  lh_check(L, context->backend->device_info(context->device, &info, &error),
           &error);
  set_integer(L, "device_total", info.memory);
  set_integer(L, "device_free", info.free);
}

/* gpu.memory.stats(device?) */
static int memory_stats(lua_State *L) {
  const lk_context *context = lh_context(L);
  lk_memory_stats s;
  bool device = lua_isnoneornil(L, 1) || lua_toboolean(L, 1);
  lk_memory_read(context->memory, &s);
  lua_createtable(L, 0, 8);
  set_integer(L, "current", s.current);
  set_integer(L, "peak", s.peak);
  if (s.budget > 0) set_integer(L, "budget", s.budget);
  set_integer(L, "allocations", s.allocations);
  if (device) set_device(L, context);
  set_categories(L, "by_category", s.category_current);
  set_categories(L, "peak_by_category", s.category_peak);
  return 1;
}

static int memory_reset_peak(lua_State *L) {
  lk_memory_reset_peak(lh_context(L)->memory);
  return 0;
}

/* Bytes of the number or text at `index`; 0 for "none". */
static int64_t check_budget(lua_State *L, int index) {
  int64_t bytes = 0;
  if (lua_type(L, index) == LUA_TNUMBER) {
    double number = lua_tonumber(L, index);
    if (number >= 1 && number < 9.2e18) return (int64_t)number;
  } else if (lua_type(L, index) == LUA_TSTRING) {
    const char *text = lua_tostring(L, index);
    if (lh_parse_size(text, &bytes) && bytes > 0) return bytes;
  }
  lh_raise(L, LK_ARGUMENT, "gpu.memory.budget: %s is no size; write it like "
           "\"24GB\", \"1.5GiB\" or a number of bytes; false lifts it",
           lh_show(L, index));
}

/* gpu.memory.budget(size?): sets it, and returns what holds now. */
static int memory_budget(lua_State *L) {
  lk_memory *memory = lh_context(L)->memory;
  lk_memory_stats s;
  if (lua_isboolean(L, 1) && !lua_toboolean(L, 1))
    lk_memory_set_budget(memory, 0);
  else if (!lua_isnoneornil(L, 1))
    lk_memory_set_budget(memory, check_budget(L, 1));
  lk_memory_read(memory, &s);
  if (s.budget > 0) lua_pushinteger(L, s.budget);
  else lua_pushnil(L);
  return 1;
}

/* Collect what Lua has dropped, and give free pages back to the system. */
static int memory_trim(lua_State *L) {
  lk_memory *memory = lh_context(L)->memory;
  lk_memory_stats before, after;
  lk_memory_read(memory, &before);
  lua_gc(L, LUA_GCCOLLECT);
  lua_gc(L, LUA_GCCOLLECT); /* what finalizers let go of */
#ifdef __GLIBC__
  malloc_trim(0);
#endif
  lk_memory_read(memory, &after);
  lua_pushinteger(L, before.current - after.current);
  return 1;
}

static const lh_function functions[] = {
    {"stats", memory_stats, "(device?: boolean): table",
     "Of the current device, in bytes: current, peak, budget (absent: none), "
     "allocations, device_total, device_free, by_category, peak_by_category "
     "(parameters, gradients, optimizer, activations, scratch, data); with "
     "false without the two that ask the device itself.", NULL},
    {"reset_peak", memory_reset_peak, "()",
     "The peak becomes what is in use now.", NULL},
    {"budget", memory_budget, "(size?: string|number|false): integer|nil",
     "Let allocations past size (\"24GB\", bytes) fail as on a full device; "
     "false lifts it. Returns the budget that holds.", NULL},
    {"trim", memory_trim, "(): integer",
     "Free every tensor that Lua has dropped; returns the bytes gained.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL}};

int lh_open_memory(lua_State *L) {
  lua_newtable(L);
  lh_register(L, "gpu.memory", functions);
  return 1;
}
