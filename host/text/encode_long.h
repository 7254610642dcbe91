/* Merging the symbols of a long word in O(n log n). */
#ifndef LH_TEXT_ENCODE_LONG_H
#define LH_TEXT_ENCODE_LONG_H

#include "tokenizer.h"

/* Merge id[0 … *count) in place, lowest rank first and leftmost of equals, and
 * set *count to what is left. OOM. */
lk_status lh_merge_long(const lh_tokenizer *t, int32_t *id, int64_t *count,
                        lk_error *e);

#endif
