/* gpu.save and gpu.load: tensors to and from safetensors files; gpu.write:
 * tensors into files of any other format. */
#include "../sys/file.h"
#include "../sys/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "gpu.h"

enum { PIECE = 1 << 20 }; /* bytes moved at a time */

/* A string without zero bytes at `index`, which is a `what`. */
static const char *check_text(lua_State *L, int index, const char *what) {
  size_t size;
  if (lua_type(L, index) != LUA_TSTRING)
    lh_raise(L, LK_ARGUMENT, "%s must be a string, got %s", what,
             lh_show(L, index));
  const char *text = lua_tolstring(L, index, &size);
  if (strlen(text) != size)
    lh_raise(L, LK_ARGUMENT, "%s must not hold a zero byte", what);
  return text;
}

static int64_t count_entries(lua_State *L, int index) {
  int64_t count = 0;
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) count++;
  return count;
}

static void *new_array(lua_State *L, int64_t count, size_t size) {
  size_t bytes = (size_t)(count + 1) * size;
  return memset(lua_newuserdatauv(L, bytes, 0), 0, bytes);
}

/* --- saving -------------------------------------------------------------- */

typedef struct save {
  const char *path;
  lh_safetensors_entry *entries;   /* .tag: index into tensors */
  const lh_tensor **tensors;       /* kept alive by the caller's table */
  int64_t count;
  lh_safetensors_pair *pairs;
  int64_t pair_count;
  char piece[PIECE];
} save;

/* Fill s->entries from {name = tensor} at `index`. */
static void read_tensors(lua_State *L, save *s, int index) {
  s->entries = new_array(L, count_entries(L, index), sizeof *s->entries);
  s->tensors = new_array(L, count_entries(L, index), sizeof *s->tensors);
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    const char *name = check_text(L, -2, "gpu.save: a tensor's name");
    const lh_tensor *t = lh_tensor_test(L, -1);
    if (t == NULL)
      lh_raise(L, LK_ARGUMENT, "gpu.save: '%s' must be an open gpu.tensor, got "
               "%s", name, lh_show(L, -1));
    s->tensors[s->count] = t;
    s->entries[s->count] = (lh_safetensors_entry){
        .name = name, .dtype = t->t.dtype, .shape = t->t.shape,
        .tag = s->count};
    s->count++;
  }
  lh_safetensors_sort(s->entries, s->count);
}

static int compare_pairs(const void *a, const void *b) {
  return strcmp(((const lh_safetensors_pair *)a)->key,
                ((const lh_safetensors_pair *)b)->key);
}

static void read_metadata(lua_State *L, save *s, int index) {
  if (lua_isnoneornil(L, index)) return;
  if (!lua_istable(L, index))
    lh_raise(L, LK_ARGUMENT, "gpu.save: metadata must be a table of strings, "
             "got %s", lh_show(L, index));
  s->pairs = new_array(L, count_entries(L, index), sizeof *s->pairs);
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1))
    s->pairs[s->pair_count++] = (lh_safetensors_pair){
        check_text(L, -2, "gpu.save: a name in metadata"),
        check_text(L, -1, "gpu.save: a value in metadata")};
  qsort(s->pairs, (size_t)s->pair_count, sizeof *s->pairs, compare_pairs);
}

static lk_status write_tensor(save *s, lh_safetensors_writer *w,
                              const lh_tensor *t, lk_error *error) {
  int64_t bytes = lk_tensor_bytes(&t->t);
  for (int64_t at = 0; at < bytes; at += PIECE) {
    int64_t size = bytes - at < PIECE ? bytes - at : PIECE;
    lk_status status = t->context->backend->download(
        t->context, s->piece, (const char *)t->t.data + at, size);
    if (status != LK_OK) *error = t->context->error;
    if (status == LK_OK)
      status = lh_safetensors_writer_append(w, s->piece, size, error);
    LK_TRY(status);
  }
  return LK_OK;
}

