/* Whole programs on CUDA against the CPU: training in f32, bf16 and f16, with
 * quantized weights, accumulation and every recompute mode; the same bits in
 * every run, recorded, call by call or with ranges; memory as planned. Skipped
 * where there is no device. */
#include "backends.h"

#include "../../kernels/graph/program.h"

enum { PROGRAM_V = 520, PROGRAM_C = 128, PROGRAM_B = 4, PROGRAM_T = 72,
       PROGRAM_STEPS = 50 };

#define LAYER_OF(kind, ...) \
  layer_new(LK_LAYER_##kind, (lk_layer_options){__VA_ARGS__}, NULL, 0)
#define TREE_OF(kind, ...)                              \
  layer_new(LK_LAYER_##kind, (lk_layer_options){0},     \
            (lk_layer *[]){__VA_ARGS__},                \
            (int)(sizeof((lk_layer *[]){__VA_ARGS__}) / sizeof(lk_layer *)))

static lk_layer *layer_new(lk_layer_kind kind, lk_layer_options o,
                           lk_layer *const *children, int count) {
  lk_layer *layer = NULL;
  lk_error e = {0};
  if (o.std == 0) o.std = 0.05;
  if (lk_layer_new(kind, "", &o, children, count, &layer, &e) != LK_OK) {
    printf("# layer: %s\n", e.message);
    abort();
  }
  for (int i = 0; i < count; i++) lk_layer_release(children[i]);
  return layer;
}

static lk_layer *block_new(double p, int64_t kv_heads) {
  lk_layer *attention = TREE_OF(
      residual, LAYER_OF(rmsnorm, .in = PROGRAM_C),
      LAYER_OF(attention, .in = PROGRAM_C, .heads = 4, .kv_heads = kv_heads,
               .rope = true, .rope_base = 10000, .rope_fraction = 0.5,
               .rope_inclusive = true, .p = p),
      LAYER_OF(dropout, .p = p));
  lk_layer *mlp = TREE_OF(
      residual, LAYER_OF(rmsnorm, .in = PROGRAM_C),
      LAYER_OF(linear, .in = PROGRAM_C, .out = 384), LAYER_OF(silu, 0),
      LAYER_OF(dropout, .p = p), LAYER_OF(linear, .in = 384,
                                          .out = PROGRAM_C),
      LAYER_OF(dropout, .p = p));
  return TREE_OF(sequential, attention, mlp);
}

static lk_layer *model_new(void) {
  lk_layer *embedding = LAYER_OF(embedding, .in = PROGRAM_V, .out = PROGRAM_C,
                                 .scale = 11.3);
  return TREE_OF(sequential, embedding, LAYER_OF(dropout, .p = 0.1),
                 TREE_OF(sequential, block_new(0.1, 4), block_new(0.1, 2)),
                 LAYER_OF(rmsnorm, .in = PROGRAM_C),
                 LAYER_OF(head, .tied = embedding));
}

static const lk_optimizer program_optimizer = {
    .groups = 2, .clip = 1,
    .schedule = {.kind = LK_COSINE, .warmup = 0.1, .final = 0.1,
                 .steps = PROGRAM_STEPS},
    .group = {{.match = "2.*weight", .kind = LK_MUON, .lr = 0.01,
               .beta1 = 0.95, .eps = 1e-7, .steps = 5},
              {.kind = LK_ADAMW, .lr = 0.001, .beta1 = 0.9, .beta2 = 0.999,
               .eps = 1e-8, .decay = 0.1}}};

static lk_program_options program_options(lk_dtype compute) {
  lk_program_options o = lk_program_defaults();
  o.batch = PROGRAM_B;
  o.seq = PROGRAM_T;
  o.seed = 7;
  o.recompute = LK_RECOMPUTE_NONE;
  o.weights.compute = compute;
  return o;
}

static void must(lk_context *context, lk_status status) {
  if (status != LK_OK) back_fail(context);
}

static lk_program *program_open(lk_context *context, lk_program_options o) {
  lk_layer *model = model_new();
  lk_program *p = NULL;
  must(context, lk_program_new(&o, model, &program_optimizer,
                               context->profile, &p, &context->error));
  lk_layer_release(model);
  must(context, lk_program_open(p, context, LK_RUN_ARENA));
  return p;
}

/* What the losses and norms of a training run were. */
typedef struct program_run {
  double loss[PROGRAM_STEPS], norm[PROGRAM_STEPS], evaluated;
  uint64_t state; /* hash of weights and optimizer */
  int skipped;    /* steps made again, their gradients not being finite */
} program_run;

static void batch_fill(int n, int32_t *ids, int32_t *targets) {
  for (int i = 0; i < PROGRAM_B * PROGRAM_T; i++) {
    uint32_t word = lk_philox(3, (uint64_t)i, (uint32_t)n % 4, 1).w[0];
    ids[i] = (int32_t)(word % PROGRAM_V);
    targets[i] = (ids[i] * 7 + 3) % PROGRAM_V;
  }
}

static uint64_t program_hash(lk_context *context, lk_program *p) {
  const lk_store *s = lk_program_store(p);
  uint64_t h = 0xcbf29ce484222325u;
  for (int i = 1; i < s->buffer_count; i++) {
    lk_tensor t = lk_machine_tensor(lk_program_machine(p), i);
    int64_t n = lk_tensor_bytes(&t);
    uint8_t *data = back_memory(n);
    if (s->buffers[i].category == LK_DATA) continue;
    must(context, lk_machine_download(lk_program_machine(p), i, data, n));
    for (int64_t k = 0; k < n; k++) h = (h ^ data[k]) * 0x100000001b3u;
  }
  return h;
}

static lk_step_result program_step(lk_context *context, lk_program *p,
                                   int t) {
  static int32_t ids[PROGRAM_B * PROGRAM_T], targets[PROGRAM_B * PROGRAM_T];
  int micros = (int)lk_program_options_of(p)->accumulate;
  lk_step_result r;
  must(context, lk_program_begin(p, t));
  for (int i = 0; i < micros; i++) {
    batch_fill(t * micros + i, ids, targets);
    must(context, lk_program_micro(p, ids, targets));
  }
  must(context, lk_program_finish(p, &r));
  return r;
}

static program_run program_train(lk_context *context, lk_program *p) {
  static int32_t ids[PROGRAM_B * PROGRAM_T], targets[PROGRAM_B * PROGRAM_T];
  program_run run = {0};
  double correct = 0;
  for (int t = 0; t < PROGRAM_STEPS; t++) {
    lk_step_result r = program_step(context, p, t);
    while (r.skipped && run.skipped++ < 60) { /* again, as if begun there */
      lk_scaling s = {.scale = lk_program_scaling(p).scale};
      lk_program_set_scaling(p, s);
      r = program_step(context, p, t);
    }
    CHECK(r.finite, "step %d is not finite", t);
    run.loss[t] = r.loss;
    run.norm[t] = r.norm;
  }
  batch_fill(1, ids, targets);
  must(context, lk_program_evaluate(p, ids, targets, &run.evaluated,
                                    &correct));
  run.state = program_hash(context, p);
  return run;
}

/* Training from a loss scale; 0: from the program's own. */
static program_run run_from(lk_context *context, lk_program_options o,
                            double scale) {
  lk_program *p = program_open(context, o);
  if (scale > 0) lk_program_set_scaling(p, (lk_scaling){.scale = scale});
  program_run run = program_train(context, p);
  lk_program_free(p);
  back_free();
  return run;
}

static program_run run_of(lk_context *context, lk_program_options o) {
  return run_from(context, o, 0);
}

static void check_close(const char *name, const program_run *got,
                        const program_run *want, double most) {
  double worst = 0, norms = 0;
  for (int t = 0; t < PROGRAM_STEPS; t++) {
    worst = fmax(worst, fabs(got->loss[t] / want->loss[t] - 1));
    norms = fmax(norms, fabs(got->norm[t] / want->norm[t] - 1));
  }
  worst = fmax(worst, fabs(got->evaluated / want->evaluated - 1));
  printf("# %s: losses %.4f … %.4f within %.2g, norms %.2g\n", name,
         want->loss[0], want->loss[PROGRAM_STEPS - 1], worst, norms);
  CHECK(worst <= most, "%s: losses differ by %.3g, at most %.3g", name, worst,
        most);
  CHECK(want->loss[PROGRAM_STEPS - 1] < want->loss[0], "%s learns nothing",
        name);
}

static void check_same(const char *name, const program_run *a,
                       const program_run *b) {
  CHECK(memcmp(a->loss, b->loss, sizeof a->loss) == 0, "%s: losses", name);
  CHECK(memcmp(a->norm, b->norm, sizeof a->norm) == 0, "%s: norms", name);
  CHECK(a->evaluated == b->evaluated, "%s: evaluation", name);
  CHECK(a->state == b->state, "%s: weights or optimizer", name);
}

static void check_parity(const char *name, lk_program_options o, double f32,
                         double half) {
  o.weights.compute = LK_F32;
  program_run cpu = run_of(back_cpu, o), cuda = run_of(back_cuda, o);
  check_close(name, &cuda, &cpu, f32);
  o.weights.compute = LK_BF16;
  cuda = run_of(back_cuda, o);
  check_close("… in bf16", &cuda, &cpu, half);
  program_run again = run_of(back_cuda, o);
  check_same("two runs", &cuda, &again);
}

static void test_parity(void) {
  NEED_DEVICE();
  check_parity("plain", program_options(LK_F32), 1e-4, 2e-2);
}

static void test_half(void) {
  NEED_DEVICE();
  program_run cpu = run_of(back_cpu, program_options(LK_F32));
  program_run half = run_from(back_cuda, program_options(LK_F16), 1024);
  CHECK(half.skipped == 0, "%d steps skipped", half.skipped);
  check_close("f16, losses times 1024", &half, &cpu, 2e-2);
  half = run_of(back_cuda, program_options(LK_F16));
  CHECK(half.skipped < 10, "%d steps skipped", half.skipped);
  check_close("f16, the scale finds itself", &half, &cpu, 2e-2);
  program_run again = run_of(back_cuda, program_options(LK_F16));
  check_same("two runs in f16", &half, &again);
}

/* From a scale at which f16 overflows for certain: what is skipped leaves the
 * state as it was, and training goes on from it. */
static void test_half_skips(void) {
  NEED_DEVICE();
  program_run cpu = run_of(back_cpu, program_options(LK_F32));
  lk_program_options o = program_options(LK_F16);
  lk_program *p = program_open(back_cuda, o);
  lk_program_set_scaling(p, (lk_scaling){.scale = 1 << 30});
  uint64_t state = program_hash(back_cuda, p);
  for (int t = 0; t < 3; t++) {
    lk_step_result r = program_step(back_cuda, p, t);
    CHECK(r.skipped && !r.finite && isfinite(r.loss), "step %d", t);
    CHECK(program_hash(back_cuda, p) == state, "step %d left a trace", t);
  }
  CHECK(lk_program_scaling(p).scale == 1 << 27, "%g",
        lk_program_scaling(p).scale);
  program_run half = program_train(back_cuda, p);
  lk_program_free(p);
  CHECK(half.skipped > 0, "nothing overflows");
  check_close("f16 after skipped steps", &half, &cpu, 2e-2);
  o.weights.format = lk_weight_format_find("nf4r");
  o.accumulate = 2;
  program_run nf4r = run_from(back_cuda, o, 1 << 30);
  o.weights.compute = LK_F32;
  cpu = run_of(back_cpu, o);
  check_close("… of nf4r, accumulated", &nf4r, &cpu, 3e-2);
}

/* A program that says so, and no other that runs beside it. */
static void test_tf32(void) {
  NEED_DEVICE();
  lk_program_options o = program_options(LK_F32);
  program_run cpu = run_of(back_cpu, o), f32 = run_of(back_cuda, o);
  o.tf32 = true;
  program_run tf32 = run_of(back_cuda, o), again = run_of(back_cuda, o);
  check_close("products in tf32", &tf32, &cpu, 2e-3);
  check_same("two runs in tf32", &tf32, &again);
  CHECK(tf32.state != f32.state, "tf32 changes nothing");
  o.tf32 = false;
  again = run_of(back_cuda, o);
  check_same("f32 after tf32", &f32, &again);
}

static void test_accumulation(void) {
  NEED_DEVICE();
  lk_program_options o = program_options(LK_F32);
  o.accumulate = 2;
  check_parity("two micro-batches", o, 1e-4, 2e-2);
}

/* A code that falls on the other side moves a loss by more than rounding. */
static void test_nf4r(void) {
  NEED_DEVICE();
  lk_program_options o = program_options(LK_F32);
  o.weights.format = lk_weight_format_find("nf4r");
  o.quantize_from = 1001;
  check_parity("nf4r, fused", o, 5e-3, 3e-2);
  o.weights.search = true;
  o.accumulate = 2;
  check_parity("nf4r, accumulated, searched", o, 5e-3, 3e-2);
}

static void test_saved(void) {
  NEED_DEVICE();
  lk_program_options o = program_options(LK_F32);
  o.saved_int8 = true;
  check_parity("saved in int8", o, 5e-3, 3e-2);
}

/* On both sides the same codes but where values fall on the other side of a
 * boundary: in f32 by rounding, in bf16 more often. */
static void test_e4m3(void) {
  NEED_DEVICE();
  if (!back_capable(8.9)) SKIP("no FP8 products below 8.9");
  lk_program_options o = program_options(LK_F32);
  o.e4m3 = true;
  check_parity("linear layers in e4m3", o, 5e-3, 3e-2);
  o.weights.format = lk_weight_format_find("nf4r");
  o.quantize_from = 1001;
  check_parity("… of nf4r", o, 1e-2, 3e-2);
  o.accumulate = 2;
  o.saved_int8 = true;
  check_parity("… accumulated, saved in int8", o, 1e-2, 3e-2);
}

static void test_recompute(void) {
  NEED_DEVICE();
  lk_program_options o = program_options(LK_BF16);
  for (int e4m3 = 0; e4m3 < 1 + back_capable(8.9); e4m3++) {
    o.e4m3 = e4m3;
    o.recompute = LK_RECOMPUTE_NONE;
    program_run none = run_of(back_cuda, o);
    for (int r = LK_RECOMPUTE_LIGHT; r <= LK_RECOMPUTE_BLOCK; r++) {
      o.recompute = (lk_recompute)r;
      program_run run = run_of(back_cuda, o);
      check_same("recompute", &none, &run);
    }
  }
}

/* A profiled run goes call by call, a plain one replays recordings, in which
 * runs of small calls overlap. */
static void check_recording(lk_program_options o) {
  program_run replayed = run_of(back_cuda, o);
  lk_program *p = program_open(back_cuda, o);
  lk_program_machine(p)->profiling = true;
  program_run called = program_train(back_cuda, p);
  lk_program_free(p);
  check_same("call by call", &replayed, &called);
  p = program_open(back_cuda, o);
  program_train(back_cuda, p);
  const lk_code *c = &lk_program_machine(p)->code[0];
  CHECK(c->recording[LK_MICRO].made != NULL, "nothing was recorded");
  int beside = 0;
  for (int n = 0; n < c->graph->instr_count; n++)
    beside += c->calls[n].beside;
  CHECK(beside > 0, "no call runs beside another");
  lk_program_free(p);
}

static void test_recording(void) {
  NEED_DEVICE();
  lk_program_options o = program_options(LK_BF16);
  check_recording(o);
  o.fuse = 1;
  o.fuse_group = 1;
  check_recording(o);
  o.weights.format = lk_weight_format_find("nf4r");
  o.quantize_from = 1001;
  o.saved_int8 = true;
  o.recompute = LK_RECOMPUTE_LIGHT;
  check_recording(o);
}

/* Asked for ranges, a context goes call by call, to the same bits. */
static void test_ranges(void) {
  NEED_DEVICE();
  lk_program_options o = program_options(LK_BF16);
  program_run plain = run_of(back_cuda, o);
  lk_context *watched = NULL;
  setenv("LLMHOST_NVTX", "1", 1);
  must(back_cuda, lk_context_open(back_cuda->backend, 0, &watched,
                                  &back_cuda->error));
  unsetenv("LLMHOST_NVTX");
  CHECK(watched->tracer.before != NULL && watched->tracer.after != NULL,
        "no ranges");
  lk_program *p = program_open(watched, o);
  program_run ranged = program_train(watched, p);
  check_same("with ranges", &plain, &ranged);
  for (int s = 0; s < LK_SECTION_COUNT; s++)
    CHECK(lk_program_machine(p)->code[0].recording[s].made == NULL,
          "section %d was recorded", s);
  lk_program_free(p);
  lk_context_close(watched);
}

/* The accountant saw what was planned; a budget below that fails and leaves
 * nothing behind. */
static void test_memory(void) {
  NEED_DEVICE();
  lk_memory_stats before, after;
  lk_program_memory plan;
  lk_program_options o = program_options(LK_BF16);
  o.e4m3 = back_capable(8.9);
  lk_memory_read(back_cuda->memory, &before);
  CHECK(before.current == back_cuda->profile->workspace,
        "%lld bytes are left", (long long)before.current);
  lk_memory_reset_peak(back_cuda->memory);
  lk_program *p = program_open(back_cuda, o);
  program_train(back_cuda, p);
  lk_program_memory_of(p, &plan);
  lk_memory_read(back_cuda->memory, &after);
  CHECK(after.peak == plan.peak, "%lld bytes, planned %lld",
        (long long)after.peak, (long long)plan.peak);
  lk_program_close(p);
  lk_memory_set_budget(back_cuda->memory, plan.peak - 1);
  CHECK(lk_program_open(p, back_cuda, LK_RUN_ARENA) == LK_OOM, "it fits");
  lk_memory_read(back_cuda->memory, &after);
  CHECK(after.current == before.current, "%lld bytes are left",
        (long long)after.current);
  lk_memory_set_budget(back_cuda->memory, plan.peak);
  CHECK(lk_program_open(p, back_cuda, LK_RUN_ARENA) == LK_OK, "%s",
        back_cuda->error.message);
  lk_program_free(p);
  lk_memory_set_budget(back_cuda->memory, 0);
  void *data;
  int64_t split[LK_CATEGORY_COUNT] = {[LK_DATA] = (int64_t)1 << 50};
  CHECK(lk_memory_allocate(back_cuda->memory, split, &data,
                           &back_cuda->error) == LK_OOM, "a petabyte");
  program_run run = run_of(back_cuda, o); /* the device still works */
  CHECK(run.evaluated > 0, "%g", run.evaluated);
}

int main(void) {
  BACK_RUN(test_parity);
  BACK_RUN(test_half);
  BACK_RUN(test_half_skips);
  BACK_RUN(test_tf32);
  BACK_RUN(test_accumulation);
  BACK_RUN(test_nf4r);
  BACK_RUN(test_saved);
  BACK_RUN(test_e4m3);
  BACK_RUN(test_recompute);
  BACK_RUN(test_recording);
  BACK_RUN(test_ranges);
  BACK_RUN(test_memory);
  lk_context_close(back_cuda);
  lk_context_close(back_cpu);
  return check_done();
}
