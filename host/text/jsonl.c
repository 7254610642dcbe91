/* Reading JSONL: lines out of a stream, one field out of each. */
#include "jsonl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../sys/json.h"
#include "unpack.h"

enum { PIECE = 1 << 18, LINE_MOST = 64 << 20 };

/* A file on its way: `text` holds `size` bytes, of which `at` are done. */
typedef struct lines {
  const char *path, *field;
  lh_unpack *stream;
  char *text;
  int64_t size, at, room, number;
  bool ended;
  lk_error *e;
} lines;

/* Read more behind what is not done yet, which moves to the front. */
static lk_status read_more(lines *l) {
  memmove(l->text, l->text + l->at, (size_t)(l->size - l->at));
  l->size -= l->at;
  l->at = 0;
  if (l->size == l->room) {
    if (l->room >= LINE_MOST)
      return lk_fail(l->e, LK_FORMAT, "%s:%lld: a line of more than %d MiB",
                     l->path, (long long)l->number + 1, LINE_MOST >> 20);
    char *more = realloc(l->text, (size_t)l->room * 2);
    if (more == NULL)
      return lk_fail(l->e, LK_OOM, "no memory to read '%s'", l->path);
    l->text = more;
    l->room *= 2;
  }
  int64_t got, room = l->room - l->size;
  LK_TRY(lh_unpack_read(l->stream, l->text + l->size, room, &got, l->e));
  l->size += got;
  l->ended = got < room;
  return LK_OK;
}

/* The next line without its end; *line NULL after the last one. */
static lk_status next_line(lines *l, char **line, int64_t *size) {
  int64_t seen = 0;
  for (;;) {
    char *from = l->text + l->at;
    char *stop = memchr(from + seen, '\n', (size_t)(l->size - l->at - seen));
    bool last = stop == NULL && l->ended;
    *line = last && l->at == l->size ? NULL : from;
    if (stop || last) {
      *size = stop ? stop - from : l->size - l->at;
      l->at += *size + (stop != NULL);
      l->number++;
      return LK_OK;
    }
    seen = l->size - l->at;
    LK_TRY(read_more(l));
  }
}

static bool is_blank(const char *line, int64_t size) {
  for (int64_t i = 0; i < size; i++)
    if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return false;
  return true;
}

__attribute__((format(printf, 2, 3)))
static lk_status wrong(const lines *l, const char *format, ...) {
  char text[600];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return lk_fail(l->e, LK_FORMAT, "%s:%lld: %s", l->path,
                 (long long)l->number, text);
}

/* "a, b, c" of an object's keys, cut to fit. */
static void list_keys(const lh_json *j, char *text, size_t room) {
  size_t used = 0;
  *text = 0;
  for (int64_t n = j->node[1].first; n && used < room; n = j->node[n].next)
    used += (size_t)snprintf(text + used, room - used, "%s%.40s",
                             used ? ", " : "", j->node[n].key);
}

static lk_status no_field(const lines *l, const lh_json *j) {
  char keys[300];
  list_keys(j, keys, sizeof keys);
  return wrong(l, "no field '%.60s'; this line has: %s (field = NAME takes "
               "another)", l->field, keys);
}

/* Find the field in a parsed line and hand it on. */
static lk_status take_field(const lines *l, const lh_json *j,
                            lh_jsonl_take *take, void *context,
                            bool *enough) {
  if (j->node[1].type != LH_JSON_OBJECT)
    return wrong(l, "not a JSON object");
  int64_t n = lh_json_member(j, 1, l->field);
  if (n == 0) return no_field(l, j);
  if (j->node[n].type == LH_JSON_NULL) return LK_OK;
  if (j->node[n].type != LH_JSON_STRING)
    return wrong(l, "field '%.60s' is not a string", l->field);
  return take(context, j->node[n].string, j->node[n].size, enough, l->e);
}

static lk_status take_line(const lines *l, const char *line, int64_t size,
                           lh_jsonl_take *take, void *context, bool *enough) {
  lh_json json;
  lk_error inner;
  lk_status status = lh_json_parse(line, size, "", &json, &inner);
  if (status == LK_OK)
    status = take_field(l, &json, take, context, enough);
  else if (status == LK_FORMAT) /* ":1: what" */
    status = wrong(l, "%.500s", inner.message + strlen(":1: "));
  else
    status = lk_fail(l->e, status, "%s", inner.message);
  lh_json_free(&json);
  return status;
}

static lk_status read_lines(lines *l, lh_jsonl_take *take, void *context) {
  bool enough = false;
  while (!enough) {
    char *line;
    int64_t size = 0;
    LK_TRY(next_line(l, &line, &size));
    if (line == NULL) break;
    if (l->number == 1 && size >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0)
      line += 3, size -= 3; /* a byte-order mark */
    if (is_blank(line, size)) continue;
    LK_TRY(take_line(l, line, size, take, context, &enough));
  }
  return LK_OK;
}

lk_status lh_jsonl_read(const char *path, const char *field,
                        lh_jsonl_take *take, void *context, lk_error *e) {
  lines l = {.path = path, .field = field, .room = PIECE, .e = e};
  LK_TRY(lh_unpack_open(path, &l.stream, e));
  l.text = malloc((size_t)l.room);
  lk_status status = l.text ? read_lines(&l, take, context)
                            : lk_fail(e, LK_OOM, "no memory to read '%s'",
                                      path);
  free(l.text);
  lh_unpack_close(l.stream);
  return status;
}
