/* tf32 as the graph floor sees it: the context says so while a program that
 * wants it runs, its generator included, and at no other time. What a device
 * makes of it: test_backends_program.c. */
#include "check.h"
#include "model.h"

#include "../../kernels/graph/generate.h"

/* Calls seen with the context's flag up, and down. */
typedef struct seen {
  lk_context *context;
  int up, down;
} seen;

static void look(void *state, const lk_call *call) {
  seen *s = state;
  (void)call;
  *(s->context->tf32 ? &s->up : &s->down) += 1;
}

/* Feed a generator over `p` some ids. */
static void generate(lk_program *p, const int32_t *ids) {
  lk_generator_options o = {.batch = 1};
  lk_generator *g = NULL;
  lk_error e = {0};
  float logits[MODEL_V];
  CHECK(lk_generator_new(p, &o, &g, &e) == LK_OK, "%s", e.message);
  if (g == NULL) return;
  must(lk_generator_feed(g, ids, 3));
  must(lk_generator_logits(g, logits));
  lk_generator_free(g);
}

/* What the calls of a program's training, evaluation and generator see. */
static seen watched(bool tf32) {
  seen s = {.context = open_cpu()};
  lk_program_options o = small_options();
  int32_t ids[MODEL_B * MODEL_T] = {0};
  double loss = 0, correct = 0;
  o.tf32 = tf32;
  lk_program *p = compile_model(decoder(0, 2), o, muon_and_adamw());
  must(lk_program_open(p, s.context, LK_RUN_ARENA));
  s.context->tracer = (lk_tracer){.before = look, .state = &s};
  train_step(p, 0);
  must(lk_program_evaluate(p, ids, ids, &loss, &correct));
  int before = s.up + s.down;
  generate(p, ids);
  CHECK(s.up + s.down > before, "the generator was not watched");
  CHECK(!s.context->tf32, "the flag stays up");
  s.context->tracer = (lk_tracer){0};
  lk_program_free(p);
  return s;
}

static void test_flag(void) {
  seen s = watched(true);
  CHECK(s.up > 0 && s.down == 0, "%d calls up, %d down", s.up, s.down);
  s = watched(false);
  CHECK(s.up == 0 && s.down > 0, "%d calls up, %d down", s.up, s.down);
}

/* A step that fails leaves the flag down, too. */
static bool always(void) { return true; }

static void test_failure(void) {
  lk_context *context = open_cpu();
  lk_program_options o = small_options();
  o.tf32 = true;
  lk_program *p = compile_model(decoder(0, 2), o, muon_and_adamw());
  must(lk_program_open(p, context, LK_RUN_ARENA));
  context->interrupted = always;
  CHECK(lk_program_begin(p, 0) == LK_INTERRUPTED, "not interrupted");
  context->interrupted = NULL;
  CHECK(!context->tf32, "the flag stays up");
  lk_program_free(p);
}

int main(void) {
  RUN(test_flag);
  RUN(test_failure);
  return check_done();
}
