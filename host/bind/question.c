/* What a gpu.program answers: memory, counts, work, listing, profile. */
#include <stdlib.h>
#include <string.h>

#include "../../kernels/graph/peaks.h"
#include "program.h"

static void set_number(lua_State *L, const char *key, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, key);
}

static void set_integer(lua_State *L, const char *key, int64_t value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, key);
}

/* --- memory -------------------------------------------------------------- */

static void push_categories(lua_State *L, const int64_t *bytes) {
  lua_createtable(L, 0, LK_CATEGORY_COUNT);
  for (int c = 0; c < LK_CATEGORY_COUNT; c++)
    set_integer(L, lk_category_word((lk_category)c), bytes[c]);
}

/* An array with one entry an instruction: {op, section, live =}. */
static void push_timeline(lua_State *L, const lk_program *p) {
  bool training = lk_program_graph(p, true)->training;
  const lk_graph *g = lk_program_graph(p, training);
  const lk_plan *plan = lk_program_plan(p, training);
  size_t n = (size_t)plan->instr_count + 1;
  int64_t(*live)[LK_CATEGORY_COUNT] = lua_newuserdatauv(L, n * sizeof *live, 0);
  lk_plan_timeline(plan, live);
  lua_createtable(L, plan->instr_count, 0);
  for (int i = 0, at = 0; i < LK_SECTION_COUNT; i++) {
    for (int k = 0; k < g->instr_count; k++) {
      if ((int)g->instrs[k].section != i) continue;
      push_categories(L, live[at++]);
      lua_pushstring(L, lk_op_info_of(g->instrs[k].op)->name);
      lua_setfield(L, -2, "op");
      lua_pushboolean(L, g->instrs[k].backward);
      lua_setfield(L, -2, "backward");
      lua_rawseti(L, -2, at);
    }
  }
  lua_remove(L, -2);
}

static void push_memory(lua_State *L, const lk_program *p, bool timeline) {
  lk_program_memory m;
  lk_program_memory_of(p, &m);
  lua_createtable(L, 0, 8);
  set_integer(L, "peak", m.peak);
  set_integer(L, "live_peak", m.live_peak);
  set_integer(L, "arena", m.arena);
  set_number(L, "state_per_parameter", m.state_per_weight);
  push_categories(L, m.category);
  lua_setfield(L, -2, "by_category");
  lua_pushboolean(L, lk_program_fused(p));
  lua_setfield(L, -2, "fused");
  if (!timeline) return;
  push_timeline(L, p);
  lua_setfield(L, -2, "timeline");
}

/* A program that the collector frees. */
typedef struct program_box {
  lk_program *program;
} program_box;
static void box_close(void *object) {
  lk_program_free(((program_box *)object)->program);
}
static const lh_class box_class = {"gpu.program.box", NULL, box_close};

/* p:memory(batch?, accumulate?): the timeline comes with the program's own
 * batch only. */
static int program_memory(lua_State *L) {
  lh_program *p = lh_program_self(L, 1);
  const lk_program_options *o = lk_program_options_of(p->program);
  if (lua_isnoneornil(L, 2)) {
    push_memory(L, p->program, true);
    return 1;
  }
  int64_t batch = lh_check_integer(L, 2, "batch", 1, 1 << 24);
  int64_t accumulate = lua_isnoneornil(L, 3) ? o->accumulate
      : lh_check_integer(L, 3, "accumulate", 1, 1 << 20);
  lk_error error = {0};
  lh_class_new(L, &box_class);
  program_box *box = lh_object_new(L, &box_class, sizeof *box);
  *lh_compiling(L) = L;
  lk_status status = lk_program_rebatch(p->program, batch, accumulate,
                                        &box->program, &error);
  *lh_compiling(L) = NULL;
  if (status != LK_OK) lh_raise_build(L, &error);
  push_memory(L, box->program, false);
  return 1;
}

/* --- counts and work ----------------------------------------------------- */

