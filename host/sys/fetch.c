/* HTTP(S) over libcurl's multi interface: one transfer, its headers, its
 * redirects (followed here, so that a token never leaves its origin). */
#include "fetch.h"

#ifdef HAVE_CURL

#include <ctype.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "machine.h"

enum { BODY_MOST = 64 << 20, ERROR_BODY_MOST = 1 << 16, REDIRECTS_MOST = 8,
       HEADERS_MOST = 256 };

typedef struct header {
  char *name, *value;
} header;

struct lh_fetch {
  CURLM *multi;
  CURL *easy;
  struct curl_slist *sent; /* headers of the request */
  char *url, *agent, *token, *path, *etag;
  int64_t offset, most;
  double connect, idle, active; /* lh_clock of the last byte */
  int fd;                 /* of `path`, once a body came; −1 */
  int64_t got, start, total; /* of this transfer; where in the file; −1 */
  char *body;
  int64_t room;
  header headers[HEADERS_MOST];
  int64_t count;
  int redirects, status;
  const char *failure;
  lk_error inner;         /* why a callback refused to go on */
  char text[CURL_ERROR_SIZE];
};

const char *lh_fetch_version(void) {
  return curl_version_info(CURLVERSION_NOW)->version;
}

static void start_curl(void) { curl_global_init(CURL_GLOBAL_DEFAULT); }

/* --- what comes in ------------------------------------------------------- */
static char *copy_trimmed(const char *text, int64_t size, bool lower) {
  while (size > 0 && isspace((unsigned char)*text)) text++, size--;
  while (size > 0 && isspace((unsigned char)text[size - 1])) size--;
  char *copy = malloc((size_t)size + 1);
  if (copy == NULL) return NULL;
  for (int64_t i = 0; i < size; i++)
    copy[i] = lower ? (char)tolower((unsigned char)text[i]) : text[i];
  copy[size] = 0;
  return copy;
}

static size_t on_header(char *data, size_t one, size_t size, void *context) {
  lh_fetch *f = context;
  char *colon = memchr(data, ':', size);
  (void)one; /* always 1 */
  f->active = lh_clock();
  if (colon == NULL || f->count == HEADERS_MOST) return size;
  char *name = copy_trimmed(data, colon - data, true);
  char *value = copy_trimmed(colon + 1, data + size - colon - 1, false);
  if (name == NULL || value == NULL) {
    free(name);
    free(value);
    lk_fail(&f->inner, LK_OOM, "no memory for an answer's headers");
    return 0;
  }
  f->headers[f->count++] = (header){name, value};
  return size;
}

static bool is_good(const lh_fetch *f) {
  return f->status == 200 || f->status == 206;
}

/* Where a 206 answer begins, −1 when it does not say. */
static int64_t range_start(const lh_fetch *f) {
  const char *range = lh_fetch_header(f, "content-range");
  long long start;
  return range && sscanf(range, "bytes %lld-", &start) == 1 ? start : -1;
}

/* Open the file where the answer's body goes on, or at its beginning. */
static lk_status open_file(lh_fetch *f, lk_error *e) {
  f->start = f->status == 206 ? f->offset : 0;
  if (f->status == 206 && range_start(f) != f->offset)
    return lk_fail(e, LK_FORMAT, "cannot fetch '%s': the server sent another "
                   "part than was asked for", f->url);
  f->fd = lh_fd_open(f->path, O_WRONLY | O_CREAT, 0666);
  if (f->fd < 0) return lk_fail(e, LK_DISK, "cannot write '%s'", f->path);
  LK_TRY(lh_fd_truncate(f->fd, f->path, f->start, e));
  if (lseek(f->fd, f->start, SEEK_SET) < 0)
    return lk_fail(e, LK_DISK, "cannot write '%s'", f->path);
  return LK_OK;
}

static lk_status keep_body(lh_fetch *f, const char *data, int64_t size,
                           lk_error *e) {
  int64_t most = is_good(f) ? f->most : ERROR_BODY_MOST;
  if (size > most - f->got && is_good(f))
    return lk_fail(e, LK_FORMAT, "cannot fetch '%s': the answer is longer than "
                   "%lld bytes", f->url, (long long)most);
  if (size > most - f->got) size = most - f->got;
  if (f->got + size >= f->room) {
    int64_t room = (f->got + size) * 2 + 4096;
    char *more = realloc(f->body, (size_t)room);
    if (more == NULL) return lk_fail(e, LK_OOM, "no memory for an answer");
    f->body = more;
    f->room = room;
  }
  memcpy(f->body + f->got, data, (size_t)size);
  f->got += size;
  f->body[f->got] = 0;
  return LK_OK;
}

