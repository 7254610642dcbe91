/* Cutting text into words. */
#include "pretokenize.h"

#include "unicode.h"

/* The end of the run of characters of one class that starts at p. */
static const uint8_t *run_end(const uint8_t *p, const uint8_t *end,
                              int class_) {
  int length;
  while (p < end && lh_char_at(p, end, &length) == class_) p += length;
  return p;
}

/* Bytes of the contraction at the apostrophe p, 0 when it is none. */
static int contraction(const uint8_t *p, const uint8_t *end) {
  if (end - p < 2) return 0;
  switch (p[1]) {
    case 's': case 't': case 'm': case 'd': return 2;
    case 'r': case 'v': return end - p > 2 && p[2] == 'e' ? 3 : 0;
    case 'l': return end - p > 2 && p[2] == 'l' ? 3 : 0;
    default: return 0;
  }
}

/* A run of white space leaves its last character to the word that follows,
 * unless it is alone, or a number or the end follows (the piece ends there). */
static const uint8_t *space_end(const uint8_t *p, const uint8_t *end) {
  const uint8_t *last = p, *at = p;
  int length = 0, class_ = LH_CHAR_SPACE;
  while (at < end) {
    class_ = lh_char_at(at, end, &length);
    if (class_ != LH_CHAR_SPACE) break;
    last = at;
    at += length;
  }
  if (at == end || class_ == LH_CHAR_NUMBER || last == p) return at;
  return last;
}

const uint8_t *lh_word_end(const uint8_t *p, const uint8_t *end) {
  int length;
  int class_ = lh_char_at(p, end, &length);
  if (class_ == LH_CHAR_NUMBER) return p + length;
  if (*p == '\'') {
    int bytes = contraction(p, end);
    if (bytes) return p + bytes;
  }
  if (class_ != LH_CHAR_SPACE) return run_end(p + length, end, class_);
  if (*p == ' ' && p + 1 < end) {
    int next = lh_char_at(p + 1, end, &length);
    if (next == LH_CHAR_LETTER || next == LH_CHAR_OTHER)
      return run_end(p + 1 + length, end, next);
  }
  return space_end(p, end);
}
