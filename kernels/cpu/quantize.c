/* Quantized formats on the CPU. Values go through in segments: scaled
 * to units of their block's scale, coded, packed. Formulas by element are those
 * of base/codebook.h and base/convert.h. */
#include "../base/scalar.h"
#include "cpu.h"
#include "vector.h"

enum {
  QUANT_SEGMENT = 256,  /* values worked on together; even */
  QUANT_PART = 16384    /* values of a part */
};

/* --- codes of a segment --------------------------------------------------- */

/* A format: codes of n values in units of the scale, what a code stands for in
 * these units, and the errors of n values where scales are searched; `map` is
 * the dynamic map. */
typedef struct quant_format {
  void (*encode)(const float *map, const float *u, int32_t *code, int64_t n);
  float (*value)(const float *map, int32_t code);
  void (*error)(const float *x, lk_unit unit, float factor, float *d,
                int64_t n);
  float limit;    /* the largest value: scale = absmax / limit */
  int32_t zero;   /* the code of 0, which pads an odd end */
  bool low_first; /* nibble order */
} quant_format;

/* Functions on segments: loops that vectorize around a formula. */
#define QUANT_ENCODE(name, formula)                                       \
  static void name(const float *map, const float *restrict u,             \
                   int32_t *restrict code, int64_t n) {                   \
    (void)map;                                                            \
    for (int64_t i = 0; i < n; i++) code[i] = (formula);                  \
  }

QUANT_ENCODE(quant_nf4_encode, lk_nf4_code(u[i]))
QUANT_ENCODE(quant_fp4_encode, lk_fp4_code(u[i]))
QUANT_ENCODE(quant_int8_encode, lk_int_code(u[i], 127))
QUANT_ENCODE(quant_int4_encode, lk_int_code(u[i], 7) + 8)
QUANT_ENCODE(quant_e4m3_encode, lk_e4m3_from_f32(u[i]))
QUANT_ENCODE(quant_e2m1_encode, lk_e2m1_from_f32(u[i]))

/* lk_dynamic_code, one halving of all values after the other: they do not
 * wait for each other, and nothing is guessed. */
static void quant_dyn8_encode(const float *map, const float *restrict u,
                              int32_t *restrict code, int64_t n) {
  for (int64_t i = 0; i < n; i++) code[i] = 0;
  for (int32_t step = 128; step > 0; step /= 2)
    for (int64_t i = 0; i < n; i++)
      code[i] += -(int32_t)(map[code[i] + step] <= u[i]) & step;
  for (int64_t i = 0; i < n; i++) {
    int32_t c = code[i], up = c < 255 ? c + 1 : c;
    code[i] = map[up] - u[i] < u[i] - map[c] ? up : c;
  }
}

#define QUANT_VALUE(name, formula)                                        \
  static float name(const float *map, int32_t code) {                     \
    (void)map;                                                            \
    return (formula);                                                     \
  }

QUANT_VALUE(quant_nf4_value, lk_nf4_value(code))
QUANT_VALUE(quant_fp4_value, lk_fp4_value(code))
QUANT_VALUE(quant_int8_value, (float)(int8_t)code)
QUANT_VALUE(quant_int4_value, (float)(code - 8))
QUANT_VALUE(quant_e4m3_value, lk_f32_from_e4m3((uint8_t)code))
QUANT_VALUE(quant_e2m1_value, lk_f32_from_e2m1(code))
QUANT_VALUE(quant_dyn8_value, map[code])

#define QUANT_ERROR(name, nearest)                                        \
  static void name(const float *restrict x, lk_unit unit, float factor,   \
                   float *restrict d, int64_t n) {                        \
    for (int64_t i = 0; i < n; i++) {                                     \
      float u = lk_unit_apply(unit, x[i]);                                \
      d[i] = lk_search_error(factor, u, (nearest));                       \
    }                                                                     \
  }

QUANT_ERROR(quant_nf4_error, lk_nf4_nearest(u))
QUANT_ERROR(quant_fp4_error, lk_fp4_nearest(u))
QUANT_ERROR(quant_int8_error, lk_int_nearest(u, 127))
QUANT_ERROR(quant_int4_error, lk_int_nearest(u, 7))

