/* What the tests of quantized formats share: calls, inputs, errors. */
#ifndef LK_TESTS_QUANT_H
#define LK_TESTS_QUANT_H

#include "ops.h"

/* x[i] = (int32((i + 1) * 2654435761) >> 8) / 2^24 * (1 + (i / 64) % 7) */
static inline float *golden_input(int64_t n) {
  float *x = ops_memory(n * 4);
  for (int64_t i = 0; i < n; i++) {
    int32_t v = (int32_t)(uint32_t)((uint64_t)(i + 1) * 2654435761u);
    x[i] = (float)(v >> 8) / 16777216.0f * (float)(1 + i / 64 % 7);
  }
  return x;
}

/* quantize `n` values; the call keeps codes, scales and tscale. */
static inline lk_call quantized(float *x, int64_t n, lk_format format,
                                int64_t block, bool search) {
  lk_call call = lk_call_new(LK_OP_quantize);
  call.in[0] = OPS_F32(x, n);
  call.attr.format = format;
  call.attr.block = block;
  call.attr.search = search;
  ops_run(&call);
  return call;
}

static inline float *dequantized(const lk_call *q, int64_t n) {
  lk_call call = lk_call_new(LK_OP_dequantize);
  for (int i = 0; i < 3; i++) call.in[i] = q->out[i];
  call.attr = q->attr;
  call.out[0] = OPS_F32(NULL, n);
  ops_run(&call);
  return call.out[0].data;
}

static inline float *normal_numbers(int64_t n, uint64_t seed) {
  lk_call call = lk_call_new(LK_OP_randn);
  call.in[0] = ops_clock(seed, 0, 0);
  call.attr.scale = 1;
  call.attr.stream = 3;
  call.out[0] = OPS_F32(ops_memory(n * 4), n);
  ops_once(&call, 1);
  return call.out[0].data;
}

static inline double relative_error(const float *x, const float *y, int64_t n) {
  double error = 0, power = 0;
  for (int64_t i = 0; i < n; i++) {
    error += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    power += (double)x[i] * x[i];
  }
  return error / power;
}

#endif
