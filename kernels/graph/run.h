/* Running planned graphs: persistent and transient memory, and calls with
 * addresses. */
#ifndef LK_GRAPH_RUN_H
#define LK_GRAPH_RUN_H

#include "plan.h"
#include "record.h"
#include "store.h"

/* How hard a run looks at itself. */
typedef enum lk_run_mode {
  LK_RUN_ARENA,     /* all transient values in one arena */
  LK_RUN_POISONED,  /* the same; memory is filled with NaN as its value dies */
  LK_RUN_SEPARATE   /* every value an allocation of its own, freed at its last
                       use: for the address sanitizer and the accountant */
} lk_run_mode;

/* One graph made executable. */
typedef struct lk_code {
  const lk_graph *graph;
  const lk_plan *plan;
  lk_call *calls;                /* in the order of execution */
  int *instr;                    /* by call: the graph's instruction */
  int first[LK_SECTION_COUNT], end[LK_SECTION_COUNT];
  lk_recording recording[LK_SECTION_COUNT];
  double *seconds;               /* by call, gathered while profiling */
  int64_t *runs;
} lk_code;

/* Bytes of everything a machine allocates, before it does. */
typedef struct lk_needs {
  int64_t persistent[LK_CATEGORY_COUNT];
  int64_t transient[LK_CATEGORY_COUNT];  /* composition of the arena */
  int64_t arena, peak;
} lk_needs;

typedef struct lk_machine {
  lk_context *context;
  lk_store *store;
  lk_run_mode mode;
  bool profiling;
  bool tf32;                     /* the context's, while this machine runs */
  lk_needs needs;
  char *persistent[LK_CATEGORY_COUNT];
  const struct lk_machine *owner;/* whose parameters these are; NULL: own */
  char *arena;
  void **separate;               /* by block, in LK_RUN_SEPARATE */
  int separate_count;
  const lk_plan *separate_plan;  /* whose blocks those are */
  lk_code code[2];               /* training and evaluation share the arena */
  int codes;
} lk_machine;

/* What running `count` planned graphs over `store` will allocate; gives every
 * buffer of the store its offset. */
void lk_needs_count(lk_store *store, const lk_profile *profile,
                    const lk_plan *const *plans, int count, lk_needs *needs);

/* Allocate (persistent memory is zeroed) and resolve all addresses. On failure
 * nothing stays allocated. */
lk_status lk_machine_open(lk_machine *machine, lk_context *context,
                          lk_store *store, const lk_graph *const *graphs,
                          const lk_plan *const *plans, int count,
                          lk_run_mode mode);
/* The same over the parameters' memory of `owner`, which must outlive this
 * machine and whose store lists the same parameters first to last. */
lk_status lk_machine_open_beside(lk_machine *machine, const lk_machine *owner,
                                 lk_store *store,
                                 const lk_graph *const *graphs,
                                 const lk_plan *const *plans, int count);
void lk_machine_close(lk_machine *machine);

/* Run one section of code `which`; leaves the context's tf32 false. */
lk_status lk_machine_run(lk_machine *machine, int which, lk_section section);

/* The memory of a buffer of the store. */
void *lk_machine_buffer(const lk_machine *machine, int buffer);
lk_tensor lk_machine_tensor(const lk_machine *machine, int buffer);
lk_status lk_machine_upload(lk_machine *machine, int buffer, const void *data,
                            int64_t bytes);
lk_status lk_machine_download(lk_machine *machine, int buffer, void *data,
                              int64_t bytes);
/* Two small buffers at once, `b` added to the store right after `a` and of its
 * category: one wait for the device. */
lk_status lk_machine_download_two(lk_machine *machine, int a, void *data_a,
                                  int b, void *data_b);

/* Fill a parameter's buffers with its initial values, drawn from the seed in
 * buffer `clock`; `search`: the scales of quantized ones. */
lk_status lk_parameter_initialize(lk_machine *machine,
                                  const lk_parameter *parameter, int clock,
                                  bool search);
/* Streams of random numbers that a parameter draws from. */
int64_t lk_stream_initial(const lk_parameter *parameter);
int64_t lk_stream_encode(const lk_parameter *parameter);

#endif
