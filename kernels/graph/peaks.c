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

enum { PARTS = 3 }; /* of a timed call: its result and up to two inputs */

/* The least seconds of `runs` runs of `call`, whose result and inputs have a
 * shape and a dtype and get their memory here: products multiply numbers. */
static lk_status time_call(lk_context *context, lk_call *call, int runs,
                           double *seconds) {
  lk_tensor *part[PARTS] = {&call->out[0], &call->in[0], &call->in[1]};
  int64_t bytes[PARTS] = {0}, total = 0;
  for (int i = 0; i < PARTS; i++) {
    if (part[i]->shape.rank < 0) continue;
    int64_t size = lk_dtype_bytes(part[i]->dtype,
                                  lk_shape_count(part[i]->shape));
    bytes[i] = (size + 255) / 256 * 256;
    total += bytes[i];
  }
  lk_storage *storage = NULL;
  LK_TRY(lk_storage_new(context, total, LK_DATA, &storage));
  char *at = lk_storage_data(storage);
  lk_status status = context->backend->zero(context, at, total);
  for (int i = 0; i < PARTS; at += bytes[i], i++) {
    if (bytes[i] == 0) continue;
    part[i]->data = at;
    if (i > 0 && call->op == LK_OP_matmul && status == LK_OK) {
      status = fill_random(context, *part[i]);
    }
  }
  if (status == LK_OK) status = best_time(context, call, runs, seconds);
  lk_storage_release(storage);
  return status;
}

static lk_tensor matrix(lk_dtype dtype, int64_t rows, int64_t columns) {
  return (lk_tensor){.dtype = dtype, .shape = lk_shape_of(rows, columns)};
}

/* A call of `op` on square matrices. */
static lk_status time_square(lk_context *context, lk_op op, int inputs,
                             lk_dtype dtype, int64_t n, double *seconds) {
  lk_call call = lk_call_new(op);
  call.out[0] = matrix(dtype, n, n);
  for (int i = 0; i < inputs; i++) call.in[i] = call.out[0];
  return time_call(context, &call, 4, seconds);
}

/* The same with n halved until it fits beside what the device holds. */
static lk_status time_fitting(lk_context *context, lk_op op, int inputs,
                              lk_dtype dtype, int64_t *n, double *seconds) {
  lk_status status = time_square(context, op, inputs, dtype, *n, seconds);
  while (status == LK_OOM && *n > 512) {
    *n /= 2;
    status = time_square(context, op, inputs, dtype, *n, seconds);
  }
  return status;
}

lk_status lk_peaks_product(lk_context *context, lk_dtype dtype,
                           const lk_product *p, int runs, double *seconds) {
  lk_call call = lk_call_new(LK_OP_matmul);
  call.attr.transpose_a = p->transpose_a;
  call.attr.transpose_b = p->transpose_b;
  call.out[0] = matrix(dtype, p->m, p->n);
  call.in[0] = p->transpose_a ? matrix(dtype, p->k, p->m)
                              : matrix(dtype, p->m, p->k);
  call.in[1] = p->transpose_b ? matrix(dtype, p->n, p->k)
                              : matrix(dtype, p->k, p->n);
  return time_call(context, &call, runs, seconds);
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
