/* Walking over blocks of values that share a scale: how lanes divide a block,
 * its largest magnitude, and its codes in memory. For quantized formats, NF4R
 * and int8 momentum. */
#ifndef LK_CUDA_BLOCKS_CUH
#define LK_CUDA_BLOCKS_CUH

#include "device.cuh"

/* `lanes` lanes of a warp take a block, eight consecutive values each, in
 * `turns` turns: one turn of block / 8 lanes where that is a power of two up to
 * 32, else as many turns as 32 lanes need. */
typedef struct block_walk {
  int64_t count, block, blocks;
  int lanes, turns;
} block_walk;

static inline block_walk block_walk_of(int64_t count, int64_t block) {
  int64_t lanes = block / 8;
  bool once = lanes <= 32 && (lanes & (lanes - 1)) == 0;
  block_walk w = {count, block, cuda_pieces(count, block),
                  once ? (int)lanes : 32,
                  once ? 1 : (int)cuda_pieces(block, 256)};
  return w;
}

static inline unsigned block_grid(block_walk w) {
  return (unsigned)cuda_pieces(w.blocks, CUDA_THREADS / w.lanes);
}

/* This lane's block. Lanes past the end have no values but stay in shuffles. */
typedef struct block_place {
  int64_t block, first, values;
  int lane;
  bool first_lane;
} block_place;

static __device__ __forceinline__ block_place block_find(
    const block_walk &w) {
  block_place p;
  p.block = (int64_t)blockIdx.x * (CUDA_THREADS / w.lanes) +
            threadIdx.x / w.lanes;
  p.first = p.block * w.block;
  p.lane = (int)threadIdx.x % w.lanes;
  p.first_lane = p.lane == 0;
  int64_t left = w.count - p.first;
  p.values = left < 0 ? 0 : left < w.block ? left : w.block;
  return p;
}

/* How many values this lane has in turn t (0 … 8), the first at *i. */
static __device__ __forceinline__ int block_group(const block_walk &w,
                                                  const block_place &p, int t,
                                                  int64_t *i) {
  int64_t at = (int64_t)t * 256 + p.lane * 8, left = p.values - at;
  (void)w;
  *i = p.first + at;
  return left < 0 ? 0 : left < 8 ? (int)left : 8;
}

/* Largest magnitudes by their bits: a NaN is larger than all numbers. */
static __device__ __forceinline__ uint32_t amax_of(uint32_t most,
                                                   const float v[8], int n) {
#pragma unroll
  for (int j = 0; j < 8; j++) {
    uint32_t bits = lk_bits_of_float(v[j]) & 0x7FFFFFFFu;
    most = j < n && bits > most ? bits : most;
  }
  return most;
}

static __device__ __forceinline__ uint32_t lanes_amax(uint32_t most,
                                                      int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
    uint32_t other = __shfl_xor_sync(0xFFFFFFFFu, most, offset);
    most = other > most ? other : most;
  }
  return most;
}

/* n codes of one byte from element i on; whole: eight at once. */
static __device__ __forceinline__ void store_bytes(uint8_t *to, int64_t i,
                                                   int n, bool whole,
                                                   const int32_t code[8]) {
  if (whole && n == 8) {
    uint2 word = {0, 0};
#pragma unroll
    for (int j = 0; j < 4; j++) {
      word.x |= (uint32_t)(code[j] & 255) << (8 * j);
      word.y |= (uint32_t)(code[4 + j] & 255) << (8 * j);
    }
    *(uint2 *)(to + i) = word;
  } else {
    for (int j = 0; j < n; j++) to[i + j] = (uint8_t)code[j];
  }
}

/* n 4-bit codes from element i (even) on; an odd end is padded by `zero`. */
static __device__ __forceinline__ void store_nibbles(uint8_t *to, int64_t i,
                                                     int n, bool whole,
                                                     bool low_first,
                                                     int32_t zero,
                                                     const int32_t code[8]) {
  uint32_t word = 0;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    int32_t a = code[2 * j], b = 2 * j + 1 < n ? code[2 * j + 1] : zero;
    uint32_t byte = low_first ? a | b << 4 : a << 4 | b;
    word |= (byte & 255u) << (8 * j);
  }
  if (whole && n == 8)
    *(uint32_t *)(to + i / 2) = word;
  else
    for (int j = 0; j < (n + 1) / 2; j++)
      to[i / 2 + j] = (uint8_t)(word >> (8 * j));
}

/* The other way: n nibbles, the first one high unless low_first. */
static __device__ __forceinline__ void load_nibbles(const uint8_t *from,
                                                    int64_t i, int n,
                                                    bool whole,
                                                    bool low_first,
                                                    int32_t code[8]) {
  uint32_t word = 0;
  if (whole && n == 8)
    word = *(const uint32_t *)(from + i / 2);
  else
    for (int j = 0; j < (n + 1) / 2; j++)
      word |= (uint32_t)from[i / 2 + j] << (8 * j);
#pragma unroll
  for (int j = 0; j < 8; j++) {
    int shift = low_first == (j % 2 == 0) ? 0 : 4;
    code[j] = (int32_t)(word >> (j / 2 * 8 + shift) & 15u);
  }
}

static __device__ __forceinline__ void load_bytes(const uint8_t *from,
                                                  int64_t i, int n,
                                                  bool whole,
                                                  int32_t code[8]) {
  if (whole && n == 8) {
    uint2 word = *(const uint2 *)(from + i);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      code[j] = (int32_t)(word.x >> (8 * j) & 255u);
      code[4 + j] = (int32_t)(word.y >> (8 * j) & 255u);
    }
  } else {
    for (int j = 0; j < 8; j++) code[j] = j < n ? from[i + j] : 0;
  }
}

/* The search of a scale: each lane leaves eight squared errors, partial sum j
 * of its block adds those of the elements i % 8 = j in their order; lane l of
 * the block owns partials l, l + lanes, …. `room`: eight floats a thread. All
 * lanes of a warp call these together. */
static __device__ __forceinline__ void search_add(const block_walk &w,
                                                  const block_place &p,
                                                  float *room,
                                                  const float e[8],
                                                  float sum[8]) {
  float *mine = room + threadIdx.x * 8, *first = mine - p.lane * 8;
#pragma unroll
  for (int j = 0; j < 8; j++) mine[j] = e[j];
  __syncwarp();
#pragma unroll
  for (int k = 0; k < 8; k++) {
    int j = p.lane + k * w.lanes;
    if (j >= 8) break;
    for (int g = 0; g < w.lanes; g++) sum[k] += first[g * 8 + j];
  }
  __syncwarp();
}

static __device__ __forceinline__ float search_total(const block_walk &w,
                                                     const block_place &p,
                                                     float *room,
                                                     const float sum[8]) {
  float *first = room + ((int)threadIdx.x - p.lane) * 8, all[8];
#pragma unroll
  for (int k = 0; k < 8; k++) {
    int j = p.lane + k * w.lanes;
    if (j >= 8) break;
    first[j] = sum[k];
  }
  __syncwarp();
#pragma unroll
  for (int j = 0; j < 8; j++) all[j] = first[j];
  __syncwarp();
  return lk_search_sum(all);
}

#endif
