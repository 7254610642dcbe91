/* Pieces of tensor-core attention: tiles in shared memory, fragments, 16-bit
 * matrix products (PTX ISA: mma.m16n8k16, ldmatrix, cp.async; sm_80 on).
 *
 * A tile is rows of D 16-bit elements in 16-byte pieces, permuted within a row
 * so that eight rows' pieces of one column fall into different banks. In the
 * fragments of a product, lane = 4·g + c holds rows g and g + 8 and columns
 * 2c, 2c + 1 of each 8-wide tile. */
#ifndef LK_CUDA_ATTENTION_TILE_CUH
#define LK_CUDA_ATTENTION_TILE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "attention.cuh"
#include "draws.cuh"
#include "matrices.cuh"

/* --- arithmetic ----------------------------------------------------------- */

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* Two floats rounded to T, the first in the lower half. */
template <typename T> __device__ uint32_t pack2(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack2<__nv_bfloat16>(float low,
                                                         float high) {
  uint32_t y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}
template <>
__device__ __forceinline__ uint32_t pack2<__half>(float low, float high) {
  uint32_t y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}

/* c [16, 8] += a [16, 16] · b [16, 8] */
template <typename T>
__device__ void mma(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1);
#define MMA_16816(T, word)                                                  \
  template <>                                                               \
  __device__ __forceinline__ void mma<T>(float c[4], const uint32_t a[4],   \
                                         uint32_t b0, uint32_t b1) {        \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." word "." word ".f32 "      \
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"             \
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                    \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));    \
  }
MMA_16816(__nv_bfloat16, "bf16")
MMA_16816(__half, "f16")
#undef MMA_16816

/* --- tiles ---------------------------------------------------------------- */

/* Where piece `c` (16 bytes) of a row is within the row. */
template <int D> __device__ __forceinline__ int swizzle(int row, int c) {
  return D >= 64 ? c ^ (row & 7) : c ^ (row >> 1 & 3);
}

/* Byte offset of a piece in a tile. */
template <int D> __device__ __forceinline__ uint32_t piece_at(int row, int c) {
  return (uint32_t)(row * D * 2 + swizzle<D>(row, c) * 16);
}

__device__ __forceinline__ uint32_t shared_address(const void *p) {
  return (uint32_t)__cvta_generic_to_shared(p);
}

/* Copy 16 bytes, or zeros if not `present`. */
__device__ __forceinline__ void copy_async16(uint32_t to, const void *from,
                                             bool present) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to),
               "l"(from), "r"(present ? 16 : 0)
               : "memory");
}

__device__ __forceinline__ void copy_async8(uint32_t to, const void *from,
                                            bool present) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to),
               "l"(from), "r"(present ? 8 : 0)
               : "memory");
}

__device__ __forceinline__ void copy_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group 0;" ::: "memory");
}

/* Position of key j within its 32: bits (4 3)(2 1)(0) become (2 1)(4 3)(0), so
 * that the columns which a lane holds of four adjacent 8-wide tiles are eight
 * consecutive keys, which share one random counter: tile t, lane column c and
 * e hold key 8c + 2t + e. */
__device__ __forceinline__ int spread_key(int j) {
  return (j & ~30) | (j >> 2 & 6) | (j & 6) << 2;
}

/* A thread's part of copying tiles of one head by a block of THREADS: `from` is
 * its first element (row 0 of the head + its row and piece), `pitch` the bytes
 * of a row. */
template <typename T, int D, int THREADS> struct tile_source {
  static constexpr int PIECES = D / 8, STEP = THREADS / PIECES;
  const char *from;
  int pitch, row, seq;

  __device__ __forceinline__ tile_source(const T *head, int64_t columns,
                                         const attention_args &a) {
    int c = (int)threadIdx.x % PIECES;
    row = (int)threadIdx.x / PIECES;
    pitch = (int)columns * 2;
    from = (const char *)head + (int64_t)row * pitch + c * 16;
    seq = c * 8 < a.width ? a.seq : 0;
  }

  /* Rows [first, first + ROWS) to the tile at `to`; rows from the sequence's
   * end and columns from the width on are zeros. SPREAD: keys at their spread
   * positions. */
  template <int ROWS, bool SPREAD>
  __device__ __forceinline__ void load(uint32_t to, int first) const {
    const char *at = from + (int64_t)first * pitch;
#pragma unroll
    for (int i = 0; i < ROWS / STEP; i++) {
      int r = SPREAD ? spread_key(row + i * STEP) : row + i * STEP;
      copy_async16(to + piece_at<D>(r, (int)threadIdx.x % PIECES),
                   at + (int64_t)(i * STEP) * pitch,
                   first + row + i * STEP < seq);
    }
  }
};

