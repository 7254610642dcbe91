/* The graph floor: gradients of every layer by finite differences, recompute,
 * optimizers' schedules, and names. */
#include <math.h>
#include <stdio.h>

#include "check.h"
#include "model.h"

/* --- gradients ----------------------------------------------------------- */

static double uniform(uint32_t *x) {
  *x = *x * 1664525u + 1013904223u;
  return (double)(*x >> 8) / (double)(1 << 24) * 2 - 1;
}

/* (L(w + e d) − L(w − e d)) / 2e against <dw, d> for a random direction d. The
 * loss is a float mean: its rounding, 1e-7 · 3 / 2e, is the noise. */
static void check_parameter(lk_program *p, const lk_parameter *w,
                            uint32_t seed) {
  lk_tensor gradient;
  lk_tensor master = lk_machine_tensor(lk_program_machine(p),
                                       w->part[LK_PART_MASTER]);
  int64_t n = lk_shape_count(w->shape);
  float *values = master.data, *kept = malloc((size_t)n * 4);
  double *d = malloc((size_t)n * sizeof *d), slope = 0, length = 0, norm = 0;
  forward_backward(p, 1);
  must(lk_program_gradient(p, w->name, &gradient));
  memcpy(kept, values, (size_t)n * 4);
  for (int64_t i = 0; i < n; i++) {
    double g = ((float *)gradient.data)[i];
    d[i] = uniform(&seed) + (g > 0 ? 0.5 : -0.5);  /* mostly uphill */
    slope += g * d[i];
    length += d[i] * d[i];
    norm += g * g;
  }
  double e = 2e-2 / sqrt(length), loss[2];
  for (int side = 0; side < 2; side++) {
    for (int64_t i = 0; i < n; i++)
      values[i] = kept[i] + (float)((side ? -e : e) * d[i]);
    loss[side] = forward_backward(p, 1);
  }
  memcpy(values, kept, (size_t)n * 4);
  double measured = (loss[0] - loss[1]) / (2 * e);
  CHECK(norm > 0, "%s: the gradient is zero", w->name);
  CHECK(fabs(measured - slope) <= 4e-3 * fabs(slope) + 3e-5 / e * 1e-2,
        "%s: slope %.7g, differences give %.7g", w->name, slope, measured);
  free(kept);
  free(d);
}

/* Every parameter of embedding, `body`, norm, head. */
static void check_layer(lk_layer *body, bool tied) {
  lk_program *p = compile_model(model_around(body, tied), small_options(),
                                (lk_optimizer){.groups = 1,
                                               .group = {{.kind = LK_SGD}}});
  must(lk_program_open(p, open_cpu(), LK_RUN_ARENA));
  const lk_store *s = lk_program_store(p);
  for (int i = 1; i < s->parameter_count; i++)
    for (uint32_t seed = 1; seed <= 2; seed++)
      check_parameter(p, &s->parameters[i], seed * 7919);
  lk_program_free(p);
}

static void test_gradient_linear(void) {
  check_layer(LAYER_OF(linear, .in = MODEL_C, .out = MODEL_C, .bias = true),
              false);
}

static void test_gradient_silu_dropout(void) {
  check_layer(TREE_OF(sequential, LAYER_OF(silu, 0),
                      LAYER_OF(dropout, .p = 0.3)), false);
}

static void test_gradient_gated(void) {
  check_layer(LAYER_OF(gated, .in = MODEL_C, .hidden = 24, .p = 0.2), false);
}

static void test_gradient_residual(void) {
  check_layer(TREE_OF(residual, LAYER_OF(linear, .in = MODEL_C,
                                         .out = MODEL_C),
                      LAYER_OF(dropout, .p = 0.2)), true);
}

static void test_gradient_attention(void) {
  check_layer(LAYER_OF(attention, .in = MODEL_C, .heads = 4, .rope = true,
                       .rope_base = 10000, .rope_fraction = 0.5,
                       .rope_inclusive = true), false);
}

