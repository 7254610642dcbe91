/* The pre-tokenizer against PCRE2 itself, and the character classes. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "../../host/sys/utf8.h"
#include "../../host/text/pretokenize.h"
#include "../../host/text/unicode.h"
#include "../../kernels/base/rng.h"
#include "check.h"

/* The pattern as published; SPACE is \s without U+180E. */
#define SPACE "(?:(?!\\x{180e})\\s)"
static const char pattern_source[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?(?:[^\\s\\p{L}\\p{N}]|"
    "\\x{180e})+|" SPACE "+(?!\\S|\\x{180e})|" SPACE "+";

static pcre2_code *pattern, *number;
static pcre2_match_data *match;

static pcre2_code *compile(const char *source) {
  int error;
  PCRE2_SIZE where;
  return pcre2_compile((PCRE2_SPTR)source, PCRE2_ZERO_TERMINATED,
                       PCRE2_UTF | PCRE2_UCP, &error, &where, NULL);
}

static void setup(void) {
  lk_error e;
  CHECK(lh_unicode_prepare(&e) == LK_OK, "%s", e.message);
  pattern = compile(pattern_source);
  number = compile("\\p{N}");
  match = pcre2_match_data_create(1, NULL);
  CHECK(pattern && number && match);
}

/* Start and end of the next match in a text that is a subject by itself. */
static int find(pcre2_code *code, const char *text, size_t size, size_t at,
                size_t *from, size_t *to) {
  if (pcre2_match(code, (PCRE2_SPTR)text, size, at, 0, match, NULL) < 0)
    return 0;
  *from = pcre2_get_ovector_pointer(match)[0];
  *to = pcre2_get_ovector_pointer(match)[1];
  return 1;
}

/* Compare the words of a piece without numbers, which begins at `base`. */
static int check_piece(const char *text, size_t base, size_t size,
                       size_t end) {
  size_t at = 0, from, to;
  while (at < size) {
    if (!find(pattern, text + base, size, at, &from, &to) || from != at)
      return 0;
    const uint8_t *p = (const uint8_t *)text + base + at;
    if (lh_word_end(p, (const uint8_t *)text + end) !=
        (const uint8_t *)text + base + to)
      return 0;
    at = to;
  }
  return 1;
}

/* Whether our words are PCRE2's: numbers alone, the pattern between them. */
static int same_words(const char *text, size_t size) {
  size_t at = 0, from, to;
  while (at < size) {
    int found = find(number, text, size, at, &from, &to);
    size_t piece = (found ? from : size) - at;
    if (!check_piece(text, at, piece, size)) return 0;
    if (!found) return 1;
    if (lh_word_end((const uint8_t *)text + from, (const uint8_t *)text + size)
        != (const uint8_t *)text + to)
      return 0;
    at = to;
  }
  return 1;
}

static void test_known_strings(void) {
  static const char *const texts[] = {
      "Hello world", "I'm you're we'll they'd it's I've 's't", "  two  spaces ",
      " \n\n x\n", "a1b22 333 4", "12 ", "  1", "   a", "\t\ta", "\xc2\xa0x",
      "x \xe3\x80\x80 y", "''s", "'ll'l", "don't 'tis", "!?. ...a", " !!",
      "\xc2\xbd cup \xe2\x85\xa7", "e\xcc\x81", " \xe1\xa0\x8e", "a \r\n b"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    CHECK(same_words(texts[i], strlen(texts[i])), "\"%s\"", texts[i]);
}

/* Random strings over characters at the borders of the classes. */
static void test_hostile_strings(void) {
  static const uint32_t pool[] = {
      ' ', ' ', ' ', '\n', '\t', '\r', 0x0B, 0x85, 0xA0, 0x2003, 0x2028,
      0x3000, 0x180E, '\'', '\'', '\'', 's', 't', 'r', 'e', 'v', 'm', 'l', 'd',
      'S', '0', '7', 0xBD, 0xB2, 0x2167, 0x663, 0xE9, 0xDF, 0x4F60, 0x1F642,
      0x301, 0x200D, '.', '-', '_', '!', 0xFEFF, 0xE33, 0x3007, 0x16EE,
      0x1D7D8, 0xE000, 0, 0x1B, 0x1C, 0x7F, 0x10FFFF, 0xD7FF};
  enum { CASES = 20000, MOST = 40 };
  int bad = 0;
  for (uint64_t i = 0; i < CASES && !bad; i++) {
    char text[4 * MOST];
    size_t size = 0;
    int count = (int)(lk_philox(1, i, 1, 0).w[0] % MOST);
    for (int k = 0; k < count; k++) {
      uint32_t r = lk_philox(1, i, 2, (uint32_t)k).w[0];
      uint32_t code = pool[r % (sizeof pool / sizeof *pool)];
      size += (size_t)lh_utf8_encode(code, (uint8_t *)text + size);
    }
    bad = !same_words(text, size);
    CHECK(!bad, "case %d: \"%.*s\"", (int)i, (int)size, text);
  }
}

/* Every code point's class, one by one. */
static void test_classes(void) {
  pcre2_code *classes = compile("(\\p{L})|(\\p{N})|(\\s)|[^\\s]");
  pcre2_match_data *groups = pcre2_match_data_create(4, NULL);
  int differences = 0;
  for (uint32_t c = 0; c < 0x110000; c += c < 0x30000 ? 1 : 61) {
    uint8_t text[4];
    if (c >= 0xD800 && c < 0xE000) continue;
    int size = lh_utf8_encode(c, text), class_;
    int got = pcre2_match(classes, text, (size_t)size, 0, 0, groups, NULL);
    class_ = got >= 2 ? got - 1 : LH_CHAR_OTHER;
    if (c == 0x180E) class_ = LH_CHAR_OTHER;
    differences += class_ != lh_unicode_class[c];
  }
  CHECK(differences == 0, "%d code points differ", differences);
  pcre2_match_data_free(groups);
  pcre2_code_free(classes);
}

/* Bytes that are not UTF-8 are characters of the rest; words never skip. */
static void test_broken_utf8(void) {
  static const struct { const char *text; int first; } cases[] = {
      {"\xff\xfe", 2}, {"\xc3", 1}, {"a\xc3", 1}, {" \x80 b", 2},
      {"\xe4\xbd\xa0\xe4\xbd", 3}, {"\xf5\x80\x80\x80", 4},
      {"\xed\xa0\x80", 3}, {"\xc0\x80", 2}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const uint8_t *p = (const uint8_t *)cases[i].text;
    const uint8_t *end = p + strlen(cases[i].text);
    CHECK(lh_word_end(p, end) - p == cases[i].first, "case %d: %d bytes",
          (int)i, (int)(lh_word_end(p, end) - p));
  }
}

int main(void) {
  RUN(setup);
  RUN(test_known_strings);
  RUN(test_hostile_strings);
  RUN(test_classes);
  RUN(test_broken_utf8);
  pcre2_code_free(pattern);
  pcre2_code_free(number);
  pcre2_match_data_free(match);
  return check_done();
}
