/* Newton-Schulz's symmetric products on a device, by themselves: against sums
 * in double precision, symmetric to the bit, the same bits twice and whatever
 * the batch, and (with `time`) timed beside cuBLASLt. Needs no Lua and no
 * backend:
 *   nvcc -std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a \
 *     -o test_square tests/device/test_square.cu \
 *     kernels/cuda/schulz_square.cu kernels/cuda/bulk.cu -lcublasLt
 *   ./test_square [small | time]    small: for compute-sanitizer
 */
#include <string.h>
#include <vector>

#include "../../kernels/cuda/schulz.cuh"
#include "lt.cuh"

static int failures, checks, processors;

/* --- a shape and its memory ----------------------------------------------- */

struct shape {
  int64_t side, depth, count;
  bool turned;
  float alpha, beta;
};

struct problem {
  shape s;
  schulz_product p;
  int64_t operand, square; /* elements of all a; of all d */
};

/* Uniform numbers, centred, the same on every run. */
static __global__ void k_numbers(__half *y, int64_t n, uint32_t stream) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  uint32_t x = (uint32_t)i * 2654435761u ^ stream * 40503u;
  x = (x ^ x >> 16) * 0x85EBCA6Bu;
  x = (x ^ x >> 13) * 0xC2B2AE35u;
  x ^= x >> 16;
  y[i] = __float2half_rn((float)(x >> 8) * 0x1p-24f - 0.5f);
}

static __half *numbers(int64_t n, uint32_t stream) {
  __half *y = NULL;
  OK(cudaMalloc(&y, (size_t)n * 2));
  k_numbers<<<(unsigned)((n + 255) / 256), 256>>>(y, n, stream);
  OK(cudaGetLastError());
  return y;
}

static problem problem_new(shape s) {
  problem x = {};
  x.s = s;
  x.operand = s.side * s.depth * s.count;
  x.square = s.side * s.side * s.count;
  x.p.a = numbers(x.operand, 1);
  x.p.b = numbers(x.operand, 2);
  x.p.c = numbers(x.square, 3);
  OK(cudaMalloc(&x.p.d, (size_t)x.square * 2));
  OK(cudaMalloc(&x.p.shifted, (size_t)x.square * 2));
  x.p.side = s.side;
  x.p.depth = s.depth;
  x.p.pitch = s.turned ? s.side : s.depth;
  x.p.step = s.side * s.depth;
  x.p.alpha = s.alpha;
  x.p.beta = s.beta;
  x.p.shift = 3.4445f;
  x.p.turned = s.turned;
  return x;
}

static void problem_free(problem *x) {
  OK(cudaFree((void *)x->p.a));
  OK(cudaFree((void *)x->p.b));
  OK(cudaFree((void *)x->p.c));
  OK(cudaFree(x->p.d));
  OK(cudaFree(x->p.shifted));
}

/* --- checks --------------------------------------------------------------- */

enum { SUMS = 16 };

/* want [side, side] of one matrix: its lower half, and that one's image. */
static __global__ void k_reference(schulz_product p, int64_t matrix,
                                   double *want) {
  __shared__ double a[SUMS][SUMS + 1], b[SUMS][SUMS + 1];
  if (blockIdx.x > blockIdx.y) return;
  const int i = blockIdx.y * SUMS + threadIdx.y;
  const int j = blockIdx.x * SUMS + threadIdx.x;
  const int other = blockIdx.x * SUMS + threadIdx.y;
  const __half *pa = (const __half *)p.a + matrix * p.step;
  const __half *pb = (const __half *)p.b + matrix * p.step;
  double sum = 0;
  for (int64_t k = 0; k < p.depth; k += SUMS) {
    const int64_t at = k + threadIdx.x;
    const bool in = at < p.depth;
    a[threadIdx.y][threadIdx.x] =
        in && i < p.side ? (double)__half2float(
                               pa[p.turned ? at * p.pitch + i
                                           : i * p.pitch + at])
                         : 0;
    b[threadIdx.y][threadIdx.x] =
        in && other < p.side ? (double)__half2float(
                                   pb[p.turned ? at * p.pitch + other
                                               : other * p.pitch + at])
                             : 0;
    __syncthreads();
    for (int e = 0; e < SUMS; e++)
      sum += a[threadIdx.y][e] * b[threadIdx.x][e];
    __syncthreads();
  }
  if (i >= p.side || j > i) return;
  const __half *c = (const __half *)p.c + matrix * p.side * p.side;
  sum *= p.alpha;
  if (p.beta != 0) sum += (double)p.beta * __half2float(c[i * p.side + j]);
  want[i * p.side + j] = want[j * p.side + i] = sum;
}

