/* Token files: their header, their checks, reading and writing. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../sys/file.h"
#include "../sys/hash.h"
#include "tokens_own.h"

enum { VERSION = 1, CHUNK = 1 << 16 /* ids read at a time */ };
static const char magic[8] = "LHTOKENS";

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

lk_status lh_tokens_damaged(const lh_tokens *t, const char *what,
                            lk_error *e) {
  return lk_fail(e, LK_FORMAT, "token file '%s': %s", t->path, what);
}

static lk_status read_header(lh_tokens *t, const uint8_t *h, int64_t size,
                             lk_error *e) {
  lh_tokens_info *info = &t->info;
  int64_t *const numbers[] = {&info->count, &info->vocab, &info->documents,
                              &info->bytes, &info->dropped};
  if (memcmp(h, magic, sizeof magic) != 0)
    return lh_tokens_damaged(t, "not a token file (its first bytes differ)",
                             e);
  if (get_number(h + 8, 4) != VERSION)
    return lh_tokens_damaged(t, "made by another version of this program",
                             e);
  if (get_number(h + 252, 4) != lh_crc32(0, h, 252))
    return lh_tokens_damaged(t, "the header's checksum differs", e);
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
    return lh_tokens_damaged(t, "the header's numbers make no sense", e);
  if (info->count > (size - LH_TOKENS_HEADER) / t->width ||
      info->count * t->width != size - LH_TOKENS_HEADER)
    return lh_tokens_damaged(t, "its length is not the one the header says",
                             e);
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

/* Largest id of one part of the payload, or `largest` if that is larger. */
static uint32_t largest_of(const uint8_t *data, int width, int64_t count,
                           uint32_t largest) {
  for (int64_t i = 0; i < count; i++) {
    uint32_t id = 0;
    memcpy(&id, data + width * i, (size_t)width);
    if (id > largest) largest = id;
  }
  return largest;
}

/* Hand the payload on, in pieces, from memory or from the file. */
static lk_status each_piece(const lh_tokens *t, lh_tokens_piece *take,
                            void *context, lk_error *e) {
  if (t->data) return take(context, t->data, t->info.count, e);
  uint8_t *chunk = malloc(CHUNK * 4);
  lk_status status =
      chunk ? LK_OK : lk_fail(e, LK_OOM, "no memory to read tokens");
  for (int64_t at = 0; status == LK_OK && at < t->info.count; at += CHUNK) {
    int64_t count = t->info.count - at < CHUNK ? t->info.count - at : CHUNK;
    status = lh_file_pread(t->fd, t->path, chunk, count * t->width,
                           t->offset + at * t->width, e);
    if (status == LK_OK) status = take(context, chunk, count, e);
  }
  free(chunk);
  return status;
}

typedef struct scan {
  int width;
  uint32_t crc, largest;
} scan;

static lk_status scan_piece(void *context, const uint8_t *data, int64_t count,
                            lk_error *e) {
  scan *s = context;
  (void)e;
  s->crc = lh_crc32(s->crc, data, (size_t)(count * s->width));
  s->largest = largest_of(data, s->width, count, s->largest);
  return LK_OK;
}

lk_status lh_tokens_scan(const lh_tokens *t, uint32_t *crc, int64_t *largest,
                         lk_error *e) {
  scan s = {.width = t->width};
  LK_TRY(each_piece(t, scan_piece, &s, e));
  *crc = s.crc;
  *largest = t->info.count > 0 ? (int64_t)s.largest : -1;
  return LK_OK;
}

static lk_status check_payload(const lh_tokens *t, lk_error *e) {
  uint32_t crc;
  int64_t largest;
  LK_TRY(lh_tokens_scan(t, &crc, &largest, e));
  if (crc != t->info.crc)
    return lh_tokens_damaged(t, "the checksum of its ids differs", e);
  if (largest >= t->info.vocab)
    return lh_tokens_damaged(t, "it holds an id outside its vocabulary", e);
  return LK_OK;
}

/* --- opening and making -------------------------------------------------- */
lk_status lh_tokens_file(const char *path, lh_tokens **out, int64_t *size,
                         lk_error *e) {
  *out = NULL;
  lh_tokens *t = calloc(1, sizeof *t);
  if (t == NULL) return lk_fail(e, LK_OOM, "no memory for tokens");
  t->references = 1;
  t->fd = -1;
  t->path = strdup(path);
  lk_status status = t->path ? lh_file_open(path, &t->fd, size, e)
                             : lk_fail(e, LK_OOM, "no memory for tokens");
  if (status == LK_OK) *out = t;
  else lh_tokens_release(t);
  return status;
}

static lk_status read_own(lh_tokens *t, int64_t size, lk_error *e) {
  uint8_t header[LH_TOKENS_HEADER];
  if (size < LH_TOKENS_HEADER)
    return lh_tokens_damaged(t, "too short for a header", e);
  LK_TRY(lh_file_pread(t->fd, t->path, header, sizeof header, 0, e));
  t->offset = LH_TOKENS_HEADER;
  LK_TRY(read_header(t, header, size, e));
  return check_payload(t, e);
}

lk_status lh_tokens_open(const char *path, lh_tokens **out, lk_error *e) {
  int64_t size;
  LK_TRY(lh_tokens_file(path, out, &size, e));
  lk_status status = read_own(*out, size, e);
  if (status == LK_OK) return LK_OK;
  lh_tokens_release(*out);
  *out = NULL;
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

typedef struct copy {
  lh_file_writer *writer;
  int width;
} copy;

static lk_status append_piece(void *context, const uint8_t *data,
                              int64_t count, lk_error *e) {
  const copy *c = context;
  return lh_file_writer_append(c->writer, data, count * c->width, e);
}

lk_status lh_tokens_write(const lh_tokens *t, const char *path,
                          const void *header, int64_t size, lk_error *e) {
  copy c = {.width = t->width};
  LK_TRY(lh_file_writer_open(&c.writer, path, e));
  lk_status status = lh_file_writer_append(c.writer, header, size, e);
  if (status == LK_OK) status = each_piece(t, append_piece, &c, e);
  if (status == LK_OK) return lh_file_writer_commit(c.writer, e);
  lh_file_writer_abort(c.writer);
  return status;
}

lk_status lh_tokens_save(const lh_tokens *tokens, const char *path,
                         lk_error *e) {
  uint8_t header[LH_TOKENS_HEADER];
  write_header(tokens, header);
  return lh_tokens_write(tokens, path, header, sizeof header, e);
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
                       t->offset + first * t->width, e));
  if (t->width == 2) widen(narrow, 2, count, ids);
  return LK_OK;
}