static void test_gradient_attention_grouped(void) {
  check_layer(LAYER_OF(attention, .in = MODEL_C, .heads = 4, .kv_heads = 2,
                       .p = 0.2, .rope = true, .rope_base = 500,
                       .rope_fraction = 1, .rope_inverse = true), false);
}

/* Calls of `op` in the backward, those that make values again left out. */
static int backward_calls(const lk_graph *g, lk_op op) {
  int n = 0;
  for (int i = 0; i < g->instr_count; i++)
    n += g->instrs[i].op == op && g->instrs[i].backward &&
         !g->instrs[i].recomputed;
  return n;
}

static const lk_instr *only_call(const lk_graph *g, lk_op op) {
  for (int i = 0; i < g->instr_count; i++)
    if (g->instrs[i].op == op) return &g->instrs[i];
  abort();
}

/* Rotation and dropout of gradients belong to the calls that make them, and on
 * a device attention keeps its draws where memory is not what counts. */
static void check_joined(const char *backend, lk_recompute recompute,
                         bool int8, bool inverse, bool keeps) {
  lk_program_options o = small_options();
  lk_optimizer sgd = {.groups = 1, .group = {{.kind = LK_SGD}}};
  lk_program *p = NULL;
  lk_error e = {0};
  o.seq = 16;
  o.recompute = recompute;
  o.saved_int8 = int8;
  o.weights.compute = lk_profile_find(backend)->compute;
  lk_layer *m = model_around(
      TREE_OF(residual, LAYER_OF(rmsnorm, .in = MODEL_C),
              LAYER_OF(attention, .in = MODEL_C, .heads = 2, .p = 0.1,
                       .rope = true, .rope_base = 100, .rope_fraction = 1,
                       .rope_inverse = inverse),
              LAYER_OF(dropout, .p = 0.1)), true);
  lk_status status = lk_program_new(&o, m, &sgd, lk_profile_find(backend), &p,
                                    &e);
  lk_layer_release(m);
  CHECK(status == LK_OK, "%s", e.message);
  if (status != LK_OK) return;
  const lk_graph *g = lk_program_graph(p, true);
  const lk_instr *f = only_call(g, LK_OP_attention);
  const lk_instr *b = only_call(g, LK_OP_attention_backward);
  CHECK(backward_calls(g, LK_OP_rope) == 0, "%s", backend);
  CHECK(backward_calls(g, LK_OP_dropout) == 0, "%s", backend);
  CHECK(b->in[6] && b->attr.inverse == !inverse, "%s", backend);
  CHECK((f->out[2] != LK_NONE) == keeps && b->in[5] == f->out[2],
        "%s, recompute %d, int8 %d", backend, recompute, int8);
  lk_program_free(p);
}

static void test_gradients_joined(void) {
  check_joined("cpu", LK_RECOMPUTE_NONE, false, false, false);
  check_joined("cuda", LK_RECOMPUTE_NONE, false, true, true);
  check_joined("cuda", LK_RECOMPUTE_NONE, true, false, false);
  check_joined("cuda", LK_RECOMPUTE_LIGHT, false, false, false);
  check_joined("cuda", LK_RECOMPUTE_BLOCK, false, true, false);
}

static void test_gradient_attention_qk_norm(void) {
  check_layer(LAYER_OF(attention, .in = MODEL_C, .heads = 2, .kv_heads = 1,
                       .qk_norm = true), false);
}

static void test_gradient_decoder(void) {
  check_layer(TREE_OF(sequential, decoder_block(0.1, 2),
                      decoder_block(0, 4)), true);
}

/* --- recompute ----------------------------------------------------------- */

static uint64_t hash_after(lk_program_options o, int steps, lk_run_mode mode) {
  lk_program *p = compile_model(decoder(0.1, 2), o, muon_and_adamw());
  must(lk_program_open(p, open_cpu(), mode));
  for (int i = 0; i < steps; i++) train_step(p, i);
  uint64_t h = state_hash(p);
  lk_program_free(p);
  return h;
}

