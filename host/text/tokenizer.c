/* A byte-level BPE tokenizer: its tables, decoding, the byte alphabet. */
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "hash64.h"
#include "unicode.h"

/* --- alphabet ------------------------------------------------------------ */
static bool is_plain(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) ||
         (byte >= 0xAE && byte <= 0xFF);
}

/* Plain bytes stand for themselves, the others follow from U+0100 on: 0x00 to
 * 0x20, 0x7F to 0xA0, 0xAD. */
uint32_t lh_byte_char(int byte) {
  if (is_plain(byte)) return (uint32_t)byte;
  if (byte <= 0x20) return 0x100u + (uint32_t)byte;
  if (byte <= 0xA0) return 0x121u + (uint32_t)(byte - 0x7F);
  return 0x143u;
}

int lh_char_byte(uint32_t code) {
  if (code < 0x100) return is_plain((int)code) ? (int)code : -1;
  if (code <= 0x120) return (int)code - 0x100;
  if (code <= 0x142) return (int)code - 0x121 + 0x7F;
  return code == 0x143 ? 0xAD : -1;
}

int64_t lh_bytes_from_name(const char *name, int64_t size, uint8_t *out) {
  const uint8_t *p = (const uint8_t *)name, *end = p + size;
  int64_t count = 0;
  while (p < end) {
    uint32_t code;
    int length = lh_utf8_decode(p, end, &code);
    int byte = length ? lh_char_byte(code) : -1;
    if (byte < 0) return -1;
    out[count++] = (uint8_t)byte;
    p += length;
  }
  return count;
}

/* --- making -------------------------------------------------------------- */
static lk_status copy_tokens(lh_tokenizer *t, const lh_tokenizer_parts *parts,
                             lk_error *e) {
  int64_t total = 0;
  for (int32_t id = 0; id < parts->count; id++) {
    if (parts->size[id] < 1 || parts->size[id] > LH_TOKEN_BYTES_MOST)
      return lk_fail(e, LK_FORMAT, "token %d has %d bytes (allowed: 1 to %d)",
                     id, parts->size[id], LH_TOKEN_BYTES_MOST);
    total += parts->size[id];
  }
  t->offset = calloc((size_t)parts->count + 1, sizeof *t->offset);
  t->special = calloc((size_t)parts->count, sizeof *t->special);
  t->bytes = malloc((size_t)total);
  if (!t->offset || !t->special || !t->bytes)
    return lk_fail(e, LK_OOM, "no memory for a vocabulary of %d tokens",
                   parts->count);
  for (int32_t id = 0; id < parts->count; id++) {
    memcpy(t->bytes + t->offset[id], parts->token[id], (size_t)parts->size[id]);
    t->offset[id + 1] = t->offset[id] + parts->size[id];
    t->special[id] = parts->special[id];
    t->specials += parts->special[id];
  }
  t->count = parts->count;
  return LK_OK;
}

static lk_status index_bytes(lh_tokenizer *t, lk_error *e) {
  memset(t->byte_id, 0xFF, sizeof t->byte_id);
  for (int32_t id = 0; id < t->count; id++) {
    int64_t size;
    const uint8_t *token = lh_token(t, id, &size);
    if (t->special[id] || size != 1) continue;
    if (t->byte_id[*token] >= 0)
      return lk_fail(e, LK_FORMAT, "tokens %d and %d are the same byte 0x%02X",
                     t->byte_id[*token], id, *token);
    t->byte_id[*token] = id;
  }
  for (int byte = 0; byte < 256; byte++)
    t->missing_bytes += t->byte_id[byte] < 0;
  return LK_OK;
}

/* Whether the result of a merge is its left token followed by its right. */
static bool merge_joins(const lh_tokenizer *t, const lh_merge *m) {
  int64_t left, right, whole;
  const uint8_t *a = lh_token(t, m->left, &left);
  const uint8_t *b = lh_token(t, m->right, &right);
  const uint8_t *c = lh_token(t, m->result, &whole);
  return whole == left + right && memcmp(c, a, (size_t)left) == 0 &&
         memcmp(c + left, b, (size_t)right) == 0;
}

static bool known(const lh_tokenizer *t, int32_t id) {
  return id >= 0 && id < t->count && !t->special[id];
}

/* Put a pair into the table; false when it is there already. */
static bool insert_pair(lh_tokenizer *t, const lh_merge *m, int32_t rank) {
  uint64_t key = (uint64_t)(uint32_t)m->left << 32 | (uint32_t)m->right;
  uint64_t mask = (uint64_t)t->pair_capacity - 1;
  uint64_t i = (key * 0x9E3779B97F4A7C15ull >> 20) & mask;
  for (; t->pair_rank[i] >= 0; i = (i + 1) & mask)
    if (t->pair_key[i] == key) return false;
  t->pair_key[i] = key;
  t->pair_rank[i] = rank;
  return true;
}

