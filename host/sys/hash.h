/* Checksums of bytes: CRC-32 for files, CRC-32C for records that others read,
 * FNV-1a for texts. */
#ifndef LH_SYS_HASH_H
#define LH_SYS_HASH_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32 as in zlib and PNG (polynomial 0xEDB88320). Start with crc = 0 and
 * feed the pieces in order. */
uint32_t lh_crc32(uint32_t crc, const void *data, size_t size);

/* CRC-32C (Castagnoli, polynomial 0x82F63B78), in the same manner. */
uint32_t lh_crc32c(uint32_t crc, const void *data, size_t size);

/* FNV-1a, 64 bits. Start with LH_FNV1A64 and feed the pieces in order. */
#define LH_FNV1A64 UINT64_C(0xcbf29ce484222325)
uint64_t lh_fnv1a64(uint64_t hash, const void *data, size_t size);

#endif