static void check_modes(lk_program_options o, const char *what) {
  uint64_t want = hash_after(o, 3, LK_RUN_ARENA);
  for (int mode = LK_RECOMPUTE_LIGHT; mode <= LK_RECOMPUTE_BLOCK; mode++) {
    o.recompute = (lk_recompute)mode;
    CHECK(hash_after(o, 3, LK_RUN_ARENA) == want, "%s: %s differs from none",
          what, lk_recompute_words[mode]);
  }
  CHECK(hash_after(o, 2, LK_RUN_ARENA) != want, "the hash sees training");
}

static void test_recompute_same_bits(void) {
  check_modes(small_options(), "native");
}

static void test_recompute_same_bits_int8(void) {
  lk_program_options o = small_options();
  o.saved_int8 = true;
  check_modes(o, "int8");
  CHECK(hash_after(o, 3, LK_RUN_ARENA) !=
        hash_after(small_options(), 3, LK_RUN_ARENA), "int8 rounds");
}

static void test_recompute_same_bits_nf4r(void) {
  lk_program_options o = small_options();
  o.weights.format = lk_weight_format_find("nf4r");
  check_modes(o, "nf4r");
  o.fuse = 0;
  check_modes(o, "nf4r, not fused");
}

static void test_recompute_same_bits_accumulated(void) {
  lk_program_options o = small_options();
  o.accumulate = 3;
  check_modes(o, "accumulated");
  o.weights.format = lk_weight_format_find("nf4r");
  check_modes(o, "nf4r, accumulated");
}

/* Fusing changes when updates happen, not what they are. */
static void test_fused_same_bits(void) {
  lk_program_options o = small_options();
  o.fuse = 0;
  uint64_t want = hash_after(o, 3, LK_RUN_ARENA);
  o.fuse = 1;
  CHECK(hash_after(o, 3, LK_RUN_ARENA) == want, "fused differs");
  o.fuse_group = 1;
  CHECK(hash_after(o, 3, LK_RUN_ARENA) == want, "groups of one differ");
}

/* Splitting a step into micro-batches changes rounding, not draws: with
 * dropout on, loss and gradient of the whole are the means of its parts'. */
static void test_micro_batches_draw_alike(void) {
  lk_program_options o = small_options();
  double loss[2], norm[2];
  for (int split = 0; split < 2; split++) {
    o.batch = split ? 1 : MODEL_B;
    o.accumulate = split ? MODEL_B : 1;
    lk_program *p = compile_model(decoder(0.3, 4), o, muon_and_adamw());
    int32_t ids[MODEL_B * MODEL_T], targets[MODEL_B * MODEL_T];
    random_batch(0, ids, targets, MODEL_B * MODEL_T);
    lk_step_result r;
    must(lk_program_open(p, open_cpu(), LK_RUN_ARENA));
    must(lk_program_begin(p, 0));
    for (int i = 0; i < o.accumulate; i++)
      must(lk_program_micro(p, ids + i * MODEL_T, targets + i * MODEL_T));
    must(lk_program_finish(p, &r));
    loss[split] = r.loss;
    norm[split] = r.norm;
    lk_program_free(p);
  }
  CHECK(fabs(norm[0] - norm[1]) < 1e-5 * norm[0], "norms %.9g and %.9g",
        norm[0], norm[1]);
  CHECK(fabs(loss[0] - loss[1]) < 1e-6 * loss[0], "%.9g and %.9g", loss[0],
        loss[1]);
}

/* --- what a step asks of the device --------------------------------------- */

static int downloads, waits;

static lk_status counted_download(lk_context *context, void *host,
                                  const void *device, int64_t bytes) {
  downloads++;
  return lk_cpu_backend()->download(context, host, device, bytes);
}

static lk_status counted_wait(lk_context *context) {
  waits++;
  return lk_cpu_backend()->synchronize(context);
}

