/* Element types: names and sizes. */
#include "dtype.h"

#include <string.h>

static const struct {
  const char *word, *safetensors;
  int bits;
} dtypes[] = {
#define DTYPE(name, word, safetensors, bits) {word, safetensors, bits},
#include "dtype.def"
#undef DTYPE
};

const char *lk_dtype_word(lk_dtype dtype) {
  return (unsigned)dtype < LK_DTYPE_COUNT ? dtypes[dtype].word : "?";
}

const char *lk_dtype_safetensors(lk_dtype dtype) {
  return (unsigned)dtype < LK_DTYPE_COUNT ? dtypes[dtype].safetensors : "?";
}

int lk_dtype_bits(lk_dtype dtype) { return dtypes[dtype].bits; }

int64_t lk_dtype_bytes(lk_dtype dtype, int64_t count) {
  return (count * dtypes[dtype].bits + 7) / 8;
}

bool lk_dtype_is_float(lk_dtype dtype) {
  return dtype == LK_F32 || dtype == LK_BF16 || dtype == LK_F16 ||
         dtype == LK_E4M3;
}

bool lk_dtype_from_word(const char *word, lk_dtype *dtype) {
  for (int i = 0; i < LK_DTYPE_COUNT; i++) {
    if (strcmp(word, dtypes[i].word) == 0) {
      *dtype = (lk_dtype)i;
      return true;
    }
  }
  return false;
}
