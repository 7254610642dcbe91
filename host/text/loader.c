/* Batches from tokens: which window a sample is, and the prefetching thread. */
#include "loader.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "../../kernels/base/rng.h"

enum { STREAM = 0x4C4F4144 /* of Philox: no operator draws from it */ };
enum { ROUNDS = 6, SLOTS = 2 };

typedef enum slot_state { FREE, WANTED, FILLING, READY } slot_state;

/* One prepared batch. */
typedef struct slot {
  slot_state state;
  int64_t step, first, count, room, age;
  int32_t *x, *y;
  lk_status status;
  lk_error error;
} slot;

struct lh_loader {
  lh_tokens *tokens;
  lh_loader_options options;
  int64_t windows, half_bits;
  int32_t *window;        /* seq + 1 ids, of the calling thread */
  int32_t *ahead_window;  /* the same, of the prefetching thread */
  pthread_t thread;
  bool started, ending;
  pthread_mutex_t mutex;
  pthread_cond_t changed; /* a slot has changed its state */
  slot slots[SLOTS];
  int64_t clock;
};

/* --- order --------------------------------------------------------------- */
static uint32_t draw(const lh_loader *l, int64_t epoch, uint32_t what,
                     uint64_t value) {
  lk_rng_word4 r = lk_philox(l->options.seed ^ (uint64_t)epoch << 32,
                             value << 4 | what, STREAM, (uint32_t)epoch);
  return r.w[0];
}

/* A permutation of 0 … windows − 1: a Feistel network on an even number of
 * bits, walked until it lands inside the range. */
static int64_t permute(const lh_loader *l, int64_t epoch, int64_t index) {
  uint64_t mask = ((uint64_t)1 << l->half_bits) - 1;
  uint64_t value = (uint64_t)index;
  do {
    uint64_t left = value >> l->half_bits, right = value & mask;
    for (uint32_t round = 1; round <= ROUNDS; round++) {
      uint64_t next = left ^ (draw(l, epoch, round, right) & mask);
      left = right;
      right = next;
    }
    value = left << l->half_bits | right;
  } while (value >= (uint64_t)l->windows);
  return (int64_t)value;
}

/* First token of a sample of the run, −1 past the end of a sequential one. */
static int64_t sample_start(const lh_loader *l, int64_t sample) {
  int64_t seq = l->options.seq;
  if (l->options.sequential)
    return sample < l->windows ? sample * seq : -1;
  int64_t epoch = sample / l->windows;
  int64_t slack = lh_tokens_about(l->tokens)->count - 1 - l->windows * seq;
  int64_t most = slack < seq - 1 ? slack : seq - 1;
  int64_t offset = draw(l, epoch, 0, 0) % (uint64_t)(most + 1);
  return permute(l, epoch, sample % l->windows) * seq + offset;
}

static lk_status fill(const lh_loader *l, int64_t step, int64_t first,
                      int64_t count, int32_t *window, int32_t *x, int32_t *y,
                      lk_error *e) {
  int64_t seq = l->options.seq;
  for (int64_t i = 0; i < count; i++, x += seq, y += seq) {
    int64_t at = sample_start(l, step * l->options.batch + first + i);
    if (at < 0) {
      memset(x, 0, (size_t)seq * sizeof *x);
      memset(y, 0xFF, (size_t)seq * sizeof *y);
      continue;
    }
    LK_TRY(lh_tokens_read(l->tokens, at, seq + 1, window, e));
    memcpy(x, window, (size_t)seq * sizeof *x);
    memcpy(y, window + 1, (size_t)seq * sizeof *y);
  }
  return LK_OK;
}

/* --- thread -------------------------------------------------------------- */
static bool slot_room(slot *s, int64_t samples, int64_t seq) {
  if (s->room >= samples * seq) return true;
  free(s->x);
  free(s->y);
  s->x = malloc((size_t)(samples * seq) * sizeof *s->x);
  s->y = malloc((size_t)(samples * seq) * sizeof *s->y);
  s->room = s->x && s->y ? samples * seq : 0;
  return s->room > 0;
}

