/* Contexts, and the list of backends they are opened on. */
#include "context.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_BACKENDS = 8 };

static pthread_mutex_t backends_lock = PTHREAD_MUTEX_INITIALIZER;
static const lk_backend *backends[MAX_BACKENDS];
static int backend_count;

static int backend_index(const char *name) {
  for (int i = 0; i < backend_count; i++)
    if (strcmp(backends[i]->name, name) == 0) return i;
  return -1;
}

void lk_backend_register(const lk_backend *backend) {
  pthread_mutex_lock(&backends_lock);
  if (backend_index(backend->name) < 0 && backend_count < MAX_BACKENDS)
    backends[backend_count++] = backend;
  pthread_mutex_unlock(&backends_lock);
}

const lk_backend *lk_backend_find(const char *name) {
  pthread_mutex_lock(&backends_lock);
  int i = backend_index(name);
  const lk_backend *backend = i < 0 ? NULL : backends[i];
  pthread_mutex_unlock(&backends_lock);
  return backend;
}

const lk_backend *lk_backend_at(int n) {
  pthread_mutex_lock(&backends_lock);
  const lk_backend *backend =
      n >= 0 && n < backend_count ? backends[n] : NULL;
  pthread_mutex_unlock(&backends_lock);
  return backend;
}

static lk_status check_device(const lk_backend *backend, int index,
                              lk_error *error) {
  int count = backend->device_count();
  if (index >= 0 && index < count) return LK_OK;
  return lk_fail(error, LK_ARGUMENT, "there is no device %s:%d (%d found)",
                 backend->name, index, count);
}

lk_status lk_context_open(const lk_backend *backend, int index,
                          lk_context **context, lk_error *error) {
  *context = NULL;
  LK_TRY(check_device(backend, index, error));
  const lk_profile *profile = lk_profile_find(backend->name);
  if (profile == NULL)
    return lk_fail(error, LK_ARGUMENT, "backend %s has no profile",
                   backend->name);
  lk_context *c = calloc(1, sizeof *c);
  if (c == NULL) return lk_fail(error, LK_OOM, "out of host memory");
  c->backend = backend;
  c->profile = profile;
  c->device = index;
  lk_allocator allocator = {backend->allocate, backend->release, c};
  lk_status status = lk_memory_open(allocator, &c->memory);
  if (status == LK_OOM) lk_fail(&c->error, LK_OOM, "out of host memory");
  if (status == LK_OK) status = backend->open(c, index);
  if (status == LK_OK) {
    *context = c;
    return LK_OK;
  }
  if (error != NULL) *error = c->error;
  lk_memory_close(c->memory);
  free(c);
  return status;
}

void lk_context_close(lk_context *context) {
  if (context == NULL) return;
  context->backend->close(context);
  lk_memory_close(context->memory);
  free(context);
}
