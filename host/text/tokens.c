/* Token files: their header, their checks, reading and writing. */
#include "tokens.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../sys/file.h"
#include "../sys/hash.h"

enum { VERSION = 1, CHUNK = 1 << 16 /* ids read at a time */ };
static const char magic[8] = "LHTOKENS";

struct lh_tokens {
  int references;
  lh_tokens_info info;
  int width;              /* bytes of an id: 2 or 4 */
  int fd;                 /* −1: in memory */
  char *path;
  uint8_t *data;          /* in memory: count · width bytes */
};

/* --- header -----------------------------------------------------------------
 * offset  0 magic · 8 version u32 · 12 bits of an id u32 · 16 count u64
 *        24 vocab u64 · 32 documents u64 · 40 bytes u64 · 48 dropped u64
 *        56 tokenizer u64 · 64 source u64 · 72 split u32 · 76 payload CRC u32
 *        80 name, 128 bytes · 208 zeros · 252 CRC of the bytes before u32 */
static void put_number(uint8_t *to, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) to[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_number(const uint8_t *from, int bytes) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; i++) value |= (uint64_t)from[i] << (8 * i);
  return value;
}

static void write_header(const lh_tokens *t, uint8_t *h) {
  const lh_tokens_info *info = &t->info;
  const int64_t numbers[] = {info->count, info->vocab, info->documents,
                             info->bytes, info->dropped,
                             (int64_t)info->tokenizer, (int64_t)info->source};
  memset(h, 0, LH_TOKENS_HEADER);
  memcpy(h, magic, sizeof magic);
  put_number(h + 8, VERSION, 4);
  put_number(h + 12, (uint64_t)t->width * 8, 4);
  for (int i = 0; i < 7; i++)
    put_number(h + 16 + 8 * i, (uint64_t)numbers[i], 8);
  put_number(h + 72, info->validation, 4);
  put_number(h + 76, info->crc, 4);
  memcpy(h + 80, info->name, LH_TOKENS_NAME);
  put_number(h + 252, lh_crc32(0, h, 252), 4);
}

static lk_status damaged(const lh_tokens *t, const char *what, lk_error *e) {
  return lk_fail(e, LK_FORMAT, "token file '%s': %s", t->path, what);
}

static lk_status read_header(lh_tokens *t, const uint8_t *h, int64_t size,
                             lk_error *e) {
  lh_tokens_info *info = &t->info;
  int64_t *const numbers[] = {&info->count, &info->vocab, &info->documents,
                              &info->bytes, &info->dropped};
  if (memcmp(h, magic, sizeof magic) != 0)
    return damaged(t, "not a token file (its first bytes differ)", e);
  if (get_number(h + 8, 4) != VERSION)
    return damaged(t, "made by another version of this program", e);
  if (get_number(h + 252, 4) != lh_crc32(0, h, 252))
    return damaged(t, "the header's checksum differs", e);
  for (int i = 0; i < 5; i++)
    *numbers[i] = (int64_t)get_number(h + 16 + 8 * i, 8);
  info->tokenizer = get_number(h + 56, 8);
  info->source = get_number(h + 64, 8);
  info->validation = get_number(h + 72, 4) != 0;
  info->crc = (uint32_t)get_number(h + 76, 4);
  memcpy(info->name, h + 80, LH_TOKENS_NAME);
  info->name[LH_TOKENS_NAME - 1] = 0;
  uint64_t bits = get_number(h + 12, 4);
  t->width = (int)bits / 8;
  if ((bits != 16 && bits != 32) || info->count < 0 || info->vocab < 1 ||
      info->vocab > INT32_MAX)
    return damaged(t, "the header's numbers make no sense", e);
  if (info->count > (size - LH_TOKENS_HEADER) / t->width ||
      info->count * t->width != size - LH_TOKENS_HEADER)
    return damaged(t, "its length is not the one the header says", e);
  return LK_OK;
}

/* --- ids ----------------------------------------------------------------- */
static void widen(const uint8_t *from, int width, int64_t count,
                  int32_t *ids) {
  for (int64_t i = 0; i < count; i++) {
    if (width == 2) {
      uint16_t id;
      memcpy(&id, from + 2 * i, 2);
      ids[i] = id;
    } else {
      memcpy(&ids[i], from + 4 * i, 4);
    }
  }
}

/* Check one part of the payload: ids inside the vocabulary. */
static bool ids_fit(const uint8_t *data, int width, int64_t count,
                    int64_t vocab) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; i++) {
    uint32_t id = 0;
    memcpy(&id, data + width * i, (size_t)width);
    if (id > largest) largest = id;
  }
  return count == 0 || (int64_t)largest < vocab;
}

static lk_status check_payload(const lh_tokens *t, lk_error *e) {
  uint8_t *chunk = malloc(CHUNK * 4);
  lk_status status = LK_OK;
  uint32_t crc = 0;
  bool fit = true;
  if (chunk == NULL) return lk_fail(e, LK_OOM, "no memory to check tokens");
  for (int64_t at = 0; at < t->info.count && status == LK_OK;) {
    int64_t count = t->info.count - at < CHUNK ? t->info.count - at : CHUNK;
    status = lh_file_pread(t->fd, t->path, chunk, count * t->width,
                           LH_TOKENS_HEADER + at * t->width, e);
    if (status != LK_OK) break;
    crc = lh_crc32(crc, chunk, (size_t)(count * t->width));
    fit = fit && ids_fit(chunk, t->width, count, t->info.vocab);
    at += count;
  }
  free(chunk);
  if (status == LK_OK && crc != t->info.crc)
    status = damaged(t, "the checksum of its ids differs", e);
  if (status == LK_OK && !fit)
    status = damaged(t, "it holds an id outside its vocabulary", e);
  return status;
}

