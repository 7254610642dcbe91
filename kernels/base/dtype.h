/* Element types: names and sizes. */
#ifndef LK_BASE_DTYPE_H
#define LK_BASE_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum lk_dtype {
#define DTYPE(name, word, safetensors, bits) LK_##name,
#include "dtype.def"
#undef DTYPE
  LK_DTYPE_COUNT
} lk_dtype;

/* "f32", "bf16", …; "?" for a value outside the list. */
const char *lk_dtype_word(lk_dtype dtype);
/* The name a safetensors header uses. */
const char *lk_dtype_safetensors(lk_dtype dtype);
/* Bits of one element. */
int lk_dtype_bits(lk_dtype dtype);
/* Bytes of `count` elements, rounded up to a whole byte. */
int64_t lk_dtype_bytes(lk_dtype dtype, int64_t count);
/* f32, bf16, f16 or e4m3. */
bool lk_dtype_is_float(lk_dtype dtype);
/* Look a word up; false when it is not a dtype. */
bool lk_dtype_from_word(const char *word, lk_dtype *dtype);

#endif
