/* SiLU and gated SiLU with dropout, and their gradients: one pass each. In f32
 * by the formulas of base/math.h; 16-bit types, which round far more, take the
 * hardware's exponential. */
#include "e4m3.cuh"

/* 1 / (1 + 2^(−x log2 e)) by the hardware, subnormals as zeros. */
static __device__ __forceinline__ float sigmoid_fast(float x) {
  float power, y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * -1.44269504f));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(1.0f + power));
  return y;
}

template <bool exact>
static __device__ __forceinline__ float sigmoid_of(float x) {
  return exact ? lk_sigmoid(x) : sigmoid_fast(x);
}

/* x · sigmoid(x); −0 far below, as the exact one. */
template <bool exact>
static __device__ __forceinline__ float silu_of(float x) {
  return exact ? lk_silu(x) : x * sigmoid_of<false>(x);
}

template <bool exact>
static __device__ __forceinline__ float slope_of(float x) {
  float s = sigmoid_of<exact>(x);
  return s + s * x * (1.0f - s);
}

struct silu_map {
  drops d;
  template <bool exact>
  __device__ void apply(const drawer &w, int64_t i, float u[8],
                        const float v[8]) const {
    (void)v;
#pragma unroll
    for (int j = 0; j < 8; j++) u[j] = silu_of<exact>(u[j]);
    drops_apply(w, i, u);
  }
  template <int T>
  __device__ __forceinline__ uint4 packed(float factor, uint4 x, uint4 z,
                                          uint4 mask) const {
    float u[8];
    (void)z;
    unpack8(T, x, u);
#pragma unroll
    for (int j = 0; j < 8; j++) u[j] = silu_of<false>(u[j]) * factor;
    return masked(pack8(T, u), mask);
  }
};

lk_status cuda_silu(lk_context *context, const lk_call *call) {
  int64_t count = lk_tensor_count(&call->in[0]);
  silu_map f = {drops_of(&call->in[1], &call->attr, count)};
  return cuda_map_codes(context, call, view_of(&call->in[0]), VIEW_NONE, 1, f);
}

/* u: dy, v: x */
struct silu_backward_map {
  drops d;
  template <bool exact>
  __device__ void apply(const drawer &w, int64_t i, float u[8],
                        const float v[8]) const {
    drops_apply(w, i, u);
#pragma unroll
    for (int j = 0; j < 8; j++) u[j] *= slope_of<exact>(v[j]);
  }
  template <int T>
  __device__ __forceinline__ uint4 packed(float factor, uint4 x, uint4 z,
                                          uint4 mask) const {
    float u[8], v[8];
    unpack8(T, masked(x, mask), u);
    unpack8(T, z, v);
#pragma unroll
    for (int j = 0; j < 8; j++) u[j] = u[j] * factor * slope_of<false>(v[j]);
    return pack8(T, u);
  }
};

lk_status cuda_silu_backward(lk_context *context, const lk_call *call) {
  int64_t count = lk_tensor_count(&call->in[0]);
  silu_backward_map f = {drops_of(&call->in[2], &call->attr, count)};
  return cuda_map_codes(context, call, view_of(&call->in[0]),
                        view_of(&call->in[1]), 1, f);
}

/* --- gated -------------------------------------------------------------- */

/* Rows of `width` results; x has twice as many. */
struct gated_row {
  view x, y;
  drops d;
  int64_t width;
  bool whole;
  __device__ void operator()(int64_t row, int64_t unit) const {
    float a[8], b[8];
    int64_t c = unit * 8, i = row * 2 * width + c, left = width - c;
    int n = left < 8 ? (int)left : 8;
    bool exact = x.dtype == LK_F32;
    view_load(x, i, n, whole, a);
    view_load(x, i + width, n, whole, b);
    if (exact)
      for (int j = 0; j < 8; j++) a[j] = silu_of<true>(a[j]) * b[j];
    else
      for (int j = 0; j < 8; j++) a[j] = silu_of<false>(a[j]) * b[j];
    drops_apply(drops_open(d), row * width + c, a);
    view_store(y, row * width + c, n, whole, a);
  }
};

lk_status cuda_gated_silu(lk_context *context, const lk_call *call) {
  const lk_tensor *y = &call->out[0];
  int64_t count = lk_tensor_count(y), width = cuda_columns(y);
  gated_row f = {view_of(&call->in[0]), view_of(y),
                 drops_of(&call->in[1], &call->attr, count), width,
                 width % 8 == 0};
  f.whole = f.whole && view_whole(f.x) && view_whole(f.y);
  return cuda_rows(context, call, count / width, cuda_pieces(width, 8), f);
}

/* g = keep · dy; da = g · b · silu'(a), db = g · silu(a) */
struct gated_backward_row {
  view dy, x, dx;
  drops d;
  int64_t width;
  bool whole;
  __device__ void operator()(int64_t row, int64_t unit) const {
    float a[8], b[8], g[8];
    int64_t c = unit * 8, i = row * 2 * width + c, left = width - c;
    int n = left < 8 ? (int)left : 8;
    bool exact = x.dtype == LK_F32;
    view_load(dy, row * width + c, n, whole, g);
    view_load(x, i, n, whole, a);
    view_load(x, i + width, n, whole, b);
    drops_apply(drops_open(d), row * width + c, g);
    for (int j = 0; j < 8; j++) {
      float sigmoid = exact ? sigmoid_of<true>(a[j]) : sigmoid_of<false>(a[j]);
      float silu = a[j] * sigmoid;
      a[j] = g[j] * b[j] * (sigmoid + silu * (1.0f - sigmoid));
      b[j] = g[j] * silu;
    }
    view_store(dx, i, n, whole, a);
    view_store(dx, i + width, n, whole, b);
  }
};

lk_status cuda_gated_silu_backward(lk_context *context, const lk_call *call) {
  const lk_tensor *dy = &call->in[0];
  int64_t count = lk_tensor_count(dy), width = cuda_columns(dy);
  gated_backward_row f = {view_of(dy), view_of(&call->in[1]),
                          view_of(&call->out[0]),
                          drops_of(&call->in[2], &call->attr, count), width,
                          width % 8 == 0};
  f.whole = f.whole && view_whole(f.dy) && view_whole(f.x) &&
            view_whole(f.dx);
  return cuda_rows(context, call, count / width, cuda_pieces(width, 8), f);
}
