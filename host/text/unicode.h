/* The four character classes that the pre-tokenizer tells apart, as PCRE2
 * defines them (UTF + UCP): \p{L}, \p{N}, \s and the rest (with U+180E in the
 * rest, as Unicode has it now and HF's tokenizers treat it). A byte that is not
 * part of well-formed UTF-8 counts as one character of the rest. */
#ifndef LH_TEXT_UNICODE_H
#define LH_TEXT_UNICODE_H

#include <stdint.h>

#include "../../kernels/base/status.h"
#include "../sys/utf8.h"

enum { LH_CHAR_OTHER, LH_CHAR_LETTER, LH_CHAR_NUMBER, LH_CHAR_SPACE };

/* Class of every code point; all LH_CHAR_OTHER until lh_unicode_prepare. */
extern uint8_t lh_unicode_class[0x110000];

/* Fill lh_unicode_class from PCRE2, once per process; safe from any thread.
 * UNSUPPORTED when PCRE2 lacks Unicode, OOM. */
lk_status lh_unicode_prepare(lk_error *e);

/* Class of the character at p < end; *length gets its bytes. */
static inline int lh_char_at(const uint8_t *p, const uint8_t *end,
                             int *length) {
  *length = 1;
  if (*p < 0x80) return lh_unicode_class[*p];
  uint32_t code;
  int bytes = lh_utf8_decode(p, end, &code);
  if (bytes == 0) return LH_CHAR_OTHER;
  *length = bytes;
  return lh_unicode_class[code];
}

#endif
