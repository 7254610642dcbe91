/* Streams of packed files, through zlib and zstd where the build has them. */
#include "unpack.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef HAVE_ZLIB
#include <zlib.h>
#endif
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

#include "../sys/file.h"

enum { INPUT = 1 << 16, OUTPUT_MOST = 1 << 30 };

struct lh_unpack {
  int fd;
  char *path;
  lh_packing packing;
  int64_t size, at;       /* bytes of the file; how many were read so far */
  int64_t left, next;     /* of `in`: bytes not unpacked yet, and where */
  bool pending;           /* more may come out without more going in */
  bool whole;             /* what was unpacked so far is complete */
#ifdef HAVE_ZLIB
  z_stream z;
#endif
#ifdef HAVE_ZSTD
  ZSTD_DStream *zstd;
#endif
  uint8_t in[INPUT];
};

/* --- names --------------------------------------------------------------- */
static const struct {
  const char *ending, *package;
} kinds[] = {{NULL, NULL}, {".gz", "zlib1g-dev"}, {".zst", "libzstd-dev"}};

static bool ends_with(const char *name, int64_t size, const char *ending) {
  int64_t length = (int64_t)strlen(ending);
  return size > length && memcmp(name + size - length, ending,
                                 (size_t)length) == 0;
}

lh_packing lh_packing_of(const char *name) {
  int64_t size = (int64_t)strlen(name);
  if (ends_with(name, size, kinds[LH_GZIP].ending)) return LH_GZIP;
  return ends_with(name, size, kinds[LH_ZSTD].ending) ? LH_ZSTD : LH_PLAIN;
}

const char *lh_packing_version(lh_packing packing) {
#ifdef HAVE_ZLIB
  if (packing == LH_GZIP) return zlibVersion();
#endif
#ifdef HAVE_ZSTD
  if (packing == LH_ZSTD) return ZSTD_versionString();
#endif
  return packing == LH_PLAIN ? "" : NULL;
}

lk_status lh_packing_check(const char *name, lk_error *e) {
  lh_packing packing = lh_packing_of(name);
  if (lh_packing_version(packing)) return LK_OK;
  return lk_fail(e, LK_ARGUMENT, "'%s': this build reads no '%s' files; unpack "
                 "it, or install %s and build again", name,
                 kinds[packing].ending, kinds[packing].package);
}

bool lh_is_jsonl(const char *name) {
  int64_t size = (int64_t)strlen(name);
  lh_packing packing = lh_packing_of(name);
  if (packing) size -= (int64_t)strlen(kinds[packing].ending);
  return ends_with(name, size, ".jsonl") || ends_with(name, size, ".ndjson");
}

/* --- opening ------------------------------------------------------------- */
static lk_status start(lh_unpack *u, lk_error *e) {
  bool started = true;
#ifdef HAVE_ZLIB
  if (u->packing == LH_GZIP) {
    started = inflateInit2(&u->z, 16 + MAX_WBITS) == Z_OK;
    if (!started) u->packing = LH_PLAIN; /* nothing to end */
  }
#endif
#ifdef HAVE_ZSTD
  if (u->packing == LH_ZSTD)
    started = (u->zstd = ZSTD_createDStream()) != NULL;
#endif
  return started ? LK_OK : lk_fail(e, LK_OOM, "no memory to unpack '%s'",
                                   u->path);
}

lk_status lh_unpack_open(const char *path, lh_unpack **out, lk_error *e) {
  *out = NULL;
  LK_TRY(lh_packing_check(path, e));
  lh_unpack *u = malloc(sizeof *u);
  if (u == NULL) return lk_fail(e, LK_OOM, "no memory to read '%s'", path);
  memset(u, 0, offsetof(lh_unpack, in));
  u->fd = -1;
  u->path = strdup(path);
  lk_status status = u->path ? lh_file_open(path, &u->fd, &u->size, e)
                             : lk_fail(e, LK_OOM, "no memory for a name");
  if (status == LK_OK) {
    u->packing = lh_packing_of(path);
    status = start(u, e);
  }
  if (status == LK_OK) *out = u;
  else lh_unpack_close(u);
  return status;
}

void lh_unpack_close(lh_unpack *u) {
  if (u == NULL) return;
#ifdef HAVE_ZLIB
  if (u->packing == LH_GZIP) inflateEnd(&u->z);
#endif
#ifdef HAVE_ZSTD
  ZSTD_freeDStream(u->zstd); /* NULL is fine */
#endif
  if (u->fd >= 0) close(u->fd);
  free(u->path);
  free(u);
}

