/* Every kept seed of the fuzzers (tests/fuzz/seeds) once through its parser,
 * and each of them cut short and with bytes turned, by a fixed generator. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "../fuzz/fuzz.h"
#include "check.h"

typedef int target(const uint8_t *data, size_t size);

enum { MOST = 1 << 20, CHANGES = 12 };

static uint32_t next(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return *state >> 8;
}

/* The seed itself, parts of it, and copies with a few bytes changed. Each is
 * handed over in a block of its own size: the sanitizer sees its end. */
static void try_one(target *f, const uint8_t *data, size_t size,
                    uint32_t state) {
  for (int i = 0; i <= CHANGES; i++) {
    size_t n = i % 4 == 3 && size ? next(&state) % size : size;
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, data, n);
    for (int k = 0; k < i % 4 && n; k++)
      copy[next(&state) % n] = (uint8_t)next(&state);
    f(copy, n);
    free(copy);
  }
}

static int try_file(target *f, const char *folder, const char *name) {
  static uint8_t data[MOST];
  char path[512];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "rb");
  if (file == NULL) return 0;
  size_t size = fread(data, 1, MOST, file);
  fclose(file);
  try_one(f, data, size, (uint32_t)size * 2654435761u + 1);
  return 1;
}

static void try_seeds(target *f, const char *name) {
  char folder[256];
  int count = 0;
  snprintf(folder, sizeof folder, "tests/fuzz/seeds/%s", name);
  DIR *d = opendir(folder);
  CHECK(d != NULL, "%s", folder);
  if (d == NULL) return;
  for (struct dirent *entry; (entry = readdir(d));)
    if (entry->d_name[0] != '.') count += try_file(f, folder, entry->d_name);
  closedir(d);
  CHECK(count >= 3, "%d seeds in %s", count, folder);
}

#define FUZZ(name) \
  static void seeds_##name(void) { try_seeds(fuzz_##name, #name); }
FUZZ_TARGETS(FUZZ)
#undef FUZZ

int main(void) {
#define FUZZ(name) RUN(seeds_##name);
  FUZZ_TARGETS(FUZZ)
#undef FUZZ
  return check_done();
}
