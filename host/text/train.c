/* Training: from word counts to merges. Words are rows of symbols; for every
 * pair of neighbouring symbols there is a count and a list of the words that
 * may hold it; a heap finds the most frequent pair, and a merge touches only
 * the words in that pair's list (Sennrich et al. 2016, incrementally). */
#include "train.h"

#include <stdlib.h>
#include <string.h>

#include "../sys/signal.h"
#include "hash64.h"
#include "pairs.h"
#include "words.h"

enum { BYTES = 256, FIRST_BYTE = 1, FIRST_MERGED = FIRST_BYTE + BYTES };

typedef struct trainer {
  int32_t vocab;
  /* words: symbols[start[w] … start[w] + length[w]), occurring times[w] */
  int64_t words;
  int32_t *symbols;
  int64_t *start, *times;
  int32_t *length;
  lh_pairs pairs;
  /* vocabulary */
  int32_t tokens;
  uint8_t **token;
  int32_t *size;
  lh_wordmap ids;         /* token bytes -> id */
  int32_t merges, merge_room;
  lh_merge *merge;
} trainer;

static lk_status no_memory(lk_error *e) {
  return lk_fail(e, LK_OOM, "no memory to train a tokenizer");
}

/* Add a token; its bytes become the trainer's. −1 when memory is exhausted. */
static int32_t add_token(trainer *r, uint8_t *bytes, int32_t size) {
  bool added;
  if (bytes == NULL) return -1;
  lh_word *word = lh_wordmap_insert(&r->ids, bytes, size,
                                    lh_hash64(bytes, (size_t)size, 0), &added);
  if (word == NULL || !added) {
    free(bytes);
    return word ? (int32_t)word->value : -1;
  }
  word->value = r->tokens;
  r->token[r->tokens] = bytes;
  r->size[r->tokens] = size;
  return r->tokens++;
}

static uint8_t *copy_bytes(const void *bytes, size_t size) {
  uint8_t *copy = malloc(size);
  if (copy) memcpy(copy, bytes, size);
  return copy;
}

/* Id 0 is the end of a text; then the bytes, sorted by their characters. */
static lk_status start_vocabulary(trainer *r, lk_error *e) {
  static const char end[] = "<|endoftext|>";
  r->token = calloc((size_t)r->vocab, sizeof *r->token);
  r->size = calloc((size_t)r->vocab, sizeof *r->size);
  if (!r->token || !r->size) return no_memory(e);
  r->token[0] = copy_bytes(end, sizeof end - 1);
  r->size[0] = sizeof end - 1;
  r->tokens = 1;
  if (r->token[0] == NULL) return no_memory(e);
  for (uint32_t code = 0; code < 0x144; code++) {
    int byte = lh_char_byte(code);
    if (byte < 0) continue;
    uint8_t value = (uint8_t)byte;
    if (add_token(r, copy_bytes(&value, 1), 1) < 0) return no_memory(e);
  }
  return LK_OK;
}

static int32_t byte_symbol(const trainer *r, uint8_t byte) {
  return (int32_t)lh_wordmap_find(&r->ids, &byte, 1)->value;
}

/* Words of one byte hold no pair; words longer than a token may be teach
 * nothing that is worth an id. */
static bool can_merge(const lh_word *word) {
  return word->size >= 2 && word->size <= LH_TOKEN_BYTES_MOST;
}

/* Turn counted words into rows of symbols. */
static lk_status load_words(trainer *r, const lh_wordmap *counts,
                            lk_error *e) {
  int64_t symbols = 0;
  int32_t symbol[BYTES];
  for (int byte = 0; byte < BYTES; byte++)
    symbol[byte] = byte_symbol(r, (uint8_t)byte);
  for (int64_t i = 0; i < counts->capacity; i++)
    symbols += can_merge(&counts->slots[i]) ? counts->slots[i].size : 0;
  r->symbols = malloc((size_t)symbols * sizeof *r->symbols + 1);
  r->start = malloc((size_t)counts->count * sizeof *r->start + 1);
  r->times = malloc((size_t)counts->count * sizeof *r->times + 1);
  r->length = malloc((size_t)counts->count * sizeof *r->length + 1);
  if (!r->symbols || !r->start || !r->times || !r->length) return no_memory(e);
  int64_t at = 0;
  for (int64_t i = 0; i < counts->capacity; i++) {
    const lh_word *word = &counts->slots[i];
    if (word->key == NULL || !can_merge(word)) continue;
    r->start[r->words] = at;
    r->times[r->words] = word->value;
    r->length[r->words++] = (int32_t)word->size;
    for (uint32_t k = 0; k < word->size; k++)
      r->symbols[at++] = symbol[word->key[k]];
  }
  return LK_OK;
}

static lk_status count_pairs(trainer *r, lk_error *e) {
  for (int64_t w = 0; w < r->words; w++) {
    const int32_t *symbol = r->symbols + r->start[w];
    for (int32_t i = 0; i + 1 < r->length[w]; i++)
      if (!lh_pairs_add(&r->pairs, symbol[i], symbol[i + 1], r->times[w], w))
        return no_memory(e);
  }
  return lh_pairs_queue_changed(&r->pairs) ? LK_OK : no_memory(e);
}

