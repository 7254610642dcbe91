/* The management library's readings, from a library of our own of the same
 * name and functions, compiled here and found first by the loader: units,
 * reasons, our share of the memory, and what is said when a part is absent. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../host/bind/nvml.h"
#include "check.h"

static const char library[] =
    "#include <stdlib.h>\n"
    "#include <string.h>\n"
    "#include <unistd.h>\n"
    "typedef unsigned long long u64;\n"
    "static u64 given(const char *name) {\n"
    "  const char *text = getenv(name);\n"
    "  return text ? strtoull(text, 0, 0) : 0;\n"
    "}\n"
    "int nvmlInit_v2(void) { return (int)given(\"FAKE_INIT\"); }\n"
    "#ifndef NO_FIND\n"
    "int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **d) {\n"
    "  *d = (void *)1;\n"
    "  return strcmp(bus, \"0000:0a:00.0\") != 0;\n"
    "}\n"
    "#endif\n"
    "int nvmlDeviceGetUtilizationRates(void *d, unsigned *r) {\n"
    "  r[0] = (unsigned)given(\"FAKE_BUSY\"), r[1] = 41;\n"
    "  return d == 0;\n"
    "}\n"
    "#ifndef NO_POWER\n"
    "int nvmlDeviceGetPowerUsage(void *d, unsigned *w) {\n"
    "  *w = 612500;\n"
    "  return d == 0;\n"
    "}\n"
    "#endif\n"
    "int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *c) {\n"
    "  *c = 71;\n"
    "  return d == 0 || sensor != 0 || given(\"FAKE_COLD\");\n"
    "}\n"
    "#ifndef REASONS\n"
    "#define REASONS nvmlDeviceGetCurrentClocksThrottleReasons\n"
    "#endif\n"
    "int REASONS(void *d, u64 *bits) {\n"
    "  *bits = given(\"FAKE_REASONS\");\n"
    "  return d == 0;\n"
    "}\n"
    "#ifndef NO_MEMORY\n"
    "int nvmlDeviceGetMemoryInfo(void *d, u64 *m) {\n"
    "  m[0] = 150000000000, m[1] = 130000000000, m[2] = 20000000000;\n"
    "  return d == 0;\n"
    "}\n"
    "struct process { unsigned pid; u64 used; unsigned a, b; };\n"
    "int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *n,\n"
    "                                            struct process *p) {\n"
    "  p[0].pid = 1, p[0].used = 7;\n"
    "  p[1].pid = (unsigned)getpid(), p[1].used = given(\"FAKE_OWN\");\n"
    "  *n = 2;\n"
    "  return d == 0;\n"
    "}\n"
    "#endif\n";

static const char bus[] = "0000:0a:00.0";

static void test_readings(void) {
  lh_nvml_use use;
  char why[256] = "";
  setenv("FAKE_BUSY", "83", 1);
  setenv("FAKE_REASONS", "0x4", 1);
  setenv("FAKE_OWN", "18500000000", 1);
  CHECK(lh_nvml_read(bus, true, &use, why, sizeof why), "%s", why);
  CHECK(use.compute == 83 && use.memory == 41, "%g %g", use.compute,
        use.memory);
  CHECK(use.watts == 612.5 && use.celsius == 71, "%g W, %g C", use.watts,
        use.celsius);
  CHECK(use.total == 150e9 && use.used == 20e9, "%g of %g", use.used,
        use.total);
  CHECK(use.process == 18.5e9, "%g is ours", use.process);
  CHECK(use.power_capped && !use.throttled && use.reasons[0] == 0,
        "a power limit is no throttling: %s", use.reasons);
}

static void test_reasons(void) {
  lh_nvml_use use;
  char why[256] = "";
  setenv("FAKE_REASONS", "0xe8", 1);
  CHECK(lh_nvml_read(bus, true, &use, why, sizeof why), "%s", why);
  CHECK(use.throttled && !use.power_capped, "not throttled");
  CHECK(strcmp(use.reasons, "slowdown, heat, severe heat, power brake") == 0,
        "%s", use.reasons);
  setenv("FAKE_REASONS", "0x1", 1); /* idle */
  CHECK(lh_nvml_read(bus, true, &use, why, sizeof why), "%s", why);
  CHECK(!use.throttled && use.reasons[0] == 0, "%s", use.reasons);
}

/* Half a second old is new enough unless asked for fresh. */
static void test_age(void) {
  lh_nvml_use use;
  char why[256] = "";
  setenv("FAKE_BUSY", "10", 1);
  lh_nvml_read(bus, true, &use, why, sizeof why);
  setenv("FAKE_BUSY", "20", 1);
  lh_nvml_read(bus, false, &use, why, sizeof why);
  CHECK(use.compute == 10, "asked again: %g", use.compute);
  lh_nvml_read(bus, true, &use, why, sizeof why);
  CHECK(use.compute == 20, "old: %g", use.compute);
}

