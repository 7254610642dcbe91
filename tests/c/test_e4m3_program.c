/* Programs whose linear layers multiply in e4m3: what is emitted, gradients
 * straight through, the same bits under every recompute mode, memory as
 * planned, and that they learn what f32 learns. */
#include <math.h>

#include "check.h"
#include "model.h"

/* Sizes that codes need: rows 3 · 16, channels 16, hidden 48. */
static lk_program_options options(bool e4m3) {
  lk_program_options o = small_options();
  o.seq = 16;
  o.e4m3 = e4m3;
  return o;
}

static lk_layer *mlp(double p, int64_t hidden) {
  return TREE_OF(residual, LAYER_OF(rmsnorm, .in = MODEL_C),
                 LAYER_OF(linear, .in = MODEL_C, .out = hidden),
                 LAYER_OF(silu, 0), LAYER_OF(dropout, .p = p),
                 LAYER_OF(linear, .in = hidden, .out = MODEL_C, .bias = true),
                 LAYER_OF(dropout, .p = p));
}

static lk_layer *attention(double p, int64_t kv_heads) {
  return TREE_OF(
      residual, LAYER_OF(rmsnorm, .in = MODEL_C),
      LAYER_OF(attention, .in = MODEL_C, .heads = 4, .kv_heads = kv_heads,
               .rope = true, .rope_base = 10000, .rope_fraction = 0.5, .p = p),
      LAYER_OF(dropout, .p = p));
}

static lk_layer *model(double p) {
  return model_around(
      TREE_OF(sequential,
              TREE_OF(sequential, attention(p, 4), mlp(p, 48)),
              TREE_OF(sequential, attention(p, 2), mlp(p, 48))), true);
}

static lk_program *opened(lk_layer *layers, lk_program_options o) {
  lk_program *p = compile_model(layers, o, muon_and_adamw());
  must(lk_program_open(p, open_cpu(), LK_RUN_ARENA));
  return p;
}

static int calls_of(const lk_program *p, lk_op op, bool with_codes) {
  const lk_graph *g = lk_program_graph(p, true);
  int count = 0;
  for (int n = 0; n < g->instr_count; n++) {
    const lk_instr *i = &g->instrs[n];
    bool codes = false;
    for (int k = 0; k < LK_MAX_RESULTS; k++)
      codes |= i->out[k] &&
               strcmp(lk_value_get(g, i->out[k])->name, "codes") == 0;
    count += i->op == op && (!with_codes || codes);
  }
  return count;
}

/* --- what is emitted ------------------------------------------------------ */

/* Eight layers: a product forward and one for the input's gradient each; the
 * weights' gradients are plain products. Norms, SiLU and dropout give codes
 * beside their results. */
static void test_emission(void) {
  lk_program *p = compile_model(model(0.1), options(true), muon_and_adamw());
  CHECK(calls_of(p, LK_OP_e4m3_matmul, false) == 16, "%d products",
        calls_of(p, LK_OP_e4m3_matmul, false));
  CHECK(calls_of(p, LK_OP_matmul, false) == 8, "%d plain products",
        calls_of(p, LK_OP_matmul, false));
  CHECK(calls_of(p, LK_OP_e4m3_turn, false) == 8, "turned weights");
  CHECK(calls_of(p, LK_OP_rmsnorm, true) == 1, "first norm");
  CHECK(calls_of(p, LK_OP_residual_norm, true) == 3, "the others but the last");
  CHECK(calls_of(p, LK_OP_silu, true) == 2, "silu");
  CHECK(calls_of(p, LK_OP_silu_backward, true) == 2, "silu_backward");
  /* eight weights; two attentions' results and two gradients of qkv; four
   * gradients of residuals */
  CHECK(calls_of(p, LK_OP_quantize, false) == 16, "%d passes of their own",
        calls_of(p, LK_OP_quantize, false));
  lk_program_free(p);
}

