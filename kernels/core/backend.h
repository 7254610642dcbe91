/* What a backend is: a table of functions; and what a call of an operator is.
 * kernels/cpu and kernels/cuda each fill one table. */
#ifndef LK_CORE_BACKEND_H
#define LK_CORE_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor.h"

typedef enum lk_op {
#define OP(name, results, inputs, attributes, gradient) LK_OP_##name,
#include "ops.def"
#undef OP
  LK_OP_COUNT
} lk_op;

typedef enum lk_format {
#define FORMAT(name, word, code, scale, block, per_tensor) LK_FORMAT_##name,
#include "format.def"
#undef FORMAT
  LK_FORMAT_COUNT
} lk_format;

typedef struct lk_format_info {
  const char *word;
  lk_dtype code, scale;
  int64_t block;  /* default values per scale; 0: the whole tensor */
  bool per_tensor;
} lk_format_info;
extern const lk_format_info lk_formats[LK_FORMAT_COUNT];

typedef struct lk_attr {
#define ATTR(name, type, ctype) ctype name;
#include "attr.def"
#undef ATTR
} lk_attr;

/* The values that share a scale of a quantized tensor of `count` values: the
 * attribute, else the format's own; count itself when the whole tensor does. */
static inline int64_t lk_format_block(int64_t format, int64_t block,
                                      int64_t count) {
  if (block == 0) block = lk_formats[format].block;
  return block == 0 ? count : block;
}

enum { LK_MAX_RESULTS = 5, LK_MAX_INPUTS = 7 };

/* One call of an operator: results, inputs and attributes in the order of its
 * entry in ops.def. An absent optional tensor has rank -1 (lk_absent).
 * `scratch` holds at least the bytes its rule asked for, 64-byte aligned,
 * contents undefined. `beside`: nothing that this call writes is touched, and
 * nothing that it reads is written, by the calls since the last one without the
 * flag, that one included, but for results marked '&': a backend may begin it
 * before they are done (graph/beside.h). */
typedef struct lk_call {
  lk_op op;
  lk_tensor out[LK_MAX_RESULTS];
  lk_tensor in[LK_MAX_INPUTS];
  lk_attr attr;
  void *scratch;
  bool beside;
} lk_call;

#define LK_ABSENT ((lk_tensor){.shape = {.rank = -1}})
static inline bool lk_present(const lk_tensor *t) { return t->shape.rank >= 0; }

/* u32 fields of a `clock` tensor. */
enum {
  LK_CLOCK_SEED_LOW, LK_CLOCK_SEED_HIGH,
  LK_CLOCK_STEP,          /* optimizer step, from 0 */
  LK_CLOCK_MICRO,         /* micro-batch within the step, from 0 */
  LK_CLOCK = 4
};

/* f32 fields of a `control` tensor. The host writes the first group before a
 * step, operators write the second. */
enum {
  LK_CONTROL_RATE,           /* the schedule's factor on every lr */
  LK_CONTROL_LOSS_SCALE,
  LK_CONTROL_CLIP,           /* largest norm; infinity: no clipping */
  LK_CONTROL_MUON_FACTOR,    /* clip factor from the step before */
  LK_CONTROL_STEP,           /* t, from 1; AdamW: 1 - beta^t in double */
  LK_CONTROL_NORM,           /* of this step's gradient */
  LK_CONTROL_FACTOR,         /* min(1, clip / norm) */
  LK_CONTROL_FINITE,         /* 1; 0 stops all updates of the step */
  LK_CONTROL = 16
};

/* What a plan must know of a device without touching it. Compiled for every
 * backend on every machine, so that a laptop predicts a GPU to the byte. */
typedef struct lk_profile {
  const char *backend;      /* "cpu", "cuda" */
  int lanes;                /* threads that work in an operator at once */
  int64_t alignment;        /* of every buffer in an arena, bytes */
  int64_t head_chunk_bytes; /* about how large a chunk of logits is … */
  int head_chunks;          /* … unless it takes more of them; 0: any number */
  int update_group;         /* same-shaped matrices orthogonalized at once */
  int64_t workspace;        /* bytes a library holds while the context lives */
  lk_dtype compute;         /* what layers multiply with: f32, bf16 */
  bool keeps_draws;         /* attention's are dearer to make than to keep */
} lk_profile;

typedef struct lk_context lk_context;

typedef lk_status (*lk_kernel)(lk_context *context, const lk_call *call);

typedef struct lk_device_info {
  char name[128];           /* "AMD EPYC …", "NVIDIA H200" */
  int64_t memory, free;     /* bytes */
  char capability[16];      /* "avx2", "9.0" */
  char bus[32];             /* "0000:0a:00.0"; "": none */
} lk_device_info;

typedef struct lk_backend {
  const char *name;
  int (*device_count)(void);
  lk_status (*device_info)(int device, lk_device_info *info, lk_error *error);
  /* Set context->state and what the context needs; undo. */
  lk_status (*open)(lk_context *context, int device);
  void (*close)(lk_context *context);
  void *(*allocate)(void *context, int64_t bytes);
  void (*release)(void *context, void *data, int64_t bytes);
  lk_status (*upload)(lk_context *context, void *device, const void *host,
                      int64_t bytes);
  lk_status (*download)(lk_context *context, void *host, const void *device,
                        int64_t bytes);
  lk_status (*copy)(lk_context *context, void *to, const void *from,
                    int64_t bytes);
  lk_status (*zero)(lk_context *context, void *data, int64_t bytes);
  lk_status (*synchronize)(lk_context *context);
  /* All or none: from record_begin to record_end kernels are noted down, not
   * run; replay runs them. Where that cannot be, record_end gives
   * LK_UNSUPPORTED and leaves the context usable. */
  lk_status (*record_begin)(lk_context *context);
  lk_status (*record_end)(lk_context *context, void **recording);
  lk_status (*replay)(lk_context *context, void *recording);
  void (*forget)(lk_context *context, void *recording);
  /* Both or none: device time from start to read, which waits for all that
   * runs. */
  lk_status (*stopwatch_start)(lk_context *context);
  lk_status (*stopwatch_read)(lk_context *context, double *seconds);
  lk_kernel kernels[LK_OP_COUNT];
} lk_backend;

const lk_backend *lk_cpu_backend(void);

/* The profile of "cpu" (this machine's lanes) or "cuda"; NULL if unknown. */
const lk_profile *lk_profile_find(const char *backend);

#endif
