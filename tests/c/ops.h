/* What the operator tests of the CPU share: a call built from host arrays, run
 * at one instruction-set level with one to four lanes (the bits must agree),
 * every result and the scratch exactly as large as the rule says, poisoned
 * before and guarded behind; and comparisons with double-precision references,
 * which each test writes for itself. */
#ifndef LK_TESTS_OPS_H
#define LK_TESTS_OPS_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../kernels/base/rng.h"
#include "../../kernels/core/context.h"
#include "../../kernels/cpu/cpu.h"
#include "check.h"

enum { OPS_LANES = 4, OPS_GUARD = 64 };

static const char *ops_level;          /* the level under test */
static void *ops_blocks[4096];         /* memory of the running test */
static int ops_block_count;
static lk_backend ops_backend;
static lk_profile ops_profile;

/* Memory until the end of the test, a guard of 0xA5 behind it. */
static inline void *ops_memory(int64_t bytes) {
  char *data = aligned_alloc(64, (size_t)((bytes + OPS_GUARD + 63) / 64 * 64));
  if (!data || ops_block_count == 4096) abort();
  memset(data, 0xFF, (size_t)bytes); /* NaN as a float */
  memset(data + bytes, 0xA5, OPS_GUARD);
  ops_blocks[ops_block_count++] = data;
  return data;
}

static inline bool ops_guarded(const void *data, int64_t bytes) {
  const unsigned char *guard = (const unsigned char *)data + bytes;
  for (int i = 0; i < OPS_GUARD; i++)
    if (guard[i] != 0xA5) return false;
  return true;
}

/* n numbers in about (-scale, scale), a function of the seed. */
static inline float *ops_numbers(int64_t n, uint64_t seed, float scale) {
  float *x = ops_memory(n * (int64_t)sizeof *x);
  lk_rng_word4 words;
  for (int64_t i = 0; i < n; i++) {
    if (i % 4 == 0) words = lk_philox(seed, (uint64_t)i / 4, 77, 0);
    x[i] = scale * ((float)(words.w[i % 4] >> 8) / 8388608.0f - 1.0f);
  }
  return x;
}

static inline double *ops_doubles(int64_t n) {
  double *x = ops_memory(n * (int64_t)sizeof *x);
  for (int64_t i = 0; i < n; i++) x[i] = 0;
  return x;
}

static inline double *ops_widen(const float *x, int64_t n) {
  double *y = ops_doubles(n);
  for (int64_t i = 0; i < n; i++) y[i] = x[i];
  return y;
}

static inline lk_tensor ops_tensor(void *data, lk_dtype dtype,
                                   lk_shape shape) {
  return (lk_tensor){data, dtype, shape};
}
#define OPS_F32(data, ...) ops_tensor(data, LK_F32, lk_shape_of(__VA_ARGS__))
#define OPS_I32(data, ...) ops_tensor(data, LK_I32, lk_shape_of(__VA_ARGS__))

static inline lk_tensor ops_clock(uint64_t seed, uint32_t step,
                                  uint32_t micro) {
  uint32_t *c = ops_memory(LK_CLOCK * 4);
  c[LK_CLOCK_SEED_LOW] = (uint32_t)seed;
  c[LK_CLOCK_SEED_HIGH] = (uint32_t)(seed >> 32);
  c[LK_CLOCK_STEP] = step;
  c[LK_CLOCK_MICRO] = micro;
  return ops_tensor(c, LK_U32, lk_shape_of(LK_CLOCK));
}

/* The factor dropout gives an element: 1 / (1 − p) or 0. */
static inline double ops_keep(const lk_tensor *clock, const lk_attr *attr,
                              uint64_t element) {
  if (attr->p == 0) return 1;
  const uint32_t *c = clock->data;
  uint64_t seed = (uint64_t)c[LK_CLOCK_SEED_HIGH] << 32 | c[LK_CLOCK_SEED_LOW];
  uint32_t draw = lk_rng_draw16(seed, element, (uint32_t)attr->stream,
                                c[LK_CLOCK_STEP]);
  return draw < lk_dropout_threshold(attr->p) ? 0 : 1 / (1 - attr->p);
}

/* A context of the level under test with this many lanes. */
static inline lk_context *ops_open(int lanes) {
  lk_context *context = NULL;
  lk_error error;
  if (lk_context_open(lk_cpu_backend(), 0, &context, &error) != LK_OK) {
    printf("# %s\n", error.message);
    abort();
  }
  context->backend->close(context);
  ops_profile = *context->profile;
  ops_profile.lanes = lanes;
  ops_backend = *context->backend;
  memcpy(ops_backend.kernels, cpu_level_kernels(ops_level),
         sizeof ops_backend.kernels);
  context->profile = &ops_profile;
  context->backend = &ops_backend;
  if (context->backend->open(context, 0) != LK_OK) abort();
  return context;
}

