/* Arithmetic by element, with broadcasting; conversions, copies, constants. */
#include "../base/scalar.h"
#include "cpu.h"
#include "vector.h"

enum { PART = 16384 }; /* elements of one part */

/* --- two operands, broadcast -------------------------------------------- */

/* n results of a row: step 1 walks an operand, 0 repeats its first element. */
typedef void (*binary_row)(const float *a, int64_t step_a, const float *b,
                           int64_t step_b, float *y, int64_t n);

#define BINARY_ROW(name, sign)                                            \
  static void name##_row(const float *a, int64_t step_a, const float *b, \
                         int64_t step_b, float *y, int64_t n) {          \
    const float a0 = a[0], b0 = b[0];                                    \
    if (step_a && step_b)                                                \
      _Pragma("GCC ivdep")                                               \
      for (int64_t i = 0; i < n; i++) y[i] = a[i] sign b[i];             \
    else if (step_a)                                                     \
      _Pragma("GCC ivdep")                                               \
      for (int64_t i = 0; i < n; i++) y[i] = a[i] sign b0;               \
    else                                                                 \
      _Pragma("GCC ivdep")                                               \
      for (int64_t i = 0; i < n; i++) y[i] = a0 sign b[i * step_b];      \
  }
BINARY_ROW(add, +)
BINARY_ROW(sub, -)
BINARY_ROW(mul, *)
BINARY_ROW(div, /)

/* y's dimensions, merged where both operands allow, and the operands' steps
 * along them (0 where they are repeated). */
typedef struct binary_state {
  const float *a, *b;
  float *y;
  int64_t count;
  int rank;
  int64_t dim[LK_MAX_RANK], step_a[LK_MAX_RANK], step_b[LK_MAX_RANK];
  binary_row row;
} binary_state;

/* x's step along each dimension of y, 0 where x is repeated. */
static void binary_steps(lk_shape x, lk_shape y, int64_t *step) {
  int64_t size = 1;
  for (int i = y.rank - 1; i >= 0; i--) {
    int j = i - (y.rank - x.rank);
    int64_t dim = j >= 0 ? x.dim[j] : 1;
    step[i] = dim == 1 ? 0 : size;
    size *= dim;
  }
}

/* Give `s` the dimensions of y from the last on, merging neighbours; the last
 * one has steps 0 and 1 only. */
static void binary_merge(binary_state *s, lk_shape y, const int64_t *step_a,
                         const int64_t *step_b) {
  int n = 0; /* dimensions so far, the innermost first */
  for (int i = y.rank - 1; i >= 0; i--) {
    if (y.dim[i] == 1) continue;
    if (n > 0 && step_a[i] == s->step_a[n - 1] * s->dim[n - 1] &&
        step_b[i] == s->step_b[n - 1] * s->dim[n - 1]) {
      s->dim[n - 1] *= y.dim[i];
      continue;
    }
    s->dim[n] = y.dim[i];
    s->step_a[n] = step_a[i];
    s->step_b[n] = step_b[i];
    n++;
  }
  if (n == 0) s->dim[n++] = 1; /* one element */
  s->rank = n;
}

/* Offset of both operands at the first element of row `row`. */
static void binary_offsets(const binary_state *s, int64_t row, int64_t *a,
                           int64_t *b) {
  *a = *b = 0;
  for (int i = 1; i < s->rank; i++) {
    int64_t at = row % s->dim[i];
    *a += at * s->step_a[i];
    *b += at * s->step_b[i];
    row /= s->dim[i];
  }
}

static void binary_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const binary_state *s = opaque;
  int64_t last = cpu_smaller((index + 1) * PART, s->count);
  for (int64_t i = index * PART, n; i < last; i += n) {
    int64_t column = i % s->dim[0], a, b;
    n = cpu_smaller(s->dim[0] - column, last - i);
    binary_offsets(s, i / s->dim[0], &a, &b);
    s->row(s->a + a + column * s->step_a[0], s->step_a[0],
           s->b + b + column * s->step_b[0], s->step_b[0], s->y + i, n);
  }
}

