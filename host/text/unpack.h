/* Reading a file that may be packed: plain, gzip (.gz) or Zstandard (.zst), as
 * one stream of bytes. What is damaged or cut short is an error that names the
 * file and the byte. */
#ifndef LH_TEXT_UNPACK_H
#define LH_TEXT_UNPACK_H

#include <stdbool.h>
#include <stdint.h>

#include "../../kernels/base/status.h"

typedef enum lh_packing { LH_PLAIN, LH_GZIP, LH_ZSTD } lh_packing;

/* How a file of this name is packed, by its ending. */
lh_packing lh_packing_of(const char *name);
/* The version of the library that unpacks it; NULL: not in this build. */
const char *lh_packing_version(lh_packing packing);
/* ARGUMENT, with what to install, when this build cannot unpack the file. */
lk_status lh_packing_check(const char *name, lk_error *e);
/* Whether a name ends in .jsonl or .ndjson, packed or not. */
bool lh_is_jsonl(const char *name);

typedef struct lh_unpack lh_unpack;

/* Open a regular file. IO, OOM, ARGUMENT (lh_packing_check). */
lk_status lh_unpack_open(const char *path, lh_unpack **out, lk_error *e);
/* The next bytes, at most `room` (≥ 1); *got < room only at the end. FORMAT:
 * damaged or cut short; IO. */
lk_status lh_unpack_read(lh_unpack *u, void *to, int64_t room, int64_t *got,
                         lk_error *e);
void lh_unpack_close(lh_unpack *u); /* NULL is fine */

#endif
