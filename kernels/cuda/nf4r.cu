/* NF4R: 4-bit weights with an 8-bit residual that learn. Formulas by element
 * are those of base/codebook.h; the bits are the CPU's (-fmad=false). */
#include "nf4r.cuh"

/* By code, in shared memory: the value, and half the way to its neighbours
 * above [0] and below [1], with its reciprocal; the thresholds, ascending. */
typedef struct nf4r_tables {
  float value[16], half[2][16], inverse[2][16], threshold[16];
} nf4r_tables;

static __device__ void nf4r_fill(nf4r_tables *t) {
#define NF4R_THRESHOLD(threshold, value) threshold,
  const float thresholds[16] = {LK_NF4_STEPS(NF4R_THRESHOLD) INFINITY};
#undef NF4R_THRESHOLD
  int c = (int)threadIdx.x;
  if (c < 16) {
    t->value[c] = lk_nf4_value(c);
    t->threshold[c] = thresholds[c];
    for (int below = 0; below < 2; below++) {
      t->half[below][c] = lk_nf4r_half(c, below);
      t->inverse[below][c] = 1.0f / t->half[below][c];
    }
  }
  __syncthreads();
}

/* x / d, correctly rounded, from the rounded y = 1 / d (Markstein 1990). */
static __device__ __forceinline__ float divided(float x, float d, float y) {
  float q = x * y;
  return __fmaf_rn(__fmaf_rn(-q, d, x), y, q);
}

/* lk_nf4_code by bisection: how many thresholds lie below u. */
static __device__ __forceinline__ int32_t nf4r_code(const nf4r_tables &t,
                                                    float u) {
  int32_t code = u > t.threshold[7] ? 8 : 0;
  code += u > t.threshold[code + 3] ? 4 : 0;
  code += u > t.threshold[code + 1] ? 2 : 0;
  code += u > t.threshold[code] ? 1 : 0;
  return code;
}

/* --- decoding ------------------------------------------------------------- */

static __device__ __forceinline__ void nf4r_decode(const nf4r_args &a,
                                                   const nf4r_tables &t,
                                                   float scale, int64_t i,
                                                   int n, float w[8]) {
  int32_t code[8], r[8] = {0};
  load_nibbles(a.codes, i, n, a.whole, false, code);
  if (a.residual)
    load_bytes((const uint8_t *)a.residual, i, n, a.whole, r);
#pragma unroll
  for (int j = 0; j < 8; j++) {
    int32_t rest = (int8_t)r[j];
    float value = t.value[code[j]], half = t.half[rest < 0][code[j]];
    float part = divided(half * (float)rest, 127.0f, 1.0f / 127.0f);
    w[j] = a.residual ? lk_nf4r_moved(scale, value, part) : value * scale;
  }
}

/* --- encoding ------------------------------------------------------------- */

/* The weights to encode as they are. */
struct nf4r_given {
  __device__ void operator()(const nf4r_args &a, const nf4r_tables &t,
                             float old, int64_t i, int n, float w[8]) const {
    (void)t, (void)old;
    view_load(a.w, i, n, a.whole && n == 8, w);
  }
};

/* The master moved by the direction. */
struct nf4r_moved {
  __device__ void operator()(const nf4r_args &a, const nf4r_tables &t,
                             float old, int64_t i, int n, float w[8]) const {
    float rate = (float)(a.lr * (double)a.control[LK_CONTROL_RATE]), o[8];
    nf4r_decode(a, t, old, i, n, w);
    view_load(a.o, i, n, a.whole && n == 8, o);
#pragma unroll
    for (int j = 0; j < 8; j++)
      w[j] = lk_muon_step(w[j], o[j], rate, a.scale, a.decay);
  }
};

