/* What the tests of one backend against another share: a case is a call with
 * its tensors in host memory, run on the CPU in f32 and on CUDA in f32, bf16
 * and f16, on inputs rounded to that type. Compared: the results, two runs of
 * CUDA (the same bits), a run in place where the operator allows it (the same
 * bits), and guards behind every result and the scratch. */
#ifndef LK_TESTS_BACKENDS_H
#define LK_TESTS_BACKENDS_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../host/bind/plugin.h"
#include "../../kernels/base/rng.h"
#include "../../kernels/base/scalar.h"
#include "../../kernels/core/context.h"
#include "check.h"

enum { BACK_GUARD = 256 };

static lk_context *back_cpu, *back_cuda;
static bool back_covered[LK_OP_COUNT];
static void *back_blocks[8192];
static int back_count;

/* Memory of the running test. */
static inline void *back_memory(int64_t bytes) {
  void *data = aligned_alloc(64, (size_t)((bytes + 64) / 64 * 64));
  if (data == NULL || back_count == 8192) abort();
  memset(data, 0xFF, (size_t)bytes);
  return back_blocks[back_count++] = data;
}

static inline void back_free(void) {
  while (back_count > 0) free(back_blocks[--back_count]);
}

/* False, with the reason why, when there is no device to test on. */
static inline bool back_open(void) {
  lk_error error = {0};
  if (back_cuda != NULL) return true;
  lh_plugin_load();
  const lk_backend *cuda = lk_backend_find("cuda");
  if (cuda == NULL) return false;
  if (lk_context_open(lk_cpu_backend(), 0, &back_cpu, &error) != LK_OK ||
      lk_context_open(cuda, 0, &back_cuda, &error) != LK_OK) {
    printf("# %s\n", error.message);
    fflush(stdout);
    abort();
  }
  return true;
}

#define NEED_DEVICE()                            \
  do {                                           \
    if (!back_open()) SKIP(lh_plugin_absence()); \
  } while (0)

/* Whether the device has at least this compute capability. */
static inline bool back_capable(double capability) {
  lk_device_info info = {0};
  back_cuda->backend->device_info(0, &info, &back_cuda->error);
  return atof(info.capability) >= capability;
}

/* --- cases ---------------------------------------------------------------- */

/* Bits of `half_in`, `half_out` say which tensors have the type under test;
 * all others keep their own. */
typedef struct back_case {
  lk_call call;
  unsigned half_in, half_out;
  double exact;   /* in f32: largest error, 0: the same bits */
  double rough;   /* in 16 bits: times the type's rounding; 0: not run */
  bool loose_int; /* integers may differ in 16 bits: ties */
} back_case;

static inline back_case back_new(lk_op op) {
  return (back_case){.call = lk_call_new(op), .exact = 1e-5, .rough = 4};
}

static inline float *back_numbers(int64_t n, float scale) {
  static uint64_t seed = 1000;
  float *x = back_memory(n * 4);
  seed++;
  for (int64_t i = 0; i < n; i++) {
    uint32_t word = lk_philox(seed, (uint64_t)i, 5, 0).w[0];
    x[i] = scale * ((float)(word >> 8) / 8388608.0f - 1.0f);
  }
  return x;
}

static inline lk_tensor back_float(lk_shape shape, float scale) {
  return (lk_tensor){back_numbers(lk_shape_count(shape), scale), LK_F32,
                     shape};
}

/* Positive ones, from `least` up to it plus `scale`. */
static inline lk_tensor back_positive(lk_shape shape, float least,
                                      float scale) {
  lk_tensor t = back_float(shape, scale);
  float *x = t.data;
  for (int64_t i = 0; i < lk_shape_count(shape); i++)
    x[i] = least + fabsf(x[i]);
  return t;
}

static inline lk_tensor back_ids(int64_t n, int64_t below) {
  static uint64_t seed = 50;
  int32_t *x = back_memory(n * 4);
  seed++;
  for (int64_t i = 0; i < n; i++)
    x[i] = (int32_t)(lk_philox(seed, (uint64_t)i, 6, 0).w[0] % below);
  return (lk_tensor){x, LK_I32, lk_shape_of(n)};
}

