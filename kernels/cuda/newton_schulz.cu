/* Newton-Schulz: the nearest orthogonal matrix, roughly, of each of a batch
 * (Muon; Jordan et al. 2024), as batched products. A tall x [R, C] is worked on
 * from the right, x (xᵀx), which is what the transposed matrix would give.
 *
 * A step takes x to p x with p = a + b g + c g², g = x xᵀ. Where x is long, up
 * to three steps go by on g alone: with s = b g + c g² the next g is p g p =
 * s t + a t of t = s g + a g, and the steps' product q is gathered; then x
 * becomes q x and g is made anew. All squares are polynomials of one g, so they
 * commute and are symmetric. In 16 bits all this runs in f16: entries stay
 * below 2^10, and its errors are an eighth of bf16's (measured against double:
 * three steps on g stay below the error of bf16's plain steps, five do not). */
#include "gemm.cuh"
#include "schulz.cuh"

#define SCHULZ_A 3.4445f
#define SCHULZ_B (-4.7750f)
#define SCHULZ_C 2.0315f

enum { SCHULZ_SEGMENT = 3, SCHULZ_SQUARES = 5 };

typedef struct schulz {
  view u;
  lk_dtype dtype;                    /* of the work: f32 or f16 */
  bool tall;
  int64_t k, rows, cols, side, size; /* side: of g; size: rows · cols */
  int64_t segment;                   /* steps between two products with x */
  bool own;                          /* symmetric products by our kernel */
  char *x[2], *square[SCHULZ_SQUARES];
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
 * little work to cut, in f16 on Hopper all up to 1024 (NOTES.md). */
static int64_t schulz_cuts(const lk_context *context, const schulz *s) {
  bool quick = cuda_of(context)->hopper && s->dtype == LK_F16;
  int64_t cuts = s->side > (quick ? 1024 : 639) ? 2 : 1;
  return s->side % (cuts * SCHULZ_TILE) == 0 ? cuts : 1;
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
  int64_t cuts = schulz_cuts(context, s), block = s->side / cuts;
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

/* Symmetric products by our own kernel. */
static lk_status schulz_own(lk_context *context, const schulz *s,
                            const schulz_product *p) {
  return cuda_check(context,
                    schulz_square_run(p, s->k, cuda_of(context)->processors,
                                      cuda_stream(context)),
                    "newton_schulz: square");
}

/* d = alpha · a b + beta · c of symmetric matrices, as that kernel has it. */
static schulz_product own_square(const schulz *s, float alpha, const char *a,
                                 const char *b, float beta, const char *c,
                                 char *d) {
  schulz_product p = {a, b, c, d, NULL, s->side, s->side, s->side,
                      s->side * s->side, alpha, beta, 0, false};
  return p;
}

/* d = alpha · a b + beta · c of symmetric matrices that commute. b is not taken
 * as its own transpose: b and c must have the same rounding errors. Our own
 * kernel does take it so, and makes all squares symmetric to the bit. */
static lk_status schulz_square(lk_context *context, const schulz *s,
                               float alpha, const char *a, const char *b,
                               float beta, const char *c, char *d) {
  if (s->own) {
    schulz_product p = own_square(s, alpha, a, b, beta, c, d);
    return schulz_own(context, s, &p);
  }
  gemm g = gemm_dense(s->dtype, s->dtype, false, false, s->side, s->side,
                      s->side, s->k);
  g.a = a;
  g.b = b;
  g.c = c;
  g.d = d;
  g.alpha = alpha;
  g.beta = beta;
  return schulz_symmetric(context, s, g, s->side, "newton_schulz: square");
}

/* g = x xᵀ, xᵀ x when tall. */
static lk_status schulz_gram(lk_context *context, const schulz *s,
                             const char *x, char *gram) {
  int64_t depth = s->tall ? s->rows : s->cols;
  if (s->own) {
    schulz_product p = {x, x, NULL, gram, NULL, s->side, depth, s->cols,
                        s->size, 1, 0, 0, s->tall};
    return schulz_own(context, s, &p);
  }
  gemm g = gemm_dense(s->dtype, s->dtype, s->tall, !s->tall, s->side, s->side,
                      depth, s->k);
  g.lda = g.ldb = s->cols;
  g.step_a = g.step_b = s->size;
  g.a = g.b = x;
  g.d = gram;
  return schulz_symmetric(context, s, g, s->tall ? 1 : s->cols,
                          "newton_schulz: gram");
}

/* y = square x + beta x; x square when tall. */
static lk_status schulz_apply(lk_context *context, const schulz *s,
                              const char *square, float beta, const char *x,
                              char *y) {
  gemm g = gemm_dense(s->dtype, s->dtype, false, false, s->rows, s->cols,
                      s->side, s->k);
  g.a = s->tall ? x : square;
  g.b = s->tall ? square : x;
  g.c = x;
  g.d = y;
  g.beta = beta;
  return gemm_run(context, &g, "newton_schulz: product");
}

/* q = s + a on the diagonal. */
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_schulz_shift(view s, view q, int64_t side, float a) {
  int64_t column = (int64_t)blockIdx.x * CUDA_THREADS + threadIdx.x;
  int64_t at = (int64_t)blockIdx.y * side + column;
  if (column >= side) return;
  float diagonal = blockIdx.y % side == column ? a : 0.0f;
  view_set(q, at, view_get(s, at) + diagonal);
}

/* p = c g² + b g, and q = p with a on its diagonal if q is not NULL. */
static lk_status schulz_first(lk_context *context, const schulz *s,
                              const char *g, char *p, char *q) {
  if (s->own) {
    schulz_product product = own_square(s, SCHULZ_C, g, g, SCHULZ_B, g, p);
    product.shifted = q;
    product.shift = SCHULZ_A;
    return schulz_own(context, s, &product);
  }
  LK_TRY(schulz_square(context, s, SCHULZ_C, g, g, SCHULZ_B, g, p));
  if (q == NULL) return LK_OK;
  dim3 grid((unsigned)cuda_pieces(s->side, CUDA_THREADS),
            (unsigned)(s->k * s->side));
  view from = {p, (int)s->dtype}, to = {q, (int)s->dtype};
  k_schulz_shift<<<grid, CUDA_THREADS, 0, cuda_stream(context)>>>(
      from, to, s->side, SCHULZ_A);
  return cuda_check(context, cudaGetLastError(), "newton_schulz: shift");
}

/* y = x after `steps` steps, all but the last on g alone. */
static lk_status schulz_steps(lk_context *context, const schulz *s,
                              int64_t steps, const char *x, char *y) {
  char *g = s->square[0], *p = s->square[1], *t = s->square[2];
  char *q = s->square[3], *other = s->square[4];
  LK_TRY(schulz_gram(context, s, x, g));
  for (int64_t i = 0; i < steps; i++) {
    bool shift = i == 0 && steps > 1;
    LK_TRY(schulz_first(context, s, g, p, shift ? q : NULL));
    if (steps == 1) return schulz_apply(context, s, p, SCHULZ_A, x, y);
    if (i > 0) {
      LK_TRY(schulz_square(context, s, 1, p, q, SCHULZ_A, q, other));
      char *swap = q;
      q = other;
      other = swap;
    }
    if (i + 1 == steps) break;
    LK_TRY(schulz_square(context, s, 1, p, g, SCHULZ_A, g, t));
    LK_TRY(schulz_square(context, s, 1, p, t, SCHULZ_A, t, g));
  }
  return schulz_apply(context, s, q, 0, x, y);
}

/* Where everything lies in scratch: see lk_scratch_newton_schulz. */
static void schulz_place(schulz *s, const lk_call *call) {
  const lk_tensor *u = &call->in[0], *o = &call->out[0];
  int64_t c = cuda_larger(s->rows, s->cols);
  int64_t squares = lk_ns_squares(u->dtype, s->side, c);
  int64_t square =
      lk_ns_aligned(lk_dtype_bytes(u->dtype, s->k * s->side * s->side));
  int64_t whole = lk_ns_aligned(lk_dtype_bytes(u->dtype, s->k * s->size));
  bool alike = lk_dtype_bits(o->dtype) == lk_dtype_bits(u->dtype);
  char *at = (char *)call->scratch;
  for (int64_t i = 0; i < squares; i++, at += square) s->square[i] = at;
  s->x[0] = at;
  s->x[1] = alike ? (char *)o->data : at + whole;
  s->partial = (float *)(void *)(at + (alike ? 1 : 2) * whole);
  s->segment = squares == SCHULZ_SQUARES ? SCHULZ_SEGMENT : 1;
}

static schulz schulz_of(const lk_context *context, const lk_call *call) {
  const lk_tensor *u = &call->in[0];
  const int64_t *dim = u->shape.dim + u->shape.rank - 2;
  schulz s = {};
  s.u = view_of(u);
  s.dtype = u->dtype == LK_F32 ? LK_F32 : LK_F16;
  s.rows = dim[0];
  s.cols = dim[1];
  s.tall = s.rows > s.cols;
  s.size = s.rows * s.cols;
  s.side = cuda_smaller(s.rows, s.cols);
  s.k = lk_tensor_count(u) / s.size;
  s.eps = (float)call->attr.eps;
  s.own = schulz_square_fits(cuda_of(context), s.dtype, s.side, s.cols, s.k);
  schulz_place(&s, call);
  return s;
}

/* x[at] = u / (‖u‖ + eps). */
static lk_status schulz_begin(lk_context *context, const lk_call *call,
                              const schulz *s, int at) {
  view x = {s->x[at], (int)s->dtype};
  dim3 norm(LK_NS_PARTS, (unsigned)s->k);
  k_schulz_norm<<<norm, CUDA_THREADS, 0, cuda_stream(context)>>>(
      s->u, s->partial, s->size);
  int64_t blocks = cuda_smaller(256, cuda_pieces(s->size, CUDA_THREADS * 8));
  k_schulz_begin<<<dim3((unsigned)blocks, (unsigned)s->k), CUDA_THREADS, 0,
                   cuda_stream(context)>>>(s->u, x, s->partial, s->size,
                                           s->eps);
  return cuda_launched(context, call);
}

struct schulz_cast {
  view x, o;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    float v[8];
    view_load(x, i, n, whole, v);
    view_store(o, i, n, whole, v);
  }
};

/* The last x is in o's memory wherever its elements fit there. */
lk_status cuda_newton_schulz(lk_context *context, const lk_call *call) {
  schulz s = schulz_of(context, call);
  const lk_tensor *o = &call->out[0];
  int64_t steps = call->attr.steps;
  int at = cuda_pieces(steps, s.segment) % 2 == 1 ? 0 : 1;
  LK_TRY(schulz_begin(context, call, &s, at));
  for (int64_t done = 0; done < steps; done += s.segment, at ^= 1)
    LK_TRY(schulz_steps(context, &s, cuda_smaller(s.segment, steps - done),
                        s.x[at], s.x[at ^ 1]));
  if (o->dtype == s.dtype) return LK_OK;
  schulz_cast f = {{s.x[1], (int)s.dtype}, view_of(o)};
  return cuda_each(context, call, lk_tensor_count(o),
                   view_whole(f.x) && view_whole(f.o), f);
}