static const quant_format quant_formats[LK_FORMAT_COUNT] = {
    [LK_FORMAT_NF4] = {quant_nf4_encode, quant_nf4_value, quant_nf4_error,
                       .limit = 1, .zero = 7},
    [LK_FORMAT_FP4] = {quant_fp4_encode, quant_fp4_value, quant_fp4_error,
                       .limit = 1},
    [LK_FORMAT_INT8] = {quant_int8_encode, quant_int8_value,
                        quant_int8_error, .limit = 127},
    [LK_FORMAT_INT4] = {quant_int4_encode, quant_int4_value,
                        quant_int4_error, .limit = 7, .zero = 8},
    [LK_FORMAT_E4M3] = {quant_e4m3_encode, quant_e4m3_value, .limit = 448},
    [LK_FORMAT_NVFP4] = {quant_e2m1_encode, quant_e2m1_value,
                         .low_first = true},
    [LK_FORMAT_MXFP4] = {quant_e2m1_encode, quant_e2m1_value,
                         .low_first = true},
    [LK_FORMAT_DYN8] = {quant_dyn8_encode, quant_dyn8_value, .limit = 1},
};

/* n codes into bytes, two a byte when they have 4 bits; code[n] is set. */
static void quant_pack(int32_t *restrict code, int64_t n, int32_t zero,
                       bool low_first, uint8_t *restrict out) {
  int64_t pairs = (n + 1) / 2;
  if (n % 2 != 0) code[n] = zero;
  if (low_first)
    for (int64_t j = 0; j < pairs; j++)
      out[j] = (uint8_t)(code[2 * j] | code[2 * j + 1] << 4);
  else
    for (int64_t j = 0; j < pairs; j++)
      out[j] = (uint8_t)(code[2 * j] << 4 | code[2 * j + 1]);
}

static void quant_bytes(const int32_t *restrict code, int64_t n,
                        uint8_t *restrict out) {
  for (int64_t i = 0; i < n; i++) out[i] = (uint8_t)code[i];
}

/* u = (x · pre) · inv */
static void quant_scale(const float *restrict x, lk_unit unit,
                        float *restrict u, int64_t n) {
  for (int64_t i = 0; i < n; i++) u[i] = lk_unit_apply(unit, x[i]);
}

/* The largest magnitude by its bits: a NaN is larger than all numbers. */
static uint32_t quant_amax_bits(const float *x, int64_t n) {
  int32_t most = 0;
  for (int64_t i = 0; i < n; i++) {
    int32_t bits = (int32_t)(lk_bits_of_float(x[i]) & 0x7FFFFFFFu);
    most = bits > most ? bits : most;
  }
  return (uint32_t)most;
}

/* --- scales --------------------------------------------------------------- */

/* The error of a block under one candidate scale, in units of absmax. */
static float quant_error(const quant_format *format, const float *x,
                         int64_t n, float scale, float factor) {
  float d[QUANT_SEGMENT + ROW_LANES] = {0};
  row_v sum = {0};
  lk_unit unit = lk_unit_of_scale(scale);
  for (int64_t i = 0; i < n; i += QUANT_SEGMENT) {
    int64_t part = cpu_smaller(QUANT_SEGMENT, n - i);
    format->error(x + i, unit, factor, d, part);
    memset(d + part, 0, ROW_LANES * sizeof *d);
    for (int64_t j = 0; j < part; j += ROW_LANES) sum += ROW_LOAD(d + j);
  }
  float lanes[ROW_LANES];
  ROW_STORE(lanes, sum);
  return lk_search_sum(lanes);
}

/* The scale of a block: absmax / limit, or the best of five around it. */
static float quant_block_scale(const quant_format *format, const float *x,
                               int64_t n, bool search) {
  const float factors[LK_SEARCH_COUNT] = {LK_SEARCH_FACTORS(LK_COMMA)};
  float scale = lk_float_of_bits(quant_amax_bits(x, n)) / format->limit;
  float best = scale, least = INFINITY;
  for (int f = 0; f < LK_SEARCH_COUNT && search; f++) {
    float error = quant_error(format, x, n, scale * factors[f], factors[f]);
    if (!(error < least)) continue;
    least = error;
    best = scale * factors[f];
  }
  return best;
}

/* --- quantize ------------------------------------------------------------- */

typedef struct quant_state {
  const lk_call *call;
  const quant_format *format;
  const float *x;
  float *y;
  int64_t count, block, blocks, group;
  lk_format kind;
  bool nibbles;
  float tensor_scale;
  const float *map;
  uint32_t amax;        /* bits, of the whole tensor */
} quant_state;

/* Codes of values [first, first + n) from units u by `unit`. */
static void quant_codes(const quant_state *s, int64_t first, int64_t n,
                        lk_unit unit) {
  float u[QUANT_SEGMENT];
  int32_t code[QUANT_SEGMENT];
  uint8_t *out = s->call->out[0].data;
  for (int64_t i = first; i < first + n; i += QUANT_SEGMENT) {
    int64_t part = cpu_smaller(QUANT_SEGMENT, first + n - i);
    quant_scale(s->x + i, unit, u, part);
    s->format->encode(s->map, u, code, part);
    if (s->nibbles)
      quant_pack(code, part, s->format->zero, s->format->low_first,
                 out + i / 2);
    else
      quant_bytes(code, part, out + i);
  }
}