static inline lk_tensor back_bytes(lk_dtype dtype, lk_shape shape) {
  lk_tensor t = {NULL, dtype, shape};
  int64_t n = lk_tensor_bytes(&t);
  uint8_t *x = t.data = back_memory(n);
  for (int64_t i = 0; i < n; i++)
    x[i] = (uint8_t)lk_philox(9, (uint64_t)i, 7, 0).w[0];
  return t;
}

static inline lk_tensor back_clock(uint32_t step, uint32_t micro) {
  uint32_t *c = back_memory(LK_CLOCK * 4);
  c[LK_CLOCK_SEED_LOW] = 0x12345678u;
  c[LK_CLOCK_SEED_HIGH] = 0x9ABCDEFu;
  c[LK_CLOCK_STEP] = step;
  c[LK_CLOCK_MICRO] = micro;
  return (lk_tensor){c, LK_U32, lk_shape_of(LK_CLOCK)};
}

static inline lk_tensor back_control(float finite) {
  float *c = back_memory(LK_CONTROL * 4);
  memset(c, 0, LK_CONTROL * 4);
  c[LK_CONTROL_RATE] = 0.7f;
  c[LK_CONTROL_LOSS_SCALE] = 4;
  c[LK_CONTROL_CLIP] = 1;
  c[LK_CONTROL_MUON_FACTOR] = 0.9f;
  c[LK_CONTROL_STEP] = 3;
  c[LK_CONTROL_FACTOR] = 0.8f;
  c[LK_CONTROL_FINITE] = finite;
  return (lk_tensor){c, LK_F32, lk_shape_of(LK_CONTROL)};
}

/* A float input or preset result of the type under test. */
#define IN(c, i, scale, ...)                                         \
  ((c).call.in[i] = back_float(lk_shape_of(__VA_ARGS__), (scale)),   \
   (c).half_in |= 1u << (i))
#define OUT(c, r, scale, ...)                                        \
  ((c).call.out[r] = back_float(lk_shape_of(__VA_ARGS__), (scale)),  \
   (c).half_out |= 1u << (r))
/* The same, always f32. */
#define IN32(c, i, scale, ...) \
  ((c).call.in[i] = back_float(lk_shape_of(__VA_ARGS__), (scale)))
#define OUT32(c, r, scale, ...) \
  ((c).call.out[r] = back_float(lk_shape_of(__VA_ARGS__), (scale)))

/* --- types ---------------------------------------------------------------- */

static inline double back_rounding(lk_dtype dtype) {
  return dtype == LK_BF16 ? 1.0 / 256 : dtype == LK_F16 ? 1.0 / 2048 : 0;
}

/* x rounded to the type, as f32. */
static inline float back_round(lk_dtype dtype, float x) {
  if (dtype == LK_BF16) return lk_f32_from_bf16(lk_bf16_from_f32(x));
  if (dtype == LK_F16) return lk_f32_from_f16(lk_f16_from_f32(x));
  return x;
}

static inline void back_narrow(lk_dtype dtype, const float *x, void *y,
                               int64_t n) {
  uint16_t *half = y;
  if (dtype == LK_F32) memcpy(y, x, (size_t)n * 4);
  else if (dtype == LK_BF16)
    for (int64_t i = 0; i < n; i++) half[i] = lk_bf16_from_f32(x[i]);
  else
    for (int64_t i = 0; i < n; i++) half[i] = lk_f16_from_f32(x[i]);
}

static inline void back_widen(lk_dtype dtype, const void *x, float *y,
                              int64_t n) {
  const uint16_t *half = x;
  if (dtype == LK_F32) memcpy(y, x, (size_t)n * 4);
  else if (dtype == LK_BF16)
    for (int64_t i = 0; i < n; i++) y[i] = lk_f32_from_bf16(half[i]);
  else
    for (int64_t i = 0; i < n; i++) y[i] = lk_f32_from_f16(half[i]);
}

