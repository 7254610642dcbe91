/* Walking over tensors four values at a time: updates move f32 for the most
 * part, and a warp's float4 side by side fill whole sectors.
 *
 * F has open(state), what a thread needs of the step (false: nothing is to be
 * done), load(i, group) and work(state, i, group), all in whole quads. */
#ifndef LK_CUDA_QUADS_CUH
#define LK_CUDA_QUADS_CUH

#include "beside.cuh"

enum { QUAD_TURNS = 2 }; /* quads of a thread, all loaded before the first */

/* Elements i … i + 3, there and aligned. */
static __device__ __forceinline__ void quad_load(view x, int64_t i,
                                                 float v[4]) {
  if (x.dtype == LK_F32) {
    float4 w = *(const float4 *)((const float *)x.data + i);
    v[0] = w.x, v[1] = w.y, v[2] = w.z, v[3] = w.w;
  } else {
    uint2 w = *(const uint2 *)((const uint16_t *)x.data + i);
    unpack2(x.dtype, w.x, v);
    unpack2(x.dtype, w.y, v + 2);
  }
}

static __device__ __forceinline__ void quad_store(view y, int64_t i,
                                                  const float v[4]) {
  if (y.dtype == LK_F32)
    *(float4 *)((float *)y.data + i) = make_float4(v[0], v[1], v[2], v[3]);
  else
    *(uint2 *)((uint16_t *)y.data + i) =
        make_uint2(pack2(y.dtype, v[0], v[1]), pack2(y.dtype, v[2], v[3]));
}

template <class F>
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_quads(F f, int64_t count) {
  beside_kernel beside;
  typename F::state s;
  if (!f.open(&s)) return;
  typename F::group x[QUAD_TURNS];
  int64_t step = CUDA_THREADS * 4;
  int64_t i = (int64_t)blockIdx.x * QUAD_TURNS * step + threadIdx.x * 4;
#pragma unroll
  for (int t = 0; t < QUAD_TURNS; t++)
    if (i + t * step < count) f.load(i + t * step, x[t]);
#pragma unroll
  for (int t = 0; t < QUAD_TURNS; t++)
    if (i + t * step < count) f.work(s, i + t * step, x[t]);
}

template <class F>
static lk_status quads_run(lk_context *context, const lk_call *call,
                           int64_t count, F f) {
  int64_t each = QUAD_TURNS * CUDA_THREADS * 4;
  beside_launch(context, call, k_quads<F>, cuda_pieces(count, each),
                CUDA_THREADS, f, count);
  return cuda_launched(context, call);
}

#endif
