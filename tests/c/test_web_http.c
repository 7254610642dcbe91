/* Tests the web server over real sockets: whom it answers, what it sends, and
 * that slow, idle and greedy clients cost the others nothing. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../host/sys/machine.h"
#include "../../host/web/http.h"
#include "check.h"

static lk_error error;
static lh_http *http;
static pthread_t thread;
static atomic_bool stop, sending;
static atomic_int calls;

/* --- a server in a thread of its own -------------------------------------- */

static void handler(void *data, const lh_http_request *q,
                    lh_http_reply *reply) {
  (void)data;
  calls++;
  char text[512];
  int n = snprintf(text, sizeof text, "path=%s", q->path);
  for (int i = 0; i < q->pairs; i++) {
    n += snprintf(text + n, sizeof text - (size_t)n, " %s=%s",
                  q->pair[i].name, q->pair[i].value);
  }
  if (!strcmp(q->path, "/events")) reply->stream = true;
  if (!strcmp(q->path, "/big")) {
    reply->size = 8 << 20;
    reply->body = calloc(1, (size_t)reply->size);
    return;
  }
  if (!strcmp(q->path, "/file")) {
    strcpy(reply->filename, "../a\"b\r\n<c>.svg");
  }
  reply->size = n;
  reply->body = strdup(text);
}

static void *serve(void *data) {
  (void)data;
  while (!stop) {
    if (sending) lh_http_send(http, "data: x\n\n", 9);
    if (lh_http_run(http, .02, &error) != LK_OK) break;
  }
  return NULL;
}

static bool open_server(void) {
  if (lh_http_open(&http, 0, handler, NULL, &error) != LK_OK) return false;
  stop = sending = false;
  return pthread_create(&thread, NULL, serve, NULL) == 0;
}

static void close_server(void) {
  stop = true;
  pthread_join(thread, NULL);
  lh_http_close(http);
}

#define NEED_SERVER()                          \
  do {                                         \
    if (!open_server()) SKIP(error.message);   \
  } while (0)

/* --- clients -------------------------------------------------------------- */

static int dial(void) {
  struct sockaddr_in at = {.sin_family = AF_INET,
                           .sin_port = htons((uint16_t)lh_http_port(http)),
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) == 0) return fd;
  if (fd >= 0) close(fd);
  return -1;
}

static void say(int fd, const char *text) {
  if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0) return;
}

/* What arrives until the other side closes, `seconds` pass, or `until` was
 * seen. */
static const char *hear(int fd, double seconds, const char *until) {
  static char text[1 << 16];
  size_t n = 0;
  double end = lh_clock() + seconds;
  text[0] = '\0';
  while (n < sizeof text - 1 && lh_clock() < end) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, 20) <= 0) continue;
    ssize_t got = read(fd, text + n, sizeof text - 1 - n);
    if (got <= 0) break;
    text[n += (size_t)got] = '\0';
    if (until && strstr(text, until)) break;
  }
  return text;
}

/* The answer to a request with our own Host and further header lines. */
static const char *ask(const char *line, const char *more) {
  char text[1024];
  int fd = dial();
  snprintf(text, sizeof text, "%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
           "Connection: close\r\n%s\r\n", line, lh_http_port(http), more);
  say(fd, text);
  const char *answer = hear(fd, 5, NULL);
  close(fd);
  return answer;
}

static const char *ask_host(const char *host) {
  char text[1024];
  int fd = dial();
  snprintf(text, sizeof text, "GET / HTTP/1.1\r\n%s%s%sConnection: close\r\n"
           "\r\n", host ? "Host: " : "", host ? host : "",
           host ? "\r\n" : "");
  say(fd, text);
  const char *answer = hear(fd, 5, NULL);
  close(fd);
  return answer;
}

static bool is(const char *answer, int status) {
  char head[32];
  snprintf(head, sizeof head, "HTTP/1.1 %d ", status);
  return strncmp(answer, head, strlen(head)) == 0;
}

/* --- whom it answers ------------------------------------------------------ */

