/* A lock file: held by flock, so that it goes when its holder does, however
 * that ends. The file itself stays; it tells who holds it. */
#ifndef LH_SYS_LOCK_H
#define LH_SYS_LOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "../../kernels/base/status.h"

typedef struct lh_lock {
  int fd; /* -1: not held */
} lh_lock;

/* Who holds a lock: 0 and -1 if the file does not say. */
typedef struct lh_holder {
  pid_t pid;
  int64_t start; /* lh_process_start_time when it took the lock */
} lh_holder;

/* Take the lock at `path` (made if absent), waiting at most `seconds`. If
 * another holds it then: LK_IO, *busy true, and *holder filled. */
lk_status lh_lock_take(lh_lock *lock, const char *path, double seconds,
                       bool *busy, lh_holder *holder, lk_error *error);
void lh_lock_release(lh_lock *lock);

#endif
