/* What fetching says in a build without libcurl. */
#include "fetch.h"

#ifndef HAVE_CURL

#include <stddef.h>

const char *lh_fetch_version(void) { return NULL; }

lk_status lh_fetch_open(const lh_fetch_request *request, lh_fetch **out,
                        lk_error *e) {
  *out = NULL;
  return lk_fail(e, LK_UNSUPPORTED, "cannot fetch '%s': this build has no "
                 "libcurl; install libcurl4-openssl-dev and build again",
                 request->url);
}

lk_status lh_fetch_wait(lh_fetch *f, double seconds, bool *done, lk_error *e) {
  (void)f, (void)seconds, *done = false;
  return lk_fail(e, LK_INTERNAL, "no libcurl");
}

const char *lh_fetch_failure(const lh_fetch *f) { return (void)f, "io"; }
void lh_fetch_close(lh_fetch *f) { (void)f; }
int lh_fetch_status(const lh_fetch *f) { return (void)f, 0; }

void lh_fetch_progress(const lh_fetch *f, int64_t *got, int64_t *total) {
  (void)f, *got = 0, *total = -1;
}

const char *lh_fetch_header(const lh_fetch *f, const char *name) {
  return (void)f, (void)name, NULL;
}

bool lh_fetch_header_at(const lh_fetch *f, int64_t i, const char **name,
                        const char **value) {
  return (void)f, (void)i, (void)name, (void)value, false;
}

const char *lh_fetch_body(const lh_fetch *f, int64_t *size) {
  return (void)f, *size = 0, "";
}

#endif
