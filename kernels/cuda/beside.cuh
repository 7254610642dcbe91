/* Kernels that begin before the one ahead of them is done: calls with `beside`
 * set. A kernel of a few microseconds spends most of them on its first blocks
 * and its last; so the next one's blocks take the places that become free
 * (programmatic dependent launch, compute capability 9.0 on).
 *
 * A kernel that may do so is launched by beside_launch and begins with
 *
 *   beside_kernel beside;
 *
 * Why all is in order. The first kernel of a run is launched as any other, so
 * it begins when all before the run is done. The next may begin when every
 * block of the one ahead has: so it, too, begins after all before the run is
 * done, and nothing that it touches is touched by another kernel of the run
 * (graph/beside.h). Its block 0 ends only when the kernel ahead of it is done
 * and all of that one's writes are seen: so the run's last kernel is done last,
 * and what is launched as usual after it, and in a recording waits for it
 * alone, finds all of the run done. Nobody waits for a place that block 0
 * holds: the blocks of the kernel ahead have theirs.
 * A call of a run that takes a kernel without this, launched as usual, waits
 * for all before it; the next one begins when that kernel ends. */
#ifndef LK_CUDA_BESIDE_CUH
#define LK_CUDA_BESIDE_CUH

#include "device.cuh"

/* From its declaration to the end of the kernel, whichever way that ends.
 * Without effect where nothing was launched early. */
struct beside_kernel {
  __device__ __forceinline__ beside_kernel() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
  }
  __device__ __forceinline__ ~beside_kernel() {
#if __CUDA_ARCH__ >= 900
    if (blockIdx.x == 0) asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
  }
};

/* kernel<<<blocks, threads, 0, the context's stream>>>(args …), early where
 * the call may be. */
template <class... P, class... A>
static void beside_launch(lk_context *context, const lk_call *call,
                          void (*kernel)(P...), int64_t blocks, int threads,
                          A... args) {
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3((unsigned)blocks);
  config.blockDim = dim3((unsigned)threads);
  config.stream = cuda_stream(context);
  config.attrs = &early;
  config.numAttrs = call->beside && cuda_of(context)->beside ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, args...);
}

#endif