/* Replace the pair by `result` in one word, keeping all counts. */
static bool merge_in_word(trainer *r, int64_t w, const lh_merge *m) {
  int32_t *symbol = r->symbols + r->start[w];
  int32_t length = r->length[w], out = 0;
  int64_t times = r->times[w];
  for (int32_t i = 0; i < length; i++) {
    if (i + 1 >= length || symbol[i] != m->left || symbol[i + 1] != m->right) {
      symbol[out++] = symbol[i];
      continue;
    }
    if (out > 0) {
      lh_pairs_remove(&r->pairs, symbol[out - 1], m->left, times);
      if (!lh_pairs_add(&r->pairs, symbol[out - 1], m->result, times, w))
        return false;
    }
    if (i + 2 < length) {
      lh_pairs_remove(&r->pairs, m->right, symbol[i + 2], times);
      if (!lh_pairs_add(&r->pairs, m->result, symbol[i + 2], times, w))
        return false;
    }
    symbol[out++] = m->result;
    i++;
  }
  r->length[w] = out;
  return true;
}

/* The id of the joined token: a new one, or the one that has these bytes. */
static int32_t join_tokens(trainer *r, int32_t left, int32_t right) {
  int32_t size = r->size[left] + r->size[right];
  uint8_t *bytes = malloc((size_t)size);
  if (bytes == NULL) return -1;
  memcpy(bytes, r->token[left], (size_t)r->size[left]);
  memcpy(bytes + r->size[left], r->token[right], (size_t)r->size[right]);
  return add_token(r, bytes, size);
}

static bool append_merge(trainer *r, const lh_merge *m) {
  if (r->merges == r->merge_room) {
    int32_t room = r->merge_room * 2 + 1024;
    lh_merge *merge = realloc(r->merge, (size_t)room * sizeof *merge);
    if (merge == NULL) return false;
    r->merge = merge;
    r->merge_room = room;
  }
  r->merge[r->merges++] = *m;
  return true;
}

static bool apply_merge(trainer *r, const lh_merge *m) {
  int64_t count;
  bool again;
  int64_t *where = lh_pairs_take(&r->pairs, m->left, m->right, &count, &again);
  bool fine = again || append_merge(r, m);
  for (int64_t i = 0; fine && i < count; i++)
    fine = merge_in_word(r, where[i], m);
  free(where);
  return fine && lh_pairs_queue_changed(&r->pairs);
}

static lk_status learn(trainer *r, lk_error *e) {
  lh_merge m;
  while (r->tokens < r->vocab &&
         lh_pairs_most(&r->pairs, 2, &m.left, &m.right)) {
    LK_TRY(lh_signal_check(e));
    m.result = join_tokens(r, m.left, m.right);
    if (m.result < 0 || !apply_merge(r, &m)) return no_memory(e);
  }
  return LK_OK;
}

static lk_status finish(const trainer *r, lh_tokenizer **out, lk_error *e) {
  bool *special = calloc((size_t)r->tokens, sizeof *special);
  if (special == NULL) return no_memory(e);
  special[0] = true;
  lh_tokenizer_parts parts = {
      .count = r->tokens, .token = (const uint8_t *const *)r->token,
      .size = r->size, .special = special,
      .merges = r->merges, .merge = r->merge};
  lk_status status = lh_tokenizer_new(&parts, out, e);
  free(special);
  return status;
}

static void trainer_free(trainer *r) {
  for (int32_t i = 0; i < r->tokens; i++) free(r->token[i]);
  free(r->token);
  free(r->size);
  free(r->symbols);
  free(r->start);
  free(r->times);
  free(r->length);
  free(r->merge);
  lh_wordmap_free(&r->ids);
  lh_pairs_free(&r->pairs);
}

lk_status lh_tokenizer_train(const lh_span *spans, int64_t count,
                             int32_t vocab, int threads, lh_tokenizer **out,
                             lk_error *e) {
  *out = NULL;
  if (vocab < FIRST_MERGED || vocab > LH_VOCAB_MOST)
    return lk_fail(e, LK_ARGUMENT,
                   "a vocabulary of %d ids cannot be trained: 257 to %d are "
                   "possible (256 bytes and the end of a text)",
                   vocab, LH_VOCAB_MOST);
  trainer r = {.vocab = vocab};
  lh_wordmap counts = {0};
  lk_status status = lh_words_count(spans, count, threads, &counts, e);
  if (status == LK_OK) status = start_vocabulary(&r, e);
  if (status == LK_OK) status = load_words(&r, &counts, e);
  lh_wordmap_free(&counts);
  if (status == LK_OK) status = count_pairs(&r, e);
  if (status == LK_OK) status = learn(&r, e);
  if (status == LK_OK) status = finish(&r, out, e);
  trainer_free(&r);
  return status;
}
