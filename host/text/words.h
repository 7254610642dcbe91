/* How often each word of a text occurs. */
#ifndef LH_TEXT_WORDS_H
#define LH_TEXT_WORDS_H

#include "train.h"
#include "wordmap.h"

/* Count the words of all spans into the empty *counts (its keys point into the
 * spans), on `threads` threads; *counts is the caller's to free, after a
 * failure too. OOM. */
lk_status lh_words_count(const lh_span *spans, int64_t count, int threads,
                         lh_wordmap *counts, lk_error *e);

#endif
