/* The dashboard's web server: loopback only, GET and HEAD only, every request
 * checked before a handler sees it, pages and one kind of event stream. It
 * knows no files: what is served is what the handler gives. One thread; the
 * handler runs inside lh_http_run. Without libmicrohttpd opening says so. */
#ifndef LH_WEB_HTTP_H
#define LH_WEB_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "../../kernels/base/status.h"

enum {
  LH_HTTP_CONNECTIONS = 512,  /* at once; the longest idle one gives way */
  LH_HTTP_TIMEOUT = 5,        /* seconds a silent connection is kept */
  LH_HTTP_STREAMS = 64,       /* event streams at once */
  LH_HTTP_PAIRS = 16          /* parameters of a query that are looked at */
};

typedef struct lh_http lh_http;

/* What was asked for: an absolute path and the query, percent signs undone.
 * Valid during the handler's call. */
typedef struct lh_http_request {
  const char *path;
  int pairs;
  struct { const char *name, *value; } pair[LH_HTTP_PAIRS];
} lh_http_request;

/* What the handler fills; zeroed before. `body` is malloc'ed and becomes the
 * server's. A file name makes it a download; only letters, digits and "._-"
 * of it are used. `stream` starts an event stream instead. */
typedef struct lh_http_reply {
  int status;
  bool stream;
  char type[64], filename[64];
  char *body;
  int64_t size;
} lh_http_reply;

typedef void lh_http_handler(void *data, const lh_http_request *request,
                             lh_http_reply *reply);

/* Listen on 127.0.0.1:port (0: any free one). LK_UNSUPPORTED without
 * libmicrohttpd; LK_IO with the reason where the port cannot be had. The caller
 * frees *http with lh_http_close. */
lk_status lh_http_open(lh_http **http, int port, lh_http_handler *handler,
                       void *data, lk_error *error);
int lh_http_port(const lh_http *http);

/* Answer what comes; returns once something did, `seconds` passed, or a signal
 * came. LK_IO where the system refuses to wait, LK_ARGUMENT inside itself. */
lk_status lh_http_run(lh_http *http, double seconds, lk_error *error);

/* Send `size` bytes down every event stream; a stream whose reader has fallen a
 * megabyte behind is ended. Gives the number of streams. */
int lh_http_send(lh_http *http, const char *text, int64_t size);

/* End everything; called by the handler, once lh_http_run is done. NULL is
 * fine. */
void lh_http_close(lh_http *http);

#endif
