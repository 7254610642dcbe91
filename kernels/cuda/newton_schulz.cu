/* Newton-Schulz: the nearest orthogonal matrix, roughly, of each of a batch
 * (Muon; Jordan et al. 2024), as batched products. A tall x [R, C] is worked on
 * from the right, x (xᵀx), which is what the transposed matrix would give. */
#include "gemm.cuh"

typedef struct schulz {
  view u;
  lk_dtype dtype;
  int64_t k, rows, cols, side, size; /* side: of xxᵀ; size: rows · cols */
  char *x[2], *gram, *poly;          /* x[0], x[1]: by turns */
  float *partial;                    /* [k, LK_NS_PARTS] */
  float eps;
} schulz;

/* Parts of Σ u² of matrix blockIdx.y. */
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_schulz_norm(view u, float *partial, int64_t size) {
  __shared__ float room[33];
  view mine = view_from(u, blockIdx.y * size);
  float sum = 0, v[8];
  bool whole = size % 8 == 0 && ((uintptr_t)mine.data & 15) == 0;
  int64_t step = (int64_t)gridDim.x * CUDA_THREADS * 8;
  int64_t i = ((int64_t)blockIdx.x * CUDA_THREADS + threadIdx.x) * 8;
  for (; i < size; i += step) {
    view_load(mine, i, size - i < 8 ? (int)(size - i) : 8, whole, v);
#pragma unroll
    for (int j = 0; j < 8; j++) sum += v[j] * v[j];
  }
  sum = block_sum(sum, room);
  if (threadIdx.x == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

/* x = u / (‖u‖ + eps); every block adds the parts itself, in order. */
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_schulz_begin(view u, view x, const float *partial, int64_t size,
                   float eps) {
  __shared__ float room[33];
  float part = threadIdx.x < LK_NS_PARTS
                   ? partial[blockIdx.y * LK_NS_PARTS + threadIdx.x]
                   : 0.0f;
  float norm = sqrtf(block_sum(part, room)) + eps, v[8];
  view from = view_from(u, blockIdx.y * size);
  view to = view_from(x, blockIdx.y * size);
  bool whole = size % 8 == 0 && ((uintptr_t)from.data & 15) == 0 &&
               ((uintptr_t)to.data & 15) == 0;
  int64_t step = (int64_t)gridDim.x * CUDA_THREADS * 8;
  int64_t i = ((int64_t)blockIdx.x * CUDA_THREADS + threadIdx.x) * 8;
  for (; i < size; i += step) {
    int n = size - i < 8 ? (int)(size - i) : 8;
    view_load(from, i, n, whole, v);
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] = v[j] / norm;
    view_store(to, i, n, whole, v);
  }
}

/* --- symmetric products: the lower block rows, then their mirror image ---- */

enum { SCHULZ_TILE = 32 };

/* Block rows that a symmetric [side, side] result is cut in. Small ones are too
 * little work to cut. */
static int64_t schulz_cuts(int64_t side) {
  int64_t cuts = side >= 1024 ? 4 : side >= 640 ? 2 : 1;
  return side % (cuts * SCHULZ_TILE) == 0 ? cuts : 1;
}

/* Blocks above the diagonal from those below it; `block` rows each. */
template <class T>
__global__ void k_schulz_mirror(T *matrices, int side, int block) {
  __shared__ T tile[SCHULZ_TILE][SCHULZ_TILE + 1];
  T *a = matrices + (int64_t)blockIdx.z * side * side;
  int row = (int)blockIdx.y * SCHULZ_TILE, col = (int)blockIdx.x * SCHULZ_TILE;
  if (col / block <= row / block) return;
  for (int i = (int)threadIdx.y; i < SCHULZ_TILE; i += 8)
    tile[i][threadIdx.x] =
        a[(int64_t)(col + i) * side + row + (int)threadIdx.x];
  __syncthreads();
  for (int i = (int)threadIdx.y; i < SCHULZ_TILE; i += 8)
    a[(int64_t)(row + i) * side + col + (int)threadIdx.x] =
        tile[threadIdx.x][i];
}

static lk_status schulz_mirror(lk_context *context, const schulz *s,
                               char *matrices, int64_t cuts) {
  unsigned tiles = (unsigned)(s->side / SCHULZ_TILE);
  dim3 grid(tiles, tiles, (unsigned)s->k), threads(SCHULZ_TILE, 8);
  int side = (int)s->side, block = (int)(s->side / cuts);
  if (s->dtype == LK_F32)
    k_schulz_mirror<<<grid, threads, 0, cuda_stream(context)>>>(
        (uint32_t *)(void *)matrices, side, block);
  else
    k_schulz_mirror<<<grid, threads, 0, cuda_stream(context)>>>(
        (uint16_t *)(void *)matrices, side, block);
  return cuda_check(context, cudaGetLastError(), "newton_schulz: mirror");
}

/* d = alpha · op(a) · op(b) + beta · c, [side, side], of which block row i is
 * computed up to its diagonal block. `row`: elements from one row of op(a) to
 * the next. */
static lk_status schulz_symmetric(lk_context *context, const schulz *s,
                                  gemm g, int64_t row, const char *what) {
  int64_t cuts = schulz_cuts(s->side), block = s->side / cuts;
  const char *a = (const char *)g.a, *c = (const char *)g.c;
  char *d = (char *)g.d;
  for (int64_t i = 0; i < cuts; i++) {
    int64_t into = lk_dtype_bytes(s->dtype, i * block * s->side);
    g.m = block;
    g.n = (i + 1) * block;
    g.ldd = s->side;
    g.step_d = s->side * s->side;
    g.a = a + lk_dtype_bytes(s->dtype, i * block * row);
    g.c = c ? c + into : NULL;
    g.d = d + into;
    LK_TRY(gemm_run(context, &g, what));
  }
  return cuts > 1 ? schulz_mirror(context, s, d, cuts) : LK_OK;
}

/* gram = x xᵀ (xᵀ x when tall), poly = −4.7750 gram + 2.0315 gram². */
static lk_status schulz_poly(lk_context *context, const schulz *s,
                             const char *x) {
  bool tall = s->rows > s->cols;
  int64_t r = s->side;
  gemm g = gemm_dense(s->dtype, s->dtype, tall, !tall, r, r,
                      tall ? s->rows : s->cols, s->k);
  g.lda = g.ldb = s->cols;
  g.step_a = g.step_b = s->size;
  g.a = g.b = x;
  g.d = s->gram;
  LK_TRY(schulz_symmetric(context, s, g, tall ? 1 : s->cols,
                          "newton_schulz: gram"));
  g = gemm_dense(s->dtype, s->dtype, false, true, r, r, r, s->k);
  g.a = g.b = g.c = s->gram;
  g.d = s->poly;
  g.alpha = 2.0315f;
  g.beta = -4.7750f;
  return schulz_symmetric(context, s, g, r, "newton_schulz: gram squared");
}

/* y = 3.4445 x + poly x (x poly when tall). */
static lk_status schulz_apply(lk_context *context, const schulz *s,
                              const char *x, char *y) {
  bool tall = s->rows > s->cols;
  gemm g = gemm_dense(s->dtype, s->dtype, false, false, s->rows, s->cols,
                      s->side, s->k);
  g.a = tall ? x : s->poly;
  g.b = tall ? s->poly : x;
  g.c = x;
  g.d = y;
  g.beta = 3.4445f;
  return gemm_run(context, &g, "newton_schulz: product");
}

static schulz schulz_of(const lk_call *call) {
  const lk_tensor *u = &call->in[0], *o = &call->out[0];
  const int64_t *dim = u->shape.dim + u->shape.rank - 2;
  schulz s = {};
  s.u = view_of(u);
  s.dtype = u->dtype;
  s.rows = dim[0];
  s.cols = dim[1];
  s.size = s.rows * s.cols;
  s.side = cuda_smaller(s.rows, s.cols);
  s.k = lk_tensor_count(u) / s.size;
  s.eps = (float)call->attr.eps;
  int64_t square = lk_ns_aligned(
      lk_dtype_bytes(u->dtype, s.k * s.side * s.side));
  int64_t whole = lk_ns_aligned(lk_dtype_bytes(u->dtype, s.k * s.size));
  s.gram = (char *)call->scratch;
  s.poly = s.gram + square;
  s.x[0] = s.poly + square;
  s.x[1] = o->dtype == u->dtype ? (char *)o->data : s.x[0] + whole;
  s.partial = (float *)(void *)(o->dtype == u->dtype ? s.x[0] + whole
                                                     : s.x[1] + whole);
  return s;
}

struct schulz_cast {
  view x, o;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    float v[8];
    view_load(x, i, n, whole, v);
    view_store(o, i, n, whole, v);
  }
};

