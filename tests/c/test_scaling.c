/* Loss scaling: the rule by which the scale moves, and on whole programs of the
 * CPU that a skipped step leaves everything but the scale as it was, that the
 * scale shows nowhere else, and that a checkpoint goes on with it. */
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>

#include "check.h"
#include "model.h"

#include "../../host/bind/checkpoint.h"

/* --- the rule ------------------------------------------------------------ */

static void check_scaling(const char *what, lk_scaling s, double scale,
                          int64_t good, int64_t skipped) {
  CHECK(s.scale == scale && s.good == good && s.skipped == skipped,
        "%s: scale %g, %lld good, %lld skipped", what, s.scale,
        (long long)s.good, (long long)s.skipped);
}

static void test_rule(void) {
  lk_scaling s = lk_scaling_first(true);
  check_scaling("at first", s, 65536, 0, 0);
  check_scaling("unscaled", lk_scaling_first(false), 1, 0, 0);
  s = lk_scaling_next(lk_scaling_next(s, true), true);
  check_scaling("two good steps", s, 65536, 2, 0);
  s = lk_scaling_next(s, false);
  check_scaling("a skipped one", s, 32768, 0, 1);
  for (int i = 0; i < 1999; i++) s = lk_scaling_next(s, true);
  check_scaling("1999 good steps", s, 32768, 1999, 1);
  s = lk_scaling_next(s, true);
  check_scaling("2000", s, 65536, 0, 1);
  s.good = 1999;
  s = lk_scaling_next(s, false);
  check_scaling("the last of 2000 skipped", s, 32768, 0, 2);
}

static void test_rule_ends(void) {
  const double most = 16777216;
  lk_scaling s = {.scale = most, .good = 1999};
  check_scaling("at the top", lk_scaling_next(s, true), most, 0, 0);
  s.scale = ldexp(1, 100);
  check_scaling("above it", lk_scaling_next(s, true), s.scale, 0, 0);
  check_scaling("and down", lk_scaling_next(s, false), ldexp(1, 99), 0, 1);
  s = (lk_scaling){.scale = 1};
  for (int i = 0; i < 100; i++) s = lk_scaling_next(s, false);
  check_scaling("at the bottom", s, 1 / most, 0, 100);
}

/* --- programs ------------------------------------------------------------ */

typedef struct kind {
  const char *name, *format;
  int accumulate;
  lk_optimizer_kind optimizer;
} kind;

