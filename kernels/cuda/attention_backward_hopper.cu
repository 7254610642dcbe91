/* Attention backward for heads up to 64 wide on Hopper's warpgroups: what
 * attention_backward.cu computes, from the same statistics and what the forward
 * kept of its draws, in the same turns.
 *
 * One block a processor takes task after task, a tile of 128 keys of a query
 * head, and walks the tiles of 64 queries that see it. Its warpgroups:
 *   0  a thread has tiles copied ahead, another passes turns on
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
    barrier_open(m.barrier(LOADED + i), 1);
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
    k_attention_backward_hopper(const attention_args a,
                                const __grid_constant__ maps from) {
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
    if (threadIdx.x == 0) load_all<DROP>(a, from, e, m);
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

/* [B, T, heads, D] of 16 bits, in boxes of 64 rows of a head. */
static cudaError_t map_heads(const attention_args *a, const void *data,
                             int heads, CUtensorMap *map) {
  const uint64_t width = (uint64_t)a->width, row = width * heads * 2;
  bulk_tensor t = {data, a->dtype, 4,
                   {width, (uint64_t)heads, (uint64_t)a->seq,
                    (uint64_t)a->batch},
                   {width * 2, row, row * a->seq},
                   {D, 1, ROWS, 1}, true};
  return bulk_map(&t, map);
}

static cudaError_t maps_of(const attention_args *a, maps *from) {
  const uint64_t heads = (uint64_t)a->batch * a->heads;
  bulk_tensor stats = {a->stats, LK_F32, 2, {(uint64_t)a->seq * 2, heads},
                       {(uint64_t)a->seq * 8}, {ROWS * 2, 1}, false};
  cudaError_t status = map_heads(a, a->qkv, a->heads + 2 * a->kv_heads,
                                 &from->qkv);
  if (status == cudaSuccess)
    status = map_heads(a, a->d_o, a->heads, &from->d_o);
  return status == cudaSuccess ? bulk_map(&stats, &from->stats) : status;
}

template <typename T, bool DROP>
static cudaError_t launch(const attention_args *a, cudaStream_t stream) {
  auto kernel = k_attention_backward_hopper<T, DROP>;
  maps from;
  cudaError_t status = maps_of(a, &from);
  if (status != cudaSuccess) return status;
  status = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
  if (status != cudaSuccess) return status;
  int blocks = extent_of(*a).tasks;
  if (blocks > a->hopper) blocks = a->hopper;
  kernel<<<(unsigned)blocks, THREADS, BYTES, stream>>>(*a, from);
  return cudaGetLastError();
}

template <typename T>
static cudaError_t launch_drop(const attention_args *a, cudaStream_t stream) {
  return a->threshold > 0 ? launch<T, true>(a, stream)
                          : launch<T, false>(a, stream);
}

}

/* Draws that were not kept are made by the other kernel only; the copy engine
 * wants rows of stats in whole 16 bytes. */
bool attention_backward_hopper_fits(const attention_args *a) {
  return a->hopper > 0 && lk_attention_padded(a->width) == hopper::D &&
         a->seq % 2 == 0 &&
         (a->threshold == 0 || a->kept) &&
         (int64_t)a->batch * a->heads * a->seq / hopper::KEYS < INT32_MAX / 2;
}

cudaError_t attention_backward_hopper(const attention_args *a,
                                      cudaStream_t stream) {
  return a->dtype == LK_BF16 ? hopper::launch_drop<__nv_bfloat16>(a, stream)
                             : hopper::launch_drop<__half>(a, stream);
}
