/* Writing safetensors files: a header from entries, then values as they
 * come. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "safetensors.h"
#include "utf8.h"

struct lh_safetensors_writer {
  lh_file_writer *file;
  char *path;
  int64_t left;           /* bytes of values that are still to come */
};

/* --- text that grows ------------------------------------------------------ */

typedef struct text {
  char *data;
  size_t used, room;
  bool failed;            /* no memory: all further puts do nothing */
} text;

static void put(text *t, const char *bytes, size_t size) {
  if (!t->failed && t->room - t->used < size) {
    size_t room = 2 * (t->used + size) + 1024;
    char *data = realloc(t->data, room);
    t->failed = data == NULL;
    if (data) t->data = data, t->room = room;
  }
  if (t->failed) return;
  memcpy(t->data + t->used, bytes, size);
  t->used += size;
}

__attribute__((format(printf, 2, 3)))
static void put_format(text *t, const char *format, ...) {
  char piece[64];
  va_list args;
  va_start(args, format);
  int size = vsnprintf(piece, sizeof piece, format, args);
  va_end(args);
  put(t, piece, (size_t)size);
}

static void put_string(text *t, const char *s) {
  put(t, "\"", 1);
  for (; *s; s++) {
    if (*s == '"' || *s == '\\') put_format(t, "\\%c", *s);
    else if ((unsigned char)*s < 0x20) put_format(t, "\\u%04x", *s);
    else put(t, s, 1);
  }
  put(t, "\"", 1);
}

/* --- checks --------------------------------------------------------------- */

static bool is_utf8(const char *s) {
  const uint8_t *p = (const uint8_t *)s, *end = p + strlen(s);
  uint32_t code;
  while (p < end) {
    int length = lh_utf8_decode(p, end, &code);
    if (length == 0) return false;
    p += length;
  }
  return true;
}

static lk_status check_entry(const char *path,
                             const lh_safetensors_entry *entry, lk_error *e) {
  if (!is_utf8(entry->name))
    return lk_fail(e, LK_ARGUMENT, "'%s': a tensor's name is not UTF-8", path);
  if (strcmp(entry->name, "__metadata__") == 0)
    return lk_fail(e, LK_ARGUMENT, "'%s': no tensor can be called "
                   "__metadata__", path);
  if (lk_dtype_bits(entry->dtype) >= 8) return LK_OK;
  return lk_fail(e, LK_DTYPE, "'%s': tensor '%.100s' is %s, safetensors has "
                 "whole bytes", path, entry->name,
                 lk_dtype_word(entry->dtype));
}

