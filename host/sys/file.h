/* Files. Every persistent write of the program goes through here: written to
 * `name.tmp.<pid>`, synced, renamed over `name`, and the folder synced, so that
 * a reader sees the old content or the new one and nothing else. Reads are of
 * regular files only, by pread, and never believe a size they did not check. */
#ifndef LH_SYS_FILE_H
#define LH_SYS_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "../../kernels/base/status.h"

/* Replace `path` by `size` bytes of `data`, atomically and durably. On failure
 * (LK_DISK, LK_IO, LK_OOM) the old file is untouched and nothing is left. */
lk_status lh_file_write(const char *path, const void *data, int64_t size,
                        lk_error *error);

/* The same in pieces. open allocates *writer; append buffers; commit makes the
 * file appear and frees the writer in every case; abort drops everything
 * (NULL is fine). After a failed append only abort is allowed. */
typedef struct lh_file_writer lh_file_writer;
lk_status lh_file_writer_open(lh_file_writer **writer, const char *path,
                              lk_error *error);
lk_status lh_file_writer_append(lh_file_writer *writer, const void *data,
                                int64_t size, lk_error *error);
lk_status lh_file_writer_commit(lh_file_writer *writer, lk_error *error);
void lh_file_writer_abort(lh_file_writer *writer);

/* Append `size` bytes to `path` (created if absent), in one write where the
 * system allows; synced if `sync`. A failed append is cut off again. */
lk_status lh_file_append(const char *path, const void *data, int64_t size,
                         bool sync, lk_error *error);

/* Open `path` for pread; it must be a regular file. The caller closes *fd. */
lk_status lh_file_open(const char *path, int *fd, int64_t *size,
                       lk_error *error);
/* Read exactly `size` bytes at `offset`; LK_FORMAT if the file ends before. */
lk_status lh_file_pread(int fd, const char *path, void *data, int64_t size,
                        int64_t offset, lk_error *error);
/* Read the whole of `path`, at most `max_bytes` of it (0: no limit; a longer
 * file is LK_FORMAT). *data is malloc'ed, with a zero byte after its end, and
 * the caller's to free. */
lk_status lh_file_read(const char *path, int64_t max_bytes, void **data,
                       int64_t *size, lk_error *error);
/* CRC-32 of a whole file's content. */
lk_status lh_file_crc32(const char *path, uint32_t *crc, lk_error *error);

/* Rename and make it durable; remove a file or an empty folder. */
lk_status lh_file_rename(const char *from, const char *to, lk_error *error);
lk_status lh_file_remove(const char *path, lk_error *error);

/* The lower calls, for what keeps a descriptor open (journal, locks): each can
 * be made to fail by lh_file_fail_after. fd_write loops on short writes. */
int lh_fd_open(const char *path, int flags, int mode);
lk_status lh_fd_write(int fd, const char *path, const void *data, int64_t size,
                      lk_error *error);
lk_status lh_fd_sync(int fd, const char *path, lk_error *error);
lk_status lh_fd_truncate(int fd, const char *path, int64_t size,
                         lk_error *error);
lk_status lh_folder_sync_of(const char *path, lk_error *error);

/* Fault injection for tests: let the n-th fallible output call from now (1 is
 * the next; open, write, fsync, close, rename, truncate, mkdir, remove) fail
 * with ENOSPC, and every later one too if `lasting`. 0 turns it off. fault.h
 * has what the environment can set. */
void lh_file_fail_after(int64_t n, bool lasting);
/* Let each write take at most `most` bytes; 0 turns it off. */
void lh_file_short_writes(int64_t most);
/* How many fallible output calls there were so far. */
int64_t lh_file_calls(void);

#endif
