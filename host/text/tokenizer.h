/* A byte-level BPE tokenizer: vocabulary and merges, fixed once made, shared
 * by any number of encoders.
 *
 *   lh_tokenizer *t;
 *   LK_TRY(lh_tokenizer_load("tokenizer.json", &t, e));
 *   lh_encoder *encoder;
 *   if (lh_encoder_new(t, &encoder, e) == LK_OK) {
 *     lh_ids ids = {0};
 *     status = lh_encode(encoder, "hello", 5, &ids, e);
 *     …
 *
 * Ids are 0-based. A token is a byte string; specials stand outside the text
 * and are encoded only on request. */
#ifndef LH_TEXT_TOKENIZER_H
#define LH_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "../../kernels/base/status.h"
#include "wordmap.h"

enum {
  LH_VOCAB_MOST = 1 << 20,       /* ids a tokenizer may have */
  LH_TOKEN_BYTES_MOST = 1 << 16  /* bytes of one token */
};

typedef struct lh_merge {
  int32_t left, right, result; /* ids; the rank is the place in the list */
} lh_merge;

typedef struct lh_tokenizer {
  int references;
  int32_t count;          /* ids */
  int32_t specials;       /* how many of them are special */
  bool *special;          /* [count] */
  int64_t *offset;        /* [count + 1] into bytes */
  uint8_t *bytes;         /* the tokens' bytes, one after the other */
  int32_t byte_id[256];   /* id of each single byte, −1 when it has none */
  int32_t missing_bytes;  /* how many have none */
  int32_t end_id;         /* "<|endoftext|>", or −1 */
  int32_t merges;
  lh_merge *merge;        /* [merges] */
  int64_t pair_capacity;  /* open addressing: pair -> rank */
  uint64_t *pair_key;
  int32_t *pair_rank;
  uint64_t hash;          /* of everything that decides an encoding */
} lh_tokenizer;

/* --- making one ---------------------------------------------------------- */
/* What a tokenizer is made of; `token` and `size` are per id. Copied. */
typedef struct lh_tokenizer_parts {
  int32_t count;
  const uint8_t *const *token;
  const int32_t *size;
  const bool *special;
  int32_t merges;
  const lh_merge *merge;
} lh_tokenizer_parts;

/* Checks ids, sizes and that a merge's result is its two sides joined; FORMAT
 * says which id or merge is wrong. One reference is the caller's. */
lk_status lh_tokenizer_new(const lh_tokenizer_parts *parts,
                           lh_tokenizer **out, lk_error *e);
lh_tokenizer *lh_tokenizer_retain(lh_tokenizer *t);
void lh_tokenizer_release(lh_tokenizer *t); /* NULL is fine */

/* Read tokenizer.json (HF's format, model BPE over the byte-level alphabet
 * with the pre-tokenizer of pretokenize.h). */
lk_status lh_tokenizer_load(const char *path, lh_tokenizer **out,
                            lk_error *e);
/* As above, from text; `name` is for messages. */
lk_status lh_tokenizer_parse(const char *text, int64_t size, const char *name,
                             lh_tokenizer **out, lk_error *e);
/* Read merges.txt under SmolLM's rules: 17 specials, 235 byte characters in
 * code-point order, one id per merge. */
lk_status lh_tokenizer_load_merges(const char *path, lh_tokenizer **out,
                                   lk_error *e);
/* The text of tokenizer.json, allocated; the caller frees it. */
lk_status lh_tokenizer_json(const lh_tokenizer *t, char **text, int64_t *size,
                            lk_error *e);
/* Write tokenizer.json, atomically. */
lk_status lh_tokenizer_save(const lh_tokenizer *t, const char *path,
                            lk_error *e);

/* --- using one ----------------------------------------------------------- */
/* Rank of the merge of two ids, −1 when there is none. */
static inline int32_t lh_merge_rank(const lh_tokenizer *t, int32_t left,
                                    int32_t right) {
  uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
  uint64_t mask = (uint64_t)t->pair_capacity - 1;
  uint64_t i = (key * 0x9E3779B97F4A7C15ull >> 20) & mask;
  for (; t->pair_rank[i] >= 0; i = (i + 1) & mask)
    if (t->pair_key[i] == key) return t->pair_rank[i];
  return -1;
}

/* Bytes of a token; *size gets their number. Borrowed. */
static inline const uint8_t *lh_token(const lh_tokenizer *t, int32_t id,
                                      int64_t *size) {
  *size = t->offset[id + 1] - t->offset[id];
  return t->bytes + t->offset[id];
}

/* Id of the special token of this name, or −1. */
int32_t lh_tokenizer_special(const lh_tokenizer *t, const char *name);

/* Join the tokens' bytes into *text (allocated, NUL-ended, the caller frees
 * it). Specials give their name, or nothing with `skip_special`. ARGUMENT for
 * an id outside the vocabulary, naming its 1-based place. */
lk_status lh_decode(const lh_tokenizer *t, const int32_t *ids, int64_t count,
                    bool skip_special, char **text, int64_t *size,
                    lk_error *e);

/* --- the byte-level alphabet (GPT-2's bytes_to_unicode) ------------------ */
/* The code point that stands for a byte in vocabulary files. */
uint32_t lh_byte_char(int byte);
/* The byte a code point stands for, or −1. */
int lh_char_byte(uint32_t code);
/* Turn a name in that alphabet into bytes, in `out` (at least `size` bytes);
 * the number of bytes, or −1 when a character is outside the alphabet. */
int64_t lh_bytes_from_name(const char *name, int64_t size, uint8_t *out);

#endif
