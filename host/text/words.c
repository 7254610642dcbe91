/* Counting words on several threads: each counts into a map of its own, the
 * maps are added up at the end. Sums of integers, so no order can show. */
#include "words.h"

#include <pthread.h>
#include <stdlib.h>

#include "hash64.h"
#include "pretokenize.h"
#include "unicode.h"

enum { THREADS_MOST = 64 };

typedef struct counter {
  pthread_t thread;
  bool started, failed;
  const lh_span *spans;
  int64_t count, *next; /* *next: the first span nobody has taken yet */
  lh_wordmap words;
} counter;

static bool count_span(lh_wordmap *words, const lh_span *span) {
  const uint8_t *p = (const uint8_t *)span->text, *end = p + span->size;
  while (p < end) {
    const uint8_t *next = lh_word_end(p, end);
    uint64_t hash = lh_hash64(p, (size_t)(next - p), 0);
    lh_word *word = lh_wordmap_insert(words, p, next - p, hash, NULL);
    if (word == NULL) return false;
    word->value++;
    p = next;
  }
  return true;
}

static void *count_some(void *argument) {
  counter *c = argument;
  for (;;) {
    int64_t i = __atomic_fetch_add(c->next, 1, __ATOMIC_RELAXED);
    if (i >= c->count) return NULL;
    if (!count_span(&c->words, &c->spans[i])) {
      c->failed = true;
      return NULL;
    }
  }
}

static bool add_words(lh_wordmap *sum, const lh_wordmap *part) {
  for (int64_t i = 0; i < part->capacity; i++) {
    const lh_word *from = &part->slots[i];
    if (from->key == NULL) continue;
    lh_word *to =
        lh_wordmap_insert(sum, from->key, from->size, from->hash, NULL);
    if (to == NULL) return false;
    to->value += from->value;
  }
  return true;
}

lk_status lh_words_count(const lh_span *spans, int64_t count, int threads,
                         lh_wordmap *counts, lk_error *e) {
  counter counters[THREADS_MOST] = {0};
  int64_t next = 0;
  bool failed = false;
  if (threads > THREADS_MOST) threads = THREADS_MOST;
  LK_TRY(lh_unicode_prepare(e));
  for (int i = 0; i < threads; i++) {
    counters[i].spans = spans;
    counters[i].count = count;
    counters[i].next = &next;
    /* The first counter runs here; one that cannot start is not missed. */
    if (i > 0)
      counters[i].started = pthread_create(&counters[i].thread, NULL,
                                           count_some, &counters[i]) == 0;
  }
  count_some(&counters[0]);
  *counts = counters[0].words;
  failed = counters[0].failed;
  for (int i = 1; i < threads; i++) {
    if (!counters[i].started) continue;
    pthread_join(counters[i].thread, NULL);
    failed = failed || counters[i].failed ||
             !add_words(counts, &counters[i].words);
    lh_wordmap_free(&counters[i].words);
  }
  if (failed) return lk_fail(e, LK_OOM, "no memory to count words");
  return LK_OK;
}
