/* Sums in global memory that several blocks make in turn, so that they have one
 * order: a block awaits its turn, takes what was left, adds its part and leaves
 * the sum to the next. It may only wait for blocks with a lower index, which
 * started before it. Every block holds the same elements in the same threads,
 * so a sum is kept as the threads hold it. */
#ifndef LK_CUDA_ATTENTION_TURNS_CUH
#define LK_CUDA_ATTENTION_TURNS_CUH

#include <cuda_runtime.h>
#include <stdint.h>

/* How many blocks have added. */
__device__ __forceinline__ uint32_t turn_made(const uint32_t *turns) {
  uint32_t made;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
               : "=r"(made)
               : "l"(turns)
               : "memory");
  return made;
}

/* Wait until `turn` blocks have added. One thread, then a barrier; or all. */
__device__ __forceinline__ void turn_await(const uint32_t *turns,
                                           uint32_t turn) {
  while (turn_made(turns) != turn) {
  }
}

/* Say that `turn` blocks have added. One thread, after a barrier that follows
 * the block's writes: its release is theirs too. */
__device__ __forceinline__ void turn_pass(uint32_t *turns, uint32_t turn) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(turns), "r"(turn)
               : "memory");
}

/* c += the sum so far, f32 [N, THREADS, 4]. */
template <int N, int THREADS>
__device__ __forceinline__ void turn_take(float (*c)[4], const float *sum) {
#pragma unroll
  for (int i = 0; i < N; i++) {
    float4 x = __ldcg((const float4 *)sum + i * THREADS + threadIdx.x);
    c[i][0] += x.x, c[i][1] += x.y, c[i][2] += x.z, c[i][3] += x.w;
  }
}

template <int N, int THREADS>
__device__ __forceinline__ void turn_leave(const float (*c)[4], float *sum) {
#pragma unroll
  for (int i = 0; i < N; i++)
    __stcg((float4 *)sum + i * THREADS + threadIdx.x,
           make_float4(c[i][0], c[i][1], c[i][2], c[i][3]));
}

#endif
