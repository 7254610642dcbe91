/* Calls that may run beside each other: runs and conflicts by hand, and in the
 * programs of a small model, where the order of emission makes the runs. */
#include <stdio.h>

#include "check.h"
#include "model.h"

#include "../../kernels/graph/beside.h"

/* --- by hand -------------------------------------------------------------- */

static char bytes[4096];
static float control[LK_CONTROL];

static lk_tensor f32_at(int64_t at, int64_t n) {
  return (lk_tensor){.data = bytes + at, .dtype = LK_F32,
                     .shape = lk_shape_of(n)};
}

static lk_tensor control_tensor(void) {
  return (lk_tensor){.data = control, .dtype = LK_F32,
                     .shape = lk_shape_of(LK_CONTROL)};
}

static lk_call squares_of(int64_t g, int64_t index) {
  lk_call c = lk_call_new(LK_OP_sum_squares);
  c.in[0] = f32_at(g, 16);
  c.out[0] = f32_at(3072, 256);
  c.out[1] = control_tensor();
  c.attr.index = index;
  return c;
}

static lk_call momentum_of(int64_t g, int64_t m, int64_t u) {
  lk_call c = lk_call_new(LK_OP_muon_momentum);
  c.in[0] = f32_at(g, 16);
  c.in[1] = control_tensor();
  c.out[0] = f32_at(m, 16);
  c.out[1] = f32_at(u, 16);
  return c;
}

/* Marked, these calls have the flags `want`, a digit each. */
static void check_flags(const char *what, lk_call *calls, const char *want) {
  int count = (int)strlen(want);
  char got[16] = "";
  for (int i = 0; i < count; i++) calls[i].beside = i % 2;
  lk_beside_mark(lk_profile_find("cuda"), calls, count);
  for (int i = 0; i < count; i++) got[i] = calls[i].beside ? '1' : '0';
  CHECK(strcmp(got, want) == 0, "%s: %s, should be %s", what, got, want);
}

static void test_runs(void) {
  lk_call other = lk_call_new(LK_OP_add);
  other.in[0] = other.in[1] = f32_at(2048, 4);
  other.out[0] = f32_at(2560, 4);
  check_flags("squares share slots and control",
              (lk_call[]){squares_of(0, 0), squares_of(64, 1),
                          squares_of(128, 2)}, "011");
  check_flags("momenta all read control",
              (lk_call[]){momentum_of(0, 64, 128), momentum_of(192, 256, 320)},
              "01");
  check_flags("what writes control does not share it with what reads it",
              (lk_call[]){squares_of(0, 0), squares_of(64, 1),
                          momentum_of(0, 128, 192),
                          momentum_of(64, 256, 320), squares_of(384, 2)},
              "01010");
  check_flags("an operator that is none of the list ends a run",
              (lk_call[]){squares_of(0, 0), squares_of(64, 1), other,
                          squares_of(128, 2), squares_of(192, 3)}, "01001");
  check_flags("nor does it begin one", (lk_call[]){other, other}, "00");
}

static void test_conflicts(void) {
  check_flags("a result that is read",
              (lk_call[]){momentum_of(0, 64, 128), momentum_of(128, 256, 320)},
              "00");
  check_flags("an input that is written over, by its last bytes",
              (lk_call[]){momentum_of(0, 64, 128), momentum_of(192, 256, 60)},
              "00");
  check_flags("a result written twice",
              (lk_call[]){momentum_of(0, 64, 128), momentum_of(192, 256, 128)},
              "00");
  check_flags("neighbours",
              (lk_call[]){momentum_of(0, 64, 128), momentum_of(192, 256, 320),
                          momentum_of(384, 448, 512)}, "011");
  check_flags("with one further back, then a run of its own",
              (lk_call[]){momentum_of(0, 64, 128), momentum_of(192, 256, 320),
                          momentum_of(384, 448, 0),
                          momentum_of(512, 576, 640)}, "0101");
  lk_call clip = lk_call_new(LK_OP_clip);
  clip.in[0] = f32_at(3072, 256);
  clip.out[0] = control_tensor();
  check_flags("clip waits for squares",
              (lk_call[]){squares_of(0, 0), clip, momentum_of(0, 64, 128)},
              "000");
}

static void test_absent(void) {
  lk_call a = lk_call_new(LK_OP_adamw), b = a;
  for (int r = 0; r < 3; r++) {
    a.out[r] = f32_at(64 * r, 16);
    b.out[r] = f32_at(256 + 64 * r, 16);
  }
  a.in[0] = f32_at(512, 16);
  b.in[0] = f32_at(576, 16);
  a.in[1] = b.in[1] = control_tensor();
  check_flags("absent copies", (lk_call[]){a, b}, "01");
}

