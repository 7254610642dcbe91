/* The history file of the prompt: found, read, cut back, appended to. */
#define _GNU_SOURCE
#include "history.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sys/file.h"
#include "sys/folder.h"

enum {
  LONGEST_LINE = 4096,
  MOST_BYTES = 16 << 20 /* a larger file is not ours */
};

static char *path; /* NULL: nothing is kept */
static char last[LONGEST_LINE + 1];

/* The mode of what is created meanwhile: the user's alone. */
static mode_t private_mode(void) { return umask(077); }

/* Set `path` and make its folder; false when there is nowhere to keep it. */
static bool find_file(void) {
  lk_error error;
  char *folder = NULL;
  const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
  free(path);
  path = NULL;
  int n = -1;
  if (state && state[0] == '/') {
    n = asprintf(&folder, "%s/llmhost", state);
  } else if (home && home[0] == '/') {
    n = asprintf(&folder, "%s/.local/state/llmhost", home);
  }
  if (n < 0) return false;
  mode_t before = private_mode();
  bool made = lh_folder_make(folder, &error) == LK_OK;
  umask(before);
  if (made && asprintf(&path, "%s/history", folder) < 0) path = NULL;
  free(folder);
  return path != NULL;
}

/* The start of the newest LH_HISTORY_LINES lines of `text`. */
static char *newest(char *text, int64_t size, int *lines) {
  *lines = 0;
  for (char *p = text + size; p > text; p--) {
    if (p[-1] != '\n' || p == text + size) continue;
    if (++*lines == LH_HISTORY_LINES) return p;
  }
  return text;
}

/* Hand out the lines of `text`, which is cut up. */
static void give_lines(char *text, void (*use)(const char *line)) {
  char *rest = text;
  for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
    if (*line == '\0' || strlen(line) > LONGEST_LINE) continue;
    use(line);
    snprintf(last, sizeof last, "%s", line);
  }
}

void lh_history_open(void (*use)(const char *line)) {
  void *data;
  int64_t size;
  int lines;
  lk_error error;
  last[0] = '\0';
  if (!find_file()) return;
  if (lh_file_read(path, MOST_BYTES, &data, &size, &error) != LK_OK) return;
  char *text = data, *first = newest(text, size, &lines);
  if (first - text > (text + size) - first) {
    mode_t before = private_mode();
    lh_file_write(path, first, text + size - first, &error);
    umask(before);
  }
  give_lines(first, use);
  free(data);
}

void lh_history_add(const char *line) {
  lk_error error;
  char *text;
  if (path == NULL || strlen(line) > LONGEST_LINE) return;
  if (strcmp(line, last) == 0 || strchr(line, '\n')) return;
  int n = asprintf(&text, "%s\n", line);
  if (n < 0) return;
  mode_t before = private_mode();
  lh_file_append(path, text, n, false, &error);
  umask(before);
  snprintf(last, sizeof last, "%s", line);
  free(text);
}
