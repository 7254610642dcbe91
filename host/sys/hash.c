/* CRC-32 (eight bytes at a time, "slicing-by-8"), CRC-32C and FNV-1a. */
#include "hash.h"

#include <pthread.h>
#include <string.h>

static uint32_t table[8][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static uint32_t castagnoli[256];

static void fill_table(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int k = 0; k < 8; k++) c = c & 1 ? 0x82F63B78u ^ (c >> 1) : c >> 1;
    castagnoli[i] = c;
  }
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
    table[0][i] = c;
  }
  for (uint32_t i = 0; i < 256; i++) {
    for (int k = 1; k < 8; k++) {
      uint32_t c = table[k - 1][i];
      table[k][i] = table[0][c & 255] ^ (c >> 8);
    }
  }
}

static uint32_t load32(const unsigned char *p) {
  return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
         (uint32_t)p[3] << 24;
}

static uint32_t crc_eight(uint32_t crc, const unsigned char *p) {
  uint32_t a = load32(p) ^ crc, b = load32(p + 4);
  return table[7][a & 255] ^ table[6][a >> 8 & 255] ^
         table[5][a >> 16 & 255] ^ table[4][a >> 24] ^ table[3][b & 255] ^
         table[2][b >> 8 & 255] ^ table[1][b >> 16 & 255] ^ table[0][b >> 24];
}

uint32_t lh_crc32(uint32_t crc, const void *data, size_t size) {
  const unsigned char *p = data;
  pthread_once(&table_once, fill_table);
  crc = ~crc;
  for (; size >= 8; size -= 8, p += 8) crc = crc_eight(crc, p);
  for (; size > 0; size--, p++) crc = table[0][(crc ^ *p) & 255] ^ (crc >> 8);
  return ~crc;
}

uint32_t lh_crc32c(uint32_t crc, const void *data, size_t size) {
  const unsigned char *p = data;
  pthread_once(&table_once, fill_table);
  crc = ~crc;
  for (; size > 0; size--) crc = castagnoli[(crc ^ *p++) & 255] ^ (crc >> 8);
  return ~crc;
}

uint64_t lh_fnv1a64(uint64_t hash, const void *data, size_t size) {
  const unsigned char *p = data;
  for (size_t i = 0; i < size; i++) {
    hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
  }
  return hash;
}
