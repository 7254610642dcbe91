/* Four 8 x 8 matrices of 16 bits between shared memory and a warp's registers
 * (PTX ISA: ldmatrix, stmatrix): a lane's pairs of them, as products take and
 * accumulators give them. Lane 8·i + j says where row j of matrix i is; "_t":
 * that row is a column. */
#ifndef LK_CUDA_MATRICES_CUH
#define LK_CUDA_MATRICES_CUH

#include <stdint.h>

static __device__ __forceinline__ void ldmatrix4(uint32_t f[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
               : "r"(at)
               : "memory");
}

static __device__ __forceinline__ void ldmatrix4_t(uint32_t f[4],
                                                   uint32_t at) {
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
      : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
      : "r"(at)
      : "memory");
}

#if __CUDA_ARCH__ >= 900

static __device__ __forceinline__ void stmatrix4(const uint32_t f[4],
                                                 uint32_t at) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%4], {%0,%1,%2,%3};"
               ::"r"(f[0]), "r"(f[1]), "r"(f[2]), "r"(f[3]), "r"(at)
               : "memory");
}

static __device__ __forceinline__ void stmatrix4_t(const uint32_t f[4],
                                                   uint32_t at) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%4], "
               "{%0,%1,%2,%3};"
               ::"r"(f[0]), "r"(f[1]), "r"(f[2]), "r"(f[3]), "r"(at)
               : "memory");
}

#endif
#endif
