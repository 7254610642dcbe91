/* A hash map from byte strings to one integer. */
#include "wordmap.h"

#include <stdlib.h>
#include <string.h>

#include "hash64.h"

/* The slot that holds the key, or the free one where it belongs. */
static lh_word *probe(const lh_wordmap *map, const void *key, int64_t size,
                      uint64_t hash) {
  uint64_t mask = (uint64_t)map->capacity - 1;
  for (uint64_t i = hash & mask;; i = (i + 1) & mask) {
    lh_word *word = &map->slots[i];
    if (word->key == NULL) return word;
    if (word->hash == hash && word->size == (uint32_t)size &&
        memcmp(word->key, key, (size_t)size) == 0)
      return word;
  }
}

static bool grow(lh_wordmap *map) {
  lh_wordmap larger = {.capacity = map->capacity ? map->capacity * 2 : 1024,
                       .count = map->count};
  larger.slots = calloc((size_t)larger.capacity, sizeof *larger.slots);
  if (larger.slots == NULL) return false;
  for (int64_t i = 0; i < map->capacity; i++) {
    lh_word *word = &map->slots[i];
    if (word->key)
      *probe(&larger, word->key, word->size, word->hash) = *word;
  }
  free(map->slots);
  *map = larger;
  return true;
}

lh_word *lh_wordmap_find_hashed(const lh_wordmap *map, const void *key,
                                int64_t size, uint64_t hash) {
  if (map->capacity == 0) return NULL;
  lh_word *word = probe(map, key, size, hash);
  return word->key ? word : NULL;
}

lh_word *lh_wordmap_find(const lh_wordmap *map, const void *key,
                         int64_t size) {
  return lh_wordmap_find_hashed(map, key, size,
                                lh_hash64(key, (size_t)size, 0));
}

lh_word *lh_wordmap_insert(lh_wordmap *map, const void *key, int64_t size,
                           uint64_t hash, bool *added) {
  if (map->count * 2 >= map->capacity && !grow(map)) return NULL;
  lh_word *word = probe(map, key, size, hash);
  if (added) *added = word->key == NULL;
  if (word->key == NULL) {
    *word = (lh_word){.key = key, .hash = hash, .size = (uint32_t)size};
    map->count++;
  }
  return word;
}

void lh_wordmap_free(lh_wordmap *map) {
  free(map->slots);
  *map = (lh_wordmap){0};
}
