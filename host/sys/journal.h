/* A journal: one JSON object a line, each with a sequence number, the time and
 * a CRC, synced before the append returns. One process writes it. A line that
 * was torn by a crash is cut off when it is opened again; a line that was
 * damaged later is noticed by its CRC. */
#ifndef LH_SYS_JOURNAL_H
#define LH_SYS_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../kernels/base/status.h"

typedef struct lh_journal {
  int fd;         /* -1: closed */
  char *path;
  int64_t size;   /* bytes of whole lines */
  int64_t seq;    /* of the last record */
  bool broken;    /* a torn line could not be cut off */
} lh_journal;

/* Open for appending, made if absent. The caller closes. */
lk_status lh_journal_open(lh_journal *journal, const char *path,
                          lk_error *error);

/* Append a JSON object `body` ("{…}" on one line, without the fields seq, time
 * and crc); *seq is the record's number. On failure (LK_DISK, LK_IO) nothing
 * of it stays in the file. */
lk_status lh_journal_append(lh_journal *journal, const char *body,
                            int64_t size, int64_t *seq, lk_error *error);
void lh_journal_close(lh_journal *journal);

typedef enum lh_line {
  LH_LINE_GOOD,
  LH_LINE_DAMAGED,
  LH_LINE_TORN /* the last one, without its end */
} lh_line;

/* Walk over a journal's text: the next line from *at, what it is, and its
 * number if it is good. False at the end. */
bool lh_journal_next(const char *text, int64_t size, int64_t *at,
                     const char **line, int64_t *length, lh_line *kind,
                     int64_t *seq);

#endif
