/* Token files: an encoded text on disk, with a header that says what it is.
 *
 *   bytes 0–255   header, little-endian (see tokens.c), with a CRC of its own
 *   bytes 256–    count ids, u16 where the vocabulary allows it, else u32
 *
 * Opening checks the header, the length, the payload's CRC-32, and that every
 * id lies inside the vocabulary, so that a reader may index with them. */
#ifndef LH_TEXT_TOKENS_H
#define LH_TEXT_TOKENS_H

#include <stdbool.h>
#include <stdint.h>

#include "../../kernels/base/status.h"

enum { LH_TOKENS_HEADER = 256, LH_TOKENS_NAME = 128 };

typedef struct lh_tokens_info {
  int64_t count;          /* ids */
  int64_t vocab;          /* every id is below */
  int64_t documents;      /* each ends with the end-of-text id */
  int64_t bytes;          /* of the text they came from */
  int64_t dropped;        /* bytes of it without a token */
  uint64_t tokenizer;     /* lh_tokenizer.hash */
  uint64_t source;        /* key of the pipeline that made the file */
  bool validation;        /* held-out text */
  uint32_t crc;           /* of the payload; set by the functions below */
  char name[LH_TOKENS_NAME]; /* of the source, cut to fit */
} lh_tokens_info;

typedef struct lh_tokens lh_tokens;

/* Open a token file and check all of it. The file stays open and is read by
 * pread when asked for. IO, FORMAT (what is wrong with it), OOM. */
lk_status lh_tokens_open(const char *path, lh_tokens **out, lk_error *e);
/* Tokens in memory, from ids (copied). ARGUMENT when one is outside vocab. */
lk_status lh_tokens_new(const lh_tokens_info *info, const int32_t *ids,
                        lh_tokens **out, lk_error *e);
lh_tokens *lh_tokens_retain(lh_tokens *tokens);
void lh_tokens_release(lh_tokens *tokens); /* NULL is fine */

/* Write a token file, atomically. */
lk_status lh_tokens_save(const lh_tokens *tokens, const char *path,
                         lk_error *e);

/* Token files of other programs. llm.c: a header of 256 int32 (magic 20240520,
 * version 1, count; or 20240801, version 7), then u16 (or u32) ids. nanoGPT:
 * u16 ids and nothing else. They say neither tokenizer nor documents. */
typedef enum lh_tokens_format {
  LH_TOKENS_OWN, LH_TOKENS_LLMC, LH_TOKENS_NANOGPT
} lh_tokens_format;

/* What a file's first bytes say: llm.c's, or else our own. IO. */
lk_status lh_tokens_format_of(const char *path, lh_tokens_format *format,
                              lk_error *e);
/* Open one; every id is read once. `vocab`: every id must be below, 0: one more
 * than the largest. FORMAT says what is wrong with the file; IO, OOM. */
lk_status lh_tokens_import(const char *path, lh_tokens_format format,
                           int64_t vocab, lh_tokens **out, lk_error *e);
/* Write one, atomically. ARGUMENT when the ids do not fit the format. */
lk_status lh_tokens_export(const lh_tokens *tokens, lh_tokens_format format,
                           const char *path, lk_error *e);

const lh_tokens_info *lh_tokens_about(const lh_tokens *tokens);
/* The file they were opened from, or NULL. */
const char *lh_tokens_path(const lh_tokens *tokens);
/* Ids first … first + count − 1 (0-based) into `ids`; safe from any thread.
 * ARGUMENT outside the range; IO, FORMAT when the file has changed. */
lk_status lh_tokens_read(const lh_tokens *tokens, int64_t first,
                         int64_t count, int32_t *ids, lk_error *e);

#endif
