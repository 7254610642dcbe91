/* Quantized formats. Formulas by element are those of base/codebook.h and
 * base/convert.h; codes and scales are the CPU's, bit for bit (-fmad=false). */
#include "beside.cuh"
#include "blocks.cuh"
#include "e4m3.cuh"

/* A format: the largest value (scale = absmax / limit), the code of 0 that pads
 * an odd end, nibble order. */
typedef struct quant_format {
  float limit;
  int32_t zero;
  bool low_first;
} quant_format;

static quant_format format_of(lk_format format) {
  quant_format f = {1, 0, false};
  if (format == LK_FORMAT_NF4) f.zero = 7;
  if (format == LK_FORMAT_INT8) f.limit = 127;
  if (format == LK_FORMAT_INT4) f.limit = 7, f.zero = 8;
  if (format == LK_FORMAT_E4M3) f.limit = 448;
  if (format == LK_FORMAT_NVFP4 || format == LK_FORMAT_MXFP4)
    f.limit = 6, f.low_first = true;
  return f;
}

typedef struct quant_args {
  view x;                /* what is quantized, or the result of dequantizing */
  uint8_t *codes;
  void *scales;
  float *tensor;         /* NVFP4's factor */
  int64_t count, block;
  int format, shift;     /* block = 2^shift, or -1 */
  quant_format f;
  bool nibbles, search, whole;
  float map[256];        /* of the dynamic format */
} quant_args;

static quant_args quant_of(const lk_call *call, int64_t count, view x) {
  const lk_attr *a = &call->attr;
  quant_args q;
  memset(&q, 0, sizeof q);
  q.x = x;
  q.count = count;
  q.format = (int)a->format;
  q.block = lk_format_block(a->format, a->block, count);
  q.f = format_of((lk_format)a->format);
  q.nibbles = lk_formats[a->format].code == LK_U4;
  q.search = a->search;
  q.shift = -1;
  for (int s = 0; s < 40; s++)
    if ((int64_t)1 << s == q.block) q.shift = s;
  if (a->format == LK_FORMAT_DYN8) lk_dynamic_map(q.map);
  return q;
}

static bool codes_whole(const uint8_t *codes, bool nibbles) {
  return ((uintptr_t)codes & (nibbles ? 3 : 7)) == 0;
}

/* What a code stands for, in units of its scale. */
static __device__ float quant_value(const quant_args &q, int32_t code) {
  switch (q.format) {
    case LK_FORMAT_NF4: return lk_nf4_value(code & 15);
    case LK_FORMAT_FP4: return lk_fp4_value(code & 15);
    case LK_FORMAT_INT8: return (float)(int8_t)code;
    case LK_FORMAT_INT4: return (float)((code & 15) - 8);
    case LK_FORMAT_E4M3: return lk_f32_from_e4m3((uint8_t)code);
    case LK_FORMAT_DYN8: return q.map[code & 255];
    default: return lk_f32_from_e2m1(code & 15);
  }
}

/* The values of all codes, in shared memory. */
static __device__ void table_fill(const quant_args &q, float *table) {
  for (int i = (int)threadIdx.x; i < 256; i += (int)blockDim.x)
    table[i] = quant_value(q, i);
  __syncthreads();
}

static __device__ __forceinline__ int32_t quant_code(int format,
                                                     const float *table,
                                                     float u) {
  switch (format) {
    case LK_FORMAT_NF4: return lk_nf4_code(u);
    case LK_FORMAT_FP4: return lk_fp4_code(u);
    case LK_FORMAT_INT8: return lk_int_code(u, 127.0f);
    case LK_FORMAT_INT4: return lk_int_code(u, 7.0f) + 8;
    case LK_FORMAT_E4M3: return lk_e4m3_from_f32(u);
    case LK_FORMAT_DYN8: return lk_dynamic_code(table, u);
    default: return lk_e2m1_from_f32(u);
  }
}

/* How a value becomes units of its block's scale: x · pre · inv, or for NVFP4
 * x · pre / inv. */
static __device__ __forceinline__ float quant_unit(const quant_args &q,
                                                   lk_unit unit, float x) {
  if (q.format == LK_FORMAT_NVFP4) return x * unit.pre / unit.inv;
  return lk_unit_apply(unit, x);
}

