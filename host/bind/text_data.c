/* host.text, second half: token files, loaders, and the pipeline from a source
 * to both. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "../text/encode_corpus.h"
#include "../text/prepare.h"
#include "bind.h"
#include "text.h"

static void set_integer(lua_State *L, const char *name, int64_t value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, name);
}

static void set_hex(lua_State *L, const char *name, uint64_t value,
                    int digits) {
  char text[20];
  snprintf(text, sizeof text, "%0*llx", digits, (unsigned long long)value);
  lua_pushstring(L, text);
  lua_setfield(L, -2, name);
}

static void set_string(lua_State *L, const char *name, const char *text) {
  lua_pushstring(L, text); /* nil for NULL */
  lua_setfield(L, -2, name);
}

/* --- tokens -------------------------------------------------------------- */
typedef struct tokens_object {
  lh_tokens *tokens;
} tokens_object;

static void tokens_close(void *object) {
  lh_tokens_release(((tokens_object *)object)->tokens);
}

static const lh_function tokens_methods[];
static const lh_class tokens_class = {"host.text.tokens", tokens_methods,
                                      tokens_close};

lh_tokens *lh_tokens_check(lua_State *L, int index) {
  return ((tokens_object *)lh_object_check(L, index, &tokens_class))->tokens;
}

static tokens_object *new_tokens(lua_State *L) {
  return lh_object_new(L, &tokens_class, sizeof(tokens_object));
}

void lh_tokens_push(lua_State *L, lh_tokens **slot) {
  new_tokens(L)->tokens = *slot;
  *slot = NULL;
}

typedef struct tokens_options {
  const char *path;
  int corpus, tokenizer;
  bool held_out;
  int64_t max_tokens, threads, vocab;
  int format;
} tokens_options;

/* In the order of lh_tokens_format; "auto" looks at the first bytes. */
static const char *const format_words[] = {"llmhost", "llm.c", "nanogpt",
                                           "auto", NULL};
enum { FORMAT_AUTO = 3 };

