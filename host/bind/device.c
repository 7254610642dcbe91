/* gpu.devices, utilization, peaks, cuda: what there is, how busy it is, what it
 * attains, and what the CUDA plugin is. */
#include <stdio.h>
#include <string.h>

#include "../../kernels/graph/peaks.h"
#include "gpu.h"
#include "nvml.h"
#include "plugin.h"

static void set_string(lua_State *L, const char *key, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, key);
}

static void set_integer(lua_State *L, const char *key, int64_t value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, key);
}

/* The name that gpu.device takes. */
static void push_name(lua_State *L, const lk_backend *backend, int index) {
  if (strcmp(backend->name, "cpu") == 0)
    lua_pushstring(L, "cpu");
  else
    lua_pushfstring(L, "%s:%d", backend->name, index);
}

/* Push what is known of a device; one that does not answer has `error`. */
static void push_device(lua_State *L, const lk_backend *backend, int index) {
  lk_device_info info;
  lk_error error = {0};
  lua_createtable(L, 0, 6);
  push_name(L, backend, index);
  lua_setfield(L, -2, "name");
  set_string(L, "backend", backend->name);
  if (backend->device_info(index, &info, &error) != LK_OK) {
    set_string(L, "error", error.message);
    return;
  }
  set_string(L, "model", info.name);
  set_string(L, "capability", info.capability);
  set_integer(L, "memory", info.memory);
  set_integer(L, "free", info.free);
}

static int gpu_devices(lua_State *L) {
  const lk_backend *backend;
  int count = 0;
  lua_newtable(L);
  for (int n = 0; (backend = lk_backend_at(n)) != NULL; n++) {
    int devices = backend->device_count();
    for (int i = 0; i < devices; i++) {
      push_device(L, backend, i);
      lua_rawseti(L, -2, ++count);
    }
  }
  return 1;
}

static void set_known(lua_State *L, const char *key, double value) {
  if (value < 0) return;
  lua_pushnumber(L, value);
  lua_setfield(L, -2, key);
}

static void push_use(lua_State *L, const lh_nvml_use *use) {
  lua_createtable(L, 0, 10);
  set_known(L, "compute", use->compute);
  set_known(L, "memory", use->memory);
  set_known(L, "watts", use->watts);
  set_known(L, "celsius", use->celsius);
  set_known(L, "memory_total", use->total);
  set_known(L, "memory_used", use->used);
  set_known(L, "process_memory", use->process);
  lua_pushboolean(L, use->throttled);
  lua_setfield(L, -2, "throttled");
  lua_pushboolean(L, use->power_capped);
  lua_setfield(L, -2, "power_capped");
  set_string(L, "reasons", use->reasons);
}

/* The address of the context's device, "" if it has none; kept for the one
 * asked for last, since asking the driver takes milliseconds. */
static const char *bus_of(const lk_context *c) {
  static const lk_backend *backend;
  static int device;
  static lk_device_info info;
  if (backend == c->backend && device == c->device) return info.bus;
  info = (lk_device_info){0};
  if (c->backend->device_info(c->device, &info, NULL) != LK_OK) return "";
  backend = c->backend;
  device = c->device;
  return info.bus;
}

static int gpu_utilization(lua_State *L) {
  const lk_context *c = lh_context(L);
  char name[32], why[256];
  lh_nvml_use use;
  const char *bus = bus_of(c);
  lh_context_name(c, name, sizeof name);
  snprintf(why, sizeof why, "%s has no counter of its utilization", name);
  if (*bus && lh_nvml_read(bus, lua_toboolean(L, 1), &use, why, sizeof why)) {
    push_use(L, &use);
    return 1;
  }
  lua_pushnil(L);
  lua_pushstring(L, why);
  return 2;
}

/* gpu.peaks(): measured, in about a fifth of a second. */
static int gpu_peaks(lua_State *L) {
  lk_context *c = lh_context(L);
  lk_peaks peaks;
  lh_check(L, lk_peaks_measure(c, c->profile->compute, &peaks), &c->error);
  lua_createtable(L, 0, 3);
  lua_pushnumber(L, peaks.flops);
  lua_setfield(L, -2, "flops");
  lua_pushnumber(L, peaks.bandwidth);
  lua_setfield(L, -2, "bandwidth");
  set_string(L, "dtype", lk_dtype_word(c->profile->compute));
  return 1;
}

