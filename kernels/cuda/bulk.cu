/* Maps of tensors for the copy engine. */
#include "bulk.cuh"

typedef CUresult (*bulk_encoder)(CUtensorMap *, CUtensorMapDataType,
                                 cuuint32_t, void *, const cuuint64_t *,
                                 const cuuint64_t *, const cuuint32_t *,
                                 const cuuint32_t *, CUtensorMapInterleave,
                                 CUtensorMapSwizzle, CUtensorMapL2promotion,
                                 CUtensorMapFloatOOBfill);

/* The driver's function, asked of the runtime: nothing links the driver. */
static bulk_encoder encoder_find() {
  void *found = NULL;
  cudaDriverEntryPointQueryResult result;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                       cudaEnableDefault,
                                       &result) == cudaSuccess &&
      result == cudaDriverEntryPointSuccess)
    return (bulk_encoder)found;
  cudaGetLastError();
  return NULL;
}

cudaError_t bulk_map(const bulk_tensor *t, CUtensorMap *map) {
  static const bulk_encoder encode = encoder_find();
  static const cuuint32_t one[4] = {1, 1, 1, 1};
  CUtensorMapDataType type = t->dtype == LK_BF16
                                 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                             : t->dtype == LK_F16
                                 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                 : CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  if (!encode) return cudaErrorNotSupported;
  CUresult made = encode(
      map, type, (cuuint32_t)t->rank, (void *)t->data, t->size, t->step,
      t->box, one, CU_TENSOR_MAP_INTERLEAVE_NONE,
      t->rows ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
      CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return made == CUDA_SUCCESS ? cudaSuccess : cudaErrorNotSupported;
}