/* What is wrong with one matrix of d: found[0] far from `want`, [1] not
 * symmetric, [2] wrongly shifted. */
static __global__ void k_compare(schulz_product p, int64_t matrix,
                                 const double *want, unsigned *found) {
  const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= p.side * p.side) return;
  const int64_t i = at / p.side, j = at % p.side;
  const __half *d = (const __half *)p.d + matrix * p.side * p.side;
  const __half *q = (const __half *)p.shifted + matrix * p.side * p.side;
  const double x = __half2float(d[at]), y = want[at];
  const double bound = 6e-4 * fabs(y) + 1e-5 * (10 + sqrt((double)p.depth));
  if (!(fabs(x - y) <= bound)) atomicAdd(found, 1u);
  if (__half_as_ushort(d[at]) != __half_as_ushort(d[j * p.side + i]))
    atomicAdd(found + 1, 1u);
  const __half moved =
      i == j ? __float2half_rn(__half2float(d[at]) + p.shift) : d[at];
  if (__half_as_ushort(q[at]) != __half_as_ushort(moved))
    atomicAdd(found + 2, 1u);
}

static __global__ void k_differ(const uint16_t *x, const uint16_t *y,
                                int64_t n, unsigned *found) {
  const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n && x[i] != y[i]) atomicAdd(found, 1u);
}

static void expect(const shape &s, const char *what, unsigned wrong) {
  checks++;
  if (wrong == 0) return;
  failures++;
  printf("side %d depth %d x %d%s beta %g: %u %s\n", (int)s.side,
         (int)s.depth, (int)s.count, s.turned ? " turned" : "", s.beta, wrong,
         what);
}

static unsigned *found_new() {
  unsigned *found = NULL;
  OK(cudaMallocManaged(&found, 3 * sizeof *found));
  memset(found, 0, 3 * sizeof *found);
  return found;
}

static void square_run(const problem &x, bool shifted) {
  schulz_product p = x.p;
  if (!shifted) p.shifted = NULL;
  OK(schulz_square_run(&p, x.s.count, processors, 0));
}

/* The first and the last matrix against double, all of both outputs. */
static void check_values(const problem &x) {
  double *want = NULL;
  unsigned *found = found_new();
  const int64_t side = x.s.side;
  const unsigned tiles = (unsigned)((side + SUMS - 1) / SUMS);
  OK(cudaMalloc(&want, (size_t)(side * side) * 8));
  OK(cudaMemset(x.p.d, 0xFF, (size_t)x.square * 2));
  OK(cudaMemset(x.p.shifted, 0xFF, (size_t)x.square * 2));
  square_run(x, true);
  OK(cudaDeviceSynchronize());
  for (int64_t m = 0; m < x.s.count; m += x.s.count > 1 ? x.s.count - 1 : 1) {
    k_reference<<<dim3(tiles, tiles), dim3(SUMS, SUMS)>>>(x.p, m, want);
    k_compare<<<(unsigned)((side * side + 255) / 256), 256>>>(x.p, m, want,
                                                              found);
    OK(cudaDeviceSynchronize());
  }
  expect(x.s, "far from double", found[0]);
  expect(x.s, "not symmetric", found[1]);
  expect(x.s, "not shifted", found[2]);
  OK(cudaFree(want));
  OK(cudaFree(found));
}

