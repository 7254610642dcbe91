/* Sections as recordings: noted down once, replayed after that. */
#include "record.h"

/* Note down what `run` runs. What fails on the way is no failure of the
 * context: `run` will tell when it runs by itself. */
static bool record(lk_context *context, lk_recording *r,
                   lk_status (*run)(void *state), void *state) {
  const lk_backend *backend = context->backend;
  if (backend->record_begin(context) != LK_OK) return false;
  lk_status ran = run(state);
  lk_status ended = backend->record_end(context, &r->made);
  if (ran == LK_OK && ended == LK_OK) return true;
  if (r->made) backend->forget(context, r->made);
  r->made = NULL;
  context->broken = false;
  return false;
}

lk_status lk_record_run(lk_context *context, lk_recording *r,
                        lk_status (*run)(void *state), void *state) {
  if (r->refused || context->backend->replay == NULL || context->broken)
    return run(state);
  if (r->made == NULL) {
    if (r->runs++ == 0) return run(state);
    r->refused = !record(context, r, run, state);
    if (r->refused) return run(state);
  }
  return context->backend->replay(context, r->made);
}

void lk_record_forget(lk_context *context, lk_recording *r) {
  if (r->made) context->backend->forget(context, r->made);
  *r = (lk_recording){0};
}
