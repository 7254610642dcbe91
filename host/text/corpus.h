/* A corpus: documents in memory, each for training or held out whole for
 * validation. */
#ifndef LH_TEXT_CORPUS_H
#define LH_TEXT_CORPUS_H

#include <stdbool.h>
#include <stdint.h>

#include "source.h"

typedef struct lh_corpus_document {
  const char *text;       /* inside one of the corpus's blocks */
  int64_t size;           /* bytes */
  int64_t group;          /* documents of one file share it, and are adjacent */
  bool held_out;          /* for validation, never trained on */
} lh_corpus_document;

typedef struct lh_corpus_options {
  double validation;      /* share of the bytes held out, 0 to 0.5 */
  uint64_t seed;          /* decides which documents are held out */
  int64_t max_documents;  /* 0: all */
  int64_t max_chars;      /* of a document: the rest is cut off; 0: all */
  int64_t max_bytes;      /* of all documents; 0: all */
  const char *field;      /* of a JSONL row; NULL: "text"; not kept */
} lh_corpus_options;

typedef struct lh_corpus {
  int references;
  lh_corpus_document *documents; /* in the order of their files */
  int64_t count, room;
  int64_t bytes, held_bytes, held_count;
  int64_t files, skipped, duplicates; /* read; not text; same content */
  uint64_t key;           /* of the source and every option */
  char **blocks;          /* what the documents point into */
  int64_t block_count, block_room;
} lh_corpus;

/* The key a corpus of these options would have; reads nothing. */
uint64_t lh_corpus_key(const lh_source *source,
                       const lh_corpus_options *options);

/* Read a source. Documents are files; a file is cut where it says
 * "<|endoftext|>", and at blank lines into pieces of at most 32 KiB (or a 200th
 * of a source of few files; not under max_chars where there are many). All
 * pieces of a file are held out together, where there are 20 files or more; of
 * fewer, each by itself. Of a JSONL file each row is a document, uncut, held
 * out by itself. Packed files (.gz, .zst) are unpacked on the way. Found files
 * (folder, pattern, system) that are not UTF-8 text or repeat an earlier one
 * are passed over; a named file may hold any bytes but NUL. Under a limit
 * `system` takes files from all over, other sources their beginning.
 * ARGUMENT when nothing is left, or one document where two are needed; FORMAT
 * for a damaged file, naming line or byte. */
lk_status lh_corpus_read(const lh_source *source,
                         const lh_corpus_options *options, lh_corpus **out,
                         lk_error *e);
/* A corpus of documents in memory; copied. */
lk_status lh_corpus_of(const char *const *texts, const int64_t *sizes,
                       int64_t count, const lh_corpus_options *options,
                       lh_corpus **out, lk_error *e);
lh_corpus *lh_corpus_retain(lh_corpus *corpus);
void lh_corpus_release(lh_corpus *corpus); /* NULL is fine */

/* The documents' numbers in an order that only `seed` and `count` decide, for
 * unbiased samples; allocated, NULL without memory. */
int64_t *lh_shuffled(int64_t count, uint64_t seed);

#endif