static lk_status write_file(save *s, lk_error *error) {
  lh_safetensors_writer *w;
  LK_TRY(lh_safetensors_writer_open(&w, s->path, s->entries, s->count,
                                    s->pairs, s->pair_count, error));
  lk_status status = LK_OK;
  for (int64_t i = 0; i < s->count && status == LK_OK; i++)
    status = write_tensor(s, w, s->tensors[s->entries[i].tag], error);
  if (status == LK_OK) return lh_safetensors_writer_commit(w, error);
  lh_safetensors_writer_abort(w);
  return status;
}

static int gpu_save(lua_State *L) {
  lk_error error = {0};
  lua_settop(L, 3);
  save *s = new_array(L, 0, sizeof *s);
  s->path = check_text(L, 1, "gpu.save: the path");
  if (!lua_istable(L, 2))
    lh_raise(L, LK_ARGUMENT, "gpu.save: expected a table of tensors by name, "
             "got %s", lh_show(L, 2));
  read_tensors(L, s, 2);
  read_metadata(L, s, 3);
  lk_status status = write_file(s, &error);
  if (status == LK_ARGUMENT || status == LK_DTYPE) lh_raise_error(L, &error);
  if (status != LK_OK) return lh_world_error(L, &error);
  lua_pushboolean(L, 1);
  return 1;
}

/* --- writing ------------------------------------------------------------- */

static void write_close(void *object) {
  lh_file_writer_abort(*(lh_file_writer **)object);
}
static const lh_class write_class = {"gpu.write", NULL, write_close};

/* A tensor's bytes, through `piece`. */
static lk_status append_tensor(lh_file_writer *w, const lh_tensor *t,
                               char *piece, lk_error *error) {
  int64_t bytes = lk_tensor_bytes(&t->t);
  for (int64_t at = 0; at < bytes; at += PIECE) {
    int64_t size = bytes - at < PIECE ? bytes - at : PIECE;
    if (t->context->backend->download(t->context, piece,
                                      (const char *)t->t.data + at,
                                      size) != LK_OK) {
      *error = t->context->error;
      return error->code;
    }
    LK_TRY(lh_file_writer_append(w, piece, size, error));
  }
  return LK_OK;
}

/* Append part `i` of the list at 2: a string or a tensor. */
static lk_status append_part(lua_State *L, lh_file_writer *w, int64_t i,
                             char *piece, lk_error *error) {
  size_t size;
  lua_rawgeti(L, 2, i);
  const lh_tensor *t = lh_tensor_test(L, -1);
  if (!t && lua_type(L, -1) != LUA_TSTRING)
    lh_raise(L, LK_ARGUMENT, "gpu.write: part %d must be a string or a tensor, "
             "got %s", (int)i, lh_show(L, -1));
  const char *text = t ? NULL : lua_tolstring(L, -1, &size);
  lk_status status = t ? append_tensor(w, t, piece, error)
                       : lh_file_writer_append(w, text, (int64_t)size, error);
  lua_pop(L, 1);
  return status;
}

static int gpu_write(lua_State *L) {
  lk_error error = {0};
  const char *path = check_text(L, 1, "gpu.write: the path");
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 2);
  char *piece = lua_newuserdatauv(L, PIECE, 0);
  lh_file_writer **w = lh_object_new(L, &write_class, sizeof *w);
  lk_status status = lh_file_writer_open(w, path, &error);
  for (int64_t i = 1; i <= (int64_t)lua_rawlen(L, 2) && status == LK_OK; i++)
    status = append_part(L, *w, i, piece, &error);
  if (status == LK_OK)
    status = lh_file_writer_commit(*w, &error);
  else
    lh_file_writer_abort(*w);
  *w = NULL;
  if (status != LK_OK) return lh_world_error(L, &error);
  lua_pushboolean(L, 1);
  return 1;
}

/* --- loading ------------------------------------------------------------- */

static void load_close(void *object) { lh_safetensors_close(object); }
static const lh_class load_class = {"gpu.safetensors", NULL, load_close};

