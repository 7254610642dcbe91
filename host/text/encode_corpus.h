/* A corpus into tokens, on several threads. */
#ifndef LH_TEXT_ENCODE_CORPUS_H
#define LH_TEXT_ENCODE_CORPUS_H

#include "corpus.h"
#include "tokenizer.h"
#include "tokens.h"

/* Train a tokenizer of `vocab` ids on the corpus's training documents, on 20 MB
 * of them taken from all over where there are more. */
lk_status lh_corpus_train(const lh_corpus *corpus, int32_t vocab, int threads,
                          lh_tokenizer **out, lk_error *e);

/* Encode the training documents, or those held out, each followed by the
 * end-of-text id. With max_tokens > 0, documents from all over are taken until
 * that many tokens are there, the last one cut. The order is the corpus's, the
 * same for any number of threads. `source` and `name` go into the header.
 * ARGUMENT when there is no such document; OOM. */
lk_status lh_corpus_encode(const lh_corpus *corpus, lh_tokenizer *t,
                           bool held_out, int64_t max_tokens, int threads,
                           uint64_t source, const char *name, lh_tokens **out,
                           lk_error *e);

#endif
