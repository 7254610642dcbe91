/* Moving elements without looking at them: transpose, slice, unslice, cat.
 * Around dimension `dim` a tensor is [outer, dim, inner]. */
#include "device.cuh"

/* Product of the dimensions [from, to). */
static int64_t shape_product(lk_shape s, int from, int to) {
  int64_t product = 1;
  for (int i = from; i < to; i++) product *= s.dim[i];
  return product;
}

/* A view's memory is its input's: nothing moves. */
lk_status cuda_reshape(lk_context *context, const lk_call *call) {
  (void)context, (void)call;
  return LK_OK;
}

/* `rows` runs of `bytes`, from and to rows of different lengths. */
static lk_status runs_copy(lk_context *context, const char *x, char *y,
                           int64_t rows, int64_t bytes, int64_t step_x,
                           int64_t step_y) {
  if (rows == 1) step_x = step_y = bytes;
  return cuda_check(context,
                    cudaMemcpy2DAsync(y, (size_t)step_y, x, (size_t)step_x,
                                      (size_t)bytes, (size_t)rows,
                                      cudaMemcpyDeviceToDevice,
                                      cuda_stream(context)),
                    "copy of rows");
}

/* Bytes of one index of dimension `dim`. */
static int64_t inner_bytes(const lk_tensor *t, int dim) {
  return shape_product(t->shape, dim + 1, t->shape.rank) *
         (lk_dtype_bits(t->dtype) / 8);
}

lk_status cuda_slice(lk_context *context, const lk_call *call) {
  const lk_tensor *x = &call->in[0], *y = &call->out[0];
  int dim = (int)call->attr.dim;
  int64_t unit = inner_bytes(x, dim);
  return runs_copy(context, (const char *)x->data + call->attr.first * unit,
                   (char *)y->data, shape_product(x->shape, 0, dim),
                   y->shape.dim[dim] * unit, x->shape.dim[dim] * unit,
                   y->shape.dim[dim] * unit);
}

lk_status cuda_unslice(lk_context *context, const lk_call *call) {
  const lk_tensor *x = &call->in[0], *y = &call->out[0];
  int dim = (int)call->attr.dim;
  int64_t unit = inner_bytes(x, dim);
  LK_TRY(context->backend->zero(context, y->data, lk_tensor_bytes(y)));
  return runs_copy(context, (const char *)x->data,
                   (char *)y->data + call->attr.first * unit,
                   shape_product(x->shape, 0, dim), x->shape.dim[dim] * unit,
                   x->shape.dim[dim] * unit, y->shape.dim[dim] * unit);
}

lk_status cuda_cat(lk_context *context, const lk_call *call) {
  const lk_tensor *y = &call->out[0];
  int dim = (int)call->attr.dim;
  char *to = (char *)y->data;
  for (int i = 0; i < 2; i++) {
    const lk_tensor *x = &call->in[i];
    int64_t unit = inner_bytes(x, dim), bytes = x->shape.dim[dim] * unit;
    LK_TRY(runs_copy(context, (const char *)x->data, to,
                     shape_product(x->shape, 0, dim), bytes, bytes,
                     y->shape.dim[dim] * unit));
    to += bytes;
  }
  return LK_OK;
}

/* --- transpose ---------------------------------------------------------- */

/* x [outer, m, middle, n, inner] to y [outer, n, middle, m, inner]. */
typedef struct transposed {
  const void *x;
  void *y;
  int64_t m, middle, n, inner, count;
} transposed;

template <class T>
__global__ void __launch_bounds__(CUDA_THREADS) k_transpose(transposed t) {
  int64_t at = (int64_t)blockIdx.x * CUDA_THREADS + threadIdx.x;
  if (at >= t.count) return;
  int64_t left = at;
  int64_t inner = left % t.inner;
  left /= t.inner;
  int64_t m = left % t.m;
  left /= t.m;
  int64_t middle = left % t.middle;
  left /= t.middle;
  int64_t n = left % t.n, outer = left / t.n;
  int64_t from = ((outer * t.m + m) * t.middle + middle) * t.n + n;
  ((T *)t.y)[at] = ((const T *)t.x)[from * t.inner + inner];
}

/* Matrices in tiles through shared memory: both sides coalesced. */
template <class T>
__global__ void k_transpose_tile(transposed t) {
  __shared__ T tile[32][33];
  int64_t matrix = (int64_t)blockIdx.z * t.m * t.n;
  int64_t row = (int64_t)blockIdx.y * 32, col = (int64_t)blockIdx.x * 32;
  for (int i = (int)threadIdx.y; i < 32; i += 8)
    if (row + i < t.m && col + threadIdx.x < t.n)
      tile[i][threadIdx.x] =
          ((const T *)t.x)[matrix + (row + i) * t.n + col + threadIdx.x];
  __syncthreads();
  for (int i = (int)threadIdx.y; i < 32; i += 8)
    if (col + i < t.n && row + threadIdx.x < t.m)
      ((T *)t.y)[matrix + (col + i) * t.m + row + threadIdx.x] =
          tile[threadIdx.x][i];
}

template <class T>
static lk_status transpose_run(lk_context *context, const lk_call *call,
                               transposed t) {
  int64_t outer = t.count / (t.m * t.middle * t.n * t.inner);
  dim3 grid((unsigned)cuda_pieces(t.n, 32), (unsigned)cuda_pieces(t.m, 32),
            (unsigned)outer);
  bool tiles = t.middle == 1 && t.inner == 1 && outer < 65536 &&
               t.m < 32 * 65535;
  if (tiles)
    k_transpose_tile<T><<<grid, dim3(32, 8), 0, cuda_stream(context)>>>(t);
  else
    k_transpose<T><<<(unsigned)cuda_pieces(t.count, CUDA_THREADS),
                     CUDA_THREADS, 0, cuda_stream(context)>>>(t);
  return cuda_launched(context, call);
}

lk_status cuda_transpose(lk_context *context, const lk_call *call) {
  const lk_tensor *x = &call->in[0];
  int a = (int)cuda_smaller(call->attr.dim, call->attr.other);
  int b = (int)cuda_larger(call->attr.dim, call->attr.other);
  int64_t bytes = lk_tensor_bytes(x);
  transposed t = {x->data, call->out[0].data, x->shape.dim[a],
                  shape_product(x->shape, a + 1, b), x->shape.dim[b],
                  shape_product(x->shape, b + 1, x->shape.rank),
                  lk_tensor_count(x)};
  if (a == b)
    return context->backend->copy(context, t.y, t.x, bytes);
  switch (lk_dtype_bits(x->dtype)) {
    case 32: return transpose_run<uint32_t>(context, call, t);
    case 16: return transpose_run<uint16_t>(context, call, t);
    default: return transpose_run<uint8_t>(context, call, t);
  }
}
