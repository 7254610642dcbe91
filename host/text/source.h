/* Where text comes from: a source's files, listed but not read, and the key
 * that changes when any of them does.
 *
 *   a path          a file of text or JSONL (.jsonl .ndjson), plain, .gz or
 *                   .zst, or a folder (all such files below it)
 *   a pattern       a shell pattern such as "book?.txt"
 *   -               standard input
 *   system          text this machine has anyway: C headers, Perl, Python and
 *                   Lua sources, documentation
 */
#ifndef LH_TEXT_SOURCE_H
#define LH_TEXT_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "../../kernels/base/status.h"

typedef struct lh_source_file {
  char *path;
  int64_t size, changed;  /* bytes; modification time in nanoseconds */
} lh_source_file;

typedef struct lh_source {
  char *name;             /* as given */
  lh_source_file *files;  /* sorted by path */
  int64_t count, room;
  int64_t bytes;          /* of all files, or of `text` */
  char *text;             /* standard input: read already; else NULL */
  bool mixed;             /* found, not named: skip what is not text */
  bool sampled;           /* a limit takes files from all over */
  uint64_t key;           /* of names, sizes and times, or of the text */
} lh_source;

/* List a source. `max_bytes` bounds what is read from standard input (0: no
 * bound but memory's). ARGUMENT for what is not a source or not there, naming
 * the alternatives; IO, OOM. lh_source_free in every case. */
lk_status lh_source_open(const char *name, int64_t max_bytes,
                         lh_source *source, lk_error *e);
/* Keep the first `files` files only; the key is theirs alone. */
void lh_source_limit(lh_source *source, int64_t files);
void lh_source_free(lh_source *source);

#endif
