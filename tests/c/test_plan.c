/* The memory plan held honest: packing, the accountant, separate allocations,
 * poisoned memory, and the process's own resident memory. */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "model.h"

/* Every way of compiling that changes the plan. */
static int variants(lk_program_options *list) {
  int n = 0;
  for (int recompute = 0; recompute < 4; recompute++)
    for (int saved = 0; saved < 2; saved++)
      for (int nf4r = 0; nf4r < 2; nf4r++)
        for (int accumulate = 1; accumulate <= 2; accumulate++) {
          lk_program_options o = small_options();
          o.recompute = (lk_recompute)recompute;
          o.saved_int8 = saved;
          o.accumulate = accumulate;
          o.weights.format = lk_weight_format_find(nf4r ? "nf4r" : "f32");
          list[n++] = o;
        }
  return n;
}

static const char *words(const lk_program_options *o) {
  static char text[96];
  snprintf(text, sizeof text, "%s%s %s accumulate %d",
           lk_recompute_words[o->recompute], o->saved_int8 ? " int8" : "",
           o->weights.format->name, (int)o->accumulate);
  return text;
}

/* Blocks that live at the same time do not overlap; none leaves the arena. */
static void check_packing(const lk_plan *plan, const char *what) {
  for (int i = 0; i < plan->block_count; i++) {
    const lk_block *a = &plan->blocks[i];
    CHECK(a->offset >= 0 && a->offset + a->bytes <= plan->arena, "%s", what);
    for (int k = i + 1; k < plan->block_count; k++) {
      const lk_block *b = &plan->blocks[k];
      bool together = a->first <= b->last && b->first <= a->last;
      bool overlap = a->offset < b->offset + b->bytes &&
                     b->offset < a->offset + a->bytes;
      CHECK(!(together && overlap), "%s: blocks %d and %d", what, i, k);
    }
  }
}

static void test_packing(void) {
  lk_program_options list[64];
  int n = variants(list);
  for (int i = 0; i < n; i++) {
    lk_program *p = compile_model(decoder(0.1, 2), list[i], muon_and_adamw());
    check_packing(lk_program_plan(p, true), words(&list[i]));
    check_packing(lk_program_plan(p, false), words(&list[i]));
    lk_program_free(p);
  }
  CHECK(n == 32, "%d variants", n);
}

/* Whether a call after `at` touches v's memory. */
static bool lives_on(const lk_program *p, lk_value v, int at) {
  const lk_plan *plan = lk_program_plan(p, true);
  return plan->blocks[plan->block_of_value[v]].last > at;
}

/* Calls that run before `instr`. */
static int position(const lk_graph *g, int instr) {
  int n = 0, section = (int)g->instrs[instr].section;
  for (int i = 0; i < g->instr_count; i++)
    n += (int)g->instrs[i].section < section ||
         ((int)g->instrs[i].section == section && i < instr);
  return n;
}

/* A gradient is measured while it lives for its update anyway: none is kept for
 * its sums of squares, which need no memory beside their slots. */
static void test_measuring_keeps_nothing(void) {
  lk_program_options list[64];
  int n = variants(list), squares = 0;
  for (int i = 0; i < n; i++) {
    list[i].fuse_group = 1 + i % 2;
    lk_program *p = compile_model(decoder(0.1, 2), list[i], muon_and_adamw());
    const lk_graph *g = lk_program_graph(p, true);
    for (int k = 0; k < g->instr_count; k++) {
      const lk_instr *call = &g->instrs[k];
      if (call->op != LK_OP_sum_squares) continue;
      CHECK(lives_on(p, call->in[0], position(g, k)), "%s: call %d",
            words(&list[i]), k);
      CHECK(call->cost.scratch == 0, "%s: scratch", words(&list[i]));
      squares++;
    }
    lk_program_free(p);
  }
  CHECK(squares > 0, "nothing is measured");
}

static lk_value exp_of(lk_graph *g, lk_value x) {
  return lk_emit1(g, LK_OP_exp, LK_IN(x), LK_ATTRS(0));
}

static void check_life(const lk_plan *plan, lk_value v, int first, int last) {
  const lk_block *b = &plan->blocks[plan->block_of_value[v]];
  CHECK(b->first == first && b->last == last, "value %d lives from %d to %d",
        (int)v, b->first, b->last);
}

/* The second micro-batch, too, finds what was made before the first, and does
 * not write over what the first one left for the update. */
