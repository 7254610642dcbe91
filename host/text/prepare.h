/* From a source to training and validation tokens, through the cache. */
#ifndef LH_TEXT_PREPARE_H
#define LH_TEXT_PREPARE_H

#include "tokenizer.h"
#include "tokens.h"

typedef struct lh_prepare_options {
  const char *source;     /* see source.h */
  int64_t max_files;      /* of the source, in order; 0: all */
  const char *tokenizer;  /* tokenizer.json; NULL: train one, or `merges` */
  const char *merges;     /* merges.txt under SmolLM's rules; NULL */
  int64_t vocab;          /* ids of a tokenizer that is trained */
  double validation;      /* share of the bytes held out */
  uint64_t seed;          /* decides which documents are held out */
  int64_t max_documents, max_chars, max_bytes; /* as in corpus.h; 0: all */
  const char *field;      /* of JSONL rows; NULL: "text" */
  int64_t tokens;         /* training tokens wanted; 0: all */
  int64_t eval_tokens;    /* validation tokens at most; 0: all */
  const char *cache;      /* folder; NULL: no cache */
  int threads;            /* 0: one per core */
  bool fresh;             /* make everything again */
} lh_prepare_options;

enum { LH_PREPARE_MESSAGES = 8, LH_PREPARE_TEXT = 512 };

typedef struct lh_prepared {
  lh_tokenizer *tokenizer;
  lh_tokens *train, *validation; /* validation NULL when its share is 0 */
  uint64_t key;           /* names the cache's files */
  bool reused;            /* from the cache, without reading the source */
  char *tokenizer_path, *train_path, *validation_path; /* NULL: no cache */
  int messages;           /* what a user should know, whole sentences */
  char message[LH_PREPARE_MESSAGES][LH_PREPARE_TEXT];
} lh_prepared;

/* Do all of it, or take it from the cache: the key covers the source's files
 * with sizes and times, every option and the tokenizer, so equal keys mean
 * equal bytes. A damaged cache file is made again, with a message.
 * lh_prepared_free in every case. */
lk_status lh_prepare(const lh_prepare_options *options, lh_prepared *out,
                     lk_error *e);
void lh_prepared_free(lh_prepared *prepared);

#endif
