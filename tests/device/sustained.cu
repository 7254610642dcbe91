/* Every algorithm that cuBLASLt offers for the products of a model of some
 * width, 96×512 tokens: run once, and back to back until the device is at its
 * limit. Prints TFLOP/s, clocks and watts. With "all" also the best of what it
 * takes but does not offer: other tiles, options, clusters; some four seconds a
 * product. Built by hand:
 *
 *   nvcc -std=c++17 -O2 -o sustained sustained.cu -lcublasLt -ldl
 *   ./sustained MILLISECONDS [all] WIDTH… */
#include <algorithm>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <string.h>
#include <vector>

#include "lt.cuh"

enum { CANDIDATES = 10, SM_CLOCK = 1, ROWS = 96 * 512, VOCAB = 49152 };

static cublasLtHandle_t library;
static char *a, *b, *d, *workspace;
static const size_t WORKSPACE = (size_t)32 << 20;
static const float HEAT = 250; /* ms before the first candidate of a product */
static cudaEvent_t start, stop;
static bool beyond; /* what the library does not offer, too */

/* --- the device's management library ------------------------------------- */

static void *management, *device;
static int (*clock_info)(void *, int, unsigned *);
static int (*power_usage)(void *, unsigned *);

static void management_open(void) {
  management = dlopen("libnvidia-ml.so.1", RTLD_NOW);
  if (!management) printf("no libnvidia-ml.so.1\n"), exit(1);
  OK(((int (*)(void))dlsym(management, "nvmlInit_v2"))());
  OK(((int (*)(unsigned, void **))dlsym(
      management, "nvmlDeviceGetHandleByIndex_v2"))(0, &device));
  *(void **)&clock_info = dlsym(management, "nvmlDeviceGetClockInfo");
  *(void **)&power_usage = dlsym(management, "nvmlDeviceGetPowerUsage");
}

/* --- products ------------------------------------------------------------ */

/* About normal numbers times `size`, a share of them 0: what bits change from
 * number to number is a part of a product's power. */
static __global__ void k_fill(__nv_bfloat16 *x, size_t n, float size,
                              float zeros) {
  size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  uint32_t v = (uint32_t)i * 2654435761u + 12345u;
  float sum = 0;
  for (int r = 0; r < 7; r++) {
    v ^= v >> 15, v *= 2246822519u, v ^= v >> 13, v += 0x9E3779B9u;
    if (r < 6) sum += (v >> 8) * 0x1p-24f - .5f;
  }
  if (i < n) x[i] = (v >> 8) * 0x1p-24f < zeros ? 0 : sum * size * 1.41f;
}

/* Row-major d [m, n] = op(a) op(b): the library has dᵀ = op(b)ᵀ op(a)ᵀ. */
typedef struct product {
  cublasLtMatmulDesc_t what;
  cublasLtMatrixLayout_t la, lb, ld;
  float alpha, beta;
} product;

static int run(const product *p, const cublasLtMatmulAlgo_t *algorithm) {
  return (int)cublasLtMatmul(library, p->what, &p->alpha, b, p->lb, a, p->la,
                             &p->beta, d, p->ld, d, p->ld, algorithm,
                             workspace, WORKSPACE, 0);
}

static float milliseconds(const product *p,
                          const cublasLtMatmulAlgo_t *algorithm, int runs) {
  float ms;
  OK(cudaEventRecord(start, 0));
  for (int i = 0; i < runs; i++) OK(run(p, algorithm));
  OK(cudaEventRecord(stop, 0));
  OK(cudaEventSynchronize(stop));
  OK(cudaEventElapsedTime(&ms, start, stop));
  return ms / (float)runs;
}

static int attribute(const cublasLtMatmulAlgo_t *algorithm,
                     cublasLtMatmulAlgoConfigAttributes_t which, int bytes) {
  int value = 0;
  size_t size;
  cublasLtMatmulAlgoConfigGetAttribute(algorithm, which, &value,
                                       (size_t)bytes, &size);
  return value;
}

static int option_of(const cublasLtMatmulAlgo_t *algorithm) {
  return attribute(algorithm, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, 4);
}

