/* Merging the symbols of a long word (a run of dashes, of spaces, of base64):
 * a linked list of symbols and a heap of mergeable pairs. */
#include "encode_long.h"

#include <stdlib.h>

typedef struct candidate {
  int32_t rank;
  int64_t at;             /* its left symbol */
  int32_t left, right;    /* as they were: stale when they have changed */
} candidate;

typedef struct word {
  const lh_tokenizer *t;
  int32_t *id;            /* −1: merged away */
  int64_t *next, *before; /* −1: none */
  candidate *heap;
  int64_t candidates;
} word;

static bool comes_first(const candidate *a, const candidate *b) {
  return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(word *w, candidate c) {
  int64_t i = w->candidates++;
  for (; i > 0 && comes_first(&c, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
    w->heap[i] = w->heap[(i - 1) / 2];
  w->heap[i] = c;
}

static candidate heap_pop(word *w) {
  candidate top = w->heap[0], last = w->heap[--w->candidates];
  int64_t i = 0;
  for (;;) {
    int64_t child = 2 * i + 1;
    if (child >= w->candidates) break;
    if (child + 1 < w->candidates &&
        comes_first(&w->heap[child + 1], &w->heap[child]))
      child++;
    if (!comes_first(&w->heap[child], &last)) break;
    w->heap[i] = w->heap[child];
    i = child;
  }
  w->heap[i] = last;
  return top;
}

/* Offer the pair whose left symbol is at `at`, if it can be merged. */
static void offer(word *w, int64_t at) {
  if (at < 0 || w->next[at] < 0) return;
  candidate c = {.at = at, .left = w->id[at], .right = w->id[w->next[at]]};
  c.rank = lh_merge_rank(w->t, c.left, c.right);
  if (c.rank >= 0) heap_push(w, c);
}

static void apply(word *w, const candidate *c) {
  int64_t right = w->next[c->at];
  if (w->id[c->at] != c->left || right < 0 || w->id[right] != c->right) return;
  w->id[c->at] = w->t->merge[c->rank].result;
  w->id[right] = -1;
  w->next[c->at] = w->next[right];
  if (w->next[right] >= 0) w->before[w->next[right]] = c->at;
  offer(w, w->before[c->at]);
  offer(w, c->at);
}

/* Every merge offers at most two pairs and removes a symbol, so the heap never
 * holds more than 3 · count of them. */
lk_status lh_merge_long(const lh_tokenizer *t, int32_t *id, int64_t *count,
                        lk_error *e) {
  int64_t n = *count;
  word w = {.t = t, .id = id};
  w.next = malloc((size_t)n * sizeof *w.next);
  w.before = malloc((size_t)n * sizeof *w.before);
  w.heap = malloc((size_t)n * 3 * sizeof *w.heap);
  lk_status status = LK_OK;
  if (!w.next || !w.before || !w.heap) {
    status = lk_fail(e, LK_OOM, "no memory for a word of %lld bytes",
                     (long long)n);
    goto done;
  }
  for (int64_t i = 0; i < n; i++) {
    w.before[i] = i - 1;
    w.next[i] = i + 1 < n ? i + 1 : -1;
  }
  for (int64_t i = 0; i + 1 < n; i++) offer(&w, i);
  while (w.candidates > 0) {
    candidate c = heap_pop(&w);
    apply(&w, &c);
  }
  *count = 0;
  for (int64_t i = 0; i < n; i++)
    if (id[i] >= 0) id[(*count)++] = id[i];
done:
  free(w.next);
  free(w.before);
  free(w.heap);
  return status;
}
