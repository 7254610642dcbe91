/* Status codes and the one message that goes with a failure. */
#ifndef LK_BASE_STATUS_H
#define LK_BASE_STATUS_H

typedef enum lk_status {
#define STATUS(name, word) LK_##name,
#include "status.def"
#undef STATUS
  LK_STATUS_COUNT
} lk_status;

/* Where a function that can fail leaves its reason. The caller owns it. */
typedef struct lk_error {
  lk_status code;
  char message[1024];
} lk_error;

/* The word of a status, e.g. "oom"; never NULL. */
const char *lk_status_word(lk_status status);

/* Fill `error` (may be NULL) and return `code`, so that a failure is one
 * statement: `return lk_fail(e, LK_SHAPE, "got %d", n);`. Long messages are
 * cut. */
lk_status lk_fail(lk_error *error, lk_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As lk_fail, with ": <strerror(err)>" appended; ENOSPC, EDQUOT and EIO give
 * LK_DISK, ENOMEM gives LK_OOM, everything else LK_IO. */
lk_status lk_fail_errno(lk_error *error, int err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* `if (lk_try(f()) return status` without the noise. */
#define LK_TRY(call)                             \
  do {                                           \
    lk_status lk_try_status_ = (call);           \
    if (lk_try_status_ != LK_OK) return lk_try_status_; \
  } while (0)

#endif
