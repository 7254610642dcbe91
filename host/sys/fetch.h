/* One HTTP(S) GET at a time, over libcurl where the build has it: to memory or
 * to a file, in steps, so that the caller can show progress and stop.
 *
 *   lh_fetch_request r = {.url = "https://…", .connect = 20, .idle = 60};
 *   lh_fetch *f;
 *   bool done = false;
 *   lk_status status = lh_fetch_open(&r, &f, e);
 *   while (status == LK_OK && !done)
 *     status = lh_fetch_wait(f, 0.25, &done, e);
 *   … lh_fetch_status(f), lh_fetch_header(f, "etag"), lh_fetch_body(f, &n) …
 *   lh_fetch_close(f);
 *
 * Proxies come from the usual variables (https_proxy, no_proxy, …), which
 * libcurl reads. Retrying, caching and names of files are the caller's. */
#ifndef LH_SYS_FETCH_H
#define LH_SYS_FETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "../../kernels/base/status.h"

typedef struct lh_fetch_request {
  const char *url;        /* http or https */
  const char *agent;      /* User-Agent; NULL: none */
  const char *token;      /* bearer token, for the origin of `url` alone: a
                             redirect elsewhere does not get it; NULL: none */
  const char *path;       /* file for the body; NULL: memory */
  int64_t offset;         /* bytes that `path` holds already, … */
  const char *etag;       /* … of what this names; NULL: start over */
  const char *authorities; /* file of certificates to trust in place of the
                             system's; NULL: those */
  int64_t most;           /* bytes of a body in memory; 0: 64 MiB */
  double connect, idle;   /* seconds: for a connection; without a byte */
} lh_fetch_request;

/* Why a transfer failed, as a word: offline (no address, no connection), cut
 * (the connection ended early), timeout, untrusted (the server's certificate),
 * refused (a redirect or an answer that is not to be taken), disk, io. */
typedef struct lh_fetch lh_fetch;

/* The version of libcurl, or NULL when the build has none. */
const char *lh_fetch_version(void);

/* Start. Strings are copied. ARGUMENT, OOM; UNSUPPORTED without libcurl. */
lk_status lh_fetch_open(const lh_fetch_request *request, lh_fetch **out,
                        lk_error *e);
/* Go on for at most `seconds`. *done: an answer is there, whatever its status;
 * a body for `path` is written and synced, if the status is 200 or 206. After
 * a failure nothing goes on; what came so far may be asked for. IO, DISK, OOM,
 * FORMAT. */
lk_status lh_fetch_wait(lh_fetch *f, double seconds, bool *done, lk_error *e);
const char *lh_fetch_failure(const lh_fetch *f);
void lh_fetch_close(lh_fetch *f); /* NULL is fine */

/* Bytes so far, those that were there already included; *total −1: unknown. */
void lh_fetch_progress(const lh_fetch *f, int64_t *got, int64_t *total);
int lh_fetch_status(const lh_fetch *f);
/* The header of this name (lower case) of the last answer that had it, of all
 * that redirects went through; NULL: none. */
const char *lh_fetch_header(const lh_fetch *f, const char *name);
/* Header i from 0: name and value; false after the last. */
bool lh_fetch_header_at(const lh_fetch *f, int64_t i, const char **name,
                        const char **value);
/* The body in memory; empty when it went to a file. Borrowed. */
const char *lh_fetch_body(const lh_fetch *f, int64_t *size);

#endif