#define AT(name) offsetof(tokens_options, name)
static const lh_option tokens_option_list[] = {
    {"path", LH_STRING, AT(path), 0, 0, NULL, "token file to open"},
    {"format", LH_WORD, AT(format), 0, 0, format_words,
     "of the file; nanogpt (raw 16-bit ids) must be named (auto)"},
    {"vocab", LH_INTEGER, AT(vocab), 0, INT32_MAX, NULL,
     "of a file of llm.c or nanoGPT: every id is below (0: one more than the "
     "largest)"},
    {"corpus", LH_ANY, AT(corpus), 0, 0, NULL, "corpus to encode"},
    {"tokenizer", LH_ANY, AT(tokenizer), 0, 0, NULL, "tokenizer to encode by"},
    {"held_out", LH_BOOLEAN, AT(held_out), 0, 0, NULL,
     "the documents for validation instead of those for training (false)"},
    {"max_tokens", LH_INTEGER, AT(max_tokens), 0, 9e15, NULL,
     "tokens at most, of documents from all over (0: all)"},
    {"threads", LH_INTEGER, AT(threads), 0, 64, NULL,
     "threads to encode on (0: one per core)"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};
#undef AT

static lk_status open_tokens(const tokens_options *o, lh_tokens **out,
                             lk_error *e) {
  lh_tokens_format format = (lh_tokens_format)o->format;
  if (o->format == FORMAT_AUTO)
    LK_TRY(lh_tokens_format_of(o->path, &format, e));
  if (format == LH_TOKENS_OWN) return lh_tokens_open(o->path, out, e);
  return lh_tokens_import(o->path, format, o->vocab, out, e);
}

static int text_tokens(lua_State *L) {
  tokens_options o = {.format = FORMAT_AUTO};
  lk_error e;
  lk_status status;
  lh_options(L, 1, "host.text.tokens", tokens_option_list, 1, &o);
  if ((o.path != NULL) == (o.corpus != 0) ||
      (o.corpus != 0) != (o.tokenizer != 0))
    lh_raise(L, LK_ARGUMENT, "host.text.tokens: give a path, or a corpus and "
             "a tokenizer");
  lh_corpus *corpus = o.corpus ? lh_corpus_check(L, o.corpus) : NULL;
  lh_tokenizer *t = o.corpus ? lh_tokenizer_check(L, o.tokenizer) : NULL;
  tokens_object *object = new_tokens(L);
  if (o.path)
    status = open_tokens(&o, &object->tokens, &e);
  else
    status = lh_corpus_encode(corpus, t, o.held_out, o.max_tokens,
                              lh_text_threads(o.threads), corpus->key,
                              "corpus", &object->tokens, &e);
  return status == LK_OK ? 1 : lh_text_failed(L, &e);
}

static int tokens_count(lua_State *L) {
  lua_pushinteger(L, lh_tokens_about(lh_tokens_check(L, 1))->count);
  return 1;
}

static int tokens_get(lua_State *L) {
  lh_tokens *t = lh_tokens_check(L, 1);
  int64_t all = lh_tokens_about(t)->count;
  int64_t first = lh_check_integer(L, 2, "first", 1, all);
  int64_t last = lh_check_integer(L, 3, "last", first, all);
  int64_t count = last - first + 1;
  lk_error e;
  void **box = lh_box_new(L);
  int32_t *ids = *box = malloc((size_t)count * sizeof *ids);
  if (ids == NULL) lh_raise(L, LK_OOM, "no memory for %lld ids",
                            (long long)count);
  if (lh_tokens_read(t, first - 1, count, ids, &e) != LK_OK)
    return lh_text_failed(L, &e);
  lua_createtable(L, count < INT_MAX ? (int)count : 0, 0);
  for (int64_t i = 0; i < count; i++) {
    lua_pushinteger(L, ids[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int tokens_info(lua_State *L) {
  lh_tokens *t = lh_tokens_check(L, 1);
  const lh_tokens_info *info = lh_tokens_about(t);
  lua_newtable(L);
  set_integer(L, "count", info->count);
  set_integer(L, "vocab", info->vocab);
  set_integer(L, "documents", info->documents);
  set_integer(L, "bytes", info->bytes);
  set_integer(L, "dropped", info->dropped);
  set_hex(L, "tokenizer", info->tokenizer, 16);
  set_hex(L, "source_key", info->source, 16);
  set_hex(L, "checksum", info->crc, 8);
  set_string(L, "source", info->name);
  set_string(L, "path", lh_tokens_path(t));
  lua_pushboolean(L, info->validation);
  lua_setfield(L, -2, "held_out");
  return 1;
}

static const lh_option save_option_list[] = {
    {"format", LH_WORD, 0, 0, 0, format_words,
     "llmhost, llm.c (.bin) or nanogpt (raw 16-bit ids); auto is llmhost"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};

static int tokens_save(lua_State *L) {
  lh_tokens *t = lh_tokens_check(L, 1);
  int format = LH_TOKENS_OWN;
  lk_error e;
  if (lua_type(L, 2) != LUA_TSTRING)
    lh_raise(L, LK_ARGUMENT, "a path must be a string, got %s",
             lh_show(L, 2));
  lh_options(L, 3, "save", save_option_list, 0, &format);
  lh_tokens_format as =
      format == FORMAT_AUTO ? LH_TOKENS_OWN : (lh_tokens_format)format;
  if (lh_tokens_export(t, as, lua_tostring(L, 2), &e) != LK_OK)
    return lh_text_failed(L, &e);
  lua_pushboolean(L, 1);
  return 1;
}

static const lh_function tokens_methods[] = {
    {"count", tokens_count, "(): integer", "Tokens.", NULL},
    {"get", tokens_get, "(first: integer, last: integer): integer[]",
     "The ids from place first to place last.", NULL},
    {"info", tokens_info, "(): table",
     "count, vocab, documents, bytes, dropped, tokenizer, source, source_key, "
     "checksum, path, held_out.", NULL},
    {"save", tokens_save,
     "(path: string, options?: table): true|nil, string?, string?",
     "Write a token file, ours or another program's.", save_option_list},
    {NULL, NULL, NULL, NULL, NULL}};

/* --- loader -------------------------------------------------------------- */
typedef struct loader_object {
  lh_loader *loader;
} loader_object;

static void loader_close(void *object) {
  lh_loader_free(((loader_object *)object)->loader);
}

static const lh_function loader_methods[];
static const lh_class loader_class = {"host.text.loader", loader_methods,
                                      loader_close};

lh_loader *lh_loader_check(lua_State *L, int index) {
  return ((loader_object *)lh_object_check(L, index, &loader_class))->loader;
}

typedef struct loader_options {
  int64_t batch, seq, seed, max_tokens;
  bool sequential;
} loader_options;

#define AT(name) offsetof(loader_options, name)
static const lh_option loader_option_list[] = {
    {"batch", LH_INTEGER, AT(batch), 1, 1 << 24, NULL,
     "samples of one optimizer step, all micro-batches together (1)"},
    {"seq", LH_INTEGER, AT(seq), 1, 1 << 24, NULL,
     "tokens of a sample (256)"},
    {"seed", LH_INTEGER, AT(seed), 0, 9e15, NULL,
     "decides the order of the samples (42)"},
    {"sequential", LH_BOOLEAN, AT(sequential), 0, 0, NULL,
     "windows one after the other, for evaluation (false)"},
    {"max_tokens", LH_INTEGER, AT(max_tokens), 0, 9e15, NULL,
     "sequential: targets at most (0: all)"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};
#undef AT

static int text_loader(lua_State *L) {
  loader_options o = {.batch = 1, .seq = 256, .seed = 42};
  lk_error e;
  lh_tokens *tokens = lh_tokens_check(L, 1);
  lh_options(L, 2, "host.text.loader", loader_option_list, 0, &o);
  lh_loader_options options = {o.seq, o.batch, (uint64_t)o.seed, o.sequential,
                               o.max_tokens};
  loader_object *object = lh_object_new(L, &loader_class, sizeof *object);
  if (lh_loader_new(tokens, &options, &object->loader, &e) != LK_OK)
    return lh_text_failed(L, &e);
  return 1;
}

static void push_rows(lua_State *L, const int32_t *ids, int64_t rows,
                      int64_t seq) {
  lua_createtable(L, (int)rows, 0);
  for (int64_t r = 0; r < rows; r++) {
    lua_createtable(L, (int)seq, 0);
    for (int64_t i = 0; i < seq; i++) {
      lua_pushinteger(L, ids[r * seq + i]);
      lua_rawseti(L, -2, i + 1);
    }
    lua_rawseti(L, -2, r + 1);
  }
}

static int loader_fill(lua_State *L) {
  lh_loader *l = lh_loader_check(L, 1);
  const lh_loader_options *o = lh_loader_about(l);
  int64_t step = lh_check_integer(L, 2, "step", 1, INT64_C(1) << 32);
  int64_t first = lh_check_integer(L, 3, "first", 1, o->batch);
  int64_t count = lh_check_integer(L, 4, "count", 1, o->batch - first + 1);
  int64_t ids = count * o->seq;
  lk_error e;
  void **box = lh_box_new(L);
  int32_t *x = *box = malloc((size_t)ids * 2 * sizeof *x);
  if (x == NULL) lh_raise(L, LK_OOM, "no memory for a batch of %lld ids",
                          (long long)ids);
  if (lh_loader_fill(l, step - 1, first - 1, count, x, x + ids, &e) != LK_OK)
    return lh_text_failed(L, &e);
  push_rows(L, x, count, o->seq);
  push_rows(L, x + ids, count, o->seq);
  return 2;
}

static int loader_windows(lua_State *L) {
  lua_pushinteger(L, lh_loader_windows(lh_loader_check(L, 1)));
  return 1;
}

static int loader_steps(lua_State *L) {
  lua_pushinteger(L, lh_loader_steps(lh_loader_check(L, 1)));
  return 1;
}

static int loader_epochs(lua_State *L) {
  lh_loader *l = lh_loader_check(L, 1);
  int64_t steps = lh_check_integer(L, 2, "steps", 0, INT64_C(1) << 32);
  lua_pushnumber(L, lh_loader_epochs(l, steps));
  return 1;
}

static int loader_info(lua_State *L) {
  lh_loader *l = lh_loader_check(L, 1);
  const lh_loader_options *o = lh_loader_about(l);
  lua_newtable(L);
  set_integer(L, "batch", o->batch);
  set_integer(L, "seq", o->seq);
  set_integer(L, "seed", (int64_t)o->seed);
  set_integer(L, "windows", lh_loader_windows(l));
  set_integer(L, "steps", lh_loader_steps(l));
  set_integer(L, "tokens", lh_tokens_about(lh_loader_tokens(l))->count);
  lua_pushboolean(L, o->sequential);
  lua_setfield(L, -2, "sequential");
  return 1;
}

static const lh_function loader_methods[] = {
    {"fill", loader_fill,
     "(step: integer, first: integer, count: integer): "
     "integer[][]|nil, integer[][]|string, string?",
     "Samples first … first + count - 1 of an optimizer step: rows of ids, and "
     "of their targets, one token ahead.", NULL},
    {"windows", loader_windows, "(): integer",
     "Samples of one epoch.", NULL},
    {"steps", loader_steps, "(): integer",
     "Optimizer steps that cover all windows once, rounded up.", NULL},
    {"epochs", loader_epochs, "(steps: integer): number",
     "Epochs that so many optimizer steps are.", NULL},
    {"info", loader_info, "(): table",
     "batch, seq, seed, windows, steps, tokens, sequential.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

/* --- the pipeline -------------------------------------------------------- */
typedef struct prepare_arguments {
  const char *source, *field, *tokenizer, *merges, *cache;
  int64_t files, vocab, seed, documents, max_chars, max_bytes, tokens;
  int64_t eval_tokens, threads;
  double validation;
  bool fresh;
} prepare_arguments;

#define AT(name) offsetof(prepare_arguments, name)
static const lh_option prepare_option_list[] = {
    {"source", LH_STRING, AT(source), 0, 0, NULL,
     "file of text or JSONL (plain, .gz, .zst), folder, pattern, '-' for "
     "standard input, or 'system' (system)"},
    {"field", LH_STRING, AT(field), 0, 0, NULL,
     "the field of a JSONL row that is text (text)"},
    {"files", LH_INTEGER, AT(files), 0, 9e15, NULL,
     "files of the source at most, in order (0: all)"},
    {"tokenizer", LH_STRING, AT(tokenizer), 0, 0, NULL,
     "path of a tokenizer.json; otherwise one is learned"},
    {"merges", LH_STRING, AT(merges), 0, 0, NULL,
     "path of a merges.txt, read by SmolLM's rules"},
    {"vocab", LH_INTEGER, AT(vocab), 257, LH_VOCAB_MOST, NULL,
     "ids of a learned vocabulary (4096)"},
    {"validation", LH_NUMBER, AT(validation), 0, 0.5, NULL,
     "share of the bytes held out, in whole documents (0.1)"},
    {"seed", LH_INTEGER, AT(seed), 0, 9e15, NULL,
     "decides which documents are held out (42)"},
    {"documents", LH_INTEGER, AT(documents), 0, 9e15, NULL,
     "documents at most (0: all)"},
    {"max_chars", LH_INTEGER, AT(max_chars), 0, 9e15, NULL,
     "characters of a document at most (0: all)"},
    {"max_bytes", LH_INTEGER, AT(max_bytes), 0, 9e15, NULL,
     "bytes to read at most (0: what the tokens need, or all)"},
    {"tokens", LH_INTEGER, AT(tokens), 0, 1e14, NULL,
     "training tokens wanted (0: all)"},
    {"eval_tokens", LH_INTEGER, AT(eval_tokens), 0, 9e15, NULL,
     "validation tokens at most (0: all)"},
    {"cache", LH_STRING, AT(cache), 0, 0, NULL,
     "folder of the cache (data_cache); '' for none"},
    {"threads", LH_INTEGER, AT(threads), 0, 64, NULL,
     "threads to use (0: one per core)"},
    {"fresh", LH_BOOLEAN, AT(fresh), 0, 0, NULL,
     "make everything again (false)"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};
#undef AT

/* What lh_prepare made, until Lua has all of it. */
static void prepared_close(void *object) { lh_prepared_free(object); }
static const lh_class prepared_class = {"host.text.prepared", NULL,
                                        prepared_close};

static void set_messages(lua_State *L, const lh_prepared *p) {
  lua_createtable(L, p->messages, 0);
  for (int i = 0; i < p->messages; i++) {
    lua_pushstring(L, p->message[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "messages");
}

static void push_prepared(lua_State *L, lh_prepared *p) {
  const lh_tokens_info *train = lh_tokens_about(p->train);
  const lh_tokens_info *held =
      p->validation ? lh_tokens_about(p->validation) : NULL;
  lua_newtable(L);
  set_hex(L, "key", p->key, 16);
  set_integer(L, "vocab", p->tokenizer->count);
  set_integer(L, "bytes", train->bytes + (held ? held->bytes : 0));
  set_integer(L, "documents", train->documents + (held ? held->documents : 0));
  set_integer(L, "dropped", train->dropped + (held ? held->dropped : 0));
  set_integer(L, "tokens", train->count);
  set_integer(L, "eval_tokens", held ? held->count : 0);
  set_hex(L, "train_checksum", train->crc, 8);
  if (held) set_hex(L, "validation_checksum", held->crc, 8);
  set_string(L, "tokenizer_path", p->tokenizer_path);
  set_string(L, "train_path", p->train_path);
  set_string(L, "validation_path", p->validation_path);
  lua_pushboolean(L, p->reused);
  lua_setfield(L, -2, "reused");
  set_messages(L, p);
  lh_tokenizer_push(L, &p->tokenizer);
  lua_setfield(L, -2, "tokenizer");
  lh_tokens_push(L, &p->train);
  lua_setfield(L, -2, "train");
  if (p->validation == NULL) return;
  lh_tokens_push(L, &p->validation);
  lua_setfield(L, -2, "validation");
}

static int text_prepare(lua_State *L) {
  prepare_arguments a = {.source = "system", .cache = "data_cache",
                         .vocab = 4096, .seed = 42, .validation = 0.1};
  lk_error e;
  lh_options(L, 1, "host.text.prepare", prepare_option_list, 0, &a);
  lh_prepare_options options = {
      .source = a.source, .max_files = a.files, .field = a.field,
      .tokenizer = a.tokenizer, .merges = a.merges, .vocab = a.vocab,
      .validation = a.validation,
      .seed = (uint64_t)a.seed, .max_documents = a.documents,
      .max_chars = a.max_chars, .max_bytes = a.max_bytes,
      .tokens = a.tokens, .eval_tokens = a.eval_tokens,
      .cache = *a.cache ? a.cache : NULL,
      .threads = (int)a.threads, .fresh = a.fresh};
  lh_prepared *p = lh_object_new(L, &prepared_class, sizeof *p);
  if (lh_prepare(&options, p, &e) != LK_OK) return lh_text_failed(L, &e);
  push_prepared(L, p);
  return 1;
}

static const lh_function functions[] = {
    {"tokens", text_tokens,
     "(options: table): host.text.tokens|nil, string?, string?",
     "Token ids: opened from a file, or a corpus encoded.",
     tokens_option_list},
    {"loader", text_loader,
     "(tokens: host.text.tokens, options?: table): "
     "host.text.loader|nil, string?, string?",
     "Batches from tokens, in an order that seed and step decide.",
     loader_option_list},
    {"prepare", text_prepare,
     "(options?: table): table|nil, string?, string?",
     "From a source to training and validation tokens, through the cache: "
     "tokenizer, train, validation, key, counts, paths, messages.",
     prepare_option_list},
    {NULL, NULL, NULL, NULL, NULL}};

void lh_open_text_data(lua_State *L) {
  lh_class_new(L, &tokens_class);
  lh_class_new(L, &loader_class);
  lh_class_new(L, &prepared_class);
  lh_register(L, "host.text", functions);
}
