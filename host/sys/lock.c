/* Lock files, as lock.h says. */
#define _GNU_SOURCE
#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include "file.h"
#include "machine.h"
#include "process.h"
#include "signal.h"

static const double RETRY_SECONDS = 0.05;

static void read_holder(int fd, lh_holder *holder) {
  char text[64];
  long pid;
  long long start;
  *holder = (lh_holder){.pid = 0, .start = -1};
  ssize_t n = pread(fd, text, sizeof text - 1, 0);
  if (n <= 0) return;
  text[n] = '\0';
  if (sscanf(text, "%ld %lld", &pid, &start) != 2 || pid <= 0) return;
  holder->pid = (pid_t)pid;
  holder->start = start;
}

/* Say who holds the lock. A full disk costs this line, not the lock. */
static void write_holder(int fd) {
  char text[64];
  pid_t pid = getpid();
  int n = snprintf(text, sizeof text, "%ld %lld\n", (long)pid,
                   (long long)lh_process_start_time(pid));
  if (ftruncate(fd, 0) != 0) return;
  if (pwrite(fd, text, (size_t)n, 0) != n && ftruncate(fd, 0) != 0) return;
}

/* 0 when taken, else an errno; EWOULDBLOCK once the time is up. */
static int take(int fd, double seconds) {
  double deadline = lh_clock() + seconds;
  while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return errno;
    if (lh_clock() >= deadline || lh_signal_count() > 0) return EWOULDBLOCK;
    lh_sleep(RETRY_SECONDS);
  }
  return 0;
}

lk_status lh_lock_take(lh_lock *lock, const char *path, double seconds,
                       bool *busy, lh_holder *holder, lk_error *error) {
  *busy = false;
  lock->fd = -1;
  int fd = lh_fd_open(path, O_RDWR | O_CREAT, 0666);
  if (fd < 0) return lk_fail_errno(error, errno, "cannot open lock '%s'", path);
  int err = take(fd, seconds);
  if (err == 0) {
    write_holder(fd);
    lock->fd = fd;
    return LK_OK;
  }
  *busy = err == EWOULDBLOCK;
  read_holder(fd, holder);
  close(fd);
  if (!*busy) return lk_fail_errno(error, err, "cannot lock '%s'", path);
  if (holder->pid == 0) {
    return lk_fail(error, LK_IO, "'%s' is held by another process", path);
  }
  return lk_fail(error, LK_IO, "'%s' is held by process %ld", path,
                 (long)holder->pid);
}

void lh_lock_release(lh_lock *lock) {
  if (lock->fd >= 0) close(lock->fd);
  lock->fd = -1;
}