/* --- fragments ------------------------------------------------------------ */

/* A fragment is 16×16 elements of a tile of [row][column], read in one of four
 * ways; rows and columns start at multiples of 16.
 *   left     m = row, k = column       by_row, ldmatrix4
 *   left_t   m = column, k = row       by_pair, ldmatrix4_t
 *   right    k = column, n = row       by_pair, ldmatrix4
 *   right_t  k = row, n = column       by_row, ldmatrix4_t
 * (0, 1) and (2, 3) of a right operand are two tiles of n. The lane's address
 * for (0, 0) comes from by_row or by_pair, the others from `fragment_at`. */
template <int D> __device__ __forceinline__ uint32_t by_row(uint32_t tile) {
  int lane = threadIdx.x & 31;
  return tile + piece_at<D>(lane & 15, lane >> 4);
}

template <int D> __device__ __forceinline__ uint32_t by_pair(uint32_t tile) {
  int lane = threadIdx.x & 31;
  return tile + piece_at<D>((lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
}

/* by_row with the second column half a tile further: from a multiple of 8. */
template <int D> __device__ __forceinline__ uint32_t by_halves(uint32_t tile) {
  int lane = threadIdx.x & 31;
  return tile + piece_at<D>(lane & 15, (lane >> 4) * (D / 16));
}

template <int D>
__device__ __forceinline__ uint32_t fragment_at(uint32_t lane, int row,
                                                int column) {
  return (lane ^ (uint32_t)column * 2) + (uint32_t)(row * D * 2);
}

/* Write a warp's accumulators c [16, D] · factor to rows [0, 16) of a head at
 * `out` (rows from `rows` on are left out), through the warp's own 16 rows of
 * shared memory at `tile`. */
template <typename T, int D>
__device__ __forceinline__ void store_rows(const float (*c)[4], float low,
                                           float high, char *tile, T *out,
                                           int64_t pitch, int rows,
                                           int width) {
  constexpr int PIECES = D / 8;
  const int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
  __syncwarp(); /* other lanes may still read what was there */
#pragma unroll
  for (int n = 0; n < PIECES; n++) {
    *(uint32_t *)(tile + piece_at<D>(g, n) + q * 4) =
        pack2<T>(c[n][0] * low, c[n][1] * low);
    *(uint32_t *)(tile + piece_at<D>(g + 8, n) + q * 4) =
        pack2<T>(c[n][2] * high, c[n][3] * high);
  }
  __syncwarp();
#pragma unroll
  for (int i = lane; i < 16 * PIECES; i += 32) {
    int row = i / PIECES, n = i % PIECES;
    if (row < rows && n * 8 < width)
      *(uint4 *)(out + row * pitch + n * 8) =
          *(const uint4 *)(tile + piece_at<D>(row, n));
  }
  __syncwarp();
}

/* --- dropout -------------------------------------------------------------- */

/* A step's random numbers for one head: counters of (row, 8 keys). */
struct attention_draws {
  uint64_t seed, block; /* of the head's element (0, 0), over eight */
  uint32_t stream, step, threshold;
};

__device__ __forceinline__ attention_draws
draws_open(const attention_args &a, int b, int h) {
  attention_draws d;
  const uint32_t *c = a.clock;
  d.seed = (uint64_t)c[1] << 32 | c[0];
  d.step = c[2];
  uint64_t sequence = (uint64_t)c[3] * (uint64_t)a.batch + (uint64_t)b;
  uint64_t row = (sequence * (uint64_t)a.heads + (uint64_t)h) *
                 (uint64_t)a.seq;
  d.block = row * (uint64_t)(a.seq / 8);
  d.stream = a.stream;
  d.threshold = a.threshold << 16;
  return d;
}

#endif
