/* Attention backward for heads up to 64 wide on Hopper's warpgroups: what
 * attention_backward.cu computes, from the same statistics and what the forward
 * kept of its draws, in the same turns.
 *
 * One block a processor takes task after task, a tile of 128 keys of a query
 * head, and walks the tiles of 64 queries that see it. Its warpgroups:
 *   0  two warps copy tiles ahead, a thread passes turns on
 *   1  makes dq = dsᵀ k and adds it to the sum of its query tile
 *   2, 3  own 64 keys each: they make scores transposed, keys by queries, so
 *      that probabilities and their gradients are the next products' operands
 *      as they lie in registers, sum dk and dv, and hand ds on in shared
 *      memory. */
#include "attention_hopper_keys.cuh"
#include "attention_hopper_load.cuh"
#include "attention_hopper_queries.cuh"

namespace hopper {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
static __device__ __forceinline__ void open_barriers(const memory &m) {
  if (threadIdx.x != 0) return;
  for (int i = 0; i < STAGES; i++) {
    barrier_open(m.barrier(LOADED + i), LOADERS);
    barrier_open(m.barrier(FREE + i), 8);
  }
  for (int i = 0; i < PAIRS; i++) barrier_open(m.barrier(PAIR_FREE + i), 12);
  for (int i = 0; i < HANDS; i++) {
    barrier_open(m.barrier(MADE + i), 8);
    barrier_open(m.barrier(TAKEN + i), 4);
    barrier_open(m.barrier(LEFT + i), 128);
    barrier_open(m.barrier(PASSED + i), 1);
  }
}
#endif

template <typename T, bool DROP>
static __global__ void __launch_bounds__(THREADS, 1)
    k_attention_backward_hopper(const attention_args a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char room[];
  const extent e = extent_of(a);
  memory m;
  m.at = shared_address(room);
  m.bytes = room + (1024 - m.at % 1024) % 1024;
  m.at = shared_address(m.bytes);
  open_barriers(m);
  __syncthreads();
  if (threadIdx.x < QUERIES) {
    registers_fewer<HELP_REGISTERS>();
    if (threadIdx.x < LOADERS) load_all<DROP>(a, e, m);
    else if (threadIdx.x == PASSER) pass_turns(m);
  } else if (threadIdx.x < KEY_THREADS) {
    registers_fewer<QUERY_REGISTERS>();
    queries_side<T>(a, e, m);
  } else {
    registers_more<KEY_REGISTERS>();
    keys_side<T, DROP>(a, e, m);
  }
#endif
}

template <typename T, bool DROP>
static cudaError_t launch(const attention_args *a, cudaStream_t stream) {
  auto kernel = k_attention_backward_hopper<T, DROP>;
  cudaError_t status = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
  if (status != cudaSuccess) return status;
  int blocks = extent_of(*a).tasks;
  if (blocks > a->hopper) blocks = a->hopper;
  kernel<<<(unsigned)blocks, THREADS, BYTES, stream>>>(*a);
  return cudaGetLastError();
}

template <typename T>
static cudaError_t launch_drop(const attention_args *a, cudaStream_t stream) {
  return a->threshold > 0 ? launch<T, true>(a, stream)
                          : launch<T, false>(a, stream);
}

}

/* Draws that were not kept are made by the other kernel only. */
bool attention_backward_hopper_fits(const attention_args *a) {
  return a->hopper > 0 && lk_attention_padded(a->width) == hopper::D &&
         (a->threshold == 0 || a->kept) &&
         (int64_t)a->batch * a->heads * a->seq / hopper::KEYS < INT32_MAX / 2;
}

cudaError_t attention_backward_hopper(const attention_args *a,
                                      cudaStream_t stream) {
  return a->dtype == LK_BF16 ? hopper::launch_drop<__nv_bfloat16>(a, stream)
                             : hopper::launch_drop<__half>(a, stream);
}
