/* host.text: tokenizers and corpora (tokens, loaders and the whole pipeline
 * are in text_data.c). Token ids are those of the vocabulary file, from 0;
 * places in lists are counted from 1. */
#include "text.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../text/encode.h"
#include "../text/encode_corpus.h"
#include "bind.h"
#include "modules.h"

int lh_text_failed(lua_State *L, const lk_error *error) {
  if (error->code == LK_ARGUMENT) lh_raise_error(L, error);
  return lh_world_error(L, error);
}

int lh_text_threads(int64_t wanted) {
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  if (wanted > 0) return (int)wanted;
  return cores > 0 && cores < INT_MAX ? (int)cores : 1;
}

/* --- tokenizer ----------------------------------------------------------- */
typedef struct tokenizer_object {
  lh_tokenizer *tokenizer;
  lh_encoder *encoder;
} tokenizer_object;

static void tokenizer_close(void *object) {
  tokenizer_object *o = object;
  lh_encoder_free(o->encoder);
  lh_tokenizer_release(o->tokenizer);
}

static const lh_function tokenizer_methods[];
static const lh_class tokenizer_class = {"host.text.tokenizer",
                                         tokenizer_methods, tokenizer_close};

lh_tokenizer *lh_tokenizer_check(lua_State *L, int index) {
  return ((tokenizer_object *)lh_object_check(L, index, &tokenizer_class))
      ->tokenizer;
}

static tokenizer_object *new_tokenizer(lua_State *L) {
  return lh_object_new(L, &tokenizer_class, sizeof(tokenizer_object));
}

void lh_tokenizer_push(lua_State *L, lh_tokenizer **slot) {
  new_tokenizer(L)->tokenizer = *slot;
  *slot = NULL;
}

typedef struct tokenizer_options {
  int train;
  int64_t vocab, threads;
  const char *file, *merges;
  int rules;
} tokenizer_options;

