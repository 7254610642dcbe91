/* Sums, means, extremes, broadcasting and softmax. Every reduction looks at its
 * tensor as [outer, n, inner] and runs in an order that depends on these three
 * numbers alone. */
#include "device.cuh"

/* x as [outer, n, inner] around dimension `dim`; all of it is n if dim = -1. */
typedef struct split {
  int64_t outer, n, inner;
} split;

static split split_of(lk_shape shape, int64_t dim) {
  split s = {1, dim < 0 ? lk_shape_count(shape) : shape.dim[dim], 1};
  for (int i = 0; i < shape.rank && dim >= 0; i++) {
    if (i < dim) s.outer *= shape.dim[i];
    if (i > dim) s.inner *= shape.dim[i];
  }
  return s;
}

/* --- sums ----------------------------------------------------------------- */

/* Short rows, a warp each. */
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_sum_rows(view x, view y, split s, double scale) {
  int64_t row = (int64_t)blockIdx.x * (CUDA_THREADS / 32) + threadIdx.x / 32;
  if (row >= s.outer) return;
  double sum = 0;
  for (int64_t i = threadIdx.x % 32; i < s.n; i += 32)
    sum += (double)view_get(x, row * s.n + i);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) view_set(y, row, (float)(sum * scale));
}

/* partial [outer, pieces]: a block sums one piece of a long row. */
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_sum_piece(view x, double *partial, split s, int64_t pieces) {
  __shared__ double room[33];
  int64_t outer = blockIdx.x / pieces, piece = blockIdx.x % pieces;
  int64_t first = piece * LK_SUM_PIECE, last = first + LK_SUM_PIECE;
  if (last > s.n) last = s.n;
  double sum = 0;
  for (int64_t i = first + threadIdx.x; i < last; i += CUDA_THREADS)
    sum += (double)view_get(x, outer * s.n + i);
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/* partial [outer, pieces, inner]: a thread a column of one piece. */
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_sum_columns(view x, double *partial, split s, int64_t pieces) {
  int64_t at = (int64_t)blockIdx.x * CUDA_THREADS + threadIdx.x;
  if (at >= s.outer * pieces * s.inner) return;
  int64_t column = at % s.inner, slab = at / s.inner;
  int64_t outer = slab / pieces, first = slab % pieces * LK_SUM_PIECE;
  int64_t last = first + LK_SUM_PIECE;
  if (last > s.n) last = s.n;
  double sum = 0;
  for (int64_t i = first; i < last; i++)
    sum += (double)view_get(x, (outer * s.n + i) * s.inner + column);
  partial[at] = sum;
}

static __global__ void __launch_bounds__(CUDA_THREADS)
    k_sum_join(const double *partial, view y, split s, int64_t pieces,
               double scale) {
  int64_t at = (int64_t)blockIdx.x * CUDA_THREADS + threadIdx.x;
  if (at >= s.outer * s.inner) return;
  const double *p = partial + at / s.inner * pieces * s.inner + at % s.inner;
  double sum = 0;
  for (int64_t k = 0; k < pieces; k++) sum += p[k * s.inner];
  view_set(y, at, (float)(sum * scale));
}

/* y [outer, inner] = scale · Σ over n; `partial` has room for outer · pieces ·
 * inner doubles. */
static void reduce_sum(lk_context *context, view x, view y, double *partial,
                       split s, double scale) {
  cudaStream_t stream = cuda_stream(context);
  int64_t pieces = lk_sum_pieces(s.n);
  int64_t cells = s.outer * pieces * s.inner;
  if (s.inner == 1 && pieces == 1) {
    k_sum_rows<<<(unsigned)cuda_pieces(s.outer, CUDA_THREADS / 32),
                 CUDA_THREADS, 0, stream>>>(x, y, s, scale);
    return;
  }
  if (s.inner == 1)
    k_sum_piece<<<(unsigned)cells, CUDA_THREADS, 0, stream>>>(x, partial, s,
                                                              pieces);
  else
    k_sum_columns<<<(unsigned)cuda_pieces(cells, CUDA_THREADS), CUDA_THREADS,
                    0, stream>>>(x, partial, s, pieces);
  k_sum_join<<<(unsigned)cuda_pieces(s.outer * s.inner, CUDA_THREADS),
               CUDA_THREADS, 0, stream>>>(partial, y, s, pieces, scale);
}

static lk_status sum_call(lk_context *context, const lk_call *call,
                          bool mean) {
  split s = split_of(call->in[0].shape, call->attr.dim);
  reduce_sum(context, view_of(&call->in[0]), view_of(&call->out[0]),
             (double *)call->scratch, s, mean ? 1.0 / (double)s.n : 1.0);
  return cuda_launched(context, call);
}

lk_status cuda_sum(lk_context *context, const lk_call *call) {
  return sum_call(context, call, false);
}
lk_status cuda_mean(lk_context *context, const lk_call *call) {
  return sum_call(context, call, true);
}

/* --- extremes ------------------------------------------------------------- */

/* A value and where it was met first; index -1: none yet. */
typedef struct extreme {
  float value;
  int64_t index;
} extreme;

/* Whether b replaces a: more extreme, or the first of equals; the first NaN
 * wins over all. */
static __device__ bool extreme_better(extreme a, extreme b, bool least) {
  if (b.index < 0 || a.index < 0) return b.index >= 0;
  bool nan_a = a.value != a.value, nan_b = b.value != b.value;
  if (nan_a || nan_b)
    return nan_a && nan_b ? b.index < a.index : nan_b;
  if (a.value == b.value) return b.index < a.index;
  return least ? b.value < a.value : b.value > a.value;
}

/* A warp a result. */
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_extreme(view x, view y, int32_t *index, split s, bool least) {
  int64_t at = (int64_t)blockIdx.x * (CUDA_THREADS / 32) + threadIdx.x / 32;
  if (at >= s.outer * s.inner) return;
  int64_t first = at / s.inner * s.n * s.inner + at % s.inner;
  extreme best = {0.0f, -1};
  for (int64_t i = threadIdx.x % 32; i < s.n; i += 32) {
    extreme e = {view_get(x, first + i * s.inner), i};
    if (extreme_better(best, e, least)) best = e;
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    extreme e;
    e.value = __shfl_xor_sync(0xFFFFFFFFu, best.value, offset);
    e.index = __shfl_xor_sync(0xFFFFFFFFu, best.index, offset);
    if (extreme_better(best, e, least)) best = e;
  }
  if (threadIdx.x % 32 != 0) return;
  if (index) index[at] = (int32_t)best.index;
  else view_set(y, at, best.value);
}

static lk_status extreme_call(lk_context *context, const lk_call *call,
                              bool least, bool index) {
  split s = split_of(call->in[0].shape, call->attr.dim);
  int64_t blocks = cuda_pieces(s.outer * s.inner, CUDA_THREADS / 32);
  k_extreme<<<(unsigned)blocks, CUDA_THREADS, 0, cuda_stream(context)>>>(
      view_of(&call->in[0]), view_of(&call->out[0]),
      index ? (int32_t *)call->out[0].data : NULL, s, least);
  return cuda_launched(context, call);
}

lk_status cuda_max(lk_context *context, const lk_call *call) {
  return extreme_call(context, call, false, false);
}
lk_status cuda_min(lk_context *context, const lk_call *call) {
  return extreme_call(context, call, true, false);
}
lk_status cuda_argmax(lk_context *context, const lk_call *call) {
  return extreme_call(context, call, false, true);
}

/* --- broadcasting, both ways ---------------------------------------------- */

/* The larger shape as runs of dimensions that the smaller one has or lacks. */
typedef struct runs {
  int count;
  int64_t size[LK_MAX_RANK];
  bool lacks[LK_MAX_RANK];
} runs;

static void runs_add(runs *g, int64_t size, bool lacks) {
  if (size == 1) return;
  if (g->count > 0 && g->lacks[g->count - 1] == lacks) {
    g->size[g->count - 1] *= size;
    return;
  }
  g->size[g->count] = size;
  g->lacks[g->count++] = lacks;
}

static runs runs_of(lk_shape large, lk_shape small) {
  runs g = {};
  int offset = large.rank - small.rank;
  for (int i = 0; i < large.rank; i++)
    runs_add(&g, large.dim[i], i < offset || small.dim[i - offset] == 1);
  return g;
}

/* The first run that is lacking, or -1. */
static int runs_first(const runs *g) {
  for (int i = 0; i < g->count; i++)
    if (g->lacks[i]) return i;
  return -1;
}

static split runs_split(const runs *g, int at) {
  split s = {1, g->size[at], 1};
  for (int i = 0; i < g->count; i++) {
    if (i < at) s.outer *= g->size[i];
    if (i > at) s.inner *= g->size[i];
  }
  return s;
}

static runs runs_without(const runs *g, int gone) {
  runs rest = {};
  for (int i = 0; i < g->count; i++)
    if (i != gone) runs_add(&rest, g->size[i], g->lacks[i]);
  return rest;
}

/* Sums one lacking run after the other, through two f32 buffers in scratch. */
lk_status cuda_sum_to(lk_context *context, const lk_call *call) {
  runs g = runs_of(call->in[0].shape, call->out[0].shape);
  view x = view_of(&call->in[0]), y = view_of(&call->out[0]);
  int at = runs_first(&g);
  if (at < 0)
    return context->backend->copy(context, y.data, x.data,
                                  lk_tensor_bytes(&call->in[0]));
  int64_t room = (lk_scratch_sum_to(context->profile, call) -
                  8 * lk_sum_pieces(lk_tensor_count(&call->in[0]))) / 16;
  float *buffer = (float *)call->scratch;
  double *partial = (double *)(void *)(buffer + 2 * room);
  for (int turn = 0; at >= 0; turn ^= 1) {
    split s = runs_split(&g, at);
    g = runs_without(&g, at);
    at = runs_first(&g);
    view to = at < 0 ? y : view_f32(buffer + turn * room);
    reduce_sum(context, x, to, partial, s, 1.0);
    x = to;
  }
  return cuda_launched(context, call);
}

struct broadcast_each {
  view x, y;
  runs g;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    (void)whole;
    for (int j = 0; j < n; j++) {
      int64_t left = i + j, at = 0, step = 1;
      for (int d = g.count - 1; d >= 0; d--) {
        int64_t position = left % g.size[d];
        left /= g.size[d];
        if (g.lacks[d]) continue;
        at += position * step;
        step *= g.size[d];
      }
      view_set(y, i + j, view_get(x, at));
    }
  }
};

