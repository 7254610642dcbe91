/* UTF-8, one character at a time. */
#include "utf8.h"

int lh_utf8_decode(const uint8_t *p, const uint8_t *end, uint32_t *code) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  uint32_t c = *p;
  int bytes = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3
              : c < 0xF5 ? 4 : 0;
  if (bytes == 0 || end - p < bytes) return 0;
  if (bytes > 1) c &= 0x7Fu >> bytes;
  for (int i = 1; i < bytes; i++) {
    if ((p[i] & 0xC0) != 0x80) return 0;
    c = c << 6 | (p[i] & 0x3F);
  }
  if (c < least[bytes] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) return 0;
  *code = c;
  return bytes;
}

int lh_utf8_encode(uint32_t code, uint8_t *out) {
  int bytes = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  for (int i = bytes - 1; i > 0; i--, code >>= 6)
    out[i] = (uint8_t)(0x80 | (code & 0x3F));
  out[0] = (uint8_t)(bytes == 1 ? code : (0xF0 << (4 - bytes)) | code);
  return bytes;
}
