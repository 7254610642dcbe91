/* Attention on a device, by itself: against plain double-precision loops at
 * odd sizes, its random masks element by element, the same bits twice, and
 * (with `bench`) timings. Needs no Lua and no backend:
 *   nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a \
 *     -o test_attention tests/device/test_attention.cu \
 *     kernels/cuda/attention_[fbp]*.cu kernels/cuda/bulk.cu
 *   ./test_attention [small | lengths | turned | bench [B H K p]] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#include "attention_reference.cuh"

static int failures, checks;
static int hopper; /* processors of a device of capability 9.0, else 0 */

#define CUDA(call)                                                        \
  do {                                                                    \
    cudaError_t code_ = (call);                                           \
    if (code_ != cudaSuccess) {                                           \
      printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call,                \
             cudaGetErrorString(code_));                                  \
      exit(1);                                                            \
    }                                                                     \
  } while (0)

/* --- a shape and its memory ----------------------------------------------- */

struct shape {
  int B, T, H, K, D;
  double p, scale;
  lk_dtype dtype;
};

struct problem {
  shape s;
  attention_args a;
  lk_attr attr;
  lk_attention_layout layout;
  int64_t n, no, nl; /* elements of qkv, o, lse */
  std::vector<void *> owned;
};

static void *device_bytes(problem *x, int64_t bytes, int poison) {
  void *p = NULL;
  CUDA(cudaMalloc(&p, (size_t)bytes + 16));
  CUDA(cudaMemset(p, poison, (size_t)bytes));
  x->owned.push_back(p);
  return p;
}

/* Uniform numbers, centred, the same on every run. */
static __global__ void k_numbers(view y, int64_t n, uint32_t stream,
                                 float size) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float u = lk_rng_unit16(lk_rng_draw16(77, (uint64_t)i, stream, 0));
  view_set(y, i, (u - 0.5f) * size);
}

static void *numbers(problem *x, int64_t n, uint32_t stream, float size) {
  view y = {device_bytes(x, n * 4, 0), x->s.dtype};
  k_numbers<<<(unsigned)((n + 255) / 256), 256>>>(y, n, stream, size);
  CUDA(cudaGetLastError());
  return y.data;
}

static problem problem_new(shape s) {
  problem x;
  x.s = s;
  x.n = (int64_t)s.B * s.T * (s.H + 2 * s.K) * s.D;
  x.no = (int64_t)s.B * s.T * s.H * s.D;
  x.nl = (int64_t)s.B * s.H * s.T;
  memset(&x.attr, 0, sizeof x.attr);
  x.attr.batch = s.B;
  x.attr.seq = s.T;
  x.attr.heads = s.H;
  x.attr.kv_heads = s.K;
  x.attr.width = s.D;
  x.attr.scale = s.scale;
  x.attr.p = s.p;
  x.layout = lk_attention_layout_of(&x.attr, s.dtype);
  uint32_t clock[4] = {0x89ABCDEFu, 0x1234567u, 5, 3};
  char *scratch = (char *)device_bytes(&x, x.layout.bytes, 0xFF);
  attention_args *a = &x.a;
  memset(a, 0, sizeof *a);
  a->qkv = numbers(&x, x.n, 1, 4);
  a->d_o = numbers(&x, x.no, 2, 2);
  a->o = device_bytes(&x, x.no * 4, 0xFF);
  a->dqkv = device_bytes(&x, x.n * 4, 0xFF);
  a->lse = (float *)device_bytes(&x, x.nl * 4, 0xFF);
  a->dtype = s.dtype;
  a->batch = s.B;
  a->seq = s.T;
  a->heads = s.H;
  a->kv_heads = s.K;
  a->width = s.D;
  a->scale = (float)s.scale;
  a->factor = (float)(1 / (1 - s.p));
  a->threshold = lk_dropout_threshold(s.p);
  a->stream = 9;
  a->dq = (float *)(scratch + x.layout.dq);
  a->dkv = (float *)(scratch + x.layout.dkv);
  a->dq_turns = (uint32_t *)(scratch + x.layout.turns);
  a->dkv_turns = a->dq_turns + x.layout.queries;
  a->taken = a->dkv_turns + x.layout.keys;
  a->stats = (float2 *)(scratch + x.layout.stats);
  a->hopper = hopper;
  void *c = device_bytes(&x, sizeof clock, 0);
  CUDA(cudaMemcpy(c, clock, sizeof clock, cudaMemcpyHostToDevice));
  if (s.p > 0) a->clock = (const uint32_t *)c;
  if (s.p > 0 && lk_attention_tiled(&x.attr, s.dtype))
    a->kept = (uint32_t *)device_bytes(
        &x, 4 * s.B * s.H * lk_attention_kept_words(s.T), 0xFF);
  return x;
}