static void test_repeated_lives(void) {
  lk_graph g;
  lk_plan plan;
  lk_error e = {0};
  lk_graph_init(&g);
  g.profile = lk_profile_find("cpu");
  g.accumulate = 2;
  lk_value enters = lk_value_new(&g, LK_F32, lk_shape_of(8), LK_ACTIVATIONS,
                                 "enters");
  g.section = LK_BEGIN;
  lk_emit(&g, LK_OP_fill, NULL, LK_OUT(enters), LK_ATTRS(0)); /* call 0 */
  g.section = LK_MICRO;
  lk_value inside = exp_of(&g, exp_of(&g, enters));
  lk_value leaves = exp_of(&g, inside);
  exp_of(&g, leaves);
  g.section = LK_UPDATE;
  exp_of(&g, leaves); /* call 5 */
  CHECK(lk_graph_ok(&g), "%s", g.error.message);
  CHECK(lk_plan_make(&g, &plan, &e) == LK_OK, "%s", e.message);
  check_life(&plan, enters, 0, 4);
  check_life(&plan, inside, 1, 3);
  check_life(&plan, leaves, 1, 5);
  check_packing(&plan, "by hand");
  lk_plan_free(&plan);
  lk_graph_free(&g);
}

/* One training and one evaluation step; the accountant's peak above what was
 * there, and a hash of the state. */
static uint64_t run_variant(lk_program *p, lk_run_mode mode, int64_t *peak) {
  lk_memory_stats before, after;
  lk_context *c = open_cpu();
  int32_t ids[256], targets[256];
  double loss = 0, correct = 0;
  lk_memory_reset_peak(c->memory);
  lk_memory_read(c->memory, &before);
  must(lk_program_open(p, c, mode));
  train_step(p, 0);
  random_batch(9, ids, targets, MODEL_B * MODEL_T);
  must(lk_program_evaluate(p, ids, targets, &loss, &correct));
  lk_memory_read(c->memory, &after);
  *peak = after.peak - before.current;
  uint64_t hash = state_hash(p) ^ (uint64_t)(loss * 1e6);
  lk_program_close(p);
  lk_memory_read(c->memory, &after);
  CHECK(after.current == before.current, "%lld bytes left",
        (long long)(after.current - before.current));
  return hash;
}

/* Predicted − accounted = 0: the arena's plan, and, where every value is an
 * allocation of its own freed at its last use, the sum of what lives. */
static void test_accountant_agrees(void) {
  lk_program_options list[64];
  int n = variants(list);
  for (int i = 0; i < n; i++) {
    lk_program *p = compile_model(decoder(0.1, 2), list[i], muon_and_adamw());
    lk_program_memory m;
    int64_t arena, separate, poisoned;
    lk_program_memory_of(p, &m);
    uint64_t want = run_variant(p, LK_RUN_ARENA, &arena);
    CHECK(run_variant(p, LK_RUN_POISONED, &poisoned) == want,
          "%s: poison is read", words(&list[i]));
    CHECK(run_variant(p, LK_RUN_SEPARATE, &separate) == want,
          "%s: separate memory gives other bits", words(&list[i]));
    CHECK(arena == m.peak, "%s: accounted %lld, predicted %lld",
          words(&list[i]), (long long)arena, (long long)m.peak);
    CHECK(separate == m.live_peak, "%s: separate %lld, predicted %lld",
          words(&list[i]), (long long)separate, (long long)m.live_peak);
    int64_t sum = 0;
    for (int c = 0; c < LK_CATEGORY_COUNT; c++) sum += m.category[c];
    CHECK(sum == m.peak, "categories sum to %lld", (long long)sum);
    lk_program_free(p);
  }
}

/* A budget one byte short fails like a full device and leaves nothing. */
static void test_budget(void) {
  lk_context *c = open_cpu();
  lk_memory_stats before, after;
  lk_program *p = compile_model(decoder(0, 4), small_options(),
                                muon_and_adamw());
  lk_program_memory m;
  lk_program_memory_of(p, &m);
  lk_memory_read(c->memory, &before);
  lk_memory_set_budget(c->memory, before.current + m.peak - 1);
  CHECK(lk_program_open(p, c, LK_RUN_ARENA) == LK_OOM, "it must not fit");
  CHECK(strstr(c->error.message, "out of memory") != NULL, "%s",
        c->error.message);
  lk_memory_read(c->memory, &after);
  CHECK(after.current == before.current, "bytes left behind");
  lk_memory_set_budget(c->memory, before.current + m.peak);
  CHECK(lk_program_open(p, c, LK_RUN_ARENA) == LK_OK, "%s",
        c->error.message);
  train_step(p, 0);
  lk_memory_set_budget(c->memory, 0);
  lk_program_free(p);
}

