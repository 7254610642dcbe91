/* Newton-Schulz's symmetric products on Hopper, warpgroups 1 and 2: sums of a
 * tile, and its results on their way to the copy engine. */
#ifndef LK_CUDA_SCHULZ_SUMS_CUH
#define LK_CUDA_SCHULZ_SUMS_CUH

#include "matrices.cuh"
#include "schulz_tiles.cuh"

namespace square {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* This warpgroup reads a stage no more: both blocks copy into it, both know. */
static __device__ __forceinline__ void release(const memory &m, int slot) {
  const int warp = threadIdx.x % 128 / 32;
  if (threadIdx.x % 32 == 0 && warp < PAIR)
    barrier_arrive_at(m.barrier(FREE + slot), warp);
}

/* sum [64, N] = the products of all steps; asks for a step's while the last
 * one's are made. */
template <int N, bool TURNED>
static __device__ __forceinline__ void
sum_tile(const memory &m, int group, int steps, ring &r, float (&sum)[128]) {
  constexpr int NEXT = (TURNED ? 16 * 128 : 16 * 2) >> 4; /* 16 terms on */
  constexpr uint32_t WIDE = TURNED ? BOX_BYTES : 16;
  int before = 0;
  wide_result(sum);
  for (int s = 0; s < steps; s++, r.next()) {
    const uint32_t stage = m.at + r.slot * STAGE;
    barrier_wait(m.barrier(LOADED + r.slot), r.phase);
    const uint64_t a = wide_operand(stage + group * BOX_BYTES, WIDE);
    const uint64_t b = wide_operand(stage + ROWS * BOX_BYTES, WIDE);
    group_begin();
#pragma unroll
    for (int i = 0; i < BOX / 16; i++)
      wide_product<N, TURNED>(sum, a + i * NEXT, b + i * NEXT, s | i);
    group_commit();
    group_wait<1>();
    if (s > 0) release(m, before);
    before = r.slot;
  }
  group_wait<0>();
  wide_result(sum);
  release(m, before);
}

/* Where a lane's rows of four 8 × 8 matrices of a box are: 16 columns from
 * 16 · i on of the warp's 16 rows; turned: the other way round. */
struct lane_rows {
  int warp, row, left, right;
  __device__ __forceinline__ lane_rows()
      : warp(threadIdx.x % 128 / 32), row(threadIdx.x % 8),
        left(threadIdx.x / 8 % 2), right(threadIdx.x / 16 % 2) {}
  __device__ __forceinline__ uint32_t lying(uint32_t box, int i) const {
    return box + (16 * warp + 8 * left + row) * 128 +
           ((2 * i + right) ^ row) * 16;
  }
  __device__ __forceinline__ uint32_t turned(uint32_t box, int i) const {
    return box + (16 * i + 8 * right + row) * 128 +
           ((2 * warp + left) ^ row) * 16;
  }
};

static __device__ __forceinline__ uint32_t word_of(float x, float y) {
  const __half2 h = __floats2half2_rn(x, y);
  return *(const uint32_t *)&h;
}

static __device__ __forceinline__ float2 floats_of(uint32_t word) {
  return __half22float2(*(const __half2 *)&word);
}

/* v = alpha · sum + beta · c, rounded, of a box; word 2n + r are columns 8n +
 * 2l and the next of row g + 8r of the warp's, of lane 4·g + l. */
static __device__ __forceinline__ void
scale_box(const work &k, const float (&sum)[128], int box, uint32_t c,
          const lane_rows &lane, uint32_t v[16]) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    uint32_t word[4] = {0, 0, 0, 0};
    if (k.beta != 0) ldmatrix4(word, lane.lying(c, i));
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int at = 32 * box + 8 * i + 2 * j;
      const float2 z = floats_of(word[j]);
      v[4 * i + j] = word_of(fmaf(k.beta, z.x, k.alpha * sum[at]),
                             fmaf(k.beta, z.y, k.alpha * sum[at + 1]));
    }
  }
}

/* What row and column in its box a lane's word begins at. */
static __device__ __forceinline__ int word_row(const lane_rows &lane, int i) {
  return 16 * lane.warp + (int)threadIdx.x % 32 / 4 + 8 * (i % 2);
}
static __device__ __forceinline__ int word_column(int i) {
  return i / 2 * 8 + (int)threadIdx.x % 4 * 2;
}