static void problem_free(problem *x) {
  for (void *p : x->owned) CUDA(cudaFree(p));
}

static void forward(const problem *x) {
  bool tiled = lk_attention_tiled(&x->attr, x->s.dtype);
  CUDA((tiled ? attention_forward_tiled : attention_forward_plain)(&x->a, 0));
}

static void backward(const problem *x) {
  bool tiled = lk_attention_tiled(&x->attr, x->s.dtype);
  CUDA(attention_stats(&x->a, lk_attention_words(&x->layout), 0));
  CUDA((tiled ? attention_backward_tiled
              : attention_backward_plain)(&x->a, 0));
}

/* --- comparing ------------------------------------------------------------ */

static std::vector<double> to_host(const void *data, lk_dtype dtype,
                                   int64_t n) {
  std::vector<double> y((size_t)n);
  std::vector<char> raw((size_t)n * (dtype == LK_F32 ? 4 : 2));
  CUDA(cudaMemcpy(raw.data(), data, raw.size(), cudaMemcpyDeviceToHost));
  for (int64_t i = 0; i < n; i++)
    if (dtype == LK_F32)
      y[i] = ((float *)raw.data())[i];
    else if (dtype == LK_BF16)
      y[i] = lk_f32_from_bf16(((uint16_t *)raw.data())[i]);
    else
      y[i] = __half2float(((__half *)raw.data())[i]);
  return y;
}

static std::vector<double> doubles(const double *data, int64_t n) {
  std::vector<double> y((size_t)n);
  CUDA(cudaMemcpy(y.data(), data, (size_t)n * 8, cudaMemcpyDeviceToHost));
  return y;
}

/* ‖y − want‖ / ‖want‖ over the heads [first, last) of rows of `heads`. */
static void compare(const char *what, const std::vector<double> &y,
                    const std::vector<double> &want, int heads, int width,
                    int first, int last, double bound) {
  double error = 0, norm = 0, worst = 0;
  int64_t bad = 0, count = 0;
  for (size_t i = 0; i < y.size(); i++) {
    int head = (int)((int64_t)i / width % heads);
    if (head < first || head >= last) continue;
    double e = y[i] - want[i];
    if (!(fabs(e) < 1e30)) bad++;
    error += e * e;
    norm += want[i] * want[i];
    worst = fmax(worst, fabs(e));
    count++;
  }
  /* inputs are of order 1: what should be exactly 0 is near it */
  double rms = fmax(sqrt(norm / (double)count), 1e-3);
  double relative = sqrt(error / (double)count) / rms;
  checks++;
  /* a single wrong element hides in the norm, hence the second bound */
  if (!bad && relative <= bound && worst <= 12 * bound * rms + 1e-30) return;
  failures++;
  printf("  FAILED %s: relative %.2e (bound %.0e), worst %.2e of rms %.2e, "
         "%lld not finite\n", what, relative, bound, worst, rms,
         (long long)bad);
}

static void check(const char *what, bool good) {
  checks++;
  if (good) return;
  failures++;
  printf("  FAILED %s\n", what);
}

static std::vector<char> bytes_of(const void *data, int64_t bytes) {
  std::vector<char> y((size_t)bytes);
  CUDA(cudaMemcpy(y.data(), data, (size_t)bytes, cudaMemcpyDeviceToHost));
  return y;
}

