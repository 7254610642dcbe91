/* Character classes from PCRE2. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "unicode.h"

#include <pcre2.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 0x1000 }; /* code points classified at a time */

uint8_t lh_unicode_class[0x110000];

static pthread_once_t once = PTHREAD_ONCE_INIT;
static lk_error once_error; /* code LK_OK: the table is filled */

/* Class of a matched run, by which of the three groups took part. */
static uint8_t run_class(pcre2_match_data *match) {
  PCRE2_SIZE *offset = pcre2_get_ovector_pointer(match);
  uint32_t count = pcre2_get_ovector_count(match);
  for (uint32_t group = 1; group < count; group++)
    if (offset[2 * group] != PCRE2_UNSET) return (uint8_t)group;
  return LH_CHAR_OTHER;
}

/* Classify the BLOCK code points from `first` on; a negative PCRE2 code on
 * failure. Runs of one class are one match, so this is fast. */
static int classify_block(pcre2_code *pattern, pcre2_match_data *match,
                          uint32_t first, uint8_t *text) {
  size_t size = 0;
  for (uint32_t c = first; c < first + BLOCK; c++)
    if (c < 0xD800 || c >= 0xE000)
      size += (size_t)lh_utf8_encode(c, text + size);
  uint32_t next = first;
  for (size_t at = 0; at < size;) {
    int result = pcre2_match(pattern, text, size, at, PCRE2_NO_UTF_CHECK,
                             match, NULL);
    if (result < 0) return result;
    PCRE2_SIZE *offset = pcre2_get_ovector_pointer(match);
    uint8_t class_ = run_class(match);
    for (; at < offset[1]; at++)
      if ((text[at] & 0xC0) != 0x80) lh_unicode_class[next++] = class_;
  }
  return 0;
}

static void classify_all(void) {
  static const char source[] =
      "(\\p{L}++)|(\\p{N}++)|(\\s++)|[^\\p{L}\\p{N}\\s]++";
  int code, result = PCRE2_ERROR_NOMEMORY;
  PCRE2_SIZE where;
  uint8_t *text = malloc(4 * BLOCK);
  pcre2_code *pattern =
      pcre2_compile((PCRE2_SPTR)source, PCRE2_ZERO_TERMINATED,
                    PCRE2_UTF | PCRE2_UCP, &code, &where, NULL);
  pcre2_match_data *match =
      pattern ? pcre2_match_data_create_from_pattern(pattern, NULL) : NULL;
  if (pattern == NULL) result = code;
  if (match && text) {
    result = 0;
    for (uint32_t c = 0; c < 0x110000 && result == 0; c += BLOCK)
      if (c < 0xD800 || c >= 0xE000)
        result = classify_block(pattern, match, c, text);
  }
  /* PCRE2 keeps U+180E among the spaces, as Unicode did before 6.3. */
  lh_unicode_class[0x180E] = LH_CHAR_OTHER;
  if (result != 0)
    lk_fail(&once_error, LK_UNSUPPORTED,
            "PCRE2 cannot classify Unicode characters (its error %d); the "
            "tokenizer needs a PCRE2 built with Unicode support", result);
  pcre2_match_data_free(match);
  pcre2_code_free(pattern);
  free(text);
}

lk_status lh_unicode_prepare(lk_error *e) {
  pthread_once(&once, classify_all);
  if (once_error.code != LK_OK)
    return lk_fail(e, once_error.code, "%s", once_error.message);
  return LK_OK;
}
