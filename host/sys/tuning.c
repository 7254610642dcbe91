/* Choices that were made by measuring, in a file of text. */
#include "tuning.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "folder.h"
#include "hash.h"
#include "lock.h"

static const char HEAD[] = "llmhost tuning 1";
enum { LARGEST_FILE = 1 << 22, LOCK_SECONDS = 5 };

typedef struct choice {
  char *key, *value;
} choice;

struct lh_tuning {
  char *path, *identity;
  choice *list; /* sorted by key */
  int count, room, noted;
  lk_error error; /* of the last write */
};

/* --- the list ------------------------------------------------------------ */

/* Where `key` is or belongs. */
static int place_of(const lh_tuning *t, const char *key, bool *found) {
  int low = 0, high = t->count;
  while (low < high) {
    int middle = (low + high) / 2;
    int order = strcmp(t->list[middle].key, key);
    if (order == 0) {
      *found = true;
      return middle;
    }
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  *found = false;
  return low;
}

static bool grow(lh_tuning *t) {
  if (t->count < t->room) return true;
  int room = t->room ? 2 * t->room : 64;
  choice *list = realloc(t->list, (size_t)room * sizeof *list);
  if (list == NULL) return false;
  t->list = list;
  t->room = room;
  return true;
}

/* Add a choice, or give a known key this value. False without memory. */
static bool put(lh_tuning *t, const char *key, const char *value) {
  bool found;
  int at = place_of(t, key, &found);
  char *copy = strdup(value), *name = found ? NULL : strdup(key);
  if (copy == NULL || (!found && (name == NULL || !grow(t)))) {
    free(copy);
    free(name);
    return false;
  }
  if (found) {
    free(t->list[at].value);
    t->list[at].value = copy;
    return true;
  }
  memmove(t->list + at + 1, t->list + at,
          (size_t)(t->count - at) * sizeof *t->list);
  t->list[at] = (choice){name, copy};
  t->count++;
  return true;
}

/* --- the file ------------------------------------------------------------ */

/* Every line of `text`, cut apart, into the list; false without memory. Lines
 * that are none are passed over. */
static bool take_lines(lh_tuning *t, char *text) {
  char *rest = NULL;
  for (char *line = strtok_r(text, "\n", &rest); line;
       line = strtok_r(NULL, "\n", &rest)) {
    char *equal = strstr(line, " = ");
    if (equal == NULL || equal == line || equal[3] == 0) continue;
    *equal = 0;
    if (!put(t, line, equal + 3)) return false;
  }
  return true;
}

/* What the file holds, where it is for this identity, over what is known. */
static bool take_file(lh_tuning *t) {
  void *data = NULL;
  int64_t size = 0;
  lk_error error = {0};
  if (lh_file_read(t->path, LARGEST_FILE, &data, &size, &error) != LK_OK)
    return error.code != LK_OOM;
  char *text = data, *own = NULL;
  size_t head = strlen(HEAD), name = strlen(t->identity);
  bool mine = (size_t)size > head + name + 1 && text[head] == '\n' &&
              strncmp(text, HEAD, head) == 0 &&
              strncmp(text + head + 1, t->identity, name) == 0 &&
              text[head + 1 + name] == '\n';
  if (mine) own = text + head + 1 + name + 1;
  bool ok = own == NULL || take_lines(t, own);
  free(data);
  return ok;
}

/* The whole file as text, malloc'ed; NULL without memory. */
static char *file_text(const lh_tuning *t, size_t *size) {
  char *text = NULL;
  FILE *f = open_memstream(&text, size);
  if (f == NULL) return NULL;
  fprintf(f, "%s\n%s\n", HEAD, t->identity);
  for (int i = 0; i < t->count; i++)
    fprintf(f, "%s = %s\n", t->list[i].key, t->list[i].value);
  if (fclose(f) == 0) return text;
  free(text);
  return NULL;
}

static lk_status write_file(lh_tuning *t) {
  size_t size = 0;
  char *text = file_text(t, &size);
  if (text == NULL) return lk_fail(&t->error, LK_OOM, "out of host memory");
  lk_status status = lh_file_write(t->path, text, (int64_t)size, &t->error);
  free(text);
  return status;
}

/* The folder of the file made, and the lock beside it taken. */
static lk_status lock_file(lh_tuning *t, lh_lock *lock) {
  char path[4200];
  bool busy = false;
  lh_holder holder;
  snprintf(path, sizeof path, "%s", t->path);
  char *slash = strrchr(path, '/');
  if (slash && slash != path) {
    *slash = 0;
    LK_TRY(lh_folder_make(path, &t->error));
  }
  snprintf(path, sizeof path, "%s.lock", t->path);
  return lh_lock_take(lock, path, LOCK_SECONDS, &busy, &holder, &t->error);
}

/* --- use ----------------------------------------------------------------- */

lk_status lh_tuning_open(lh_tuning **tuning, const char *path,
                         const char *identity, lk_error *error) {
  lh_tuning *t = calloc(1, sizeof *t);
  bool ok = t != NULL;
  if (ok) {
    t->path = strdup(path);
    t->identity = strdup(identity);
    ok = t->path && t->identity && take_file(t);
  }
  *tuning = t;
  if (ok) return LK_OK;
  lh_tuning_close(t);
  *tuning = NULL;
  return lk_fail(error, LK_OOM, "out of host memory");
}

void lh_tuning_close(lh_tuning *t) {
  if (t == NULL) return;
  for (int i = 0; i < t->count; i++) {
    free(t->list[i].key);
    free(t->list[i].value);
  }
  free(t->list);
  free(t->path);
  free(t->identity);
  free(t);
}

bool lh_tuning_find(void *state, const char *key, char *text, size_t size) {
  const lh_tuning *t = state;
  bool found;
  int at = place_of(t, key, &found);
  if (!found || strlen(t->list[at].value) >= size) return false;
  strcpy(text, t->list[at].value);
  return true;
}

void lh_tuning_note(void *state, const char *key, const char *value) {
  lh_tuning *t = state;
  bool found;
  lh_lock lock = {-1};
  t->error = (lk_error){0};
  lk_status status = lock_file(t, &lock);
  if (status == LK_OK) take_file(t);
  place_of(t, key, &found);
  if (!found) {
    t->noted += put(t, key, value);
    if (status == LK_OK) write_file(t);
  }
  if (status == LK_OK) lh_lock_release(&lock);
}

const char *lh_tuning_path(const lh_tuning *t) { return t->path; }

const char *lh_tuning_error(const lh_tuning *t) {
  return t->error.code == LK_OK ? NULL : t->error.message;
}

int lh_tuning_count(const lh_tuning *t) { return t->count; }
int lh_tuning_noted(const lh_tuning *t) { return t->noted; }

uint64_t lh_tuning_hash(const lh_tuning *t) {
  uint64_t hash = lh_fnv1a64(LH_FNV1A64, t->identity, strlen(t->identity) + 1);
  for (int i = 0; i < t->count; i++) {
    hash = lh_fnv1a64(hash, t->list[i].key, strlen(t->list[i].key) + 1);
    hash = lh_fnv1a64(hash, t->list[i].value, strlen(t->list[i].value) + 1);
  }
  return hash;
}

bool lh_tuning_place(const char *identity, char *path, size_t size) {
  const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  uint64_t hash = lh_fnv1a64(LH_FNV1A64, identity, strlen(identity));
  int length;
  if (cache && cache[0] == '/')
    length = snprintf(path, size, "%s/llmhost/tuning-%016" PRIx64 ".txt",
                      cache, hash);
  else if (home && home[0] == '/')
    length = snprintf(path, size,
                      "%s/.cache/llmhost/tuning-%016" PRIx64 ".txt", home,
                      hash);
  else
    return false;
  return length > 0 && (size_t)length < size;
}