/* Back to back for `ms`, the first half to settle. */
static void sustain(const product *p, const cublasLtMatmulAlgo_t *algorithm,
                    const char *from, double flop, float one, float ms) {
  unsigned clock = 0, watts = 0;
  int runs = (int)(ms / 2 / one) + 1;
  for (int i = 0; i < runs; i++) OK(run(p, algorithm));
  float many = milliseconds(p, algorithm, runs);
  clock_info(device, SM_CLOCK, &clock);
  power_usage(device, &watts);
  printf("  %s tile %d parts %d option %d cluster %d: one %5.0f  sustained "
         "%5.0f TFLOP/s  %4u MHz %3.0f W\n", from,
         attribute(algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID, 4),
         attribute(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, 4),
         option_of(algorithm),
         attribute(algorithm, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, 2),
         flop / one, flop / many, clock, watts / 1e3);
}

/* --- what the library does not offer -------------------------------------- */

typedef struct timed {
  cublasLtMatmulAlgo_t algorithm;
  float one;
} timed;

static bool sooner(const timed &x, const timed &y) { return x.one < y.one; }

/* `algorithm` by another tile, option and cluster, if the library takes it. */
static void add_variant(const product *p, cublasLtMatmulAlgo_t algorithm,
                        int tile, int option, int cluster,
                        std::vector<timed> *list) {
  int whole = 1, scheme = CUBLASLT_REDUCTION_SCHEME_NONE;
  uint16_t shape = (uint16_t)cluster;
  cublasLtMatmulHeuristicResult_t result;
  const struct {
    cublasLtMatmulAlgoConfigAttributes_t which;
    const void *value;
    size_t size;
  } set[] = {{CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &whole, 4},
             {CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme, 4},
             {CUBLASLT_ALGO_CONFIG_TILE_ID, &tile, 4},
             {CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, &option, 4},
             {CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, &shape, 2}};
  for (const auto &s : set)
    cublasLtMatmulAlgoConfigSetAttribute(&algorithm, s.which, s.value, s.size);
  memset(&result, 0, sizeof result);
  if (cublasLtMatmulAlgoCheck(library, p->what, p->lb, p->la, p->ld, p->ld,
                              &algorithm, &result) != CUBLAS_STATUS_SUCCESS ||
      result.workspaceSize > WORKSPACE || run(p, &algorithm) != 0)
    return;
  list->push_back({algorithm, milliseconds(p, &algorithm, 1)});
}

/* Every tile by the option of `base`, in two clusters; then the best tiles by
 * every option, in four clusters: the four soonest of each option. */
static std::vector<timed> variants(const product *p,
                                   const cublasLtMatmulAlgo_t &base) {
  enum { TILES = 1024, BEST = 20, OF_OPTION = 4 };
  static int tile[TILES];
  std::vector<timed> all, best, kept;
  int options = 0, taken[256] = {0};
  size_t size = 0, unused;
  cublasLtMatmulAlgoCapGetAttribute(&base, CUBLASLT_ALGO_CAP_TILE_IDS, tile,
                                    sizeof tile, &size);
  cublasLtMatmulAlgoCapGetAttribute(&base,
                                    CUBLASLT_ALGO_CAP_CUSTOM_OPTION_MAX,
                                    &options, sizeof options, &unused);
  for (size_t i = 0; i < size / sizeof *tile; i++)
    for (int cluster : {CUBLASLT_CLUSTER_SHAPE_2x1x1,
                        CUBLASLT_CLUSTER_SHAPE_1x2x1})
      add_variant(p, base, tile[i], option_of(&base), cluster, &all);
  std::sort(all.begin(), all.end(), sooner);
  for (size_t i = 0; i < all.size() && i < BEST; i++)
    for (int option = 0; option <= options; option++)
      for (int cluster :
           {CUBLASLT_CLUSTER_SHAPE_1x1x1, CUBLASLT_CLUSTER_SHAPE_2x1x1,
            CUBLASLT_CLUSTER_SHAPE_1x2x1, CUBLASLT_CLUSTER_SHAPE_2x2x1})
        add_variant(p, base,
                    attribute(&all[i].algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID,
                              4),
                    option, cluster, &best);
  std::sort(best.begin(), best.end(), sooner);
  for (const timed &t : best)
    if (taken[option_of(&t.algorithm) & 255]++ < OF_OPTION) kept.push_back(t);
  return kept;
}

/* All candidates of a product, on a device that is hot before the first. */
static void candidates(const product *p,
                       const cublasLtMatmulHeuristicResult_t *found, int count,
                       double flop, float ms) {
  std::vector<timed> more;
  if (beyond && count > 0) more = variants(p, found[0].algo);
  for (int i = 0; i < count; i++) {
    if (run(p, &found[i].algo) != 0) continue;
    OK(cudaDeviceSynchronize());
    float one = milliseconds(p, &found[i].algo, 1);
    for (int n = 0; i == 0 && n * one < HEAT; n++) OK(run(p, &found[0].algo));
    sustain(p, &found[i].algo, "offered", flop, one, ms);
  }
  for (const timed &t : more)
    sustain(p, &t.algorithm, "variant", flop, t.one, ms);
}

