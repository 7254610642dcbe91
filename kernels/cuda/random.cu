/* Operators that are nothing but random draws: dropout, randn. Draws are those
 * of base/rng.h, bit for bit. */
#include "e4m3.cuh"

struct dropout_map {
  drops d;
  template <bool exact>
  __device__ void apply(const drawer &w, int64_t i, float u[8],
                        const float v[8]) const {
    (void)v;
    drops_apply(w, i, u);
  }
  template <int T>
  __device__ __forceinline__ uint4 packed(float factor, uint4 x, uint4 z,
                                          uint4 mask) const {
    float u[8];
    (void)z;
    unpack8(T, masked(x, mask), u);
#pragma unroll
    for (int j = 0; j < 8; j++) u[j] *= factor;
    return pack8(T, u);
  }
};

lk_status cuda_dropout(lk_context *context, const lk_call *call) {
  int64_t count = lk_tensor_count(&call->in[0]);
  dropout_map f = {drops_of(&call->in[1], &call->attr, count)};
  return cuda_map_codes(context, call, view_of(&call->in[0]), VIEW_NONE, 1, f);
}

struct randn_each {
  const uint32_t *clock;
  view y;
  uint32_t stream;
  float scale, value;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    float v[8];
    uint64_t seed = clock_seed(clock), block = (uint64_t)i / 4;
    uint32_t step = clock[LK_CLOCK_STEP];
    lk_rng_normal4(seed, block, stream, step, v);
    lk_rng_normal4(seed, block + 1, stream, step, v + 4);
    for (int j = 0; j < 8; j++) v[j] = value + scale * v[j];
    view_store(y, i, n, whole, v);
  }
};

lk_status cuda_randn(lk_context *context, const lk_call *call) {
  const lk_tensor *y = &call->out[0];
  randn_each f = {(const uint32_t *)call->in[0].data, view_of(y),
                  (uint32_t)call->attr.stream, (float)call->attr.scale,
                  (float)call->attr.value};
  return cuda_each(context, call, lk_tensor_count(y), view_whole(f.y), f);
}
