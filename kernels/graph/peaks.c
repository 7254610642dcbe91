/* What a device attains at best: a large product and a large copy, timed. */
#include "peaks.h"

#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The least seconds of `runs` runs of `call` (results given), after one. */
static lk_status best_time(lk_context *context, lk_call *call, int runs,
                           double *seconds) {
  *seconds = 1e30;
  for (int i = 0; i <= runs; i++) {
    lk_storage *storage[LK_MAX_RESULTS] = {0};
    double start = now();
    LK_TRY(lk_dispatch(context, call, storage));
    LK_TRY(context->backend->synchronize(context));
    double t = now() - start;
    if (i > 0 && t < *seconds) *seconds = t;
  }
  return LK_OK;
}

/* Normal numbers: products of zeros would be faster than any real one. */
static lk_status fill_random(lk_context *context, lk_tensor t) {
  lk_storage *storage[LK_MAX_RESULTS] = {0}, *clock = NULL;
  int64_t bytes = LK_CLOCK * (int64_t)sizeof(uint32_t);
  LK_TRY(lk_storage_new(context, bytes, LK_DATA, &clock));
  lk_call call = lk_call_new(LK_OP_randn);
  call.attr.scale = 1;
  call.out[0] = t;
  call.in[0] = (lk_tensor){.data = lk_storage_data(clock), .dtype = LK_U32,
                           .shape = lk_shape_of(LK_CLOCK)};
  lk_status status = context->backend->zero(context, call.in[0].data, bytes);
  if (status == LK_OK) status = lk_dispatch(context, &call, storage);
  lk_storage_release(clock);
  return status;
}

/* A call of `op` on square matrices that share one storage. */
static lk_status time_call(lk_context *context, lk_op op, int inputs,
                           lk_dtype dtype, int64_t n, double *seconds) {
  lk_storage *storage = NULL;
  int64_t bytes = lk_dtype_bytes(dtype, n * n);
  LK_TRY(lk_storage_new(context, (1 + inputs) * bytes, LK_DATA, &storage));
  lk_status status = context->backend->zero(context, lk_storage_data(storage),
                                            (1 + inputs) * bytes);
  lk_call call = {.op = op};
  lk_tensor t = {.data = lk_storage_data(storage), .dtype = dtype,
                 .shape = lk_shape_of(n, n)};
  for (int i = 0; i < LK_MAX_RESULTS; i++) call.out[i] = LK_ABSENT;
  for (int i = 0; i < LK_MAX_INPUTS; i++) call.in[i] = LK_ABSENT;
  call.out[0] = t;
  for (int i = 0; i < inputs; i++) {
    t.data = (char *)t.data + bytes;
    call.in[i] = t;
  }
  t.data = lk_storage_data(storage);
  t.shape = lk_shape_of((1 + inputs) * n, n);
  if (status == LK_OK && inputs == 2) status = fill_random(context, t);
  if (status == LK_OK) status = best_time(context, &call, 4, seconds);
  lk_storage_release(storage);
  return status;
}

/* The same with n halved until it fits beside what the device holds. */
static lk_status time_fitting(lk_context *context, lk_op op, int inputs,
                              lk_dtype dtype, int64_t *n, double *seconds) {
  lk_status status = time_call(context, op, inputs, dtype, *n, seconds);
  while (status == LK_OOM && *n > 512) {
    *n /= 2;
    status = time_call(context, op, inputs, dtype, *n, seconds);
  }
  return status;
}

lk_status lk_peaks_measure(lk_context *context, lk_dtype dtype,
                           lk_peaks *peaks) {
  bool cpu = context->profile->compute == LK_F32;
  int64_t n = cpu ? 768 : 8192, m = cpu ? 4096 : 16384;
  double seconds;
  LK_TRY(time_fitting(context, LK_OP_matmul, 2, dtype, &n, &seconds));
  peaks->flops = 2.0 * (double)n * (double)n * (double)n / seconds;
  peaks->e4m3 = peaks->flops * (dtype == LK_F32 ? 1 : 2);
  LK_TRY(time_fitting(context, LK_OP_copy, 1, LK_F32, &m, &seconds));
  peaks->bandwidth = 8.0 * (double)m * (double)m / seconds;
  return LK_OK;
}