/* `wide`: added to f32, as a weight's gradient is. */
static void shape(const char *name, int64_t m, int64_t n, int64_t k, bool ta,
                  bool tb, bool wide, float ms) {
  cublasLtMatmulPreference_t preference;
  cublasLtMatmulHeuristicResult_t found[CANDIDATES];
  cublasOperation_t turned = CUBLAS_OP_T, plain = CUBLAS_OP_N;
  product p = {NULL, NULL, NULL, NULL, 1, wide ? 1.0f : 0.0f};
  int count = 0;
  OK(cublasLtMatmulDescCreate(&p.what, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  OK(cublasLtMatmulDescSetAttribute(p.what, CUBLASLT_MATMUL_DESC_TRANSA,
                                    tb ? &turned : &plain, sizeof turned));
  OK(cublasLtMatmulDescSetAttribute(p.what, CUBLASLT_MATMUL_DESC_TRANSB,
                                    ta ? &turned : &plain, sizeof turned));
  p.lb = tb ? layout(CUDA_R_16BF, k, n) : layout(CUDA_R_16BF, n, k);
  p.la = ta ? layout(CUDA_R_16BF, m, k) : layout(CUDA_R_16BF, k, m);
  p.ld = layout(wide ? CUDA_R_32F : CUDA_R_16BF, n, m);
  OK(cublasLtMatmulPreferenceCreate(&preference));
  OK(cublasLtMatmulPreferenceSetAttribute(
      preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE,
      sizeof WORKSPACE));
  cublasLtMatmulAlgoGetHeuristic(library, p.what, p.lb, p.la, p.ld, p.ld,
                                 preference, CANDIDATES, found, &count);
  printf("%-8s %6lld %6lld %6lld\n", name, (long long)m, (long long)n,
         (long long)k);
  candidates(&p, found, count, 2e-9 * (double)m * (double)n * (double)k, ms);
  fflush(stdout);
}

static void model(int64_t c, float ms) {
  const int64_t r = ROWS, chunk = 8192;
  printf("width %lld\n", (long long)c);
  shape("qkv", r, 3 * c, c, false, false, false, ms);
  shape("o", r, c, c, false, false, false, ms);
  shape("up", r, 4 * c, c, false, false, false, ms);
  shape("down", r, c, 4 * c, false, false, false, ms);
  shape("dx qkv", r, c, 3 * c, false, true, false, ms);
  shape("dx o", r, c, c, false, true, false, ms);
  shape("dx up", r, c, 4 * c, false, true, false, ms);
  shape("dx down", r, 4 * c, c, false, true, false, ms);
  shape("dw qkv", c, 3 * c, r, true, false, true, ms);
  shape("dw o", c, c, r, true, false, true, ms);
  shape("dw up", c, 4 * c, r, true, false, true, ms);
  shape("dw down", 4 * c, c, r, true, false, true, ms);
  shape("head", chunk, VOCAB, c, false, true, false, ms);
  shape("dx head", chunk, c, VOCAB, false, false, false, ms);
  shape("dw head", VOCAB, c, chunk, true, false, true, ms);
}

int main(int argc, char **argv) {
  float ms = argc > 1 ? (float)atof(argv[1]) : 120;
  size_t bytes = (size_t)ROWS * 5120 * 4;
  unsigned blocks = (unsigned)(bytes / 2 / 256);
  management_open();
  OK(cublasLtCreate(&library));
  OK(cudaMalloc(&a, bytes));
  OK(cudaMalloc(&b, bytes));
  OK(cudaMalloc(&d, bytes));
  OK(cudaMalloc(&workspace, WORKSPACE));
  OK(cudaEventCreate(&start));
  OK(cudaEventCreate(&stop));
  k_fill<<<blocks, 256>>>((__nv_bfloat16 *)a, bytes / 2, 1, .1f);
  k_fill<<<blocks, 256>>>((__nv_bfloat16 *)b, bytes / 2, .03f, 0);
  OK(cudaMemset(d, 0, bytes));
  OK(cudaDeviceSynchronize());
  printf("to warm up\n");
  shape("up", ROWS, 5120, 1280, false, false, false, 300);
  for (int i = 2; i < argc; i++) {
    if (strcmp(argv[i], "all") == 0) beyond = true;
    else model(atoi(argv[i]), ms);
  }
  return 0;
}
