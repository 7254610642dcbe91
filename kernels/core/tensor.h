/* Tensors as operators see them, and reference-counted storage for tensors
 * that live on their own (eager ones, parameters, arenas). */
#ifndef LK_CORE_TENSOR_H
#define LK_CORE_TENSOR_H

#include "../base/dtype.h"
#include "../base/shape.h"
#include "../base/status.h"
#include "memory.h"

struct lk_context;

/* A dense row-major array. data is device memory, NULL while a program is
 * being planned; an operator neither owns nor keeps it. */
typedef struct lk_tensor {
  void *data;
  lk_dtype dtype;
  lk_shape shape;
} lk_tensor;

int64_t lk_tensor_count(const lk_tensor *tensor);
int64_t lk_tensor_bytes(const lk_tensor *tensor);

/* A block of device memory with a count of its users. */
typedef struct lk_storage lk_storage;

/* Allocate `bytes` (64-byte aligned, contents undefined) charged to
 * `category`; count 1. LK_OOM when the budget or the device is exhausted. */
lk_status lk_storage_new(struct lk_context *context, int64_t bytes,
                         lk_category category, lk_storage **storage);
void lk_storage_retain(lk_storage *storage);
/* Give up one use; the last one frees. NULL is fine. */
void lk_storage_release(lk_storage *storage);
void *lk_storage_data(const lk_storage *storage);
int64_t lk_storage_bytes(const lk_storage *storage);
struct lk_context *lk_storage_context(const lk_storage *storage);

#endif
