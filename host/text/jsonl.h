/* JSONL: one JSON object a line, of which one field is text. */
#ifndef LH_TEXT_JSONL_H
#define LH_TEXT_JSONL_H

#include <stdbool.h>
#include <stdint.h>

#include "../../kernels/base/status.h"

/* What is done with each text; it is only borrowed. Set *enough to stop. */
typedef lk_status lh_jsonl_take(void *context, const char *text, int64_t size,
                                bool *enough, lk_error *e);

/* Read a file, packed or not (unpack.h), line by line, and hand on each
 * line's string under `field`. Blank lines and rows whose field is null are
 * passed over. FORMAT names file and line: not JSON, not an object, no such
 * field (and which there are), not a string, a line over 64 MiB; for packed
 * files also the byte that is damaged. Otherwise what `take` gives. */
lk_status lh_jsonl_read(const char *path, const char *field,
                        lh_jsonl_take *take, void *context, lk_error *e);

#endif
