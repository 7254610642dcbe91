/* Hopper's copy engine (PTX ISA: cp.async.bulk; sm_90): boxes of tensors and
 * runs of bytes into shared memory, counted by barriers, and boxes back. */
#ifndef LK_CUDA_BULK_CUH
#define LK_CUDA_BULK_CUH

#include <cuda.h>

#include "warpgroup.cuh"

extern "C" {
#include "../core/tensor.h"
}

/* A tensor as the copy engine sees it: `rank` sizes from the innermost on,
 * elements without gaps there, bytes from one to the next of the others; what
 * of a box lies outside comes as zeros. `rows`: 128 bytes of a 16-bit type,
 * whose 16-byte pieces are permuted by their row, as products want them. */
typedef struct bulk_tensor {
  const void *data;
  lk_dtype dtype; /* f32, bf16 or f16 */
  int rank;
  uint64_t size[4], step[3];
  uint32_t box[4];
  bool rows;
} bulk_tensor;

/* cudaErrorNotSupported where there is no copy engine, or no map of it:
 * addresses and steps must be multiples of 16 bytes. */
cudaError_t bulk_map(const bulk_tensor *tensor, CUtensorMap *map);

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* Arrive at a barrier whose phase is over once `bytes` more have come. */
static __device__ __forceinline__ void barrier_expect(uint32_t at,
                                                      uint32_t bytes) {
  asm volatile("{ .reg .b64 s; mbarrier.arrive.expect_tx.shared::cta.b64 s, "
               "[%0], %1; }" ::"r"(at),
               "r"(bytes)
               : "memory");
}

/* The box of `map` whose first element is (x, y, z, w), to `to`. */
static __device__ __forceinline__ void bulk_box(uint32_t to,
                                                const CUtensorMap *map, int x,
                                                int y, int z, int w,
                                                uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::"
               "complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(
                   to),
               "l"(map), "r"(x), "r"(y), "r"(z), "r"(w), "r"(barrier)
               : "memory");
}

/* The same of matrices. */
static __device__ __forceinline__ void bulk_box(uint32_t to,
                                                const CUtensorMap *map, int x,
                                                int y, int z,
                                                uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::"
               "complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
               "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier)
               : "memory");
}

/* And to the same place in both blocks of a pair, each counting its bytes. */
static __device__ __forceinline__ void
bulk_box_both(uint32_t to, const CUtensorMap *map, int x, int y, int z,
              uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::"
               "complete_tx::bytes.multicast::cluster [%0], "
               "[%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
               "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier),
               "h"((unsigned short)3)
               : "memory");
}

/* A box from shared memory: what of it lies outside is not written. */
static __device__ __forceinline__ void bulk_put(const CUtensorMap *map, int x,
                                                int y, int z, uint32_t from) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group "
               "[%0, {%1, %2, %3}], [%4];" ::"l"(map),
               "r"(x), "r"(y), "r"(z), "r"(from)
               : "memory");
}

/* Until what this thread has put so far may be overwritten. */
static __device__ __forceinline__ void bulk_put_wait() {
  asm volatile("cp.async.bulk.commit_group;\n"
               "cp.async.bulk.wait_group.read 0;" ::: "memory");
}

/* One box of a matrix. */
static __device__ __forceinline__ void bulk_box(uint32_t to,
                                                const CUtensorMap *map, int x,
                                                int y, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::"
               "complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
               "l"(map), "r"(x), "r"(y), "r"(barrier)
               : "memory");
}

/* `bytes`, a multiple of 16, from a multiple of 16 to one. */
static __device__ __forceinline__ void bulk_run(uint32_t to, const void *from,
                                                uint32_t bytes,
                                                uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::"
               "bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}

#endif
#endif
