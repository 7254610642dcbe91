/* The web server over libmicrohttpd, as http.h says. */
#define _GNU_SOURCE
#include "http.h"

#include <stddef.h>

#ifdef HAVE_MICROHTTPD
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

/* An open connection, in a ring with the longest idle one first. */
typedef struct visitor {
  struct visitor *before, *after;
  int fd;
  bool listed;
} visitor;

struct lh_http {
  struct MHD_Daemon *daemon;
  lh_http_handler *handler;
  void *data;
  int port, waiting_fd;
  lh_streams streams;
  visitor idle;  /* the ring's head */
  int visitors;
  bool busy, doomed;  /* inside lh_http_run; to be closed at its end */
};

/* --- connections: the longest idle one gives way -------------------------- */

static void unlist(lh_http *h, visitor *v) {
  if (!v->listed) return;
  v->before->after = v->after;
  v->after->before = v->before;
  v->listed = false;
  h->visitors--;
}

static void list_last(lh_http *h, visitor *v) {
  v->before = h->idle.before;
  v->after = &h->idle;
  v->before->after = v->after->before = v;
  v->listed = true;
  h->visitors++;
}

/* Idle connections could fill the server for seconds at a time: before it is
 * full, the one that has been silent longest is shut down. */
static void make_way(lh_http *h) {
  if (h->visitors < LH_HTTP_CONNECTIONS * 3 / 4) return;
  visitor *v = h->idle.after;
  unlist(h, v);
  shutdown(v->fd, SHUT_RDWR);
}

static void on_connection(void *data, struct MHD_Connection *connection,
                          void **slot,
                          enum MHD_ConnectionNotificationCode code) {
  lh_http *h = data;
  if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
    visitor *v = *slot;
    if (v) unlist(h, v);
    free(v);
    *slot = NULL;
    return;
  }
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  visitor *v = info ? calloc(1, sizeof *v) : NULL;
  *slot = v;
  if (v == NULL) return;
  v->fd = info->connect_fd;
  make_way(h);
  list_last(h, v);
}

/* The connection has just asked for something; a stream is never idle. */
static void touch(lh_http *h, struct MHD_Connection *connection, bool stream) {
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(
      connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  visitor *v = info ? info->socket_context : NULL;
  if (v == NULL) return;
  unlist(h, v);
  if (!stream) list_last(h, v);
}

/* --- which requests are heard --------------------------------------------- */

static const char *header(struct MHD_Connection *c, const char *name) {
  return MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);
}

/* Is `text` this server's own host and port, after `prefix`? */
static bool is_own(const lh_http *h, const char *text, const char *prefix) {
  static const char *const names[] = {"127.0.0.1", "localhost", NULL};
  for (int i = 0; names[i]; i++) {
    char own[64];
    snprintf(own, sizeof own, "%s%s:%d", prefix, names[i], h->port);
    if (strcasecmp(text, own) == 0) return true;
  }
  return false;
}

/* The status and reason of a refusal; 0: the request is heard. A foreign Host
 * is a page elsewhere whose name was made to lead here (DNS rebinding); a
 * foreign Origin, or a cross-site fetch, is a page elsewhere that asks. */
static int refusal(const lh_http *h, struct MHD_Connection *c,
                   const char *method, const char **why) {
  const char *host = header(c, "Host"), *origin = header(c, "Origin");
  const char *site = header(c, "Sec-Fetch-Site");
  const char *mode = header(c, "Sec-Fetch-Mode");
  if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
    *why = "only GET and HEAD are answered here\n";
    return MHD_HTTP_METHOD_NOT_ALLOWED;
  }
  if (host == NULL || !is_own(h, host, "")) {
    *why = "this server answers to its own address only\n";
    return MHD_HTTP_FORBIDDEN;
  }
  bool foreign = origin && !is_own(h, origin, "http://");
  bool cross = site && (!strcmp(site, "cross-site") ||
                        !strcmp(site, "same-site")) &&
               !(mode && !strcmp(mode, "navigate"));
  if (foreign || cross) {
    *why = "other pages get no answer here\n";
    return MHD_HTTP_FORBIDDEN;
  }
  return 0;
}

/* --- answers -------------------------------------------------------------- */

static const char *const always[][2] = {
    {"Content-Security-Policy",
     "default-src 'none'; script-src 'self'; style-src 'self'; "
     "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; "
     "form-action 'none'; frame-ancestors 'none'"},
    {"X-Content-Type-Options", "nosniff"},
    {"X-Frame-Options", "DENY"},
    {"Referrer-Policy", "no-referrer"},
    {"Cross-Origin-Resource-Policy", "same-origin"},
    {"Cross-Origin-Opener-Policy", "same-origin"},
    {"Cache-Control", "no-store"}};