static __device__ __forceinline__ void quant_store(const quant_args &q,
                                                   int64_t i, int n,
                                                   const int32_t code[8]) {
  if (q.nibbles)
    store_nibbles(q.codes, i, n, q.whole, q.f.low_first, q.f.zero, code);
  else
    store_bytes(q.codes, i, n, q.whole, code);
}

/* --- quantize ------------------------------------------------------------- */

/* The error of a lane's group under one candidate scale. */
static __device__ void quant_error(const quant_args &q, const float *table,
                                   lk_unit unit, float factor, int n,
                                   const float v[8], float e[8]) {
#pragma unroll
  for (int j = 0; j < 8; j++) {
    float u = lk_unit_apply(unit, v[j]);
    float value = table[quant_code(q.format, table, u) & 255];
    e[j] = j < n ? lk_search_error(factor, u, value) : 0.0f;
  }
}

/* The best of five scales around `scale`; all lanes of a warp come along. */
static __device__ float quant_search(const quant_args &q, const block_walk &w,
                                     const block_place &p, const float *table,
                                     float *room, float scale, float v[8]) {
  const float factors[LK_SEARCH_COUNT] = {LK_SEARCH_FACTORS(LK_COMMA)};
  float best = scale, least = INFINITY;
#pragma unroll
  for (int f = 0; f < LK_SEARCH_COUNT; f++) {
    float sum[8] = {0}, e[8];
    lk_unit unit = lk_unit_of_scale(scale * factors[f]);
    for (int t = 0; t < w.turns; t++) {
      int64_t i;
      int n = block_group(w, p, t, &i);
      if (w.turns > 1 && n > 0)
        view_load(q.x, i, n, q.whole && n == 8, v);
      quant_error(q, table, unit, factors[f], n, v, e);
      search_add(w, p, room, e, sum);
    }
    float error = search_total(w, p, room, sum);
    if (!(error < least)) continue;
    least = error;
    best = scale * factors[f];
  }
  return best;
}

/* The block's scale, stored by its first lane, as what values are scaled by. */
static __device__ lk_unit quant_scale(const quant_args &q,
                                      const block_walk &w,
                                      const block_place &p,
                                      const float *table, float *room,
                                      float amax, float v[8]) {
  bool store = p.first_lane && p.values > 0;
  lk_unit unit = {1.0f, 1.0f};
  if (q.format == LK_FORMAT_NVFP4) {
    uint8_t scale = lk_e4m3_from_f32(amax * *q.tensor / 6.0f);
    float value = lk_f32_from_e4m3(scale);
    unit.pre = *q.tensor;
    unit.inv = value > 0.0f ? value : INFINITY;
    if (store) ((uint8_t *)q.scales)[p.block] = scale;
  } else if (q.format == LK_FORMAT_MXFP4) {
    uint8_t scale = lk_e8m0_from_amax(amax);
    unit.inv = lk_f32_from_e8m0((uint8_t)(254 - scale));
    if (store) ((uint8_t *)q.scales)[p.block] = scale;
  } else {
    float scale = amax / q.f.limit;
    if (q.search) scale = quant_search(q, w, p, table, room, scale, v);
    unit = lk_unit_of_scale(scale);
    if (store) ((float *)q.scales)[p.block] = scale;
  }
  return unit;
}

static __global__ void __launch_bounds__(CUDA_THREADS)
    k_quantize(block_walk w, quant_args q) {
  __shared__ float table[256], room[CUDA_THREADS * 8];
  table_fill(q, table);
  block_place p = block_find(w);
  float v[8] = {0};
  uint32_t most = 0;
  for (int t = 0; t < w.turns; t++) {
    int64_t i;
    int n = block_group(w, p, t, &i);
    if (n > 0) view_load(q.x, i, n, q.whole && n == 8, v);
    most = amax_of(most, v, n);
  }
  float amax = lk_float_of_bits(lanes_amax(most, w.lanes));
  lk_unit unit = quant_scale(q, w, p, table, room, amax, v);
  for (int t = 0; t < w.turns; t++) {
    int64_t i;
    int n = block_group(w, p, t, &i);
    if (n == 0) continue;
    if (w.turns > 1) view_load(q.x, i, n, q.whole && n == 8, v);
    int32_t code[8];
#pragma unroll
    for (int j = 0; j < 8; j++)
      code[j] = quant_code(q.format, table, quant_unit(q, unit, v[j]));
    quant_store(q, i, n, code);
  }
}