/* A copy of t; rounded to `dtype` if half. */
static inline lk_tensor back_copy(const lk_tensor *t, bool half,
                                  lk_dtype dtype) {
  lk_tensor copy = *t;
  if (!lk_present(t) || t->data == NULL) return copy;
  copy.data = back_memory(lk_tensor_bytes(t));
  memcpy(copy.data, t->data, (size_t)lk_tensor_bytes(t));
  float *x = copy.data;
  for (int64_t i = 0; half && i < lk_tensor_count(t); i++)
    x[i] = back_round(dtype, x[i]);
  return copy;
}

/* --- the CPU's run -------------------------------------------------------- */

static inline void back_fail(const lk_context *context) {
  printf("# %s\n", context->error.message);
  fflush(stdout);
  abort();
}

/* Run a call on the CPU, in place of its tensors; results get memory. */
static inline void back_on_cpu(lk_call *call) {
  lk_cost cost;
  const lk_op_info *info = lk_op_info_of(call->op);
  if (lk_rule(back_cpu->profile, call, &cost, &back_cpu->error) != LK_OK)
    back_fail(back_cpu);
  for (int r = 0; r < info->results; r++) {
    if (info->result[r].view) call->out[r].data = call->in[0].data;
    if (lk_present(&call->out[r]) && call->out[r].data == NULL)
      call->out[r].data = back_memory(lk_tensor_bytes(&call->out[r]));
  }
  call->scratch = back_memory(cost.scratch);
  if (lk_run(back_cpu, call) != LK_OK) back_fail(back_cpu);
}

/* --- CUDA's run ---------------------------------------------------------- */

typedef struct back_device {
  lk_call call;
  void *memory[LK_MAX_INPUTS + LK_MAX_RESULTS + 1];
  int64_t bytes[LK_MAX_INPUTS + LK_MAX_RESULTS + 1];
  int count;
} back_device;

#define BACK_OK(call_)                                         \
  do {                                                         \
    if ((call_) != LK_OK) back_fail(back_cuda);                \
  } while (0)

/* `bytes` on the device, filled with 0xFF or from `data`, and a guard. */
static inline void *back_device_new(back_device *d, const void *data,
                                    int64_t bytes) {
  int64_t split[LK_CATEGORY_COUNT] = {[LK_DATA] = bytes + BACK_GUARD};
  char *image = back_memory(bytes + BACK_GUARD);
  void *memory;
  if (data != NULL) memcpy(image, data, (size_t)bytes);
  memset(image + bytes, 0xA5, BACK_GUARD);
  BACK_OK(lk_memory_allocate(back_cuda->memory, split, &memory,
                             &back_cuda->error));
  BACK_OK(back_cuda->backend->upload(back_cuda, memory, image,
                                     bytes + BACK_GUARD));
  d->memory[d->count] = memory;
  d->bytes[d->count++] = bytes;
  return memory;
}

static inline void back_device_close(back_device *d, const char *op) {
  for (int i = 0; i < d->count; i++) {
    int64_t split[LK_CATEGORY_COUNT] = {[LK_DATA] = d->bytes[i] + BACK_GUARD};
    unsigned char guard[BACK_GUARD];
    BACK_OK(back_cuda->backend->download(
        back_cuda, guard, (char *)d->memory[i] + d->bytes[i], BACK_GUARD));
    int touched = 0;
    for (int k = 0; k < BACK_GUARD; k++) touched += guard[k] != 0xA5;
    CHECK(touched == 0, "%s wrote past tensor %d", op, i);
    lk_memory_release(back_cuda->memory, split, d->memory[i]);
  }
}

/* A host tensor (f32 where half) on the device, in its type there. */
static inline lk_tensor back_send(back_device *d, const lk_tensor *t,
                                  bool half, lk_dtype dtype) {
  lk_tensor there = *t;
  if (!lk_present(t)) return there;
  if (half) there.dtype = dtype;
  if (t->data == NULL) return there;
  int64_t bytes = lk_tensor_bytes(&there);
  void *image = back_memory(bytes);
  if (half) back_narrow(dtype, t->data, image, lk_tensor_count(t));
  else memcpy(image, t->data, (size_t)bytes);
  there.data = back_device_new(d, image, bytes);
  return there;
}