/* Turns end in x[1], which is o where the dtypes agree. */
lk_status cuda_newton_schulz(lk_context *context, const lk_call *call) {
  schulz s = schulz_of(call);
  const lk_tensor *o = &call->out[0];
  int at = call->attr.steps % 2 == 1 ? 0 : 1;
  view x = {s.x[at], (int)s.dtype};
  dim3 norm(LK_NS_PARTS, (unsigned)s.k);
  k_schulz_norm<<<norm, CUDA_THREADS, 0, cuda_stream(context)>>>(
      s.u, s.partial, s.size);
  int64_t blocks = cuda_smaller(256, cuda_pieces(s.size, CUDA_THREADS * 8));
  k_schulz_begin<<<dim3((unsigned)blocks, (unsigned)s.k), CUDA_THREADS, 0,
                   cuda_stream(context)>>>(s.u, x, s.partial, s.size, s.eps);
  LK_TRY(cuda_launched(context, call));
  for (int64_t i = 0; i < call->attr.steps; i++, at ^= 1) {
    LK_TRY(schulz_poly(context, &s, s.x[at]));
    LK_TRY(schulz_apply(context, &s, s.x[at], s.x[at ^ 1]));
  }
  if (o->dtype == s.dtype) return LK_OK;
  schulz_cast f = {{s.x[1], (int)s.dtype}, view_of(o)};
  return cuda_each(context, call, lk_tensor_count(o),
                   view_whole(f.x) && view_whole(f.o), f);
}
