/* How fast each CPU operator is at the shapes that training has: milliseconds,
 * GFLOP/s and GB/s by the rule's own counts, and products beside the library
 * with as many threads of its own. `bench_ops [word …]` runs the lines whose
 * names contain a word. With one lane (LLMHOST_THREADS=1) it is processor time
 * that counts, so that a busy machine can still tell two versions apart. */
#include <time.h>

#include <cblas.h>

#include "ops.h"

typedef struct sizes {
  const char *name;
  int64_t batch, seq, width, hidden, heads, vocabulary;
} sizes;

static lk_context *context;
static int word_count;
static char **words;

static double now(void) {
  struct timespec t;
  bool alone = cpu_lanes(context) == 1;
  clock_gettime(alone ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool wanted(const char *name) {
  for (int i = 0; i < word_count; i++)
    if (strstr(name, words[i])) return true;
  return word_count == 0;
}

/* The least time of some runs, for about 0.3 s. */
static double measure(void (*run)(void *), void *state) {
  double best = 1e9, start = now();
  for (int n = 0; n < 3 || (now() - start < 0.3 && n < 1000); n++) {
    double t = now();
    run(state);
    t = now() - t;
    best = t < best ? t : best;
  }
  return best;
}

static void run_call(void *state) {
  if (lk_run(context, state) != LK_OK) {
    printf("# %s\n", context->error.message);
    abort();
  }
}

static void bench(const char *model, const char *label, lk_call call) {
  lk_cost cost;
  char name[64];
  snprintf(name, sizeof name, "%s %s", model, label);
  if (!wanted(name)) return;
  ops_results(&call);
  if (lk_rule(context->profile, &call, &cost, &context->error) != LK_OK) {
    printf("# %s\n", context->error.message);
    return;
  }
  call.scratch = ops_memory(cost.scratch);
  double t = measure(run_call, &call);
  printf("%-32s %9.3f ms %8.1f GFLOP/s %7.2f GB/s\n", name, t * 1e3,
         cost.flops / t * 1e-9, cost.bytes / t * 1e-9);
}

/* --- products, beside the library with its own threads ------------------- */

typedef struct product {
  int m, n, k;
  bool ta, tb;
  float *a, *b, *c;
} product;

extern void openblas_set_num_threads(int count) __attribute__((weak));

static void run_library(void *state) {
  const product *p = state;
  cblas_sgemm(CblasRowMajor, p->ta ? CblasTrans : CblasNoTrans,
              p->tb ? CblasTrans : CblasNoTrans, p->m, p->n, p->k, 1, p->a,
              p->ta ? p->m : p->k, p->b, p->tb ? p->k : p->n, 0, p->c, p->n);
}

/* Ours and the library's in turn, the best of each. */
static void bench_product(const char *model, const char *label, int64_t m,
                          int64_t n, int64_t k, bool ta, bool tb) {
  char name[64];
  snprintf(name, sizeof name, "%s %s %c%c", model, label, ta ? 't' : 'n',
           tb ? 't' : 'n');
  if (!wanted(name)) return;
  product p = {(int)m, (int)n, (int)k, ta, tb, ops_numbers(m * k, 1, 1),
               ops_numbers(n * k, 2, 1), ops_numbers(m * n, 3, 1)};
  lk_call call = lk_call_new(LK_OP_matmul);
  call.attr.transpose_a = ta;
  call.attr.transpose_b = tb;
  call.in[0] = ta ? OPS_F32(p.a, k, m) : OPS_F32(p.a, m, k);
  call.in[1] = tb ? OPS_F32(p.b, n, k) : OPS_F32(p.b, k, n);
  call.out[0] = OPS_F32(p.c, m, n);
  double ours = 1e9, theirs = 1e9, flops = 2.0 * (double)(m * n) * (double)k;
  for (int turn = 0; turn < 3; turn++) {
    ours = fmin(ours, measure(run_call, &call));
    if (openblas_set_num_threads) openblas_set_num_threads(cpu_lanes(context));
    theirs = fmin(theirs, measure(run_library, &p));
    if (openblas_set_num_threads) openblas_set_num_threads(1);
  }
  printf("%-32s %9.3f ms %8.1f GFLOP/s, library %6.1f: %.2f\n", name,
         ours * 1e3, flops / ours * 1e-9, flops / theirs * 1e-9,
         theirs / ours);
  ops_free();
}

static void bench_products(const sizes *s) {
  int64_t n = s->batch * s->seq, c = s->width;
  const struct {
    const char *name;
    int64_t out, in;
  } weights[] = {{"qkv", 3 * c, c}, {"o", c, c}, {"up", s->hidden, c},
                 {"down", c, s->hidden}};
  for (int i = 0; i < 4; i++) {
    int64_t out = weights[i].out, in = weights[i].in;
    bench_product(s->name, weights[i].name, n, out, in, false, true);
    bench_product(s->name, weights[i].name, n, in, out, false, false);
    bench_product(s->name, weights[i].name, out, in, n, true, false);
  }
}

/* --- the other operators ------------------------------------------------- */

static const double drop = 0.1;

static lk_tensor matrix(int64_t rows, int64_t columns, uint64_t seed) {
  return OPS_F32(ops_numbers(rows * columns, seed, 1), rows, columns);
}

static lk_tensor vector(int64_t count, uint64_t seed) {
  return OPS_F32(ops_numbers(count, seed, 1), count);
}

static void bench_rows(const sizes *s) {
  int64_t n = s->batch * s->seq, c = s->width;
  lk_call norm = lk_call_new(LK_OP_residual_norm);
  norm.attr = (lk_attr){.p = drop, .stream = 1, .eps = 1e-6};
  norm.in[0] = matrix(n, c, 1);
  norm.in[1] = matrix(n, c, 2);
  norm.in[2] = vector(c, 3);
  norm.in[3] = ops_clock(1, 2, 0);
  bench(s->name, "residual_norm", norm);
  lk_call back = lk_call_new(LK_OP_rmsnorm_backward);
  back.in[0] = norm.in[0];
  back.in[1] = norm.in[1];
  back.in[2] = norm.in[2];
  back.in[3] = vector(n, 4);
  back.in[4] = matrix(n, c, 5);
  bench(s->name, "rmsnorm_backward", back);
  lk_call drops = lk_call_new(LK_OP_dropout);
  drops.attr = norm.attr;
  drops.in[0] = norm.in[0];
  drops.in[1] = norm.in[3];
  bench(s->name, "dropout", drops);
  lk_call silu = lk_call_new(LK_OP_silu);
  silu.attr = norm.attr;
  silu.in[0] = matrix(n, s->hidden, 6);
  silu.in[1] = norm.in[3];
  bench(s->name, "silu", silu);
  lk_call slope = lk_call_new(LK_OP_silu_backward);
  slope.attr = norm.attr;
  slope.in[0] = matrix(n, s->hidden, 7);
  slope.in[1] = silu.in[0];
  slope.in[2] = norm.in[3];
  bench(s->name, "silu_backward", slope);
  lk_call add = lk_call_new(LK_OP_add);
  add.in[0] = norm.in[0];
  add.in[1] = norm.in[1];
  bench(s->name, "add", add);
  ops_free();
}

static void bench_attention(const sizes *s, double p) {
  int64_t n = s->batch * s->seq, c = s->width;
  lk_call rope = lk_call_new(LK_OP_rope);
  rope.attr = (lk_attr){.batch = s->batch, .seq = s->seq, .heads = s->heads,
                        .kv_heads = s->heads, .width = c / s->heads,
                        .scale = 0.15, .p = p, .stream = 1};
  rope.in[0] = matrix(n, 3 * c, 1);
  rope.in[1] = OPS_F32(ops_numbers(s->seq * c / s->heads, 2, 1), s->seq,
                       c / s->heads / 2, 2);
  bench(s->name, "rope", rope);
  lk_call f = lk_call_new(LK_OP_attention);
  f.attr = rope.attr;
  f.in[0] = rope.in[0];
  if (p > 0) f.in[1] = ops_clock(1, 2, 0);
  ops_results(&f);
  bench(s->name, p > 0 ? "attention p" : "attention", f);
  lk_call g = lk_call_new(LK_OP_attention_backward);
  g.attr = f.attr;
  g.in[0] = matrix(n, c, 3);
  g.in[1] = f.in[0];
  g.in[2] = matrix(n, c, 4);
  g.in[3] = OPS_F32(ops_numbers(n * s->heads, 5, 1), s->batch, s->heads,
                    s->seq);
  g.in[4] = f.in[1];
  bench(s->name, p > 0 ? "attention_backward p" : "attention_backward", g);
  ops_free();
}

static void bench_head(const sizes *s) {
  int64_t n = s->batch * s->seq, c = s->width, v = s->vocabulary;
  int32_t *ids = ops_memory(n * 4);
  for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)(i * 7919 % v);
  float *control = ops_numbers(LK_CONTROL, 1, 1);
  control[LK_CONTROL_LOSS_SCALE] = 1;
  lk_call head = lk_call_new(LK_OP_head_loss_train);
  head.attr.chunk = cpu_larger(context->profile->head_chunk_bytes / (v * 4), 1);
  head.attr.value = 1e-3;
  head.in[0] = matrix(n, c, 2);
  head.in[1] = matrix(v, c, 3);
  head.in[2] = OPS_I32(ids, n);
  head.in[3] = OPS_F32(control, LK_CONTROL);
  bench(s->name, "head_loss_train", head);
  lk_call loss = lk_call_new(LK_OP_head_loss);
  loss.attr = head.attr;
  for (int i = 0; i < 3; i++) loss.in[i] = head.in[i];
  bench(s->name, "head_loss", loss);
  lk_call embed = lk_call_new(LK_OP_embed);
  embed.attr.scale = 20;
  embed.in[0] = head.in[2];
  embed.in[1] = head.in[1];
  bench(s->name, "embed", embed);
  lk_call back = lk_call_new(LK_OP_embed_backward);
  back.attr = (lk_attr){.scale = 20, .accumulate = true};
  back.in[0] = head.in[0];
  back.in[1] = head.in[2];
  back.out[0] = head.in[1];
  bench(s->name, "embed_backward", back);
  ops_free();
}

int main(int count, char **arguments) {
  static const sizes models[] = {{"nano", 8, 256, 320, 1280, 8, 4096},
                                 {"512d", 4, 512, 512, 2048, 8, 49152}};
  ops_level = cpu_level();
  (void)check_skipped; /* the bench checks nothing */
  word_count = count - 1;
  words = arguments + 1;
  context = ops_open(lk_profile_find("cpu")->lanes);
  printf("# level %s, %d lanes\n", ops_level, cpu_lanes(context));
  for (int i = 0; i < 2; i++) {
    bench_products(&models[i]);
    bench_rows(&models[i]);
    bench_attention(&models[i], 0);
    bench_attention(&models[i], drop);
    bench_head(&models[i]);
  }
  lk_context_close(context);
  return 0;
}
