/* The memory plan: lifetimes, sharing in place, and packing into an arena. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

typedef struct lk_life {
  int first, last;   /* -1: never touched */
} lk_life;

typedef struct lk_planner {
  const lk_graph *g;
  lk_plan *plan;
  lk_life *life;     /* by value, for roots (see root_of) */
  lk_value *shared;  /* by value: whose memory it uses, or itself */
  int section_first[LK_SECTION_COUNT], section_last[LK_SECTION_COUNT];
  int *order;        /* instruction numbers in the order of execution */
  int *position;     /* and back */
} lk_planner;

static lk_value base_of(const lk_graph *g, lk_value v) {
  return g->values[v].base ? g->values[v].base : v;
}

static lk_value root_of(lk_planner *p, lk_value v) {
  v = base_of(p->g, v);
  while (p->shared[v] != v) v = p->shared[v];
  return v;
}

/* --- order -----------------------------------------------------------------
 * Instructions run section by section; that is the time axis of the plan. */

static void make_order(lk_planner *p) {
  int n = 0;
  for (int s = 0; s < LK_SECTION_COUNT; s++) {
    p->section_first[s] = n;
    for (int i = 0; i < p->g->instr_count; i++) {
      if ((int)p->g->instrs[i].section != s) continue;
      p->order[n] = i;
      p->position[i] = n++;
    }
    p->section_last[s] = n - 1;
  }
}

/* --- lifetimes ----------------------------------------------------------- */

static void touch(lk_planner *p, lk_value v, int at) {
  if (v == LK_NONE || p->g->values[v].buffer) return;
  lk_life *life = &p->life[root_of(p, v)];
  if (life->first < 0 || at < life->first) life->first = at;
  if (at > life->last) life->last = at;
}

static void find_lives(lk_planner *p) {
  for (int n = 0; n < p->g->instr_count; n++) {
    const lk_instr *i = &p->g->instrs[p->order[n]];
    for (int k = 0; k < LK_MAX_INPUTS; k++) touch(p, i->in[k], n);
    for (int k = 0; k < LK_MAX_RESULTS; k++) touch(p, i->out[k], n);
  }
}

/* The micro-batch section repeats: what enters or leaves it must live
 * through all of it. */
static void stretch_lives(lk_planner *p) {
  int first = p->section_first[LK_MICRO], last = p->section_last[LK_MICRO];
  if (p->g->accumulate <= 1 || last < first) return;
  for (lk_value v = 1; v < p->g->value_count; v++) {
    lk_life *life = &p->life[v];
    if (life->first < 0 || life->last < first || life->first > last) continue;
    if (life->first < first && life->last < last) life->last = last;
    if (life->last > last && life->first > first) life->first = first;
  }
}

/* --- in place ------------------------------------------------------------ */

static int64_t bytes_of(const lk_graph *g, lk_value v) {
  return lk_dtype_bytes(g->values[v].dtype, lk_shape_count(g->values[v].shape));
}

/* How often the memory of `root` is an operand of `i`. */
static int operand_count(lk_planner *p, const lk_instr *i, lk_value root) {
  int count = 0;
  for (int k = 0; k < LK_MAX_INPUTS; k++)
    if (i->in[k] && root_of(p, i->in[k]) == root) count++;
  return count;
}

/* Result `out` may take over the memory of `in` when nobody reads `in` after
 * this instruction and both are whole pieces of the same size. */
static bool can_share(lk_planner *p, const lk_instr *i, int at, lk_value out,
                      lk_value in) {
  const lk_graph *g = p->g;
  if (out == LK_NONE || in == LK_NONE) return false;
  if (g->values[in].buffer || g->values[out].buffer) return false;
  lk_value from = root_of(p, in), to = base_of(g, out);
  if (to != out || p->shared[to] != to || from == to) return false;
  if (p->life[to].first != at || p->life[from].last != at) return false;
  return bytes_of(g, to) == bytes_of(g, from) &&
         bytes_of(g, in) == bytes_of(g, from) &&
         operand_count(p, i, from) == 1;
}

