/* safetensors files: 8 bytes of header size (little endian), a JSON header
 * {"name": {"dtype", "shape", "data_offsets"}, "__metadata__": {…}}, the bytes
 * of the tensors one after another. Reading believes nothing that it did not
 * check; writing is streamed, atomic and durable (file.h).
 * Source: the format's description in huggingface/safetensors. */
#ifndef LH_SYS_SAFETENSORS_H
#define LH_SYS_SAFETENSORS_H

#include "../../kernels/base/dtype.h"
#include "../../kernels/base/shape.h"
#include "../../kernels/base/status.h"
#include "json.h"

enum { LH_SAFETENSORS_HEADER_MOST = 100000000 };  /* bytes */

/* --- reading -------------------------------------------------------------- */

typedef struct lh_safetensor {
  const char *name;       /* UTF-8, NUL-ended, unique in its file */
  const char *word;       /* the file's name of the dtype: "F32", "I64", … */
  lk_dtype dtype;         /* LK_DTYPE_COUNT: one that operators do not have */
  lk_shape shape;         /* sizes from 0 */
  int64_t offset, bytes;  /* in the file */
} lh_safetensor;

typedef struct lh_safetensors {
  char *path;
  int fd;
  lh_safetensor *tensor;  /* sorted by name */
  int64_t count;
  lh_json header;
  int64_t metadata;       /* node of the header, an object of strings, or 0 */
} lh_safetensors;

/* Open and check everything but the tensors' values: the header is inside the
 * file and at most 100 MB, begins with '{', is strict JSON, no name comes
 * twice, shape × dtype = length, lengths fill the file without gaps or
 * overlaps. LK_FORMAT names file, tensor and fault; LK_IO, LK_OOM.
 * lh_safetensors_close in every case (also for a file that is all zero). */
lk_status lh_safetensors_open(const char *path, lh_safetensors *file,
                              lk_error *error);
void lh_safetensors_close(lh_safetensors *file);

/* The tensor called `name`, or NULL. */
const lh_safetensor *lh_safetensors_find(const lh_safetensors *file,
                                         const char *name);
/* The metadata's string under `key`, or NULL. */
const char *lh_safetensors_metadata(const lh_safetensors *file,
                                    const char *key);
/* Copy `bytes` of a tensor's values, from its byte `from` on, to `data`. */
lk_status lh_safetensors_read(const lh_safetensors *file,
                              const lh_safetensor *tensor, int64_t from,
                              void *data, int64_t bytes, lk_error *error);

/* --- writing -------------------------------------------------------------- */

typedef struct lh_safetensors_entry {
  const char *name;
  lk_dtype dtype;         /* of whole bytes; U4 is written as U8 by its owner */
  lk_shape shape;
  int64_t tag;            /* the caller's own */
} lh_safetensors_entry;

typedef struct lh_safetensors_pair {
  const char *key, *value;
} lh_safetensors_pair;

/* By size of the elements, largest first, then by name: every tensor begins at
 * a multiple of its element's size, as readers that map the file expect. */
void lh_safetensors_sort(lh_safetensors_entry *entries, int64_t count);

/* Begin a file with these tensors in this order and this metadata (may be
 * NULL). LK_ARGUMENT for a name that comes twice or is not UTF-8, LK_DTYPE. */
typedef struct lh_safetensors_writer lh_safetensors_writer;
lk_status lh_safetensors_writer_open(lh_safetensors_writer **writer,
                                     const char *path,
                                     const lh_safetensors_entry *entries,
                                     int64_t count,
                                     const lh_safetensors_pair *metadata,
                                     int64_t pairs, lk_error *error);
/* The next bytes of the tensors' values, in pieces of any size. */
lk_status lh_safetensors_writer_append(lh_safetensors_writer *writer,
                                       const void *data, int64_t bytes,
                                       lk_error *error);
/* Make the file appear; frees the writer in every case. LK_INTERNAL when more
 * or fewer bytes were appended than the entries need. */
lk_status lh_safetensors_writer_commit(lh_safetensors_writer *writer,
                                       lk_error *error);
/* Drop everything (NULL is fine). After a failed append only this. */
void lh_safetensors_writer_abort(lh_safetensors_writer *writer);

#endif
