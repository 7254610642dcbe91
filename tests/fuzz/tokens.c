/* Token files: our own, llm.c's and nanoGPT's .bin. Checksums are mended before
 * half of the inputs, or no change would get past them. */
#include "../../host/text/tokens.h"

#include <stdlib.h>
#include <string.h>

#include "../../host/sys/hash.h"
#include "fuzz.h"

static void put_u32(uint8_t *to, uint32_t value) {
  for (int i = 0; i < 4; i++) to[i] = (uint8_t)(value >> (8 * i));
}

static void mend(uint8_t *file, size_t size) {
  put_u32(file + 76, lh_crc32(0, file + LH_TOKENS_HEADER,
                              size - LH_TOKENS_HEADER));
  put_u32(file + 252, lh_crc32(0, file, 252));
}

static void read_all(const char *path) {
  lh_tokens *t = NULL;
  lk_error e;
  int32_t ids[64];
  if (lh_tokens_open(path, &t, &e) == LK_OK) {
    const lh_tokens_info *info = lh_tokens_about(t);
    for (int64_t at = 0; at < info->count; at += 64) {
      int64_t n = info->count - at < 64 ? info->count - at : 64;
      if (lh_tokens_read(t, at, n, ids, &e) != LK_OK)
        fuzz_broken("an open token file can be read");
      for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= info->vocab)
          fuzz_broken("every id lies inside the vocabulary");
    }
  }
  lh_tokens_release(t);
}

int fuzz_tokens(const uint8_t *data, size_t size) {
  if (size < 1) return 0;
  uint8_t *file = malloc(size);
  memcpy(file, data + 1, size - 1);
  if ((data[0] & 1) && size - 1 >= LH_TOKENS_HEADER) mend(file, size - 1);
  read_all(fuzz_file(data[0] & 2 ? "tokens.bin" : "tokens", file, size - 1));
  free(file);
  return 0;
}
