/* A context: one device, its accountant, its last message, its tracer. No
 * state is global; a context is used by one thread at a time. */
#ifndef LK_CORE_CONTEXT_H
#define LK_CORE_CONTEXT_H

#include "backend.h"

/* Told of every operator that ran, when set: for profiles and debugging. */
typedef struct lk_tracer {
  void (*before)(void *state, const lk_call *call);
  void (*after)(void *state, const lk_call *call);
  void *state;
} lk_tracer;

/* Where choices that a backend makes by measuring are kept: text by text. With
 * find NULL none are made: the libraries' own choices hold. A choice, once
 * noted, never changes. */
typedef struct lk_tuner {
  /* The choice for `key` into `choice`; false when none is known. */
  bool (*find)(void *state, const char *key, char *choice, size_t size);
  void (*note)(void *state, const char *key, const char *choice);
  void *state;
} lk_tuner;

struct lk_context {
  const lk_backend *backend;
  const lk_profile *profile;
  int device;
  void *state;            /* the backend's own */
  lk_memory *memory;
  lk_error error;         /* of the call that failed last */
  lk_tracer tracer;
  lk_tuner tuner;
  bool broken;            /* a device error: nothing works any more */
  bool tf32;              /* products of f32 may round what they multiply to
                             tf32's 10 bits; false but while a program runs
                             that says so */
  /* Whether somebody wants work broken off: asked before every call; NULL:
   * nobody ever does. */
  bool (*interrupted)(void);
};

/* Open device `index` of a backend. */
lk_status lk_context_open(const lk_backend *backend, int index,
                          lk_context **context, lk_error *error);
void lk_context_close(lk_context *context);

/* Make a backend known (the CPU's is; CUDA's comes from a plugin), and find
 * one by name; NULL when there is none. */
void lk_backend_register(const lk_backend *backend);
const lk_backend *lk_backend_find(const char *name);
/* The n-th known backend, from 0; NULL past the last. */
const lk_backend *lk_backend_at(int n);

/* Threads that the CPU backend uses: LLMHOST_THREADS, else the processors
 * online; read once. */
int lk_threads(void);

/* A call of `op` with every tensor absent and every attribute zero. */
lk_call lk_call_new(lk_op op);

/* What an operator's entry in ops.def says, taken apart. */
typedef struct lk_role {
  char name[16];
  bool optional;    /* ? */
  bool updated;     /* ! & : read and written */
  bool shared;      /* & : by calls side by side, too */
  bool accumulated; /* + : added to when attr.accumulate */
  bool view;        /* @ : always the memory of input `alias` */
  int alias;        /* input whose memory may be shared, or -1 */
} lk_role;

typedef struct lk_op_info {
  const char *name, *attributes;
  int results, inputs;
  lk_role result[LK_MAX_RESULTS], input[LK_MAX_INPUTS];
} lk_op_info;

const lk_op_info *lk_op_info_of(lk_op op);
/* The operator called `name`, or LK_OP_COUNT. */
lk_op lk_op_find(const char *name);

/* The work of one call. */
typedef struct lk_cost {
  double flops;            /* 2 a multiply-add; 0 for pure data movement */
  double bytes;            /* least traffic: each tensor read or written once */
  int64_t scratch;         /* bytes, on the given profile */
} lk_cost;

/* Check a call against its operator's rule: infer every result that is not
 * preset (rank -1 on entry), check those that are, and count the work. Data
 * pointers are not looked at. On failure the message names the operator, the
 * tensor and the shapes. */
lk_status lk_rule(const lk_profile *profile, lk_call *call, lk_cost *cost,
                  lk_error *error);

/* LK_INTERRUPTED when work is to be broken off; what was being written is then
 * left half done. */
lk_status lk_context_interrupted(lk_context *context);

/* Run a call that passed its rule: tensors and scratch have memory. */
lk_status lk_run(lk_context *context, const lk_call *call);

/* Everything for one eager call: rule, memory for results (LK_DATA) and
 * scratch, run. Results that were given with data are used as they are; the
 * storages of fresh ones are returned in `storage` (NULL for others). */
lk_status lk_dispatch(lk_context *context, lk_call *call,
                      lk_storage *storage[LK_MAX_RESULTS]);

#endif
