/* What every CUDA operator file starts from: the context's state, launches,
 * tensors seen with a type chosen at run time, eight values at a time, draws,
 * and sums in a fixed order.
 *
 * Kernels work on groups of eight consecutive elements: 16-byte accesses for
 * 16-bit types, one counter of the random numbers a group. */
#ifndef LK_CUDA_DEVICE_CUH
#define LK_CUDA_DEVICE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include "../base/rng.h"
#include "../base/scalar.h"
#include "../core/context.h"
#include "../core/scratch.h"
}

#include "draws.cuh"

#define CUDA_HIDDEN __attribute__((visibility("hidden")))

/* --- the context -------------------------------------------------------- */

enum {
  CUDA_THREADS = 256,        /* of most blocks */
  CUDA_SLOTS = 4,            /* pinned pieces on their way to the device */
  CUDA_SLOT_BYTES = 1 << 20,
  CUDA_COUNTER_BYTES = 4096
};

struct gemm_table;

/* context->state of a CUDA context. */
typedef struct cuda_state {
  int device, processors, capability; /* capability: 90 is 9.0 */
  bool hopper;               /* code for warpgroups is there: sm_90a */
  bool beside;               /* kernels may begin early: beside.cuh */
  int shared_most;           /* bytes of shared memory a block can have */
  cudaStream_t stream;
  struct gemm_table *gemm;
  char *workspace;           /* of the matrix products, from the accountant */
  int64_t workspace_bytes;
  unsigned *counters;        /* in the workspace; 0 between kernels */
  char *pinned;              /* CUDA_SLOTS pieces, one more for downloads */
  cudaEvent_t sent[CUDA_SLOTS];
  int slot;                  /* the next to use */
  cudaEvent_t start, stop;   /* the stopwatch */
} cuda_state;

static inline cuda_state *cuda_of(const lk_context *context) {
  return (cuda_state *)context->state;
}
/* Where to launch; makes the context's device the thread's current one. */
static inline cudaStream_t cuda_stream(const lk_context *context) {
  cudaSetDevice(cuda_of(context)->device);
  return cuda_of(context)->stream;
}

/* LK_OK, or what went wrong as a message: LK_OOM for memory (the error slot is
 * cleared), LK_DEVICE for all else, which breaks the context. */
CUDA_HIDDEN lk_status cuda_check(lk_context *context, cudaError_t code,
                                 const char *what);
#define CUDA_TRY(context, call) LK_TRY(cuda_check(context, call, #call))

/* To be returned after the last launch of an operator. */
static inline lk_status cuda_launched(lk_context *context,
                                      const lk_call *call) {
  return cuda_check(context, cudaGetLastError(),
                    lk_op_info_of(call->op)->name);
}

/* Let `kernel` have `bytes` of dynamic shared memory; LK_UNSUPPORTED when a
 * block cannot have that much here. */
CUDA_HIDDEN lk_status cuda_shared(lk_context *context, const lk_call *call,
                                  const void *kernel, int64_t bytes);

/* LK_UNSUPPORTED, in words, on a device below `capability` (89 is 8.9). */
CUDA_HIDDEN lk_status cuda_needs(lk_context *context, const char *what,
                                 int capability);

#define OP(name, results, inputs, attributes, gradient)               \
  CUDA_HIDDEN lk_status cuda_##name(lk_context *context,              \
                                    const lk_call *call);
#include "../core/ops.def"
#undef OP

static inline int64_t cuda_pieces(int64_t count, int64_t size) {
  return (count + size - 1) / size;
}
static inline int64_t cuda_smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static inline int64_t cuda_larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}
static inline int64_t cuda_columns(const lk_tensor *t) {
  return t->shape.rank > 0 ? t->shape.dim[t->shape.rank - 1] : 1;
}

/* --- views -------------------------------------------------------------- */

/* A float tensor on the device: f32, bf16 or f16; data NULL: absent. */
typedef struct view {
  void *data;
  int dtype;
} view;

static inline view view_of(const lk_tensor *t) {
  view v = {lk_present(t) ? t->data : NULL, (int)t->dtype};
  return v;
}
#define VIEW_NONE (view{NULL, LK_F32})
static __host__ __device__ inline view view_f32(void *data) {
  view v = {data, LK_F32};
  return v;
}
/* From element `i` on. */
static __host__ __device__ inline view view_from(view x, int64_t i) {
  x.data = (char *)x.data + i * (x.dtype == LK_F32 ? 4 : 2);
  return x;
}
/* Whether groups can be had by 16-byte accesses; absent views can. */
static inline bool view_whole(view x) {
  return ((uintptr_t)x.data & 15) == 0;
}

static __device__ __forceinline__ float view_get(view x, int64_t i) {
  if (x.dtype == LK_F32) return ((const float *)x.data)[i];
  uint16_t half = ((const uint16_t *)x.data)[i];
  return x.dtype == LK_BF16 ? lk_f32_from_bf16(half)
                            : __half2float(__ushort_as_half(half));
}

