/* Atomic and durable writes, as file.h says. Each call that can fail asks
 * fault.h first. */
#define _GNU_SOURCE
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault.h"

enum { BUFFER = 1 << 16 };

struct lh_file_writer {
  int fd;
  char *path, *temporary;
  int64_t used;
  char buffer[BUFFER];
};

/* --- the lower calls --- */

int lh_fd_open(const char *path, int flags, int mode) {
  if ((flags & O_ACCMODE) != O_RDONLY && lh_fault("open", path)) return -1;
  int fd;
  do {
    fd = open(path, flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

/* One write, EINTR repeated; the number of bytes taken, or -1. */
static int64_t write_some(int fd, const char *path, const char *data,
                          int64_t size) {
  lh_write_fault fault = lh_fault_write(path, &size);
  if (fault == LH_FAILS) return -1;
  int err = errno;
  ssize_t n;
  do {
    n = write(fd, data, (size_t)size);
  } while (n < 0 && errno == EINTR);
  if (n == 0) errno = ENOSPC; /* a write that takes nothing will go on so */
  if (fault == LH_TEARS) errno = err;
  return n > 0 && fault == LH_WRITES ? n : -1;
}

lk_status lh_fd_write(int fd, const char *path, const void *data, int64_t size,
                      lk_error *error) {
  const char *p = data;
  while (size > 0) {
    int64_t n = write_some(fd, path, p, size);
    if (n < 0) return lk_fail_errno(error, errno, "cannot write '%s'", path);
    p += n;
    size -= n;
  }
  return LK_OK;
}

lk_status lh_fd_sync(int fd, const char *path, lk_error *error) {
  int rc;
  do {
    rc = lh_fault("sync", path) ? -1 : fsync(fd);
  } while (rc < 0 && errno == EINTR);
  /* Pipes and the like have nothing to sync. */
  if (rc == 0 || errno == EINVAL || errno == EROFS) return LK_OK;
  return lk_fail_errno(error, errno, "cannot sync '%s'", path);
}

lk_status lh_fd_truncate(int fd, const char *path, int64_t size,
                         lk_error *error) {
  if (!lh_fault("truncate", path) && ftruncate(fd, size) == 0) return LK_OK;
  return lk_fail_errno(error, errno, "cannot truncate '%s'", path);
}

/* Close, telling of a write that only now turned out to have failed. */
static lk_status close_checked(int fd, const char *path, lk_error *error) {
  bool fails = lh_fault("close", path);
  int err = errno;
  if (close(fd) < 0 && errno != EINTR) fails = true, err = errno;
  if (!fails) return LK_OK;
  return lk_fail_errno(error, err, "cannot close '%s'", path);
}

/* Sync the folder that holds `path`, so that its name there lasts. */
lk_status lh_folder_sync_of(const char *path, lk_error *error) {
  char *folder = strdup(path);
  if (folder == NULL) return lk_fail(error, LK_OOM, "out of memory");
  char *slash = strrchr(folder, '/');
  if (slash) slash[slash == folder] = '\0';
  const char *name = slash ? folder : ".";
  int fd = lh_fd_open(name, O_RDONLY | O_DIRECTORY, 0);
  lk_status status = LK_OK;
  if (fd < 0) {
    status = lk_fail_errno(error, errno, "cannot open folder '%s'", name);
  } else {
    status = lh_fd_sync(fd, name, error);
    close(fd);
  }
  free(folder);
  return status;
}

lk_status lh_file_rename(const char *from, const char *to, lk_error *error) {
  if (lh_fault("rename", to) || rename(from, to) != 0) {
    return lk_fail_errno(error, errno, "cannot rename '%s' to '%s'", from, to);
  }
  return lh_folder_sync_of(to, error);
}

lk_status lh_file_remove(const char *path, lk_error *error) {
  if (!lh_fault("remove", path) && remove(path) == 0) return LK_OK;
  return lk_fail_errno(error, errno, "cannot remove '%s'", path);
}

/* --- the atomic writer --- */

static void free_writer(lh_file_writer *w) {
  free(w->path);
  free(w->temporary);
  free(w);
}

/* The name beside `path`, unique to this process; malloc'ed. */
static char *temporary_name(const char *path) {
  char *name = NULL;
  return asprintf(&name, "%s.tmp.%ld", path, (long)getpid()) < 0 ? NULL : name;
}

/* Give the new file the mode of the one it will replace. */
static void keep_mode(int fd, const char *path) {
  struct stat st;
  if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
    if (fchmod(fd, st.st_mode & 07777) != 0) return; /* a nicety */
  }
}

lk_status lh_file_writer_open(lh_file_writer **writer, const char *path,
                              lk_error *error) {
  *writer = NULL;
  lh_file_writer *w = malloc(sizeof *w);
  if (w == NULL) return lk_fail(error, LK_OOM, "out of memory");
  w->used = 0;
  w->path = strdup(path);
  w->temporary = temporary_name(path);
  if (w->path == NULL || w->temporary == NULL) {
    free_writer(w);
    return lk_fail(error, LK_OOM, "out of memory");
  }
  w->fd = lh_fd_open(w->temporary, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (w->fd < 0) {
    int err = errno;
    free_writer(w);
    return lk_fail_errno(error, err, "cannot create '%s'", path);
  }
  keep_mode(w->fd, path);
  *writer = w;
  return LK_OK;
}

static lk_status flush(lh_file_writer *w, lk_error *error) {
  int64_t size = w->used;
  w->used = 0;
  return lh_fd_write(w->fd, w->path, w->buffer, size, error);
}

lk_status lh_file_writer_append(lh_file_writer *w, const void *data,
                                int64_t size, lk_error *error) {
  if (size > BUFFER - w->used) LK_TRY(flush(w, error));
  if (size > BUFFER) return lh_fd_write(w->fd, w->path, data, size, error);
  memcpy(w->buffer + w->used, data, (size_t)size);
  w->used += size;
  return LK_OK;
}

lk_status lh_file_writer_commit(lh_file_writer *w, lk_error *error) {
  lk_status status = flush(w, error);
  if (status == LK_OK) status = lh_fd_sync(w->fd, w->path, error);
  lk_status closed = close_checked(w->fd, w->path, status ? NULL : error);
  if (status == LK_OK) status = closed;
  if (status == LK_OK) {
    status = lh_file_rename(w->temporary, w->path, error);
  }
  if (status != LK_OK) unlink(w->temporary);
  free_writer(w);
  return status;
}

void lh_file_writer_abort(lh_file_writer *w) {
  if (w == NULL) return;
  close(w->fd);
  unlink(w->temporary);
  free_writer(w);
}

lk_status lh_file_write(const char *path, const void *data, int64_t size,
                        lk_error *error) {
  lh_file_writer *w;
  LK_TRY(lh_file_writer_open(&w, path, error));
  lk_status status = lh_file_writer_append(w, data, size, error);
  if (status == LK_OK) return lh_file_writer_commit(w, error);
  lh_file_writer_abort(w);
  return status;
}

lk_status lh_file_append(const char *path, const void *data, int64_t size,
                         bool sync, lk_error *error) {
  int fd = lh_fd_open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
  if (fd < 0) return lk_fail_errno(error, errno, "cannot open '%s'", path);
  struct stat st;
  bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
  lk_status status = lh_fd_write(fd, path, data, size, error);
  if (status == LK_OK && sync) status = lh_fd_sync(fd, path, error);
  if (status != LK_OK && regular && ftruncate(fd, st.st_size) != 0) {
    status = lk_fail_errno(error, errno, "cannot cut '%s' again", path);
  }
  lk_status closed = close_checked(fd, path, status ? NULL : error);
  return status ? status : closed;
}