/* Run the case in `dtype` on CUDA; results in host memory, in their types
 * there. in_place: results share memory wherever the operator lets them. */
static inline lk_status back_on_cuda(const back_case *c, lk_dtype dtype,
                                     bool in_place, lk_tensor *out) {
  back_device d = {.call = c->call};
  const lk_op_info *info = lk_op_info_of(c->call.op);
  lk_cost cost;
  for (int i = 0; i < info->inputs; i++)
    d.call.in[i] = back_send(&d, &c->call.in[i], c->half_in >> i & 1, dtype);
  for (int r = 0; r < info->results; r++)
    d.call.out[r] = back_send(&d, &c->call.out[r], c->half_out >> r & 1,
                              dtype);
  if (lk_rule(back_cuda->profile, &d.call, &cost, &back_cuda->error) != LK_OK)
    back_fail(back_cuda);
  for (int r = 0; r < info->results; r++) {
    lk_tensor *y = &d.call.out[r];
    int alias = info->result[r].alias;
    bool shares = info->result[r].view ||
                  (in_place && alias >= 0 && y->data == NULL &&
                   lk_tensor_bytes(y) == lk_tensor_bytes(&d.call.in[alias]));
    if (!lk_present(y)) continue;
    if (shares) y->data = d.call.in[alias].data;
    if (y->data == NULL)
      y->data = back_device_new(&d, NULL, lk_tensor_bytes(y));
  }
  d.call.scratch = back_device_new(&d, NULL, cost.scratch);
  lk_status status = lk_run(back_cuda, &d.call);
  if (status == LK_OK)
    status = back_cuda->backend->synchronize(back_cuda);
  for (int r = 0; r < info->results && status == LK_OK; r++) {
    out[r] = d.call.out[r];
    if (!lk_present(&out[r])) continue;
    out[r].data = back_memory(lk_tensor_bytes(&out[r]));
    BACK_OK(back_cuda->backend->download(back_cuda, out[r].data,
                                         d.call.out[r].data,
                                         lk_tensor_bytes(&out[r])));
  }
  if (status == LK_DEVICE) back_fail(back_cuda);
  back_device_close(&d, info->name);
  return status;
}

/* --- comparisons --------------------------------------------------------- */

/* |got − want| / (|want| + rms(want)), the largest; NaN must meet NaN. */
static inline double back_error(const float *got, const float *want,
                                int64_t n, int64_t *at) {
  double squares = 0, worst = 0;
  int64_t finite = 0;
  for (int64_t i = 0; i < n; i++)
    if (isfinite(want[i])) squares += (double)want[i] * want[i], finite++;
  double rms = sqrt(squares / (double)(finite ? finite : 1));
  for (int64_t i = 0; i < n; i++) {
    if (isnan(want[i]) && isnan(got[i])) continue;
    if (got[i] == want[i]) continue;
    double e = fabs((double)got[i] - want[i]) /
               (fabs((double)want[i]) + rms + 1e-30);
    if (!(e <= worst)) worst = isnan(e) ? 1e30 : e, *at = i;
  }
  return worst;
}

static inline void back_compare_float(const back_case *c, int r,
                                      const lk_tensor *got,
                                      const lk_tensor *want, lk_dtype dtype) {
  const lk_op_info *info = lk_op_info_of(c->call.op);
  int64_t n = lk_tensor_count(want), at = 0;
  float *wide = back_memory(n * 4);
  back_widen(got->dtype, got->data, wide, n);
  double most = dtype == LK_F32 ? c->exact
                                : c->rough * back_rounding(dtype);
  double error = back_error(wide, want->data, n, &at);
  printf("# %-22s %-8s %-4s error %.2g of %.2g\n", info->name,
         info->result[r].name, lk_dtype_word(dtype), error, most);
  CHECK(error <= most, "%s %s in %s: [%lld] is %.9g, should be %.9g (%.2g)",
        info->name, info->result[r].name, lk_dtype_word(dtype),
        (long long)at, (double)wide[at],
        (double)((const float *)want->data)[at], error);
}