static void test_get(void) {
  NEED_SERVER();
  const char *a = ask("GET /a/b?x=1&y=a%20b%26c", "");
  CHECK(is(a, 200) && strstr(a, "path=/a/b x=1 y=a b&c"), "%s", a);
  CHECK(strstr(a, "default-src 'none'; script-src 'self'") != NULL, "%s", a);
  CHECK(strstr(a, "X-Content-Type-Options: nosniff") != NULL);
  CHECK(strstr(a, "frame-ancestors 'none'") != NULL);
  CHECK(strstr(a, "Access-Control") == NULL, "%s", a);
  a = ask("HEAD /", "");
  CHECK(is(a, 200) && strstr(a, "Content-Length: 6") &&
        !strstr(a, "path="), "%s", a);
  close_server();
}

static void test_methods(void) {
  NEED_SERVER();
  static const char *const others[] = {"POST /", "PUT /x", "DELETE /x",
                                       "OPTIONS /", "PATCH /", "TRACE /"};
  int before = calls;
  for (int i = 0; i < 6; i++) {
    const char *a = ask(others[i], "Content-Length: 0\r\n");
    CHECK(is(a, 405) && strstr(a, "Allow: GET, HEAD"), "%s: %s", others[i],
          a);
  }
  CHECK(calls == before, "the handler saw %d of them", calls - before);
  close_server();
}

static void test_host(void) {
  NEED_SERVER();
  char own[64], other[64];
  int port = lh_http_port(http), before;
  snprintf(own, sizeof own, "localhost:%d", port);
  CHECK(is(ask_host(own), 200));
  before = calls;
  snprintf(other, sizeof other, "evil.example:%d", port);
  CHECK(is(ask_host(other), 403));
  snprintf(other, sizeof other, "127.0.0.1:%d", port + 1);
  CHECK(is(ask_host(other), 403));
  snprintf(other, sizeof other, "127.0.0.1:%d.evil.example", port);
  CHECK(is(ask_host(other), 403));
  CHECK(is(ask_host("127.0.0.1"), 403), "no port is port 80");
  const char *a = ask_host(NULL);
  CHECK(is(a, 403) || is(a, 400), "%s", a);
  CHECK(calls == before, "the handler was asked");
  close_server();
}

static void test_other_origins(void) {
  NEED_SERVER();
  char own[128];
  snprintf(own, sizeof own, "Origin: http://127.0.0.1:%d\r\n"
           "Sec-Fetch-Site: same-origin\r\n", lh_http_port(http));
  CHECK(is(ask("GET /", own), 200));
  CHECK(is(ask("GET /", "Origin: http://evil.example\r\n"), 403));
  CHECK(is(ask("GET /", "Origin: null\r\n"), 403));
  CHECK(is(ask("GET /", "Sec-Fetch-Site: cross-site\r\n"
               "Sec-Fetch-Mode: no-cors\r\n"), 403));
  CHECK(is(ask("GET /", "Sec-Fetch-Site: cross-site\r\n"
               "Sec-Fetch-Mode: navigate\r\n"), 200), "a link may lead here");
  close_server();
}

static void test_file_names(void) {
  NEED_SERVER();
  const char *a = ask("GET /file", "");
  CHECK(strstr(a, "attachment; filename=\"_._a_b___c_.svg\"\r\n") != NULL,
        "%s", a);
  close_server();
}

static void test_nonsense(void) {
  NEED_SERVER();
  static char longest[1 << 17];
  memset(longest, 'a', sizeof longest - 1);
  static const char *const bad[] = {"\r\n\r\n", "GET\r\n\r\n",
    "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02", "GET / HTTP/1.1\r\n: x\r\n"
    "\r\n", "GET /%00%ff%zz HTTP/1.1\r\nHost: a\r\n\r\n"};
  for (int i = 0; i < 6; i++) {
    int fd = dial();
    say(fd, bad[i]);
    hear(fd, .1, NULL);
    close(fd);
  }
  int fd = dial();
  say(fd, "GET /");
  say(fd, longest);
  const char *a = hear(fd, 2, "\r\n");
  CHECK(a[0] == '\0' || strstr(a, "HTTP/1.1 4"), "%s", a);
  close(fd);
  CHECK(is(ask("GET /still", ""), 200), "it answers no more");
  close_server();
}

/* --- clients that cost ---------------------------------------------------- */

enum { IDLE = 2000 };

