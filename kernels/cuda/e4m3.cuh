/* Rows of bf16 through a function by element and, in the same pass, in e4m3
 * with one scale a row: a row stays in the registers of the threads that take
 * it. Bits of codes and scales are those of `quantize`. */
#ifndef LK_CUDA_E4M3_CUH
#define LK_CUDA_E4M3_CUH

#include <cuda_fp8.h>

#include "device.cuh"

/* Results `at` and `at` + 1 of a call: its result `y` by rows, in a pass of
 * its own. Nothing to do where they are absent. */
CUDA_HIDDEN lk_status cuda_give_codes(lk_context *context,
                                      const lk_call *call, int y, int at);

/* The largest magnitudes of eight 16-bit floats and of two such before, by
 * their bits: a NaN is larger than all numbers. */
static __device__ __forceinline__ uint32_t amax_pair(uint32_t most, uint4 w) {
  const uint32_t magnitude = 0x7FFF7FFFu;
  most = __vmaxu2(most, __vmaxu2(w.x & magnitude, w.y & magnitude));
  return __vmaxu2(most, __vmaxu2(w.z & magnitude, w.w & magnitude));
}

/* The larger of the two. */
static __device__ __forceinline__ float amax_value(int dtype, uint32_t most) {
  uint32_t low = most & 0xFFFFu, high = most >> 16;
  float v[2];
  unpack2(dtype, low > high ? low : high, v);
  return v[0];
}

/* Two values in units of their scale as codes, the first one low. */
static __device__ __forceinline__ uint32_t e4m3_pair(float a, float b) {
#if __CUDA_ARCH__ >= 890
  return __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE,
                                  __NV_E4M3);
#else
  return lk_e4m3_from_f32(a) | (uint32_t)lk_e4m3_from_f32(b) << 8;
#endif
}

static __device__ __forceinline__ uint32_t e4m3_four(lk_unit unit,
                                                     const float *v) {
  return e4m3_pair(lk_unit_apply(unit, v[0]), lk_unit_apply(unit, v[1])) |
         e4m3_pair(lk_unit_apply(unit, v[2]), lk_unit_apply(unit, v[3])) << 16;
}

static __device__ __forceinline__ uint2 e4m3_eight(lk_unit unit,
                                                   const float v[8]) {
  return make_uint2(e4m3_four(unit, v), e4m3_four(unit, v + 4));
}

/* Over the threads that share a row: a warp, or all 256 of a block. */
template <int TEAM>
static __device__ __forceinline__ uint32_t team_amax(uint32_t most) {
  uint32_t low = most & 0xFFFFu, high = most >> 16;
  most = __reduce_max_sync(0xFFFFFFFFu, low > high ? low : high);
  if (TEAM == 32) return most;
  __shared__ uint32_t room[8];
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = most;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 8; i++) most = room[i] > most ? room[i] : most;
  return most;
}

/* A row of `groups` groups that a warp has in registers, in e4m3. */
template <int T, int G>
static __device__ __forceinline__ void warp_codes(uint8_t *codes,
                                                  float *scales, int64_t row,
                                                  int lane, int groups,
                                                  const uint4 y[G]) {
  uint32_t most = 0;
  float v[8];
#pragma unroll
  for (int k = 0; k < G; k++)
    if (lane + 32 * k < groups) most = amax_pair(most, y[k]);
  float scale = lk_e4m3_scale(amax_value(T, team_amax<32>(most)));
  lk_unit unit = lk_unit_of_scale(scale);
  if (lane == 0) scales[row] = scale;
#pragma unroll
  for (int k = 0; k < G; k++) {
    int g = lane + 32 * k;
    if (g >= groups) break;
    unpack8(T, y[k], v);
    ((uint2 *)codes)[row * groups + g] = e4m3_eight(unit, v);
  }
}

typedef struct code_args {
  uint8_t *codes;
  float *scales;
  int64_t rows;
  int width;
} code_args;

/* F as for cuda_map; y may be absent: then only codes are made. TEAM threads
 * take a row, up to G groups each. */