/* --- unpacking ----------------------------------------------------------- */
__attribute__((unused)) /* without both libraries */
static lk_status damaged(const lh_unpack *u, const char *why, lk_error *e) {
  return lk_fail(e, LK_FORMAT, "'%s' is damaged at byte %lld of %lld: %s",
                 u->path, (long long)(u->at - u->left), (long long)u->size,
                 why ? why : "it cannot be unpacked");
}

#ifdef HAVE_ZLIB
/* Unpack some of `in` into at most `room` bytes. A file may hold several
 * members, one after the other. */
static lk_status inflate_some(lh_unpack *u, uint8_t *to, int64_t room,
                              int64_t *got, lk_error *e) {
  u->z.next_in = u->in + u->next;
  u->z.avail_in = (uInt)u->left;
  u->z.next_out = to;
  u->z.avail_out = (uInt)(room < OUTPUT_MOST ? room : OUTPUT_MOST);
  int64_t offered = u->z.avail_out;
  if (u->whole && inflateReset(&u->z) != Z_OK)
    return damaged(u, u->z.msg, e);
  int code = inflate(&u->z, Z_NO_FLUSH);
  u->next += u->left - (int64_t)u->z.avail_in;
  u->left = u->z.avail_in;
  *got = offered - (int64_t)u->z.avail_out;
  u->whole = code == Z_STREAM_END;
  u->pending = !u->whole && u->z.avail_out == 0;
  if (code == Z_MEM_ERROR)
    return lk_fail(e, LK_OOM, "no memory to unpack '%s'", u->path);
  bool fine = code == Z_OK || code == Z_STREAM_END || code == Z_BUF_ERROR;
  return fine ? LK_OK : damaged(u, u->z.msg, e);
}
#endif

#ifdef HAVE_ZSTD
static lk_status unzstd_some(lh_unpack *u, uint8_t *to, int64_t room,
                             int64_t *got, lk_error *e) {
  ZSTD_inBuffer in = {u->in + u->next, (size_t)u->left, 0};
  ZSTD_outBuffer out = {to, (size_t)room, 0};
  size_t code = ZSTD_decompressStream(u->zstd, &out, &in);
  u->next += (int64_t)in.pos;
  u->left -= (int64_t)in.pos;
  *got = (int64_t)out.pos;
  if (ZSTD_isError(code)) return damaged(u, ZSTD_getErrorName(code), e);
  u->whole = code == 0;
  u->pending = !u->whole && out.pos == out.size;
  return LK_OK;
}
#endif

static lk_status unpack_some(lh_unpack *u, uint8_t *to, int64_t room,
                             int64_t *got, lk_error *e) {
#ifdef HAVE_ZLIB
  if (u->packing == LH_GZIP) return inflate_some(u, to, room, got, e);
#endif
#ifdef HAVE_ZSTD
  if (u->packing == LH_ZSTD) return unzstd_some(u, to, room, got, e);
#endif
  (void)to, (void)room, *got = 0;
  return lk_fail(e, LK_INTERNAL, "'%s' needs no unpacking", u->path);
}

/* Fill `in`; *end when the file is read and unpacked to its end. */
static lk_status refill(lh_unpack *u, bool *end, lk_error *e) {
  int64_t size = u->size - u->at < INPUT ? u->size - u->at : INPUT;
  *end = size == 0;
  if (*end && !u->whole)
    return damaged(u, "it ends inside what is packed", e);
  u->next = 0;
  LK_TRY(lh_file_pread(u->fd, u->path, u->in, size, u->at, e));
  u->at += size;
  u->left = size;
  return LK_OK;
}

static lk_status read_plain(lh_unpack *u, void *to, int64_t room,
                            int64_t *got, lk_error *e) {
  int64_t size = u->size - u->at < room ? u->size - u->at : room;
  LK_TRY(lh_file_pread(u->fd, u->path, to, size, u->at, e));
  u->at += size;
  *got = size;
  return LK_OK;
}

lk_status lh_unpack_read(lh_unpack *u, void *to, int64_t room, int64_t *got,
                         lk_error *e) {
  *got = 0;
  if (u->packing == LH_PLAIN) return read_plain(u, to, room, got, e);
  while (*got < room) {
    int64_t some = 0;
    bool end = false;
    if (u->left == 0 && !u->pending) LK_TRY(refill(u, &end, e));
    if (end) break;
    LK_TRY(unpack_some(u, (uint8_t *)to + *got, room - *got, &some, e));
    *got += some;
  }
  return LK_OK;
}