static bool enough_files(void) {
  struct rlimit most;
  if (getrlimit(RLIMIT_NOFILE, &most) != 0) return false;
  most.rlim_cur = most.rlim_max;
  setrlimit(RLIMIT_NOFILE, &most);
  return most.rlim_cur >= IDLE + LH_HTTP_CONNECTIONS + 64;
}

static void test_idle_connections(void) {
  if (!enough_files()) SKIP("too few file descriptors are allowed");
  NEED_SERVER();
  static int fds[IDLE];
  int opened = 0;
  for (int i = 0; i < IDLE; i++) opened += (fds[i] = dial()) >= 0;
  CHECK(opened == IDLE, "%d opened", opened);
  double began = lh_clock();
  for (int i = 0; i < 20; i++) CHECK(is(ask("GET /", ""), 200), "no. %d", i);
  CHECK(lh_clock() - began < 4, "20 answers took %.1f s", lh_clock() - began);
  for (int i = 0; i < IDLE; i++) close(fds[i]);
  CHECK(is(ask("GET /", ""), 200), "afterwards");
  close_server();
}

/* Clients that begin a request and never end it, and one that asks for much
 * and reads nothing. */
static void test_slow_clients(void) {
  NEED_SERVER();
  int fds[40];
  for (int i = 0; i < 40; i++) {
    fds[i] = dial();
    say(fds[i], "GET / HTTP/1.1\r\nHos");
  }
  char text[128];
  snprintf(text, sizeof text, "GET /big HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
           "\r\n", lh_http_port(http));
  int greedy = dial();
  say(greedy, text);
  double began = lh_clock();
  CHECK(is(ask("GET /", ""), 200));
  CHECK(lh_clock() - began < 1, "it took %.1f s", lh_clock() - began);
  began = lh_clock();
  hear(fds[0], 12, NULL);
  CHECK(lh_clock() - began < LH_HTTP_TIMEOUT + 4,
        "kept for %.1f s", lh_clock() - began);
  for (int i = 0; i < 40; i++) close(fds[i]);
  close(greedy);
  CHECK(is(ask("GET /", ""), 200));
  close_server();
}

/* --- event streams -------------------------------------------------------- */

static int listen_in(void) {
  char text[128];
  int fd = dial();
  snprintf(text, sizeof text, "GET /events HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
           "\r\n", lh_http_port(http));
  say(fd, text);
  return fd;
}

static void test_streams(void) {
  NEED_SERVER();
  int fds[LH_HTTP_STREAMS];
  sending = true;
  for (int i = 0; i < LH_HTTP_STREAMS; i++) {
    fds[i] = listen_in();
    CHECK(strstr(hear(fds[i], 5, "data: x"), "text/event-stream") != NULL,
          "stream %d", i);
  }
  int more = listen_in();
  CHECK(is(hear(more, 5, "listening"), 503));
  close(more);
  close(fds[0]); /* its place becomes free once a send fails */
  bool again = false;
  for (int i = 0; i < 50 && !again; i++) {
    lh_sleep(.05);
    more = listen_in();
    again = is(hear(more, 5, "\n\n"), 200);
    close(more);
  }
  CHECK(again, "a closed stream keeps its place");
  sending = false;
  lh_sleep(.1);
  CHECK(is(ask("GET /", ""), 200));
  close_server(); /* with streams asleep */
  for (int i = 1; i < LH_HTTP_STREAMS; i++) close(fds[i]);
}

static void test_taken_port(void) {
  NEED_SERVER();
  lh_http *second;
  lk_status status = lh_http_open(&second, lh_http_port(http), handler, NULL,
                                  &error);
  CHECK(status == LK_IO && second == NULL);
  CHECK(strstr(error.message, "cannot listen on 127.0.0.1:") &&
        strstr(error.message, "in use"), "%s", error.message);
  close_server();
}

int main(void) {
  RUN(test_get);
  RUN(test_methods);
  RUN(test_host);
  RUN(test_other_origins);
  RUN(test_file_names);
  RUN(test_nonsense);
  RUN(test_idle_connections);
  RUN(test_slow_clients);
  RUN(test_streams);
  RUN(test_taken_port);
  return check_done();
}