/* NVFP4: scale = e4m3(amax · S / 6), u = (x · S) / scale. */
static void quant_nvfp4_block(const quant_state *s, int64_t b, int64_t n) {
  float u[16];
  int32_t code[16];
  const float *x = s->x + b * 16, tensor = s->tensor_scale;
  float amax = lk_float_of_bits(quant_amax_bits(x, n));
  uint8_t scale = lk_e4m3_from_f32(amax * tensor / 6.0f);
  float value = lk_f32_from_e4m3(scale);
  float divisor = value > 0.0f ? value : INFINITY;
  for (int64_t i = 0; i < n; i++) u[i] = x[i] * tensor / divisor;
  s->format->encode(NULL, u, code, n);
  quant_pack(code, n, 0, true, (uint8_t *)s->call->out[0].data + b * 8);
  ((uint8_t *)s->call->out[1].data)[b] = scale;
}

/* MXFP4: a power of two. */
static void quant_mxfp4_block(const quant_state *s, int64_t b, int64_t n) {
  float amax = lk_float_of_bits(quant_amax_bits(s->x + b * 32, n));
  uint8_t scale = lk_e8m0_from_amax(amax);
  lk_unit unit = {1.0f, lk_f32_from_e8m0((uint8_t)(254 - scale))};
  quant_codes(s, b * 32, n, unit);
  ((uint8_t *)s->call->out[1].data)[b] = scale;
}

static void quant_block(const quant_state *s, int64_t b) {
  int64_t first = b * s->block;
  int64_t n = cpu_smaller(s->block, s->count - first);
  if (s->kind == LK_FORMAT_NVFP4) {
    quant_nvfp4_block(s, b, n);
  } else if (s->kind == LK_FORMAT_MXFP4) {
    quant_mxfp4_block(s, b, n);
  } else {
    float scale = quant_block_scale(s->format, s->x + first, n,
                                    s->call->attr.search);
    quant_codes(s, first, n, lk_unit_of_scale(scale));
    ((float *)s->call->out[1].data)[b] = scale;
  }
}

static void quant_blocks(void *opaque, int64_t index, int lane) {
  (void)lane;
  const quant_state *s = opaque;
  int64_t first = index * s->group;
  int64_t last = cpu_smaller(s->blocks, first + s->group);
  for (int64_t b = first; b < last; b++) quant_block(s, b);
}