static void push_names(lua_State *L, const lk_program *p, int kind) {
  const lk_store *s = lk_program_store(p);
  int n = 0;
  lua_newtable(L);
  for (int i = 1; i < s->parameter_count; i++) {
    const lk_parameter *w = &s->parameters[i];
    bool take = kind < 0 ? w->format->quantized
                         : w->group && (int)w->group->kind == kind;
    if (!take) continue;
    lua_pushstring(L, w->name);
    lua_rawseti(L, -2, ++n);
  }
}

static int program_count(lua_State *L) {
  const lk_program *p = lh_program_check(L, 1);
  lk_program_count c;
  lk_program_count_of(p, &c);
  lua_createtable(L, 0, 8);
  set_integer(L, "parameters", c.parameters);
  set_integer(L, "quantized", c.quantized);
  set_integer(L, "quantizable", c.quantizable);
  set_integer(L, "muon", c.muon);
  set_integer(L, "adamw", c.adamw);
  set_integer(L, "sgd", c.sgd);
  push_names(L, p, -1);
  lua_setfield(L, -2, "quantized_names");
  push_names(L, p, LK_MUON);
  lua_setfield(L, -2, "muon_names");
  push_names(L, p, LK_ADAMW);
  lua_setfield(L, -2, "adamw_names");
  return 1;
}

static int program_flops(lua_State *L) {
  lk_program_work w;
  lk_program_work_of(lh_program_check(L, 1), &w);
  lua_createtable(L, 0, 3);
  set_number(L, "micro", w.micro_flops);
  set_number(L, "update", w.update_flops);
  set_number(L, "model", w.model_flops);
  return 1;
}

static int program_bytes(lua_State *L) {
  lk_program_work w;
  lk_program_work_of(lh_program_check(L, 1), &w);
  lua_createtable(L, 0, 2);
  set_number(L, "micro", w.micro_bytes);
  set_number(L, "update", w.update_bytes);
  return 1;
}

static int program_listing(lua_State *L) {
  const lk_program *p = lh_program_check(L, 1);
  bool training = lk_program_graph(p, true)->training &&
                  strcmp(luaL_optstring(L, 2, "training"), "evaluation") != 0;
  lk_error error = {0};
  void **text = lh_box_new(L);
  lh_check(L, lk_program_listing(p, training, (char **)text, &error), &error);
  lua_pushstring(L, *text);
  return 1;
}

/* --- profile ------------------------------------------------------------- */

/* The least time of a call at the device's peaks. */
static double light(const lk_instr *i, const lk_peaks *peaks) {
  bool e4m3 = i->op == LK_OP_e4m3_matmul;
  double compute = i->cost.flops / (e4m3 ? peaks->e4m3 : peaks->flops);
  double memory = i->cost.bytes / peaks->bandwidth;
  return compute > memory ? compute : memory;
}

static void push_profile_row(lua_State *L, const lk_instr *i, double seconds,
                             double runs, const lk_peaks *peaks) {
  double t = runs > 0 ? seconds / runs : 0;
  lua_createtable(L, 0, 10);
  lua_pushstring(L, lk_op_info_of(i->op)->name);
  lua_setfield(L, -2, "op");
  lua_pushstring(L, i->recomputed ? "again" : i->backward ? "backward"
                                                          : "forward");
  lua_setfield(L, -2, "pass");
  set_number(L, "seconds", t);
  set_number(L, "runs", runs);
  set_number(L, "flops", i->cost.flops);
  set_number(L, "bytes", i->cost.bytes);
  set_number(L, "flops_per_second", t > 0 ? i->cost.flops / t : 0);
  set_number(L, "bytes_per_second", t > 0 ? i->cost.bytes / t : 0);
  set_number(L, "speed_of_light", t > 0 ? light(i, peaks) / t : 0);
}