static const kind kinds[] = {{"f32", "f32", 1, LK_MUON},
                             {"accumulated", "f32", 2, LK_MUON},
                             {"nf4r", "nf4r", 1, LK_MUON},
                             {"nf4r, accumulated", "nf4r", 2, LK_MUON},
                             {"stochastic", "nf4_stochastic", 1, LK_MUON},
                             {"adamw", "f32", 1, LK_ADAMW},
                             {"sgd", "f32", 1, LK_SGD}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static lk_optimizer optimizer_of(const kind *k) {
  lk_optimizer o = muon_and_adamw();
  if (k->optimizer == LK_MUON) return o;
  o.groups = 1;
  o.group[0] = o.group[1];
  if (k->optimizer == LK_SGD)
    o.group[0] = (lk_optimizer_group){.kind = LK_SGD, .lr = 0.1, .beta1 = 0.9};
  return o;
}

/* Open, scaling if so, where `s` says. */
static lk_program *program_of(const kind *k, bool scales, lk_scaling s) {
  lk_program_options o = small_options();
  o.weights.format = lk_weight_format_find(k->format);
  o.accumulate = k->accumulate;
  o.scale_losses = scales;
  o.fuse = 0;
  lk_program *p = compile_model(decoder(0.1, 2), o, optimizer_of(k));
  must(lk_program_open(p, open_cpu(), LK_RUN_ARENA));
  lk_program_set_scaling(p, s);
  return p;
}

/* Steps from `step` on that are skipped; the number of the one that is not,
 * whose result is *r. */
static int steps_skipped(const char *name, lk_program *p, int step,
                         lk_step_result *r) {
  uint64_t state = state_hash(p);
  double factor = lk_program_muon_factor(p);
  for (; step < 200; step++) {
    lk_scaling was = lk_program_scaling(p);
    *r = train_step(p, step);
    CHECK(r->scale == was.scale, "%s: scale %g", name, r->scale);
    if (!r->skipped) return step;
    CHECK(!r->finite, "%s: a skipped step is finite", name);
    CHECK(isfinite(r->loss), "%s: loss %g", name, r->loss);
    CHECK(state_hash(p) == state, "%s: step %d changed the state", name, step);
    CHECK(lk_program_muon_factor(p) == factor, "%s: the clip factor", name);
    check_scaling(name, lk_program_scaling(p), was.scale / 2, 0,
                  was.skipped + 1);
  }
  return step;
}

/* AdamW's t of the step that ran last. */
static float update_number(lk_program *p) {
  float control[LK_CONTROL];
  int buffer = lk_store_find_buffer(lk_program_store(p), "control");
  must(lk_machine_download(lk_program_machine(p), buffer, control,
                           sizeof control));
  return control[LK_CONTROL_STEP];
}

/* From a scale at which f32 itself overflows the program finds one at which it
 * does not, and goes on as if it had begun there without any scale: one is a
 * power of two, and AdamW counts the updates that were made. */
static void check_kind(const kind *k) {
  lk_step_result r, plain;
  lk_program *p = program_of(k, true, (lk_scaling){.scale = ldexp(1, 127)});
  int step = steps_skipped(k->name, p, 0, &r);
  CHECK(step >= 20 && step < 120, "%s: %d skipped", k->name, step);
  lk_program_set_scaling(p, (lk_scaling){r.scale / 64, 1, step});
  lk_program *q = program_of(k, false, (lk_scaling){1, 0, step});
  for (int n = 0; n < 6; n++) {
    if (n > 0) r = train_step(p, step + n);
    plain = train_step(q, step + n);
    CHECK(r.finite && !r.skipped && !plain.skipped, "%s: step %d", k->name, n);
    CHECK(r.loss == plain.loss && r.norm == plain.norm && plain.scale == 1,
          "%s, step %d: loss %.9g, norm %.9g, without a scale %.9g, %.9g",
          k->name, n, r.loss, r.norm, plain.loss, plain.norm);
    CHECK(update_number(p) == (float)(n + 1), "%s: update %g", k->name,
          (double)update_number(p));
  }
  CHECK(state_hash(p) == state_hash(q), "%s: the states differ", k->name);
  lk_program_free(q);
  lk_program_free(p);
}

static void test_skipped_steps(void) {
  for (int i = 0; i < KINDS; i++) check_kind(&kinds[i]);
}

/* A scale that has grown too far amid training: momenta and moments are not
 * what they were at the start. */
static void test_skipped_later(void) {
  for (int i = 0; i < KINDS; i++) {
    lk_step_result r;
    lk_program *p = program_of(&kinds[i], true, lk_scaling_first(true));
    for (int n = 0; n < 3; n++) {
      r = train_step(p, n);
      CHECK(r.finite && r.scale == 65536, "%s: step %d", kinds[i].name, n);
    }
    lk_program_set_scaling(p, (lk_scaling){ldexp(1, 127), 1999, 0});
    int step = steps_skipped(kinds[i].name, p, 3, &r);
    CHECK(step > 3 && r.finite, "%s: %d steps", kinds[i].name, step);
    lk_program_free(p);
  }
}

/* Without scaling nothing is skipped, and a fixed scale stays. */
static void test_unscaled(void) {
  lk_program *p = program_of(&kinds[0], false, (lk_scaling){.scale = 1024});
  lk_step_result r = train_step(p, 0);
  CHECK(r.finite && r.scale == 1024 && !lk_program_scales(p), "%g", r.scale);
  check_scaling("fixed", lk_program_scaling(p), 1024, 0, 0);
  lk_program_set_scaling(p, (lk_scaling){.scale = ldexp(1, 127)});
  r = train_step(p, 1);
  CHECK(!r.finite && !r.skipped, "skipped");
  lk_program_free(p);
  p = program_of(&kinds[0], true, (lk_scaling){2, 3, 4});
  must(lk_program_reset(p));
  check_scaling("reset", lk_program_scaling(p), 65536, 0, 0);
  lk_program_free(p);
}

/* --- what f16 compiles to ------------------------------------------------ */

static lk_status compile_f16(int fuse, const char *format, bool split,
                             lk_program **p, lk_error *e) {
  lk_program_options o = small_options();
  lk_optimizer optimizer = muon_and_adamw();
  o.weights.compute = LK_F16;
  o.weights.format = lk_weight_format_find(format);
  optimizer.group[0].split = split;
  o.fuse = fuse;
  lk_layer *model = decoder(0.1, 2);
  lk_status status = lk_program_new(&o, model, &optimizer,
                                    lk_profile_find("cuda"), p, e);
  lk_layer_release(model);
  return status;
}

static void test_f16_scales(void) {
  lk_program *p = NULL;
  lk_error e = {0};
  CHECK(compile_f16(1, "nf4r", false, &p, &e) == LK_ARGUMENT, "fused");
  CHECK(strstr(e.message, "fused updates need bf16 or f32"), "%s", e.message);
  CHECK(compile_f16(-1, "nf4r", false, &p, &e) == LK_OK, "%s", e.message);
  if (p == NULL) return;
  CHECK(!lk_program_fused(p) && lk_program_scales(p), "f16");
  check_scaling("f16", lk_program_scaling(p), 65536, 0, 0);
  lk_program_free(p);
}

/* Directions, which f16's range does not hold, are bf16 from the momentum to
 * the update, also where q, k and v go apart. */
static void test_f16_directions(void) {
  for (int split = 0; split < 2; split++) {
    lk_program *p = NULL;
    lk_error e = {0};
    int seen = 0;
    CHECK(compile_f16(0, "f32", split, &p, &e) == LK_OK, "%s", e.message);
    if (p == NULL) return;
    const lk_graph *g = lk_program_graph(p, true);
    for (int i = 0; i < g->instr_count; i++) {
      const lk_instr *k = &g->instrs[i];
      if (k->op != LK_OP_newton_schulz && k->op != LK_OP_muon_update) continue;
      lk_dtype dtype = g->values[k->in[0]].dtype;
      CHECK(dtype == LK_BF16, "split %d: %s", split, lk_dtype_word(dtype));
      seen++;
    }
    CHECK(seen > 8, "%d calls", seen);
    lk_program_free(p);
  }
}

/* --- checkpoints --------------------------------------------------------- */

static const char *folder(const char *name) {
  static char path[512];
  const char *root = getenv("TMPDIR");
  snprintf(path, sizeof path, "%s/%s", root ? root : "/tmp", name);
  mkdir(path, 0700);
  return path;
}

static void move(lk_status (*how)(lk_program *, const char *, lk_error *),
                 lk_program *p, const char *name) {
  lk_error e = {0};
  CHECK(how(p, folder(name), &e) == LK_OK, "%s", e.message);
}

enum { RESUMED = 12 };

/* Stopped after skipped steps, one before the scale doubles: the resumed run
 * goes as the one that was not stopped. */
static void test_resume(void) {
  lk_program *p = program_of(&kinds[2], true, (lk_scaling){256, 1997, 5});
  for (int n = RESUMED - 2; n < RESUMED; n++) train_step(p, n);
  move(lh_checkpoint_save, p, "scaling");
  lk_program *q = program_of(&kinds[2], true, lk_scaling_first(true));
  move(lh_checkpoint_load, q, "scaling");
  check_scaling("resumed", lk_program_scaling(q), 256, 1999, 5);
  for (int n = RESUMED; n < RESUMED + 3; n++) {
    lk_step_result x = train_step(p, n), y = train_step(q, n);
    CHECK(x.loss == y.loss && x.norm == y.norm && x.scale == y.scale,
          "step %d: loss %.9g scale %g, resumed %.9g %g", n, x.loss, x.scale,
          y.loss, y.scale);
    CHECK(x.scale == (n == RESUMED ? 256 : 512), "scale %g", x.scale);
  }
  CHECK(state_hash(p) == state_hash(q), "the resumed run differs");
  lk_program_free(q);
  lk_program_free(p);
}

/* A file of a program that does not scale, as older ones are. */
static void test_resume_unscaled(void) {
  lk_program *p = program_of(&kinds[0], false, lk_scaling_first(false));
  lk_program *q = program_of(&kinds[0], true, (lk_scaling){4, 5, 6});
  move(lh_checkpoint_save, p, "unscaled");
  move(lh_checkpoint_load, q, "unscaled");
  check_scaling("of an unscaled one", lk_program_scaling(q), 65536, 0, 0);
  lk_program_set_scaling(q, (lk_scaling){4, 5, 6});
  move(lh_checkpoint_save, q, "scaled");
  move(lh_checkpoint_load, p, "scaled");
  check_scaling("into an unscaled one", lk_program_scaling(p), 1, 0, 0);
  lk_program_free(q);
  lk_program_free(p);
}

int main(void) {
  RUN(test_rule);
  RUN(test_rule_ends);
  RUN(test_skipped_steps);
  RUN(test_skipped_later);
  RUN(test_unscaled);
  RUN(test_f16_scales);
  RUN(test_f16_directions);
  RUN(test_resume);
  RUN(test_resume_unscaled);
  return check_done();
}
