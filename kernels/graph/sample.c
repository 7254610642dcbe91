/* Sampling: temperature, top-k (Fan et al. 2018) and top-p (Holtzman et al.
 * 2020), in this order, as transformers has it. */
#include "sample.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "../base/rng.h"

/* Far from the streams that programs draw from. */
enum { STREAM_SAMPLE = 0x40000 };

typedef struct candidate {
  float p;        /* e^((logit − largest) / temperature) */
  int32_t id;
} candidate;

static lk_status check_settings(const lk_sampling *s, lk_error *error) {
  if (!(s->temperature >= 0 && s->temperature <= 1000))
    return lk_fail(error, LK_ARGUMENT, "temperature must be from 0 to 1000, "
                   "got %g", s->temperature);
  if (s->top_k < 0)
    return lk_fail(error, LK_ARGUMENT, "top_k must not be negative, got %lld",
                   (long long)s->top_k);
  if (!(s->top_p > 0 && s->top_p <= 1))
    return lk_fail(error, LK_ARGUMENT, "top_p must be above 0 and at most 1, "
                   "got %g", s->top_p);
  return LK_OK;
}

/* The first place of the largest logit. */
static lk_status find_largest(const float *logits, int64_t words, int32_t *id,
                              lk_error *error) {
  int32_t best = 0;
  for (int64_t i = 0; i < words; i++) {
    if (isnan(logits[i]))
      return lk_fail(error, LK_NONFINITE, "the logit of token %lld is not a "
                     "number", (long long)i);
    if (logits[i] > logits[best]) best = (int32_t)i;
  }
  *id = best;
  if (isfinite(logits[best])) return LK_OK;
  return lk_fail(error, LK_NONFINITE, "the largest logit is %g",
                 (double)logits[best]);
}

static int by_probability(const void *a, const void *b) {
  const candidate *x = a, *y = b;
  if (x->p != y->p) return x->p < y->p ? 1 : -1;
  return (x->id > y->id) - (x->id < y->id);
}

static double sum_of(const candidate *c, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)c[i].p;
  return sum;
}

/* Drop what no nucleus can hold: tokens that together have less than the share
 * 1 − top_p, so that few are left to sort. */
static int64_t drop_tail(candidate *c, int64_t n, double top_p) {
  double least = (1 - top_p) / (double)n * sum_of(c, n);
  int64_t kept = 0;
  for (int64_t i = 0; i < n; i++)
    if ((double)c[i].p >= least) c[kept++] = c[i];
  return kept;
}

/* How many of the sorted candidates reach the share `top_p` of `sum`. */
static int64_t nucleus(const candidate *c, int64_t n, double top_p,
                       double sum) {
  double reached = 0;
  for (int64_t i = 0; i < n; i++) {
    reached += (double)c[i].p;
    if (reached >= top_p * sum) return i + 1;
  }
  return n;
}

/* Narrow the candidates down; those left are in the order of the draw. */
static int64_t narrow(const lk_sampling *s, candidate *c, int64_t n) {
  bool few = s->top_k > 0 && s->top_k < n;
  if (!few && s->top_p >= 1) return n;
  double sum = sum_of(c, n);
  if (!few) n = drop_tail(c, n, s->top_p);
  qsort(c, (size_t)n, sizeof *c, by_probability);
  if (few) {
    n = s->top_k;
    sum = sum_of(c, n);
  }
  return s->top_p < 1 ? nucleus(c, n, s->top_p, sum) : n;
}

static int32_t pick(const candidate *c, int64_t n, double unit) {
  double goal = unit * sum_of(c, n), reached = 0;
  for (int64_t i = 0; i < n; i++) {
    reached += (double)c[i].p;
    if (reached > goal) return c[i].id;
  }
  return c[n - 1].id;
}

/* In [0, 1), with 32 random bits. */
static double unit_of(const lk_sampling *s, uint32_t stream, uint32_t draw) {
  lk_rng_word4 r = lk_philox(s->seed, stream, STREAM_SAMPLE, draw);
  return (double)r.w[0] / 4294967296.0;
}

lk_status lk_sample(const lk_sampling *s, const float *logits, int64_t words,
                    uint32_t stream, uint32_t draw, int32_t *id,
                    lk_error *error) {
  int32_t best = 0;
  LK_TRY(check_settings(s, error));
  LK_TRY(find_largest(logits, words, &best, error));
  *id = best;
  if (s->temperature == 0 || s->top_k == 1) return LK_OK;
  candidate *c = malloc((size_t)words * sizeof *c);
  if (c == NULL) return lk_fail(error, LK_OOM, "no host memory to sample");
  float scale = (float)(1 / s->temperature);
  for (int64_t i = 0; i < words; i++)
    c[i] = (candidate){lk_expf_negative((logits[i] - logits[best]) * scale),
                       (int32_t)i};
  int64_t n = narrow(s, c, words);
  *id = pick(c, n, unit_of(s, stream, draw));
  free(c);
  return LK_OK;
}
