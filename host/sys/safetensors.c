/* Reading safetensors files: the header checked in full, values by pread. */
#include "safetensors.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file.h"

/* Every dtype a header may name. Packed codes have no name of their own. */
static const struct dtype_word {
  const char *word;
  lk_dtype dtype;
  int bits;
} dtype_words[] = {
#define DTYPE(name, word, safetensors, bits) \
  {bits < 8 ? "" : safetensors, LK_##name, bits},
#include "../../kernels/base/dtype.def"
#undef DTYPE
    {"BOOL", LK_DTYPE_COUNT, 8},    {"F8_E5M2", LK_DTYPE_COUNT, 8},
    {"F8_E8M0", LK_DTYPE_COUNT, 8}, {"I16", LK_DTYPE_COUNT, 16},
    {"U16", LK_DTYPE_COUNT, 16},    {"I64", LK_DTYPE_COUNT, 64},
    {"U64", LK_DTYPE_COUNT, 64},    {"F64", LK_DTYPE_COUNT, 64},
    {"C64", LK_DTYPE_COUNT, 64},    {NULL, LK_DTYPE_COUNT, 0}};

static const struct dtype_word *dtype_of(const char *word) {
  if (*word == 0) return NULL;
  for (const struct dtype_word *d = dtype_words; d->word; d++)
    if (strcmp(d->word, word) == 0) return d;
  return NULL;
}

/* What is wrong with tensor `name`. */
static lk_status wrong(const lh_safetensors *f, const char *name,
                       const char *what, lk_error *e) {
  return lk_fail(e, LK_FORMAT, "'%s': tensor '%.100s': %s", f->path, name,
                 what);
}

/* --- names ---------------------------------------------------------------- */

static int compare_keys(const void *a, const void *b) {
  const lh_json_node *x = *(lh_json_node *const *)a;
  const lh_json_node *y = *(lh_json_node *const *)b;
  return strcmp(x->key, y->key);
}

/* The names in an object are different and hold no zero byte. */
static lk_status check_names(const lh_safetensors *f, int64_t object,
                             lk_error *e) {
  const lh_json_node *node = f->header.node;
  int64_t count = 0;
  const lh_json_node **member =
      calloc((size_t)node[object].size + 1, sizeof *member);
  if (member == NULL)
    return lk_fail(e, LK_OOM, "no memory to read '%s'", f->path);
  lk_status status = LK_OK;
  for (int64_t n = node[object].first; n; n = node[n].next) {
    if (strlen(node[n].key) != (size_t)node[n].key_size)
      status = wrong(f, node[n].key, "its name holds a zero byte", e);
    member[count++] = &node[n];
  }
  qsort(member, (size_t)count, sizeof *member, compare_keys);
  for (int64_t i = 1; i < count && status == LK_OK; i++)
    if (strcmp(member[i - 1]->key, member[i]->key) == 0)
      status = lk_fail(e, LK_FORMAT, "'%s': the name '%.100s' comes twice",
                       f->path, member[i]->key);
  free(member);
  return status;
}

/* --- one tensor ----------------------------------------------------------- */

static const int64_t LARGEST = (int64_t)1 << 53; /* exact in a JSON number */

static lk_status read_shape(const lh_safetensors *f, int64_t list,
                            lh_safetensor *t, lk_error *e) {
  const lh_json_node *node = f->header.node;
  if (list == 0 || node[list].type != LH_JSON_ARRAY)
    return wrong(f, t->name, "shape is not a list", e);
  if (node[list].size > LK_MAX_RANK)
    return lk_fail(e, LK_FORMAT, "'%s': tensor '%.100s' has %d dimensions, at "
                   "most %d", f->path, t->name, (int)node[list].size,
                   LK_MAX_RANK);
  for (int64_t n = node[list].first; n; n = node[n].next)
    if (!lh_json_integer(&f->header, n, 0, LARGEST,
                         &t->shape.dim[t->shape.rank++]))
      return wrong(f, t->name, "a size in its shape is no whole number", e);
  return LK_OK;
}

static lk_status read_offsets(const lh_safetensors *f, int64_t list,
                              lh_safetensor *t, lk_error *e) {
  const lh_json_node *node = f->header.node;
  int64_t begin = 0, end = 0;
  bool fine = list && node[list].type == LH_JSON_ARRAY && node[list].size == 2;
  if (fine) {
    int64_t first = node[list].first;
    fine = lh_json_integer(&f->header, first, 0, LARGEST, &begin) &&
           lh_json_integer(&f->header, node[first].next, begin, LARGEST, &end);
  }
  if (!fine)
    return wrong(f, t->name, "data_offsets are not [begin, end]", e);
  t->offset = begin;
  t->bytes = end - begin;
  return LK_OK;
}

/* Shape × dtype is the length that the offsets leave. */
static lk_status check_size(const lh_safetensors *f, const lh_safetensor *t,
                            int bits, lk_error *e) {
  char text[160];
  int64_t bytes = bits / 8;
  bool fits = true;
  for (int i = 0; i < t->shape.rank && fits; i++)
    fits = lk_size_product(bytes, t->shape.dim[i], &bytes);
  if (fits && bytes == t->bytes) return LK_OK;
  return lk_fail(e, LK_FORMAT, "'%s': tensor '%.100s': %s %s does not take "
                 "%lld bytes", f->path, t->name, t->word,
                 lk_shape_text(t->shape, text, sizeof text),
                 (long long)t->bytes);
}

/* Fill *t from member `n` of the header. */
static lk_status read_tensor(const lh_safetensors *f, int64_t n,
                             lh_safetensor *t, lk_error *e) {
  const lh_json *json = &f->header;
  const lh_json_node *node = json->node;
  *t = (lh_safetensor){.name = node[n].key};
  int64_t dtype = lh_json_member(json, n, "dtype");
  if (node[n].type != LH_JSON_OBJECT || node[n].size != 3 || dtype == 0)
    return wrong(f, t->name, "needs dtype, shape, data_offsets and nothing "
                 "else", e);
  if (node[dtype].type != LH_JSON_STRING)
    return wrong(f, t->name, "dtype is not a string", e);
  t->word = node[dtype].string;
  const struct dtype_word *d = dtype_of(t->word);
  if (d == NULL)
    return lk_fail(e, LK_FORMAT, "'%s': tensor '%.100s' has unknown dtype "
                   "'%.20s'", f->path, t->name, t->word);
  t->dtype = d->dtype;
  LK_TRY(read_shape(f, lh_json_member(json, n, "shape"), t, e));
  LK_TRY(read_offsets(f, lh_json_member(json, n, "data_offsets"), t, e));
  return check_size(f, t, d->bits, e);
}

/* --- the header ----------------------------------------------------------- */

static lk_status read_metadata(lh_safetensors *f, int64_t object,
                               lk_error *e) {
  const lh_json_node *node = f->header.node;
  if (node[object].type != LH_JSON_OBJECT)
    return lk_fail(e, LK_FORMAT, "'%s': __metadata__ is not an object",
                   f->path);
  for (int64_t n = node[object].first; n; n = node[n].next)
    if (node[n].type != LH_JSON_STRING)
      return lk_fail(e, LK_FORMAT, "'%s': __metadata__ '%.100s' is not a "
                     "string", f->path, node[n].key);
  f->metadata = object;
  return check_names(f, object, e);
}

static lk_status read_members(lh_safetensors *f, lk_error *e) {
  const lh_json_node *node = f->header.node;
  LK_TRY(check_names(f, 1, e));
  f->tensor = calloc((size_t)node[1].size + 1, sizeof *f->tensor);
  if (f->tensor == NULL)
    return lk_fail(e, LK_OOM, "no memory to read '%s'", f->path);
  for (int64_t n = node[1].first; n; n = node[n].next) {
    if (strcmp(node[n].key, "__metadata__") == 0)
      LK_TRY(read_metadata(f, n, e));
    else
      LK_TRY(read_tensor(f, n, &f->tensor[f->count++], e));
  }
  return LK_OK;
}

static int compare_offsets(const void *a, const void *b) {
  const lh_safetensor *x = a, *y = b;
  if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
  return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int compare_names(const void *a, const void *b) {
  return strcmp(((const lh_safetensor *)a)->name,
                ((const lh_safetensor *)b)->name);
}

/* Tensors fill the `size` bytes after the header; their offsets become the
 * file's. */
static lk_status check_layout(lh_safetensors *f, int64_t header, int64_t size,
                              lk_error *e) {
  int64_t end = 0;
  size_t count = (size_t)f->count;
  qsort(f->tensor, count, sizeof *f->tensor, compare_offsets);
  for (int64_t i = 0; i < f->count; i++) {
    lh_safetensor *t = &f->tensor[i];
    if (t->offset != end)
      return lk_fail(e, LK_FORMAT, "'%s': tensor '%.100s' begins at byte %lld, "
                     "the one before it ends at %lld", f->path, t->name,
                     (long long)t->offset, (long long)end);
    end += t->bytes;
    t->offset += header;
  }
  if (end != size)
    return lk_fail(e, LK_FORMAT, "'%s' has %lld bytes of values, its header "
                   "says %lld", f->path, (long long)size, (long long)end);
  qsort(f->tensor, count, sizeof *f->tensor, compare_names);
  return LK_OK;
}

static lk_status parse_header(lh_safetensors *f, const char *text,
                              int64_t bytes, lk_error *e) {
  if (bytes == 0 || text[0] != '{')
    return lk_fail(e, LK_FORMAT, "'%s': the header does not begin with '{'",
                   f->path);
  LK_TRY(lh_json_parse(text, bytes, f->path, &f->header, e));
  return read_members(f, e);
}

/* The header's size, from the first eight bytes. */
static lk_status read_size(const lh_safetensors *f, int64_t size,
                           int64_t *header, lk_error *e) {
  uint8_t raw[8];
  uint64_t bytes = 0;
  if (size < 8)
    return lk_fail(e, LK_FORMAT, "'%s' is too short for safetensors: %lld "
                   "bytes", f->path, (long long)size);
  LK_TRY(lh_file_pread(f->fd, f->path, raw, 8, 0, e));
  for (int i = 7; i >= 0; i--) bytes = bytes << 8 | raw[i];
  if (bytes > LH_SAFETENSORS_HEADER_MOST)
    return lk_fail(e, LK_FORMAT, "'%s': a header of %llu bytes, at most %d",
                   f->path, (unsigned long long)bytes,
                   LH_SAFETENSORS_HEADER_MOST);
  if ((int64_t)bytes > size - 8)
    return lk_fail(e, LK_FORMAT, "'%s': a header of %llu bytes does not fit in "
                   "a file of %lld", f->path, (unsigned long long)bytes,
                   (long long)size);
  *header = (int64_t)bytes;
  return LK_OK;
}

lk_status lh_safetensors_open(const char *path, lh_safetensors *f,
                              lk_error *e) {
  int64_t size = 0, header = 0;
  *f = (lh_safetensors){.fd = -1, .path = strdup(path)};
  if (f->path == NULL) return lk_fail(e, LK_OOM, "out of memory");
  LK_TRY(lh_file_open(path, &f->fd, &size, e));
  LK_TRY(read_size(f, size, &header, e));
  char *text = malloc((size_t)header + 1);
  if (text == NULL)
    return lk_fail(e, LK_OOM, "no memory to read '%s'", path);
  lk_status status = lh_file_pread(f->fd, path, text, header, 8, e);
  if (status == LK_OK) status = parse_header(f, text, header, e);
  free(text);
  if (status != LK_OK) return status;
  return check_layout(f, 8 + header, size - 8 - header, e);
}

void lh_safetensors_close(lh_safetensors *f) {
  if (f->path && f->fd >= 0) close(f->fd);
  free(f->path);
  free(f->tensor);
  lh_json_free(&f->header);
  *f = (lh_safetensors){.fd = -1};
}

/* --- questions ------------------------------------------------------------ */

const lh_safetensor *lh_safetensors_find(const lh_safetensors *f,
                                         const char *name) {
  lh_safetensor key = {.name = name};
  if (f->count == 0) return NULL;
  return bsearch(&key, f->tensor, (size_t)f->count, sizeof key, compare_names);
}

const char *lh_safetensors_metadata(const lh_safetensors *f,
                                    const char *key) {
  int64_t n = lh_json_member(&f->header, f->metadata, key);
  return n ? f->header.node[n].string : NULL;
}

lk_status lh_safetensors_read(const lh_safetensors *f, const lh_safetensor *t,
                              int64_t from, void *data, int64_t bytes,
                              lk_error *e) {
  if (from < 0 || bytes < 0 || bytes > t->bytes || from > t->bytes - bytes)
    return lk_fail(e, LK_INTERNAL, "a read outside of tensor '%.100s'",
                   t->name);
  return lh_file_pread(f->fd, f->path, data, bytes, t->offset + from, e);
}