/* --- programs ------------------------------------------------------------- */

/* The part of a result that a call writes. */
static void written(const lk_call *c, int r, const char **first,
                    const char **end) {
  int64_t count = lk_shape_count(c->in[0].shape);
  *first = c->out[r].data;
  *end = *first + lk_tensor_bytes(&c->out[r]);
  if (c->op != LK_OP_sum_squares || r != 0) return;
  *first += c->attr.index * 4;
  *end = *first + (count + 8191) / 8192 * 4;
}

/* Whether `a` writes what `b` reads or writes; control is told apart. */
static bool harms(const lk_call *a, const lk_call *b) {
  const char *first, *end, *other, *last;
  for (int r = 0; r < LK_MAX_RESULTS; r++) {
    bool flag = a->op == LK_OP_sum_squares && r == 1;
    if (!lk_present(&a->out[r]) || a->out[r].data == NULL) continue;
    written(a, r, &first, &end);
    for (int k = 0; k < LK_MAX_INPUTS; k++) {
      other = b->in[k].data;
      if (lk_present(&b->in[k]) && other != NULL && first < other +
          lk_tensor_bytes(&b->in[k]) && other < end) return true;
    }
    for (int k = 0; k < LK_MAX_RESULTS; k++) {
      if (!lk_present(&b->out[k]) || b->out[k].data == NULL) continue;
      written(b, k, &other, &last);
      if (first < last && other < end && !(flag && a->op == b->op))
        return true;
    }
  }
  return false;
}

/* No two calls of a run harm each other; how many calls are not its first. */
static int check_runs(const lk_code *c, const char *what) {
  int first = 0, beside = 0;
  for (int n = 0; n < c->graph->instr_count; n++) {
    if (!c->calls[n].beside) first = n;
    beside += c->calls[n].beside;
    for (int k = first; k < n; k++)
      CHECK(!harms(&c->calls[k], &c->calls[n]) &&
                !harms(&c->calls[n], &c->calls[k]),
            "%s: calls %d and %d", what, k, n);
  }
  for (int s = 0; s < LK_SECTION_COUNT; s++)
    CHECK(c->first[s] == c->end[s] || !c->calls[c->first[s]].beside,
          "%s: section %d begins beside another", what, s);
  return beside;
}

/* Calls of `op` that begin a run. */
static int runs_of(const lk_code *c, lk_op op) {
  int n = 0;
  for (int i = 0; i < c->graph->instr_count; i++)
    n += c->calls[i].op == op && !c->calls[i].beside;
  return n;
}

static int calls_of(const lk_code *c, lk_op op) {
  int n = 0;
  for (int i = 0; i < c->graph->instr_count; i++) n += c->calls[i].op == op;
  return n;
}

static lk_program *opened(lk_program_options o) {
  lk_program *p = compile_model(decoder(0.1, 2), o, muon_and_adamw());
  must(lk_program_open(p, open_cpu(), LK_RUN_ARENA));
  return p;
}

static void check_program(const char *format, int fuse, int64_t accumulate,
                          int squares) {
  lk_program_options o = small_options();
  o.weights.format = lk_weight_format_find(format);
  o.fuse = fuse;
  o.fuse_group = 2;
  o.accumulate = accumulate;
  for (int r = 0; r < 4; r++) {
    o.recompute = (lk_recompute)r;
    lk_program *p = opened(o);
    const lk_code *c = &lk_program_machine(p)->code[0];
    bool quantized = o.weights.format->quantized;
    CHECK(check_runs(c, format) > 0, "%s: no runs", format);
    CHECK(runs_of(c, LK_OP_sum_squares) == squares, "%s: %d runs of squares",
          format, runs_of(c, LK_OP_sum_squares));
    CHECK(calls_of(c, LK_OP_sum_squares) ==
          lk_store_parameter_count(lk_program_store(p)), "%s", format);
    CHECK(runs_of(c, LK_OP_adamw) == 1, "%s: AdamW", format);
    lk_op momentum = quantized ? LK_OP_muon_momentum_int8
                               : LK_OP_muon_momentum;
    CHECK(runs_of(c, momentum) <= calls_of(c, LK_OP_newton_schulz) &&
          calls_of(c, momentum) == 8, "%s: momenta", format);
    int decoded = calls_of(c, LK_OP_dequantize);
    if (quantized && r == LK_RECOMPUTE_NONE) /* once each, in a row */
      CHECK(decoded == 8 && runs_of(c, LK_OP_dequantize) == 1,
            "%s: %d decoded in %d runs", format, decoded,
            runs_of(c, LK_OP_dequantize));
    else
      CHECK(decoded == 0 || decoded > 8, "%s: %d decoded", format, decoded);
    lk_program_free(p);
  }
}

