/* Training a byte-level BPE vocabulary. */
#ifndef LH_TEXT_TRAIN_H
#define LH_TEXT_TRAIN_H

#include <stdint.h>

#include "tokenizer.h"

/* One piece of training text; words never span two. */
typedef struct lh_span {
  const char *text;
  int64_t size;
} lh_span;

/* Learn a vocabulary of `vocab` ids from the spans: "<|endoftext|>" is id 0,
 * the 256 bytes follow in the order of the byte alphabet, then one id per new
 * merged token. The most frequent pair is merged first, ties go to the smaller
 * (left, right); so the result is a function of the text alone, whatever
 * `threads` (≥ 1) is. Stops early when no pair occurs twice, so the vocabulary
 * may be smaller. ARGUMENT when vocab < 257, OOM. */
lk_status lh_tokenizer_train(const lh_span *spans, int64_t count,
                             int32_t vocab, int threads, lh_tokenizer **out,
                             lk_error *e);

#endif
