/* Rows in e4m3 on the CPU: codes of turned matrices and of NF4 weights, and the
 * product of such rows; the product of NVFP4 matrices. Scales and codes are
 * those of `quantize`. */
#include "../base/scalar.h"
#include "../core/scratch.h"
#include "cpu.h"

/* Row by row, by the operator that does nothing else. */
static lk_status e4m3_rows(lk_context *context, lk_tensor x,
                           const lk_tensor *codes, const lk_tensor *scales) {
  int64_t width = x.shape.dim[x.shape.rank - 1];
  lk_call call = {.op = LK_OP_quantize,
                  .in = {x},
                  .out = {*codes, *scales, LK_ABSENT},
                  .attr = {.format = LK_FORMAT_E4M3, .block = width}};
  return cpu_quantize(context, &call);
}

static lk_status cpu_give_codes(lk_context *context, const lk_call *call,
                                int y, int at) {
  if (!lk_present(&call->out[at])) return LK_OK;
  return e4m3_rows(context, call->out[y], &call->out[at], &call->out[at + 1]);
}

/* --- turned -------------------------------------------------------------- */

/* x [rows, cols] into codes [cols, rows]. */
typedef struct turn_state {
  const float *x;
  uint8_t *codes;
  float *scales;
  int64_t rows, cols;
} turn_state;

enum { TURN_COLUMNS = 16 };

/* A stripe of columns: their largest magnitudes (a NaN above all), then their
 * codes. */
static void turn_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const turn_state *s = opaque;
  int64_t first = index * TURN_COLUMNS;
  uint32_t most[TURN_COLUMNS] = {0};
  lk_unit unit[TURN_COLUMNS];
  for (int64_t r = 0; r < s->rows; r++)
    for (int j = 0; j < TURN_COLUMNS; j++) {
      float v = s->x[r * s->cols + first + j];
      uint32_t bits = lk_bits_of_float(v) & 0x7FFFFFFFu;
      most[j] = bits > most[j] ? bits : most[j];
    }
  for (int j = 0; j < TURN_COLUMNS; j++) {
    float scale = lk_e4m3_scale(lk_float_of_bits(most[j]));
    s->scales[first + j] = scale;
    unit[j] = lk_unit_of_scale(scale);
  }
  for (int64_t r = 0; r < s->rows; r++)
    for (int j = 0; j < TURN_COLUMNS; j++)
      s->codes[(first + j) * s->rows + r] = lk_e4m3_from_f32(
          lk_unit_apply(unit[j], s->x[r * s->cols + first + j]));
}

static void e4m3_turned(lk_context *context, const float *x,
                        const lk_call *call) {
  const int64_t *dim = call->in[0].shape.dim;
  turn_state s = {x, call->out[0].data, call->out[1].data, dim[0], dim[1]};
  cpu_parallel(context, s.cols / TURN_COLUMNS, turn_part, &s);
}

static lk_status cpu_e4m3_turn(lk_context *context, const lk_call *call) {
  const lk_tensor *x = &call->in[0];
  if (x->dtype != LK_F32)
    return lk_fail(&context->error, LK_UNSUPPORTED, "e4m3_turn: the cpu "
                   "backend computes in f32, not %s", lk_dtype_word(x->dtype));
  e4m3_turned(context, x->data, call);
  return LK_OK;
}

static lk_status cpu_e4m3_from_nf4(lk_context *context, const lk_call *call) {
  lk_tensor x = {.data = call->scratch, .dtype = LK_F32,
                 .shape = call->in[0].shape};
  lk_call decode = {.op = LK_OP_dequantize,
                    .in = {call->in[0], call->in[1], LK_ABSENT},
                    .out = {x},
                    .attr = {.format = LK_FORMAT_NF4,
                             .block = call->attr.block}};
  LK_TRY(cpu_dequantize(context, &decode));
  if (!call->attr.transpose_a)
    return e4m3_rows(context, x, &call->out[0], &call->out[1]);
  e4m3_turned(context, x.data, call);
  return LK_OK;
}