static const char *const rules[] = {"smollm", NULL};
#define AT(name) offsetof(tokenizer_options, name)
static const lh_option tokenizer_option_list[] = {
    {"train", LH_ANY, AT(train), 0, 0, NULL,
     "corpus to learn a vocabulary from"},
    {"vocab", LH_INTEGER, AT(vocab), 257, LH_VOCAB_MOST, NULL,
     "ids of a learned vocabulary (4096)"},
    {"threads", LH_INTEGER, AT(threads), 0, 64, NULL,
     "threads to count words on (0: one per core)"},
    {"file", LH_STRING, AT(file), 0, 0, NULL, "path of a tokenizer.json"},
    {"merges", LH_STRING, AT(merges), 0, 0, NULL, "path of a merges.txt"},
    {"rules", LH_WORD, AT(rules), 0, 0, rules,
     "how merges.txt becomes ids (smollm)"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};
#undef AT

static int text_tokenizer(lua_State *L) {
  tokenizer_options o = {.vocab = 4096};
  lk_error e;
  lk_status status;
  lh_options(L, 1, "host.text.tokenizer", tokenizer_option_list, 0, &o);
  if ((o.train != 0) + (o.file != NULL) + (o.merges != NULL) != 1)
    lh_raise(L, LK_ARGUMENT, "host.text.tokenizer: give one of train (a "
             "corpus), file (a tokenizer.json) and merges (a merges.txt)");
  lh_corpus *corpus = o.train ? lh_corpus_check(L, o.train) : NULL;
  tokenizer_object *t = new_tokenizer(L);
  if (corpus)
    status = lh_corpus_train(corpus, (int32_t)o.vocab,
                             lh_text_threads(o.threads), &t->tokenizer, &e);
  else if (o.file)
    status = lh_tokenizer_load(o.file, &t->tokenizer, &e);
  else
    status = lh_tokenizer_load_merges(o.merges, &t->tokenizer, &e);
  return status == LK_OK ? 1 : lh_text_failed(L, &e);
}

static const char *check_text(lua_State *L, int index, const char *what,
                              size_t *size) {
  if (lua_type(L, index) != LUA_TSTRING)
    lh_raise(L, LK_ARGUMENT, "%s must be a string, got %s", what,
             lh_show(L, index));
  return lua_tolstring(L, index, size);
}

static void push_ids(lua_State *L, const int32_t *ids, int64_t count) {
  lua_createtable(L, count < INT_MAX ? (int)count : 0, 0);
  for (int64_t i = 0; i < count; i++) {
    lua_pushinteger(L, ids[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

static const lh_option encode_option_list[] = {
    {"special", LH_BOOLEAN, 0, 0, 0, NULL,
     "names of special tokens in the text give their ids (false)"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};

static int tokenizer_encode(lua_State *L) {
  lh_tokenizer *t = lh_tokenizer_check(L, 1);
  tokenizer_object *o = lh_object_check(L, 1, &tokenizer_class);
  size_t size;
  const char *text = check_text(L, 2, "the text", &size);
  bool special = false;
  lk_error e;
  lh_options(L, 3, "encode", encode_option_list, 0, &special);
  if (o->encoder == NULL)
    lh_check(L, lh_encoder_new(t, &o->encoder, &e), &e);
  void **box = lh_box_new(L);
  lh_ids ids = {0};
  lk_status status =
      (special ? lh_encode_special : lh_encode)(o->encoder, text,
                                                (int64_t)size, &ids, &e);
  *box = ids.data;
  lh_check(L, status, &e);
  push_ids(L, ids.data, ids.count);
  free(ids.data);
  *box = NULL;
  return 1;
}

static int tokenizer_dropped(lua_State *L) {
  tokenizer_object *o = lh_object_check(L, 1, &tokenizer_class);
  lua_pushinteger(L, o->encoder ? lh_encoder_dropped(o->encoder) : 0);
  return 1;
}

/* The list of ids at `index` as an array, kept by a box that is pushed. */
static int32_t *check_ids(lua_State *L, int index, int64_t *count) {
  if (lua_type(L, index) != LUA_TTABLE)
    lh_raise(L, LK_ARGUMENT, "ids must be a list of integers, got %s",
             lh_show(L, index));
  *count = (int64_t)lua_rawlen(L, index);
  void **box = lh_box_new(L);
  int32_t *ids = *box = malloc((size_t)*count * sizeof *ids + 1);
  if (ids == NULL) lh_raise(L, LK_OOM, "no memory for %lld ids",
                            (long long)*count);
  for (int64_t i = 0; i < *count; i++) {
    int integer;
    lua_rawgeti(L, index, i + 1);
    lua_Integer id = lua_tointegerx(L, -1, &integer);
    if (!integer || id < 0 || id > INT32_MAX)
      lh_raise(L, LK_ARGUMENT, "ids must be a list of integers, got %s at "
               "place %lld", lh_show(L, -1), (long long)i + 1);
    ids[i] = (int32_t)id;
    lua_pop(L, 1);
  }
  return ids;
}

static const lh_option decode_option_list[] = {
    {"skip_special", LH_BOOLEAN, 0, 0, 0, NULL,
     "special tokens give nothing instead of their names (false)"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};

static int tokenizer_decode(lua_State *L) {
  lh_tokenizer *t = lh_tokenizer_check(L, 1);
  bool skip = false;
  int64_t count, size;
  char *text;
  lk_error e;
  lh_options(L, 3, "decode", decode_option_list, 0, &skip);
  int32_t *ids = check_ids(L, 2, &count);
  void **box = lh_box_new(L);
  lk_status status = lh_decode(t, ids, count, skip, &text, &size, &e);
  *box = text;
  lh_check(L, status, &e);
  lua_pushlstring(L, text, (size_t)size);
  return 1;
}

static int tokenizer_count(lua_State *L) {
  lua_pushinteger(L, lh_tokenizer_check(L, 1)->count);
  return 1;
}

static int tokenizer_save(lua_State *L) {
  lh_tokenizer *t = lh_tokenizer_check(L, 1);
  size_t size;
  lk_error e;
  const char *path = check_text(L, 2, "a path", &size);
  if (lh_tokenizer_save(t, path, &e) != LK_OK) return lh_world_error(L, &e);
  lua_pushboolean(L, 1);
  return 1;
}

static int tokenizer_json(lua_State *L) {
  lh_tokenizer *t = lh_tokenizer_check(L, 1);
  int64_t size;
  char *text;
  lk_error e;
  void **box = lh_box_new(L);
  lk_status status = lh_tokenizer_json(t, &text, &size, &e);
  *box = text;
  lh_check(L, status, &e);
  lua_pushlstring(L, text, (size_t)size);
  return 1;
}

static int tokenizer_hash(lua_State *L) {
  char text[20];
  snprintf(text, sizeof text, "%016llx",
           (unsigned long long)lh_tokenizer_check(L, 1)->hash);
  lua_pushstring(L, text);
  return 1;
}

static int tokenizer_token(lua_State *L) {
  lh_tokenizer *t = lh_tokenizer_check(L, 1);
  int64_t id = lh_check_integer(L, 2, "id", 0, t->count - 1), size;
  const uint8_t *token = lh_token(t, (int32_t)id, &size);
  lua_pushlstring(L, (const char *)token, (size_t)size);
  lua_pushboolean(L, t->special[id]);
  return 2;
}

static int tokenizer_special(lua_State *L) {
  lh_tokenizer *t = lh_tokenizer_check(L, 1);
  size_t size;
  int32_t id = lh_tokenizer_special(t, check_text(L, 2, "a name", &size));
  if (id >= 0) lua_pushinteger(L, id);
  else lua_pushnil(L);
  return 1;
}

static int tokenizer_missing(lua_State *L) {
  lua_pushinteger(L, lh_tokenizer_check(L, 1)->missing_bytes);
  return 1;
}

static const lh_function tokenizer_methods[] = {
    {"encode", tokenizer_encode,
     "(text: string, options?: table): integer[]",
     "The text's token ids. Bytes without a token are left out and counted.",
     encode_option_list},
    {"dropped", tokenizer_dropped, "(): integer",
     "Bytes without a token that encode has left out so far.", NULL},
    {"decode", tokenizer_decode, "(ids: integer[], options?: table): string",
     "The bytes the ids stand for; decode(encode(s)) is s.",
     decode_option_list},
    {"count", tokenizer_count, "(): integer", "Ids of the vocabulary.", NULL},
    {"save", tokenizer_save, "(path: string): true|nil, string?, string?",
     "Write tokenizer.json, as Hugging Face's tokenizers read it.", NULL},
    {"json", tokenizer_json, "(): string",
     "The text of tokenizer.json, as save writes it.", NULL},
    {"hash", tokenizer_hash, "(): string",
     "16 hexadecimal digits that differ when any encoding could.", NULL},
    {"token", tokenizer_token, "(id: integer): string, boolean",
     "A token's bytes, and whether it is special.", NULL},
    {"special", tokenizer_special, "(name: string): integer|nil",
     "The id of a special token such as <|endoftext|>.", NULL},
    {"missing", tokenizer_missing, "(): integer",
     "How many of the 256 byte values have no token.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

/* --- corpus -------------------------------------------------------------- */
typedef struct corpus_object {
  lh_corpus *corpus;
  lh_source source;       /* while it is being read */
} corpus_object;

static void corpus_close(void *object) {
  corpus_object *o = object;
  lh_corpus_release(o->corpus);
  lh_source_free(&o->source);
}

static const lh_function corpus_methods[];
static const lh_class corpus_class = {"host.text.corpus", corpus_methods,
                                      corpus_close};

lh_corpus *lh_corpus_check(lua_State *L, int index) {
  return ((corpus_object *)lh_object_check(L, index, &corpus_class))->corpus;
}

typedef struct corpus_arguments {
  const char *source;
  int texts;
  double validation;
  int64_t seed, max_documents, max_chars, max_bytes, max_tokens;
  const char *field;
} corpus_arguments;

#define AT(name) offsetof(corpus_arguments, name)
static const lh_option corpus_option_list[] = {
    {"source", LH_STRING, AT(source), 0, 0, NULL,
     "file of text or JSONL (plain, .gz, .zst), folder, pattern, '-' for "
     "standard input, or 'system'"},
    {"field", LH_STRING, AT(field), 0, 0, NULL,
     "the field of a JSONL row that is text (text)"},
    {"texts", LH_ANY, AT(texts), 0, 0, NULL,
     "a list of strings, each a document, in place of a source"},
    {"validation", LH_NUMBER, AT(validation), 0, 0.5, NULL,
     "share of the bytes held out, in whole documents (0)"},
    {"seed", LH_INTEGER, AT(seed), 0, 9e15, NULL,
     "decides which documents are held out (42)"},
    {"max_documents", LH_INTEGER, AT(max_documents), 0, 9e15, NULL,
     "documents at most (0: all)"},
    {"max_chars", LH_INTEGER, AT(max_chars), 0, 9e15, NULL,
     "characters of a document at most (0: all)"},
    {"max_bytes", LH_INTEGER, AT(max_bytes), 0, 9e15, NULL,
     "bytes of all documents at most (0: all)"},
    {"max_tokens", LH_INTEGER, AT(max_tokens), 0, 1e14, NULL,
     "read only what so many tokens need: 8 bytes for each (0: all)"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};
#undef AT

/* Read the list of strings at `index` into the object's corpus. */
static lk_status read_texts(lua_State *L, int index,
                            const lh_corpus_options *options,
                            corpus_object *o, lk_error *e) {
  if (lua_type(L, index) != LUA_TTABLE)
    lh_raise(L, LK_ARGUMENT, "host.text.corpus: texts must be a list of "
             "strings, got %s", lh_show(L, index));
  int64_t count = (int64_t)lua_rawlen(L, index);
  void **texts = lh_box_new(L), **sizes = lh_box_new(L);
  *texts = calloc((size_t)count + 1, sizeof(char *));
  *sizes = calloc((size_t)count + 1, sizeof(int64_t));
  if (!*texts || !*sizes) lh_raise(L, LK_OOM, "no memory for a corpus");
  for (int64_t i = 0; i < count; i++) {
    size_t size;
    if (lua_rawgeti(L, index, i + 1) != LUA_TSTRING)
      lh_raise(L, LK_ARGUMENT, "host.text.corpus: texts must be a list of "
               "strings, got %s at place %lld", lh_show(L, -1),
               (long long)i + 1);
    /* The table keeps the string alive. */
    ((const char **)*texts)[i] = lua_tolstring(L, -1, &size);
    ((int64_t *)*sizes)[i] = (int64_t)size;
    lua_pop(L, 1);
  }
  return lh_corpus_of((const char *const *)*texts, *sizes, count, options,
                      &o->corpus, e);
}

static int text_corpus(lua_State *L) {
  corpus_arguments a = {.seed = 42};
  lk_error e;
  lh_options(L, 1, "host.text.corpus", corpus_option_list, 0, &a);
  if ((a.source != NULL) + (a.texts != 0) != 1)
    lh_raise(L, LK_ARGUMENT, "host.text.corpus: give one of source and texts");
  lh_corpus_options options = {a.validation, (uint64_t)a.seed,
                               a.max_documents, a.max_chars, a.max_bytes,
                               a.field};
  if (a.max_tokens > 0 &&
      (a.max_bytes == 0 || a.max_bytes > 8 * a.max_tokens))
    options.max_bytes = 8 * a.max_tokens;
  corpus_object *o = lh_object_new(L, &corpus_class, sizeof *o);
  int place = lua_gettop(L);
  lk_status status;
  if (a.texts) {
    status = read_texts(L, a.texts, &options, o, &e);
  } else {
    status = lh_source_open(a.source, options.max_bytes, &o->source, &e);
    if (status == LK_OK)
      status = lh_corpus_read(&o->source, &options, &o->corpus, &e);
    lh_source_free(&o->source);
  }
  if (status != LK_OK) return lh_text_failed(L, &e);
  lua_settop(L, place);
  return 1;
}

static int corpus_count(lua_State *L) {
  lua_pushinteger(L, lh_corpus_check(L, 1)->count);
  return 1;
}

static int corpus_bytes(lua_State *L) {
  lua_pushinteger(L, lh_corpus_check(L, 1)->bytes);
  return 1;
}

static int corpus_document(lua_State *L) {
  lh_corpus *c = lh_corpus_check(L, 1);
  int64_t i = lh_check_integer(L, 2, "document", 1, c->count);
  const lh_corpus_document *d = &c->documents[i - 1];
  lua_pushlstring(L, d->text, (size_t)d->size);
  lua_pushboolean(L, d->held_out);
  return 2;
}

static int corpus_info(lua_State *L) {
  lh_corpus *c = lh_corpus_check(L, 1);
  const struct { const char *name; int64_t value; } fields[] = {
      {"documents", c->count}, {"bytes", c->bytes},
      {"held_documents", c->held_count}, {"held_bytes", c->held_bytes},
      {"files", c->files}, {"skipped", c->skipped},
      {"duplicates", c->duplicates}};
  char key[20];
  lua_newtable(L);
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    lua_pushinteger(L, fields[i].value);
    lua_setfield(L, -2, fields[i].name);
  }
  snprintf(key, sizeof key, "%016llx", (unsigned long long)c->key);
  lua_pushstring(L, key);
  lua_setfield(L, -2, "key");
  return 1;
}

static const lh_function corpus_methods[] = {
    {"count", corpus_count, "(): integer", "Documents.", NULL},
    {"bytes", corpus_bytes, "(): integer", "Bytes of all documents.", NULL},
    {"document", corpus_document, "(i: integer): string, boolean",
     "A document's text, and whether it is held out for validation.", NULL},
    {"info", corpus_info, "(): table",
     "documents, bytes, held_documents, held_bytes, files, skipped (not "
     "UTF-8 text), duplicates, key.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

/* --- module -------------------------------------------------------------- */
static const lh_function functions[] = {
    {"tokenizer", text_tokenizer,
     "(options: table): host.text.tokenizer|nil, string?, string?",
     "A byte-level BPE tokenizer: learned from a corpus, or read.",
     tokenizer_option_list},
    {"corpus", text_corpus,
     "(options: table): host.text.corpus|nil, string?, string?",
     "Documents in memory, some held out whole for validation.",
     corpus_option_list},
    {NULL, NULL, NULL, NULL, NULL}};

int lh_open_text(lua_State *L) {
  lh_class_new(L, &tokenizer_class);
  lh_class_new(L, &corpus_class);
  lua_newtable(L);
  lh_register(L, "host.text", functions);
  lh_open_text_data(L);
  return 1;
}
