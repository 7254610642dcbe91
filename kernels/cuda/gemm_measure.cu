/* Which of some algorithms runs a product fastest. Long products, run back to
 * back, hold the device at its power limit, where what is fastest alone, at
 * high clocks, often is not: what counts there is time at the limit. */
#include "gemm_private.cuh"

enum { RUNS = 3 }; /* of a candidate alone; the least time counts */

/* A later candidate must take less than this share of an earlier one's time,
 * alone and back to back. */
static const float ALONE_SHARE = 0.99f, SUSTAINED_SHARE = 0.995f;

/* So many times the least time alone: what is above it is not run again, and
 * what is below it takes part in the second round. One that was 11.5 % slower
 * alone has been 8 % faster back to back. */
static const float HOPELESS = 1.2f, SURVIVES = 1.12f;

/* Milliseconds. Products below LONG get no second round: launches and what
 * runs between them weigh more there than the limit. HEAT comes before the
 * first second round of all, SETTLE before each survivor's TIMED: the device's
 * clocks follow what it runs only after a while. */
static const float LONG = 0.05f, HEAT = 100, SETTLE = 40, TIMED = 40;

/* A product to be timed; results go to `room`. */
typedef struct trial {
  lk_context *context;
  const gemm *g;
  const gemm_entry *e;
  const cublasLtMatmulHeuristicResult_t *found;
  int count;
  void *room;
} trial;

/* Milliseconds a run of candidate `i`: of `runs` back to back, right after
 * `before` others of it; infinity when it fails. */
static float time_of(const trial *t, int i, int before, int runs) {
  cuda_state *s = cuda_of(t->context);
  cudaStream_t stream = cuda_stream(t->context);
  const gemm *g = t->g;
  const void *c = g->c == g->d || g->beta == 0 ? t->room : g->c;
  float all = INFINITY;
  for (int n = 0; n < before + runs; n++) {
    if (n == before) cudaEventRecord(s->start, stream);
    if (gemm_launch(t->context, g, t->e, &t->found[i].algo, c, t->room) !=
        CUBLAS_STATUS_SUCCESS)
      return INFINITY;
  }
  cudaEventRecord(s->stop, stream);
  if (cudaEventSynchronize(s->stop) != cudaSuccess ||
      cudaEventElapsedTime(&all, s->start, s->stop) != cudaSuccess)
    return INFINITY;
  return all / (float)runs;
}

/* The least time of some single runs; given up early when far above `limit`. */
static float time_alone(const trial *t, int i, float limit) {
  float least = INFINITY;
  for (int n = 0; n < RUNS; n++) {
    float ms = time_of(t, i, n == 0, 1);
    if (ms < least) least = ms;
    if (!(ms < limit * HOPELESS)) break;
  }
  return least;
}

/* How many runs of `ms` each take `span`. */
static int runs_in(float span, float ms) { return (int)ceilf(span / ms); }

/* The first of the least times, where a later one must be below `share` of an
 * earlier one; -1 when all are infinite. */
static int least_of(const float *ms, int count, float share) {
  int best = -1;
  for (int i = 0; i < count; i++)
    if (ms[i] < (best < 0 ? INFINITY : ms[best] * share)) best = i;
  return best;
}

/* The second round: the fastest at the power limit of those whose time alone
 * is finite. */
static int sustained(const trial *t, const float *alone, int best) {
  struct gemm_table *table = cuda_of(t->context)->gemm;
  float ms[GEMM_CANDIDATES];
  if (!table->hot) time_of(t, best, 0, runs_in(HEAT, alone[best]));
  table->hot = true;
  for (int i = 0; i < t->count; i++)
    ms[i] = alone[i] < INFINITY ? time_of(t, i, runs_in(SETTLE, alone[i]),
                                          runs_in(TIMED, alone[i]))
                                : INFINITY;
  int fastest = least_of(ms, t->count, SUSTAINED_SHARE);
  return fastest < 0 ? best : fastest;
}

static int fastest_of(const trial *t) {
  float alone[GEMM_CANDIDATES], least = INFINITY;
  int left = 0;
  for (int i = 0; i < t->count; i++) {
    alone[i] = time_alone(t, i, least);
    least = fminf(least, alone[i]);
  }
  int best = least_of(alone, t->count, ALONE_SHARE);
  for (int i = 0; i < t->count; i++)
    if (alone[i] > least * SURVIVES) alone[i] = INFINITY;
    else left++;
  return best < 0 || left < 2 || least < LONG ? best
                                              : sustained(t, alone, best);
}

/* Results go where the product's own will be written next; of one that adds to
 * what is there, to memory that is had for the moment. */
int gemm_measure(lk_context *context, const gemm *g, const gemm_entry *e,
                 const cublasLtMatmulHeuristicResult_t *found, int count) {
  trial t = {context, g, e, found, count, g->d};
  if (g->c != g->d || g->beta == 0) return fastest_of(&t);
  size_t bytes = (size_t)lk_dtype_bytes(
      g->out, (g->batch - 1) * g->step_d + g->m * g->ldd);
  if (cudaMalloc(&t.room, bytes) != cudaSuccess) {
    cudaGetLastError();
    return -1;
  }
  cudaMemsetAsync(t.room, 0, bytes, cuda_stream(context));
  int best = fastest_of(&t);
  cudaFree(t.room);
  return best;
}