static void check_shape(shape s) {
  problem x = problem_new(s);
  const attention_args *a = &x.a;
  reference r;
  r.o = (double *)device_bytes(&x, x.no * 8, 0);
  r.lse = (double *)device_bytes(&x, x.nl * 8, 0);
  r.delta = (double *)device_bytes(&x, x.nl * 8, 0);
  r.dqkv = (double *)device_bytes(&x, x.n * 8, 0);
  printf("%s B%d T%d H%d K%d D%d p%g%s\n", s.dtype == LK_BF16 ? "bf16" :
         s.dtype == LK_F16 ? "f16" : "f32", s.B, s.T, s.H, s.K, s.D, s.p,
         lk_attention_tiled(&x.attr, s.dtype) ? "" : " (plain)");
  k_reference_rows<<<(unsigned)((x.nl + 63) / 64), 64>>>(*a, r);
  k_reference_keys<<<(unsigned)((x.nl + 63) / 64), 64>>>(*a, r);
  forward(&x);
  backward(&x);
  CUDA(cudaDeviceSynchronize());
  int size = s.dtype == LK_F32 ? 4 : 2;
  std::vector<char> o = bytes_of(a->o, x.no * size);
  std::vector<char> dqkv = bytes_of(a->dqkv, x.n * size);
  double bound = s.dtype == LK_F32 ? 2e-5 : s.dtype == LK_F16 ? 2e-3 : 1.5e-2;
  int heads = s.H + 2 * s.K;
  compare("o", to_host(a->o, s.dtype, x.no), doubles(r.o, x.no), s.H, s.D, 0,
          s.H, bound);
  compare("lse", to_host(a->lse, LK_F32, x.nl), doubles(r.lse, x.nl), 1, 1, 0,
          1, 1e-5);
  std::vector<double> got = to_host(a->dqkv, s.dtype, x.n);
  std::vector<double> want = doubles(r.dqkv, x.n);
  compare("dq", got, want, heads, s.D, 0, s.H, bound);
  compare("dk", got, want, heads, s.D, s.H, s.H + s.K, bound);
  compare("dv", got, want, heads, s.D, s.H + s.K, heads, bound);
  CUDA(cudaMemset(a->o, 0xFF, (size_t)x.no * size));
  CUDA(cudaMemset(a->dqkv, 0xFF, (size_t)x.n * size));
  forward(&x);
  backward(&x);
  CUDA(cudaDeviceSynchronize());
  check("o: the same bits twice", o == bytes_of(a->o, x.no * size));
  check("dqkv: the same bits twice", dqkv == bytes_of(a->dqkv, x.n * size));
  problem_free(&x);
}

/* --- masks ---------------------------------------------------------------- */

/* q = 0 and the rows of v (d_o) that are unit vectors show the mask itself:
 * o[i][d] is not 0 iff (i, j) is kept, j = window·D + d; dv[j][d] likewise for
 * i = window·D + d. */
static __global__ void k_windows(view qkv, view d_o, attention_args a,
                                 int window) {
  int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  int64_t row = n / a.width, d = n % a.width;
  if (row >= (int64_t)a.batch * a.seq) return;
  bool one = row % a.seq == (int64_t)window * a.width + d;
  for (int h = 0; h < a.heads + 2 * a.kv_heads; h++)
    view_set(qkv, (row * (a.heads + 2 * a.kv_heads) + h) * a.width + d,
             one && h >= a.heads + a.kv_heads ? 1.0f : 0.0f);
  for (int h = 0; h < a.heads; h++)
    view_set(d_o, (row * a.heads + h) * a.width + d, one ? 1.0f : 0.0f);
}

/* Wrong elements, forward and backward. */
static __global__ void k_compare_masks(attention_args a, int window,
                                       unsigned *wrong) {
  int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  int64_t row = n / a.width, d = n % a.width, t = row % a.seq;
  if (row >= (int64_t)a.batch * a.seq) return;
  int64_t other = (int64_t)window * a.width + d;
  int b = (int)(row / a.seq);
  if (other >= a.seq) return;
  view o = {a.o, a.dtype}, dqkv = {a.dqkv, a.dtype};
  for (int h = 0; h < a.heads; h++) {
    bool kept = other <= t && keep_double(a, b, h, t, other) > 0;
    bool has = view_get(o, (row * a.heads + h) * a.width + d) != 0;
    if (kept != has) atomicAdd(&wrong[0], 1);
    kept = t <= other && keep_double(a, b, h, other, t) > 0;
    int v = a.heads + a.kv_heads + h; /* K = H here */
    has = view_get(dqkv, (row * 3 * a.heads + v) * a.width + d) != 0;
    if (kept != has) atomicAdd(&wrong[1], 1);
  }
}

