/* The accountant: every byte of a device is allocated here, under a category
 * and within a budget. */
#include "memory.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct lk_memory {
  pthread_mutex_t lock;
  lk_allocator allocator;
  lk_memory_stats stats;
  int64_t fail_after; /* allocations until one fails; 0: never */
};

const char *lk_category_word(lk_category category) {
  static const char *const words[LK_CATEGORY_COUNT] = {
      [LK_PARAMETERS] = "parameters",   [LK_GRADIENTS] = "gradients",
      [LK_OPTIMIZER] = "optimizer",     [LK_ACTIVATIONS] = "activations",
      [LK_SCRATCH] = "scratch",         [LK_DATA] = "data",
  };
  return (unsigned)category < LK_CATEGORY_COUNT ? words[category] : "?";
}

lk_status lk_memory_open(lk_allocator allocator, lk_memory **memory) {
  lk_memory *m = calloc(1, sizeof *m);
  *memory = m;
  if (m == NULL) return LK_OOM;
  m->allocator = allocator;
  pthread_mutex_init(&m->lock, NULL);
  return LK_OK;
}

void lk_memory_close(lk_memory *memory) {
  if (memory == NULL) return;
  pthread_mutex_destroy(&memory->lock);
  free(memory);
}

/* "1.2 GB" into `text`: powers of ten, one decimal from kB on. */
static const char *size_text(int64_t bytes, char text[32]) {
  static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  double value = (double)bytes;
  int unit = 0;
  for (; value >= 999.95 && unit < 6; unit++) value /= 1000;
  snprintf(text, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
  return text;
}

/* The sum of a split, or -1 when a part is negative or the sum overflows. */
static int64_t split_sum(const int64_t split[LK_CATEGORY_COUNT]) {
  int64_t sum = 0;
  for (int i = 0; i < LK_CATEGORY_COUNT; i++)
    if (split[i] < 0 || __builtin_add_overflow(sum, split[i], &sum)) return -1;
  return sum;
}

static lk_category split_largest(const int64_t split[LK_CATEGORY_COUNT]) {
  int largest = 0;
  for (int i = 1; i < LK_CATEGORY_COUNT; i++)
    if (split[i] > split[largest]) largest = i;
  return (lk_category)largest;
}

static lk_status out_of_memory(const lk_memory_stats *stats, int64_t bytes,
                               lk_category category, lk_error *error) {
  char requested[32], used[32], budget[32], limit[48] = "";
  if (stats->budget > 0)
    snprintf(limit, sizeof limit, ", budget %s",
             size_text(stats->budget, budget));
  return lk_fail(error, LK_OOM,
                 "out of memory: %s requested, %s in use%s (%s)",
                 size_text(bytes, requested),
                 size_text(stats->current, used), limit,
                 lk_category_word(category));
}

/* Whether this allocation is the one that a test asked to fail. */
static bool failure_is_due(lk_memory *memory) {
  return memory->fail_after > 0 && --memory->fail_after == 0;
}

static void count_in(lk_memory_stats *stats, const int64_t *split,
                     int64_t bytes) {
  stats->current += bytes;
  stats->allocations++;
  for (int i = 0; i < LK_CATEGORY_COUNT; i++)
    stats->category_current[i] += split[i];
  if (stats->current <= stats->peak) return;
  stats->peak = stats->current;
  memcpy(stats->category_peak, stats->category_current,
         sizeof stats->category_peak);
}

lk_status lk_memory_allocate(lk_memory *memory,
                             const int64_t split[LK_CATEGORY_COUNT],
                             void **data, lk_error *error) {
  *data = NULL;
  int64_t bytes = split_sum(split);
  if (bytes < 0)
    return lk_fail(error, LK_ARGUMENT, "an allocation of a negative size");
  pthread_mutex_lock(&memory->lock);
  lk_memory_stats *stats = &memory->stats;
  bool fits = stats->budget == 0 || bytes <= stats->budget - stats->current;
  if (!failure_is_due(memory) && fits)
    *data = memory->allocator.allocate(memory->allocator.state, bytes);
  lk_status status = LK_OK;
  if (*data != NULL)
    count_in(stats, split, bytes);
  else
    status = out_of_memory(stats, bytes, split_largest(split), error);
  pthread_mutex_unlock(&memory->lock);
  return status;
}

void lk_memory_release(lk_memory *memory,
                       const int64_t split[LK_CATEGORY_COUNT], void *data) {
  if (data == NULL) return;
  int64_t bytes = split_sum(split);
  pthread_mutex_lock(&memory->lock);
  memory->allocator.release(memory->allocator.state, data, bytes);
  memory->stats.current -= bytes;
  memory->stats.allocations--;
  for (int i = 0; i < LK_CATEGORY_COUNT; i++)
    memory->stats.category_current[i] -= split[i];
  pthread_mutex_unlock(&memory->lock);
}

void lk_memory_read(lk_memory *memory, lk_memory_stats *stats) {
  pthread_mutex_lock(&memory->lock);
  *stats = memory->stats;
  pthread_mutex_unlock(&memory->lock);
}

void lk_memory_reset_peak(lk_memory *memory) {
  pthread_mutex_lock(&memory->lock);
  memory->stats.peak = memory->stats.current;
  memcpy(memory->stats.category_peak, memory->stats.category_current,
         sizeof memory->stats.category_peak);
  pthread_mutex_unlock(&memory->lock);
}

void lk_memory_set_budget(lk_memory *memory, int64_t bytes) {
  pthread_mutex_lock(&memory->lock);
  memory->stats.budget = bytes > 0 ? bytes : 0;
  pthread_mutex_unlock(&memory->lock);
}

void lk_memory_fail_after(lk_memory *memory, int64_t n) {
  pthread_mutex_lock(&memory->lock);
  memory->fail_after = n;
  pthread_mutex_unlock(&memory->lock);
}
