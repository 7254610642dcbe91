/* NF4R's update where all is whole, at the memory's rate: what it is for each
 * weight (nf4r.cu has the plain form), in fewer instructions. The bits are the
 * CPU's (-fmad=false); tests/c/test_backends.c compares them, and
 * tests/c/test_nf4r_quick.c the formulas of nf4r_quick.h without a device.
 *
 * Addresses in tables come ready from the bits: the tables' own, whose last
 * byte is 0, codes times four, and 64 for the side below. */
#include "beside.cuh"
#include "nf4r.cuh"
#include "nf4r_quick.h"

/* --- tables --------------------------------------------------------------- */

/* By code, and 16 more for the side below: the value, half the way to the next
 * one on that side, and its reciprocal as a sum of two; the thresholds; 128. */
typedef struct nf4r_sides {
  float value[32], half[32], inverse[32], rest[32], threshold[15], power;
} nf4r_sides;
#define NF4R_AT(table) ((int)offsetof(nf4r_sides, table))

static constexpr nf4r_sides sides_make() {
#define NF4R_THRESHOLD(threshold, value) threshold,
  constexpr float values[16] = {-1.0f, LK_NF4_STEPS(LK_STEP_VALUE)};
  constexpr float thresholds[15] = {LK_NF4_STEPS(NF4R_THRESHOLD)};
#undef NF4R_THRESHOLD
  nf4r_sides t = {};
  t.power = 128.0f;
  for (int i = 0; i < 32; i++) {
    int code = i % 16, next = i < 16 ? code + 1 : code - 1;
    float half = 0.6f;
    if (next > code && next < 16) half = (values[next] - values[code]) / 2.0f;
    if (next < code && next >= 0) half = (values[code] - values[next]) / 2.0f;
    t.value[i] = values[code];
    t.half[i] = half;
    t.inverse[i] = 1.0f / half;
    t.rest[i] = (float)(1.0 / (double)half - (double)t.inverse[i]);
    if (i < 15) t.threshold[i] = thresholds[i];
  }
  return t;
}

static __constant__ const nf4r_sides sides_known = sides_make();

/* What is at an address of a block's own tables, an entry of TABLE. */
template <int TABLE>
static __device__ __forceinline__ float sides_at(uint32_t address) {
  float v;
  asm("ld.shared.f32 %0, [%1+%2];" : "=f"(v) : "r"(address), "n"(TABLE));
  return v;
}

/* The tables in shared memory: their address. By all threads of a block. */
static __device__ __forceinline__ uint32_t sides_open(void) {
  __shared__ alignas(256) nf4r_sides t;
  uint32_t address = (uint32_t)__cvta_generic_to_shared(&t);
  if (threadIdx.x < sizeof t / 16)
    ((float4 *)&t)[threadIdx.x] = ((const float4 *)&sides_known)[threadIdx.x];
  __syncthreads();
  asm volatile("" : "+r"(address)::"memory"); /* no look-up comes before */
  return address;
}

/* --- a group -------------------------------------------------------------- */

/* Eight weights as they are in memory; of a group that is not there, zeros. */
typedef struct nf4r_raw {
  uint32_t codes;
  uint2 residual;
  uint4 o;
  float absmax;
} nf4r_raw;

/* What is the same for all weights. */
typedef struct nf4r_step {
  float rate, scale, decay;
} nf4r_step;

/* The master from the address of its code and side. */
static __device__ __forceinline__ float moved(const nf4r_step &s,
                                              uint32_t address, uint32_t r,
                                              float absmax, float o) {
  float whole = sides_at<NF4R_AT(half)>(address) * (float)(int8_t)r;
  float w = lk_nf4r_moved(absmax, sides_at<NF4R_AT(value)>(address),
                          nf4r_over_127(whole));
  return lk_muon_step(w, o, s.rate, s.scale, s.decay);
}

static __device__ __forceinline__ void nf4r_move(uint32_t tables,
                                                 const nf4r_step &s,
                                                 const nf4r_raw &x,
                                                 float w[8]) {
  const uint32_t codes = 0x3C3C3C3Cu, below = 0x40404040u;
  uint32_t even = __byte_perm(x.residual.x, x.residual.y, 0x6420);
  uint32_t odd = __byte_perm(x.residual.x, x.residual.y, 0x7531);
  uint32_t high = (x.codes >> 2 & codes) | (even >> 1 & below);
  uint32_t low = (x.codes << 2 & codes) | (odd >> 1 & below);
  float o[8];
  unpack8(LK_BF16, x.o, o);
#pragma unroll
  for (int j = 0; j < 4; j++) {
    w[2 * j] = moved(s, __byte_perm(high, tables, 0x7650u | j),
                     even >> (8 * j), x.absmax, o[2 * j]);
    w[2 * j + 1] = moved(s, __byte_perm(low, tables, 0x7650u | j),
                         odd >> (8 * j), x.absmax, o[2 * j + 1]);
  }
}

/* The larger magnitude; a NaN is larger than all numbers. */
static __device__ __forceinline__ float larger(float a, float b) {
  float c;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(fabsf(a)), "f"(fabsf(b)));
  return c;
}

template <int LANES>
static __device__ __forceinline__ float nf4r_absmax(const float w[8]) {
  float most = larger(larger(larger(w[0], w[1]), larger(w[2], w[3])),
                      larger(larger(w[4], w[5]), larger(w[6], w[7])));
#pragma unroll
  for (int offset = LANES / 2; offset > 0; offset /= 2)
    most = larger(most, __shfl_xor_sync(0xFFFFFFFFu, most, offset));
  return most;
}

/* lk_nf4_code of |u| <= 1 + 2^-20, as its address: a guess, and a comparison
 * decides. */