/* INT8 of whole blocks of up to 256 values of a 16-bit type, without search:
 * what saved activations are kept in. */
template <int T>
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_quantize_int8(block_walk w, quant_args q) {
  block_place p = block_find(w);
  int64_t i = p.first + p.lane * 8;
  bool there = i < w.count;
  float v[8] = {0};
  int32_t code[8];
  if (there) unpack8(T, *(const uint4 *)((const uint16_t *)q.x.data + i), v);
  uint32_t most = amax_of(0, v, 8);
  float scale = lk_float_of_bits(lanes_amax(most, w.lanes)) / 127.0f;
  lk_unit unit = lk_unit_of_scale(scale);
  if (!there) return;
#pragma unroll
  for (int j = 0; j < 8; j++)
    code[j] = lk_int_code(lk_unit_apply(unit, v[j]), 127.0f);
  store_bytes(q.codes, i, 8, true, code);
  if (p.first_lane) ((float *)q.scales)[p.block] = scale;
}

/* The kernel for a walk: INT8's own where it fits. */
static void (*quantize_kernel(const block_walk &w, const quant_args &q))(
    block_walk, quant_args) {
  bool fits = q.format == LK_FORMAT_INT8 && !q.search && q.whole &&
              w.turns == 1 && q.count % 8 == 0;
  if (fits && q.x.dtype == LK_BF16) return k_quantize_int8<LK_BF16>;
  if (fits && q.x.dtype == LK_F16) return k_quantize_int8<LK_F16>;
  return k_quantize;
}

enum { AMAX_BLOCKS = 1024 };

/* The whole tensor's largest magnitude; the last block to finish makes the
 * factor of it: NVFP4's, or amax / limit. */
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_amax(quant_args q, uint32_t *partial, unsigned *counter, float *scale) {
  __shared__ uint32_t room[CUDA_THREADS / 32];
  uint32_t most = 0;
  int64_t step = (int64_t)gridDim.x * CUDA_THREADS * 8;
  int64_t i = ((int64_t)blockIdx.x * CUDA_THREADS + threadIdx.x) * 8;
  for (; i < q.count; i += step) {
    float v[8];
    int n = q.count - i < 8 ? (int)(q.count - i) : 8;
    view_load(q.x, i, n, q.whole && n == 8, v);
    most = amax_of(most, v, n);
  }
  most = lanes_amax(most, 32);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = most;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int k = 1; k < CUDA_THREADS / 32; k++)
      most = room[k] > most ? room[k] : most;
    partial[blockIdx.x] = most;
  }
  if (!last_block(counter, gridDim.x)) return;
  most = 0;
  for (unsigned k = threadIdx.x; k < gridDim.x; k += CUDA_THREADS) {
    uint32_t other = __ldcg(&partial[k]);
    most = other > most ? other : most;
  }
  most = lanes_amax(most, 32);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = most;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int k = 1; k < CUDA_THREADS / 32; k++)
    most = room[k] > most ? room[k] : most;
  float amax = lk_float_of_bits(most);
  if (q.format != LK_FORMAT_NVFP4)
    *scale = amax / q.f.limit;
  else
    *scale = amax > 0.0f ? fminf(448.0f * 6.0f / amax, 0x1p127f) : 1.0f;
}

/* Codes of a tensor that has a single scale. */
struct quant_whole {
  quant_args q;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    lk_unit unit = lk_unit_of_scale(*(const float *)q.scales);
    float v[8];
    int32_t code[8];
    view_load(q.x, i, n, whole, v);
    for (int j = 0; j < 8; j++)
      code[j] = lk_e4m3_from_f32(lk_unit_apply(unit, v[j]));
    quant_store(q, i, n, code);
  }
};

