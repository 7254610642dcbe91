/* What the files that read and write tokens share; for no one else. */
#ifndef LH_TEXT_TOKENS_OWN_H
#define LH_TEXT_TOKENS_OWN_H

#include "tokens.h"

struct lh_tokens {
  int references;
  lh_tokens_info info;
  int width;              /* bytes of an id: 2 or 4 */
  int fd;                 /* -1: in memory */
  int64_t offset;         /* of the ids in the file */
  char *path;
  uint8_t *data;          /* in memory: count x width bytes */
};

/* What is done with some of the ids, `count` of them. */
typedef lk_status lh_tokens_piece(void *context, const uint8_t *data,
                                  int64_t count, lk_error *e);

/* An object for a file, opened and not read yet; *size in bytes. */
lk_status lh_tokens_file(const char *path, lh_tokens **out, int64_t *size,
                         lk_error *e);
/* FORMAT: "token file '<path>': <what>". */
lk_status lh_tokens_damaged(const lh_tokens *t, const char *what,
                            lk_error *e);
/* Read all ids: their CRC, and the largest one (-1: there are none). */
lk_status lh_tokens_scan(const lh_tokens *t, uint32_t *crc, int64_t *largest,
                         lk_error *e);
/* Write `size` bytes of `header` and then the ids, atomically. */
lk_status lh_tokens_write(const lh_tokens *t, const char *path,
                          const void *header, int64_t size, lk_error *e);

#endif