static __device__ __forceinline__ uint32_t nf4r_code(uint32_t tables,
                                                     float u) {
  uint32_t address = nf4r_guess(u) | tables;
  return u > sides_at<NF4R_AT(threshold)>(address) ? address + 4 : address;
}

/* A residual as the result's low 16 bits, 128 not yet made 127 (-128 does not
 * come). `draw` has the 16 bits of its draw behind those of 128. */
static __device__ __forceinline__ uint32_t nf4r_rest(float u, uint32_t code,
                                                     float draw,
                                                     float power) {
  float e = u - sides_at<NF4R_AT(value)>(code);
  uint32_t side = code | (__float_as_uint(e) >> 25 & 64u);
  float steps = nf4r_over(127.0f * e, sides_at<NF4R_AT(inverse)>(side),
                          sides_at<NF4R_AT(rest)>(side));
  return __float_as_uint(__fadd_rd(steps + (draw - power), 12582912.0f));
}

/* Low bytes of four words. */
static __device__ __forceinline__ uint32_t bytes4(uint32_t a, uint32_t b,
                                                  uint32_t c, uint32_t d) {
  return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040),
                     0x5410);
}

/* Codes and residuals of a group; draws: of its counter. */
static __device__ __forceinline__ void nf4r_keep(uint32_t tables, float inverse,
                                                 const uint32_t draws[4],
                                                 const float w[8],
                                                 nf4r_raw *x) {
  const float power = sides_at<NF4R_AT(power)>(tables);
  uint32_t code[8], r[8];
#pragma unroll
  for (int j = 0; j < 8; j++) {
    float u = w[j] * inverse;
    float draw = __uint_as_float(__byte_perm(
        draws[j / 2], __float_as_uint(power), j % 2 ? 0x7632u : 0x7610u));
    code[j] = nf4r_code(tables, u);
    r[j] = nf4r_rest(u, code[j], draw, power);
  }
  x->codes = bytes4(code[0], code[2], code[4], code[6]) * 4 +
             (bytes4(code[1], code[3], code[5], code[7]) >> 2);
#pragma unroll
  for (int j = 0; j < 8; j += 2)
    r[j] = __vmins2(__byte_perm(r[j], r[j + 1], 0x5410), 0x007F007Fu);
  x->residual.x = __byte_perm(r[0], r[2], 0x6420);
  x->residual.y = __byte_perm(r[4], r[6], 0x6420);
}

/* --- the kernel ----------------------------------------------------------- */

enum {
  NF4R_THREADS = 128,
  NF4R_TURNS = 2    /* groups of a thread, all loaded before the first */
};

/* LANES of a warp share a block. */
template <int LANES>
static __global__ void __launch_bounds__(NF4R_THREADS)
    k_nf4r_update(nf4r_args a, uint32_t groups) {
  beside_kernel beside;
  nf4r_raw x[NF4R_TURNS];
  uint64_t counter[NF4R_TURNS];
  uint32_t draws[NF4R_TURNS][4];
  uint32_t first = blockIdx.x * NF4R_TURNS * NF4R_THREADS + threadIdx.x;
#pragma unroll
  for (int k = 0; k < NF4R_TURNS; k++) {
    uint32_t g = first + k * NF4R_THREADS;
    counter[k] = g;
    x[k] = {};
    if (g >= groups) continue;
    x[k].codes = ((const uint32_t *)a.codes)[g];
    x[k].residual = ((const uint2 *)a.residual)[g];
    x[k].o = ((const uint4 *)a.o.data)[g];
    x[k].absmax = a.absmax[g / LANES];
  }
  float finite = a.control[LK_CONTROL_FINITE];
  nf4r_step s = {(float)(a.lr * (double)a.control[LK_CONTROL_RATE]), a.scale,
                 a.decay};
  draws_make<NF4R_TURNS>(clock_seed(a.clock), a.stream,
                         a.clock[LK_CLOCK_STEP], counter, draws);
  uint32_t tables = sides_open();
  if (finite == 0.0f) return;
#pragma unroll
  for (int k = 0; k < NF4R_TURNS; k++) {
    uint32_t g = first + k * NF4R_THREADS;
    float w[8];
    nf4r_move(tables, s, x[k], w);
    float absmax = nf4r_absmax<LANES>(w);
    lk_unit unit = lk_unit_of_scale(absmax);
    if (__any_sync(0xFFFFFFFFu, unit.pre != 1.0f)) {
#pragma unroll
      for (int j = 0; j < 8; j++) w[j] *= unit.pre;
    }
    if (g >= groups) continue;
    nf4r_keep(tables, unit.inv, draws[k], w, &x[k]);
    ((uint32_t *)a.codes)[g] = x[k].codes;
    ((uint2 *)a.residual)[g] = x[k].residual;
    if (g % LANES == 0) a.absmax[g / LANES] = absmax;
  }
}

bool nf4r_update_fast(lk_context *context, const lk_call *call,
                      const block_walk &w, const nf4r_args &a) {
  if (a.residual == NULL || a.o.dtype != LK_BF16 || !a.whole ||
      w.count % 8 != 0 || w.count / 8 > INT32_MAX || w.turns > 1 ||
      (w.lanes != 8 && w.lanes != 4))
    return false;
  void (*kernel)(nf4r_args, uint32_t) =
      w.lanes == 8 ? k_nf4r_update<8> : k_nf4r_update<4>;
  beside_launch(context, call, kernel,
                cuda_pieces(w.count, 8 * NF4R_TURNS * NF4R_THREADS),
                NF4R_THREADS, a, (uint32_t)(w.count / 8));
  return true;
}