/* All squares in a row before clipping; where updates are part of the backward
 * pass, before the momenta of each of the four batches, of two matrices each,
 * and once more for those of the embedding and the first norm. */
static void test_programs(void) {
  check_program("f32", 0, 1, 1);
  check_program("f32", -1, 2, 1);
  check_program("nf4r", 0, 1, 1);
  check_program("f32", 1, 1, 5);
  check_program("nf4r", -1, 1, 5);
}

/* By call: the momenta of a stopped step are told by all gradients that were
 * final before them. */
static void test_order(void) {
  lk_program_options o = small_options();
  o.fuse = 1;
  o.fuse_group = 2;
  lk_program *p = compile_model(decoder(0.1, 2), o, muon_and_adamw());
  const lk_graph *g = lk_program_graph(p, true);
  bool measured[64] = {false};
  int seen = 0;
  for (int i = 0; i < g->instr_count; i++) {
    const lk_instr *k = &g->instrs[i];
    if (k->op == LK_OP_sum_squares) {
      CHECK(!measured[k->attr.index], "slot %d twice", (int)k->attr.index);
      measured[k->attr.index] = true;
      seen++;
    }
    if (k->op != LK_OP_muon_momentum) continue;
    bool found = false;
    for (int n = 0; n < i; n++)
      found = found || (g->instrs[n].op == LK_OP_sum_squares &&
                        g->instrs[n].in[0] == k->in[0]);
    CHECK(found, "call %d: a momentum before its squares", i);
  }
  CHECK(seen == lk_store_parameter_count(lk_program_store(p)), "%d", seen);
  lk_program_free(p);
}

/* Where the sums of each parameter begin. */
static void test_slots(void) {
  lk_store s = {0};
  static const int64_t counts[3] = {8192, 8193, 1}, slots[4] = {0, 1, 3, 4};
  for (int i = 0; i < 3; i++) {
    lk_parameter p = {.shape = lk_shape_of(counts[i])};
    snprintf(p.name, sizeof p.name, "p%d", i);
    lk_store_add_parameter(&s, &p);
  }
  for (int i = 0; i < 4; i++)
    CHECK(lk_optimizer_slot(&s, i + 1) == slots[i], "%d at %d", i,
          (int)lk_optimizer_slot(&s, i + 1));
  lk_store_free(&s);
}

/* --- what kernels are told ----------------------------------------------- */

static int told, calls;
static lk_kernel plain;

static lk_status counted(lk_context *context, const lk_call *call) {
  told += call->beside;
  calls++;
  return plain(context, call);
}

static void ignore(void *state, const lk_call *call) {
  (void)state, (void)call;
}

/* Steps with the backend's squares counted: flags are told but to those whose
 * every call is looked at. */
static void test_told(void) {
  lk_context *c = open_cpu();
  lk_backend backend = *c->backend;
  const lk_backend *own = c->backend;
  plain = backend.kernels[LK_OP_sum_squares];
  backend.kernels[LK_OP_sum_squares] = counted;
  c->backend = &backend;
  lk_program *p = opened(small_options());
  int squares = calls_of(&lk_program_machine(p)->code[0], LK_OP_sum_squares);
  train_step(p, 0);
  CHECK(calls == squares && told == squares - 1, "%d of %d", told, calls);
  told = 0;
  lk_program_machine(p)->profiling = true;
  train_step(p, 1);
  lk_program_machine(p)->profiling = false;
  c->tracer.before = ignore;
  train_step(p, 2);
  c->tracer.before = NULL;
  CHECK(told == 0 && calls == 3 * squares, "watched: %d", told);
  train_step(p, 3);
  CHECK(told == squares - 1, "again: %d", told);
  lk_program_free(p);
  c->backend = own;
}

/* A call of one's own has no flag, whatever it said. */
static void test_dispatch(void) {
  float g[16] = {3, 4}, slots[1] = {0}, x[LK_CONTROL] = {0};
  lk_storage *storage[LK_MAX_RESULTS];
  lk_call call = squares_of(0, 0);
  call.in[0].data = g;
  call.out[0] = (lk_tensor){slots, LK_F32, lk_shape_of(1)};
  call.out[1].data = x;
  x[LK_CONTROL_LOSS_SCALE] = 1;
  call.beside = true;
  must(lk_dispatch(open_cpu(), &call, storage));
  CHECK(!call.beside && slots[0] == 25, "%g", (double)slots[0]);
}

int main(void) {
  RUN(test_runs);
  RUN(test_conflicts);
  RUN(test_absent);
  RUN(test_programs);
  RUN(test_order);
  RUN(test_slots);
  RUN(test_told);
  RUN(test_dispatch);
  return check_done();
}