/* The wanted slot that has waited longest. */
static slot *next_wanted(lh_loader *l) {
  slot *next = NULL;
  for (int i = 0; i < SLOTS; i++)
    if (l->slots[i].state == WANTED &&
        (next == NULL || l->slots[i].age < next->age))
      next = &l->slots[i];
  return next;
}

static void *prefetch(void *argument) {
  lh_loader *l = argument;
  pthread_mutex_lock(&l->mutex);
  while (!l->ending) {
    slot *s = next_wanted(l);
    if (s == NULL) {
      pthread_cond_wait(&l->changed, &l->mutex);
      continue;
    }
    s->state = FILLING;
    pthread_mutex_unlock(&l->mutex);
    s->status = slot_room(s, s->count, l->options.seq)
                    ? fill(l, s->step, s->first, s->count, l->ahead_window,
                           s->x, s->y, &s->error)
                    : lk_fail(&s->error, LK_OOM, "no memory for a batch");
    pthread_mutex_lock(&l->mutex);
    s->state = READY;
    pthread_cond_broadcast(&l->changed);
  }
  pthread_mutex_unlock(&l->mutex);
  return NULL;
}

static slot *find_slot(lh_loader *l, int64_t step, int64_t first,
                       int64_t count) {
  for (int i = 0; i < SLOTS; i++) {
    slot *s = &l->slots[i];
    if (s->state != FREE && s->step == step && s->first == first &&
        s->count == count)
      return s;
  }
  return NULL;
}

/* A slot for a new batch: a free one, else the older of those nobody fetched;
 * NULL when all are being filled. */
static slot *free_slot(lh_loader *l) {
  slot *oldest = NULL;
  for (int i = 0; i < SLOTS; i++) {
    slot *s = &l->slots[i];
    if (s->state == FREE) return s;
    if (s->state != FILLING && (oldest == NULL || s->age < oldest->age))
      oldest = s;
  }
  return oldest;
}

void lh_loader_prefetch(lh_loader *l, int64_t step, int64_t first,
                        int64_t count) {
  pthread_mutex_lock(&l->mutex);
  if (!l->started)
    l->started = pthread_create(&l->thread, NULL, prefetch, l) == 0;
  slot *s = l->started && !find_slot(l, step, first, count) ? free_slot(l)
                                                            : NULL;
  if (s) {
    s->state = WANTED;
    s->step = step;
    s->first = first;
    s->count = count;
    s->age = l->clock++;
    pthread_cond_broadcast(&l->changed);
  }
  pthread_mutex_unlock(&l->mutex);
}

/* Copy the batch if it was prepared; *found says so. A failed preparation is
 * not reported: the batch is then read directly, and fails for itself. */
static void take_prepared(lh_loader *l, int64_t step, int64_t first,
                          int64_t count, int32_t *x, int32_t *y,
                          bool *found) {
  pthread_mutex_lock(&l->mutex);
  slot *s = find_slot(l, step, first, count);
  while (s && s->state != READY) pthread_cond_wait(&l->changed, &l->mutex);
  *found = s && s->status == LK_OK;
  if (*found) {
    size_t bytes = (size_t)(count * l->options.seq) * sizeof *x;
    memcpy(x, s->x, bytes);
    memcpy(y, s->y, bytes);
  }
  if (s) s->state = FREE;
  pthread_mutex_unlock(&l->mutex);
}

/* --- use ----------------------------------------------------------------- */
lk_status lh_loader_fill(lh_loader *loader, int64_t step, int64_t first,
                         int64_t count, int32_t *x, int32_t *y, lk_error *e) {
  lh_loader *l = loader;
  int64_t batch = l->options.batch;
  if (step < 0 || step > INT64_MAX / batch - 1 || first < 0 || count < 1 ||
      first > batch - count)
    return lk_fail(e, LK_ARGUMENT,
                   "samples %lld to %lld of step %lld: a step has %lld samples",
                   (long long)first + 1, (long long)(first + count),
                   (long long)step + 1, (long long)batch);
  bool found = false;
  if (l->started) take_prepared(l, step, first, count, x, y, &found);
  if (!found) LK_TRY(fill(l, step, first, count, l->window, x, y, e));
  if (first + 2 * count <= batch)
    lh_loader_prefetch(l, step, first + count, count);
  else if (first + count == batch)
    lh_loader_prefetch(l, step + 1, 0, count);
  return LK_OK;
}

