/* Sources of text: what a name stands for, and the files behind it. */
#include "source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../sys/folder.h"
#include "hash64.h"
#include "unpack.h"

enum { DEPTH_MOST = 32, SYSTEM_FILE_MOST = 512 << 10 };
static const int64_t stdin_most = INT64_C(2) << 30;

static const char alternatives[] =
    "give a file (text or JSONL, plain, .gz or .zst), a folder, a pattern such "
    "as 'texts/*.txt', '-' for standard input, or 'system' for the text this "
    "machine has";

/* Where `system` looks: a folder (or pattern of folders) and the endings it
 * takes, each between spaces; "." stands for names without a dot. */
static const struct {
  const char *folder, *endings;
} system_places[] = {
    {"/usr/include", " h hh hpp tcc . "},
    {"/usr/lib/gcc/*/*/include", " h "},
    {"/usr/share/perl", " pm pl pod ph t "},
    {"/usr/share/perl5", " pm pl pod ph t "},
    {"/usr/lib/*/perl", " pm pl pod ph t "},
    {"/usr/lib/*/perl-base", " pm pl pod ph t "},
    {"/usr/lib/*/perl5", " pm pl pod ph t "},
    {"/usr/lib/python3*", " py txt rst "},
    {"/usr/share/lua", " lua "},
    {"/usr/local/share/lua", " lua "},
    {"/usr/share/doc", " txt md rst . "},
    {"/usr/share/common-licenses", " . "},
};

/* --- lists of files ------------------------------------------------------ */
static lk_status add_file(lh_source *s, const char *path,
                          const struct stat *st, lk_error *e) {
  if (s->count == s->room) {
    int64_t room = s->room * 2 + 64;
    lh_source_file *files = realloc(s->files, (size_t)room * sizeof *files);
    if (files == NULL) return lk_fail(e, LK_OOM, "no memory for file names");
    s->files = files;
    s->room = room;
  }
  char *copy = strdup(path);
  if (copy == NULL) return lk_fail(e, LK_OOM, "no memory for file names");
  s->files[s->count++] = (lh_source_file){
      copy, st->st_size,
      (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec};
  s->bytes += st->st_size;
  return LK_OK;
}

/* Whether the name's ending is in the list; NULL takes every name. */
static bool takes(const char *endings, const char *name) {
  const char *dot = strrchr(name, '.');
  char word[16];
  if (endings == NULL) return true;
  size_t length = dot ? strlen(dot + 1) : 1;
  if (length > sizeof word - 3) return false;
  word[0] = ' ';
  memcpy(word + 1, dot ? dot + 1 : ".", length);
  memcpy(word + 1 + length, " ", 2);
  return strstr(endings, word) != NULL;
}

static lk_status walk(lh_source *s, const char *folder, const char *endings,
                      int64_t size_most, int depth, lk_error *e);

/* One entry of a folder. Links are not followed: what they lead to is found
 * where it is, or lies outside. Hidden names are passed over. */
static lk_status walk_entry(lh_source *s, const char *path, const char *name,
                            const char *endings, int64_t size_most, int depth,
                            lk_error *e) {
  struct stat st;
  if (name[0] == '.' || lstat(path, &st) != 0) return LK_OK;
  if (S_ISDIR(st.st_mode))
    return walk(s, path, endings, size_most, depth + 1, e);
  bool taken = S_ISREG(st.st_mode) && st.st_size > 0 &&
               (size_most == 0 || st.st_size <= size_most) &&
               takes(endings, name);
  return taken ? add_file(s, path, &st, e) : LK_OK;
}

static char *join(const char *folder, const char *name) {
  size_t a = strlen(folder), b = strlen(name);
  char *path = malloc(a + b + 2);
  if (path == NULL) return NULL;
  memcpy(path, folder, a);
  path[a] = '/';
  memcpy(path + a + (a == 0 || folder[a - 1] != '/'), name, b + 1);
  return path;
}

/* Every file below a folder; one that cannot be read is passed over, except
 * at the top. */
static lk_status walk(lh_source *s, const char *folder, const char *endings,
                      int64_t size_most, int depth, lk_error *e) {
  lh_names names = {0};
  if (depth > DEPTH_MOST) return LK_OK;
  lk_status status = lh_folder_list(folder, &names, e);
  if (status != LK_OK && status != LK_OOM && depth > 0) status = LK_OK;
  for (int64_t i = 0; status == LK_OK && i < names.count; i++) {
    char *path = join(folder, names.names[i]);
    status = path ? walk_entry(s, path, names.names[i], endings, size_most,
                               depth, e)
                  : lk_fail(e, LK_OOM, "no memory for file names");
    free(path);
  }
  lh_names_free(&names);
  return status;
}

/* --- the kinds ----------------------------------------------------------- */
static lk_status list_system(lh_source *s, lk_error *e) {
  int count = (int)(sizeof system_places / sizeof *system_places);
  s->mixed = s->sampled = true;
  for (int i = 0; i < count; i++) {
    lh_names roots = {0};
    lk_status status = lh_folder_glob(system_places[i].folder, &roots, e);
    for (int64_t k = 0; status == LK_OK && k < roots.count; k++)
      status = walk_entry(s, roots.names[k], "root", system_places[i].endings,
                          SYSTEM_FILE_MOST, 0, e);
    lh_names_free(&roots);
    LK_TRY(status);
  }
  return LK_OK;
}

static lk_status list_pattern(lh_source *s, lk_error *e) {
  lh_names names = {0};
  s->mixed = true;
  lk_status status = lh_folder_glob(s->name, &names, e);
  for (int64_t i = 0; status == LK_OK && i < names.count; i++) {
    struct stat st;
    if (stat(names.names[i], &st) == 0 && S_ISREG(st.st_mode))
      status = add_file(s, names.names[i], &st, e);
  }
  lh_names_free(&names);
  return status;
}

static lk_status read_stdin(lh_source *s, int64_t max_bytes, lk_error *e) {
  int64_t room = 0, most = max_bytes > 0 ? max_bytes : stdin_most;
  for (;;) {
    if (s->bytes == room) {
      room = room * 2 + (1 << 16);
      char *text = realloc(s->text, (size_t)room + 1);
      if (text == NULL)
        return lk_fail(e, LK_OOM, "no memory for standard input");
      s->text = text;
    }
    int64_t left = (room < most ? room : most) - s->bytes;
    ssize_t got = left > 0 ? read(0, s->text + s->bytes, (size_t)left) : 0;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return lk_fail_errno(e, errno, "cannot read standard input");
    if (got == 0) break;
    s->bytes += got;
  }
  if (max_bytes == 0 && s->bytes == most)
    return lk_fail(e, LK_ARGUMENT, "standard input holds more than %lld bytes; "
                   "give a limit (max_bytes)", (long long)most);
  s->text[s->bytes] = 0;
  return LK_OK;
}

/* Files that are certainly not text. */
static lk_status refuse(const char *name, lk_error *e) {
  static const struct {
    const char *ending, *advice;
  } refused[] = {{".parquet", "turn it into JSONL (README.md, Data, has the "
                              "command)"},
                 {".bz2", "unpack it"}, {".xz", "unpack it"},
                 {".zip", "unpack it"}, {".tar", "unpack it"}};
  size_t size = strlen(name);
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    size_t length = strlen(refused[i].ending);
    if (size > length && !strcmp(name + size - length, refused[i].ending))
      return lk_fail(e, LK_ARGUMENT, "data source '%s': '%s' files are not "
                     "read; %s", name, refused[i].ending, refused[i].advice);
  }
  return lh_packing_check(name, e);
}