static lk_status binary_run(lk_context *context, const lk_call *call,
                            binary_row row) {
  LK_TRY(cpu_need_f32(context, call));
  const lk_tensor *y = &call->out[0];
  int64_t step_a[LK_MAX_RANK], step_b[LK_MAX_RANK];
  binary_state s = {.a = call->in[0].data, .b = call->in[1].data,
                    .y = y->data, .count = lk_tensor_count(y), .row = row};
  binary_steps(call->in[0].shape, y->shape, step_a);
  binary_steps(call->in[1].shape, y->shape, step_b);
  binary_merge(&s, y->shape, step_a, step_b);
  cpu_parallel(context, cpu_pieces(s.count, PART), binary_part, &s);
  return LK_OK;
}

#define BINARY(name)                                                       \
  static lk_status cpu_##name(lk_context *context, const lk_call *call) { \
    return binary_run(context, call, name##_row);                         \
  }
BINARY(add)
BINARY(sub)
BINARY(mul)
BINARY(div)

/* --- one operand -------------------------------------------------------- */

typedef struct unary_state {
  const float *x, *other;
  float *y;
  int64_t count;
  float scale, value;
} unary_state;

static lk_status unary_run(lk_context *context, const lk_call *call,
                           cpu_body body) {
  LK_TRY(cpu_need_f32(context, call));
  unary_state s = {.x = call->in[0].data, .other = call->in[1].data,
                   .y = call->out[0].data,
                   .count = lk_tensor_count(&call->out[0]),
                   .scale = (float)call->attr.scale,
                   .value = (float)call->attr.value};
  cpu_parallel(context, cpu_pieces(s.count, PART), body, &s);
  return LK_OK;
}

/* The kernel of y[i] = `formula` of x[i], and o[i] of the second operand. */
#define UNARY(name, formula)                                               \
  static void name##_part(void *opaque, int64_t index, int lane) {        \
    (void)lane;                                                           \
    const unary_state *s = opaque;                                        \
    int64_t last = cpu_smaller((index + 1) * PART, s->count);             \
    const float *x = s->x, *o = s->other;                                 \
    const float scale = s->scale, value = s->value;                       \
    float *y = s->y;                                                      \
    (void)o, (void)scale, (void)value;                                    \
    _Pragma("GCC ivdep")                                                  \
    for (int64_t i = index * PART; i < last; i++) y[i] = (formula);       \
  }                                                                       \
  static lk_status cpu_##name(lk_context *context, const lk_call *call) { \
    return unary_run(context, call, name##_part);                         \
  }
UNARY(affine, scale * x[i] + value)
UNARY(pow, value == 2.0f ? x[i] * x[i] : powf(x[i], value))
UNARY(exp, lk_expf(x[i]))
UNARY(log, lk_logf(x[i]))
UNARY(sqrt, sqrtf(x[i]))
UNARY(tanh, lk_tanhf(x[i]))
UNARY(sigmoid, lk_sigmoid(x[i]))
UNARY(relu, x[i] < 0.0f ? 0.0f : x[i])
UNARY(relu_backward, o[i] > 0.0f ? x[i] : 0.0f)

/* --- conversions -------------------------------------------------------- */

enum { CAST_TILE = 1024 };

typedef struct cast_state {
  const char *x;
  char *y;
  lk_dtype from, to;
  int64_t count;
} cast_state;

#define CAST_LOOP(formula) \
  for (int64_t i = 0; i < n; i++) y[i] = (formula);

static void cast_load(lk_dtype from, const void *data, float *restrict y,
                      int64_t n) {
  const uint16_t *half = data;
  const uint8_t *byte = data;
  switch (from) {
    case LK_BF16: CAST_LOOP(lk_f32_from_bf16(half[i])) break;
    case LK_F16: CAST_LOOP(lk_f32_from_f16(half[i])) break;
    case LK_E4M3: CAST_LOOP(lk_f32_from_e4m3(byte[i])) break;
    default: memcpy(y, data, (size_t)n * sizeof *y);
  }
}

static void cast_store_half(lk_dtype to, const float *restrict x,
                            uint16_t *restrict y, int64_t n) {
  if (to == LK_BF16)
    CAST_LOOP(lk_bf16_from_f32(x[i]))
  else
    CAST_LOOP(lk_f16_from_f32(x[i]))
}

static void cast_store_byte(const float *restrict x, uint8_t *restrict y,
                            int64_t n) {
  CAST_LOOP(lk_e4m3_from_f32(x[i]))
}

