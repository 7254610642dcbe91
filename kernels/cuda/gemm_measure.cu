/* Which of some algorithms runs a product fastest. Long products, run back to
 * back, hold the device at its power limit, where what is fastest alone, at
 * high clocks, often is not: what counts there is time at the limit. So they
 * run back to back, on a device that has come to its limit before, in rounds
 * that fewer and fewer take part in. */
#include "gemm_private.cuh"

enum {
  RUNS = 2,    /* of a candidate alone; the least time counts */
  SECOND = 16, /* candidates in the second round, at most, ... */
  LAST = 4     /* ... and in the last */
};

/* A later candidate must take less than this share of an earlier one's time,
 * alone and back to back. A variant must be better by more than times repeat:
 * of many that are alike the least time is luck, and the library's guess is
 * not. */
static const float ALONE_SHARE = 0.99f, SUSTAINED_SHARE = 0.995f;
static const float VARIANT_SHARE = 0.97f;

/* So many times the least time: what is above it after the first and the second
 * round is out. What takes a fifth longer alone has been the best at the
 * limit. */
static const float FIRST_LIMIT = 1.25f, SECOND_LIMIT = 1.06f;

/* Milliseconds. Products below LONG get one round alone: launches and what runs
 * between them weigh more there than the limit. HEAT comes before the second
 * round: a device that has rested takes 80 ms to come down to its limit, and
 * who runs first then wins by a tenth. Each candidate runs SETTLE before it is
 * timed. The last round goes there and back, as the limit itself moves by some
 * percent within a second. */
static const float LONG = 0.05f, HEAT = 100;
static const float SECOND_SETTLE = 2, SECOND_TIMED = 4;
static const float LAST_SETTLE = 20, LAST_TIMED = 20;

/* A product to be timed; results go to `room`. */
typedef struct trial {
  lk_context *context;
  const gemm *g;
  const gemm_entry *e;
  const gemm_candidates *list;
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
    if (gemm_launch(t->context, g, t->e, &t->list->algorithm[i], c, t->room) !=
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
    if (!(ms < limit * FIRST_LIMIT)) break;
  }
  return least;
}

/* Candidate `i`, which takes about `ms`, again: back to back. */
static float time_settled(const trial *t, int i, float ms, float settle,
                          float timed) {
  if (ms == INFINITY) return INFINITY;
  return time_of(t, i, (int)ceilf(settle / ms), (int)ceilf(timed / ms));
}

/* The first of the least times, where a later one must be below `share` of an
 * earlier one; -1 when all are infinite. */
static int least_in(const float *ms, int first, int last, float share) {
  int best = -1;
  for (int i = first; i < last; i++)
    if (ms[i] < (best < 0 ? INFINITY : ms[best] * share)) best = i;
  return best;
}

/* The same of all candidates, of which a variant must be better by far. */
static int least_of(const trial *t, const float *ms, float share) {
  int plain = least_in(ms, 0, t->list->plain, share);
  int varied = least_in(ms, t->list->plain, t->list->count, share);
  if (plain < 0 || varied < 0) return plain < 0 ? varied : plain;
  return ms[varied] < ms[plain] * VARIANT_SHARE ? varied : plain;
}

/* Leave the `most` least times that are within `limit` of the least, and the
 * least of what is no variant; the others become infinite. */
static void leave(const trial *t, float *ms, int most, float limit) {
  const int count = t->list->count;
  float all[GEMM_CANDIDATES], least = INFINITY;
  int plain = least_in(ms, 0, t->list->plain, 1);
  memcpy(all, ms, (size_t)count * sizeof *ms);
  for (int i = 0; i < count; i++) least = fminf(least, all[i]);
  for (int i = 0; i < count; i++) {
    int before = 0;
    for (int j = 0; j < count; j++)
      before += all[j] < all[i] || (all[j] == all[i] && j < i);
    if (i != plain && (before >= most || !(all[i] <= least * limit)))
      ms[i] = INFINITY;
  }
}

/* The rounds back to back: the fastest at the power limit of those whose time
 * alone is finite; `best` alone. */
static int fastest_sustained(const trial *t, float *ms, int best) {
  const int count = t->list->count;
  float again[GEMM_CANDIDATES];
  time_of(t, best, 0, (int)ceilf(HEAT / ms[best]));
  for (int i = 0; i < count; i++)
    ms[i] = time_settled(t, i, ms[i], SECOND_SETTLE, SECOND_TIMED);
  leave(t, ms, LAST, SECOND_LIMIT);
  for (int i = 0; i < count; i++)
    again[i] = time_settled(t, i, ms[i], LAST_SETTLE, LAST_TIMED);
  for (int i = count - 1; i >= 0; i--)
    again[i] += time_settled(t, i, ms[i], LAST_SETTLE, LAST_TIMED);
  int fastest = least_of(t, again, SUSTAINED_SHARE);
  return fastest < 0 ? best : fastest;
}

static int fastest_of(const trial *t) {
  const int count = t->list->count;
  float ms[GEMM_CANDIDATES] = {0}, least = INFINITY;
  for (int i = 0; i < count; i++) {
    ms[i] = time_alone(t, i, least);
    least = fminf(least, ms[i]);
  }
  int best = least_of(t, ms, ALONE_SHARE);
  if (best < 0 || least < LONG) return best;
  leave(t, ms, SECOND, FIRST_LIMIT);
  return fastest_sustained(t, ms, best);
}

/* Results go where the product's own will be written next; of one that adds to
 * what is there, to memory that is had for the moment. */
int gemm_measure(lk_context *context, const gemm *g, const gemm_entry *e,
                 const gemm_candidates *list) {
  trial t = {context, g, e, list, g->d};
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