/* The scale of least error; all lanes of a warp come along. */
template <class S>
static __device__ float nf4r_search(const nf4r_args &a, const nf4r_tables &t,
                                    const block_walk &w, const block_place &p,
                                    S source, float old, float absmax,
                                    float *room, float v[8]) {
  const float factors[LK_SEARCH_COUNT] = {LK_SEARCH_FACTORS(LK_COMMA)};
  float best = absmax, least = INFINITY;
#pragma unroll
  for (int f = 0; f < LK_SEARCH_COUNT; f++) {
    float sum[8] = {0}, e[8];
    lk_unit unit = lk_unit_of_scale(absmax * factors[f]);
    for (int turn = 0; turn < w.turns; turn++) {
      int64_t i;
      int n = block_group(w, p, turn, &i);
      if (w.turns > 1 && n > 0) source(a, t, old, i, n, v);
#pragma unroll
      for (int j = 0; j < 8; j++) {
        float u = lk_unit_apply(unit, v[j]);
        float value = t.value[nf4r_code(t, u)];
        e[j] = j < n ? lk_search_error(factors[f], u, value) : 0.0f;
      }
      search_add(w, p, room, e, sum);
    }
    float error = search_total(w, p, room, sum);
    if (!(error < least)) continue;
    least = error;
    best = absmax * factors[f];
  }
  return best;
}

/* A code by chance, for a format without residual. */
static __device__ int32_t nf4r_toss(const nf4r_tables &t, float u,
                                    float chance) {
  int32_t below = lk_nf4_below(u);
  return lk_nf4_stochastic(u, below, t.value[below], t.value[below + 1],
                           chance);
}

/* Codes and residuals of a group. */
static __device__ __forceinline__ void nf4r_group(const nf4r_args &a,
                                                  const nf4r_tables &t,
                                                  lk_unit unit, int64_t i,
                                                  int n, const float v[8]) {
  int32_t code[8], r[8];
  uint32_t draw[8] = {0};
  bool coin = a.residual == NULL && a.stochastic;
  if (a.residual || coin)
    draw8(clock_seed(a.clock), a.clock[LK_CLOCK_STEP], a.stream, (uint64_t)i,
          draw);
#pragma unroll
  for (int j = 0; j < 8; j++) {
    float u = lk_unit_apply(unit, v[j]), chance = lk_rng_unit16(draw[j]);
    code[j] = coin ? nf4r_toss(t, u, chance) : nf4r_code(t, u);
    float e = u - t.value[code[j]];
    int below = e < 0.0f;
    r[j] = lk_nf4r_rounded(divided(127.0f * e, t.half[below][code[j]],
                                   t.inverse[below][code[j]]), chance);
  }
  store_nibbles(a.codes, i, n, a.whole, false, 7, code);
  if (a.residual) store_bytes((uint8_t *)a.residual, i, n, a.whole, r);
}

template <bool SEARCH, class S>
__global__ void __launch_bounds__(CUDA_THREADS)
    k_nf4r_encode(block_walk w, nf4r_args a, S source) {
  __shared__ nf4r_tables t;
  __shared__ float room[SEARCH ? CUDA_THREADS * 8 : 1];
  if (a.control && a.control[LK_CONTROL_FINITE] == 0.0f) return;
  nf4r_fill(&t);
  block_place p = block_find(w);
  float v[8] = {0}, old = a.control && p.values > 0 ? a.absmax[p.block] : 0;
  uint32_t most = 0;
  for (int turn = 0; turn < w.turns; turn++) {
    int64_t i;
    int n = block_group(w, p, turn, &i);
    if (n > 0) source(a, t, old, i, n, v);
    most = amax_of(most, v, n);
  }
  float scale = lk_float_of_bits(lanes_amax(most, w.lanes));
  if (SEARCH)
    scale = nf4r_search(a, t, w, p, source, old, scale, room, v);
  lk_unit unit = lk_unit_of_scale(scale);
  for (int turn = 0; turn < w.turns; turn++) {
    int64_t i;
    int n = block_group(w, p, turn, &i);
    if (n == 0) continue;
    if (w.turns > 1) source(a, t, old, i, n, v);
    nf4r_group(a, t, unit, i, n, v);
  }
  __syncwarp();
  if (p.first_lane && p.values > 0) a.absmax[p.block] = scale;
}