static unsigned differ(const void *x, const void *y, int64_t n) {
  unsigned *found = found_new();
  k_differ<<<(unsigned)((n + 255) / 256), 256>>>(
      (const uint16_t *)x, (const uint16_t *)y, n, found);
  OK(cudaDeviceSynchronize());
  const unsigned wrong = found[0];
  OK(cudaFree(found));
  return wrong;
}

/* Twice, then one matrix alone: into memory that shifted had. */
static void check_bits(const problem &x) {
  problem again = x;
  again.p.d = x.p.shifted;
  square_run(x, false);
  square_run(again, false);
  expect(x.s, "differ the second time", differ(x.p.d, again.p.d, x.square));
  again.s.count = 1;
  square_run(again, false);
  expect(x.s, "differ alone",
         differ(x.p.d, again.p.d, x.s.side * x.s.side));
}

static void check(shape s) {
  problem x = problem_new(s);
  check_values(x);
  check_bits(x);
  problem_free(&x);
}

/* Sides up to `largest`. */
static void check_all(int64_t largest) {
  static const int64_t sides[] = {64,  72,  128, 192, 200,  256, 320,
                                  384, 512, 640, 768, 1024, 1280};
  for (int64_t side : sides) {
    if (side > largest) return;
    for (int turned = 0; turned < 2; turned++) {
      check({side, side, 1, turned != 0, 1, 3.4445f});
      check({side, side, 16, turned != 0, 2.0315f, -4.775f});
      check({side, 4 * side, 3, turned != 0, 1, 0});
      check({side, side + 8, 2, turned != 0, 1, 0});
    }
    printf("side %d: %d checks, %d failures\n", (int)side, checks, failures);
    fflush(stdout);
  }
  check({128, 8, 5, false, 1, 1});
  check({256, 5120, 20, true, 1, 0});
}

/* --- times ---------------------------------------------------------------- */

struct library {
  cublasLtHandle_t handle;
  void *workspace;
};

/* The whole product, not half of it: what the library has. */
static void library_run(const library &l, const problem &x,
                        cudaStream_t stream, cublasLtMatmulAlgo_t *algorithm,
                        bool ask) {
  const shape &s = x.s;
  cublasLtMatmulDesc_t product;
  cublasLtMatmulPreference_t preference;
  cublasOperation_t yes = CUBLAS_OP_T, no = CUBLAS_OP_N;
  OK(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  OK(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA,
                                    s.turned ? &no : &yes, sizeof yes));
  OK(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSB,
                                    s.turned ? &yes : &no, sizeof yes));
  const int64_t rows = s.turned ? s.side : s.depth;
  const int64_t columns = s.turned ? s.depth : s.side;
  cublasLtMatrixLayout_t a = layout(CUDA_R_16F, rows, columns);
  cublasLtMatrixLayout_t d = layout(CUDA_R_16F, s.side, s.side);
  const int32_t count = (int32_t)s.count;
  const int64_t in = s.side * s.depth, out = s.side * s.side;
  OK(cublasLtMatrixLayoutSetAttribute(a, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                                      &count, sizeof count));
  OK(cublasLtMatrixLayoutSetAttribute(d, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                                      &count, sizeof count));
  OK(cublasLtMatrixLayoutSetAttribute(
      a, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &in, sizeof in));
  OK(cublasLtMatrixLayoutSetAttribute(
      d, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &out, sizeof out));
  const size_t room = 32 << 20;
  OK(cublasLtMatmulPreferenceCreate(&preference));
  OK(cublasLtMatmulPreferenceSetAttribute(
      preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room,
      sizeof room));
  if (ask) {
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;
    OK(cublasLtMatmulAlgoGetHeuristic(l.handle, product, a, a, d, d,
                                      preference, 1, &found, &n));
    *algorithm = found.algo;
  }
  OK(cublasLtMatmul(l.handle, product, &s.alpha, x.p.b, a, x.p.a, a, &s.beta,
                    x.p.c, d, x.p.d, d, algorithm, l.workspace, room,
                    stream));
  OK(cublasLtMatmulPreferenceDestroy(preference));
  OK(cublasLtMatrixLayoutDestroy(a));
  OK(cublasLtMatrixLayoutDestroy(d));
  OK(cublasLtMatmulDescDestroy(product));
}