static lk_status copy_merges(lh_tokenizer *t, const lh_tokenizer_parts *parts,
                             lk_error *e) {
  t->pair_capacity = 16;
  while (t->pair_capacity < 2 * (int64_t)parts->merges) t->pair_capacity *= 2;
  t->pair_key = calloc((size_t)t->pair_capacity, sizeof *t->pair_key);
  t->pair_rank = malloc((size_t)t->pair_capacity * sizeof *t->pair_rank);
  t->merge = calloc((size_t)parts->merges + 1, sizeof *t->merge);
  if (!t->pair_key || !t->pair_rank || !t->merge)
    return lk_fail(e, LK_OOM, "no memory for %d merges", parts->merges);
  memset(t->pair_rank, 0xFF, (size_t)t->pair_capacity * sizeof *t->pair_rank);
  for (int32_t rank = 0; rank < parts->merges; rank++) {
    const lh_merge *m = &parts->merge[rank];
    if (!known(t, m->left) || !known(t, m->right) || !known(t, m->result) ||
        !merge_joins(t, m))
      return lk_fail(e, LK_FORMAT,
                     "merge %d (%d + %d = %d) does not join two tokens into "
                     "a third", rank + 1, m->left, m->right, m->result);
    if (!insert_pair(t, m, rank))
      return lk_fail(e, LK_FORMAT, "merge %d repeats an earlier one",
                     rank + 1);
    t->merge[rank] = *m;
  }
  t->merges = parts->merges;
  return LK_OK;
}

static uint64_t hash_of(const lh_tokenizer *t) {
  uint64_t h = lh_hash_string("byte-level bpe, digits alone, gpt-2", 1);
  h = lh_hash64(t->offset, ((size_t)t->count + 1) * sizeof *t->offset, h);
  h = lh_hash64(t->bytes, (size_t)t->offset[t->count], h);
  h = lh_hash64(t->special, (size_t)t->count * sizeof *t->special, h);
  return lh_hash64(t->merge, (size_t)t->merges * sizeof *t->merge, h);
}

lk_status lh_tokenizer_new(const lh_tokenizer_parts *parts,
                           lh_tokenizer **out, lk_error *e) {
  *out = NULL;
  LK_TRY(lh_unicode_prepare(e));
  if (parts->count < 1 || parts->count > LH_VOCAB_MOST)
    return lk_fail(e, LK_FORMAT, "a vocabulary of %d tokens (allowed: 1 to %d)",
                   parts->count, LH_VOCAB_MOST);
  lh_tokenizer *t = calloc(1, sizeof *t);
  if (t == NULL) return lk_fail(e, LK_OOM, "no memory for a tokenizer");
  t->references = 1;
  lk_status status = copy_tokens(t, parts, e);
  if (status == LK_OK) status = index_bytes(t, e);
  if (status == LK_OK) status = copy_merges(t, parts, e);
  if (status != LK_OK) {
    lh_tokenizer_release(t);
    return status;
  }
  t->end_id = lh_tokenizer_special(t, "<|endoftext|>");
  t->hash = hash_of(t);
  *out = t;
  return LK_OK;
}

lh_tokenizer *lh_tokenizer_retain(lh_tokenizer *t) {
  __atomic_add_fetch(&t->references, 1, __ATOMIC_RELAXED);
  return t;
}

void lh_tokenizer_release(lh_tokenizer *t) {
  if (t == NULL) return;
  if (__atomic_sub_fetch(&t->references, 1, __ATOMIC_ACQ_REL) > 0) return;
  free(t->special);
  free(t->offset);
  free(t->bytes);
  free(t->merge);
  free(t->pair_key);
  free(t->pair_rank);
  free(t);
}

int32_t lh_tokenizer_special(const lh_tokenizer *t, const char *name) {
  size_t length = strlen(name);
  for (int32_t id = 0; id < t->count; id++) {
    int64_t size;
    const uint8_t *token = lh_token(t, id, &size);
    if (t->special[id] && (size_t)size == length &&
        memcmp(token, name, length) == 0)
      return id;
  }
  return -1;
}

/* --- decoding ------------------------------------------------------------ */
lk_status lh_decode(const lh_tokenizer *t, const int32_t *ids, int64_t count,
                    bool skip_special, char **text, int64_t *size,
                    lk_error *e) {
  int64_t total = 0, bytes;
  *text = NULL;
  *size = 0;
  for (int64_t i = 0; i < count; i++) {
    if (ids[i] < 0 || ids[i] >= t->count)
      return lk_fail(e, LK_ARGUMENT,
                     "id %d at place %lld is outside the vocabulary of %d",
                     ids[i], (long long)i + 1, t->count);
    if (skip_special && t->special[ids[i]]) continue;
    lh_token(t, ids[i], &bytes);
    total += bytes;
  }
  char *at = malloc((size_t)total + 1);
  if (at == NULL)
    return lk_fail(e, LK_OOM, "no memory for %lld bytes of text",
                   (long long)total);
  *text = at;
  *size = total;
  for (int64_t i = 0; i < count; i++) {
    if (skip_special && t->special[ids[i]]) continue;
    const uint8_t *token = lh_token(t, ids[i], &bytes);
    memcpy(at, token, (size_t)bytes);
    at += bytes;
  }
  *at = 0;
  return LK_OK;
}
