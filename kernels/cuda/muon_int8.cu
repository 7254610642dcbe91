/* Muon's momentum kept in 8 bits, a scale a block. Formulas by element are
 * those of base/update.h; codes and scales are the CPU's, bit for bit. */
#include "beside.cuh"
#include "blocks.cuh"
#include "muon.cuh"

typedef struct muon_int8 {
  view g, u;
  int8_t *m;
  float *scale;
  const float *control;
  float rest;
  bool whole;
} muon_int8;

/* The new momentum of a group under the block's old scale; u in g. */
static __device__ void muon_int8_group(const muon_int8 &a, float old,
                                       float factor, int64_t i, int n,
                                       float g[8], float m[8]) {
  bool whole = a.whole && n == 8;
  view_load(a.g, i, n, whole, g);
  if (whole) {
    uint2 word = *(const uint2 *)(a.m + i);
    const int8_t *byte = (const int8_t *)&word;
#pragma unroll
    for (int j = 0; j < 8; j++) m[j] = old * (float)byte[j];
  } else {
    for (int j = 0; j < 8; j++) m[j] = j < n ? old * (float)a.m[i + j] : 0.0f;
  }
  muon_group<8>(factor, a.rest, g, m);
}

static __global__ void __launch_bounds__(CUDA_THREADS)
    k_muon_int8(block_walk w, muon_int8 a) {
  bool stopped = a.control[LK_CONTROL_FINITE] == 0.0f;
  block_place p = block_find(w);
  float old = p.values > 0 ? a.scale[p.block] : 0.0f;
  float factor = update_scale(a.control, LK_CONTROL_MUON_FACTOR);
  float g[8] = {0}, m[8];
  uint32_t most = 0;
  for (int t = 0; t < w.turns; t++) {
    int64_t i;
    int n = block_group(w, p, t, &i);
    if (n == 0) continue;
    if (!stopped) muon_int8_group(a, old, factor, i, n, g, m);
    view_store(a.u, i, n, a.whole && n == 8, g);
    if (!stopped) most = amax_of(most, m, n);
  }
  if (stopped) return;
  float fresh = lk_float_of_bits(lanes_amax(most, w.lanes)) / 127.0f;
  lk_unit unit = lk_unit_of_scale(fresh);
  for (int t = 0; t < w.turns; t++) {
    int64_t i;
    int n = block_group(w, p, t, &i);
    if (n == 0) continue;
    if (w.turns > 1) muon_int8_group(a, old, factor, i, n, g, m);
    int32_t code[8];
#pragma unroll
    for (int j = 0; j < 8; j++)
      code[j] = lk_int_code(lk_unit_apply(unit, m[j]), 127.0f);
    store_bytes((uint8_t *)a.m, i, n, a.whole, code);
  }
  if (p.first_lane && p.values > 0) a.scale[p.block] = fresh;
}

enum {
  MUON_INT8_THREADS = 128,
  MUON_INT8_TURNS = 2   /* groups of a thread, all loaded before the first */
};

/* As layers have it: u in bf16, whole blocks of 256, a warp each. */
template <int T>
static __global__ void __launch_bounds__(MUON_INT8_THREADS)
    k_muon_int8_fast(muon_int8 a, uint32_t groups) {
  beside_kernel beside;
  float g[MUON_INT8_TURNS][8], old[MUON_INT8_TURNS];
  uint2 code[MUON_INT8_TURNS];
  uint32_t first = blockIdx.x * MUON_INT8_TURNS * MUON_INT8_THREADS +
                   threadIdx.x;
#pragma unroll
  for (int t = 0; t < MUON_INT8_TURNS; t++) {
    uint32_t i = first + t * MUON_INT8_THREADS;
    if (i >= groups) break;
    view_load(view{a.g.data, T}, (int64_t)i * 8, 8, true, g[t]);
    code[t] = ((const uint2 *)a.m)[i];
    old[t] = a.scale[i / 32];
  }
  bool stopped = a.control[LK_CONTROL_FINITE] == 0.0f;
  float factor = update_scale(a.control, LK_CONTROL_MUON_FACTOR);
#pragma unroll
  for (int t = 0; t < MUON_INT8_TURNS; t++) {
    uint32_t i = first + t * MUON_INT8_THREADS;
    uint4 *u = (uint4 *)a.u.data + i;
    float m[8];
    int32_t fresh[8];
    if (i >= groups) return; /* all of a warp or none */
    if (stopped) {
      *u = make_uint4(0, 0, 0, 0);
      continue;
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
      m[j] = old[t] * (float)(int8_t)((j < 4 ? code[t].x : code[t].y) >>
                                      (j % 4 * 8));
    muon_group<8>(factor, a.rest, g[t], m);
    *u = pack8(LK_BF16, g[t]);
    float most = lk_float_of_bits(lanes_amax(amax_of(0, m, 8), 32));
    float scale = most / 127.0f;
    lk_unit unit = lk_unit_of_scale(scale);
#pragma unroll
    for (int j = 0; j < 8; j++)
      fresh[j] = lk_int_code(lk_unit_apply(unit, m[j]), 127.0f);
    store_bytes((uint8_t *)a.m, (int64_t)i * 8, 8, true, fresh);
    if (i % 32 == 0) a.scale[i / 32] = scale;
  }
}

static void (*muon_int8_fast(const block_walk &w, const muon_int8 &a))(
    muon_int8, uint32_t) {
  bool fits = a.whole && w.block == 256 && w.count % 256 == 0 &&
              w.count / 8 < INT32_MAX && a.u.dtype == LK_BF16;
  if (fits && a.g.dtype == LK_F32) return k_muon_int8_fast<LK_F32>;
  if (fits && a.g.dtype == LK_BF16) return k_muon_int8_fast<LK_BF16>;
  return NULL;
}

lk_status cuda_muon_momentum_int8(lk_context *context, const lk_call *call) {
  muon_int8 a = {view_of(&call->in[0]), view_of(&call->out[2]),
                 (int8_t *)call->out[0].data, (float *)call->out[1].data,
                 (const float *)call->in[1].data,
                 (float)(1.0 - call->attr.beta1), false};
  a.whole = view_whole(a.g) && view_whole(a.u) && ((uintptr_t)a.m & 7) == 0;
  block_walk w = block_walk_of(lk_tensor_count(&call->in[0]),
                               call->attr.block);
  void (*fast)(muon_int8, uint32_t) = muon_int8_fast(w, a);
  int64_t each = 8 * MUON_INT8_THREADS * MUON_INT8_TURNS;
  if (fast != NULL)
    beside_launch(context, call, fast, cuda_pieces(w.count, each),
                  MUON_INT8_THREADS, a, (uint32_t)(w.count / 8));
  else
    k_muon_int8<<<block_grid(w), CUDA_THREADS, 0, cuda_stream(context)>>>(w,
                                                                          a);
  return cuda_launched(context, call);
}
