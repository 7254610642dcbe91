/* What updates share: the factor of gradients, and Muon's momentum by group. */
#ifndef LK_CUDA_MUON_CUH
#define LK_CUDA_MUON_CUH

#include "device.cuh"

/* The clipping factor over the loss scale. */
static __device__ __forceinline__ float update_scale(const float *control,
                                                     int factor) {
  return control[factor] / control[LK_CONTROL_LOSS_SCALE];
}

/* m and u of a group from its gradient g, which is scaled here; u in g. */
template <int N>
static __device__ __forceinline__ void muon_group(float scale, float rest,
                                                  float g[N], float m[N]) {
#pragma unroll
  for (int j = 0; j < N; j++) {
    float scaled = g[j] * scale;
    m[j] = lk_muon_momentum(m[j], scaled, rest);
    g[j] = lk_muon_direction(m[j], scaled, rest);
  }
}

#endif
