/* Event streams over libmicrohttpd: a connection with nothing to say sleeps
 * (suspended), and is woken when there is something. */
#ifdef HAVE_MICROHTTPD
#include "stream.h"

#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 4096, MOST_BEHIND = 1 << 20 };

struct lh_stream {
  lh_streams *all;
  lh_stream *next;
  struct MHD_Connection *connection;
  char *data;
  int64_t from, to, room;  /* unsent: data[from … to) */
  bool asleep, over;
};

/* libmicrohttpd asks for the next bytes. */
static ssize_t next_bytes(void *data, uint64_t position, char *to,
                          size_t most) {
  lh_stream *s = data;
  (void)position;
  int64_t ready = s->to - s->from;
  if (ready == 0 && s->over) return MHD_CONTENT_READER_END_OF_STREAM;
  if (ready == 0) {
    s->asleep = true;
    MHD_suspend_connection(s->connection);
    return 0;
  }
  if ((uint64_t)ready > most) ready = (int64_t)most;
  memcpy(to, s->data + s->from, (size_t)ready);
  s->from += ready;
  if (s->from == s->to) s->from = s->to = 0;
  return (ssize_t)ready;
}

static void forget(void *data) {
  lh_stream *s = data;
  for (lh_stream **at = &s->all->first; *at; at = &(*at)->next) {
    if (*at != s) continue;
    *at = s->next;
    s->all->count--;
    break;
  }
  free(s->data);
  free(s);
}

struct MHD_Response *lh_stream_open(lh_streams *all,
                                    struct MHD_Connection *connection) {
  lh_stream *s = calloc(1, sizeof *s);
  if (s == NULL) return NULL;
  *s = (lh_stream){.all = all, .next = all->first, .connection = connection};
  struct MHD_Response *response = MHD_create_response_from_callback(
      MHD_SIZE_UNKNOWN, BLOCK, next_bytes, s, forget);
  if (response == NULL) {
    free(s);
    return NULL;
  }
  all->first = s;
  all->count++;
  return response;
}

static void wake(lh_stream *s) {
  if (!s->asleep) return;
  s->asleep = false;
  MHD_resume_connection(s->connection);
}

/* Make room for `size` more bytes; false without memory or patience. */
static bool make_room(lh_stream *s, int64_t size) {
  if (s->data) memmove(s->data, s->data + s->from, (size_t)(s->to - s->from));
  s->to -= s->from;
  s->from = 0;
  if (s->to + size > MOST_BEHIND) return false;
  char *more = realloc(s->data, (size_t)(s->to + size));
  if (more == NULL) return false;
  s->data = more;
  s->room = s->to + size;
  return true;
}

static void queue(lh_stream *s, const char *text, int64_t size) {
  if (s->over) return;
  if (s->to + size > s->room && !make_room(s, size)) {
    s->over = true;
  } else {
    memcpy(s->data + s->to, text, (size_t)size);
    s->to += size;
  }
  wake(s);
}

void lh_streams_send(lh_streams *all, const char *text, int64_t size) {
  if (size <= 0) return;
  for (lh_stream *s = all->first; s; s = s->next) queue(s, text, size);
}

void lh_streams_end(lh_streams *all) {
  for (lh_stream *s = all->first; s; s = s->next) {
    s->over = true;
    wake(s);
  }
}
#else
typedef int lh_stream_absent; /* a unit must not be empty */
#endif
