/* Arithmetic by element, with broadcasting; conversions, copies, constants. */
#include "device.cuh"

/* --- two operands, broadcast -------------------------------------------- */

enum binary_op { BINARY_ADD, BINARY_SUB, BINARY_MUL, BINARY_DIV };

static __device__ __forceinline__ float binary_apply(int op, float a,
                                                     float b) {
  switch (op) {
    case BINARY_ADD: return a + b;
    case BINARY_SUB: return a - b;
    case BINARY_MUL: return a * b;
    default: return a / b;
  }
}

/* Both operands have y's shape. */
struct binary_same {
  view a, b, y;
  int op;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    float u[8], v[8];
    view_load(a, i, n, whole, u);
    view_load(b, i, n, whole, v);
    for (int j = 0; j < 8; j++) u[j] = binary_apply(op, u[j], v[j]);
    view_store(y, i, n, whole, u);
  }
};

/* y's dimensions and the operands' steps along them, 0 where repeated. */
struct binary_wide {
  view a, b, y;
  int op, rank;
  int64_t dim[LK_MAX_RANK], step_a[LK_MAX_RANK], step_b[LK_MAX_RANK];
  __device__ void operator()(int64_t i, int n, bool whole) const {
    (void)whole;
    for (int j = 0; j < n; j++) {
      int64_t left = i + j, at = 0, bt = 0;
      for (int d = rank - 1; d >= 0; d--) {
        int64_t position = left % dim[d];
        left /= dim[d];
        at += position * step_a[d];
        bt += position * step_b[d];
      }
      view_set(y, i + j,
               binary_apply(op, view_get(a, at), view_get(b, bt)));
    }
  }
};

static void binary_steps(lk_shape x, lk_shape y, int64_t *step) {
  int64_t size = 1;
  for (int i = y.rank - 1; i >= 0; i--) {
    int j = i - (y.rank - x.rank);
    int64_t dim = j >= 0 ? x.dim[j] : 1;
    step[i] = dim == 1 ? 0 : size;
    size *= dim;
  }
}

static lk_status binary_run(lk_context *context, const lk_call *call,
                            int op) {
  view a = view_of(&call->in[0]), b = view_of(&call->in[1]);
  view y = view_of(&call->out[0]);
  const lk_shape *shape = &call->out[0].shape;
  int64_t count = lk_tensor_count(&call->out[0]);
  if (lk_tensor_count(&call->in[0]) == count &&
      lk_tensor_count(&call->in[1]) == count) {
    binary_same f = {a, b, y, op};
    bool whole = view_whole(a) && view_whole(b) && view_whole(y);
    return cuda_each(context, call, count, whole, f);
  }
  binary_wide f = {a, b, y, op, shape->rank, {0}, {0}, {0}};
  for (int i = 0; i < shape->rank; i++) f.dim[i] = shape->dim[i];
  binary_steps(call->in[0].shape, *shape, f.step_a);
  binary_steps(call->in[1].shape, *shape, f.step_b);
  return cuda_each(context, call, count, false, f);
}

lk_status cuda_add(lk_context *context, const lk_call *call) {
  return binary_run(context, call, BINARY_ADD);
}
lk_status cuda_sub(lk_context *context, const lk_call *call) {
  return binary_run(context, call, BINARY_SUB);
}
lk_status cuda_mul(lk_context *context, const lk_call *call) {
  return binary_run(context, call, BINARY_MUL);
}
lk_status cuda_div(lk_context *context, const lk_call *call) {
  return binary_run(context, call, BINARY_DIV);
}

/* --- one operand -------------------------------------------------------- */

static __device__ __forceinline__ float unary_apply(int op, float x, float o,
                                                    float scale,
                                                    float value) {
  switch (op) {
    case LK_OP_affine: return scale * x + value;
    case LK_OP_pow: return value == 2.0f ? x * x : powf(x, value);
    case LK_OP_exp: return lk_expf(x);
    case LK_OP_log: return lk_logf(x);
    case LK_OP_sqrt: return sqrtf(x);
    case LK_OP_tanh: return lk_tanhf(x);
    case LK_OP_sigmoid: return lk_sigmoid(x);
    case LK_OP_relu: return x < 0.0f ? 0.0f : x;
    default: return o > 0.0f ? x : 0.0f; /* relu_backward */
  }
}

struct unary_each {
  view x, other, y;
  float scale, value;
  int op;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    float v[8], o[8] = {0};
    view_load(x, i, n, whole, v);
    if (other.data) view_load(other, i, n, whole, o);
    for (int j = 0; j < 8; j++)
      v[j] = unary_apply(op, v[j], o[j], scale, value);
    view_store(y, i, n, whole, v);
  }
};

static lk_status unary_run(lk_context *context, const lk_call *call) {
  unary_each f = {view_of(&call->in[0]), view_of(&call->in[1]),
                  view_of(&call->out[0]), (float)call->attr.scale,
                  (float)call->attr.value, (int)call->op};
  bool whole = view_whole(f.x) && view_whole(f.other) && view_whole(f.y);
  return cuda_each(context, call, lk_tensor_count(&call->out[0]), whole, f);
}

