/* Encoding: words, their cache, and the merging of short words. */
#include "encode.h"

#include <stdlib.h>
#include <string.h>

#include "encode_long.h"
#include "hash64.h"
#include "pretokenize.h"

enum {
  SHORT = 48,             /* symbols merged by scanning; longer: a heap */
  CACHED = 64,            /* bytes of the longest word that is cached */
  CACHE_WORDS = 1 << 18,  /* the cache is emptied when it is full */
  COUNT_BITS = 8          /* of a cache value: ids of the word */
};

struct lh_encoder {
  lh_tokenizer *t;
  lh_wordmap cache;       /* word -> place in `ids` << COUNT_BITS | count */
  uint8_t *keys;          /* the cached words' bytes */
  int64_t key_bytes;
  lh_ids ids;             /* the cached words' ids */
  lh_ids symbols;         /* of the word at hand */
  int64_t dropped;
};

lk_status lh_ids_reserve(lh_ids *ids, int64_t more, lk_error *e) {
  if (ids->capacity - ids->count >= more) return LK_OK;
  int64_t capacity = ids->capacity + ids->capacity / 2 + more + 64;
  int32_t *data = realloc(ids->data, (size_t)capacity * sizeof *data);
  if (data == NULL)
    return lk_fail(e, LK_OOM, "no memory for %lld token ids",
                   (long long)capacity);
  ids->data = data;
  ids->capacity = capacity;
  return LK_OK;
}

lk_status lh_ids_append(lh_ids *ids, int32_t id, lk_error *e) {
  LK_TRY(lh_ids_reserve(ids, 1, e));
  ids->data[ids->count++] = id;
  return LK_OK;
}

lk_status lh_encoder_new(lh_tokenizer *t, lh_encoder **out, lk_error *e) {
  lh_encoder *encoder = calloc(1, sizeof *encoder);
  *out = encoder;
  if (encoder == NULL) return lk_fail(e, LK_OOM, "no memory for an encoder");
  encoder->t = lh_tokenizer_retain(t);
  encoder->keys = malloc((size_t)CACHE_WORDS * CACHED / 4);
  if (encoder->keys) return LK_OK;
  lh_encoder_free(encoder);
  *out = NULL;
  return lk_fail(e, LK_OOM, "no memory for an encoder's cache");
}

void lh_encoder_free(lh_encoder *encoder) {
  if (encoder == NULL) return;
  lh_tokenizer_release(encoder->t);
  lh_wordmap_free(&encoder->cache);
  free(encoder->keys);
  free(encoder->ids.data);
  free(encoder->symbols.data);
  free(encoder);
}

int64_t lh_encoder_dropped(const lh_encoder *encoder) {
  return encoder->dropped;
}

/* Merge `count` ≤ SHORT symbols in place: lowest rank first, leftmost of
 * equals; returns how many are left. */
static int64_t merge_short(const lh_tokenizer *t, int32_t *id, int64_t count) {
  int32_t rank[SHORT];
  for (int64_t i = 0; i + 1 < count; i++)
    rank[i] = lh_merge_rank(t, id[i], id[i + 1]);
  for (;;) {
    int64_t best = -1;
    for (int64_t i = 0; i + 1 < count; i++)
      if (rank[i] >= 0 && (best < 0 || rank[i] < rank[best])) best = i;
    if (best < 0) return count;
    id[best] = t->merge[rank[best]].result;
    count--;
    for (int64_t i = best + 1; i < count; i++) {
      id[i] = id[i + 1];
      rank[i - 1] = rank[i];
    }
    if (best > 0) rank[best - 1] = lh_merge_rank(t, id[best - 1], id[best]);
    if (best + 1 < count)
      rank[best] = lh_merge_rank(t, id[best], id[best + 1]);
  }
}

/* Encode one word, without the cache, into encoder->symbols. */
static lk_status encode_word(lh_encoder *encoder, const uint8_t *word,
                             int64_t size, lk_error *e) {
  lh_ids *symbols = &encoder->symbols;
  symbols->count = 0;
  LK_TRY(lh_ids_reserve(symbols, size, e));
  for (int64_t i = 0; i < size; i++) {
    int32_t id = encoder->t->byte_id[word[i]];
    if (id >= 0) symbols->data[symbols->count++] = id;
  }
  if (symbols->count > SHORT)
    return lh_merge_long(encoder->t, symbols->data, &symbols->count, e);
  symbols->count = merge_short(encoder->t, symbols->data, symbols->count);
  return LK_OK;
}

