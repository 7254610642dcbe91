/* NVTX ranges of calls. */
#ifndef LK_CUDA_RANGES_CUH
#define LK_CUDA_RANGES_CUH

#include "device.cuh"

/* Make every call a range, if the environment asks for it. */
CUDA_HIDDEN void ranges_open(lk_context *context);

#endif