/* Run `steps` optimizer steps on fixed ids, every call timed, then reset. */
static lk_status run_profiled(lh_program *p, int64_t steps) {
  const lk_program_options *o = lk_program_options_of(p->program);
  lk_machine *m = lk_program_machine(p->program);
  lk_step_result r;
  lh_program_rehearse(p);
  for (int64_t s = 0; s <= steps; s++) {  /* the first one warms up */
    m->profiling = s > 0;
    LK_TRY(lk_program_begin(p->program, s));
    for (int64_t i = 0; i < o->accumulate; i++)
      LK_TRY(lk_program_micro(p->program, p->ids, p->targets));
    LK_TRY(lk_program_finish(p->program, &r));
  }
  m->profiling = false;
  return lk_program_reset(p->program);
}

static void clear_times(lk_code *c) {
  memset(c->seconds, 0, (size_t)c->graph->instr_count * sizeof *c->seconds);
  memset(c->runs, 0, (size_t)c->graph->instr_count * sizeof *c->runs);
}

/* Rows in order of execution, and the sums over an optimizer step. */
static void push_profile(lua_State *L, const lk_code *c, int64_t steps,
                         const lk_peaks *peaks) {
  double seconds = 0, least = 0;
  lua_createtable(L, c->graph->instr_count, 4);
  for (int n = 0, row = 0; n < c->graph->instr_count; n++) {
    const lk_instr *i = &c->graph->instrs[c->instr[n]];
    if (c->runs[n] == 0) continue;
    seconds += c->seconds[n] / (double)steps;
    least += light(i, peaks) * (double)c->runs[n] / (double)steps;
    push_profile_row(L, i, c->seconds[n], (double)c->runs[n], peaks);
    lua_rawseti(L, -2, ++row);
  }
  set_number(L, "seconds", seconds);
  set_number(L, "speed_of_light", seconds > 0 ? least / seconds : 0);
  set_number(L, "peak_flops", peaks->flops);
  set_number(L, "peak_bandwidth", peaks->bandwidth);
}

/* What the device attains in the program's arithmetic. */
static lk_status measure_peaks(lh_program *p, lk_peaks *peaks) {
  const lk_program_options *o = lk_program_options_of(p->program);
  p->context->tf32 = o->tf32;
  lk_status status = lk_peaks_measure(p->context, o->weights.compute, peaks);
  p->context->tf32 = false;
  return status;
}

static int program_profile(lua_State *L) {
  lh_program *p = lh_program_opened(L, 1);
  int64_t steps = 5;
  if (lua_istable(L, 2) && lua_getfield(L, 2, "steps") != LUA_TNIL)
    steps = lh_check_integer(L, -1, "steps", 1, 10000);
  lk_peaks peaks;
  lh_check(L, measure_peaks(p, &peaks), &p->context->error);
  lk_code *c = &lk_program_machine(p->program)->code[0];
  clear_times(c);
  lh_check(L, run_profiled(p, steps), &p->context->error);
  push_profile(L, c, steps, &peaks);
  return 1;
}

const lh_function lh_program_questions[] = {
    {"memory", program_memory,
     "(self, batch?: integer, accumulate?: integer): table",
     "Exact bytes before anything is allocated: {peak, by_category, "
     "state_per_parameter, fused, timeline}.", NULL},
    {"count", program_count, "(self): table",
     "Elements: {parameters, quantized, quantizable, muon, adamw, sgd} and the "
     "parameters' names.", NULL},
    {"flops", program_flops, "(self): table",
     "Work of a micro-batch as executed, of the update, and the model's 6N + "
     "6LdT.", NULL},
    {"bytes", program_bytes, "(self): table",
     "Least traffic of a micro-batch and of the update.", NULL},
    {"listing", program_listing, "(self, which?: string): string",
     "The program as text, one line an instruction; which: training, "
     "evaluation.", NULL},
    {"profile", program_profile, "(self, options?: {steps: integer}): table",
     "Time, rates and speed-of-light share of every instruction; back at step "
     "0 afterwards.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};