static void test_unknown(void) {
  lh_nvml_use use;
  char why[256] = "";
  setenv("FAKE_COLD", "1", 1);
  setenv("FAKE_OWN", "0xffffffffffffffff", 1); /* the driver cannot tell */
  CHECK(lh_nvml_read(bus, true, &use, why, sizeof why), "%s", why);
  CHECK(use.celsius < 0 && use.process < 0, "%g, %g", use.celsius,
        use.process);
  CHECK(!lh_nvml_read("0000:0b:00.0", true, &use, why, sizeof why), "known");
  CHECK(strcmp(why, "NVML knows no device at 0000:0b:00.0") == 0, "%s", why);
  CHECK(lh_nvml_read(bus, false, &use, why, sizeof why), "%s", why);
}

/* Each in a process of its own, with a library of its own. */

/* A missing function loses what it reads, and nothing else; reasons have an
 * older and a newer name. */
static void test_parts_missing(void) {
  lh_nvml_use use;
  char why[256] = "";
  setenv("FAKE_BUSY", "83", 1);
  setenv("FAKE_COLD", "0", 1);
  setenv("FAKE_REASONS", "0x20", 1);
  CHECK(lh_nvml_read(bus, true, &use, why, sizeof why), "%s", why);
  CHECK(use.compute == 83 && use.celsius == 71, "%g %%, %g C", use.compute,
        use.celsius);
  CHECK(use.throttled && strcmp(use.reasons, "heat") == 0, "%s", use.reasons);
  CHECK(use.watts < 0 && use.total < 0 && use.used < 0 && use.process < 0,
        "%g W, %g of %g, %g", use.watts, use.used, use.total, use.process);
}

static void test_reasons_unknown(void) {
  lh_nvml_use use;
  char why[256] = "";
  CHECK(lh_nvml_read(bus, true, &use, why, sizeof why), "%s", why);
  CHECK(!use.throttled && !use.power_capped && use.reasons[0] == 0, "%s",
        use.reasons);
  CHECK(use.watts == 612.5, "%g W", use.watts);
}

/* Without the function that finds a device there is nothing to ask. */
static void test_no_way_in(void) {
  lh_nvml_use use;
  char why[256] = "";
  CHECK(!lh_nvml_read(bus, true, &use, why, sizeof why), "it is there");
  CHECK(strcmp(why, "libnvidia-ml.so.1 has no "
                    "nvmlDeviceGetHandleByPciBusId_v2") == 0, "%s", why);
}

static void test_not_started(void) {
  lh_nvml_use use;
  char why[256] = "";
  setenv("FAKE_INIT", "9", 1);
  CHECK(!lh_nvml_read(bus, true, &use, why, sizeof why), "it started");
  CHECK(strcmp(why, "NVML does not start") == 0, "%s", why);
}

/* Compile the library into `folder` and start this program again with it. */
static void start_again(const char *folder, const char *options,
                        const char *mode) {
  char path[512], command[1400];
  snprintf(path, sizeof path, "%s/nvml.c", folder);
  FILE *f = fopen(path, "w");
  if (f == NULL || fputs(library, f) < 0 || fclose(f) != 0) abort();
  const char *cc = getenv("CC");
  snprintf(command, sizeof command, "%s %s -shared -fPIC -o "
           "%s/libnvidia-ml.so.1 %s/nvml.c", cc ? cc : "cc", options, folder,
           folder);
  if (system(command) != 0) abort();
  setenv("LD_LIBRARY_PATH", folder, 1);
  setenv("TEST_NVML", mode, 1);
  execl("/proc/self/exe", "test_nvml", (char *)NULL);
  abort();
}

static void run_whole(void) {
  RUN(test_readings);
  RUN(test_reasons);
  RUN(test_age);
  RUN(test_unknown);
}

static void run_parts(void) { RUN(test_parts_missing); }
static void run_unknown(void) { RUN(test_reasons_unknown); }
static void run_closed(void) { RUN(test_no_way_in); }
static void run_stopped(void) { RUN(test_not_started); }

/* A library, how it is compiled, and what is asked of it; in this order. */
static const struct { const char *mode, *options; void (*run)(void); }
    libraries[] = {
        {"whole", "", run_whole},
        {"parts", "-DNO_POWER -DNO_MEMORY "
                  "-DREASONS=nvmlDeviceGetCurrentClocksEventReasons",
         run_parts},
        {"unknown", "-DREASONS=other", run_unknown},
        {"closed", "-DNO_FIND", run_closed},
        {"stopped", "", run_stopped}};
enum { LIBRARIES = sizeof libraries / sizeof *libraries };

int main(void) {
  const char *mode = getenv("TEST_NVML"), *room = getenv("TMPDIR");
  char folder[256];
  int status = 0, next = 0;
  snprintf(folder, sizeof folder, "%s", room ? room : "/tmp");
  for (int i = 0; mode && i < LIBRARIES; i++) {
    if (strcmp(mode, libraries[i].mode) != 0) continue;
    libraries[i].run();
    status = check_done();
    next = i + 1;
  }
  if (status == 0 && next < LIBRARIES)
    start_again(folder, libraries[next].options, libraries[next].mode);
  return status;
}
