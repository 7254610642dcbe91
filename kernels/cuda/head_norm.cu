/* RMS norms of the q and k heads of a qkv row, and their gradient. */
#include "gemm.cuh"

enum { HEAD_MOST = 256, HEAD_TURNS = HEAD_MOST / 32 };

typedef struct head_args {
  view x, wq, wk, dy, y; /* y: dx in the gradient */
  float *rstd, *part;
  int64_t rows;
  int heads, kv_heads, width, parts;
  float eps;
} head_args;

/* The warp's head of a row; v heads are copied. */
static __global__ void __launch_bounds__(CUDA_THREADS) k_head_norm(
    head_args a) {
  int normed = a.heads + a.kv_heads, all = normed + a.kv_heads;
  int64_t unit = (int64_t)blockIdx.x * (CUDA_THREADS / 32) + threadIdx.x / 32;
  int64_t row = unit / all, at = unit * a.width;
  int h = (int)(unit % all), lane = (int)threadIdx.x % 32;
  if (row >= a.rows) return;
  float sum = 0, rstd = 1;
  for (int d = lane; d < a.width; d += 32) {
    float v = view_get(a.x, at + d);
    sum += v * v;
  }
  if (h < normed)
    rstd = 1.0f / sqrtf(warp_sum(sum) / (float)a.width + a.eps);
  if (h < normed && lane == 0) a.rstd[row * normed + h] = rstd;
  for (int d = lane; d < a.width; d += 32) {
    float v = view_get(a.x, at + d);
    if (h < normed) v = v * rstd * view_get(h < a.heads ? a.wq : a.wk, d);
    view_set(a.y, at + d, v);
  }
}

static lk_status head_open(lk_context *context, const lk_call *call, int x,
                           head_args *a) {
  *a = head_args{};
  a->x = view_of(&call->in[x]);
  a->wq = view_of(&call->in[x + 1]);
  a->wk = view_of(&call->in[x + 2]);
  a->y = view_of(&call->out[0]);
  a->heads = (int)call->attr.heads;
  a->kv_heads = (int)call->attr.kv_heads;
  a->width = (int)call->attr.width;
  a->eps = (float)call->attr.eps;
  a->rows = lk_tensor_count(&call->in[x]) /
            ((int64_t)(a->heads + 2 * a->kv_heads) * a->width);
  if (a->width <= HEAD_MOST) return LK_OK;
  return lk_fail(&context->error, LK_UNSUPPORTED,
                 "%s: heads are %d wide, the cuda backend takes up to %d",
                 lk_op_info_of(call->op)->name, a->width, HEAD_MOST);
}

lk_status cuda_head_norm(lk_context *context, const lk_call *call) {
  head_args a;
  LK_TRY(head_open(context, call, 0, &a));
  a.rstd = (float *)call->out[1].data;
  int64_t units = a.rows * (a.heads + 2 * a.kv_heads);
  k_head_norm<<<(unsigned)cuda_pieces(units, CUDA_THREADS / 32), CUDA_THREADS,
                0, cuda_stream(context)>>>(a);
  return cuda_launched(context, call);
}

/* One head: dx, and its share of dw into the lanes' sums. */
static __device__ __forceinline__ void head_backward(const head_args &a,
                                                     int64_t at, view w,
                                                     float rstd,
                                                     float dw[HEAD_TURNS]) {
  int lane = (int)threadIdx.x % 32;
  float dot = 0;
  for (int d = lane; d < a.width; d += 32)
    dot += view_get(a.dy, at + d) * view_get(w, d) * view_get(a.x, at + d);
  float pull = rstd * rstd * rstd * warp_sum(dot) / (float)a.width;
#pragma unroll
  for (int t = 0; t < HEAD_TURNS; t++) {
    int d = lane + 32 * t;
    if (d >= a.width) break;
    float dy = view_get(a.dy, at + d), x = view_get(a.x, at + d);
    dw[t] += dy * (x * rstd);
    view_set(a.y, at + d, dy * (view_get(w, d) * rstd) - x * pull);
  }
}

static __global__ void __launch_bounds__(CUDA_THREADS) k_head_norm_backward(
    head_args a) {
  __shared__ float sums[CUDA_THREADS / 32][2][HEAD_MOST];
  int normed = a.heads + a.kv_heads, all = normed + a.kv_heads;
  int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
  int64_t p = blockIdx.x, last = (p + 1) * a.rows / a.parts;
  float dwq[HEAD_TURNS] = {0}, dwk[HEAD_TURNS] = {0};
  for (int64_t r = p * a.rows / a.parts + warp; r < last;
       r += CUDA_THREADS / 32)
    for (int h = 0; h < all; h++) {
      int64_t at = (r * all + h) * a.width;
      if (h < a.heads)
        head_backward(a, at, a.wq, a.rstd[r * normed + h], dwq);
      else if (h < normed)
        head_backward(a, at, a.wk, a.rstd[r * normed + h], dwk);
      else
        for (int d = lane; d < a.width; d += 32)
          view_set(a.y, at + d, view_get(a.dy, at + d));
    }
#pragma unroll
  for (int t = 0; t < HEAD_TURNS; t++) {
    sums[warp][0][lane + 32 * t] = dwq[t];
    sums[warp][1][lane + 32 * t] = dwk[t];
  }
  __syncthreads();
  for (int i = (int)threadIdx.x; i < 2 * a.width; i += CUDA_THREADS) {
    float sum = 0;
    for (int k = 0; k < CUDA_THREADS / 32; k++)
      sum += sums[k][i / a.width][i % a.width];
    a.part[p * 2 * a.width + i] = sum;
  }
}

lk_status cuda_head_norm_backward(lk_context *context, const lk_call *call) {
  head_args a;
  LK_TRY(head_open(context, call, 1, &a));
  a.dy = view_of(&call->in[0]);
  a.rstd = (float *)call->in[4].data;
  a.part = (float *)call->scratch;
  a.parts = (int)lk_row_parts_of(context->profile, a.rows);
  k_head_norm_backward<<<(unsigned)a.parts, CUDA_THREADS, 0,
                         cuda_stream(context)>>>(a);
  for (int i = 0; i < 2; i++)
    cuda_parts_add(context, a.part + i * a.width, a.parts, 2 * a.width,
                   a.width, call->attr.accumulate,
                   (float *)call->out[1 + i].data);
  return cuda_launched(context, call);
}