/* Each download waits for the device: a step has one, an evaluation too. */
static void test_one_wait_a_step(void) {
  lk_context *x = open_cpu();
  lk_backend counting = *lk_cpu_backend();
  const lk_backend *plain = x->backend;
  lk_program_options o = small_options();
  int32_t ids[MODEL_B * MODEL_T], targets[MODEL_B * MODEL_T];
  double loss = 0, correct = 0;
  lk_step_result r;
  o.accumulate = 2;
  lk_program *p = compile_model(decoder(0.3, 4), o, muon_and_adamw());
  must(lk_program_open(p, x, LK_RUN_ARENA));
  random_batch(0, ids, targets, MODEL_B * MODEL_T);
  counting.download = counted_download;
  counting.synchronize = counted_wait;
  x->backend = &counting;
  must(lk_program_begin(p, 0));
  for (int i = 0; i < 2; i++) must(lk_program_micro(p, ids, targets));
  must(lk_program_finish(p, &r));
  CHECK(downloads == 1 && waits == 0, "%d downloads, %d waits", downloads,
        waits);
  must(lk_program_evaluate(p, ids, targets, &loss, &correct));
  CHECK(downloads == 2 && waits == 0, "%d downloads, %d waits", downloads,
        waits);
  x->backend = plain;
  CHECK(r.tokens == 2 * MODEL_B * MODEL_T && r.norm > 0 && r.rate == 0.5,
        "%lld tokens, norm %g, rate %g", (long long)r.tokens, r.norm, r.rate);
  lk_program_free(p);
}

/* --- schedule and names -------------------------------------------------- */

static void test_schedule(void) {
  lk_schedule s = {.kind = LK_COSINE, .warmup = 0.1, .final = 0.1,
                   .steps = 20};
  CHECK(lk_schedule_rate(&s, 0) == 0.5, "%g", lk_schedule_rate(&s, 0));
  CHECK(lk_schedule_rate(&s, 1) == 1, "%g", lk_schedule_rate(&s, 1));
  CHECK(lk_schedule_rate(&s, 2) == 1, "%g", lk_schedule_rate(&s, 2));
  double middle = lk_schedule_rate(&s, 11);
  CHECK(fabs(middle - 0.55) < 1e-12, "%.15g", middle);
  CHECK(fabs(lk_schedule_rate(&s, 20) - 0.1) < 1e-12, "the end");
  CHECK(fabs(lk_schedule_rate(&s, 99) - 0.1) < 1e-12, "past the end");
}

static void test_glob(void) {
  CHECK(lk_glob_match("blocks.*.weight", "blocks.0.attention.qkv.weight"));
  CHECK(!lk_glob_match("blocks.*.weight", "embedding.weight"));
  CHECK(!lk_glob_match("blocks.*.weight", "blocks.0.bias"));
  CHECK(lk_glob_match("*", ""));
}

static void test_names(void) {
  lk_layer *m = decoder(0, 4);
  lk_store s = {0};
  lk_error e = {0};
  CHECK(lk_layer_collect(m, &s, &e) == LK_OK, "%s", e.message);
  CHECK(lk_store_find(&s, "1.0.attention.qkv.weight") != NULL, "qkv");
  CHECK(lk_store_find(&s, "1.1.rmsnorm_2.weight") != NULL, "a second norm");
  CHECK(lk_store_parameter_count(&s) == 14, "%d",
        lk_store_parameter_count(&s));
  lk_store_free(&s);
  lk_layer_release(m);
}

static void test_model_needs_head(void) {
  lk_layer *m = TREE_OF(sequential,
                        LAYER_OF(embedding, .in = MODEL_V, .out = MODEL_C));
  lk_program_options o = small_options();
  lk_program *p = NULL;
  lk_error e = {0};
  CHECK(lk_program_new(&o, m, NULL, lk_profile_find("cpu"), &p, &e) ==
        LK_ARGUMENT);
  CHECK(strstr(e.message, "must end with nn.head") != NULL, "%s", e.message);
  lk_layer_release(m);
}