/* v as x's type would keep it. */
static __device__ __forceinline__ float view_round(view x, float v) {
  if (x.dtype == LK_F32) return v;
  return x.dtype == LK_BF16 ? __bfloat162float(__float2bfloat16_rn(v))
                            : __half2float(__float2half_rn(v));
}

static __device__ __forceinline__ void view_set(view y, int64_t i, float v) {
  if (y.dtype == LK_F32)
    ((float *)y.data)[i] = v;
  else if (y.dtype == LK_BF16)
    ((__nv_bfloat16 *)y.data)[i] = __float2bfloat16_rn(v);
  else
    ((__half *)y.data)[i] = __float2half_rn(v);
}

static __device__ __forceinline__ void unpack2(int dtype, uint32_t word,
                                               float v[2]) {
  if (dtype == LK_BF16) {
    v[0] = __uint_as_float(word << 16);
    v[1] = __uint_as_float(word & 0xFFFF0000u);
  } else {
    __half2 h;
    memcpy(&h, &word, sizeof h);
    float2 f = __half22float2(h);
    v[0] = f.x;
    v[1] = f.y;
  }
}

static __device__ __forceinline__ uint32_t pack2(int dtype, float a,
                                                 float b) {
  uint32_t word;
  if (dtype == LK_BF16) {
    __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
    memcpy(&word, &h, sizeof word);
  } else {
    __half2 h = __floats2half2_rn(a, b);
    memcpy(&word, &h, sizeof word);
  }
  return word;
}

static __device__ __forceinline__ void unpack8(int dtype, uint4 w,
                                               float v[8]) {
  unpack2(dtype, w.x, v);
  unpack2(dtype, w.y, v + 2);
  unpack2(dtype, w.z, v + 4);
  unpack2(dtype, w.w, v + 6);
}

static __device__ __forceinline__ uint4 pack8(int dtype, const float v[8]) {
  return make_uint4(pack2(dtype, v[0], v[1]), pack2(dtype, v[2], v[3]),
                    pack2(dtype, v[4], v[5]), pack2(dtype, v[6], v[7]));
}

/* Elements i … i + 7; whole: all there and 16-byte aligned, else the first n,
 * the others 0. */
static __device__ __forceinline__ void view_load(view x, int64_t i, int n,
                                                 bool whole, float v[8]) {
  if (!whole) {
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] = j < n ? view_get(x, i + j) : 0.0f;
  } else if (x.dtype == LK_F32) {
    const float4 *p = (const float4 *)((const float *)x.data + i);
    float4 a = p[0], b = p[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
  } else {
    unpack8(x.dtype, *(const uint4 *)((const uint16_t *)x.data + i), v);
  }
}

static __device__ __forceinline__ void view_store(view y, int64_t i, int n,
                                                  bool whole,
                                                  const float v[8]) {
  if (!whole) {
#pragma unroll
    for (int j = 0; j < 8; j++)
      if (j < n) view_set(y, i + j, v[j]);
  } else if (y.dtype == LK_F32) {
    float4 *p = (float4 *)((float *)y.data + i);
    p[0] = make_float4(v[0], v[1], v[2], v[3]);
    p[1] = make_float4(v[4], v[5], v[6], v[7]);
  } else {
    *(uint4 *)((uint16_t *)y.data + i) = pack8(y.dtype, v);
  }
}

/* --- launches ----------------------------------------------------------- */

/* f(i, n, whole) for every group of a row of `count` elements. */
template <class F>
__global__ void __launch_bounds__(CUDA_THREADS)
    k_each(F f, int64_t count, bool whole) {
  int64_t i = ((int64_t)blockIdx.x * CUDA_THREADS + threadIdx.x) * 8;
  if (i >= count) return;
  int n = count - i < 8 ? (int)(count - i) : 8;
  f(i, n, whole && n == 8);
}

template <class F>
static lk_status cuda_each(lk_context *context, const lk_call *call,
                           int64_t count, bool whole, F f) {
  int64_t blocks = cuda_pieces(count, 8 * CUDA_THREADS);
  k_each<<<(unsigned)blocks, CUDA_THREADS, 0, cuda_stream(context)>>>(
      f, count, whole);
  return cuda_launched(context, call);
}

/* A function of one or two tensors by element, all of y's type, with drops: b
 * may be absent. F has its drops d, apply<exact>(drawer, i, u, v): the group
 * from element i on, u and v into u, exact for f32; and packed<T>(factor, x, z,
 * mask): the same for packed groups whose draws are made already. */
typedef struct map_args {
  view a, b, y;
  int64_t count;
} map_args;

template <class F>
struct map_each {
  F f;
  map_args m;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    float u[8], v[8] = {0};
    drawer s = drops_open(f.d);
    view_load(m.a, i, n, whole, u);
    if (m.b.data) view_load(m.b, i, n, whole, v);
    if (m.y.dtype == LK_F32) f.template apply<true>(s, i, u, v);
    else f.template apply<false>(s, i, u, v);
    view_store(m.y, i, n, whole, u);
  }
};

