/* The accountant: every byte of a device is allocated here, under a category
 * and within a budget. */
#ifndef LK_CORE_MEMORY_H
#define LK_CORE_MEMORY_H

#include <stdint.h>

#include "../base/status.h"

typedef enum lk_category {
  LK_PARAMETERS,   /* weights in their storage format, compute copies */
  LK_GRADIENTS,    /* of parameters, while they live */
  LK_OPTIMIZER,    /* moments, momentum, control values */
  LK_ACTIVATIONS,  /* values between operators and their gradients */
  LK_SCRATCH,      /* inside one operator; library workspaces */
  LK_DATA,         /* token batches, metrics, tables, eager tensors */
  LK_CATEGORY_COUNT
} lk_category;

/* "parameters", …; never NULL. */
const char *lk_category_word(lk_category category);

typedef struct lk_memory_stats {
  int64_t current, peak, budget;            /* bytes; budget 0: none */
  int64_t category_current[LK_CATEGORY_COUNT];
  int64_t category_peak[LK_CATEGORY_COUNT]; /* composition at the peak */
  int64_t allocations;                      /* alive */
} lk_memory_stats;

/* The accountant of one device. Thread-safe. */
typedef struct lk_memory lk_memory;

/* How bytes are really had: the backend's, or malloc. NULL on failure. */
typedef struct lk_allocator {
  void *(*allocate)(void *state, int64_t bytes);
  void (*release)(void *state, void *data, int64_t bytes);
  void *state;
} lk_allocator;

lk_status lk_memory_open(lk_allocator allocator, lk_memory **memory);
void lk_memory_close(lk_memory *memory);

/* `bytes` of memory attributed to categories by `split` (sums to `bytes`).
 * Fails with LK_OOM, message with requested, current and budget, exactly as
 * a full device would, when the budget would be passed. */
lk_status lk_memory_allocate(lk_memory *memory,
                             const int64_t split[LK_CATEGORY_COUNT],
                             void **data, lk_error *error);
void lk_memory_release(lk_memory *memory,
                       const int64_t split[LK_CATEGORY_COUNT], void *data);

void lk_memory_read(lk_memory *memory, lk_memory_stats *stats);
/* The peak becomes what is current. */
void lk_memory_reset_peak(lk_memory *memory);
/* 0 lifts the budget. */
void lk_memory_set_budget(lk_memory *memory, int64_t bytes);

/* For tests: the n-th allocation from now fails as LK_OOM (1: the next);
 * 0: never. */
void lk_memory_fail_after(lk_memory *memory, int64_t n);

#endif
