/* Matrix products of the four models' linear layers through cuBLASLt, one by
 * one: bf16, and e4m3 with scales by tensor, by row and by 128 values, with
 * and without the fast sums. Prints TFLOP/s. Built by hand:
 *
 *   nvcc -O2 -arch=sm_90a -o products products.cu -lcublasLt */
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#include <math.h>

#include "lt.cuh"

typedef struct variant {
  const char *name;
  cudaDataType in;
  int mode;          /* of scales; -1: none */
  int8_t fast;
} variant;

static const variant variants[] = {
    {"bf16", CUDA_R_16BF, -1, 0},
    {"tensor", CUDA_R_8F_E4M3, CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F, 0},
    {"tensor fast", CUDA_R_8F_E4M3, CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F,
     1},
    {"row", CUDA_R_8F_E4M3, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F, 0},
    {"row fast", CUDA_R_8F_E4M3, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F,
     1},
    {"1x128", CUDA_R_8F_E4M3, CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F, 0},
};
enum { VARIANTS = sizeof variants / sizeof *variants, RUNS = 7, BEST = 4 };

static cublasLtHandle_t library;
static char *a, *b, *d, *workspace;
static float *scales;
static const size_t WORKSPACE = (size_t)32 << 20;

/* Random bytes that are no NaN in bf16 or e4m3. */
static __global__ void k_fill(uint32_t *x, size_t n) {
  size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  uint32_t v = (uint32_t)i * 2654435761u;
  v ^= v >> 15, v *= 2246822519u, v ^= v >> 13;
  if (i < n) x[i] = v & 0xBFBFBFBFu;
}

static __global__ void k_ones(float *x, size_t n) {
  size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = 1;
}

/* d[i, j] of sampled places in double, from codes as they are. */
static __global__ void k_reference(const __nv_fp8_e4m3 *x,
                                   const __nv_fp8_e4m3 *y, double *sum, int n,
                                   int k, int places) {
  int p = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  if (p >= places) return;
  int64_t i = p * 7, j = p * 13 % n;
  double s = 0;
  for (int c = 0; c < k; c++)
    s += (double)(float)x[i * k + c] * (double)(float)y[j * k + c];
  sum[p] = s;
}

static int by_size(const void *x, const void *y) {
  float p = *(const float *)x, q = *(const float *)y;
  return (p > q) - (p < q);
}

/* Median milliseconds of d [m, n] = a [m, k] b [n, k]ᵀ; `turned`: bf16 with
 * both operands the other way, as a weight's gradient has them. */
static float time_of(const variant *v, int64_t m, int64_t n, int64_t k,
                     bool turned, cudaDataType out, int choice) {
  cublasLtMatmulDesc_t product;
  cublasLtMatmulPreference_t preference;
  cublasLtMatmulHeuristicResult_t found[8];
  cublasOperation_t t = CUBLAS_OP_T, plain = CUBLAS_OP_N;
  int count = 0;
  float alpha = 1, beta = 0, times[RUNS], result = -1;
  OK(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  OK(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA,
                                    turned ? &plain : &t, sizeof t));
  OK(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSB,
                                    turned ? &t : &plain, sizeof t));
  if (v->mode >= 0) {
    cublasLtMatmulMatrixScale_t mode = (cublasLtMatmulMatrixScale_t)v->mode;
    const void *one = scales;
    OK(cublasLtMatmulDescSetAttribute(
        product, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode, sizeof mode));
    OK(cublasLtMatmulDescSetAttribute(
        product, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode, sizeof mode));
    OK(cublasLtMatmulDescSetAttribute(
        product, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &one, sizeof one));
    OK(cublasLtMatmulDescSetAttribute(
        product, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &one, sizeof one));
    OK(cublasLtMatmulDescSetAttribute(
        product, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &v->fast, sizeof v->fast));
  }
  cublasLtMatrixLayout_t lb = turned ? layout(v->in, n, k)
                                     : layout(v->in, k, n);
  cublasLtMatrixLayout_t la = turned ? layout(v->in, m, k)
                                     : layout(v->in, k, m);
  cublasLtMatrixLayout_t ld = layout(out, n, m);
  OK(cublasLtMatmulPreferenceCreate(&preference));
  OK(cublasLtMatmulPreferenceSetAttribute(
      preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE,
      sizeof WORKSPACE));
  cublasLtMatmulAlgoGetHeuristic(library, product, lb, la, ld, ld, preference,
                                 8, found, &count);
  cudaEvent_t start, stop;
  OK(cudaEventCreate(&start));
  OK(cudaEventCreate(&stop));
  for (int i = -2; i < RUNS && choice < count; i++) {
    float *at = &times[i < 0 ? 0 : i];
    OK(cudaEventRecord(start, 0));
    int code = (int)cublasLtMatmul(library, product, &alpha, b, lb, a, la,
                                   &beta, d, ld, d, ld, &found[choice].algo,
                                   workspace, WORKSPACE, 0);
    OK(cudaEventRecord(stop, 0));
    OK(cudaEventSynchronize(stop));
    if (code != 0) goto done;
    OK(cudaEventElapsedTime(at, start, stop));
  }
  if (choice < count) {
    qsort(times, RUNS, sizeof *times, by_size);
    result = times[RUNS / 2];
  }