enum { MAP_TURNS = 2 }; /* groups of a thread, all loaded before the first */

/* The same for whole groups of a 16-bit type. */
template <int T, class F>
__global__ void __launch_bounds__(CUDA_THREADS) k_map(F f, map_args m) {
  const uint16_t *a = (const uint16_t *)m.a.data;
  const uint16_t *b = (const uint16_t *)m.b.data;
  int64_t first = ((int64_t)blockIdx.x * MAP_TURNS * CUDA_THREADS +
                   threadIdx.x) * 8;
  uint4 x[MAP_TURNS], z[MAP_TURNS], mask[MAP_TURNS];
#pragma unroll
  for (int t = 0; t < MAP_TURNS; t++) {
    int64_t i = first + t * CUDA_THREADS * 8;
    if (i < m.count) x[t] = *(const uint4 *)(a + i);
    if (i < m.count && b) z[t] = *(const uint4 *)(b + i);
  }
  drawer s = drops_open(f.d);
  drops_masks<MAP_TURNS>(s, first, CUDA_THREADS * 8, mask);
#pragma unroll
  for (int t = 0; t < MAP_TURNS; t++) {
    int64_t i = first + t * CUDA_THREADS * 8;
    if (i >= m.count) return;
    *(uint4 *)((uint16_t *)m.y.data + i) =
        f.template packed<T>(s.factor, x[t], z[t], mask[t]);
  }
}

template <class F>
static lk_status cuda_map(lk_context *context, const lk_call *call, view a,
                          view b, view y, int64_t count, F f) {
  map_args m = {a, b, y, count};
  bool whole = view_whole(a) && view_whole(b) && view_whole(y);
  unsigned blocks = (unsigned)cuda_pieces(count, MAP_TURNS * CUDA_THREADS * 8);
  if (!whole || count % 8 != 0 || y.dtype == LK_F32) {
    map_each<F> g = {f, m};
    return cuda_each(context, call, count, whole, g);
  }
  if (y.dtype == LK_BF16)
    k_map<LK_BF16><<<blocks, CUDA_THREADS, 0, cuda_stream(context)>>>(f, m);
  else
    k_map<LK_F16><<<blocks, CUDA_THREADS, 0, cuda_stream(context)>>>(f, m);
  return cuda_launched(context, call);
}

/* f(row, unit) for every unit in [0, units) of every row. */
template <class F>
__global__ void __launch_bounds__(CUDA_THREADS)
    k_rows(F f, int64_t rows, unsigned units, unsigned per) {
  for (unsigned t = threadIdx.x; t < per * units; t += CUDA_THREADS) {
    int64_t row = (int64_t)blockIdx.x * per + t / units;
    if (row < rows) f(row, (int64_t)(t % units));
  }
}

template <class F>
static lk_status cuda_rows(lk_context *context, const lk_call *call,
                           int64_t rows, int64_t units, F f) {
  int64_t per = cuda_larger(1, CUDA_THREADS / units);
  k_rows<<<(unsigned)cuda_pieces(rows, per), CUDA_THREADS, 0,
           cuda_stream(context)>>>(f, rows, (unsigned)units, (unsigned)per);
  return cuda_launched(context, call);
}

/* --- sums in a fixed order ---------------------------------------------- */

template <class T>
static __device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    v += __shfl_xor_sync(0xFFFFFFFFu, v, offset);
  return v;
}

static __device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    v = fmaxf(v, __shfl_xor_sync(0xFFFFFFFFu, v, offset));
  return v;
}

/* Over all threads of the block, the same for each; `room` holds 33 values and
 * is free again afterwards. Blocks of whole warps. */
template <class T>
static __device__ __forceinline__ T block_sum(T v, T *room) {
  int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
  v = warp_sum(v);
  if (lane == 0) room[warp] = v;
  __syncthreads();
  if (warp == 0) {
    T part = lane < (int)blockDim.x / 32 ? room[lane] : (T)0;
    part = warp_sum(part);
    if (lane == 0) room[32] = part;
  }
  __syncthreads();
  v = room[32];
  __syncthreads();
  return v;
}

static __device__ __forceinline__ float block_max(float v, float *room) {
  int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
  v = warp_max(v);
  if (lane == 0) room[warp] = v;
  __syncthreads();
  if (warp == 0) {
    float part = lane < (int)blockDim.x / 32 ? room[lane] : -INFINITY;
    part = warp_max(part);
    if (lane == 0) room[32] = part;
  }
  __syncthreads();
  v = room[32];
  __syncthreads();
  return v;
}

/* Whether this is the last of `blocks` blocks to come here: it alone sees what
 * all have written. The counter is 0 again afterwards. */
static __device__ __forceinline__ bool last_block(unsigned *counter,
                                                  unsigned blocks) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(counter, blocks - 1) == blocks - 1;
  __syncthreads();
  __threadfence();
  return last;
}

#endif
