/* A folder for the tests of text files, and files in it. */
#ifndef LK_TESTS_TEXT_FOLDER_H
#define LK_TESTS_TEXT_FOLDER_H

#include <stdlib.h>

#include "../../host/sys/file.h"
#include "../../host/sys/folder.h"
#include "check.h"

static lk_error e;

/* A path in the test's folder; four of them are valid at a time. */
static inline const char *in_folder(const char *name) {
  static char paths[4][400];
  static int next;
  const char *folder = getenv("TMPDIR");
  char *path = paths[next++ % 4];
  snprintf(path, sizeof paths[0], "%s/llmhost-test-text/%s",
           folder ? folder : "/tmp", name);
  return path;
}

static inline void put_file(const char *name, const char *text, int64_t size) {
  CHECK(lh_file_write(in_folder(name), text, size, &e) == LK_OK, "%s",
        e.message);
}

/* Empty the folder. */
static inline void start(void) {
  lh_folder_remove_tree(in_folder(""), &e);
  CHECK(lh_folder_make(in_folder("texts/sub"), &e) == LK_OK, "%s", e.message);
}

#endif
