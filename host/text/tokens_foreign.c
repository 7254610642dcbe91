/* Token files of other programs: llm.c's .bin and nanoGPT's raw ids. */
#include <string.h>
#include <unistd.h>

#include "../sys/file.h"
#include "hash64.h"
#include "tokens_own.h"

/* llm.c: 256 int32, little-endian: magic, version, count, zeros; then ids.
 * Two kinds, for the vocabularies of GPT-2 and Llama 3. */
enum { LLMC_HEADER = 1024 };
static const struct {
  uint32_t magic, version;
  int width;
} llmc[] = {{20240520, 1, 2}, {20240801, 7, 4}};

static void put_u32(uint8_t *to, uint32_t value) {
  for (int i = 0; i < 4; i++) to[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_u32(const uint8_t *from) {
  return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
         (uint32_t)from[3] << 24;
}

/* --- reading ------------------------------------------------------------- */
static lk_status read_llmc(lh_tokens *t, int64_t size, lk_error *e) {
  uint8_t h[LLMC_HEADER];
  if (size < LLMC_HEADER)
    return lh_tokens_damaged(t, "too short for llm.c's header of 1024 bytes",
                             e);
  LK_TRY(lh_file_pread(t->fd, t->path, h, sizeof h, 0, e));
  int kind = get_u32(h) == llmc[1].magic;
  if (get_u32(h) != llmc[kind].magic)
    return lh_tokens_damaged(t, "llm.c's magic number (20240520 or 20240801) "
                             "is not there", e);
  if (get_u32(h + 4) != llmc[kind].version)
    return lh_tokens_damaged(t, "an unknown version of llm.c's format", e);
  t->offset = LLMC_HEADER;
  t->width = llmc[kind].width;
  t->info.count = get_u32(h + 8);
  if (size - LLMC_HEADER != t->info.count * t->width)
    return lh_tokens_damaged(t, "its length is not the one llm.c's header "
                             "says", e);
  return LK_OK;
}

static lk_status read_raw(lh_tokens *t, int64_t size, lk_error *e) {
  if (size % 2 != 0)
    return lh_tokens_damaged(t, "16-bit ids, but an odd number of bytes", e);
  t->width = 2;
  t->info.count = size / 2;
  return LK_OK;
}

/* Fill what the file does not say, from the ids and the caller. */
static lk_status describe(lh_tokens *t, int64_t vocab, lk_error *e) {
  int64_t largest;
  LK_TRY(lh_tokens_scan(t, &t->info.crc, &largest, e));
  if (largest >= INT32_MAX)
    return lh_tokens_damaged(t, "it holds an id over 2^31", e);
  t->info.vocab = vocab > 0 ? vocab : largest + 1 > 0 ? largest + 1 : 1;
  if (largest >= t->info.vocab)
    return lk_fail(e, LK_FORMAT, "token file '%s': it holds id %lld, outside "
                   "the vocabulary of %lld", t->path, (long long)largest,
                   (long long)vocab);
  t->info.source = lh_hash_number(t->info.crc, (uint64_t)t->info.count);
  const char *slash = strrchr(t->path, '/'), *name = slash ? slash + 1
                                                           : t->path;
  strncpy(t->info.name, name, LH_TOKENS_NAME - 1);
  return LK_OK;
}

lk_status lh_tokens_import(const char *path, lh_tokens_format format,
                           int64_t vocab, lh_tokens **out, lk_error *e) {
  int64_t size;
  LK_TRY(lh_tokens_file(path, out, &size, e));
  lk_status status =
      (format == LH_TOKENS_LLMC ? read_llmc : read_raw)(*out, size, e);
  if (status == LK_OK) status = describe(*out, vocab, e);
  if (status == LK_OK) return LK_OK;
  lh_tokens_release(*out);
  *out = NULL;
  return status;
}

lk_status lh_tokens_format_of(const char *path, lh_tokens_format *format,
                              lk_error *e) {
  uint8_t start[4] = {0};
  int fd;
  int64_t size;
  LK_TRY(lh_file_open(path, &fd, &size, e));
  lk_status status = LK_OK;
  if (size >= 4) status = lh_file_pread(fd, path, start, 4, 0, e);
  close(fd);
  bool is_llmc = get_u32(start) == llmc[0].magic ||
                 get_u32(start) == llmc[1].magic;
  *format = is_llmc ? LH_TOKENS_LLMC : LH_TOKENS_OWN;
  return status;
}

/* --- writing ------------------------------------------------------------- */
static lk_status save_llmc(const lh_tokens *t, const char *path,
                           lk_error *e) {
  uint8_t h[LLMC_HEADER] = {0};
  int kind = t->width == llmc[1].width;
  if (t->info.count > INT32_MAX)
    return lk_fail(e, LK_ARGUMENT, "llm.c's format counts ids in 31 bits; "
                   "these are %lld", (long long)t->info.count);
  put_u32(h, llmc[kind].magic);
  put_u32(h + 4, llmc[kind].version);
  put_u32(h + 8, (uint32_t)t->info.count);
  return lh_tokens_write(t, path, h, sizeof h, e);
}

static lk_status save_raw(const lh_tokens *t, const char *path, lk_error *e) {
  if (t->width != 2)
    return lk_fail(e, LK_ARGUMENT, "nanoGPT's format keeps ids in 16 bits; "
                   "this vocabulary has %lld", (long long)t->info.vocab);
  return lh_tokens_write(t, path, "", 0, e);
}

lk_status lh_tokens_export(const lh_tokens *tokens, lh_tokens_format format,
                           const char *path, lk_error *e) {
  switch (format) {
    case LH_TOKENS_LLMC: return save_llmc(tokens, path, e);
    case LH_TOKENS_NANOGPT: return save_raw(tokens, path, e);
    default: return lh_tokens_save(tokens, path, e);
  }
}