static void check_masks(shape s) {
  problem x = problem_new(s);
  unsigned *wrong = (unsigned *)device_bytes(&x, 8, 0), host[2];
  view qkv = {(void *)x.a.qkv, s.dtype}, d_o = {(void *)x.a.d_o, s.dtype};
  unsigned grid = (unsigned)(((int64_t)s.B * s.T * s.D + 127) / 128);
  for (int window = 0; window * s.D < s.T; window++) {
    k_windows<<<grid, 128>>>(qkv, d_o, x.a, window);
    forward(&x);
    backward(&x);
    k_compare_masks<<<grid, 128>>>(x.a, window, wrong);
  }
  CUDA(cudaMemcpy(host, wrong, 8, cudaMemcpyDeviceToHost));
  printf("masks B%d T%d H%d D%d p%g: %u wrong forward, %u backward\n", s.B,
         s.T, s.H, s.D, s.p, host[0], host[1]);
  check("masks", host[0] == 0 && host[1] == 0);
  problem_free(&x);
}

/* --- timing --------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

/* Milliseconds of each of `runs` runs of f(x), back to back. */
static float timed(void (*f)(const problem *), const problem *x, int runs) {
  cudaEvent_t start, end;
  float ms;
  CUDA(cudaEventCreate(&start));
  CUDA(cudaEventCreate(&end));
  CUDA(cudaEventRecord(start));
  for (int i = 0; i < runs; i++) f(x);
  CUDA(cudaEventRecord(end));
  CUDA(cudaEventSynchronize(end));
  CUDA(cudaEventElapsedTime(&ms, start, end));
  CUDA(cudaEventDestroy(start));
  CUDA(cudaEventDestroy(end));
  return ms / (float)runs;
}

/* Median milliseconds of f(x), alone. */
static float milliseconds(void (*f)(const problem *), const problem *x) {
  enum { RUNS = 21 };
  float ms[RUNS];
  for (int i = -5; i < RUNS; i++) {
    float t = timed(f, x, 1);
    if (i >= 0) ms[i] = t;
  }
  qsort(ms, RUNS, sizeof *ms, by_value);
  return ms[RUNS / 2];
}

/* The same at the device's limit: after as many runs as take `span`. */
static float sustained(void (*f)(const problem *), const problem *x) {
  const float span = 60;
  int runs = (int)(span / milliseconds(f, x)) + 1;
  timed(f, x, runs);
  return timed(f, x, runs);
}

static void stats_alone(const problem *x) {
  CUDA(attention_stats(&x->a, lk_attention_words(&x->layout), 0));
}

/* With dq and dk turned, alone and at the limit. */
static void bench_turned(int B, int H, int K, double p) {
  problem x = problem_new({B, 512, H, K, 64, p, 0.125, LK_BF16});
  forward(&x);
  printf("B%-3d H%-3d K%-3d p%.1f  limit: forward %7.1f, backward %7.1f", B, H,
         K, p, sustained(forward, &x) * 1e3, sustained(backward, &x) * 1e3);
  x.a.table = (float *)device_bytes(&x, 512 * 64 * 4, 0);
  x.a.sense = 1;
  printf(", turned %7.1f, alone %7.1f, stats %7.1f us\n",
         sustained(backward, &x) * 1e3, milliseconds(backward, &x) * 1e3,
         sustained(stats_alone, &x) * 1e3);
  problem_free(&x);
}

static void bench(int B, int H, int K, double p) {
  problem x = problem_new({B, 512, H, K, 64, p, 0.125, LK_BF16});
  double flops = 2.0 * B * H * 512.0 * 512 * 64;
  forward(&x);
  float f = milliseconds(forward, &x), b = milliseconds(backward, &x);
  printf("B%-3d H%-3d K%-3d p%.1f  forward %7.1f us %5.0f TFLOP/s  backward "
         "%7.1f us %5.0f TFLOP/s", B, H, K, p, f * 1e3, flops / f * 1e-9,
         b * 1e3, 2.5 * flops / b * 1e-9);
  x.a.hopper = 0;
  if (hopper)
    printf(", portable %7.1f us, %7.1f us", milliseconds(forward, &x) * 1e3,
           milliseconds(backward, &x) * 1e3);
  printf("\n");
  problem_free(&x);
}