static lk_status amax_run(lk_context *context, const lk_call *call,
                          const quant_args &q, float *scale) {
  int64_t blocks = cuda_smaller(AMAX_BLOCKS,
                                cuda_pieces(q.count, CUDA_THREADS * 8));
  k_amax<<<(unsigned)blocks, CUDA_THREADS, 0, cuda_stream(context)>>>(
      q, (uint32_t *)call->scratch, cuda_of(context)->counters, scale);
  return cuda_launched(context, call);
}

static void quantize_launch(lk_context *context, const quant_args &q) {
  block_walk w = block_walk_of(q.count, q.block);
  void (*kernel)(block_walk, quant_args) = quantize_kernel(w, q);
  kernel<<<block_grid(w), CUDA_THREADS, 0, cuda_stream(context)>>>(w, q);
}

/* Rows as they are, for k_code_rows. */
struct row_map {
  drops d;
  template <int T>
  __device__ __forceinline__ uint4 packed(float factor, uint4 x, uint4 z,
                                          uint4 mask) const {
    (void)factor, (void)z, (void)mask;
    return x;
  }
};

/* e4m3 of whole rows of bf16, a row a block; false where they are not. */
static bool quantize_rows(lk_context *context, const quant_args &q) {
  map_args m = {q.x, VIEW_NONE, VIEW_NONE, q.count};
  code_args c = {q.codes, (float *)q.scales, q.count / q.block, (int)q.block};
  if (q.format != LK_FORMAT_E4M3 || q.count % q.block != 0 ||
      q.block > CODE_WIDEST || q.block < 256 || !code_rows_fit(m, c))
    return false;
  code_rows_launch(cuda_stream(context), row_map{}, m, c);
  return true;
}

lk_status cuda_give_codes(lk_context *context, const lk_call *call, int y,
                          int at) {
  const lk_tensor *x = &call->out[y];
  if (!lk_present(&call->out[at])) return LK_OK;
  lk_call rows = {};
  rows.attr.format = LK_FORMAT_E4M3;
  rows.attr.block = cuda_columns(x);
  quant_args q = quant_of(&rows, lk_tensor_count(x), view_of(x));
  q.codes = (uint8_t *)call->out[at].data;
  q.scales = call->out[at + 1].data;
  q.whole = view_whole(q.x) && codes_whole(q.codes, false);
  if (!quantize_rows(context, q)) quantize_launch(context, q);
  return cuda_launched(context, call);
}

lk_status cuda_quantize(lk_context *context, const lk_call *call) {
  int64_t count = lk_tensor_count(&call->in[0]);
  quant_args q = quant_of(call, count, view_of(&call->in[0]));
  q.codes = (uint8_t *)call->out[0].data;
  q.scales = call->out[1].data;
  q.whole = view_whole(q.x) && codes_whole(q.codes, q.nibbles);
  if (q.format == LK_FORMAT_E4M3 && q.block >= count) {
    LK_TRY(amax_run(context, call, q, (float *)q.scales));
    quant_whole f = {q};
    return cuda_each(context, call, count, q.whole, f);
  }
  if (q.format == LK_FORMAT_NVFP4) {
    q.tensor = (float *)call->out[2].data;
    LK_TRY(amax_run(context, call, q, q.tensor));
  }
  if (!quantize_rows(context, q)) quantize_launch(context, q);
  return cuda_launched(context, call);
}

/* --- dequantize ----------------------------------------------------------- */

enum { DEQUANT_TURNS = 4 };

static __device__ __forceinline__ void dequant_group(const quant_args &q,
                                                     const float *table,
                                                     int64_t i, int n) {
  int32_t code[8];
  float v[8];
  int64_t b = q.shift >= 0 ? i >> q.shift : i / q.block;
  if (q.nibbles)
    load_nibbles(q.codes, i, n, q.whole, q.f.low_first, code);
  else
    load_bytes(q.codes, i, n, q.whole, code);
  if (q.format == LK_FORMAT_NVFP4) {
    float scale = lk_f32_from_e4m3(((const uint8_t *)q.scales)[b]);
    for (int j = 0; j < 8; j++) v[j] = table[code[j]] * scale / *q.tensor;
  } else {
    float scale = q.format == LK_FORMAT_MXFP4
                      ? lk_f32_from_e8m0(((const uint8_t *)q.scales)[b])
                      : ((const float *)q.scales)[b];
    for (int j = 0; j < 8; j++) v[j] = table[code[j]] * scale;
  }
  view_store(q.x, i, n, q.whole && n == 8, v);
}

