/* NVIDIA's management library, loaded at run time. Types and constants are
 * those of nvml.h (NVML API reference), as far as they are used here. */
#define _GNU_SOURCE
#include "nvml.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

typedef struct nvml_rates {
  unsigned compute, memory;
} nvml_rates;

/* Reasons for lower clocks, bits. */
enum {
  NVML_POWER_CAP = 0x04, NVML_SLOWDOWN = 0x08, NVML_HEAT_SOFT = 0x20,
  NVML_HEAT_HARD = 0x40, NVML_POWER_BRAKE = 0x80
};

typedef struct nvml_functions {
  int (*start)(void);
  int (*find)(const char *bus, void **device);
  int (*rates)(void *device, nvml_rates *rates);
  int (*power)(void *device, unsigned *milliwatts);
  int (*heat)(void *device, int sensor, unsigned *celsius);
  int (*reasons)(void *device, unsigned long long *bits);
} nvml_functions;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static nvml_functions nvml;
static char absence[256];

static bool load_function(void *library, const char *name, void *function) {
  *(void **)function = dlsym(library, name);
  if (*(void **)function != NULL) return true;
  snprintf(absence, sizeof absence, "libnvidia-ml.so.1 has no %s", name);
  return false;
}

static void load(void) {
  void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    snprintf(absence, sizeof absence, "libnvidia-ml.so.1 is not here");
    return;
  }
  bool all =
      load_function(library, "nvmlInit_v2", &nvml.start) &&
      load_function(library, "nvmlDeviceGetHandleByPciBusId_v2",
                    &nvml.find) &&
      load_function(library, "nvmlDeviceGetUtilizationRates", &nvml.rates) &&
      load_function(library, "nvmlDeviceGetPowerUsage", &nvml.power) &&
      load_function(library, "nvmlDeviceGetTemperature", &nvml.heat) &&
      load_function(library, "nvmlDeviceGetCurrentClocksThrottleReasons",
                    &nvml.reasons);
  if (all && nvml.start() != 0)
    snprintf(absence, sizeof absence, "NVML does not start");
}

static void ask(void *device, lh_nvml_use *use) {
  nvml_rates rates;
  unsigned value;
  unsigned long long bits;
  *use = (lh_nvml_use){-1, -1, -1, -1, false, false};
  if (nvml.rates(device, &rates) == 0) {
    use->compute = rates.compute;
    use->memory = rates.memory;
  }
  if (nvml.power(device, &value) == 0) use->watts = value / 1000.0;
  if (nvml.heat(device, 0, &value) == 0) use->celsius = value;
  if (nvml.reasons(device, &bits) == 0) {
    unsigned long long bad = NVML_SLOWDOWN | NVML_HEAT_SOFT | NVML_HEAT_HARD |
                             NVML_POWER_BRAKE;
    use->throttled = (bits & bad) != 0;
    use->power_capped = (bits & NVML_POWER_CAP) != 0;
  }
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool lh_nvml_read(const char *bus, lh_nvml_use *use, char *why, size_t size) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static struct { char bus[32]; double time; lh_nvml_use use; } last;
  void *device = NULL;
  bool known = false;
  pthread_once(&once, load);
  pthread_mutex_lock(&lock);
  if (strcmp(last.bus, bus) == 0 && now() - last.time < 0.5) {
    known = true;
  } else if (*absence) {
    snprintf(why, size, "%s", absence);
  } else if (nvml.find(bus, &device) != 0) {
    snprintf(why, size, "NVML knows no device at %s", bus);
  } else {
    known = true;
    snprintf(last.bus, sizeof last.bus, "%s", bus);
    ask(device, &last.use);
    last.time = now();
  }
  *use = last.use;
  pthread_mutex_unlock(&lock);
  return known;
}