/* A width that is no multiple of 16 keeps its plain products, and only it. */
static void test_fallback(void) {
  lk_program *p = opened(
      model_around(TREE_OF(sequential, mlp(0, 40), mlp(0, 48)), true),
      options(true));
  CHECK(calls_of(p, LK_OP_e4m3_matmul, false) == 4, "%d products",
        calls_of(p, LK_OP_e4m3_matmul, false));
  CHECK(calls_of(p, LK_OP_matmul, false) == 6 + 2, "%d plain products",
        calls_of(p, LK_OP_matmul, false));
  CHECK(isfinite(forward_backward(p, 0)), "loss");
  lk_program_free(p);
  lk_program_options o = options(true);
  o.seq = MODEL_T; /* 30 rows */
  p = compile_model(model(0), o, muon_and_adamw());
  CHECK(calls_of(p, LK_OP_e4m3_matmul, false) == 0, "rows that do not fit");
  lk_program_free(p);
}

/* --- gradients ------------------------------------------------------------ */

static float *values_of(lk_program *p, lk_tensor t) {
  float *x = malloc((size_t)lk_tensor_bytes(&t));
  (void)p;
  memcpy(x, t.data, (size_t)lk_tensor_bytes(&t));
  return x;
}

/* ‖a − b‖ / ‖b‖ of the gradients called `name`. */
static double gradient_distance(lk_program *a, lk_program *b,
                                const char *name) {
  lk_tensor x, y;
  double error = 0, power = 0;
  must(lk_program_gradient(a, name, &x));
  must(lk_program_gradient(b, name, &y));
  float *p = values_of(a, x), *q = values_of(b, y);
  for (int64_t i = 0; i < lk_tensor_count(&x); i++) {
    error += pow((double)p[i] - q[i], 2);
    power += pow(q[i], 2);
  }
  free(p);
  free(q);
  return sqrt(error / power);
}

/* A parameter's master filled with integers of at most 14 over 16, every row
 * with one of 14: codes hold such rows exactly. */
static void set_exact(lk_program *p, const char *name, uint32_t seed) {
  const lk_store *s = lk_program_store(p);
  const lk_parameter *w = lk_store_find(s, name);
  lk_tensor t = lk_machine_tensor(lk_program_machine(p),
                                  w->part[LK_PART_MASTER]);
  float *x = t.data;
  int64_t width = t.shape.dim[1];
  for (int64_t i = 0; i < lk_tensor_count(&t); i++) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = (float)((int)(seed >> 16) % 15 - 7) * (i % width ? 1 : 2) / 16;
    if (i % width == 0) x[i] = 14.0f / 16;
  }
}

/* Where rows are held exactly, a linear layer's result and its weight's
 * gradient, which is taken from values, are f32's; its input's gradient is
 * within what rounding dy and the turned weight costs. */
static void test_exact_gradients(void) {
  lk_program *p[2];
  double loss[2];
  for (int i = 0; i < 2; i++) {
    p[i] = opened(model_around(LAYER_OF(linear, .in = MODEL_C, .out = MODEL_C),
                               false), options(i == 0));
    set_exact(p[i], "embedding.weight", 1);
    set_exact(p[i], "linear.weight", 2);
    loss[i] = forward_backward(p[i], 0);
  }
  CHECK(calls_of(p[0], LK_OP_e4m3_matmul, false) == 2, "not in e4m3");
  CHECK(fabs(loss[0] - loss[1]) < 1e-6, "loss %.9g, %.9g", loss[0], loss[1]);
  double dw = gradient_distance(p[0], p[1], "linear.weight");
  double dx = gradient_distance(p[0], p[1], "embedding.weight");
  printf("# dw off by %.2g, dx by %.2g\n", dw, dx);
  CHECK(dw < 1e-6, "the weight's gradient is off by %g", dw);
  CHECK(dx > 1e-4 && dx < 0.06, "the input's gradient is off by %g", dx);
  for (int i = 0; i < 2; i++) lk_program_free(p[i]);
}