/* --- opening and making -------------------------------------------------- */
lk_status lh_tokens_open(const char *path, lh_tokens **out, lk_error *e) {
  uint8_t header[LH_TOKENS_HEADER];
  int64_t size;
  *out = NULL;
  lh_tokens *t = calloc(1, sizeof *t);
  if (t == NULL) return lk_fail(e, LK_OOM, "no memory for tokens");
  t->references = 1;
  t->fd = -1;
  t->path = strdup(path);
  lk_status status = t->path ? lh_file_open(path, &t->fd, &size, e)
                             : lk_fail(e, LK_OOM, "no memory for tokens");
  if (status == LK_OK && size < LH_TOKENS_HEADER)
    status = damaged(t, "too short for a header", e);
  if (status == LK_OK)
    status = lh_file_pread(t->fd, path, header, sizeof header, 0, e);
  if (status == LK_OK) status = read_header(t, header, size, e);
  if (status == LK_OK) status = check_payload(t, e);
  if (status == LK_OK) *out = t;
  else lh_tokens_release(t);
  return status;
}

static lk_status check_ids(const lh_tokens_info *info, const int32_t *ids,
                           lk_error *e) {
  for (int64_t i = 0; i < info->count; i++)
    if (ids[i] < 0 || ids[i] >= info->vocab)
      return lk_fail(e, LK_ARGUMENT,
                     "id %d at place %lld is outside the vocabulary of %lld",
                     ids[i], (long long)i + 1, (long long)info->vocab);
  return LK_OK;
}

lk_status lh_tokens_new(const lh_tokens_info *info, const int32_t *ids,
                        lh_tokens **out, lk_error *e) {
  *out = NULL;
  LK_TRY(check_ids(info, ids, e));
  lh_tokens *t = calloc(1, sizeof *t);
  int width = info->vocab <= 1 << 16 ? 2 : 4;
  if (t) t->data = malloc((size_t)info->count * (size_t)width + 1);
  if (t == NULL || t->data == NULL) {
    free(t);
    return lk_fail(e, LK_OOM, "no memory for %lld tokens",
                   (long long)info->count);
  }
  t->references = 1;
  t->fd = -1;
  t->width = width;
  t->info = *info;
  for (int64_t i = 0; i < info->count; i++)
    put_number(t->data + width * i, (uint32_t)ids[i], width);
  t->info.crc = lh_crc32(0, t->data, (size_t)(info->count * width));
  *out = t;
  return LK_OK;
}

lh_tokens *lh_tokens_retain(lh_tokens *tokens) {
  __atomic_add_fetch(&tokens->references, 1, __ATOMIC_RELAXED);
  return tokens;
}

void lh_tokens_release(lh_tokens *tokens) {
  if (tokens == NULL) return;
  if (__atomic_sub_fetch(&tokens->references, 1, __ATOMIC_ACQ_REL) > 0) return;
  if (tokens->fd >= 0) close(tokens->fd);
  free(tokens->path);
  free(tokens->data);
  free(tokens);
}

/* Append the payload, from memory or from the file it was opened from. */
static lk_status append_payload(const lh_tokens *t, lh_file_writer *writer,
                                lk_error *e) {
  if (t->data)
    return lh_file_writer_append(writer, t->data, t->info.count * t->width, e);
  uint8_t *chunk = malloc(CHUNK * 4);
  lk_status status =
      chunk ? LK_OK : lk_fail(e, LK_OOM, "no memory to copy tokens");
  for (int64_t at = 0; status == LK_OK && at < t->info.count; at += CHUNK) {
    int64_t count = t->info.count - at < CHUNK ? t->info.count - at : CHUNK;
    status = lh_file_pread(t->fd, t->path, chunk, count * t->width,
                           LH_TOKENS_HEADER + at * t->width, e);
    if (status == LK_OK)
      status = lh_file_writer_append(writer, chunk, count * t->width, e);
  }
  free(chunk);
  return status;
}

lk_status lh_tokens_save(const lh_tokens *tokens, const char *path,
                         lk_error *e) {
  uint8_t header[LH_TOKENS_HEADER];
  lh_file_writer *writer;
  write_header(tokens, header);
  LK_TRY(lh_file_writer_open(&writer, path, e));
  lk_status status = lh_file_writer_append(writer, header, sizeof header, e);
  if (status == LK_OK) status = append_payload(tokens, writer, e);
  if (status == LK_OK) return lh_file_writer_commit(writer, e);
  lh_file_writer_abort(writer);
  return status;
}

const lh_tokens_info *lh_tokens_about(const lh_tokens *tokens) {
  return &tokens->info;
}

const char *lh_tokens_path(const lh_tokens *tokens) { return tokens->path; }

lk_status lh_tokens_read(const lh_tokens *tokens, int64_t first,
                         int64_t count, int32_t *ids, lk_error *e) {
  const lh_tokens *t = tokens;
  if (first < 0 || count < 0 || first > t->info.count ||
      count > t->info.count - first)
    return lk_fail(e, LK_ARGUMENT, "tokens %lld to %lld of %lld do not exist",
                   (long long)first + 1, (long long)(first + count),
                   (long long)t->info.count);
  if (t->data) {
    widen(t->data + first * t->width, t->width, count, ids);
    return LK_OK;
  }
  /* The narrow ids go to the end of the wide ones' place and widen forward:
   * id i is read at or after the bytes that ids 0 … i − 1 have been put to. */
  uint8_t *narrow = (uint8_t *)ids + count * (4 - t->width);
  LK_TRY(lh_file_pread(t->fd, t->path, narrow, count * t->width,
                       LH_TOKENS_HEADER + first * t->width, e));
  if (t->width == 2) widen(narrow, 2, count, ids);
  return LK_OK;
}