/* A part of the whole tensor's largest magnitude. */
static void quant_amax_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  quant_state *s = opaque;
  int64_t first = index * QUANT_PART;
  uint32_t bits = quant_amax_bits(
      s->x + first, cpu_smaller(QUANT_PART, s->count - first));
  uint32_t old = __atomic_load_n(&s->amax, __ATOMIC_RELAXED);
  while (bits > old &&
         !__atomic_compare_exchange_n(&s->amax, &old, bits, true,
                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

static float quant_tensor_amax(lk_context *context, quant_state *s) {
  s->amax = 0;
  cpu_parallel(context, cpu_pieces(s->count, QUANT_PART), quant_amax_part, s);
  return lk_float_of_bits(s->amax);
}

/* A part of a tensor that has a single scale. */
static void quant_whole_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const quant_state *s = opaque;
  int64_t first = index * QUANT_PART;
  quant_codes(s, first, cpu_smaller(QUANT_PART, s->count - first),
              lk_unit_of_scale(s->tensor_scale));
}

static quant_state quant_of(const lk_call *call, int64_t count,
                            float map[256]) {
  const lk_attr *a = &call->attr;
  quant_state s = {.call = call, .count = count, .map = map,
                   .kind = (lk_format)a->format,
                   .format = &quant_formats[a->format]};
  s.block = lk_format_block(a->format, a->block, count);
  s.blocks = cpu_pieces(count, s.block);
  s.group = cpu_larger(1, QUANT_PART / s.block);
  s.nibbles = lk_formats[a->format].code == LK_U4;
  if (s.kind == LK_FORMAT_DYN8) lk_dynamic_map(map);
  return s;
}

static lk_status cpu_quantize(lk_context *context, const lk_call *call) {
  LK_TRY(cpu_need_f32(context, &(lk_call){.op = call->op, .in = {call->in[0]},
      .out = {LK_ABSENT, LK_ABSENT, LK_ABSENT}}));
  float map[256];
  quant_state s = quant_of(call, lk_tensor_count(&call->in[0]), map);
  s.x = call->in[0].data;
  if (s.kind == LK_FORMAT_E4M3 && s.blocks == 1) {
    s.tensor_scale = quant_tensor_amax(context, &s) / s.format->limit;
    *(float *)call->out[1].data = s.tensor_scale;
    cpu_parallel(context, cpu_pieces(s.count, QUANT_PART), quant_whole_part,
                 &s);
    return LK_OK;
  }
  if (s.kind == LK_FORMAT_NVFP4) {
    float amax = quant_tensor_amax(context, &s);
    float scale = 448.0f * 6.0f / amax;
    s.tensor_scale = amax > 0.0f ? fminf(scale, 0x1p127f) : 1.0f;
    *(float *)call->out[2].data = s.tensor_scale;
  }
  cpu_parallel(context, cpu_pieces(s.blocks, s.group), quant_blocks, &s);
  return LK_OK;
}

/* --- dequantize ----------------------------------------------------------- */

/* What both codes of a byte stand for, in order. */
typedef struct quant_pairs {
  float value[256][2];
} quant_pairs;

static void quant_pairs_fill(const quant_state *s, quant_pairs *pairs) {
  for (int32_t byte = 0; byte < 256; byte++) {
    int32_t first = s->format->low_first ? byte & 15 : byte >> 4;
    int32_t second = s->format->low_first ? byte >> 4 : byte & 15;
    pairs->value[byte][0] = s->format->value(s->map, first);
    pairs->value[byte][1] = s->format->value(s->map, second);
  }
}

/* n values looked up two at a time. */
static void quant_lookup(const quant_pairs *restrict pairs,
                         const uint8_t *restrict codes, float *restrict y,
                         int64_t n) {
  for (int64_t j = 0; j < n / 2; j++)
    memcpy(y + 2 * j, pairs->value[codes[j]], 2 * sizeof *y);
  if (n % 2 != 0) y[n - 1] = pairs->value[codes[n / 2]][0];
}

/* n values of one-byte codes. */
static void quant_widen(const quant_state *s, const uint8_t *restrict codes,
                        float *restrict y, int64_t n) {
  if (s->kind == LK_FORMAT_INT8)
    for (int64_t i = 0; i < n; i++) y[i] = (float)(int8_t)codes[i];
  else if (s->kind == LK_FORMAT_E4M3)
    for (int64_t i = 0; i < n; i++) y[i] = lk_f32_from_e4m3(codes[i]);
  else
    for (int64_t i = 0; i < n; i++) y[i] = s->map[codes[i]];
}

/* y = y · scale, and by the tensor's factor where the format has one. */
static void dequant_scale(const quant_state *s, int64_t b, float *y,
                          int64_t n) {
  const void *scales = s->call->in[1].data;
  if (s->kind == LK_FORMAT_NVFP4) {
    float scale = lk_f32_from_e4m3(((const uint8_t *)scales)[b]);
    float tensor = s->tensor_scale;
    for (int64_t i = 0; i < n; i++) y[i] = y[i] * scale / tensor;
  } else if (s->kind == LK_FORMAT_MXFP4) {
    row_scale(y, n, lk_f32_from_e8m0(((const uint8_t *)scales)[b]));
  } else {
    row_scale(y, n, ((const float *)scales)[b]);
  }
}

/* Parts are cut where blocks end; those of a single-scale tensor anywhere. */
static void dequant_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const quant_state *s = opaque;
  bool whole = s->blocks == 1;
  int64_t size = whole ? QUANT_PART : s->group * s->block;
  int64_t first = index * size, last = cpu_smaller(s->count, first + size);
  int64_t step = whole ? QUANT_PART : s->block;
  const uint8_t *codes = s->call->in[0].data;
  quant_pairs pairs;
  if (s->nibbles) quant_pairs_fill(s, &pairs);
  for (int64_t i = first; i < last; i += step) {
    int64_t n = cpu_smaller(step, last - i);
    if (s->nibbles)
      quant_lookup(&pairs, codes + i / 2, s->y + i, n);
    else
      quant_widen(s, codes + i, s->y + i, n);
    dequant_scale(s, whole ? 0 : i / s->block, s->y + i, n);
  }
}

static lk_status cpu_dequantize(lk_context *context, const lk_call *call) {
  const lk_tensor *y = &call->out[0];
  float map[256];
  if (y->dtype != LK_F32)
    return lk_fail(&context->error, LK_UNSUPPORTED,
                   "dequantize: the cpu backend computes in f32, not %s",
                   lk_dtype_word(y->dtype));
  quant_state s = quant_of(call, lk_tensor_count(y), map);
  s.y = y->data;
  if (lk_present(&call->in[2]))
    s.tensor_scale = *(const float *)call->in[2].data;
  int64_t size = s.blocks == 1 ? QUANT_PART : s.group * s.block;
  cpu_parallel(context, cpu_pieces(s.count, size), dequant_part, &s);
  return LK_OK;
}