template <int TEAM, int G, class F>
static __global__ void __launch_bounds__(256)
    k_code_rows(F f, map_args m, code_args c) {
  int lane = (int)threadIdx.x % TEAM;
  int64_t row = (int64_t)blockIdx.x * (256 / TEAM) + threadIdx.x / TEAM;
  if (row >= c.rows) return;
  int groups = c.width / 8;
  int64_t first = row * groups;
  const uint4 *a = (const uint4 *)m.a.data + first;
  const uint4 *b = (const uint4 *)m.b.data + first;
  uint4 x[G], z[G], mask[G];
  uint32_t most = 0;
  float u[8];
#pragma unroll
  for (int k = 0; k < G; k++) {
    int g = lane + TEAM * k;
    if (g < groups) x[k] = a[g];
    if (g < groups && m.b.data) z[k] = b[g];
  }
  drawer s = drops_open(f.d);
  drops_masks<G>(s, (first + lane) * 8, TEAM * 8, mask);
#pragma unroll
  for (int k = 0; k < G; k++) {
    int g = lane + TEAM * k;
    if (g >= groups) break;
    x[k] = f.template packed<LK_BF16>(s.factor, x[k], z[k], mask[k]);
    if (m.y.data) ((uint4 *)m.y.data)[first + g] = x[k];
    most = amax_pair(most, x[k]);
  }
  float scale = lk_e4m3_scale(amax_value(LK_BF16, team_amax<TEAM>(most)));
  lk_unit unit = lk_unit_of_scale(scale);
  if (lane == 0) c.scales[row] = scale;
#pragma unroll
  for (int k = 0; k < G; k++) {
    int g = lane + TEAM * k;
    if (g >= groups) break;
    unpack8(LK_BF16, x[k], u);
    ((uint2 *)c.codes)[first + g] = e4m3_eight(unit, u);
  }
}

enum { CODE_WIDEST = 8192 }; /* values of a row that registers hold */

template <class F>
static void code_rows_launch(cudaStream_t stream, F f, const map_args &m,
                             const code_args &c) {
  unsigned blocks = (unsigned)cuda_pieces(c.rows, 8), rows = (unsigned)c.rows;
  if (c.width <= 768)
    k_code_rows<32, 3><<<blocks, 256, 0, stream>>>(f, m, c);
  else if (c.width <= 1280)
    k_code_rows<32, 5><<<blocks, 256, 0, stream>>>(f, m, c);
  else if (c.width <= 4096)
    k_code_rows<256, 2><<<rows, 256, 0, stream>>>(f, m, c);
  else
    k_code_rows<256, 4><<<rows, 256, 0, stream>>>(f, m, c);
}

/* Whether whole rows of bf16 of this width are taken. */
static inline bool code_rows_fit(const map_args &m, const code_args &c) {
  return m.a.dtype == LK_BF16 && c.width % 8 == 0 && c.width <= CODE_WIDEST &&
         view_whole(m.a) && view_whole(m.b) && view_whole(m.y) &&
         ((uintptr_t)c.codes & 7) == 0;
}

/* cuda_map for an operator whose results `at` and `at` + 1 are codes and
 * scales of its first. */
template <class F>
static lk_status cuda_map_codes(lk_context *context, const lk_call *call,
                                view a, view b, int at, F f) {
  const lk_tensor *y = &call->out[0];
  int64_t count = lk_tensor_count(y), width = cuda_columns(y);
  map_args m = {a, b, view_of(y), count};
  code_args c = {(uint8_t *)call->out[at].data,
                 (float *)call->out[at + 1].data, count / width, (int)width};
  if (lk_present(&call->out[at]) && code_rows_fit(m, c)) {
    code_rows_launch(cuda_stream(context), f, m, c);
    return cuda_launched(context, call);
  }
  LK_TRY(cuda_map(context, call, a, b, m.y, count, f));
  return cuda_give_codes(context, call, 0, at);
}

#endif
