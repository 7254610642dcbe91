/* UTF-8, one character at a time. */
#ifndef LH_SYS_UTF8_H
#define LH_SYS_UTF8_H

#include <stdint.h>

/* Bytes of the well-formed UTF-8 character at p (*code gets it), or 0. */
int lh_utf8_decode(const uint8_t *p, const uint8_t *end, uint32_t *code);
/* Write one code point; returns its bytes (1 to 4). */
int lh_utf8_encode(uint32_t code, uint8_t *out);

#endif
