/* head_loss, head_loss_train, metrics: against double-precision loops, the
 * gradients by finite differences of those. */
#include "ops.h"

enum { N = 23, C = 17, V = 61 };

typedef struct head {
  double *x, *w, *loss;
  const int32_t *targets;
  int32_t *correct;
  double factor;
} head;

/* factor · Σ loss */
static double head_objective(void *state) {
  const head *s = state;
  double sum = 0, logits[V];
  for (int n = 0; n < N; n++) {
    int best = 0;
    double total = 0;
    for (int v = 0; v < V; v++) {
      logits[v] = 0;
      for (int c = 0; c < C; c++)
        logits[v] += s->x[n * C + c] * s->w[v * C + c];
      if (logits[v] > logits[best]) best = v;
    }
    for (int v = 0; v < V; v++) total += exp(logits[v] - logits[best]);
    double goal = s->targets[n] < 0 ? 0 : logits[s->targets[n]];
    s->loss[n] = log(total) + logits[best] - goal;
    s->correct[n] = best == s->targets[n];
    if (s->targets[n] < 0) s->loss[n] = 0; /* padding */
    sum += s->loss[n];
  }
  return s->factor * sum;
}

static head some_head(float **x, float **w, int32_t **targets) {
  *x = ops_numbers(N * C, 1, 1.5f);
  *w = ops_numbers(V * C, 2, 1.5f);
  *targets = ops_memory(N * 4);
  for (int n = 0; n < N; n++) (*targets)[n] = n * 7 % V;
  head s = {ops_widen(*x, N * C), ops_widen(*w, V * C), ops_doubles(N),
            *targets, ops_memory(N * 4), 1};
  head_objective(&s);
  for (int n = 0; n < N; n += 2) /* every other one hits */
    for (int v = 0; v < V && !s.correct[n]; v++) {
      (*targets)[n] = v;
      head_objective(&s);
    }
  (*targets)[N / 2] = (*targets)[N - 1] = -1;
  head_objective(&s);
  return s;
}

static void check_head(int64_t chunk) {
  float *x, *w;
  int32_t *targets;
  head s = some_head(&x, &w, &targets);
  lk_call call = lk_call_new(LK_OP_head_loss);
  call.attr.chunk = chunk;
  call.in[0] = OPS_F32(x, N, C);
  call.in[1] = OPS_F32(w, V, C);
  call.in[2] = OPS_I32(targets, N);
  ops_run(&call);
  ops_close("loss", call.out[0].data, s.loss, N, 3e-6);
  CHECK(!memcmp(call.out[1].data, s.correct, N * 4), "correct");
}

static void test_head_loss(void) {
  check_head(1000);
  check_head(7);
  check_head(1);
}

static void check_train(int64_t chunk, bool accumulate) {
  float *x, *w, *control = ops_numbers(LK_CONTROL, 9, 1);
  int32_t *targets;
  head s = some_head(&x, &w, &targets);
  double *dx = ops_doubles(N * C), *dw = ops_doubles(V * C);
  control[LK_CONTROL_LOSS_SCALE] = 8;
  s.factor = 8 * 0.3;
  ops_differences(head_objective, &s, s.x, N * C, dx);
  ops_differences(head_objective, &s, s.w, V * C, dw);
  head_objective(&s);
  float *old = ops_numbers(V * C, 4, 1);
  for (int i = 0; i < V * C && accumulate; i++) dw[i] += old[i];
  lk_call call = lk_call_new(LK_OP_head_loss_train);
  call.attr = (lk_attr){.chunk = chunk, .value = 0.3,
                        .accumulate = accumulate};
  call.in[0] = OPS_F32(x, N, C);
  call.in[1] = OPS_F32(w, V, C);
  call.in[2] = OPS_I32(targets, N);
  call.in[3] = OPS_F32(control, LK_CONTROL);
  call.out[3] = OPS_F32(old, V, C);
  ops_run(&call);
  ops_close("loss", call.out[0].data, s.loss, N, 3e-6);
  CHECK(!memcmp(call.out[1].data, s.correct, N * 4), "correct");
  ops_close("dx", call.out[2].data, dx, N * C, 1e-5);
  ops_close("dw", call.out[3].data, dw, V * C, 1e-5);
}

static void test_head_loss_train(void) {
  check_train(1000, false);
  check_train(7, false);
  check_train(5, true);
}

/* Equal logits: the first place is the answer. NaN stays visible. */
static void test_head_loss_ties(void) {
  float x[] = {1, 1, 1, NAN}, w[] = {2, 5, 5, 5, 1};
  int32_t targets[] = {1, 2, 4, 1}, want[] = {1, 0, 0, 0};
  lk_call call = lk_call_new(LK_OP_head_loss);
  call.attr.chunk = 2;
  call.in[0] = OPS_F32(x, 4, 1);
  call.in[1] = OPS_F32(w, 5, 1);
  call.in[2] = OPS_I32(targets, 4);
  ops_run(&call);
  CHECK(!memcmp(call.out[1].data, want, sizeof want), "correct");
  CHECK(isnan(((float *)call.out[0].data)[3]), "the loss of a NaN");
}

static void test_head_loss_refuses(void) {
  float x[] = {1}, w[] = {1, 2};
  int32_t target[] = {-2}, correct[1];
  float loss[1], logits[2];
  lk_context *context = ops_open(1);
  lk_call call = lk_call_new(LK_OP_head_loss);
  call.attr.chunk = 1;
  call.in[0] = OPS_F32(x, 1, 1);
  call.in[1] = OPS_F32(w, 2, 1);
  call.in[2] = OPS_I32(target, 1);
  call.out[0] = OPS_F32(loss, 1);
  call.out[1] = OPS_I32(correct, 1);
  call.scratch = logits;
  CHECK(lk_run(context, &call) == LK_ARGUMENT, "a target outside");
  CHECK(!strcmp(context->error.message,
                "head_loss: targets[0] is -2, w has 2 rows"), "%s",
        context->error.message);
  lk_context_close(context);
}

static void test_metrics(void) {
  float loss[N], metrics[4] = {10, 3, 100, 0};
  int32_t correct[N];
  double sum = 10, hits = 3;
  for (int n = 0; n < N; n++) {
    loss[n] = 0.25f * (float)n;
    correct[n] = n % 3 == 0;
    sum += loss[n];
    hits += correct[n];
  }
  lk_call call = lk_call_new(LK_OP_metrics);
  call.in[0] = OPS_F32(loss, N);
  call.in[1] = OPS_I32(correct, N);
  call.out[0] = OPS_F32(memcpy(ops_memory(16), metrics, 16), 4);
  ops_run(&call);
  const float *m = call.out[0].data;
  CHECK(m[0] == (float)sum && m[1] == (float)hits && m[2] == 100 + N &&
        m[3] == 0, "%g %g %g %g", m[0], m[1], m[2], m[3]);
}

int main(void) {
  OPS_RUN(test_head_loss);
  OPS_RUN(test_head_loss_train);
  OPS_RUN(test_head_loss_ties);
  OPS_RUN(test_head_loss_refuses);
  OPS_RUN(test_metrics);
  return check_done();
}