static lk_status check_options(const lh_loader_options *o, int64_t tokens,
                               lk_error *e) {
  if (o->seq < 1 || o->batch < 1)
    return lk_fail(e, LK_ARGUMENT,
                   "a loader needs seq ≥ 1 and batch ≥ 1, got %lld and %lld",
                   (long long)o->seq, (long long)o->batch);
  if (tokens - 1 < o->seq)
    return lk_fail(e, LK_ARGUMENT,
                   "%lld tokens are too few for samples of %lld (one more is "
                   "needed as a target); give more text or a smaller seq",
                   (long long)tokens, (long long)o->seq);
  return LK_OK;
}

/* Training gives up part of a window so that every epoch can shift. */
static int64_t count_windows(const lh_loader_options *o, int64_t tokens) {
  int64_t all = (tokens - 1) / o->seq, shifted = (tokens - o->seq) / o->seq;
  if (!o->sequential) return shifted > 0 ? shifted : 1;
  int64_t most = o->max_tokens > 0 ? o->max_tokens / o->seq : all;
  if (most < 1) most = 1;
  return most < all ? most : all;
}

lk_status lh_loader_new(lh_tokens *tokens, const lh_loader_options *options,
                        lh_loader **out, lk_error *e) {
  int64_t count = lh_tokens_about(tokens)->count;
  *out = NULL;
  LK_TRY(check_options(options, count, e));
  lh_loader *l = calloc(1, sizeof *l);
  if (l == NULL) return lk_fail(e, LK_OOM, "no memory for a loader");
  l->options = *options;
  l->windows = count_windows(options, count);
  while ((int64_t)1 << (2 * l->half_bits) < l->windows) l->half_bits++;
  l->tokens = lh_tokens_retain(tokens);
  pthread_mutex_init(&l->mutex, NULL);
  pthread_cond_init(&l->changed, NULL);
  size_t bytes = ((size_t)options->seq + 1) * sizeof(int32_t);
  l->window = malloc(bytes);
  l->ahead_window = malloc(bytes);
  if (l->window && l->ahead_window) {
    *out = l;
    return LK_OK;
  }
  lh_loader_free(l);
  return lk_fail(e, LK_OOM, "no memory for samples of %lld tokens",
                 (long long)options->seq);
}

void lh_loader_free(lh_loader *loader) {
  lh_loader *l = loader;
  if (l == NULL) return;
  pthread_mutex_lock(&l->mutex);
  l->ending = true;
  pthread_cond_broadcast(&l->changed);
  pthread_mutex_unlock(&l->mutex);
  if (l->started) pthread_join(l->thread, NULL);
  for (int i = 0; i < SLOTS; i++) {
    free(l->slots[i].x);
    free(l->slots[i].y);
  }
  pthread_cond_destroy(&l->changed);
  pthread_mutex_destroy(&l->mutex);
  lh_tokens_release(l->tokens);
  free(l->window);
  free(l->ahead_window);
  free(l);
}

const lh_loader_options *lh_loader_about(const lh_loader *loader) {
  return &loader->options;
}

const lh_tokens *lh_loader_tokens(const lh_loader *loader) {
  return loader->tokens;
}

int64_t lh_loader_windows(const lh_loader *loader) { return loader->windows; }

int64_t lh_loader_steps(const lh_loader *loader) {
  return (loader->windows - 1) / loader->options.batch + 1;
}

double lh_loader_epochs(const lh_loader *loader, int64_t step) {
  return (double)step * (double)loader->options.batch /
         (double)loader->windows;
}