static inline void back_compare_bytes(const back_case *c, int r,
                                      const lk_tensor *got,
                                      const lk_tensor *want, lk_dtype dtype) {
  const lk_op_info *info = lk_op_info_of(c->call.op);
  const unsigned char *a = got->data, *b = want->data;
  int64_t n = lk_tensor_bytes(want), differ = 0, at = 0;
  for (int64_t i = n - 1; i >= 0; i--)
    if (a[i] != b[i]) differ++, at = i;
  if (dtype != LK_F32 && c->loose_int && differ * 50 <= n) return;
  CHECK(differ == 0, "%s %s in %s: %lld of %lld bytes differ, from %lld on "
        "(%d, should be %d)", info->name, info->result[r].name,
        lk_dtype_word(dtype), (long long)differ, (long long)n, (long long)at,
        a[at], b[at]);
}

static inline void back_same_bits(const char *what, const lk_op_info *info,
                                  const lk_tensor *a, const lk_tensor *b) {
  for (int r = 0; r < info->results; r++)
    if (lk_present(&a[r]))
      CHECK(memcmp(a[r].data, b[r].data, (size_t)lk_tensor_bytes(&a[r])) == 0,
            "%s %s: %s", info->name, info->result[r].name, what);
}

/* The case in one type. */
static inline void back_run_in(const back_case *given, lk_dtype dtype) {
  back_case c = *given;
  const lk_op_info *info = lk_op_info_of(c.call.op);
  lk_tensor first[LK_MAX_RESULTS], again[LK_MAX_RESULTS];
  for (int i = 0; i < info->inputs; i++)
    c.call.in[i] = back_copy(&c.call.in[i], c.half_in >> i & 1, dtype);
  for (int r = 0; r < info->results; r++)
    c.call.out[r] = back_copy(&c.call.out[r], c.half_out >> r & 1, dtype);
  lk_status status = back_on_cuda(&c, dtype, false, first);
  CHECK(status == LK_OK, "%s in %s: %s", info->name, lk_dtype_word(dtype),
        back_cuda->error.message);
  if (status != LK_OK) return;
  back_on_cuda(&c, dtype, false, again);
  back_same_bits("two runs differ", info, first, again);
  back_on_cuda(&c, dtype, true, again);
  back_same_bits("in place differs", info, first, again);
  lk_call wanted = c.call;
  for (int r = 0; r < info->results; r++)
    wanted.out[r] = back_copy(&wanted.out[r], false, LK_F32);
  back_on_cpu(&wanted);
  for (int r = 0; r < info->results; r++) {
    if (!lk_present(&first[r])) continue;
    bool number = wanted.out[r].dtype == LK_F32;
    if (number && (c.exact > 0 || dtype != LK_F32))
      back_compare_float(&c, r, &first[r], &wanted.out[r], dtype);
    else
      back_compare_bytes(&c, r, &first[r], &wanted.out[r], dtype);
  }
}

static inline void back_run(back_case c) {
  back_covered[c.call.op] = true;
  back_run_in(&c, LK_F32);
  if (c.rough > 0 && (c.half_in | c.half_out) != 0) {
    back_run_in(&c, LK_BF16);
    back_run_in(&c, LK_F16);
  }
}

/* Operators [first, end) of the list were compared: those of rows in e4m3, or
 * all others. */
static inline void back_check_coverage(int first, int end, bool e4m3) {
  for (int op = first; op < end; op++) {
    const char *name = lk_op_info_of((lk_op)op)->name;
    if (strncmp(name, "e4m3_", 5) == 0 || strncmp(name, "nvfp4_", 6) == 0
            ? e4m3 : !e4m3)
      CHECK(back_covered[op], "%s is not compared", name);
  }
}

/* BACK_ONLY=test_x runs that one alone (sanitizers take their time), =list says
 * which there are. */
static inline bool back_wanted(const char *test) {
  const char *only = getenv("BACK_ONLY");
  if (only == NULL) return true;
  if (strcmp(only, "list") == 0) printf("%s\n", test);
  return strcmp(only, test) == 0;
}

#define BACK_RUN(test)                       \
  do {                                       \
    if (!back_wanted(#test)) break;          \
    RUN(test);                               \
    back_free();                             \
  } while (0)

#endif
