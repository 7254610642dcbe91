/* From a source to tokens, through the cache. */
#define _GNU_SOURCE
#include "prepare.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../sys/folder.h"
#include "corpus.h"
#include "encode_corpus.h"
#include "hash64.h"
#include "source.h"

enum { VERSION = 1 };     /* of the pipeline: another one, other keys */
/* Text to read for a wanted number of tokens: more bytes than a token ever has
 * on average, and enough for a tokenizer to learn from. */
enum { BYTES_PER_TOKEN = 8, BYTES_LEAST = 8 << 20 };

__attribute__((format(printf, 2, 3)))
static void tell(lh_prepared *p, const char *format, ...) {
  va_list args;
  if (p->messages == LH_PREPARE_MESSAGES) return;
  va_start(args, format);
  vsnprintf(p->message[p->messages++], LH_PREPARE_TEXT, format, args);
  va_end(args);
}

static lh_corpus_options corpus_options(const lh_prepare_options *o) {
  lh_corpus_options c = {o->validation, o->seed, o->max_documents,
                         o->max_chars, o->max_bytes, o->field};
  if (o->tokens > 0 && o->max_bytes == 0 && o->max_documents == 0) {
    double bytes = (double)o->tokens * BYTES_PER_TOKEN;
    if (bytes < BYTES_LEAST) bytes = BYTES_LEAST;
    bytes /= 1 - o->validation;
    if (bytes < 1e15) c.max_bytes = (int64_t)bytes;
  }
  return c;
}

/* The key of everything that matters. `given` is the tokenizer that was given,
 * or NULL when one is trained. */
static uint64_t pipeline_key(const lh_prepare_options *o,
                             const lh_source *source,
                             const lh_tokenizer *given) {
  lh_corpus_options c = corpus_options(o);
  uint64_t h = lh_hash_number(VERSION, lh_corpus_key(source, &c));
  h = lh_hash_number(given ? (int64_t)given->hash : o->vocab, h);
  h = lh_hash_number(o->tokens, h);
  return lh_hash_number(o->eval_tokens, h);
}

/* --- cache --------------------------------------------------------------- */
static lk_status name_files(const lh_prepare_options *o, lh_prepared *p,
                            lk_error *e) {
  struct { char **path; const char *ending; } files[] = {
      {&p->tokenizer_path, "tokenizer.json"},
      {&p->train_path, "train.tokens"},
      {&p->validation_path, "validation.tokens"}};
  if (o->cache == NULL) return LK_OK;
  for (int i = 0; i < (o->validation > 0 ? 3 : 2); i++) {
    if (asprintf(files[i].path, "%s/%016llx.%s", o->cache,
                 (unsigned long long)p->key, files[i].ending) < 0) {
      *files[i].path = NULL;
      return lk_fail(e, LK_OOM, "no memory for file names");
    }
  }
  return LK_OK;
}

/* Open one token file of the cache and check that it is the one meant. */
static lk_status open_cached(const lh_prepared *p, const char *path,
                             lh_tokens **out, lk_error *e) {
  LK_TRY(lh_tokens_open(path, out, e));
  const lh_tokens_info *info = lh_tokens_about(*out);
  if (info->source == p->key && info->tokenizer == p->tokenizer->hash)
    return LK_OK;
  lh_tokens_release(*out);
  *out = NULL;
  return lk_fail(e, LK_FORMAT, "token file '%s': made from something else",
                 path);
}

static void forget(lh_prepared *p) {
  lh_tokenizer_release(p->tokenizer);
  lh_tokens_release(p->train);
  lh_tokens_release(p->validation);
  p->tokenizer = NULL;
  p->train = p->validation = NULL;
}

/* Take everything from the cache; false when a part is missing or damaged,
 * which is told in the second case. */
static bool take_cached(const lh_prepare_options *o, lh_prepared *p) {
  lk_error e;
  const char *const paths[] = {p->tokenizer_path, p->train_path,
                               p->validation_path};
  if (o->cache == NULL || o->fresh) return false;
  for (int i = 0; i < 3; i++)
    if (paths[i] && access(paths[i], F_OK) != 0) return false;
  lk_status status = lh_tokenizer_load(p->tokenizer_path, &p->tokenizer, &e);
  if (status == LK_OK) status = open_cached(p, p->train_path, &p->train, &e);
  if (status == LK_OK && p->validation_path)
    status = open_cached(p, p->validation_path, &p->validation, &e);
  if (status == LK_OK) return true;
  tell(p, "%s; the cache is made again.", e.message);
  forget(p);
  return false;
}

/* Write what was made, then use it from there, so that a first and a second
 * run read the same file and memory is free again. */