#define UNARY(name)                                                    \
  lk_status cuda_##name(lk_context *context, const lk_call *call) {    \
    return unary_run(context, call);                                   \
  }
UNARY(affine)
UNARY(pow)
UNARY(exp)
UNARY(log)
UNARY(sqrt)
UNARY(tanh)
UNARY(sigmoid)
UNARY(relu)
UNARY(relu_backward)

/* --- conversions -------------------------------------------------------- */

/* Between any two of f32, bf16, f16 and e4m3. */
struct cast_each {
  view x, y;
  __device__ float get(int64_t i) const {
    return x.dtype == LK_E4M3 ? lk_f32_from_e4m3(((const uint8_t *)x.data)[i])
                              : view_get(x, i);
  }
  __device__ void operator()(int64_t i, int n, bool whole) const {
    float v[8];
    if (x.dtype == LK_E4M3)
      for (int j = 0; j < n; j++) v[j] = get(i + j);
    else
      view_load(x, i, n, whole, v);
    if (y.dtype == LK_E4M3)
      for (int j = 0; j < n; j++)
        ((uint8_t *)y.data)[i + j] = lk_e4m3_from_f32(v[j]);
    else
      view_store(y, i, n, whole, v);
  }
};

lk_status cuda_cast(lk_context *context, const lk_call *call) {
  cast_each f = {view_of(&call->in[0]), view_of(&call->out[0])};
  bool whole = view_whole(f.x) && view_whole(f.y);
  return cuda_each(context, call, lk_tensor_count(&call->in[0]), whole, f);
}

/* --- copies and constants ----------------------------------------------- */

lk_status cuda_copy(lk_context *context, const lk_call *call) {
  const void *x = call->in[0].data;
  void *y = call->out[0].data;
  if (x == y) return LK_OK;
  return cuda_check(context,
                    cudaMemcpyAsync(y, x,
                                    (size_t)lk_tensor_bytes(&call->in[0]),
                                    cudaMemcpyDeviceToDevice,
                                    cuda_stream(context)),
                    "copy");
}

/* The nearest value of an integer dtype. */
static __host__ __device__ int64_t nearest_integer(double value, double least,
                                                   double most) {
  if (!(value > least)) return (int64_t)least; /* NaN too */
  return (int64_t)(value < most ? nearbyint(value) : most);
}

/* The bytes of one element of any dtype of whole bytes, in the low bits. */
static __host__ __device__ uint32_t element_bits(int dtype, double value) {
  float f = (float)value;
  switch (dtype) {
    case LK_F32: return lk_bits_of_float(f);
    case LK_BF16: return lk_bf16_from_f32(f);
    case LK_F16: return lk_f16_from_f32(f);
    case LK_E4M3: return lk_e4m3_from_f32(f);
    case LK_I32: return (uint32_t)nearest_integer(value, -2147483648.0,
                                                  2147483647.0);
    case LK_U32: return (uint32_t)nearest_integer(value, 0, 4294967295.0);
    case LK_I8: return (uint32_t)nearest_integer(value, -128, 127) & 255u;
    default: return (uint32_t)nearest_integer(value, 0, 255);
  }
}

static __device__ void element_set(void *data, int bytes, int64_t i,
                                   uint32_t bits) {
  if (bytes == 4) ((uint32_t *)data)[i] = bits;
  else if (bytes == 2) ((uint16_t *)data)[i] = (uint16_t)bits;
  else ((uint8_t *)data)[i] = (uint8_t)bits;
}

struct fill_each {
  void *y;
  int bytes;
  uint32_t bits;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    if (whole && bytes == 4) {
      uint4 four = make_uint4(bits, bits, bits, bits);
      ((uint4 *)((uint32_t *)y + i))[0] = four;
      ((uint4 *)((uint32_t *)y + i))[1] = four;
    } else {
      for (int j = 0; j < n; j++) element_set(y, bytes, i + j, bits);
    }
  }
};

lk_status cuda_fill(lk_context *context, const lk_call *call) {
  const lk_tensor *y = &call->out[0];
  fill_each f = {y->data, lk_dtype_bits(y->dtype) / 8,
                 element_bits(y->dtype, call->attr.value)};
  bool whole = ((uintptr_t)y->data & 15) == 0;
  return cuda_each(context, call, lk_tensor_count(y), whole, f);
}

struct arange_each {
  void *y;
  int dtype, bytes;
  double value, scale;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    (void)whole;
    for (int j = 0; j < n; j++)
      element_set(y, bytes, i + j,
                  element_bits(dtype, value + scale * (double)(i + j)));
  }
};

lk_status cuda_arange(lk_context *context, const lk_call *call) {
  const lk_tensor *y = &call->out[0];
  arange_each f = {y->data, y->dtype, lk_dtype_bits(y->dtype) / 8,
                   call->attr.value, call->attr.scale};
  return cuda_each(context, call, lk_tensor_count(y), false, f);
}
