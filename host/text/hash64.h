/* A 64-bit hash of bytes for tables and cache keys: the same value on every
 * little-endian machine. Multiply-and-fold mixing in the manner of wyhash;
 * not for adversaries, so a match of keys is always confirmed elsewhere
 * (tables compare the bytes, token files carry a CRC). */
#ifndef LH_TEXT_HASH_H
#define LH_TEXT_HASH_H

#include <stdint.h>
#include <string.h>

static inline uint64_t lh_hash_fold(uint64_t a, uint64_t b) {
  unsigned __int128 product = (unsigned __int128)a * b;
  return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Hash `size` bytes; chain parts by giving the previous hash as `seed`. */
static inline uint64_t lh_hash64(const void *data, size_t size,
                                 uint64_t seed) {
  const uint8_t *p = data;
  uint64_t h = seed ^ 0xA0761D6478BD642Full ^ size;
  size_t left = size;
  for (; left >= 8; left -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    h = lh_hash_fold(h ^ word, 0xE7037ED1A0B428DBull);
  }
  uint64_t tail = 0;
  for (size_t i = 0; i < left; i++) tail |= (uint64_t)p[i] << (8 * i);
  return lh_hash_fold(h ^ tail, 0x8EBC6AF09C88C6E3ull ^ (left << 56));
}

static inline uint64_t lh_hash_number(int64_t value, uint64_t seed) {
  return lh_hash64(&value, sizeof value, seed);
}

/* A string with its length, so that neighbours cannot be mistaken. */
static inline uint64_t lh_hash_string(const char *text, uint64_t seed) {
  size_t size = text ? strlen(text) : 0;
  return lh_hash64(text ? text : "", size, lh_hash_number((int64_t)size, seed));
}

#endif