static void bench_all(void) {
  static const int heads[][2] = {{8, 8},   {8, 2},   {12, 12}, {16, 16},
                                 {16, 4},  {20, 20}};
  for (int B : {24, 96})
    for (auto h : heads)
      for (double p : {0.0, 0.1}) bench(B, h[0], h[1], p);
}

/* Few and small: for compute-sanitizer. */
static void check_small(void) {
  check_shape({1, 200, 2, 1, 64, 0.1, 0.3, LK_BF16});
  check_shape({1, 136, 2, 2, 128, 0.1, 0.3, LK_BF16});
  check_shape({1, 261, 2, 1, 40, 0, 0.3, LK_F16});
  check_shape({2, 37, 2, 1, 20, 0.2, 0.3, LK_F32});
}

/* Head widths, of either padding, and the masks of each. */
static void check_widths(void) {
  static const int widths[] = {8, 32, 40, 48, 64, 80, 96, 128};
  for (int D : widths) {
    check_shape({2, 149, 4, 2, D, 0, 0.2, LK_BF16});
    check_shape({2, 264, 4, 1, D, 0.1, 0.2, LK_BF16});
    check_shape({1, 520, 3, 3, D, 0.25, 0.2, LK_F16});
  }
  for (int D : {32, 64, 128}) {
    check_masks({2, 200, 3, 3, D, 0.5, 0.2, LK_BF16});
    check_masks({1, 512, 2, 2, D, 0.1, 0.2, LK_BF16});
  }
}

/* Lengths around the tiles' at width 64, and what only plain kernels take. */
static void check_lengths(void) {
  for (int T : {1, 2, 31, 63, 64, 65, 127, 128, 129, 255, 511, 513})
    check_shape({2, T, 2, 1, 64, 0, 0.2, LK_BF16});
  check_shape({3, 512, 8, 2, 64, 0.1, 0.125, LK_BF16});
  check_shape({3, 512, 8, 8, 64, 0.5, 1.0, LK_BF16});
  check_shape({1, 2048, 2, 1, 64, 0.1, 0.125, LK_BF16});
  check_shape({2, 149, 4, 2, 64, 0.1, 0.2, LK_BF16});
  check_shape({2, 64, 2, 2, 64, 0, -0.2, LK_BF16});
  check_shape({2, 149, 4, 2, 20, 0.1, 0.2, LK_F32});
  check_shape({1, 300, 2, 1, 64, 0.1, 0.2, LK_F32});
  check_shape({1, 70, 2, 1, 200, 0, 0.2, LK_F16});
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "all";
  cudaDeviceProp device;
  setvbuf(stdout, NULL, _IOLBF, 0);
  CUDA(cudaGetDeviceProperties(&device, 0));
  printf("%s, compute capability %d.%d\n", device.name, device.major,
         device.minor);
  if (device.major == 9 && device.minor == 0)
    hopper = device.multiProcessorCount;
  if (strcmp(what, "turned") == 0) {
    for (int H : {8, 12, 16, 20}) bench_turned(96, H, H, 0.1);
    bench_turned(96, 20, 5, 0.1);
    return 0;
  }
  if (strcmp(what, "bench") == 0) {
    if (argc == 6)
      bench(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atof(argv[5]));
    else
      bench_all();
    return 0;
  }
  for (int most = hopper; hopper >= 0; hopper -= most ? most : 1) {
    printf("%s\n", hopper ? "with warpgroups" : "without");
    if (strcmp(what, "small") == 0) check_small();
    if (strcmp(what, "small") != 0 && strcmp(what, "lengths") != 0)
      check_widths();
    if (strcmp(what, "small") != 0) check_lengths();
  }
  printf("%d checks, %d failed\n", checks, failures);
  return failures > 0;
}