/* --- the product --------------------------------------------------------- */

/* Codes to values, or sums scaled: rows of `width`. */
typedef struct e4m3_state {
  const uint8_t *codes;
  const float *row_scale, *column_scale;
  float *values;
  int64_t width;
} e4m3_state;

static void e4m3_decode_part(void *opaque, int64_t row, int lane) {
  (void)lane;
  const e4m3_state *s = opaque;
  const uint8_t *restrict from = s->codes + row * s->width;
  float *restrict to = s->values + row * s->width;
  for (int64_t i = 0; i < s->width; i++) to[i] = lk_f32_from_e4m3(from[i]);
}

static void e4m3_scale_part(void *opaque, int64_t row, int lane) {
  (void)lane;
  const e4m3_state *s = opaque;
  const float *restrict scale = s->column_scale;
  float *restrict y = s->values + row * s->width, own = s->row_scale[row];
  for (int64_t i = 0; i < s->width; i++) y[i] = y[i] * own * scale[i];
}

static lk_status cpu_e4m3_matmul(lk_context *context, const lk_call *call) {
  const lk_tensor *a = &call->in[0], *y = &call->out[0];
  if (y->dtype != LK_F32)
    return lk_fail(&context->error, LK_UNSUPPORTED, "e4m3_matmul: the cpu "
                   "backend computes in f32, not %s", lk_dtype_word(y->dtype));
  int64_t m = a->shape.dim[0], k = a->shape.dim[1], n = y->shape.dim[1];
  float *right = call->scratch, *left = right + n * k;
  e4m3_state s = {.codes = call->in[2].data, .values = right, .width = k};
  cpu_parallel(context, n, e4m3_decode_part, &s);
  for (int64_t first = 0; first < m; first += LK_E4M3_ROWS) {
    int64_t rows = cpu_smaller(LK_E4M3_ROWS, m - first);
    float *sums = (float *)y->data + first * n;
    s = (e4m3_state){.codes = (const uint8_t *)a->data + first * k,
                     .values = left, .width = k};
    cpu_parallel(context, rows, e4m3_decode_part, &s);
    cpu_gemm(context, false, true, rows, n, k, 1, left, k, right, k, 0, sums,
             n);
    s = (e4m3_state){.row_scale = (const float *)call->in[1].data + first,
                     .column_scale = call->in[3].data, .values = sums,
                     .width = n};
    cpu_parallel(context, rows, e4m3_scale_part, &s);
  }
  return LK_OK;
}

/* --- NVFP4 ---------------------------------------------------------------- */

/* The values of input `i`, codes with their scales and factor, into `to`. */
static lk_status nvfp4_decode(lk_context *context, const lk_call *call, int i,
                              float *to) {
  lk_tensor x = {.data = to, .dtype = LK_F32, .shape = call->in[i].shape};
  lk_call decode = {.op = LK_OP_dequantize,
                    .in = {call->in[i], call->in[i + 1], call->in[i + 2]},
                    .out = {x},
                    .attr = {.format = LK_FORMAT_NVFP4}};
  return cpu_dequantize(context, &decode);
}

static lk_status cpu_nvfp4_matmul(lk_context *context, const lk_call *call) {
  const lk_tensor *a = &call->in[0], *y = &call->out[0];
  if (y->dtype != LK_F32)
    return lk_fail(&context->error, LK_UNSUPPORTED, "nvfp4_matmul: the cpu "
                   "backend computes in f32, not %s", lk_dtype_word(y->dtype));
  int64_t m = a->shape.dim[0], k = a->shape.dim[1], n = y->shape.dim[1];
  float *left = call->scratch, *right = left + m * k;
  LK_TRY(nvfp4_decode(context, call, 0, left));
  LK_TRY(nvfp4_decode(context, call, 3, right));
  cpu_gemm(context, false, true, m, n, k, 1, left, k, right, k, 0, y->data,
           n);
  return LK_OK;
}