/* Every allocation fails once: a clean error each time, nothing left. */
static void test_allocations_fail(void) {
  lk_context *c = open_cpu();
  lk_memory_stats before, after;
  lk_program *p = compile_model(decoder(0.1, 2), small_options(),
                                muon_and_adamw());
  lk_memory_read(c->memory, &before);
  int failures = 0;
  for (int n = 1; n < 100; n++) {
    lk_memory_fail_after(c->memory, n);
    lk_status status = lk_program_open(p, c, LK_RUN_ARENA);
    lk_memory_fail_after(c->memory, 0);
    lk_program_close(p);
    lk_memory_read(c->memory, &after);
    CHECK(after.current == before.current, "allocation %d leaks", n);
    if (status == LK_OK) break;
    CHECK(status == LK_OOM, "status %s", lk_status_word(status));
    failures++;
  }
  CHECK(failures >= 3, "only %d allocations", failures);
  lk_program_free(p);
}

/* --- the process's own memory -------------------------------------------- */

static int64_t status_bytes(const char *key) {
  char line[256];
  long long kb = 0;
  FILE *f = fopen("/proc/self/status", "r");
  while (f && fgets(line, sizeof line, f))
    if (strncmp(line, key, strlen(key)) == 0)
      sscanf(line + strlen(key), "%lld", &kb);
  if (f) fclose(f);
  return kb * 1024;
}

/* In a child: the resident rise of a step and an evaluation of a model of some
 * hundred megabytes, minus the plan. */
static int64_t resident_error(lk_program_options o, int64_t *plan) {
  enum { D = 256, V = 2048 };
  static int32_t ids[16 * 256], targets[16 * 256];
  lk_layer *embedding = LAYER_OF(embedding, .in = V, .out = D);
  lk_layer *block = TREE_OF(
      sequential, TREE_OF(residual, LAYER_OF(rmsnorm, .in = D),
                          LAYER_OF(attention, .in = D, .heads = 4)),
      TREE_OF(residual, LAYER_OF(rmsnorm, .in = D),
              LAYER_OF(linear, .in = D, .out = 4 * D), LAYER_OF(silu, 0),
              LAYER_OF(linear, .in = 4 * D, .out = D)));
  lk_layer *m = TREE_OF(sequential, embedding, block,
                        LAYER_OF(head, .tied = embedding));
  o.batch = 16;
  o.seq = 256;
  lk_program *p = compile_model(m, o, muon_and_adamw());
  lk_program_memory memory;
  lk_program_memory_of(p, &memory);
  *plan = memory.peak;
  lk_context *c = open_cpu();
  for (int i = 0; i < 16 * 256; i++) ids[i] = targets[i] = i % V;
  int64_t before = status_bytes("VmRSS:");
  lk_step_result r;
  must(lk_program_open(p, c, LK_RUN_ARENA));
  must(lk_program_begin(p, 0));
  must(lk_program_micro(p, ids, targets));
  must(lk_program_finish(p, &r));
  return status_bytes("VmHWM:") - before - memory.peak;
}

static void check_resident(lk_program_options o) {
  int ends[2];
  int64_t got[2] = {0};
  CHECK(pipe(ends) == 0);
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    got[0] = resident_error(o, &got[1]);
    ssize_t written = write(ends[1], got, sizeof got);
    _exit(written != sizeof got);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  CHECK(status == 0 && read(ends[0], got, sizeof got) == sizeof got,
        "the child failed");
  int64_t slack = got[1] / 50 + (64 << 20);
  CHECK(got[0] < slack && got[0] > -slack, "%s: plan %lld, off by %lld",
        words(&o), (long long)got[1], (long long)got[0]);
  close(ends[0]);
  close(ends[1]);
}

static void test_resident_memory(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  SKIP("a sanitizer's shadow memory is resident, too");
#endif
  lk_program_options o = small_options();
  check_resident(o);
  o.recompute = LK_RECOMPUTE_BLOCK;
  check_resident(o);
}

int main(void) {
  RUN(test_resident_memory);  /* first: it forks before threads start */
  RUN(test_packing);
  RUN(test_measuring_keeps_nothing);
  RUN(test_repeated_lives);
  RUN(test_accountant_agrees);
  RUN(test_budget);
  RUN(test_allocations_fail);
  lk_context_close(open_cpu());
  return check_done();
}