static lk_status store(lh_prepared *p, const lh_prepare_options *o,
                       lk_error *e) {
  lh_tokens **tokens[] = {&p->train, &p->validation};
  const char *const paths[] = {p->train_path, p->validation_path};
  if (o->cache == NULL) return LK_OK;
  LK_TRY(lh_folder_make(o->cache, e));
  LK_TRY(lh_tokenizer_save(p->tokenizer, p->tokenizer_path, e));
  for (int i = 0; i < 2; i++) {
    if (*tokens[i] == NULL) continue;
    LK_TRY(lh_tokens_save(*tokens[i], paths[i], e));
    lh_tokens_release(*tokens[i]);
    *tokens[i] = NULL;
    LK_TRY(lh_tokens_open(paths[i], tokens[i], e));
  }
  return LK_OK;
}

/* --- making -------------------------------------------------------------- */
static void tell_about(lh_prepared *p, const lh_prepare_options *o,
                       const lh_corpus *corpus) {
  const lh_tokens_info *train = lh_tokens_about(p->train);
  int64_t dropped = train->dropped;
  if (p->validation) dropped += lh_tokens_about(p->validation)->dropped;
  if (corpus->skipped > 0)
    tell(p, "Passed over in '%s': %lld of its files (not UTF-8 text).",
         o->source, (long long)corpus->skipped);
  if (dropped > 0)
    tell(p, "%lld bytes of '%s' have no token in this vocabulary and were "
         "left out.", (long long)dropped, o->source);
  if (o->tokens > train->count)
    tell(p, "'%s' gives %lld training tokens, fewer than the %lld wanted.",
         o->source, (long long)train->count, (long long)o->tokens);
  if (!o->tokenizer && !o->merges && p->tokenizer->count < o->vocab)
    tell(p, "'%s' teaches a vocabulary of %d ids only, fewer than the %lld "
         "wanted.", o->source, p->tokenizer->count, (long long)o->vocab);
}

static lk_status make(const lh_prepare_options *o, const lh_source *source,
                      lh_tokenizer *given, lh_prepared *p, lk_error *e) {
  int threads = o->threads > 0 ? o->threads
                               : (int)sysconf(_SC_NPROCESSORS_ONLN);
  lh_corpus_options options = corpus_options(o);
  lh_corpus *corpus;
  LK_TRY(lh_corpus_read(source, &options, &corpus, e));
  lk_status status = LK_OK;
  if (given) p->tokenizer = lh_tokenizer_retain(given);
  else status = lh_corpus_train(corpus, (int32_t)o->vocab, threads,
                                &p->tokenizer, e);
  if (status == LK_OK)
    status = lh_corpus_encode(corpus, p->tokenizer, false, o->tokens, threads,
                              p->key, o->source, &p->train, e);
  if (status == LK_OK && o->validation > 0)
    status = lh_corpus_encode(corpus, p->tokenizer, true, o->eval_tokens,
                              threads, p->key, o->source, &p->validation, e);
  if (status == LK_OK) tell_about(p, o, corpus);
  lh_corpus_release(corpus);
  return status == LK_OK ? store(p, o, e) : status;
}

static lk_status load_given(const lh_prepare_options *o, lh_tokenizer **given,
                            lk_error *e) {
  *given = NULL;
  if (o->tokenizer && o->merges)
    return lk_fail(e, LK_ARGUMENT, "give a tokenizer or merges, not both");
  if (o->tokenizer) return lh_tokenizer_load(o->tokenizer, given, e);
  if (o->merges) return lh_tokenizer_load_merges(o->merges, given, e);
  return LK_OK;
}

lk_status lh_prepare(const lh_prepare_options *options, lh_prepared *out,
                     lk_error *e) {
  lh_source source;
  lh_tokenizer *given = NULL;
  *out = (lh_prepared){0};
  lk_status status = lh_source_open(options->source, options->max_bytes,
                                    &source, e);
  if (status == LK_OK && options->max_files > 0)
    lh_source_limit(&source, options->max_files);
  if (status == LK_OK) status = load_given(options, &given, e);
  if (status == LK_OK) {
    out->key = pipeline_key(options, &source, given);
    status = name_files(options, out, e);
  }
  if (status == LK_OK) {
    out->reused = take_cached(options, out);
    if (!out->reused) status = make(options, &source, given, out, e);
  }
  lh_tokenizer_release(given);
  lh_source_free(&source);
  return status;
}

void lh_prepared_free(lh_prepared *prepared) {
  forget(prepared);
  free(prepared->tokenizer_path);
  free(prepared->train_path);
  free(prepared->validation_path);
  *prepared = (lh_prepared){0};
}
