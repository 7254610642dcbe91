/* The trainer's pairs of symbols. */
#include "pairs.h"

#include <stdlib.h>
#include <string.h>

/* Make room for one more element of `size` bytes in a growing array. */
static bool make_room(void **array, int64_t count, int64_t *room,
                      size_t size) {
  if (count < *room) return true;
  int64_t larger = *room * 2 + 4;
  void *moved = realloc(*array, (size_t)larger * size);
  if (moved == NULL) return false;
  *array = moved;
  *room = larger;
  return true;
}

static uint64_t slot_of(const lh_pairs *p, int32_t left, int32_t right) {
  uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
  uint64_t mask = (uint64_t)p->capacity - 1;
  uint64_t i = (key * 0x9E3779B97F4A7C15ull >> 20) & mask;
  for (; p->slots[i]; i = (i + 1) & mask) {
    const lh_pair *pair = &p->pair[p->slots[i] - 1];
    if (pair->left == left && pair->right == right) break;
  }
  return i;
}

static bool grow_slots(lh_pairs *p) {
  int64_t capacity = p->capacity ? p->capacity * 2 : 1 << 12;
  int64_t *slots = calloc((size_t)capacity, sizeof *slots);
  if (slots == NULL) return false;
  free(p->slots);
  p->slots = slots;
  p->capacity = capacity;
  for (int64_t i = 0; i < p->count; i++)
    p->slots[slot_of(p, p->pair[i].left, p->pair[i].right)] = i + 1;
  return true;
}

static lh_pair *find(const lh_pairs *p, int32_t left, int32_t right) {
  int64_t slot = p->slots[slot_of(p, left, right)];
  return slot ? &p->pair[slot - 1] : NULL;
}

static lh_pair *find_or_add(lh_pairs *p, int32_t left, int32_t right) {
  if (2 * (p->count + 1) > p->capacity && !grow_slots(p)) return NULL;
  uint64_t i = slot_of(p, left, right);
  if (p->slots[i]) return &p->pair[p->slots[i] - 1];
  if (!make_room((void **)&p->pair, p->count, &p->room, sizeof *p->pair))
    return NULL;
  p->pair[p->count] = (lh_pair){.left = left, .right = right};
  p->slots[i] = ++p->count;
  return &p->pair[p->count - 1];
}

bool lh_pairs_add(lh_pairs *p, int32_t left, int32_t right, int64_t times,
                  int64_t w) {
  lh_pair *pair = find_or_add(p, left, right);
  if (pair == NULL) return false;
  pair->count += times;
  if (!pair->changed) {
    if (!make_room((void **)&p->changed, p->changes, &p->changed_room,
                   sizeof *p->changed))
      return false;
    p->changed[p->changes++] = pair - p->pair;
    pair->changed = true;
  }
  if (pair->words && pair->where[pair->words - 1] == w) return true;
  if (!make_room((void **)&pair->where, pair->words, &pair->room,
                 sizeof *pair->where))
    return false;
  pair->where[pair->words++] = w;
  return true;
}

void lh_pairs_remove(lh_pairs *p, int32_t left, int32_t right,
                     int64_t times) {
  lh_pair *pair = find(p, left, right);
  if (pair) pair->count -= times;
}

/* --- heap ---------------------------------------------------------------- */
static bool comes_first(const lh_pairs *p, lh_pair_entry a, lh_pair_entry b) {
  if (a.count != b.count) return a.count > b.count;
  const lh_pair *x = &p->pair[a.pair], *y = &p->pair[b.pair];
  if (x->left != y->left) return x->left < y->left;
  return x->right < y->right;
}

static void sift_up(lh_pairs *p, int64_t i, lh_pair_entry entry) {
  for (; i > 0; i = (i - 1) / 2) {
    if (!comes_first(p, entry, p->heap[(i - 1) / 2])) break;
    p->heap[i] = p->heap[(i - 1) / 2];
  }
  p->heap[i] = entry;
}

static void sift_down(lh_pairs *p, int64_t i, lh_pair_entry entry) {
  for (;;) {
    int64_t child = 2 * i + 1;
    if (child >= p->entries) break;
    if (child + 1 < p->entries &&
        comes_first(p, p->heap[child + 1], p->heap[child]))
      child++;
    if (!comes_first(p, p->heap[child], entry)) break;
    p->heap[i] = p->heap[child];
    i = child;
  }
  p->heap[i] = entry;
}

static bool queue(lh_pairs *p, int64_t index) {
  p->pair[index].changed = false;
  if (p->pair[index].count <= 0) return true;
  if (!make_room((void **)&p->heap, p->entries, &p->heap_room,
                 sizeof *p->heap))
    return false;
  lh_pair_entry entry = {p->pair[index].count, index};
  sift_up(p, p->entries++, entry);
  return true;
}

bool lh_pairs_queue_changed(lh_pairs *p) {
  for (int64_t i = 0; i < p->changes; i++)
    if (!queue(p, p->changed[i])) return false;
  p->changes = 0;
  return true;
}

/* An entry whose pair has shrunk goes back with its true count; one whose pair
 * has grown was followed by another and is dropped. */
bool lh_pairs_most(lh_pairs *p, int64_t least, int32_t *left,
                   int32_t *right) {
  while (p->entries > 0) {
    lh_pair_entry top = p->heap[0];
    const lh_pair *pair = &p->pair[top.pair];
    if (pair->count == top.count) {
      *left = pair->left;
      *right = pair->right;
      return pair->count >= least;
    }
    lh_pair_entry last = p->heap[--p->entries];
    if (p->entries > 0) sift_down(p, 0, last);
    if (pair->count > 0 && pair->count < top.count) {
      top.count = pair->count;
      sift_up(p, p->entries++, top);
    }
  }
  return false;
}

int64_t *lh_pairs_take(lh_pairs *p, int32_t left, int32_t right,
                       int64_t *words, bool *again) {
  lh_pair *pair = find(p, left, right);
  int64_t *where = pair->where;
  *words = pair->words;
  *again = pair->taken;
  pair->taken = true;
  pair->count = pair->words = pair->room = 0;
  pair->where = NULL;
  return where;
}

void lh_pairs_free(lh_pairs *p) {
  for (int64_t i = 0; i < p->count; i++) free(p->pair[i].where);
  free(p->pair);
  free(p->slots);
  free(p->heap);
  free(p->changed);
  *p = (lh_pairs){0};
}
