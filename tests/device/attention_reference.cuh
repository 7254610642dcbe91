/* Attention by plain double-precision loops on a device: what the kernels are
 * held against. */
#ifndef LK_TEST_ATTENTION_REFERENCE_CUH
#define LK_TEST_ATTENTION_REFERENCE_CUH

#include "../../kernels/cuda/attention.cuh"
#include "../../kernels/cuda/device.cuh"

struct reference {
  double *o, *lse, *delta, *dqkv;
};

static __device__ double at(view x, int64_t i) {
  return (double)view_get(x, i);
}

static __device__ double dot_double(view x, int64_t i, view y, int64_t j,
                                    int n) {
  double sum = 0;
  for (int d = 0; d < n; d++) sum += at(x, i + d) * at(y, j + d);
  return sum;
}

static __device__ double keep_double(const attention_args &a, int b, int h,
                                     int64_t i, int64_t j) {
  if (!a.clock) return 1;
  int64_t sequence = (int64_t)a.clock[3] * a.batch + b;
  int64_t row = (sequence * a.heads + h) * a.seq + i;
  uint32_t draw = lk_rng_draw16(clock_seed(a.clock),
                                (uint64_t)(row * a.seq + j), a.stream,
                                a.clock[2]);
  return draw < a.threshold ? 0 : (double)a.factor;
}

/* Element of qkv: row t of sequence b, head `head` of H + 2K. */
static __device__ int64_t qkv_at(const attention_args &a, int64_t b,
                                 int64_t t, int head) {
  return ((b * a.seq + t) * (a.heads + 2 * a.kv_heads) + head) * a.width;
}

/* A thread a row: o, lse, delta, dq. */
static __global__ void k_reference_rows(const attention_args a,
                                        reference r) {
  int64_t index = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= (int64_t)a.batch * a.heads * a.seq) return;
  const int64_t i = index % a.seq;
  const int h = (int)(index / a.seq % a.heads);
  const int b = (int)(index / a.seq / a.heads);
  const int k = a.heads + h / (a.heads / a.kv_heads), v = k + a.kv_heads;
  const view x = {(void *)a.qkv, a.dtype}, d_o = {(void *)a.d_o, a.dtype};
  const int64_t q = qkv_at(a, b, i, h);
  const int64_t out = ((b * (int64_t)a.seq + i) * a.heads + h) * a.width;
  double most = -1e300, sum = 0, delta = 0, scale = (double)a.scale;
  for (int64_t j = 0; j <= i; j++)
    most = fmax(most, scale * dot_double(x, q, x, qkv_at(a, b, j, k),
                                         a.width));
  for (int d = 0; d < a.width; d++) r.o[out + d] = r.dqkv[q + d] = 0;
  for (int64_t j = 0; j <= i; j++) {
    double p = exp(scale * dot_double(x, q, x, qkv_at(a, b, j, k), a.width) -
                   most);
    double kept = p * keep_double(a, b, h, i, j);
    sum += p;
    for (int d = 0; d < a.width; d++)
      r.o[out + d] += kept * at(x, qkv_at(a, b, j, v) + d);
  }
  for (int d = 0; d < a.width; d++) {
    r.o[out + d] /= sum;
    delta += r.o[out + d] * at(d_o, out + d);
  }
  r.lse[index] = most + log(sum);
  r.delta[index] = delta;
  for (int64_t j = 0; j <= i; j++) {
    double s = scale * dot_double(x, q, x, qkv_at(a, b, j, k), a.width);
    double dp = dot_double(d_o, out, x, qkv_at(a, b, j, v), a.width);
    double ds = scale * exp(s - r.lse[index]) *
                (dp * keep_double(a, b, h, i, j) - delta);
    for (int d = 0; d < a.width; d++)
      r.dqkv[q + d] += ds * at(x, qkv_at(a, b, j, k) + d);
  }
}

/* A thread a key: dk, dv. */
static __global__ void k_reference_keys(const attention_args a,
                                        reference r) {
  int64_t index = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= (int64_t)a.batch * a.kv_heads * a.seq) return;
  const int64_t j = index % a.seq;
  const int kv = (int)(index / a.seq % a.kv_heads);
  const int b = (int)(index / a.seq / a.kv_heads);
  const int group = a.heads / a.kv_heads;
  const view x = {(void *)a.qkv, a.dtype}, d_o = {(void *)a.d_o, a.dtype};
  const int64_t k = qkv_at(a, b, j, a.heads + kv);
  const int64_t v = k + a.kv_heads * a.width;
  for (int d = 0; d < a.width; d++) r.dqkv[k + d] = r.dqkv[v + d] = 0;
  for (int h = kv * group; h < (kv + 1) * group; h++)
    for (int64_t i = j; i < a.seq; i++) {
      const int64_t row = ((int64_t)b * a.heads + h) * a.seq + i;
      const int64_t q = qkv_at(a, b, i, h);
      const int64_t out = ((b * (int64_t)a.seq + i) * a.heads + h) * a.width;
      double scale = (double)a.scale, keep = keep_double(a, b, h, i, j);
      double p = exp(scale * dot_double(x, q, x, k, a.width) - r.lse[row]);
      double dp = dot_double(d_o, out, x, v, a.width) * keep;
      double ds = scale * p * (dp - r.delta[row]);
      for (int d = 0; d < a.width; d++) {
        r.dqkv[k + d] += ds * at(x, q + d);
        r.dqkv[v + d] += p * keep * at(d_o, out + d);
      }
    }
}

#endif