static void add_headers(struct MHD_Response *r, const lh_http_reply *reply) {
  for (size_t i = 0; i < sizeof always / sizeof *always; i++) {
    MHD_add_response_header(r, always[i][0], always[i][1]);
  }
  MHD_add_response_header(r, "Content-Type",
                          reply->type[0] ? reply->type : "text/plain");
  if (reply->status == MHD_HTTP_METHOD_NOT_ALLOWED) {
    MHD_add_response_header(r, "Allow", "GET, HEAD");
  }
  if (reply->filename[0] == '\0') return;
  char name[sizeof reply->filename], text[128];
  snprintf(name, sizeof name, "%s", reply->filename);
  for (char *p = name; *p; p++) {
    bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                 (*p >= '0' && *p <= '9') || strchr("._-", *p);
    if (!plain || (*p == '.' && p == name)) *p = '_';
  }
  snprintf(text, sizeof text, "attachment; filename=\"%s\"", name);
  MHD_add_response_header(r, "Content-Disposition", text);
}

static enum MHD_Result answer(struct MHD_Connection *c, lh_http_reply *reply) {
  struct MHD_Response *r = MHD_create_response_from_buffer(
      (size_t)reply->size, reply->body, MHD_RESPMEM_MUST_FREE);
  if (r == NULL) {
    free(reply->body);
    return MHD_NO;
  }
  add_headers(r, reply);
  enum MHD_Result done = MHD_queue_response(c, (unsigned)reply->status, r);
  MHD_destroy_response(r);
  return done;
}

static enum MHD_Result answer_text(struct MHD_Connection *c, int status,
                                   const char *text) {
  lh_http_reply reply = {.status = status, .body = strdup(text),
                         .size = (int64_t)strlen(text)};
  return reply.body ? answer(c, &reply) : MHD_NO;
}

static enum MHD_Result answer_stream(lh_http *h, struct MHD_Connection *c) {
  if (h->streams.count >= LH_HTTP_STREAMS) {
    return answer_text(c, MHD_HTTP_SERVICE_UNAVAILABLE,
                       "too many pages are listening\n");
  }
  struct MHD_Response *r = lh_stream_open(&h->streams, c);
  if (r == NULL) return MHD_NO;
  add_headers(r, &(lh_http_reply){.type = "text/event-stream"});
  enum MHD_Result done = MHD_queue_response(c, MHD_HTTP_OK, r);
  MHD_destroy_response(r);
  return done;
}

static enum MHD_Result add_pair(void *data, enum MHD_ValueKind kind,
                                const char *name, const char *value) {
  lh_http_request *q = data;
  (void)kind;
  if (q->pairs == LH_HTTP_PAIRS) return MHD_NO;
  q->pair[q->pairs].name = name;
  q->pair[q->pairs++].value = value ? value : "";
  return MHD_YES;
}

static enum MHD_Result on_request(void *data, struct MHD_Connection *c,
                                  const char *path, const char *method,
                                  const char *version, const char *upload,
                                  size_t *upload_size, void **slot) {
  lh_http *h = data;
  static char heard;
  const char *why;
  (void)version, (void)upload;
  if (*slot == NULL) { /* the headers; what follows them is passed over */
    int refused = refusal(h, c, method, &why);
    if (refused) return answer_text(c, refused, why);
    *slot = &heard;
    return MHD_YES;
  }
  if (*upload_size > 0) {
    *upload_size = 0;
    return MHD_YES;
  }
  touch(h, c, false);
  lh_http_request request = {.path = path};
  lh_http_reply reply = {.status = MHD_HTTP_OK};
  if (h->doomed) return MHD_NO;
  MHD_get_connection_values(c, MHD_GET_ARGUMENT_KIND, add_pair, &request);
  h->handler(h->data, &request, &reply);
  if (!reply.stream || strcmp(method, "GET") != 0) return answer(c, &reply);
  free(reply.body);
  touch(h, c, true);
  return answer_stream(h, c);
}

/* --- the server ----------------------------------------------------------- */