/* A box on the diagonal: its upper half becomes the lower one's image, through
 * the box's place, of which the warpgroup's c is no longer read after the first
 * meeting. */
static __device__ __forceinline__ void
mirror_box(uint32_t box, int group, const lane_rows &lane, uint32_t v[16]) {
  barrier_among(1 + group, 128);
#pragma unroll
  for (int i = 0; i < 4; i++)
    stmatrix4_t(v + 4 * i, lane.turned(box, i));
  barrier_among(1 + group, 128);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    uint32_t image[4];
    ldmatrix4(image, lane.lying(box, i));
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int above = word_column(4 * i + j) - word_row(lane, 4 * i + j);
      const uint32_t mask =
          (above > 0 ? 0xFFFFu : 0) | (above + 1 > 0 ? 0xFFFF0000u : 0);
      v[4 * i + j] = (v[4 * i + j] & ~mask) | (image[j] & mask);
    }
  }
}

/* v with `shift` added on the diagonal of its box. */
static __device__ __forceinline__ void shift_box(float shift,
                                                 const lane_rows &lane,
                                                 uint32_t v[16]) {
#pragma unroll
  for (int i = 0; i < 16; i++) {
    const int below = word_row(lane, i) - word_column(i);
    float2 x = floats_of(v[i]);
    if (below == 0) x.x += shift;
    if (below == 1) x.y += shift;
    v[i] = word_of(x.x, x.y);
  }
}

/* What the warp wrote is for the copy engine. */
static __device__ __forceinline__ void made(const memory &m, int group) {
  shared_written();
  __syncwarp();
  if (threadIdx.x % 32 == 0) barrier_arrive(m.barrier(MADE + group));
}

/* A tile's way out, `kept` boxes of it; the diagonal goes through box
 * `diagonal`, if there is one. */
static __device__ __forceinline__ void
leave_tile(const work &k, const memory &m, int group, int kept, int diagonal,
           uint32_t phase, const float (&sum)[128]) {
  const lane_rows lane;
  uint32_t v[TILE][16];
  barrier_wait(m.barrier(READY + group), phase);
#pragma unroll
  for (int b = 0; b < TILE; b++) {
    if (b >= kept) break;
    const uint32_t box = m.result(group, b);
    scale_box(k, sum, b, box, lane, v[b]);
    if (b == diagonal) mirror_box(box, group, lane, v[b]);
#pragma unroll
    for (int i = 0; i < 4; i++)
      stmatrix4(v[b] + 4 * i, lane.lying(box, i));
  }
  made(m, group);
  barrier_wait(m.barrier(TAKEN + group), phase);
#pragma unroll
  for (int b = 0; b < TILE; b++) {
    if (b >= kept) break;
    const uint32_t box = m.result(group, b);
    if (b == diagonal) shift_box(k.shift, lane, v[b]);
#pragma unroll
    for (int i = 0; i < 4; i++)
      if (b == diagonal) stmatrix4(v[b] + 4 * i, lane.lying(box, i));
      else stmatrix4_t(v[b] + 4 * i, lane.turned(box, i));
  }
  made(m, group);
}

template <bool TURNED>
static __device__ __forceinline__ void sum_all(const work &k,
                                               const memory &m) {
  const turns mine;
  const int group = (int)threadIdx.x / 128 - 1;
  ring r = {0, 0};
  uint32_t phase = 0;
  float sum[128];
#pragma unroll
  for (int i = 0; i < 128; i++) sum[i] = 0;
  for (int task = mine.first; task < k.p.tasks;
       task += mine.stride, phase ^= 1) {
    const place at = place_of(k.p, task, mine.rank);
    const int row = at.row + group;
    if (at.boxes == TILE && at.row > at.column)
      sum_tile<256, TURNED>(m, group, k.steps, r, sum);
    else
      sum_tile<128, TURNED>(m, group, k.steps, r, sum);
    leave_tile(k, m, group, kept_of(k, at, row), row - at.column, phase, sum);
  }
}

#endif

}

#endif
