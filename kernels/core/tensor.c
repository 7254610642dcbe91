/* Tensors and the reference-counted storage behind those that live on their
 * own. */
#include "tensor.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "context.h"

struct lk_storage {
  lk_context *context;
  void *data;
  int64_t bytes;
  lk_category category;
  atomic_int users;
};

int64_t lk_tensor_count(const lk_tensor *tensor) {
  return tensor->shape.rank < 0 ? 0 : lk_shape_count(tensor->shape);
}

int64_t lk_tensor_bytes(const lk_tensor *tensor) {
  return lk_dtype_bytes(tensor->dtype, lk_tensor_count(tensor));
}

lk_status lk_storage_new(lk_context *context, int64_t bytes,
                         lk_category category, lk_storage **storage) {
  *storage = NULL;
  lk_storage *s = calloc(1, sizeof *s);
  if (s == NULL)
    return lk_fail(&context->error, LK_OOM, "out of host memory");
  s->context = context;
  s->bytes = bytes;
  s->category = category;
  atomic_init(&s->users, 1);
  int64_t split[LK_CATEGORY_COUNT] = {0};
  split[category] = bytes;
  lk_status status =
      lk_memory_allocate(context->memory, split, &s->data, &context->error);
  if (status == LK_OK)
    *storage = s;
  else
    free(s);
  return status;
}

void lk_storage_retain(lk_storage *storage) {
  atomic_fetch_add(&storage->users, 1);
}

void lk_storage_release(lk_storage *storage) {
  if (storage == NULL || atomic_fetch_sub(&storage->users, 1) != 1) return;
  int64_t split[LK_CATEGORY_COUNT] = {0};
  split[storage->category] = storage->bytes;
  lk_memory_release(storage->context->memory, split, storage->data);
  free(storage);
}

void *lk_storage_data(const lk_storage *storage) { return storage->data; }

int64_t lk_storage_bytes(const lk_storage *storage) { return storage->bytes; }

lk_context *lk_storage_context(const lk_storage *storage) {
  return storage->context;
}