/* A listening socket on the loopback address; *port becomes the real one. */
static int listen_on(int *port, lk_error *error) {
  struct sockaddr_in at = {.sin_family = AF_INET,
                           .sin_port = htons((uint16_t)*port),
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof at;
  int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    lk_fail_errno(error, errno, "cannot open a socket");
    return -1;
  }
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, (struct sockaddr *)&at, sizeof at) == 0 &&
      listen(fd, SOMAXCONN) == 0 &&
      getsockname(fd, (struct sockaddr *)&at, &size) == 0) {
    *port = ntohs(at.sin_port);
    return fd;
  }
  lk_fail_errno(error, errno, "cannot listen on 127.0.0.1:%d", *port);
  close(fd);
  return -1;
}

static lk_status start(lh_http *h, int fd, lk_error *error) {
  h->daemon = MHD_start_daemon(
      MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, h,
      MHD_OPTION_LISTEN_SOCKET, fd,
      MHD_OPTION_CONNECTION_LIMIT, (unsigned)LH_HTTP_CONNECTIONS,
      MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)LH_HTTP_TIMEOUT,
      MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_END);
  if (h->daemon == NULL) {
    close(fd);
    return lk_fail(error, LK_IO, "libmicrohttpd does not start on port %d",
                   h->port);
  }
  h->waiting_fd =
      MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
  return LK_OK;
}

lk_status lh_http_open(lh_http **http, int port, lh_http_handler *handler,
                       void *data, lk_error *error) {
  *http = NULL;
  int fd = listen_on(&port, error);
  if (fd < 0) return LK_IO;
  lh_http *h = calloc(1, sizeof *h);
  if (h == NULL) {
    close(fd);
    return lk_fail(error, LK_OOM, "no memory for the web server");
  }
  h->idle.before = h->idle.after = &h->idle;
  h->handler = handler;
  h->data = data;
  h->port = port;
  lk_status status = start(h, fd, error);
  if (status == LK_OK) *http = h;
  else free(h);
  return status;
}

int lh_http_port(const lh_http *h) { return h->port; }

/* Wait for something to do, as long as libmicrohttpd allows. */
static lk_status wait_for(lh_http *h, double seconds, lk_error *error) {
  MHD_UNSIGNED_LONG_LONG most;
  int wait = seconds > 0 ? (int)(1e3 * (seconds < 1e5 ? seconds : 1e5)) : 0;
  if (MHD_get_timeout(h->daemon, &most) == MHD_YES &&
      most < (unsigned long long)wait) {
    wait = (int)most;
  }
  struct pollfd p = {.fd = h->waiting_fd, .events = POLLIN};
  if (poll(&p, 1, wait) < 0 && errno != EINTR) {
    return lk_fail_errno(error, errno, "waiting for the browser failed");
  }
  return LK_OK;
}

lk_status lh_http_run(lh_http *h, double seconds, lk_error *error) {
  if (h->busy) {
    return lk_fail(error, LK_ARGUMENT, "the web server is running already");
  }
  LK_TRY(wait_for(h, seconds, error));
  h->busy = true;
  bool fine = MHD_run(h->daemon) == MHD_YES;
  h->busy = false;
  if (h->doomed) {
    lh_http_close(h);
    return LK_OK;
  }
  return fine ? LK_OK : lk_fail(error, LK_IO, "libmicrohttpd stopped");
}

int lh_http_send(lh_http *h, const char *text, int64_t size) {
  lh_streams_send(&h->streams, text, size);
  return h->streams.count;
}

void lh_http_close(lh_http *h) {
  if (h == NULL) return;
  if (h->busy) {
    h->doomed = true;
    return;
  }
  /* A connection must be awake when the daemon stops. */
  lh_streams_end(&h->streams);
  h->busy = h->doomed = true;  /* nothing more is asked of the handler */
  MHD_run(h->daemon);
  MHD_stop_daemon(h->daemon);
  free(h);
}

#else /* HAVE_MICROHTTPD */

lk_status lh_http_open(lh_http **http, int port, lh_http_handler *handler,
                       void *data, lk_error *error) {
  (void)port, (void)handler, (void)data;
  *http = NULL;
  return lk_fail(error, LK_UNSUPPORTED, "this build has no web server: "
                 "install libmicrohttpd-dev, then run make");
}

int lh_http_port(const lh_http *http) {
  (void)http;
  return 0;
}

lk_status lh_http_run(lh_http *http, double seconds, lk_error *error) {
  (void)http, (void)seconds;
  return lk_fail(error, LK_UNSUPPORTED, "this build has no web server");
}

int lh_http_send(lh_http *http, const char *text, int64_t size) {
  (void)http, (void)text, (void)size;
  return 0;
}

void lh_http_close(lh_http *http) { (void)http; }
#endif