typedef struct timing {
  lk_product product;
  int64_t runs;
} timing;

#define TIMED(field) offsetof(timing, product.field)
static const lh_option timing_options[] = {
    {"m", LH_INTEGER, TIMED(m), 1, 1 << 24, NULL, "rows of the result"},
    {"n", LH_INTEGER, TIMED(n), 1, 1 << 24, NULL, "its columns"},
    {"k", LH_INTEGER, TIMED(k), 1, 1 << 24, NULL, "terms of each sum"},
    {"transpose_a", LH_BOOLEAN, TIMED(transpose_a), 0, 0, NULL,
     "the first factor is stored [k, m]"},
    {"transpose_b", LH_BOOLEAN, TIMED(transpose_b), 0, 0, NULL,
     "the second factor is stored [n, k]"},
    {"runs", LH_INTEGER, offsetof(timing, runs), 1, 1000, NULL,
     "how often; the least time counts; 3"},
    {NULL, LH_INTEGER, 0, 0, 0, NULL, NULL}};

static int gpu_time_product(lua_State *L) {
  timing t = {.runs = 3};
  double seconds;
  lk_context *c = lh_context(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  lh_options(L, 1, "time_product", timing_options, 3, &t);
  if (t.product.m < 1 || t.product.n < 1 || t.product.k < 1) {
    lh_raise(L, LK_ARGUMENT, "time_product: give m, n and k");
  }
  lh_check(L, lk_peaks_product(c, c->profile->compute, &t.product,
                               (int)t.runs, &seconds), &c->error);
  lua_pushnumber(L, seconds);
  return 1;
}

/* Set `key` to "13.0" of 13000, nothing of 0. */
static void set_version(lua_State *L, const char *key, int version) {
  if (version <= 0) return;
  lua_pushfstring(L, "%d.%d", version / 1000, version % 1000 / 10);
  lua_setfield(L, -2, key);
}

static int gpu_cuda(lua_State *L) {
  lk_plugin_facts f;
  char why[512];
  if (!lh_plugin_about(&f, why, sizeof why)) {
    lua_pushnil(L);
    lua_pushstring(L, why);
    return 2;
  }
  lua_createtable(L, 0, 5);
  set_version(L, "toolkit", f.toolkit);
  set_version(L, "runtime", f.runtime);
  set_version(L, "driver", f.driver);
  if (f.library > 0) set_integer(L, "cublaslt", f.library);
  lua_createtable(L, f.count, 0);
  for (int i = 0; i < f.count; i++) {
    lua_pushfstring(L, "%d.%d", f.architecture[i] / 10,
                    f.architecture[i] % 10);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "architectures");
  return 1;
}

static const lh_function functions[] = {
    {"devices", gpu_devices, "(): table[]",
     "Every device: name (for gpu.device), backend, model, capability, memory "
     "and free in bytes.", NULL},
    {"utilization", gpu_utilization, "(now?: boolean): table|nil, string?",
     "How busy the current device is: compute, memory (percent), watts, "
     "celsius, memory_total, memory_used, process_memory (bytes by the "
     "driver's count), throttled, power_capped, reasons; up to half a second "
     "old unless `now`; nil and the reason where it cannot be known.", NULL},
    {"peaks", gpu_peaks, "(): table",
     "What the current device attains, measured: flops of a large product in "
     "dtype, bandwidth in bytes a second of a large copy.", NULL},
    {"time_product", gpu_time_product, "(options: table): number",
     "time_product{m, n, k}: seconds of one matrix product of the current "
     "device's own dtype, the least of some runs.", timing_options},
    {"cuda", gpu_cuda, "(): table|nil, string?",
     "What the CUDA plugin is: toolkit, runtime, driver (versions), cublaslt, "
     "architectures; nil and the reason where there is none.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

void lh_add_device(lua_State *L) { lh_register(L, "gpu", functions); }
