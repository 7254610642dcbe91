/* Bytes as a file, for parsers that open what they read. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

/* One folder a process, in memory where the system has such a place. */
static const char *folder(void) {
  static char path[64];
  if (*path) return path;
  const char *root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
  snprintf(path, sizeof path, "%s/llmhost-fuzz-%ld", root, (long)getpid());
  mkdir(path, 0700);
  return path;
}

static void clean(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", folder());
  if (system(command) != 0) fprintf(stderr, "%s stays\n", folder());
}

const char *fuzz_file(const char *name, const uint8_t *data, size_t size) {
  static char path[160];
  static int registered;
  if (!registered++) atexit(clean);
  snprintf(path, sizeof path, "%s/%s", folder(), name);
  FILE *f = fopen(path, "wb");
  if (f == NULL || (size && fwrite(data, 1, size, f) != size) || fclose(f))
    fuzz_broken("the harness can write its file");
  return path;
}

void fuzz_broken(const char *promise) {
  fprintf(stderr, "broken promise: %s\n", promise);
  abort();
}
