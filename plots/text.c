/* text.c: UTF-8 in, Latin-1 out, and a text that grows. */
#include "canvas.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Length and first bits of a sequence by its lead byte; 0 when no lead. */
static int lead(unsigned char byte, uint32_t *bits) {
  if (byte < 0x80) return *bits = byte, 1;
  if (byte >= 0xC2 && byte < 0xE0) return *bits = byte & 0x1F, 2;
  if (byte >= 0xE0 && byte < 0xF0) return *bits = byte & 0x0F, 3;
  if (byte >= 0xF0 && byte < 0xF5) return *bits = byte & 0x07, 4;
  return 0;
}

/* What XML and a label may hold. */
static bool printable(uint32_t code) {
  return code >= 0x20 && !(code >= 0x7F && code < 0xA0) &&
         !(code >= 0xD800 && code < 0xE000) && code < 0x110000 &&
         (code & 0xFFFE) != 0xFFFE;
}

uint32_t lp_text_next(const char **text) {
  static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
  const unsigned char *s = (const unsigned char *)*text;
  uint32_t code = 0;
  if (!*s) return 0;
  int n = lead(*s, &code), i = 1;
  for (; i < n && (s[i] & 0xC0) == 0x80; i++) code = code << 6 | (s[i] & 0x3F);
  *text += n ? i : 1;
  if (code == '\t' || code == '\n') return ' ';
  if (!n || i < n || code < least[n] || !printable(code)) return 0xFFFD;
  return code;
}

/* Signs beyond Latin-1 that our own labels use. */
static const struct { uint32_t code; const char *latin1; } signs[] = {
  {0x2010, "-"}, {0x2011, "-"}, {0x2012, "-"}, {0x2013, "-"}, {0x2014, "-"},
  {0x2018, "'"}, {0x2019, "'"}, {0x201C, "\""}, {0x201D, "\""},
  {0x2022, "\xB7"}, {0x2026, "..."}, {0x2032, "'"}, {0x20AC, "EUR"},
  {0x2190, "<-"}, {0x2191, "^"}, {0x2192, "->"}, {0x2193, "v"},
  {0x2212, "-"}, {0x221E, "inf"}, {0x2248, "~"}, {0x2260, "!="},
  {0x2264, "<="}, {0x2265, ">="}, {0x00A0, " "}, {0x2009, " "}, {0x202F, " "},
  {0x0394, "Delta"}, {0x03A3, "Sum"}, {0x03B1, "alpha"}, {0x03B2, "beta"},
  {0x03BC, "\xB5"}, {0x03C3, "sigma"}, {'\\', "/"},  /* libplot's escape */
};

static const char *sign(uint32_t code) {
  for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++)
    if (signs[i].code == code) return signs[i].latin1;
  return code < 0x100 ? NULL : "?";
}

void lp_text_latin1(char *out, size_t size, const char *utf8) {
  size_t used = 0;
  for (uint32_t code; (code = lp_text_next(&utf8)) != 0;) {
    char one[2] = {(char)(unsigned char)code, 0};
    const char *s = sign(code);
    if (!s) s = one;
    if (used + strlen(s) + 1 > size) break;
    memcpy(out + used, s, strlen(s));
    used += strlen(s);
  }
  out[used] = 0;
}

void lp_buffer_add(lp_buffer *b, const void *data, size_t size) {
  if (b->failed) return;
  if (size > b->room - b->size) {
    size_t room = (b->size + size) * 2 + 4096;
    char *grown = realloc(b->data, room);
    if (!grown) {
      b->failed = true;
      return;
    }
    b->data = grown;
    b->room = room;
  }
  memcpy(b->data + b->size, data, size);
  b->size += size;
}

void lp_buffer_text(lp_buffer *b, const char *text) {
  lp_buffer_add(b, text, strlen(text));
}

void lp_buffer_number(lp_buffer *b, double value) {
  char text[40];
  long long cents = llround(value * 100), whole = llabs(cents);
  int n = snprintf(text, sizeof text, "%s%lld", cents < 0 ? "-" : "",
                   whole / 100);
  if (whole % 100)
    n += snprintf(text + n, sizeof text - (size_t)n, ".%02lld", whole % 100);
  if (whole % 100 && text[n - 1] == '0') n--;
  lp_buffer_add(b, text, (size_t)n);
}
