/* Holding documents out: a shuffled order of groups, cut at the share of bytes
 * that was asked for. */
#include "held_out.h"

#include <stdlib.h>

#include "hash64.h"

typedef struct keyed {
  uint64_t key;
  int64_t number;
} keyed;

static int by_key(const void *a, const void *b) {
  const keyed *x = a, *y = b;
  if (x->key != y->key) return x->key < y->key ? -1 : 1;
  return (x->number > y->number) - (x->number < y->number);
}

int64_t *lh_shuffled(int64_t count, uint64_t seed) {
  keyed *items = malloc((size_t)count * sizeof *items + 1);
  int64_t *order = malloc((size_t)count * sizeof *order + 1);
  if (items && order) {
    for (int64_t i = 0; i < count; i++)
      items[i] = (keyed){lh_hash_number(i, lh_hash64(&seed, 8, 3)), i};
    qsort(items, (size_t)count, sizeof *items, by_key);
    for (int64_t i = 0; i < count; i++) order[i] = items[i].number;
  } else {
    free(order);
    order = NULL;
  }
  free(items);
  return order;
}

/* Where each group starts, and at the end the number of documents; allocated.
 * NULL without memory. */
static int64_t *group_starts(const lh_corpus *c, int64_t *groups) {
  int64_t *start = malloc(((size_t)c->count + 1) * sizeof *start);
  *groups = 0;
  for (int64_t i = 0; start && i < c->count; i++)
    if (i == 0 || c->documents[i].group != c->documents[i - 1].group)
      start[(*groups)++] = i;
  if (start) start[*groups] = c->count;
  return start;
}

static void hold_group(lh_corpus *c, int64_t first, int64_t end) {
  for (int64_t i = first; i < end; i++) {
    c->documents[i].held_out = true;
    c->held_bytes += c->documents[i].size;
    c->held_count++;
  }
}

/* Hold groups out in shuffled order, each as long as it brings the share of
 * bytes nearer to the one asked for; one at least, and not all. */
static lk_status hold_groups(lh_corpus *c, const int64_t *start,
                             int64_t groups, const lh_corpus_options *options,
                             lk_error *e) {
  int64_t target = (int64_t)((double)c->bytes * options->validation);
  int64_t *order = lh_shuffled(groups, options->seed);
  if (order == NULL) return lk_fail(e, LK_OOM, "no memory for a corpus");
  for (int64_t i = 0, held = 0; i < groups && held < groups - 1; i++) {
    int64_t first = start[order[i]], end = start[order[i] + 1], size = 0;
    for (int64_t k = first; k < end; k++) size += c->documents[k].size;
    bool too_much = held > 0 ? c->held_bytes + size / 2 > target
                             : size > 2 * target && i + 1 < groups;
    if (too_much) continue;
    hold_group(c, first, end);
    held++;
  }
  free(order);
  return LK_OK;
}

lk_status lh_hold_out(lh_corpus *c, const lh_corpus_options *options,
                      lk_error *e) {
  int64_t groups;
  if (options->validation <= 0) return LK_OK;
  int64_t *start = group_starts(c, &groups);
  if (start == NULL) return lk_fail(e, LK_OOM, "no memory for a corpus");
  lk_status status = groups >= 2
      ? hold_groups(c, start, groups, options, e)
      : lk_fail(e, LK_ARGUMENT, "a corpus of one document (%lld bytes) cannot "
                "be split into training and validation; give more text or "
                "validation = 0", (long long)c->bytes);
  free(start);
  return status;
}