static bool is_hub(const char *name) { return strncmp(name, "hf:", 3) == 0; }

static lk_status list_path(lh_source *s, lk_error *e) {
  struct stat st;
  if (stat(s->name, &st) != 0) {
    if (errno != ENOENT && errno != ENOTDIR)
      return lk_fail_errno(e, errno, "data source '%s'", s->name);
    if (is_hub(s->name))
      return lk_fail(e, LK_ARGUMENT, "data source '%s' lies on the hub; "
                     "require(\"llm.hub\").source fetches it and gives the "
                     "files", s->name);
    return lk_fail(e, LK_ARGUMENT, "data source '%s' does not exist; %s",
                   s->name, alternatives);
  }
  if (S_ISDIR(st.st_mode)) {
    s->mixed = true;
    return walk(s, s->name, NULL, 0, 0, e);
  }
  if (!S_ISREG(st.st_mode))
    return lk_fail(e, LK_ARGUMENT, "data source '%s' is not a regular file; %s",
                   s->name, alternatives);
  LK_TRY(refuse(s->name, e));
  return add_file(s, s->name, &st, e);
}

static int by_path(const void *a, const void *b) {
  return strcmp(((const lh_source_file *)a)->path,
                ((const lh_source_file *)b)->path);
}

static void sort_and_key(lh_source *s) {
  if (s->count > 0)
    qsort(s->files, (size_t)s->count, sizeof *s->files, by_path);
  uint64_t h = lh_hash_string(s->text ? "text" : s->name, 2);
  if (s->text) h = lh_hash64(s->text, (size_t)s->bytes, h);
  for (int64_t i = 0; i < s->count; i++) {
    h = lh_hash_string(s->files[i].path, h);
    h = lh_hash_number(s->files[i].size, h);
    h = lh_hash_number(s->files[i].changed, h);
  }
  s->key = h;
}

void lh_source_limit(lh_source *s, int64_t files) {
  while (s->count > files) {
    s->bytes -= s->files[--s->count].size;
    free(s->files[s->count].path);
  }
  sort_and_key(s);
}

lk_status lh_source_open(const char *name, int64_t max_bytes,
                         lh_source *source, lk_error *e) {
  *source = (lh_source){.name = strdup(name)};
  if (source->name == NULL) return lk_fail(e, LK_OOM, "no memory for a name");
  if (*name == 0)
    return lk_fail(e, LK_ARGUMENT, "a data source without a name; %s",
                   alternatives);
  if (strcmp(name, "-") == 0) LK_TRY(read_stdin(source, max_bytes, e));
  else if (strcmp(name, "system") == 0) LK_TRY(list_system(source, e));
  else if (strpbrk(name, "*?[") && access(name, F_OK) != 0)
    LK_TRY(list_pattern(source, e));
  else LK_TRY(list_path(source, e));
  if (source->bytes == 0)
    return lk_fail(e, LK_ARGUMENT, "data source '%s' holds no text; %s", name,
                   alternatives);
  if (source->count > 0 || source->text) sort_and_key(source);
  return LK_OK;
}

void lh_source_free(lh_source *source) {
  for (int64_t i = 0; i < source->count; i++) free(source->files[i].path);
  free(source->files);
  free(source->name);
  free(source->text);
  *source = (lh_source){0};
}
