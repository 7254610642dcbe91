/* Hopper's own instructions (PTX ISA: wgmma, mbarrier, setmaxnreg; sm_90a):
 * products of 64 rows by a warpgroup, 128 threads, that run while it goes on,
 * and barriers that some threads arrive at and others wait for.
 *
 * Operands in shared memory are rows of 128 bytes, a multiple of 1024 from its
 * start, whose 16-byte pieces are permuted by their row (128-byte swizzle); the
 * index of the sum runs along the rows ("as it lies") or from row to row
 * ("turned"). Accumulator c[n][2r + e] of a lane 4·g + l is row 16·warp + g +
 * 8r, column 8n + 2l + e. */
#ifndef LK_CUDA_WARPGROUP_CUH
#define LK_CUDA_WARPGROUP_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* --- products ------------------------------------------------------------- */

/* An operand at a shared address, the same in all threads. */
static __device__ __forceinline__ uint64_t group_operand(uint32_t at) {
  return (uint64_t)(1024 >> 4 | 1 << 30) << 32 | ((at >> 4) + (1 << 16));
}

/* Before products that read registers written since the last ones. */
static __device__ __forceinline__ void group_begin() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void group_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* All but the last N commits are done. */
template <int N> static __device__ __forceinline__ void group_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* The compiler may not move reads of a result before this. */
static __device__ __forceinline__ void group_result(float c[8][4]) {
#pragma unroll
  for (int i = 0; i < 32; i++)
    asm volatile("" : "+f"(c[i / 4][i % 4])::"memory");
}

#define GROUP_SUMS(c)                                                       \
  "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]),               \
      "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]), "+f"(c[1][3]),           \
      "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]),           \
      "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3]),           \
      "+f"(c[4][0]), "+f"(c[4][1]), "+f"(c[4][2]), "+f"(c[4][3]),           \
      "+f"(c[5][0]), "+f"(c[5][1]), "+f"(c[5][2]), "+f"(c[5][3]),           \
      "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]),           \
      "+f"(c[7][0]), "+f"(c[7][1]), "+f"(c[7][2]), "+f"(c[7][3])
#define GROUP_LIST                                                          \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19," \
  "%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}"

/* c [64, 64] = (or +=, if ADD) a · bᵀ, 16 terms of each sum. `shared`: a and b
 * in shared memory, as they lie ([64, 16]) or turned ([16, 64], if TA or TB).
 * `held`: a in registers, b turned; lane 4·g + l has rows g, g + 8, g, g + 8 of
 * its warp's sixteen and columns 2l, 2l, 2l + 8, 2l + 8. */
template <typename T> struct group_product;
#define GROUP_PRODUCT(T, word)                                              \
  template <> struct group_product<T> {                                     \
    template <int ADD, int TA, int TB>                                      \
    static __device__ __forceinline__ void shared(float c[8][4],            \
                                                  uint64_t a, uint64_t b) { \
      asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." word       \
                   "." word " " GROUP_LIST ", %32, %33, %34, 1, 1, %35, "   \
                   "%36;"                                                   \
                   : GROUP_SUMS(c)                                          \
                   : "l"(a), "l"(b), "n"(ADD), "n"(TA), "n"(TB));           \
    }                                                                       \
    static __device__ __forceinline__ void held(float c[8][4],              \
                                                const uint32_t a[4],        \
                                                uint64_t b) {               \
      asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." word       \
                   "." word " " GROUP_LIST                                  \
                   ", {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"                  \
                   : GROUP_SUMS(c)                                          \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));   \
    }                                                                       \
  }
GROUP_PRODUCT(__nv_bfloat16, "bf16");
GROUP_PRODUCT(__half, "f16");
#undef GROUP_PRODUCT

/* c [64, 64] = x yᵀ of two tiles of 64 rows as they lie, asked for: done after
 * group_wait. */
template <typename T>
static __device__ __forceinline__ void group_outer(uint32_t x, uint32_t y,
                                                   float c[8][4]) {
  group_product<T>::template shared<0, 0, 0>(c, group_operand(x),
                                             group_operand(y));
#pragma unroll
  for (int k = 1; k < 4; k++)
    group_product<T>::template shared<1, 0, 0>(c, group_operand(x + k * 32),
                                               group_operand(y + k * 32));
  group_commit();
}

/* c [64, 64] += p y, asked for: p [64, 64] packed in pairs of its columns as
 * accumulators hold it, y a tile of 64 rows. */
template <typename T>
static __device__ __forceinline__ void group_gather(const uint32_t p[8][2],
                                                    uint32_t y,
                                                    float c[8][4]) {
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const uint32_t a[4] = {p[2 * k][0], p[2 * k][1], p[2 * k + 1][0],
                           p[2 * k + 1][1]};
    group_product<T>::held(c, a, group_operand(y + k * 2048));
  }
  group_commit();
}

/* --- barriers ------------------------------------------------------------- */

static __device__ __forceinline__ void barrier_open(uint32_t at,
                                                    int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at),
               "r"(arrivals)
               : "memory");
}

static __device__ __forceinline__ void barrier_arrive(uint32_t at) {
  asm volatile("{ .reg .b64 s; mbarrier.arrive.shared::cta.b64 s, [%0]; }"
               ::"r"(at)
               : "memory");
}

/* At the same barrier of block `rank` of the cluster. Not for the whole device:
 * that would be a fence. */
static __device__ __forceinline__ void barrier_arrive_at(uint32_t at,
                                                         int rank) {
  asm volatile("{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1;\n"
               "mbarrier.arrive.shared::cluster.b64 _, [there]; }" ::"r"(at),
               "r"(rank)
               : "memory");
}

/* Barriers opened by this thread are there for the cluster and copies. */
static __device__ __forceinline__ void barriers_opened() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/* All threads of the cluster, each warp's together. */
static __device__ __forceinline__ void cluster_meet() {
  asm volatile("barrier.cluster.arrive.aligned;\n"
               "barrier.cluster.wait.aligned;" ::: "memory");
}

/* Wait until the phase of this parity is over; of a new barrier, that of
 * parity 1 is. */
static __device__ __forceinline__ void barrier_wait(uint32_t at,
                                                    uint32_t parity) {
  asm volatile("{ .reg .pred p;\n"
               "again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
               "@!p bra again; }" ::"r"(at),
               "r"(parity)
               : "memory");
}

/* Among `threads` of the block; `id` 1 … 15. */
static __device__ __forceinline__ void barrier_among(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* What this thread wrote to shared memory may be read by products. */
static __device__ __forceinline__ void shared_written() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

template <int N> static __device__ __forceinline__ void registers_more() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N> static __device__ __forceinline__ void registers_fewer() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

#endif
#endif
