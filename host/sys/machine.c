/* Processor, memory and system, from /proc, /sys and the compiler's own
 * processor tests; the clocks. */
#define _GNU_SOURCE
#include "machine.h"

#include <ctype.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "file.h"

/* The text after `key` in a file of "key…: value" lines, or false. */
static bool find_line(const char *text, const char *key, char *value,
                      size_t room) {
  size_t length = strlen(key);
  for (const char *p = text; p && *p; p = strchr(p, '\n')) {
    p += *p == '\n';
    if (strncmp(p, key, length) != 0) continue;
    p += length;
    p += strspn(p, " \t:=\"");
    size_t n = strcspn(p, "\"\n");
    snprintf(value, room, "%.*s", (int)n, p);
    return true;
  }
  return false;
}

static bool read_field(const char *path, const char *key, char *value,
                       size_t room) {
  void *text;
  int64_t size;
  if (lh_file_read(path, 0, &text, &size, NULL) != LK_OK) return false;
  bool found = find_line(text, key, value, room);
  free(text);
  return found;
}

/* Bytes of a "VmRSS:  123 kB" line; 0 if absent. */
static int64_t read_kb(const char *path, const char *key) {
  char value[64];
  if (!read_field(path, key, value, sizeof value)) return 0;
  return strtoll(value, NULL, 10) * 1024;
}

/* The number a one-line file holds, or -1 ("max" and absence too). */
static int64_t read_number(const char *path) {
  char value[64];
  if (!read_field(path, "", value, sizeof value)) return -1;
  return isdigit((unsigned char)value[0]) ? strtoll(value, NULL, 10) : -1;
}

/* The container's limit and use, cgroup v2 or v1; false where none is set. */
static bool container_memory(int64_t *limit, int64_t *used) {
  *limit = read_number("/sys/fs/cgroup/memory.max");
  *used = read_number("/sys/fs/cgroup/memory.current");
  if (*limit < 0) {
    *limit = read_number("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    *used = read_number("/sys/fs/cgroup/memory/memory.usage_in_bytes");
  }
  return *limit > 0 && *used >= 0;
}

int64_t lh_machine_memory(void) {
  int64_t limit, used, total = read_kb("/proc/meminfo", "MemTotal");
  if (container_memory(&limit, &used) && limit < total) return limit;
  return total;
}

static int64_t available_memory(void) {
  int64_t limit, used, free_now = read_kb("/proc/meminfo", "MemAvailable");
  if (container_memory(&limit, &used) && limit - used < free_now) {
    return limit > used ? limit - used : 0;
  }
  return free_now;
}

static int usable_threads(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? (int)n : 1;
}

/* Count one hardware thread per core: the first of each sibling list. */
static int usable_cores(int threads) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return threads;
  int cores = 0;
  for (int i = 0; i < CPU_SETSIZE; i++) {
    char path[96];
    if (!CPU_ISSET(i, &set)) continue;
    snprintf(path, sizeof path,
             "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", i);
    int64_t first = read_number(path);
    cores += first < 0 || first == i ||
             (first < CPU_SETSIZE && !CPU_ISSET((int)first, &set));
  }
  return cores ? cores : threads;
}

static const char *instruction_set(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    return "avx512";
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return "avx2";
  }
  return "sse2";
#elif defined(__aarch64__)
  return "neon";
#else
  return "generic";
#endif
}

static void set_cpu_name(char *name, size_t room) {
  snprintf(name, room, "unknown");
  if (read_field("/proc/cpuinfo", "model name", name, room)) return;
  read_field("/proc/cpuinfo", "Model", name, room);
}

void lh_machine_get(lh_machine *m) {
  struct utsname u;
  memset(m, 0, sizeof *m);
  set_cpu_name(m->cpu, sizeof m->cpu);
  snprintf(m->os, sizeof m->os, "unknown");
  read_field("/etc/os-release", "PRETTY_NAME", m->os, sizeof m->os);
  snprintf(m->kernel, sizeof m->kernel, "%s",
           uname(&u) == 0 ? u.release : "unknown");
  m->isa = instruction_set();
  m->threads = usable_threads();
  m->cores = usable_cores(m->threads);
  m->memory = lh_machine_memory();
  m->available = available_memory();
  m->wsl = strcasestr(m->kernel, "microsoft") != NULL;
}

void lh_process_memory(int64_t *resident, int64_t *peak) {
  *resident = read_kb("/proc/self/status", "VmRSS");
  *peak = read_kb("/proc/self/status", "VmHWM");
}

bool lh_process_reset_peak(void) {
  int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  bool done = write(fd, "5", 1) == 1; /* 5: reset VmHWM to VmRSS (proc(5)) */
  close(fd);
  return done;
}

static double seconds_of(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double lh_clock(void) { return seconds_of(CLOCK_MONOTONIC); }
double lh_time(void) { return seconds_of(CLOCK_REALTIME); }

void lh_sleep(double seconds) {
  if (!(seconds > 0)) return;
  if (seconds > 1e9) seconds = 1e9;
  struct timespec t;
  t.tv_sec = (time_t)seconds;
  t.tv_nsec = (long)((seconds - (double)t.tv_sec) * 1e9);
  nanosleep(&t, NULL);
}
