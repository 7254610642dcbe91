/* A hash map from byte strings to one integer, open addressing, for word
 * counts, vocabularies and the encoder's cache. Keys are borrowed: the caller
 * keeps their bytes alive and unmoved. */
#ifndef LH_TEXT_WORDMAP_H
#define LH_TEXT_WORDMAP_H

#include <stdbool.h>
#include <stdint.h>

typedef struct lh_word {
  const uint8_t *key; /* NULL: a free slot */
  uint64_t hash;
  int64_t value;
  uint32_t size;
} lh_word;

typedef struct lh_wordmap {
  lh_word *slots;
  int64_t capacity, count; /* capacity is 0 or a power of two */
} lh_wordmap;

/* The entry of a key, or NULL. */
lh_word *lh_wordmap_find(const lh_wordmap *map, const void *key, int64_t size);
/* As above with the key's lh_hash64(key, size, 0) at hand. */
lh_word *lh_wordmap_find_hashed(const lh_wordmap *map, const void *key,
                                int64_t size, uint64_t hash);
/* The entry of a key, added with value 0 when it is new (*added says so, may
 * be NULL); NULL when memory is exhausted. Entries move on the next insert. */
lh_word *lh_wordmap_insert(lh_wordmap *map, const void *key, int64_t size,
                           uint64_t hash, bool *added);
void lh_wordmap_free(lh_wordmap *map);

#endif
