/* NVIDIA's management library, loaded at run time. Types and constants are
 * those of nvml.h (NVML API reference), as far as they are used here. */
#define _GNU_SOURCE
#include "nvml.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct nvml_rates {
  unsigned compute, memory;
} nvml_rates;

typedef struct nvml_memory {
  unsigned long long total, free, used;
} nvml_memory;

typedef struct nvml_process {
  unsigned pid;
  unsigned long long used;
  unsigned instance, compute_instance;
} nvml_process;

enum { NVML_PROCESSES = 64, NVML_POWER_CAP = 0x04 };

/* Reasons for lower clocks: heat and faults. */
static const struct { unsigned long long bit; const char *words; }
    slowdowns[] = {{0x08, "slowdown"}, {0x20, "heat"}, {0x40, "severe heat"},
                   {0x80, "power brake"}};

/* Any but the first two may be absent: NULL, and what it reads not known. */
typedef struct nvml_functions {
  int (*start)(void);
  int (*find)(const char *bus, void **device);
  int (*rates)(void *device, nvml_rates *rates);
  int (*power)(void *device, unsigned *milliwatts);
  int (*heat)(void *device, int sensor, unsigned *celsius);
  int (*reasons)(void *device, unsigned long long *bits);
  int (*memory)(void *device, nvml_memory *memory);
  int (*processes)(void *device, unsigned *count, nvml_process *list);
} nvml_functions;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static nvml_functions nvml;
static char absence[256];

static void find_function(void *library, const char *name, void *function) {
  if (*(void **)function == NULL) *(void **)function = dlsym(library, name);
}

static void need_function(void *library, const char *name, void *function) {
  find_function(library, name, function);
  if (*(void **)function == NULL)
    snprintf(absence, sizeof absence, "libnvidia-ml.so.1 has no %s", name);
}

static void load(void) {
  void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    snprintf(absence, sizeof absence, "libnvidia-ml.so.1 is not here");
    return;
  }
  need_function(library, "nvmlInit_v2", &nvml.start);
  need_function(library, "nvmlDeviceGetHandleByPciBusId_v2", &nvml.find);
  find_function(library, "nvmlDeviceGetUtilizationRates", &nvml.rates);
  find_function(library, "nvmlDeviceGetPowerUsage", &nvml.power);
  find_function(library, "nvmlDeviceGetTemperature", &nvml.heat);
  /* The same bits under the name of CUDA 12, and the one before. */
  find_function(library, "nvmlDeviceGetCurrentClocksEventReasons",
                &nvml.reasons);
  find_function(library, "nvmlDeviceGetCurrentClocksThrottleReasons",
                &nvml.reasons);
  find_function(library, "nvmlDeviceGetMemoryInfo", &nvml.memory);
  find_function(library, "nvmlDeviceGetComputeRunningProcesses_v3",
                &nvml.processes);
  if (*absence == 0 && nvml.start() != 0)
    snprintf(absence, sizeof absence, "NVML does not start");
}

/* Bytes that the driver lists for this process, or -1. */
static double own_memory(void *device) {
  static nvml_process list[NVML_PROCESSES]; /* under the caller's lock */
  unsigned count = NVML_PROCESSES;
  if (nvml.processes == NULL || nvml.processes(device, &count, list) != 0)
    return -1;
  for (unsigned i = 0; i < count; i++)
    if (list[i].pid == (unsigned)getpid() && list[i].used != ~0ULL)
      return (double)list[i].used;
  return -1;
}

static void ask_memory(void *device, lh_nvml_use *use) {
  nvml_memory memory;
  use->total = use->used = -1;
  if (nvml.memory && nvml.memory(device, &memory) == 0) {
    use->total = (double)memory.total;
    use->used = (double)memory.used;
  }
  use->process = own_memory(device);
}

static void ask_reasons(void *device, lh_nvml_use *use) {
  unsigned long long bits;
  size_t at = 0;
  if (nvml.reasons == NULL || nvml.reasons(device, &bits) != 0) return;
  use->power_capped = (bits & NVML_POWER_CAP) != 0;
  for (size_t i = 0; i < sizeof slowdowns / sizeof *slowdowns; i++) {
    if ((bits & slowdowns[i].bit) == 0) continue;
    use->throttled = true;
    at += (size_t)snprintf(use->reasons + at, sizeof use->reasons - at,
                           "%s%s", at ? ", " : "", slowdowns[i].words);
  }
}

static void ask(void *device, lh_nvml_use *use) {
  nvml_rates rates;
  unsigned value;
  *use = (lh_nvml_use){.compute = -1, .memory = -1, .watts = -1,
                       .celsius = -1};
  if (nvml.rates && nvml.rates(device, &rates) == 0) {
    use->compute = rates.compute;
    use->memory = rates.memory;
  }
  if (nvml.power && nvml.power(device, &value) == 0)
    use->watts = value / 1000.0;
  if (nvml.heat && nvml.heat(device, 0, &value) == 0) use->celsius = value;
  ask_reasons(device, use);
  ask_memory(device, use);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool lh_nvml_read(const char *bus, bool fresh, lh_nvml_use *use, char *why,
                  size_t size) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static struct { char bus[32]; void *device; double time; lh_nvml_use use; }
      last;
  bool known = true;
  pthread_once(&once, load);
  pthread_mutex_lock(&lock);
  if (*absence) {
    snprintf(why, size, "%s", absence);
    known = false;
  } else if (strcmp(last.bus, bus) != 0) {
    known = nvml.find(bus, &last.device) == 0;
    if (!known) snprintf(why, size, "NVML knows no device at %s", bus);
    snprintf(last.bus, sizeof last.bus, "%s", known ? bus : "");
    last.time = -1;
  }
  if (known) {
    if (fresh || now() - last.time >= 0.5) {
      ask(last.device, &last.use);
      last.time = now();
    }
    *use = last.use;
  }
  pthread_mutex_unlock(&lock);
  return known;
}