done:
  cublasLtMatmulPreferenceDestroy(preference);
  cublasLtMatrixLayoutDestroy(la);
  cublasLtMatrixLayoutDestroy(lb);
  cublasLtMatrixLayoutDestroy(ld);
  cublasLtMatmulDescDestroy(product);
  cudaEventDestroy(start);
  cudaEventDestroy(stop);
  return result;
}

/* First choice, and the best of four, of every variant. */
static void line(const char *name, int64_t m, int64_t n, int64_t k,
                 bool weight) {
  double flop = 2e-9 * (double)m * (double)n * (double)k;
  printf("%-12s %6lld %5lld %6lld", name, (long long)m, (long long)n,
         (long long)k);
  for (int i = 0; i < VARIANTS; i++) {
    cudaDataType out = weight ? CUDA_R_32F : CUDA_R_16BF;
    if (weight && variants[i].mode >= 0) out = CUDA_R_16BF;
    bool turned = weight && variants[i].mode < 0;
    float first = time_of(&variants[i], m, n, k, turned, out, 0);
    float best = first;
    for (int c = 1; c < BEST; c++) {
      float t = time_of(&variants[i], m, n, k, turned, out, c);
      if (t > 0 && t < best) best = t;
    }
    printf("  %5.0f/%-5.0f", first > 0 ? flop / first : 0,
           best > 0 ? flop / best : 0);
  }
  printf("\n");
  fflush(stdout);
}

/* Root mean square error of sums over k, in units of the sums' own: each e4m3
 * variant in f32 (0: none such) and in bf16, which rounds by .0011 or so. */
static void errors(int m, int n, int k) {
  enum { PLACES = 512 };
  static double want[PLACES];
  static float got[PLACES];
  static __nv_bfloat16 half[PLACES];
  double *sums, power = 0;
  OK(cudaMalloc(&sums, sizeof want));
  k_reference<<<2, 256>>>((__nv_fp8_e4m3 *)a, (__nv_fp8_e4m3 *)b, sums, n, k,
                          PLACES);
  OK(cudaMemcpy(want, sums, sizeof want, cudaMemcpyDeviceToHost));
  for (int p = 0; p < PLACES; p++) power += want[p] * want[p];
  printf("errors at k %5d:", k);
  for (int i = 1; i < VARIANTS - 1; i++)
    for (int wide = 1; wide >= 0; wide--) {
      double error = 0;
      float t = time_of(&variants[i], m, n, k, false,
                        wide ? CUDA_R_32F : CUDA_R_16BF, 0);
      for (int p = 0; p < PLACES; p++) {
        size_t at = (size_t)(p * 7) * n + p * 13 % n;
        if (wide)
          OK(cudaMemcpy(&got[p], d + at * 4, 4, cudaMemcpyDeviceToHost));
        else
          OK(cudaMemcpy(&half[p], d + at * 2, 2, cudaMemcpyDeviceToHost));
        double v = wide ? got[p] : (double)__bfloat162float(half[p]);
        error += (v - want[p]) * (v - want[p]);
      }
      printf("  %s %s %.2g", variants[i].name, wide ? "f32" : "bf16",
             t > 0 ? sqrt(error / power) : 0);
    }
  printf("\n");
  OK(cudaFree(sums));
}

int main(void) {
  static const int widths[] = {512, 768, 1024, 1280};
  size_t bytes = (size_t)49152 * 5120 * 4;
  OK(cublasLtCreate(&library));
  OK(cudaMalloc(&a, bytes));
  OK(cudaMalloc(&b, bytes));
  OK(cudaMalloc(&d, bytes));
  OK(cudaMalloc(&workspace, WORKSPACE));
  OK(cudaMalloc(&scales, bytes / 32));
  k_fill<<<(unsigned)(bytes / 4 / 256), 256>>>((uint32_t *)a, bytes / 4);
  k_fill<<<(unsigned)(bytes / 4 / 256), 256>>>((uint32_t *)b, bytes / 4);
  k_ones<<<(unsigned)(bytes / 128 / 256), 256>>>(scales, bytes / 128);
  OK(cudaDeviceSynchronize());
  errors(4096, 512, 512);
  errors(4096, 1280, 1280);
  errors(4096, 1280, 5120);
  printf("%-12s %6s %5s %6s", "TFLOP/s", "m", "n", "k");
  for (int i = 0; i < VARIANTS; i++) printf("  %-11s", variants[i].name);
  printf("   first/best\n");
  for (int r = 0; r < 2; r++)
    for (int i = 0; i < 4; i++) {
      int64_t rows = r ? 12288 : 49152, c = widths[i];
      line("qkv", rows, 3 * c, c, false);
      line("o", rows, c, c, false);
      line("up", rows, 4 * c, c, false);
      line("down", rows, c, 4 * c, false);
      line("d qkv", rows, c, 3 * c, false);
      line("w qkv", 3 * c, c, rows, true);
      line("w o", c, c, rows, true);
      line("w up", 4 * c, c, rows, true);
      line("w down", c, 4 * c, rows, true);
    }
  return 0;
}