/* With `split`, q, k and v are each orthogonalized: the update of a part of r
 * rows has the squared norm r · (lr · scale)², about; fused, all share C. */
static void test_split_qkv(void) {
  lk_optimizer o = muon_and_adamw();
  for (int split = 0; split < 2; split++) {
    o.group[0].split = split;
    o.schedule.warmup = 0;
    lk_program *p = compile_model(decoder(0, 2), small_options(), o);
    must(lk_program_open(p, open_cpu(), LK_RUN_ARENA));
    const lk_parameter *w = lk_store_find(lk_program_store(p),
                                          "1.0.attention.qkv.weight");
    const float *x = lk_machine_buffer(lk_program_machine(p),
                                       w->part[LK_PART_MASTER]);
    float before[32 * MODEL_C];
    memcpy(before, x, sizeof before);
    train_step(p, 0);
    int rows[3] = {16, 8, 8}, at = 0;
    double total = 0;
    for (int part = 0; part < 3; part++) {
      double square = 0;
      for (int i = at; i < at + rows[part] * MODEL_C; i++)
        square += pow((before[i] - x[i]) / 0.01, 2);
      at += rows[part] * MODEL_C;
      total += square;
      CHECK(!split || (square > 0.4 * rows[part] && square < 1.4 * rows[part]),
            "part %d of %d rows: %g", part, rows[part], square);
    }
    /* fused: 32 × 16, at most 16 singular values, scaled by √2 */
    CHECK(split || (total > 0.4 * 32 && total < 1.4 * 32), "%g", total);
    lk_program_free(p);
  }
  lk_program_options options = small_options();
  options.weights.format = lk_weight_format_find("nf4r");
  o.group[0].split = true;
  lk_program *p = compile_model(decoder(0, 2), options, o);
  must(lk_program_open(p, open_cpu(), LK_RUN_ARENA));
  CHECK(train_step(p, 0).finite, "4-bit, split");
  lk_program_free(p);
}

/* A NaN in the weights is noticed in its step and stops the updates. */
static void test_not_finite(void) {
  lk_program *p = compile_model(decoder(0, 4), small_options(),
                                muon_and_adamw());
  must(lk_program_open(p, open_cpu(), LK_RUN_ARENA));
  const lk_store *s = lk_program_store(p);
  const lk_parameter *w = lk_store_find(s, "1.0.attention.out.weight");
  float *x = lk_machine_buffer(lk_program_machine(p),
                               w->part[LK_PART_MASTER]);
  CHECK(train_step(p, 0).finite, "a sound step");
  x[3] = NAN;
  uint64_t before = state_hash(p);
  CHECK(!train_step(p, 1).finite, "the flag");
  CHECK(state_hash(p) == before, "an update was made");
  lk_program_free(p);
}

int main(void) {
  RUN(test_gradient_linear);
  RUN(test_gradient_silu_dropout);
  RUN(test_gradients_joined);
  RUN(test_gradient_gated);
  RUN(test_gradient_residual);
  RUN(test_gradient_attention);
  RUN(test_gradient_attention_grouped);
  RUN(test_gradient_attention_qk_norm);
  RUN(test_gradient_decoder);
  RUN(test_recompute_same_bits);
  RUN(test_recompute_same_bits_int8);
  RUN(test_recompute_same_bits_nf4r);
  RUN(test_recompute_same_bits_accumulated);
  RUN(test_fused_same_bits);
  RUN(test_micro_batches_draw_alike);
  RUN(test_one_wait_a_step);
  RUN(test_schedule);
  RUN(test_glob);
  RUN(test_names);
  RUN(test_model_needs_head);
  RUN(test_split_qkv);
  RUN(test_not_finite);
  lk_context_close(open_cpu());
  return check_done();
}