static void share_in_place(lk_planner *p) {
  for (int n = 0; n < p->g->instr_count; n++) {
    const lk_instr *i = &p->g->instrs[p->order[n]];
    const lk_op_info *info = lk_op_info_of(i->op);
    for (int k = 0; k < info->results; k++) {
      int from = info->result[k].alias;
      if (from < 0 || info->result[k].view ||
          !can_share(p, i, n, i->out[k], i->in[from]))
        continue;
      lk_value root = root_of(p, i->in[from]);
      p->shared[i->out[k]] = root;
      p->life[root].last = p->life[i->out[k]].last;
    }
  }
}

/* --- packing ------------------------------------------------------------- */

static int64_t align_up(int64_t bytes, int64_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

static int add_block(lk_plan *plan, lk_block block) {
  plan->blocks[plan->block_count] = block;
  return plan->block_count++;
}

static void collect_blocks(lk_planner *p) {
  const lk_graph *g = p->g;
  lk_plan *plan = p->plan;
  int64_t a = g->profile->alignment;
  for (lk_value v = 1; v < g->value_count; v++) {
    plan->block_of_value[v] = -1;
    if (g->values[v].buffer || root_of(p, v) != v || p->life[v].first < 0)
      continue;
    plan->block_of_value[v] = add_block(plan, (lk_block){
        .bytes = align_up(bytes_of(g, v), a), .first = p->life[v].first,
        .last = p->life[v].last, .category = g->values[v].category,
        .value = v});
  }
  for (lk_value v = 1; v < g->value_count; v++)
    if (!g->values[v].buffer)
      plan->block_of_value[v] = plan->block_of_value[root_of(p, v)];
  for (int n = 0; n < g->instr_count; n++) {
    int64_t bytes = g->instrs[p->order[n]].cost.scratch;
    plan->block_of_scratch[p->order[n]] = bytes == 0 ? -1
        : add_block(plan, (lk_block){.bytes = align_up(bytes, a), .first = n,
                                     .last = n, .category = LK_SCRATCH});
  }
}

static int larger_first(const void *a, const void *b) {
  const lk_block *x = *(lk_block *const *)a, *y = *(lk_block *const *)b;
  if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
  if (x->first != y->first) return x->first < y->first ? -1 : 1;
  return x < y ? -1 : x > y;
}

static int earlier_first(const void *a, const void *b) {
  const lk_block *x = *(lk_block *const *)a, *y = *(lk_block *const *)b;
  if (x->first != y->first) return x->first < y->first ? -1 : 1;
  if (x->last != y->last) return x->last > y->last ? -1 : 1;
  return larger_first(a, b);
}

/* Insert into `placed`, kept sorted by offset; the lowest gap among those that
 * live at the same time takes the block. */
static void place(lk_block **placed, int count, lk_block *b) {
  int64_t offset = 0;
  for (int i = 0; i < count; i++) {
    const lk_block *q = placed[i];
    if (q->last < b->first || q->first > b->last) continue;
    if (offset + b->bytes <= q->offset) break;
    if (q->offset + q->bytes > offset) offset = q->offset + q->bytes;
  }
  b->offset = offset;
  int at = count;
  while (at > 0 && placed[at - 1]->offset > offset) {
    placed[at] = placed[at - 1];
    at--;
  }
  placed[at] = b;
}

/* Greedy packing in the given order; the arena's size. */
static int64_t pack(lk_plan *plan, lk_block **order, lk_block **placed,
                    int (*compare)(const void *, const void *)) {
  int64_t top = 0;
  for (int i = 0; i < plan->block_count; i++) order[i] = &plan->blocks[i];
  qsort(order, (size_t)plan->block_count, sizeof *order, compare);
  for (int i = 0; i < plan->block_count; i++) {
    place(placed, i, order[i]);
    int64_t end = order[i]->offset + order[i]->bytes;
    if (end > top) top = end;
  }
  return top;
}

/* The better of two orders: largest first, or first come first. */
static bool pack_best(lk_plan *plan) {
  size_t n = (size_t)plan->block_count + 1;
  lk_block **order = malloc(2 * n * sizeof *order);
  if (order == NULL) return false;
  int64_t by_size = pack(plan, order, order + n, larger_first);
  int64_t by_time = pack(plan, order, order + n, earlier_first);
  if (by_size <= by_time) by_time = pack(plan, order, order + n, larger_first);
  plan->arena = by_time;
  free(order);
  return true;
}

/* --- the peak ------------------------------------------------------------ */

void lk_plan_timeline(const lk_plan *plan,
                      int64_t (*live)[LK_CATEGORY_COUNT]) {
  memset(live, 0, (size_t)plan->instr_count * sizeof *live);
  for (int i = 0; i < plan->block_count; i++) {
    const lk_block *b = &plan->blocks[i];
    for (int n = b->first; n <= b->last; n++) live[n][b->category] += b->bytes;
  }
}

static bool find_peak(lk_plan *plan) {
  size_t n = (size_t)plan->instr_count + 1;
  int64_t(*live)[LK_CATEGORY_COUNT] = malloc(n * sizeof *live);
  if (live == NULL) return false;
  lk_plan_timeline(plan, live);
  plan->live_peak = -1;
  for (int i = 0; i < plan->instr_count; i++) {
    int64_t sum = 0;
    for (int c = 0; c < LK_CATEGORY_COUNT; c++) sum += live[i][c];
    if (sum <= plan->live_peak) continue;
    plan->live_peak = sum;
    plan->peak_instr = i;
    memcpy(plan->at_peak, live[i], sizeof plan->at_peak);
  }
  if (plan->live_peak < 0) plan->live_peak = 0;
  free(live);
  return true;
}

/* --- all of it ----------------------------------------------------------- */

static bool planner_open(lk_planner *p, const lk_graph *g, lk_plan *plan) {
  size_t values = (size_t)g->value_count + 1;
  size_t instrs = (size_t)g->instr_count + 1;
  *p = (lk_planner){.g = g, .plan = plan};
  memset(plan, 0, sizeof *plan);
  plan->instr_count = g->instr_count;
  plan->blocks = calloc(values + instrs, sizeof *plan->blocks);
  plan->block_of_value = malloc(values * sizeof *plan->block_of_value);
  plan->block_of_scratch = malloc(instrs * sizeof *plan->block_of_scratch);
  p->life = malloc(values * sizeof *p->life);
  p->shared = malloc(values * sizeof *p->shared);
  p->order = malloc(instrs * sizeof *p->order);
  p->position = malloc(instrs * sizeof *p->position);
  if (!plan->blocks || !plan->block_of_value || !plan->block_of_scratch ||
      !p->life || !p->shared || !p->order || !p->position)
    return false;
  for (size_t v = 0; v < values; v++) {
    p->life[v] = (lk_life){-1, -1};
    p->shared[v] = (lk_value)v;
    plan->block_of_value[v] = -1;
  }
  return true;
}

static void planner_close(lk_planner *p) {
  free(p->life);
  free(p->shared);
  free(p->order);
  free(p->position);
}

void lk_plan_free(lk_plan *plan) {
  free(plan->blocks);
  free(plan->block_of_value);
  free(plan->block_of_scratch);
  memset(plan, 0, sizeof *plan);
}

lk_status lk_plan_make(const lk_graph *g, lk_plan *plan, lk_error *error) {
  lk_planner p;
  bool ok = planner_open(&p, g, plan);
  if (ok) {
    make_order(&p);
    find_lives(&p);
    stretch_lives(&p);
    share_in_place(&p);
    collect_blocks(&p);
    ok = pack_best(plan) && find_peak(plan);
  }
  planner_close(&p);
  if (ok) return LK_OK;
  lk_plan_free(plan);
  return lk_fail(error, LK_OOM, "no host memory for the memory plan");
}
