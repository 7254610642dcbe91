/* Encoding: text into token ids. An encoder belongs to one thread; it caches
 * the ids of short words, which is where its speed comes from. */
#ifndef LH_TEXT_ENCODE_H
#define LH_TEXT_ENCODE_H

#include <stdbool.h>
#include <stdint.h>

#include "tokenizer.h"

/* A growing list of ids. Zero it, free(data) at the end. */
typedef struct lh_ids {
  int32_t *data;
  int64_t count, capacity;
} lh_ids;

typedef struct lh_encoder lh_encoder;

/* An encoder that keeps a reference to its tokenizer. OOM. */
lk_status lh_encoder_new(lh_tokenizer *t, lh_encoder **out, lk_error *e);
void lh_encoder_free(lh_encoder *encoder); /* NULL is fine */

/* Append the ids of `size` bytes of text to *ids. Any bytes are text; the
 * names of specials in it are ordinary characters. Bytes that have no token
 * (merges.txt with SmolLM's rules) are left out and counted. OOM. */
lk_status lh_encode(lh_encoder *encoder, const char *text, int64_t size,
                    lh_ids *ids, lk_error *e);
/* As above, but the names of special tokens give their ids. */
lk_status lh_encode_special(lh_encoder *encoder, const char *text,
                            int64_t size, lh_ids *ids, lk_error *e);
/* Bytes left out so far, over all calls. */
int64_t lh_encoder_dropped(const lh_encoder *encoder);

/* Make room for `more` ids; append one. OOM. */
lk_status lh_ids_reserve(lh_ids *ids, int64_t more, lk_error *e);
lk_status lh_ids_append(lh_ids *ids, int32_t id, lk_error *e);

#endif