static lk_status take_body(lh_fetch *f, const char *data, int64_t size,
                           lk_error *e) {
  long status = 0;
  curl_off_t length = -1;
  curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(f->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
  f->status = (int)status;
  f->total = length;
  if (f->path == NULL || !is_good(f)) return keep_body(f, data, size, e);
  if (f->fd < 0) LK_TRY(open_file(f, e));
  LK_TRY(lh_fd_write(f->fd, f->path, data, size, e));
  f->got += size;
  return LK_OK;
}

static size_t on_body(char *data, size_t one, size_t size, void *context) {
  lh_fetch *f = context;
  (void)one;
  f->active = lh_clock();
  lk_status status = take_body(f, data, (int64_t)size, &f->inner);
  return status == LK_OK ? size : 0;
}

/* --- asking -------------------------------------------------------------- */
static lk_status no_memory(lk_error *e) {
  return lk_fail(e, LK_OOM, "no memory to fetch anything");
}

static bool send_header(lh_fetch *f, const char *name, const char *value) {
  size_t size = strlen(name) + strlen(value) + 1;
  char *line = malloc(size);
  if (line == NULL) return false;
  snprintf(line, size, "%s%s", name, value);
  struct curl_slist *more = curl_slist_append(f->sent, line);
  free(line);
  if (more) f->sent = more;
  return more != NULL;
}

/* The headers that depend on where the request goes and what is there. */
static lk_status set_headers(lh_fetch *f, lk_error *e) {
  char range[32];
  bool resumes = f->offset > 0 && f->etag != NULL;
  curl_slist_free_all(f->sent);
  f->sent = NULL;
  snprintf(range, sizeof range, "%lld-", (long long)f->offset);
  bool fine = !f->token || send_header(f, "Authorization: Bearer ", f->token);
  if (resumes) fine = fine && send_header(f, "If-Range: ", f->etag);
  if (!fine) return no_memory(e);
  curl_easy_setopt(f->easy, CURLOPT_RANGE, resumes ? range : NULL);
  curl_easy_setopt(f->easy, CURLOPT_HTTPHEADER, f->sent);
  return LK_OK;
}

static void set_options(lh_fetch *f, const lh_fetch_request *r) {
  CURL *c = f->easy;
  if (r->authorities) curl_easy_setopt(c, CURLOPT_CAINFO, r->authorities);
  curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(c, CURLOPT_ERRORBUFFER, f->text);
  /* What trickles is as good as nothing. */
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 32L);
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)f->idle + 60);
  curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)(f->connect * 1000));
  curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(c, CURLOPT_HEADERDATA, f);
  curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(c, CURLOPT_WRITEDATA, f);
  curl_easy_setopt(c, CURLOPT_USERAGENT, f->agent);
  /* A part of a coded body could not be continued. */
  curl_easy_setopt(c, CURLOPT_ACCEPT_ENCODING, f->path ? "identity" : "");
#if LIBCURL_VERSION_NUM >= 0x075500
  curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
#else
  curl_easy_setopt(c, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS);
#endif
}

/* Begin a transfer from `url`. */
static lk_status begin(lh_fetch *f, const char *url, lk_error *e) {
  f->got = f->start = 0;
  f->total = -1;
  f->active = lh_clock();
  LK_TRY(set_headers(f, e));
  if (curl_easy_setopt(f->easy, CURLOPT_URL, url) != CURLE_OK ||
      curl_multi_add_handle(f->multi, f->easy) != CURLM_OK)
    return no_memory(e);
  return LK_OK;
}

static bool copy_string(const char *from, char **to) {
  *to = from ? strdup(from) : NULL;
  return !from || *to;
}

/* A token is one word; anything else could smuggle in headers. */
static bool is_word(const char *text) {
  for (; *text; text++)
    if (*text <= ' ' || *text > '~') return false;
  return true;
}

static lk_status check_request(const lh_fetch_request *r, lk_error *e) {
  bool web = strncmp(r->url, "https://", 8) == 0 ||
             strncmp(r->url, "http://", 7) == 0;
  if (!web)
    return lk_fail(e, LK_ARGUMENT, "cannot fetch '%s': an address begins with "
                   "https:// or http://", r->url);
  if (r->token && !is_word(r->token))
    return lk_fail(e, LK_ARGUMENT, "the access token for '%s' holds spaces or "
                   "other characters that no token has", r->url);
  if (r->etag && strpbrk(r->etag, "\r\n"))
    return lk_fail(e, LK_ARGUMENT, "an ETag is one line");
  return LK_OK;
}

