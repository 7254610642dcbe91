/* The trainer's pairs of symbols: counts, the words that hold them, and the
 * most frequent one. */
#ifndef LH_TEXT_PAIRS_H
#define LH_TEXT_PAIRS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct lh_pair {
  int32_t left, right;
  int64_t count;
  int64_t *where;         /* words that may hold it, some more than once */
  int64_t words, room;
  bool changed;           /* has grown since it was last queued */
  bool taken;             /* was merged once */
} lh_pair;

typedef struct lh_pair_entry {
  int64_t count;          /* when queued; the pair may have shrunk since */
  int64_t pair;
} lh_pair_entry;

typedef struct lh_pairs {
  lh_pair *pair;
  int64_t count, room;
  int64_t *slots;         /* open addressing: 0 is free, else pair + 1 */
  int64_t capacity;
  lh_pair_entry *heap;
  int64_t entries, heap_room;
  int64_t *changed;
  int64_t changes, changed_room;
} lh_pairs;

/* Count `times` more occurrences of a pair, in word `w`; false: no memory. */
bool lh_pairs_add(lh_pairs *p, int32_t left, int32_t right, int64_t times,
                  int64_t w);
/* Count `times` fewer. */
void lh_pairs_remove(lh_pairs *p, int32_t left, int32_t right, int64_t times);
/* Put into the heap the pairs that have grown since the last time. */
bool lh_pairs_queue_changed(lh_pairs *p);
/* The most frequent pair, of equals the smaller (left, right); false when none
 * occurs `least` times. */
bool lh_pairs_most(lh_pairs *p, int64_t least, int32_t *left, int32_t *right);
/* Forget a pair; gives its list of words, the caller's to free. *again says
 * whether it was taken before: a later merge can give an earlier token's bytes
 * and so bring the pair back. */
int64_t *lh_pairs_take(lh_pairs *p, int32_t left, int32_t right,
                       int64_t *words, bool *again);
void lh_pairs_free(lh_pairs *p);

#endif