/* In a whole model no gradient is off by more than rounding explains. */
static void test_gradients(void) {
  lk_program *a = opened(model(0), options(true));
  lk_program *b = opened(model(0), options(false));
  double x = forward_backward(a, 0), y = forward_backward(b, 0);
  const lk_store *s = lk_program_store(a);
  double worst = 0;
  for (int i = 1; i < s->parameter_count; i++)
    worst = fmax(worst, gradient_distance(a, b, s->parameters[i].name));
  printf("# losses %.6f %.6f, gradients within %.3f\n", x, y, worst);
  CHECK(fabs(x - y) < 0.02, "losses %g, %g", x, y);
  CHECK(worst > 1e-3 && worst < 0.25, "a gradient is off by %g", worst);
  lk_program_free(a);
  lk_program_free(b);
}

/* --- whole runs ----------------------------------------------------------- */

typedef struct e4m3_run {
  double loss;
  uint64_t state;
} e4m3_run;

static e4m3_run run_of(lk_program_options o, int steps) {
  lk_program *p = opened(model(0.1), o);
  e4m3_run r = {0};
  lk_memory_reset_peak(open_cpu()->memory);
  for (int t = 0; t < steps; t++) r.loss = train_step(p, t).loss;
  lk_memory_stats stats;
  lk_program_memory plan;
  lk_memory_read(open_cpu()->memory, &stats);
  lk_program_memory_of(p, &plan);
  CHECK(stats.peak == plan.peak, "peak %lld, planned %lld",
        (long long)stats.peak, (long long)plan.peak);
  r.state = state_hash(p);
  lk_program_free(p);
  return r;
}

static void check_modes(lk_program_options o) {
  o.recompute = LK_RECOMPUTE_NONE;
  e4m3_run none = run_of(o, 3);
  for (int r = LK_RECOMPUTE_LIGHT; r <= LK_RECOMPUTE_BLOCK; r++) {
    o.recompute = (lk_recompute)r;
    e4m3_run again = run_of(o, 3);
    CHECK(again.state == none.state && again.loss == none.loss,
          "recompute %s differs", lk_recompute_words[r]);
  }
}

static void test_modes(void) {
  lk_program_options o = options(true);
  check_modes(o);
  o.accumulate = 2;
  check_modes(o);
  o.saved_int8 = true;
  check_modes(o);
  o = options(true);
  o.weights.format = lk_weight_format_find("nf4r");
  check_modes(o);
  o.accumulate = 2;
  check_modes(o);
}

/* Thirty steps on four batches end where f32 ends. */
static void test_learning(void) {
  double loss[2][2], evaluated[2];
  for (int i = 0; i < 2; i++) {
    int32_t ids[256], targets[256];
    double correct = 0;
    lk_program *p = opened(model(0), options(i == 0));
    evaluated[i] = 0;
    for (int t = 0; t < 30; t++) {
      lk_step_result r = train_step(p, t % 4);
      if (t == 0) loss[i][0] = r.loss;
      loss[i][1] = r.loss;
    }
    random_batch(1, ids, targets, MODEL_B * 16);
    must(lk_program_evaluate(p, ids, targets, &evaluated[i], &correct));
    evaluated[i] /= MODEL_B * 16;
    lk_program_free(p);
  }
  printf("# e4m3 %.4f … %.4f, f32 %.4f … %.4f\n", loss[0][0], loss[0][1],
         loss[1][0], loss[1][1]);
  CHECK(loss[0][1] < loss[0][0] - 0.1, "learns nothing");
  CHECK(fabs(loss[0][1] / loss[1][1] - 1) < 0.02, "loss %g, f32's %g",
        loss[0][1], loss[1][1]);
  CHECK(fabs(evaluated[0] / evaluated[1] - 1) < 0.02, "evaluated %g, %g",
        evaluated[0], evaluated[1]);
}

int main(void) {
  RUN(test_emission);
  RUN(test_fallback);
  RUN(test_exact_gradients);
  RUN(test_gradients);
  RUN(test_modes);
  RUN(test_learning);
  lk_context_close(open_cpu());
  return check_done();
}