/* Microseconds of what `enqueue` does, many times in one recording. */
template <typename F> static double time_of(F enqueue) {
  enum { TIMES = 20 };
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t program;
  cudaEvent_t begin, end;
  OK(cudaStreamCreate(&stream));
  OK(cudaEventCreate(&begin));
  OK(cudaEventCreate(&end));
  OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < TIMES; i++) enqueue(stream);
  OK(cudaStreamEndCapture(stream, &graph));
  OK(cudaGraphInstantiate(&program, graph, 0));
  double best = 1e30;
  for (int i = 0; i < 5; i++) {
    float ms = 0;
    OK(cudaEventRecord(begin, stream));
    OK(cudaGraphLaunch(program, stream));
    OK(cudaEventRecord(end, stream));
    OK(cudaStreamSynchronize(stream));
    OK(cudaEventElapsedTime(&ms, begin, end));
    if (i > 0 && ms < best) best = ms;
  }
  OK(cudaGraphExecDestroy(program));
  OK(cudaGraphDestroy(graph));
  OK(cudaEventDestroy(begin));
  OK(cudaEventDestroy(end));
  OK(cudaStreamDestroy(stream));
  return best * 1000 / TIMES;
}

/* A product's rate: half of all sums and the diagonal, side · (side + 1) ·
 * depth · count, whatever was computed. */
static void print_time(const shape &s, double us) {
  const double flop = (double)s.side * (s.side + 1) * s.depth * s.count;
  printf(" %7.1f (%4.0f)", us, flop / us * 1e-6);
}

static void time_shape(const library &l, shape s) {
  problem x = problem_new(s);
  schulz_product p = x.p;
  p.shifted = NULL;
  const double ours = time_of([&](cudaStream_t stream) {
    OK(schulz_square_run(&p, s.count, processors, stream));
  });
  cublasLtMatmulAlgo_t algorithm;
  library_run(l, x, 0, &algorithm, true);
  const double whole = time_of([&](cudaStream_t stream) {
    library_run(l, x, stream, &algorithm, false);
  });
  printf("%5d %6d %3d %-6s %4g", (int)s.side, (int)s.depth, (int)s.count,
         s.turned ? "turned" : "", s.beta);
  print_time(s, ours);
  print_time(s, whole);
  printf("\n");
  fflush(stdout);
  problem_free(&x);
}

static void time_all() {
  library l = {};
  OK(cublasLtCreate(&l.handle));
  OK(cudaMalloc(&l.workspace, 32 << 20));
  printf("us (TFLOP/s of the lower half's side (side + 1) depth count)\n"
         " side  depth   x        beta           ours       library, all\n");
  for (int64_t side : {512, 768, 1024, 1280})
    for (int64_t count : {16, 4})
      for (int turned = 0; turned < 2; turned++) {
        time_shape(l, {side, side, count, turned != 0, 1,
                       turned ? 0 : 3.4445f});
        time_shape(l, {side, 4 * side, count, turned != 0, 1, 0});
      }
  OK(cudaFree(l.workspace));
  OK(cublasLtDestroy(l.handle));
}

int main(int argc, char **argv) {
  OK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
  if (argc > 1 && strcmp(argv[1], "time") == 0) {
    time_all();
    return 0;
  }
  check_all(argc > 1 && strcmp(argv[1], "small") == 0 ? 200 : INT64_MAX);
  printf("%d checks, %d failures\n", checks, failures);
  return failures != 0;
}
