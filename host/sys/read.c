/* Checked reads: regular files only, sizes from the file and not from its
 * content, pread in a loop. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "hash.h"

lk_status lh_file_open(const char *path, int *fd, int64_t *size,
                       lk_error *error) {
  /* O_NONBLOCK: a FIFO must be refused, not waited for. */
  *fd = lh_fd_open(path, O_RDONLY | O_NONBLOCK, 0);
  if (*fd < 0) return lk_fail_errno(error, errno, "cannot open '%s'", path);
  struct stat st;
  lk_status status = LK_OK;
  if (fstat(*fd, &st) != 0) {
    status = lk_fail_errno(error, errno, "cannot examine '%s'", path);
  } else if (!S_ISREG(st.st_mode)) {
    status = lk_fail(error, LK_IO, "cannot read '%s': not a regular file",
                     path);
  }
  if (status != LK_OK) {
    close(*fd);
    *fd = -1;
    return status;
  }
  *size = st.st_size;
  return LK_OK;
}

/* Read up to `size` bytes; *got tells how many there were before the end. */
static lk_status pread_some(int fd, const char *path, char *data, int64_t size,
                            int64_t offset, int64_t *got, lk_error *error) {
  *got = 0;
  while (*got < size) {
    ssize_t n = pread(fd, data + *got, (size_t)(size - *got), offset + *got);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return lk_fail_errno(error, errno, "cannot read '%s'", path);
    if (n == 0) break;
    *got += n;
  }
  return LK_OK;
}

lk_status lh_file_pread(int fd, const char *path, void *data, int64_t size,
                        int64_t offset, lk_error *error) {
  int64_t got;
  LK_TRY(pread_some(fd, path, data, size, offset, &got, error));
  if (got == size) return LK_OK;
  return lk_fail(error, LK_FORMAT, "'%s' ends at byte %lld, %lld are missing",
                 path, (long long)(offset + got), (long long)(size - got));
}

/* Files of /proc and /sys say 0 and have content: read until the end. */
static lk_status read_unsized(int fd, const char *path, int64_t limit,
                              char **data, int64_t *size, lk_error *error) {
  int64_t room = 0;
  *size = 0;
  for (;;) {
    if (*size == room) {
      room = room ? 2 * room : 4096;
      char *more = realloc(*data, (size_t)room + 1);
      if (more == NULL) return lk_fail(error, LK_OOM, "out of memory");
      *data = more;
    }
    int64_t got;
    LK_TRY(pread_some(fd, path, *data + *size, room - *size, *size, &got,
                      error));
    *size += got;
    if (limit && *size > limit) return LK_OK;
    if (*size < room) return LK_OK;
  }
}

static lk_status read_sized(int fd, const char *path, char **data,
                            int64_t *size, lk_error *error) {
  *data = malloc((size_t)*size + 1);
  if (*data == NULL) {
    return lk_fail(error, LK_OOM, "no memory for the %lld bytes of '%s'",
                   (long long)*size, path);
  }
  return pread_some(fd, path, *data, *size, 0, size, error);
}

lk_status lh_file_read(const char *path, int64_t max_bytes, void **data,
                       int64_t *size, lk_error *error) {
  int fd;
  char *bytes = NULL;
  *data = NULL;
  LK_TRY(lh_file_open(path, &fd, size, error));
  lk_status status = LK_OK;
  if (*size == 0) {
    status = read_unsized(fd, path, max_bytes, &bytes, size, error);
  } else if (max_bytes == 0 || *size <= max_bytes) {
    status = read_sized(fd, path, &bytes, size, error);
  }
  if (status == LK_OK && max_bytes && *size > max_bytes) {
    status = lk_fail(error, LK_FORMAT, "'%s' is larger than %lld bytes", path,
                     (long long)max_bytes);
  }
  close(fd);
  if (status != LK_OK) {
    free(bytes);
    return status;
  }
  bytes[*size] = '\0';
  *data = bytes;
  return LK_OK;
}

lk_status lh_file_crc32(const char *path, uint32_t *crc, lk_error *error) {
  enum { PIECE = 1 << 18 };
  int fd;
  int64_t size, got = PIECE;
  *crc = 0;
  LK_TRY(lh_file_open(path, &fd, &size, error));
  char *piece = malloc(PIECE);
  lk_status status = piece ? LK_OK : lk_fail(error, LK_OOM, "out of memory");
  for (int64_t at = 0; status == LK_OK && got == PIECE; at += got) {
    status = pread_some(fd, path, piece, PIECE, at, &got, error);
    if (status == LK_OK) *crc = lh_crc32(*crc, piece, (size_t)got);
  }
  free(piece);
  close(fd);
  return status;
}