lk_status lh_fetch_open(const lh_fetch_request *r, lh_fetch **out,
                        lk_error *e) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  *out = NULL;
  LK_TRY(check_request(r, e));
  pthread_once(&once, start_curl);
  lh_fetch *f = calloc(1, sizeof *f);
  if (f == NULL) return no_memory(e);
  f->fd = -1;
  f->offset = r->etag && r->path ? r->offset : 0;
  f->most = r->most > 0 ? r->most : BODY_MOST;
  f->connect = r->connect > 0 ? r->connect : 20;
  f->idle = r->idle > 0 ? r->idle : 60;
  f->failure = "io";
  f->easy = curl_easy_init();
  f->multi = curl_multi_init();
  bool fine = copy_string(r->url, &f->url) & copy_string(r->agent, &f->agent) &
              copy_string(r->token, &f->token) &
              copy_string(r->path, &f->path) & copy_string(r->etag, &f->etag);
  lk_status status = fine && f->easy && f->multi ? LK_OK : no_memory(e);
  if (status == LK_OK) {
    set_options(f, r);
    status = begin(f, f->url, e);
  }
  if (status == LK_OK) *out = f;
  else lh_fetch_close(f);
  return status;
}

void lh_fetch_close(lh_fetch *f) {
  if (f == NULL) return;
  if (f->multi && f->easy) curl_multi_remove_handle(f->multi, f->easy);
  curl_easy_cleanup(f->easy); /* NULL is fine, as below */
  if (f->multi) curl_multi_cleanup(f->multi);
  curl_slist_free_all(f->sent);
  if (f->fd >= 0) close(f->fd);
  for (int64_t i = 0; i < f->count; i++) {
    free(f->headers[i].name);
    free(f->headers[i].value);
  }
  free(f->url);
  free(f->agent);
  free(f->token);
  free(f->path);
  free(f->etag);
  free(f->body);
  free(f);
}

/* --- going on ------------------------------------------------------------ */
static const struct {
  CURLcode code;
  const char *word;
} failures[] = {
    {CURLE_COULDNT_RESOLVE_HOST, "offline"},
    {CURLE_COULDNT_RESOLVE_PROXY, "offline"},
    {CURLE_COULDNT_CONNECT, "offline"},
    {CURLE_OPERATION_TIMEDOUT, "timeout"},
    {CURLE_PARTIAL_FILE, "cut"},
    {CURLE_RECV_ERROR, "cut"},
    {CURLE_SEND_ERROR, "cut"},
    {CURLE_GOT_NOTHING, "cut"},
    {CURLE_HTTP2_STREAM, "cut"},
    {CURLE_HTTP2, "cut"},
    {CURLE_PEER_FAILED_VERIFICATION, "untrusted"},
    {CURLE_SSL_CACERT_BADFILE, "untrusted"},
    {CURLE_BAD_CONTENT_ENCODING, "refused"},
};

static lk_status failed(lh_fetch *f, CURLcode code, lk_error *e) {
  if (f->inner.code != LK_OK) {
    f->failure = f->inner.code == LK_DISK     ? "disk"
                 : f->inner.code == LK_FORMAT ? "refused" : "io";
    return lk_fail(e, f->inner.code, "%s", f->inner.message);
  }
  for (size_t i = 0; i < sizeof failures / sizeof *failures; i++)
    if (failures[i].code == code) f->failure = failures[i].word;
  return lk_fail(e, LK_IO, "cannot fetch '%s': %s", f->url,
                 *f->text ? f->text : curl_easy_strerror(code));
}

/* "https://host:port" of a URL, allocated; NULL when it has none. */
static char *origin_of(const char *url) {
  CURLU *u = curl_url();
  char *scheme = NULL, *host = NULL, *port = NULL, *origin = NULL;
  if (u && !curl_url_set(u, CURLUPART_URL, url, 0) &&
      !curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) &&
      !curl_url_get(u, CURLUPART_HOST, &host, 0) &&
      !curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT)) {
    size_t size = strlen(scheme) + strlen(host) + strlen(port) + 5;
    origin = malloc(size);
    if (origin) snprintf(origin, size, "%s://%s:%s", scheme, host, port);
  }
  curl_free(scheme);
  curl_free(host);
  curl_free(port);
  curl_url_cleanup(u); /* NULL is fine */
  return origin;
}