/* --- operators ------------------------------------------------------------ */

static nf4r_args nf4r_of(const lk_call *call, const lk_tensor *codes,
                         const lk_tensor *absmax, const lk_tensor *residual) {
  nf4r_args a = {};
  a.codes = (uint8_t *)codes->data;
  a.absmax = (float *)absmax->data;
  a.residual = lk_present(residual) ? (int8_t *)residual->data : NULL;
  a.stream = (uint32_t)call->attr.stream;
  a.stochastic = call->attr.stochastic;
  return a;
}

static void nf4r_align(nf4r_args *a) {
  a->whole = view_whole(a->w) && view_whole(a->o) &&
             ((uintptr_t)a->codes & 3) == 0 &&
             ((uintptr_t)a->residual & 7) == 0;
}

template <class S>
static lk_status nf4r_run(lk_context *context, const lk_call *call,
                          const nf4r_args &a, S source) {
  block_walk w = block_walk_of(lk_tensor_count(&call->in[0]),
                               call->attr.block);
  cudaStream_t stream = cuda_stream(context);
  if (call->attr.search)
    k_nf4r_encode<true><<<block_grid(w), CUDA_THREADS, 0, stream>>>(w, a,
                                                                    source);
  else
    k_nf4r_encode<false><<<block_grid(w), CUDA_THREADS, 0, stream>>>(w, a,
                                                                     source);
  return cuda_launched(context, call);
}

lk_status cuda_nf4r_encode(lk_context *context, const lk_call *call) {
  nf4r_args a = nf4r_of(call, &call->out[0], &call->out[1], &call->out[2]);
  a.w = view_of(&call->in[0]);
  a.clock = (const uint32_t *)call->in[1].data;
  nf4r_align(&a);
  return nf4r_run(context, call, a, nf4r_given());
}

lk_status cuda_nf4r_update(lk_context *context, const lk_call *call) {
  nf4r_args a = nf4r_of(call, &call->out[0], &call->out[1], &call->out[2]);
  a.o = view_of(&call->in[0]);
  a.control = (const float *)call->in[1].data;
  a.clock = (const uint32_t *)call->in[2].data;
  a.lr = call->attr.lr;
  a.scale = (float)call->attr.scale;
  a.decay = (float)call->attr.decay;
  nf4r_align(&a);
  block_walk w = block_walk_of(lk_tensor_count(&call->in[0]),
                               call->attr.block);
  if (!call->attr.search && nf4r_update_fast(context, call, w, a))
    return cuda_launched(context, call);
  return nf4r_run(context, call, a, nf4r_moved());
}

static __global__ void __launch_bounds__(CUDA_THREADS)
    k_nf4r_master(block_walk w, nf4r_args a) {
  __shared__ nf4r_tables t;
  nf4r_fill(&t);
  block_place p = block_find(w);
  if (p.values == 0) return;
  float v[8], scale = a.absmax[p.block];
  for (int turn = 0; turn < w.turns; turn++) {
    int64_t i;
    int n = block_group(w, p, turn, &i);
    if (n == 0) continue;
    nf4r_decode(a, t, scale, i, n, v);
    view_store(a.w, i, n, a.whole && n == 8, v);
  }
}

lk_status cuda_nf4r_master(lk_context *context, const lk_call *call) {
  nf4r_args a = nf4r_of(call, &call->in[0], &call->in[1], &call->in[2]);
  a.w = view_of(&call->out[0]);
  nf4r_align(&a);
  block_walk w = block_walk_of(lk_tensor_count(&call->out[0]),
                               call->attr.block);
  k_nf4r_master<<<block_grid(w), CUDA_THREADS, 0, cuda_stream(context)>>>(w,
                                                                          a);
  return cuda_launched(context, call);
}