/* Remember the ids in `symbols` for a word that is not cached yet. */
static lk_status remember(lh_encoder *encoder, const uint8_t *word,
                          int64_t size, uint64_t hash, lk_error *e) {
  if (encoder->cache.count >= CACHE_WORDS ||
      encoder->key_bytes + size > (int64_t)CACHE_WORDS * CACHED / 4) {
    lh_wordmap_free(&encoder->cache);
    encoder->key_bytes = encoder->ids.count = 0;
  }
  int64_t count = encoder->symbols.count;
  uint8_t *key = encoder->keys + encoder->key_bytes;
  memcpy(key, word, (size_t)size);
  LK_TRY(lh_ids_reserve(&encoder->ids, count, e));
  lh_word *entry = lh_wordmap_insert(&encoder->cache, key, size, hash, NULL);
  if (entry == NULL) return lk_fail(e, LK_OOM, "no memory to cache words");
  entry->value = encoder->ids.count << COUNT_BITS | count;
  encoder->key_bytes += size;
  if (count > 0)
    memcpy(encoder->ids.data + encoder->ids.count, encoder->symbols.data,
           (size_t)count * sizeof(int32_t));
  encoder->ids.count += count;
  return LK_OK;
}

static lk_status append_word(lh_encoder *encoder, const uint8_t *word,
                             int64_t size, lh_ids *ids, lk_error *e) {
  const int32_t *from = NULL;
  int64_t count;
  uint64_t hash = size <= CACHED ? lh_hash64(word, (size_t)size, 0) : 0;
  lh_word *cached = size > CACHED ? NULL
      : lh_wordmap_find_hashed(&encoder->cache, word, size, hash);
  if (cached) {
    count = cached->value & ((1 << COUNT_BITS) - 1);
    if (count > 0) from = encoder->ids.data + (cached->value >> COUNT_BITS);
  } else {
    LK_TRY(encode_word(encoder, word, size, e));
    if (size <= CACHED) LK_TRY(remember(encoder, word, size, hash, e));
    from = encoder->symbols.data;
    count = encoder->symbols.count;
  }
  LK_TRY(lh_ids_reserve(ids, count, e));
  for (int64_t i = 0; i < count; i++) ids->data[ids->count++] = from[i];
  return LK_OK;
}

/* Bytes of this text that the vocabulary lacks. */
static int64_t count_dropped(const lh_tokenizer *t, const uint8_t *p,
                             int64_t size) {
  int64_t dropped = 0;
  if (t->missing_bytes == 0) return 0;
  for (int64_t i = 0; i < size; i++) dropped += t->byte_id[p[i]] < 0;
  return dropped;
}

lk_status lh_encode(lh_encoder *encoder, const char *text, int64_t size,
                    lh_ids *ids, lk_error *e) {
  const uint8_t *p = (const uint8_t *)text, *end = p + size;
  encoder->dropped += count_dropped(encoder->t, p, size);
  LK_TRY(lh_ids_reserve(ids, size / 3, e));
  while (p < end) {
    const uint8_t *next = lh_word_end(p, end);
    LK_TRY(append_word(encoder, p, next - p, ids, e));
    p = next;
  }
  return LK_OK;
}

/* The longest special whose name starts at p, or −1. */
static int32_t special_at(const lh_tokenizer *t, const char *p,
                          const char *end, int64_t *length) {
  int32_t best = -1;
  *length = 0;
  for (int32_t id = 0; id < t->count; id++) {
    int64_t size;
    if (!t->special[id]) continue;
    const uint8_t *name = lh_token(t, id, &size);
    if (size > *length && size <= end - p &&
        memcmp(p, name, (size_t)size) == 0) {
      best = id;
      *length = size;
    }
  }
  return best;
}

/* Which bytes any special's name starts with. */
static void mark_starts(const lh_tokenizer *t, bool start[256]) {
  memset(start, 0, 256 * sizeof *start);
  for (int32_t id = 0; id < t->count; id++)
    if (t->special[id]) start[t->bytes[t->offset[id]]] = true;
}

lk_status lh_encode_special(lh_encoder *encoder, const char *text,
                            int64_t size, lh_ids *ids, lk_error *e) {
  const char *from = text, *end = text + size;
  bool start[256];
  mark_starts(encoder->t, start);
  for (const char *p = text; p < end;) {
    int64_t length;
    int32_t id = start[(uint8_t)*p] ? special_at(encoder->t, p, end, &length)
                                    : -1;
    if (id < 0) {
      p++;
      continue;
    }
    LK_TRY(lh_encode(encoder, from, p - from, ids, e));
    LK_TRY(lh_ids_append(ids, id, e));
    from = p += length;
  }
  return lh_encode(encoder, from, end - from, ids, e);
}