static int compare_words(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static lk_status check_different(const char *path, const char **names,
                                 int64_t count, lk_error *e) {
  qsort(names, (size_t)count, sizeof *names, compare_words);
  for (int64_t i = 1; i < count; i++)
    if (strcmp(names[i - 1], names[i]) == 0)
      return lk_fail(e, LK_ARGUMENT, "'%s': the name '%.100s' comes twice",
                     path, names[i]);
  return LK_OK;
}

static lk_status check_entries(const char *path,
                               const lh_safetensors_entry *entries,
                               int64_t count, lk_error *e) {
  for (int64_t i = 0; i < count; i++)
    LK_TRY(check_entry(path, &entries[i], e));
  const char **names = calloc((size_t)count + 1, sizeof *names);
  if (names == NULL) return lk_fail(e, LK_OOM, "out of memory");
  for (int64_t i = 0; i < count; i++) names[i] = entries[i].name;
  lk_status status = check_different(path, names, count, e);
  free(names);
  return status;
}

static lk_status check_pairs(const char *path,
                             const lh_safetensors_pair *pairs, int64_t count,
                             lk_error *e) {
  for (int64_t i = 0; i < count; i++) {
    if (!is_utf8(pairs[i].key) || !is_utf8(pairs[i].value))
      return lk_fail(e, LK_ARGUMENT, "'%s': metadata is not UTF-8", path);
    for (int64_t j = 0; j < i; j++)
      if (strcmp(pairs[i].key, pairs[j].key) == 0)
        return lk_fail(e, LK_ARGUMENT, "'%s': metadata '%.100s' comes twice",
                       path, pairs[i].key);
  }
  return LK_OK;
}

/* --- the header ----------------------------------------------------------- */

static void put_metadata(text *t, const lh_safetensors_pair *pairs,
                         int64_t count) {
  put_string(t, "__metadata__");
  put(t, ":{", 2);
  for (int64_t i = 0; i < count; i++) {
    if (i) put(t, ",", 1);
    put_string(t, pairs[i].key);
    put(t, ":", 1);
    put_string(t, pairs[i].value);
  }
  put(t, "}", 1);
}

static void put_entry(text *t, const lh_safetensors_entry *entry,
                      int64_t begin, int64_t end) {
  put_string(t, entry->name);
  put_format(t, ":{\"dtype\":\"%s\",\"shape\":[",
             lk_dtype_safetensors(entry->dtype));
  for (int i = 0; i < entry->shape.rank; i++)
    put_format(t, i ? ",%" PRId64 : "%" PRId64, entry->shape.dim[i]);
  put_format(t, "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}", begin, end);
}

/* The header with its size before it; returns the bytes of all values. */
static int64_t put_header(text *t, const lh_safetensors_entry *entries,
                          int64_t count, const lh_safetensors_pair *metadata,
                          int64_t pairs) {
  int64_t end = 0;
  put(t, "\0\0\0\0\0\0\0\0{", 9);
  if (pairs > 0) put_metadata(t, metadata, pairs);
  for (int64_t i = 0; i < count; i++) {
    int64_t begin = end;
    end += lk_dtype_bytes(entries[i].dtype, lk_shape_count(entries[i].shape));
    if (i > 0 || pairs > 0) put(t, ",", 1);
    put_entry(t, &entries[i], begin, end);
  }
  put(t, "}", 1);
  while (t->used % 8 != 0 && !t->failed) put(t, " ", 1);
  for (int i = 0; i < 8 && !t->failed; i++)
    t->data[i] = (char)((uint64_t)(t->used - 8) >> 8 * i);
  return end;
}

static lk_status write_header(lh_safetensors_writer *w,
                              const lh_safetensors_entry *entries,
                              int64_t count,
                              const lh_safetensors_pair *metadata,
                              int64_t pairs, lk_error *e) {
  text t = {0};
  w->left = put_header(&t, entries, count, metadata, pairs);
  lk_status status = LK_OK;
  if (t.failed)
    status = lk_fail(e, LK_OOM, "out of memory");
  else if (t.used - 8 > LH_SAFETENSORS_HEADER_MOST)
    status = lk_fail(e, LK_ARGUMENT, "'%s': a header of %zu bytes, at most %d",
                     w->path, t.used - 8, LH_SAFETENSORS_HEADER_MOST);
  else
    status = lh_file_writer_append(w->file, t.data, (int64_t)t.used, e);
  free(t.data);
  return status;
}

/* --- the writer ----------------------------------------------------------- */

static int compare_entries(const void *a, const void *b) {
  const lh_safetensors_entry *x = a, *y = b;
  int bits = lk_dtype_bits(y->dtype) - lk_dtype_bits(x->dtype);
  return bits ? bits : strcmp(x->name, y->name);
}

void lh_safetensors_sort(lh_safetensors_entry *entries, int64_t count) {
  if (count > 0)
    qsort(entries, (size_t)count, sizeof *entries, compare_entries);
}

static void free_writer(lh_safetensors_writer *w) {
  free(w->path);
  free(w);
}

lk_status lh_safetensors_writer_open(lh_safetensors_writer **writer,
                                     const char *path,
                                     const lh_safetensors_entry *entries,
                                     int64_t count,
                                     const lh_safetensors_pair *metadata,
                                     int64_t pairs, lk_error *e) {
  *writer = NULL;
  LK_TRY(check_entries(path, entries, count, e));
  LK_TRY(check_pairs(path, metadata, pairs, e));
  lh_safetensors_writer *w = calloc(1, sizeof *w);
  if (w) w->path = strdup(path);
  if (w == NULL || w->path == NULL) {
    free(w);
    return lk_fail(e, LK_OOM, "out of memory");
  }
  lk_status status = lh_file_writer_open(&w->file, path, e);
  if (status == LK_OK)
    status = write_header(w, entries, count, metadata, pairs, e);
  if (status == LK_OK)
    *writer = w;
  else
    lh_safetensors_writer_abort(w);
  return status;
}

lk_status lh_safetensors_writer_append(lh_safetensors_writer *w,
                                       const void *data, int64_t bytes,
                                       lk_error *e) {
  if (bytes > w->left)
    return lk_fail(e, LK_INTERNAL, "'%s': more values than its header says",
                   w->path);
  w->left -= bytes;
  return lh_file_writer_append(w->file, data, bytes, e);
}

lk_status lh_safetensors_writer_commit(lh_safetensors_writer *w,
                                       lk_error *e) {
  lk_status status = LK_OK;
  if (w->left > 0) {
    status = lk_fail(e, LK_INTERNAL, "'%s': %" PRId64 " bytes of values are "
                     "missing", w->path, w->left);
    lh_file_writer_abort(w->file);
  } else {
    status = lh_file_writer_commit(w->file, e);
  }
  free_writer(w);
  return status;
}

void lh_safetensors_writer_abort(lh_safetensors_writer *w) {
  if (w == NULL) return;
  lh_file_writer_abort(w->file);
  free_writer(w);
}
