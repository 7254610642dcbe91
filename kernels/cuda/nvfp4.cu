/* Products of NVFP4 matrices through cuBLASLt, which has them for compute
 * capability 10.0 and newer; compiled only, never run on a device. Refused
 * below, and wherever the library finds no algorithm. */
#include <cublasLt.h>

#include "device.cuh"

/* Scales by row into the library's tiles of 128 rows and 4 columns; what pads
 * them is 0. */
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_nvfp4_scales(const uint8_t *from, uint8_t *to, int64_t rows,
                   int64_t cols, int64_t bytes) {
  int64_t i = (int64_t)blockIdx.x * CUDA_THREADS + threadIdx.x;
  int64_t width = (cols + 3) / 4 * 4, r = i / width, c = i % width;
  if (i >= bytes) return;
  to[lk_nvfp4_scale_at(r, c, cols)] =
      r < rows && c < cols ? from[r * cols + c] : 0;
}

/* alpha = 1 / (ta · tb), beta = 0. */
static __global__ void k_nvfp4_factors(const float *ta, const float *tb,
                                       float *factors) {
  factors[0] = 1.0f / (*ta * *tb);
  factors[1] = 0.0f;
}

typedef struct nvfp4_product {
  cublasLtHandle_t library;
  cublasLtMatmulDesc_t product;
  cublasLtMatrixLayout_t a, b, d;
  cublasLtMatmulPreference_t preference;
} nvfp4_product;

static void product_close(nvfp4_product *p) {
  if (p->preference) cublasLtMatmulPreferenceDestroy(p->preference);
  if (p->a) cublasLtMatrixLayoutDestroy(p->a);
  if (p->b) cublasLtMatrixLayoutDestroy(p->b);
  if (p->d) cublasLtMatrixLayoutDestroy(p->d);
  if (p->product) cublasLtMatmulDescDestroy(p->product);
  if (p->library) cublasLtDestroy(p->library);
}

#define NV_TRY(call)                                   \
  do {                                                 \
    cublasStatus_t code_ = (call);                     \
    if (code_ != CUBLAS_STATUS_SUCCESS) return code_;  \
  } while (0)

static cublasStatus_t set(nvfp4_product *p,
                          cublasLtMatmulDescAttributes_t attribute,
                          const void *value, size_t size) {
  return cublasLtMatmulDescSetAttribute(p->product, attribute, value, size);
}

/* The row-major product as the library sees it: b first, both by rows. */
static cublasStatus_t describe(nvfp4_product *p, int64_t m, int64_t n,
                               int64_t k, cudaDataType out,
                               const void *scales_b, const void *scales_a) {
  cublasOperation_t turned = CUBLAS_OP_T;
  cublasLtPointerMode_t where = CUBLASLT_POINTER_MODE_DEVICE;
  cublasLtMatmulMatrixScale_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_VEC16_UE4M3;
  NV_TRY(cublasLtCreate(&p->library));
  NV_TRY(cublasLtMatmulDescCreate(&p->product, CUBLAS_COMPUTE_32F,
                                  CUDA_R_32F));
  NV_TRY(set(p, CUBLASLT_MATMUL_DESC_TRANSA, &turned, sizeof turned));
  NV_TRY(set(p, CUBLASLT_MATMUL_DESC_POINTER_MODE, &where, sizeof where));
  NV_TRY(set(p, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &mode, sizeof mode));
  NV_TRY(set(p, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode, sizeof mode));
  NV_TRY(set(p, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &scales_b,
             sizeof scales_b));
  NV_TRY(set(p, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &scales_a,
             sizeof scales_a));
  NV_TRY(cublasLtMatrixLayoutCreate(&p->b, CUDA_R_4F_E2M1, (uint64_t)k,
                                    (uint64_t)n, k));
  NV_TRY(cublasLtMatrixLayoutCreate(&p->a, CUDA_R_4F_E2M1, (uint64_t)k,
                                    (uint64_t)m, k));
  NV_TRY(cublasLtMatrixLayoutCreate(&p->d, out, (uint64_t)n, (uint64_t)m, n));
  return cublasLtMatmulPreferenceCreate(&p->preference);
}

static cublasStatus_t multiply(lk_context *context, nvfp4_product *p,
                               const void *b, const void *a, void *d,
                               const float *factors) {
  cuda_state *s = cuda_of(context);
  size_t most = (size_t)s->workspace_bytes;
  cublasLtMatmulHeuristicResult_t found;
  int count = 0;
  NV_TRY(cublasLtMatmulPreferenceSetAttribute(
      p->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most,
      sizeof most));
  NV_TRY(cublasLtMatmulAlgoGetHeuristic(p->library, p->product, p->b, p->a,
                                        p->d, p->d, p->preference, 1, &found,
                                        &count));
  if (count == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
  return cublasLtMatmul(p->library, p->product, factors, b, p->b, a, p->a,
                        factors + 1, d, p->d, d, p->d, &found.algo,
                        s->workspace, most, cuda_stream(context));
}

/* Input `i`'s scales into tiles at `to`. */
static void tile_scales(lk_context *context, const lk_call *call, int i,
                        uint8_t *to) {
  const int64_t *dim = call->in[i].shape.dim;
  int64_t cols = dim[1] / 16, bytes = lk_nvfp4_scale_bytes(dim[0], cols);
  k_nvfp4_scales<<<(unsigned)cuda_pieces(bytes, CUDA_THREADS), CUDA_THREADS,
                   0, cuda_stream(context)>>>(
      (const uint8_t *)call->in[i + 1].data, to, dim[0], cols, bytes);
}

lk_status cuda_nvfp4_matmul(lk_context *context, const lk_call *call) {
  const lk_tensor *a = &call->in[0], *b = &call->in[3], *y = &call->out[0];
  int64_t m = a->shape.dim[0], n = b->shape.dim[0], k = a->shape.dim[1];
  LK_TRY(cuda_needs(context, "nvfp4_matmul", 100));
  uint8_t *scales_a = (uint8_t *)call->scratch;
  uint8_t *scales_b = scales_a + lk_nvfp4_scale_bytes(m, k / 16);
  float *factors = (float *)(scales_b + lk_nvfp4_scale_bytes(n, k / 16));
  tile_scales(context, call, 0, scales_a);
  tile_scales(context, call, 3, scales_b);
  k_nvfp4_factors<<<1, 1, 0, cuda_stream(context)>>>(
      (const float *)call->in[2].data, (const float *)call->in[5].data,
      factors);
  LK_TRY(cuda_launched(context, call));
  nvfp4_product p = {};
  cublasStatus_t code =
      describe(&p, m, n, k, y->dtype == LK_F32 ? CUDA_R_32F : CUDA_R_16BF,
               scales_b, scales_a);
  if (code == CUBLAS_STATUS_SUCCESS)
    code = multiply(context, &p, b->data, a->data, y->data, factors);
  product_close(&p);
  if (code == CUBLAS_STATUS_SUCCESS) return LK_OK;
  return lk_fail(&context->error,
                 code == CUBLAS_STATUS_NOT_SUPPORTED ? LK_UNSUPPORTED
                                                     : LK_DEVICE,
                 "nvfp4_matmul: cuBLASLt: %s",
                 cublasLtGetStatusString(code));
}