static __global__ void __launch_bounds__(CUDA_THREADS)
    k_dequantize(quant_args q) {
  beside_kernel beside;
  __shared__ float table[256];
  table_fill(q, table);
#pragma unroll
  for (int t = 0; t < DEQUANT_TURNS; t++) {
    int64_t i = (((int64_t)blockIdx.x * DEQUANT_TURNS + t) * CUDA_THREADS +
                 threadIdx.x) * 8;
    if (i >= q.count) return;
    dequant_group(q, table, i, q.count - i < 8 ? (int)(q.count - i) : 8);
  }
}

/* The formats that layers go through, NF4 and INT8, into a 16-bit type: whole
 * groups, blocks of 2^shift values; all loads first. */
template <int FORMAT, int T>
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_dequantize_fast(quant_args q) {
  beside_kernel beside;
  __shared__ float table[16];
  int64_t first = ((int64_t)blockIdx.x * DEQUANT_TURNS * CUDA_THREADS +
                   threadIdx.x) * 8;
  uint2 words[DEQUANT_TURNS];
  float scale[DEQUANT_TURNS];
#pragma unroll
  for (int t = 0; t < DEQUANT_TURNS; t++) {
    int64_t i = first + (int64_t)t * CUDA_THREADS * 8;
    if (i >= q.count) break;
    if (FORMAT == LK_FORMAT_NF4) words[t].x = *(uint32_t *)(q.codes + i / 2);
    else words[t] = *(uint2 *)(q.codes + i);
    scale[t] = ((const float *)q.scales)[i >> q.shift];
  }
  if (threadIdx.x < 16) table[threadIdx.x] = lk_nf4_value((int)threadIdx.x);
  __syncthreads();
#pragma unroll
  for (int t = 0; t < DEQUANT_TURNS; t++) {
    int64_t i = first + (int64_t)t * CUDA_THREADS * 8;
    float v[8];
    if (i >= q.count) return;
#pragma unroll
    for (int j = 0; j < 8; j++) {
      uint32_t word = j < 4 ? words[t].x : words[t].y;
      v[j] = FORMAT == LK_FORMAT_NF4
                 ? table[words[t].x >> (j / 2 * 8 + (j % 2 ? 0 : 4)) & 15u]
                 : (float)(int8_t)(word >> (j % 4 * 8));
      v[j] *= scale[t];
    }
    *(uint4 *)((uint16_t *)q.x.data + i) = pack8(T, v);
  }
}

/* The fast kernel for these codes, or NULL. */
static void (*dequantize_fast(const quant_args &q))(quant_args) {
  if (!q.whole || q.count % 8 != 0 || q.shift < 3) return NULL;
  bool bf16 = q.x.dtype == LK_BF16, half = q.x.dtype == LK_F16;
  if (q.format == LK_FORMAT_NF4)
    return bf16 ? k_dequantize_fast<LK_FORMAT_NF4, LK_BF16>
           : half ? k_dequantize_fast<LK_FORMAT_NF4, LK_F16> : NULL;
  if (q.format == LK_FORMAT_INT8)
    return bf16 ? k_dequantize_fast<LK_FORMAT_INT8, LK_BF16>
           : half ? k_dequantize_fast<LK_FORMAT_INT8, LK_F16> : NULL;
  return NULL;
}

lk_status cuda_dequantize(lk_context *context, const lk_call *call) {
  const lk_tensor *y = &call->out[0];
  quant_args q = quant_of(call, lk_tensor_count(y), view_of(y));
  q.codes = (uint8_t *)call->in[0].data;
  q.scales = call->in[1].data;
  q.tensor = lk_present(&call->in[2]) ? (float *)call->in[2].data : NULL;
  q.whole = view_whole(q.x) && codes_whole(q.codes, q.nibbles);
  int64_t blocks = cuda_pieces(q.count, DEQUANT_TURNS * CUDA_THREADS * 8);
  void (*kernel)(quant_args) = dequantize_fast(q);
  if (kernel == NULL) kernel = k_dequantize;
  beside_launch(context, call, kernel, blocks, CUDA_THREADS, q);
  return cuda_launched(context, call);
}