static void cast_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const cast_state *s = opaque;
  int64_t last = cpu_smaller((index + 1) * PART, s->count);
  float tile[CAST_TILE];
  for (int64_t i = index * PART; i < last; i += CAST_TILE) {
    int64_t n = cpu_smaller(CAST_TILE, last - i);
    char *y = s->y + lk_dtype_bytes(s->to, i);
    cast_load(s->from, s->x + lk_dtype_bytes(s->from, i), tile, n);
    if (s->to == LK_F32)
      memcpy(y, tile, (size_t)n * sizeof *tile);
    else if (s->to == LK_E4M3)
      cast_store_byte(tile, (uint8_t *)y, n);
    else
      cast_store_half(s->to, tile, (uint16_t *)(void *)y, n);
  }
}

static lk_status cpu_cast(lk_context *context, const lk_call *call) {
  cast_state s = {.x = call->in[0].data, .y = call->out[0].data,
                  .from = call->in[0].dtype, .to = call->out[0].dtype,
                  .count = lk_tensor_count(&call->in[0])};
  cpu_parallel(context, cpu_pieces(s.count, PART), cast_part, &s);
  return LK_OK;
}

/* --- copies and constants ----------------------------------------------- */

typedef struct bytes_state {
  const char *x;
  char *y;
  int64_t bytes;
} bytes_state;

enum { BYTES_PART = 1 << 18 };

static void copy_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const bytes_state *s = opaque;
  int64_t first = index * BYTES_PART;
  memcpy(s->y + first, s->x + first,
         (size_t)cpu_smaller(BYTES_PART, s->bytes - first));
}

static lk_status cpu_copy(lk_context *context, const lk_call *call) {
  bytes_state s = {call->in[0].data, call->out[0].data,
                   lk_tensor_bytes(&call->in[0])};
  if (s.x != s.y)
    cpu_parallel(context, cpu_pieces(s.bytes, BYTES_PART), copy_part, &s);
  return LK_OK;
}

/* The nearest value of an integer dtype. */
static int64_t fill_integer(double value, double least, double most) {
  if (!(value > least)) return (int64_t)least; /* NaN too */
  return (int64_t)(value < most ? nearbyint(value) : most);
}

/* One element of any dtype of whole bytes: its bytes into `element`. */
static void fill_element(lk_dtype dtype, double value, void *element) {
  float f = (float)value;
  uint16_t half = dtype == LK_BF16 ? lk_bf16_from_f32(f) : lk_f16_from_f32(f);
  uint8_t byte = lk_e4m3_from_f32(f);
  int32_t word = (int32_t)fill_integer(value, INT32_MIN, INT32_MAX);
  if (dtype == LK_U32) word = (int32_t)fill_integer(value, 0, UINT32_MAX);
  if (dtype == LK_I8) byte = (uint8_t)fill_integer(value, INT8_MIN, INT8_MAX);
  if (dtype == LK_U8) byte = (uint8_t)fill_integer(value, 0, UINT8_MAX);
  if (dtype == LK_F32) memcpy(&word, &f, sizeof f);
  switch (lk_dtype_bits(dtype)) {
    case 32: memcpy(element, &word, sizeof word); break;
    case 16: memcpy(element, &half, sizeof half); break;
    default: memcpy(element, &byte, sizeof byte);
  }
}

/* x points to a tile of equal elements, BYTES_TILE bytes. */
enum { BYTES_TILE = 4096 };

static void fill_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const bytes_state *s = opaque;
  int64_t last = cpu_smaller((index + 1) * BYTES_PART, s->bytes);
  for (int64_t i = index * BYTES_PART; i < last; i += BYTES_TILE)
    memcpy(s->y + i, s->x, (size_t)cpu_smaller(BYTES_TILE, last - i));
}

static lk_status cpu_fill(lk_context *context, const lk_call *call) {
  const lk_tensor *y = &call->out[0];
  char tile[BYTES_TILE];
  int size = lk_dtype_bits(y->dtype) / 8;
  for (int i = 0; i < BYTES_TILE; i += size)
    fill_element(y->dtype, call->attr.value, tile + i);
  bytes_state s = {tile, y->data, lk_tensor_bytes(y)};
  cpu_parallel(context, cpu_pieces(s.bytes, BYTES_PART), fill_part, &s);
  return LK_OK;
}

static lk_status cpu_arange(lk_context *context, const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  const lk_tensor *y = &call->out[0];
  int size = lk_dtype_bits(y->dtype) / 8;
  char *data = y->data;
  for (int64_t i = 0; i < lk_tensor_count(y); i++)
    fill_element(y->dtype, call->attr.value + call->attr.scale * (double)i,
                 data + i * size);
  return LK_OK;
}