/* Run with `lanes`; results have memory. */
static inline lk_status ops_once(lk_call *call, int lanes) {
  lk_context *context = ops_open(lanes);
  lk_cost cost;
  lk_status status = lk_rule(context->profile, call, &cost, &context->error);
  char *scratch = ops_memory(cost.scratch);
  call->scratch = scratch;
  if (status == LK_OK) status = lk_run(context, call);
  if (status != LK_OK) printf("# %s\n", context->error.message);
  CHECK(ops_guarded(scratch, cost.scratch), "%s wrote past its scratch",
        lk_op_info_of(call->op)->name);
  call->scratch = NULL;
  lk_context_close(context);
  return status;
}

/* Memory for the results that have none. */
static inline void ops_results(lk_call *call) {
  lk_cost cost;
  lk_error error;
  lk_status status = lk_rule(lk_profile_find("cpu"), call, &cost, &error);
  CHECK(status == LK_OK, "%s", error.message);
  if (status != LK_OK) fflush(stdout), abort(); /* nothing to compare */
  for (int i = 0; i < lk_op_info_of(call->op)->results; i++)
    if (lk_present(&call->out[i]) && !call->out[i].data)
      call->out[i].data = ops_memory(lk_tensor_bytes(&call->out[i]));
}

/* Run with 1 … OPS_LANES lanes from the same results' contents; the bits must
 * be equal. Results that alias an input give the input back each time. */
static inline void ops_run(lk_call *call) {
  const lk_op_info *info = lk_op_info_of(call->op);
  void *before[LK_MAX_RESULTS] = {0}, *first[LK_MAX_RESULTS] = {0};
  ops_results(call);
  for (int i = 0; i < info->results; i++) {
    if (!lk_present(&call->out[i])) continue;
    size_t bytes = (size_t)lk_tensor_bytes(&call->out[i]);
    before[i] = memcpy(ops_memory((int64_t)bytes), call->out[i].data, bytes);
    first[i] = ops_memory((int64_t)bytes);
  }
  for (int lanes = 1; lanes <= OPS_LANES; lanes++) {
    for (int i = 0; i < info->results; i++)
      if (before[i])
        memcpy(call->out[i].data, before[i],
               (size_t)lk_tensor_bytes(&call->out[i]));
    CHECK(ops_once(call, lanes) == LK_OK, "%s", info->name);
    for (int i = 0; i < info->results; i++) {
      if (!before[i]) continue;
      int64_t bytes = lk_tensor_bytes(&call->out[i]);
      const void *data = call->out[i].data;
      if (lanes == 1) memcpy(first[i], data, (size_t)bytes);
      CHECK(memcmp(first[i], data, (size_t)bytes) == 0,
            "%s: %s with %d lanes differs from one lane", info->name,
            info->result[i].name, lanes);
      CHECK(ops_guarded(data, bytes), "%s wrote past %s", info->name,
            info->result[i].name);
    }
  }
}

/* |got − want| <= tolerance · (|want| + rms(want)) for every element. */
static inline void ops_close(const char *name, const float *got,
                             const double *want, int64_t n,
                             double tolerance) {
  double squares = 0, worst = -1;
  int64_t at = 0;
  for (int64_t i = 0; i < n; i++) squares += want[i] * want[i];
  double rms = sqrt(squares / (double)n);
  for (int64_t i = 0; i < n; i++) {
    double error = fabs(got[i] - want[i]) / (fabs(want[i]) + rms + 1e-300);
    if (!(error <= worst)) worst = error, at = i;
  }
  CHECK(worst <= tolerance, "%s %s: [%lld] is %.9g, should be %.9g (%.2g)",
        ops_level, name, (long long)at, (double)got[at], want[at], worst);
}

/* Central differences of `f` (a function of the doubles at `x`) along all n
 * coordinates into `gradient`. */
typedef double (*ops_function)(void *state);
static inline void ops_differences(ops_function f, void *state, double *x,
                                   int64_t n, double *gradient) {
  const double step = 1e-5;
  for (int64_t i = 0; i < n; i++) {
    double center = x[i];
    x[i] = center + step;
    double above = f(state);
    x[i] = center - step;
    gradient[i] = (above - f(state)) / (2 * step);
    x[i] = center;
  }
}

static inline void ops_free(void) {
  while (ops_block_count > 0) free(ops_blocks[--ops_block_count]);
}

/* Every test of the list at every level this processor has. */
#define OPS_RUN(test)                                          \
  do {                                                         \
    static const char *levels_[] = {"v1", "v3", "v4", "base"}; \
    for (int l_ = 0; l_ < 4; l_++) {                           \
      ops_level = levels_[l_];                                 \
      if (!cpu_level_kernels(ops_level)) continue;             \
      printf("# level %s\n", ops_level);                       \
      RUN(test);                                               \
      ops_free();                                              \
    }                                                          \
  } while (0)

#endif