/* Whether a tensor of the file can be one of ours. */
static lk_status check_ours(const lh_safetensors *f, const lh_safetensor *t,
                            lk_error *error) {
  if (t->dtype == LK_DTYPE_COUNT)
    return lk_fail(error, LK_UNSUPPORTED, "'%s': tensor '%.100s' is %s, which "
                   "no operator takes", f->path, t->name, t->word);
  if (t->bytes == 0)
    return lk_fail(error, LK_UNSUPPORTED, "'%s': tensor '%.100s' is empty",
                   f->path, t->name);
  return LK_OK;
}

static lk_status read_tensor(const lh_safetensors *f, const lh_safetensor *from,
                             lh_tensor *to, char *piece, lk_error *error) {
  for (int64_t at = 0; at < from->bytes; at += PIECE) {
    int64_t size = from->bytes - at < PIECE ? from->bytes - at : PIECE;
    LK_TRY(lh_safetensors_read(f, from, at, piece, size, error));
    lk_status status = to->context->backend->upload(
        to->context, (char *)to->t.data + at, piece, size);
    if (status != LK_OK) *error = to->context->error;
    LK_TRY(status);
  }
  return LK_OK;
}

/* Push {name = tensor} on the current device. */
static lk_status push_tensors(lua_State *L, const lh_safetensors *f,
                              lk_error *error) {
  char *piece = lua_newuserdatauv(L, PIECE, 0);
  lua_newtable(L);
  for (int64_t i = 0; i < f->count; i++)
    LK_TRY(check_ours(f, &f->tensor[i], error));
  for (int64_t i = 0; i < f->count; i++) {
    const lh_safetensor *from = &f->tensor[i];
    lua_pushstring(L, from->name);
    lh_tensor *to = lh_tensor_new(L, lh_context(L), from->dtype, from->shape);
    LK_TRY(read_tensor(f, from, to, piece, error));
    lua_settable(L, -3);
  }
  return LK_OK;
}

static void push_metadata(lua_State *L, const lh_safetensors *f) {
  const lh_json_node *node = f->header.node;
  lua_newtable(L);
  if (f->metadata == 0) return;
  for (int64_t n = node[f->metadata].first; n; n = node[n].next) {
    lua_pushlstring(L, node[n].key, (size_t)node[n].key_size);
    lua_pushlstring(L, node[n].string, (size_t)node[n].size);
    lua_settable(L, -3);
  }
}

static int gpu_load(lua_State *L) {
  lk_error error = {0};
  const char *path = check_text(L, 1, "gpu.load: the path");
  lua_settop(L, 1);
  lh_safetensors *f = lh_object_new(L, &load_class, sizeof *f);
  lk_status status = lh_safetensors_open(path, f, &error);
  if (status == LK_OK) status = push_tensors(L, f, &error);
  if (status != LK_OK) {
    lh_safetensors_close(f);
    return lh_world_error(L, &error);
  }
  push_metadata(L, f);
  lh_safetensors_close(f);
  return 2;
}

static const lh_function functions[] = {
    {"save", gpu_save,
     "(path: string, tensors: table<string, gpu.tensor>, "
     "metadata?: table<string, string>): boolean|nil, string?, string?",
     "Write tensors as a safetensors file, atomically; nil, message, code when "
     "the disk refuses.", NULL},
    {"load", gpu_load,
     "(path: string): table<string, gpu.tensor>|nil, table|string, string?",
     "The tensors of a safetensors file on the current device, and its "
     "metadata; nil, message, code when it is damaged or cannot be read.",
     NULL},
    {"write", gpu_write,
     "(path: string, parts: (string|gpu.tensor)[]): boolean|nil, string?, "
     "string?",
     "Write strings and the bytes of tensors one after the other as a file, "
     "atomically; nil, message, code when the disk refuses.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

void lh_add_safetensors(lua_State *L) {
  lh_class_new(L, &write_class);
  lh_class_new(L, &load_class);
  lh_register(L, "gpu", functions);
}