lk_status cuda_broadcast(lk_context *context, const lk_call *call) {
  broadcast_each f = {view_of(&call->in[0]), view_of(&call->out[0]),
                      runs_of(call->out[0].shape, call->in[0].shape)};
  return cuda_each(context, call, lk_tensor_count(&call->out[0]), false, f);
}

/* --- softmax -------------------------------------------------------------- */

/* A block a row; y may be x: each thread comes back to its own elements. */
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_softmax(view x, view y, int64_t width, bool causal) {
  __shared__ float room[33];
  int64_t row = blockIdx.x, first = row * width;
  int64_t n = causal ? row % width + 1 : width;
  float most = -INFINITY, sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += CUDA_THREADS)
    most = fmaxf(most, view_get(x, first + i));
  most = block_max(most, room);
  for (int64_t i = threadIdx.x; i < n; i += CUDA_THREADS)
    sum += lk_expf_negative(view_get(x, first + i) - most);
  float scale = 1.0f / block_sum(sum, room);
  for (int64_t i = threadIdx.x; i < width; i += CUDA_THREADS) {
    float e = i < n ? lk_expf_negative(view_get(x, first + i) - most) : 0.0f;
    view_set(y, first + i, e * scale);
  }
}

static __global__ void __launch_bounds__(CUDA_THREADS)
    k_softmax_backward(view dy, view y, view dx, int64_t width) {
  __shared__ float room[33];
  int64_t first = (int64_t)blockIdx.x * width;
  float dot = 0;
  for (int64_t i = threadIdx.x; i < width; i += CUDA_THREADS)
    dot += view_get(dy, first + i) * view_get(y, first + i);
  dot = block_sum(dot, room);
  for (int64_t i = threadIdx.x; i < width; i += CUDA_THREADS)
    view_set(dx, first + i,
             view_get(y, first + i) * (view_get(dy, first + i) - dot));
}

lk_status cuda_softmax(lk_context *context, const lk_call *call) {
  int64_t width = cuda_columns(&call->in[0]);
  int64_t rows = lk_tensor_count(&call->in[0]) / width;
  k_softmax<<<(unsigned)rows, CUDA_THREADS, 0, cuda_stream(context)>>>(
      view_of(&call->in[0]), view_of(&call->out[0]), width,
      call->attr.causal);
  return cuda_launched(context, call);
}

lk_status cuda_softmax_backward(lk_context *context, const lk_call *call) {
  int64_t width = cuda_columns(&call->in[0]);
  int64_t rows = lk_tensor_count(&call->in[0]) / width;
  k_softmax_backward<<<(unsigned)rows, CUDA_THREADS, 0,
                       cuda_stream(context)>>>(
      view_of(&call->in[0]), view_of(&call->in[1]), view_of(&call->out[0]),
      width);
  return cuda_launched(context, call);
}
