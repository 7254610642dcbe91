/* Journals, as journal.h says. A line is
 *   {"seq":7,"time":1735689600.125,…,"crc":"89abcdef"}
 * and its CRC is that of everything before `,"crc"`. */
#define _GNU_SOURCE
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "hash.h"
#include "machine.h"

static const char head_format[] = "{\"seq\":%" PRId64 ",\"time\":%.3f";
static const char seq_head[] = "{\"seq\":";
static const char tail_format[] = ",\"crc\":\"%08x\"}";
enum { TAIL = 18 }; /* bytes of the tail */
#define SEQ_MOST (INT64_C(1) << 53) /* what JSON readers keep exactly */

/* --- reading --- */

/* The number a record begins with; false if there is none that counts. */
static bool read_seq(const char *line, size_t length, int64_t *seq) {
  size_t i = sizeof seq_head - 1;
  if (length <= i || memcmp(line, seq_head, i) != 0) return false;
  for (*seq = 0; i < length && line[i] >= '0' && line[i] <= '9'; i++) {
    *seq = *seq * 10 + (line[i] - '0');
    if (*seq > SEQ_MOST) return false;
  }
  return *seq > 0;
}

static bool is_good(const char *line, int64_t length, int64_t *seq) {
  char tail[TAIL + 1];
  if (length <= TAIL) return false;
  size_t covered = (size_t)(length - TAIL);
  uint32_t crc = lh_crc32(0, line, covered);
  snprintf(tail, sizeof tail, tail_format, (unsigned)crc);
  if (memcmp(line + covered, tail, TAIL) != 0) return false;
  return read_seq(line, covered, seq);
}

bool lh_journal_next(const char *text, int64_t size, int64_t *at,
                     const char **line, int64_t *length, lh_line *kind,
                     int64_t *seq) {
  if (*at >= size) return false;
  *line = text + *at;
  const char *newline = memchr(*line, '\n', (size_t)(size - *at));
  *length = newline ? newline - *line : size - *at;
  *at += *length + 1;
  if (newline == NULL) {
    *kind = LH_LINE_TORN;
  } else {
    *kind = is_good(*line, *length, seq) ? LH_LINE_GOOD : LH_LINE_DAMAGED;
  }
  return true;
}

/* --- writing --- */

/* Bytes of whole lines, and the last number: never below the number of lines,
 * so that a damaged last one cannot make a number come twice. */
static void measure(lh_journal *j, const char *text, int64_t size) {
  const char *line;
  lh_line kind;
  int64_t length, seq, lines = 0;
  j->size = j->seq = 0;
  for (int64_t at = 0; lh_journal_next(text, size, &at, &line, &length, &kind,
                                       &seq);) {
    if (kind == LH_LINE_TORN) break;
    j->size = at;
    lines++;
    if (kind == LH_LINE_GOOD && seq > j->seq) j->seq = seq;
    if (lines > j->seq) j->seq = lines;
  }
}

static lk_status measure_file(lh_journal *j, lk_error *error) {
  void *text;
  int64_t size;
  LK_TRY(lh_file_read(j->path, 0, &text, &size, error));
  measure(j, text, size);
  free(text);
  if (j->size == size) return LK_OK;
  LK_TRY(lh_fd_truncate(j->fd, j->path, j->size, error));
  return lh_fd_sync(j->fd, j->path, error);
}

lk_status lh_journal_open(lh_journal *j, const char *path, lk_error *error) {
  *j = (lh_journal){.fd = -1};
  j->path = strdup(path);
  if (j->path == NULL) return lk_fail(error, LK_OOM, "out of memory");
  lk_status status = LK_OK;
  j->fd = lh_fd_open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
  if (j->fd < 0) {
    status = lk_fail_errno(error, errno, "cannot open journal '%s'", path);
  } else {
    status = measure_file(j, error);
  }
  if (status == LK_OK) status = lh_folder_sync_of(path, error);
  if (status != LK_OK) lh_journal_close(j);
  return status;
}

void lh_journal_close(lh_journal *j) {
  if (j->path == NULL) return;
  if (j->fd >= 0) close(j->fd);
  free(j->path);
  *j = (lh_journal){.fd = -1};
}

/* The whole line for a body, malloc'ed; its length, or -1 without memory. */
static int64_t make_line(char **line, int64_t seq, const char *body,
                         int64_t size) {
  char head[96];
  int n = snprintf(head, sizeof head, head_format, seq, lh_time());
  *line = malloc((size_t)(n + size + TAIL + 2));
  if (*line == NULL) return -1;
  char *end = *line;
  memcpy(end, head, (size_t)n);
  end += n;
  if (size > 2) {
    *end++ = ',';
    memcpy(end, body + 1, (size_t)size - 2); /* without its braces */
    end += size - 2;
  }
  uint32_t crc = lh_crc32(0, *line, (size_t)(end - *line));
  end += sprintf(end, tail_format, (unsigned)crc);
  *end++ = '\n';
  return end - *line;
}

/* Put one line at the end, or take it back whole. */
static lk_status put_line(lh_journal *j, const char *line, int64_t size,
                          lk_error *error) {
  lk_status status = lh_fd_write(j->fd, j->path, line, size, error);
  if (status == LK_OK) status = lh_fd_sync(j->fd, j->path, error);
  if (status == LK_OK) {
    j->size += size;
  } else if (lh_fd_truncate(j->fd, j->path, j->size, NULL) != LK_OK) {
    j->broken = true;
  }
  return status;
}

/* After a failed cut the torn line must go before anything may follow it. */
static lk_status mend(lh_journal *j, lk_error *error) {
  if (!j->broken) return LK_OK;
  LK_TRY(lh_fd_truncate(j->fd, j->path, j->size, error));
  j->broken = false;
  return LK_OK;
}

lk_status lh_journal_append(lh_journal *j, const char *body, int64_t size,
                            int64_t *seq, lk_error *error) {
  char *line;
  LK_TRY(mend(j, error));
  int64_t length = make_line(&line, j->seq + 1, body, size);
  if (length < 0) return lk_fail(error, LK_OOM, "out of memory");
  lk_status status = put_line(j, line, length, error);
  free(line);
  if (status == LK_OK) *seq = ++j->seq;
  return status;
}
