/* Running planned graphs: persistent and transient memory, and calls with
 * addresses. */
#include "run.h"

#include "beside.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- counting ------------------------------------------------------------ */

static int64_t align_up(int64_t bytes, int64_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

static int64_t buffer_bytes(const lk_buffer *b) {
  return lk_dtype_bytes(b->dtype, lk_shape_count(b->shape));
}

static void count_persistent(lk_store *s, int64_t alignment, lk_needs *n) {
  for (int i = 1; i < s->buffer_count; i++) {
    lk_buffer *b = &s->buffers[i];
    b->offset = n->persistent[b->category];
    n->persistent[b->category] += align_up(buffer_bytes(b), alignment);
  }
}

void lk_needs_count(lk_store *store, const lk_profile *profile,
                    const lk_plan *const *plans, int count, lk_needs *needs) {
  memset(needs, 0, sizeof *needs);
  count_persistent(store, profile->alignment, needs);
  for (int i = 0; i < count; i++) {
    const lk_plan *p = plans[i];
    if (p->arena < needs->arena || p->arena == 0) continue;
    needs->arena = p->arena;
    memcpy(needs->transient, p->at_peak, sizeof needs->transient);
    needs->transient[LK_SCRATCH] += p->arena - p->live_peak;
  }
  needs->peak = needs->arena;
  for (int c = 0; c < LK_CATEGORY_COUNT; c++)
    needs->peak += needs->persistent[c];
}

/* --- addresses ----------------------------------------------------------- */

void *lk_machine_buffer(const lk_machine *m, int buffer) {
  const lk_buffer *b = &m->store->buffers[buffer];
  return m->persistent[b->category] + b->offset;
}

lk_tensor lk_machine_tensor(const lk_machine *m, int buffer) {
  const lk_buffer *b = &m->store->buffers[buffer];
  return (lk_tensor){.data = lk_machine_buffer(m, buffer), .dtype = b->dtype,
                     .shape = b->shape};
}

static void *block_address(const lk_machine *m, const lk_plan *plan,
                           int block) {
  if (block < 0) return NULL;
  return m->mode == LK_RUN_SEPARATE ? m->separate[block]
                                    : m->arena + plan->blocks[block].offset;
}

static lk_tensor resolve(const lk_machine *m, const lk_code *c, lk_value v) {
  if (v == LK_NONE) return LK_ABSENT;
  const lk_value_info *info = &c->graph->values[v];
  char *data = info->buffer
      ? lk_machine_buffer(m, info->buffer)
      : block_address(m, c->plan, c->plan->block_of_value[v]);
  return (lk_tensor){.data = data ? data + info->offset : NULL,
                     .dtype = info->dtype, .shape = info->shape};
}

static void resolve_call(const lk_machine *m, const lk_code *c, int n) {
  const lk_instr *i = &c->graph->instrs[c->instr[n]];
  lk_call *call = &c->calls[n];
  *call = (lk_call){.op = i->op, .attr = i->attr};
  for (int k = 0; k < LK_MAX_INPUTS; k++) call->in[k] = resolve(m, c, i->in[k]);
  for (int k = 0; k < LK_MAX_RESULTS; k++)
    call->out[k] = resolve(m, c, i->out[k]);
  call->scratch =
      block_address(m, c->plan, c->plan->block_of_scratch[c->instr[n]]);
}

/* All calls of a code, as they are recorded or run one by one. */
static void resolve_code(const lk_machine *m, const lk_code *c) {
  for (int n = 0; n < c->graph->instr_count; n++) resolve_call(m, c, n);
  for (int s = 0; s < LK_SECTION_COUNT; s++)
    lk_beside_mark(m->context->profile, c->calls + c->first[s],
                   c->end[s] - c->first[s]);
}

/* --- opening ------------------------------------------------------------- */

static bool code_open(lk_code *c, const lk_graph *g, const lk_plan *plan) {
  size_t n = (size_t)g->instr_count + 1;
  *c = (lk_code){.graph = g, .plan = plan};
  c->calls = calloc(n, sizeof *c->calls);
  c->instr = calloc(n, sizeof *c->instr);
  c->seconds = calloc(n, sizeof *c->seconds);
  c->runs = calloc(n, sizeof *c->runs);
  if (!c->calls || !c->instr || !c->seconds || !c->runs) return false;
  int at = 0;
  for (int s = 0; s < LK_SECTION_COUNT; s++) {
    c->first[s] = at;
    for (int i = 0; i < g->instr_count; i++)
      if ((int)g->instrs[i].section == s) c->instr[at++] = i;
    c->end[s] = at;
  }
  return true;
}

static void code_close(lk_context *context, lk_code *c) {
  for (int s = 0; s < LK_SECTION_COUNT; s++)
    lk_record_forget(context, &c->recording[s]);
  free(c->calls);
  free(c->instr);
  free(c->seconds);
  free(c->runs);
}

/* Whether memory of category `c` belongs to another machine. */
static bool is_borrowed(const lk_machine *m, int c) {
  return m->owner != NULL && c == LK_PARAMETERS;
}

static lk_status allocate_persistent(lk_machine *m) {
  for (int c = 0; c < LK_CATEGORY_COUNT; c++) {
    int64_t split[LK_CATEGORY_COUNT] = {0};
    if (is_borrowed(m, c)) m->persistent[c] = m->owner->persistent[c];
    split[c] = m->needs.persistent[c];
    if (split[c] == 0 || is_borrowed(m, c)) continue;
    void *data;
    LK_TRY(lk_memory_allocate(m->context->memory, split, &data,
                              &m->context->error));
    m->persistent[c] = data;
    LK_TRY(m->context->backend->zero(m->context, data, split[c]));
  }
  return LK_OK;
}

static lk_status allocate_arena(lk_machine *m) {
  if (m->mode == LK_RUN_SEPARATE || m->needs.arena == 0) return LK_OK;
  void *data;
  LK_TRY(lk_memory_allocate(m->context->memory, m->needs.transient, &data,
                            &m->context->error));
  m->arena = data;
  return LK_OK;
}

static lk_status open_codes(lk_machine *m, const lk_graph *const *graphs,
                            const lk_plan *const *plans, int count) {
  int blocks = 0;
  for (int i = 0; i < count; i++) {
    m->codes++;
    if (!code_open(&m->code[i], graphs[i], plans[i]))
      return lk_fail(&m->context->error, LK_OOM,
                     "no host memory for a program");
    if (plans[i]->block_count > blocks) blocks = plans[i]->block_count;
  }
  m->separate_count = blocks;
  m->separate = calloc((size_t)blocks + 1, sizeof *m->separate);
  if (m->separate == NULL)
    return lk_fail(&m->context->error, LK_OOM, "no host memory for a program");
  return LK_OK;
}

/* Allocate and resolve for a machine whose first fields are set. */
static lk_status open_machine(lk_machine *m, const lk_graph *const *graphs,
                              const lk_plan *const *plans, int count) {
  lk_needs_count(m->store, m->context->profile, plans, count, &m->needs);
  lk_status status = open_codes(m, graphs, plans, count);
  if (status == LK_OK) status = allocate_persistent(m);
  if (status == LK_OK) status = allocate_arena(m);
  if (status != LK_OK) {
    lk_machine_close(m);
    return status;
  }
  for (int i = 0; i < count && m->mode != LK_RUN_SEPARATE; i++)
    resolve_code(m, &m->code[i]);
  return LK_OK;
}

lk_status lk_machine_open(lk_machine *m, lk_context *context, lk_store *store,
                          const lk_graph *const *graphs,
                          const lk_plan *const *plans, int count,
                          lk_run_mode mode) {
  if (mode == LK_RUN_POISONED && strcmp(context->backend->name, "cpu") != 0)
    return lk_fail(&context->error, LK_UNSUPPORTED,
                   "poisoned runs are for the cpu");
  *m = (lk_machine){.context = context, .store = store, .mode = mode};
  return open_machine(m, graphs, plans, count);
}

lk_status lk_machine_open_beside(lk_machine *m, const lk_machine *owner,
                                 lk_store *store,
                                 const lk_graph *const *graphs,
                                 const lk_plan *const *plans, int count) {
  *m = (lk_machine){.context = owner->context, .store = store,
                    .mode = owner->mode, .tf32 = owner->tf32,
                    .owner = owner};
  return open_machine(m, graphs, plans, count);
}

static void release_separate(lk_machine *m, const lk_plan *plan, int block) {
  int64_t split[LK_CATEGORY_COUNT] = {0};
  split[plan->blocks[block].category] = plan->blocks[block].bytes;
  lk_memory_release(m->context->memory, split, m->separate[block]);
  m->separate[block] = NULL;
}

void lk_machine_close(lk_machine *m) {
  if (m->context == NULL) return;
  for (int c = 0; c < LK_CATEGORY_COUNT; c++) {
    int64_t split[LK_CATEGORY_COUNT] = {0};
    split[c] = m->needs.persistent[c];
    if (m->persistent[c] && !is_borrowed(m, c))
      lk_memory_release(m->context->memory, split, m->persistent[c]);
  }
  if (m->arena)
    lk_memory_release(m->context->memory, m->needs.transient, m->arena);
  for (int b = 0; m->separate && b < m->separate_count; b++)
    if (m->separate[b]) release_separate(m, m->separate_plan, b);
  for (int i = 0; i < m->codes; i++) code_close(m->context, &m->code[i]);
  free(m->separate);
  memset(m, 0, sizeof *m);
}

/* --- running ------------------------------------------------------------- */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Give the blocks whose life begins at call `n` memory of their own. */
static lk_status begin_lives(lk_machine *m, const lk_code *c, int n) {
  m->separate_plan = c->plan;
  for (int b = 0; b < c->plan->block_count; b++) {
    const lk_block *block = &c->plan->blocks[b];
    if (block->first != n || m->separate[b]) continue;
    int64_t split[LK_CATEGORY_COUNT] = {0};
    split[block->category] = block->bytes;
    LK_TRY(lk_memory_allocate(m->context->memory, split, &m->separate[b],
                              &m->context->error));
  }
  return LK_OK;
}

static lk_status end_lives(lk_machine *m, const lk_code *c, int n) {
  for (int b = 0; b < c->plan->block_count; b++) {
    const lk_block *block = &c->plan->blocks[b];
    if (block->last != n) continue;
    if (m->mode == LK_RUN_SEPARATE)
      release_separate(m, c->plan, b);
    else
      memset(m->arena + block->offset, 0xFF, (size_t)block->bytes);
  }
  return LK_OK;
}

/* One call, timed: by the device where it has a stopwatch. */
static lk_status run_timed(lk_context *x, const lk_call *call,
                           double *seconds) {
  if (x->backend->stopwatch_start != NULL) {
    LK_TRY(x->backend->stopwatch_start(x));
    LK_TRY(lk_run(x, call));
    return x->backend->stopwatch_read(x, seconds);
  }
  LK_TRY(x->backend->synchronize(x));
  double start = now();
  LK_TRY(lk_run(x, call));
  LK_TRY(x->backend->synchronize(x));
  *seconds = now() - start;
  return LK_OK;
}

/* Whether somebody looks at single calls, which then run by themselves. */
static bool is_watched(const lk_machine *m) {
  const lk_tracer *t = &m->context->tracer;
  return m->profiling || t->before != NULL || t->after != NULL;
}

static lk_status run_profiled(lk_machine *m, lk_code *c, int n,
                              const lk_call *call) {
  double seconds;
  LK_TRY(run_timed(m->context, call, &seconds));
  c->seconds[n] += seconds;
  c->runs[n]++;
  return LK_OK;
}

static lk_status run_one(lk_machine *m, lk_code *c, int n) {
  if (m->mode == LK_RUN_SEPARATE) {
    LK_TRY(begin_lives(m, c, n));
    resolve_call(m, c, n);
  }
  lk_call call = c->calls[n];
  if (is_watched(m)) call.beside = false;
  LK_TRY(m->profiling ? run_profiled(m, c, n, &call)
                      : lk_run(m->context, &call));
  return m->mode == LK_RUN_ARENA ? LK_OK : end_lives(m, c, n);
}

typedef struct section_run {
  lk_machine *machine;
  lk_code *code;
  lk_section section;
} section_run;

/* All calls of a section, one by one. */
static lk_status run_section(void *state) {
  const section_run *r = state;
  lk_code *c = r->code;
  for (int n = c->first[r->section]; n < c->end[r->section]; n++)
    LK_TRY(run_one(r->machine, c, n));
  return LK_OK;
}

/* Recorded where nobody looks at single calls. */
static lk_status run_recorded(lk_machine *m, int which, lk_section section) {
  lk_code *c = &m->code[which];
  section_run r = {m, c, section};
  if (m->mode != LK_RUN_ARENA || is_watched(m)) return run_section(&r);
  LK_TRY(lk_context_interrupted(m->context)); /* a replay asks nobody */
  return lk_record_run(m->context, &c->recording[section], run_section, &r);
}

lk_status lk_machine_run(lk_machine *m, int which, lk_section section) {
  m->context->tf32 = m->tf32;
  lk_status status = run_recorded(m, which, section);
  m->context->tf32 = false;
  return status;
}

lk_status lk_machine_upload(lk_machine *m, int buffer, const void *data,
                            int64_t bytes) {
  return m->context->backend->upload(m->context, lk_machine_buffer(m, buffer),
                                     data, bytes);
}

lk_status lk_machine_download(lk_machine *m, int buffer, void *data,
                              int64_t bytes) {
  return m->context->backend->download(m->context, data,
                                       lk_machine_buffer(m, buffer), bytes);
}

lk_status lk_machine_download_two(lk_machine *m, int a, void *data_a, int b,
                                  void *data_b) {
  char both[1024]; /* buffers begin at the profile's alignment */
  const lk_buffer *first = &m->store->buffers[a];
  const lk_buffer *second = &m->store->buffers[b];
  int64_t at = second->offset - first->offset;
  int64_t bytes = at + buffer_bytes(second);
  if (b != a + 1 || first->category != second->category ||
      bytes > (int64_t)sizeof both)
    return lk_fail(&m->context->error, LK_ARGUMENT, "%s and %s do not lie side "
                   "by side", first->name, second->name);
  LK_TRY(lk_machine_download(m, a, both, bytes));
  memcpy(data_a, both, (size_t)buffer_bytes(first));
  memcpy(data_b, both + at, (size_t)buffer_bytes(second));
  return LK_OK;
}