/* Go to where an answer sends us: never from https to http, and with the
 * token only within the origin that it is for. */
static lk_status follow(lh_fetch *f, const char *location, lk_error *e) {
  f->failure = "refused";
  if (++f->redirects > REDIRECTS_MOST)
    return lk_fail(e, LK_IO, "cannot fetch '%s': more than %d redirects",
                   f->url, REDIRECTS_MOST);
  char *target = strdup(location); /* curl's own goes with the next transfer */
  char *from = origin_of(f->url), *to = target ? origin_of(target) : NULL;
  lk_status status = LK_OK;
  if (from == NULL || to == NULL || strncmp(to, "http", 4) != 0 ||
      (strncmp(from, "https:", 6) == 0 && strncmp(to, "https:", 6) != 0))
    status = lk_fail(e, LK_IO, "cannot fetch '%s': it redirects to '%s', which "
                     "is not safe to follow", f->url, to ? to : "nowhere");
  if (status == LK_OK && strcmp(from, to) != 0) {
    free(f->token);
    f->token = NULL;
  }
  if (status == LK_OK) {
    curl_multi_remove_handle(f->multi, f->easy);
    status = begin(f, target, e);
  }
  free(target);
  free(from);
  free(to);
  if (status == LK_OK) f->failure = "io";
  return status;
}

/* The whole answer is here: close the file. */
static lk_status finish(lh_fetch *f, lk_error *e) {
  if (f->path == NULL || !is_good(f)) return LK_OK;
  f->failure = "disk";
  if (f->fd < 0) LK_TRY(open_file(f, e)); /* an empty body */
  LK_TRY(lh_fd_sync(f->fd, f->path, e));
  int rc = close(f->fd);
  f->fd = -1;
  return rc == 0 ? LK_OK : lk_fail(e, LK_DISK, "cannot write '%s'", f->path);
}

/* What libcurl says is over. */
static lk_status ended(lh_fetch *f, CURLcode code, bool *done, lk_error *e) {
  long status = 0;
  char *location = NULL;
  if (code != CURLE_OK) return failed(f, code, e);
  curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(f->easy, CURLINFO_REDIRECT_URL, &location);
  f->status = (int)status;
  if (f->status / 100 == 3 && location) return follow(f, location, e);
  *done = true;
  return finish(f, e);
}

lk_status lh_fetch_wait(lh_fetch *f, double seconds, bool *done,
                        lk_error *e) {
  double until = lh_clock() + seconds;
  *done = false;
  do {
    int running, left;
    if (curl_multi_perform(f->multi, &running) != CURLM_OK)
      return lk_fail(e, LK_IO, "cannot fetch '%s'", f->url);
    CURLMsg *m = curl_multi_info_read(f->multi, &left);
    if (m && m->msg == CURLMSG_DONE) LK_TRY(ended(f, m->data.result, done, e));
    if (*done) return LK_OK;
    double now = lh_clock();
    if (now - f->active > f->idle) {
      f->failure = "timeout";
      return lk_fail(e, LK_IO, "cannot fetch '%s': nothing came for %g seconds",
                     f->url, f->idle);
    }
    if (m == NULL && until > now) {
      double wait = until - now < f->idle ? until - now : f->idle;
      curl_multi_poll(f->multi, NULL, 0, (int)(wait * 1000) + 1, NULL);
    }
  } while (lh_clock() < until);
  return LK_OK;
}

/* --- the answer ---------------------------------------------------------- */
const char *lh_fetch_failure(const lh_fetch *f) { return f->failure; }
int lh_fetch_status(const lh_fetch *f) { return f->status; }

void lh_fetch_progress(const lh_fetch *f, int64_t *got, int64_t *total) {
  *got = f->start + f->got;
  *total = f->total < 0 ? -1 : f->start + f->total;
}

const char *lh_fetch_header(const lh_fetch *f, const char *name) {
  for (int64_t i = f->count - 1; i >= 0; i--)
    if (strcmp(f->headers[i].name, name) == 0) return f->headers[i].value;
  return NULL;
}

bool lh_fetch_header_at(const lh_fetch *f, int64_t i, const char **name,
                        const char **value) {
  if (i >= f->count) return false;
  *name = f->headers[i].name;
  *value = f->headers[i].value;
  return true;
}

const char *lh_fetch_body(const lh_fetch *f, int64_t *size) {
  bool to_file = f->path != NULL && is_good(f);
  *size = to_file ? 0 : f->got;
  return to_file || f->body == NULL ? "" : f->body;
}

#endif
