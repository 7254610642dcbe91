/* Matrix products and biases. */
#include "gemm.cuh"

static gemm matmul_of(const lk_call *call) {
  const lk_tensor *a = &call->in[0], *b = &call->in[1];
  const int64_t *da = a->shape.dim + a->shape.rank - 2;
  const int64_t *db = b->shape.dim + b->shape.rank - 2;
  bool ta = call->attr.transpose_a, tb = call->attr.transpose_b;
  int64_t m = da[ta ? 1 : 0], k = da[ta ? 0 : 1], n = db[tb ? 0 : 1];
  if (b->shape.rank == 2 && a->shape.rank > 2)
    m = lk_tensor_count(a) / k; /* leading dimensions are rows */
  int64_t batch = lk_tensor_count(&call->out[0]) / (m * n);
  gemm g = gemm_dense(a->dtype, call->out[0].dtype, ta, tb, m, n, k, batch);
  g.a = a->data;
  g.b = b->data;
  g.c = g.d = call->out[0].data;
  g.beta = call->attr.accumulate ? 1 : 0;
  return g;
}

/* y = (or +=) x, rounded. */
struct round_into {
  view x, y;
  bool add;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    float a[8], b[8];
    view_load(x, i, n, whole, a);
    if (add) {
      view_load(y, i, n, whole, b);
      for (int j = 0; j < 8; j++) a[j] += b[j];
    }
    view_store(y, i, n, whole, a);
  }
};

/* f32 operands with a 16-bit result go through an f32 copy in scratch. */
lk_status cuda_matmul(lk_context *context, const lk_call *call) {
  gemm g = matmul_of(call);
  const lk_tensor *y = &call->out[0];
  if (g.in != LK_F32 || g.out == LK_F32)
    return gemm_run(context, &g, "matmul");
  g.out = LK_F32;
  g.c = g.d = call->scratch;
  g.beta = 0;
  LK_TRY(gemm_run(context, &g, "matmul"));
  round_into f = {view_f32(call->scratch), view_of(y), call->attr.accumulate};
  return cuda_each(context, call, lk_tensor_count(y), view_whole(f.y), f);
}

/* --- biases ------------------------------------------------------------- */

struct bias_row {
  view x, bias, y;
  int64_t columns;
  bool whole;
  __device__ void operator()(int64_t row, int64_t unit) const {
    float a[8], b[8];
    int64_t c = unit * 8, left = columns - c, i = row * columns + c;
    int n = left < 8 ? (int)left : 8;
    view_load(x, i, n, whole, a);
    view_load(bias, c, n, whole, b);
    for (int j = 0; j < 8; j++) a[j] += b[j];
    view_store(y, i, n, whole, a);
  }
};

lk_status cuda_bias(lk_context *context, const lk_call *call) {
  int64_t columns = lk_tensor_count(&call->in[1]);
  int64_t rows = lk_tensor_count(&call->in[0]) / columns;
  bias_row f = {view_of(&call->in[0]), view_of(&call->in[1]),
                view_of(&call->out[0]), columns, columns % 8 == 0};
  f.whole = f.whole && view_whole(f.x) && view_whole(f.bias) &&
            view_whole(f.y);
  return cuda_rows(context, call, rows, cuda_pieces(columns, 8), f);
}

/* Part p's sum of its rows, a group of columns a thread. */
static __global__ void k_column_parts(view x, float *part, int64_t rows,
                                      int64_t columns, int parts,
                                      bool whole) {
  int64_t c = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * 8;
  if (c >= columns) return;
  int n = columns - c < 8 ? (int)(columns - c) : 8;
  int64_t p = blockIdx.x, last = (p + 1) * rows / parts;
  float sum[8] = {0}, v[8];
#pragma unroll 4
  for (int64_t r = p * rows / parts; r < last; r++) {
    view_load(x, r * columns + c, n, whole, v);
    for (int j = 0; j < 8; j++) sum[j] += v[j];
  }
  view_store(view_f32(part), p * columns + c, n, whole, sum);
}

/* Columns side by side in x, eight stripes of parts in y. */
static __global__ void k_parts_add(const float *part, int parts,
                                   int64_t stride, int64_t width,
                                   bool accumulate, float *y) {
  __shared__ float stripe[8][32];
  int64_t c = (int64_t)blockIdx.x * 32 + threadIdx.x;
  float sum = 0;
  if (c < width)
#pragma unroll 8
    for (int p = (int)threadIdx.y; p < parts; p += 8)
      sum += part[p * stride + c];
  stripe[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= width) return;
  sum = accumulate ? y[c] : 0.0f;
  for (int i = 0; i < 8; i++) sum += stripe[i][threadIdx.x];
  y[c] = sum;
}

void cuda_parts_add(lk_context *context, const float *part, int64_t parts,
                    int64_t stride, int64_t width, bool accumulate,
                    float *y) {
  k_parts_add<<<(unsigned)cuda_pieces(width, 32), dim3(32, 8), 0,
                cuda_stream(context)>>>(part, (int)parts, stride, width,
                                        accumulate, y);
}

lk_status cuda_bias_backward(lk_context *context, const lk_call *call) {
  view dy = view_of(&call->in[0]);
  int64_t columns = lk_tensor_count(&call->out[0]);
  int64_t rows = lk_tensor_count(&call->in[0]) / columns;
  int64_t parts = lk_row_parts_of(context->profile, rows);
  bool whole = columns % 8 == 0 && view_whole(dy);
  dim3 grid((unsigned)parts, (unsigned)cuda_pieces(columns, 128 * 8));
  k_column_parts<<<grid, 128, 0, cuda_stream(context)>>>(
      dy, (float *)call->scratch, rows, columns, (int)parts, whole);
  cuda_parts_add(context, (const float *)call->scratch, parts, columns,
                 columns, call->attr.accumulate, (float *)call->out[0].data);
  return cuda_launched(context, call);
}
