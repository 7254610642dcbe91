/* Matrix products on the CPU: cut in tiles that depend on the shape alone,
 * each one single-threaded library call. OpenBLAS's own threads would change
 * bits with their number. */
#include "../base/convert.h"
#include "../core/scratch.h"
#include "cpu.h"
#include "vector.h"

/* A batch of equal products, cut in rows x cols tiles each. */
typedef struct gemm_state {
  const cpu_provider *provider;
  bool transpose_a, transpose_b;
  int64_t m, n, k;
  float alpha, beta;
  const float *a, *b;
  float *c;
  int64_t lda, ldb, ldc;
  int64_t step_a, step_b, step_c; /* from one product to the next */
  int64_t tile_m, tile_n, tiles_n, tiles;
} gemm_state;

/* Rows or columns of a tile that cuts `size` in `pieces`. */
static int64_t gemm_tile(int64_t size, int64_t pieces) {
  if (pieces == 1) return size;
  return (cpu_pieces(size, pieces) + 15) / 16 * 16;
}

/* 1, 2, 3, 4, 6, 8, 12, 16, … */
static int64_t gemm_next(int64_t pieces) {
  bool power = (pieces & (pieces - 1)) == 0;
  return pieces + (power ? (pieces + 1) / 2 : pieces / 3);
}

/* Tiles' time on `lanes` lanes: full rounds, and some waiting for the last. */
static double gemm_rounds(int64_t tiles, int64_t lanes) {
  return (double)(cpu_pieces(tiles, lanes) * lanes) + 0.08 * (double)lanes;
}

/* How long m x n tiles keep 2, 4 and 8 lanes busy, the few weighing most. A
 * tile's time in multiply-adds, measured on OpenBLAS (NOTES.md): m · n, packing
 * 46 · m and 16 · n, all per row of k, and 100 000 for the call. */
static double gemm_cost(const gemm_state *g, int64_t m, int64_t n) {
  int64_t tiles = cpu_pieces(g->m, m) * cpu_pieces(g->n, n);
  double tile = (double)g->k * (double)(m * n + 46 * m + 16 * n) + 1e5;
  return tile * (8 * gemm_rounds(tiles, 2) + 4 * gemm_rounds(tiles, 4) +
                 gemm_rounds(tiles, 8));
}

/* The cheapest tiles for the shape. */
static void gemm_cut(gemm_state *g) {
  double best = INFINITY;
  for (int64_t p = 1; p == 1 || p * 32 <= g->m; p = gemm_next(p))
    for (int64_t q = 1; q == 1 || q * 64 <= g->n; q = gemm_next(q)) {
      int64_t m = gemm_tile(g->m, p), n = gemm_tile(g->n, q);
      double cost = gemm_cost(g, m, n);
      if (cost >= best) continue;
      best = cost;
      g->tile_m = m;
      g->tile_n = n;
    }
  g->tiles_n = cpu_pieces(g->n, g->tile_n);
  g->tiles = g->tiles_n * cpu_pieces(g->m, g->tile_m);
}

static void gemm_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const gemm_state *g = opaque;
  int64_t batch = index / g->tiles, tile = index % g->tiles;
  int64_t row = tile / g->tiles_n * g->tile_m;
  int64_t col = tile % g->tiles_n * g->tile_n;
  const float *a = g->a + batch * g->step_a +
                   (g->transpose_a ? row : row * g->lda);
  const float *b = g->b + batch * g->step_b +
                   (g->transpose_b ? col * g->ldb : col);
  float *c = g->c + batch * g->step_c + row * g->ldc + col;
  g->provider->sgemm(g->transpose_a, g->transpose_b,
                     (int)cpu_smaller(g->tile_m, g->m - row),
                     (int)cpu_smaller(g->tile_n, g->n - col), (int)g->k,
                     g->alpha, a, (int)g->lda, b, (int)g->ldb, g->beta, c,
                     (int)g->ldc);
}

static void cpu_gemm(lk_context *context, bool transpose_a, bool transpose_b,
                     int64_t m, int64_t n, int64_t k, float alpha,
                     const float *a, int64_t lda, const float *b, int64_t ldb,
                     float beta, float *c, int64_t ldc) {
  gemm_state g = {.provider = cpu_provider_of(context),
                  .transpose_a = transpose_a, .transpose_b = transpose_b,
                  .m = m, .n = n, .k = k, .alpha = alpha, .beta = beta,
                  .a = a, .b = b, .c = c,
                  .lda = lda, .ldb = ldb, .ldc = ldc};
  gemm_cut(&g);
  cpu_parallel(context, g.tiles, gemm_part, &g);
}

/* --- the operator ------------------------------------------------------- */

typedef struct round_state {
  const float *x;
  uint16_t *y;
  int64_t count;
  bool accumulate;
} round_state;

enum { ROUND_PART = 16384 };

/* The product's f32 copy rounded, or added and rounded, into a bf16 result. */
static void round_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const round_state *s = opaque;
  int64_t first = index * ROUND_PART;
  int64_t n = cpu_smaller(ROUND_PART, s->count - first);
  const float *restrict x = s->x + first;
  uint16_t *restrict y = s->y + first;
  if (s->accumulate)
    for (int64_t i = 0; i < n; i++)
      y[i] = lk_bf16_from_f32(lk_f32_from_bf16(y[i]) + x[i]);
  else
    for (int64_t i = 0; i < n; i++) y[i] = lk_bf16_from_f32(x[i]);
}

static gemm_state matmul_state(lk_context *context, const lk_call *call) {
  const lk_tensor *a = &call->in[0], *b = &call->in[1];
  const int64_t *da = a->shape.dim + a->shape.rank - 2;
  const int64_t *db = b->shape.dim + b->shape.rank - 2;
  gemm_state g = {.provider = cpu_provider_of(context),
                  .transpose_a = call->attr.transpose_a,
                  .transpose_b = call->attr.transpose_b,
                  .alpha = 1, .beta = call->attr.accumulate ? 1 : 0,
                  .a = a->data, .b = b->data, .c = call->out[0].data,
                  .lda = da[1], .ldb = db[1]};
  g.m = da[g.transpose_a ? 1 : 0];
  g.k = da[g.transpose_a ? 0 : 1];
  g.n = db[g.transpose_b ? 0 : 1];
  g.ldc = g.n;
  if (b->shape.rank == 2 && a->shape.rank > 2)
    g.m = lk_tensor_count(a) / g.k; /* leading dimensions are rows */
  g.step_a = g.m * g.k;
  g.step_b = g.k * g.n;
  g.step_c = g.m * g.n;
  gemm_cut(&g);
  return g;
}

static lk_status cpu_matmul(lk_context *context, const lk_call *call) {
  const lk_tensor *y = &call->out[0];
  lk_call inputs = *call;
  if (y->dtype == LK_BF16) inputs.out[0] = LK_ABSENT;
  LK_TRY(cpu_need_f32(context, &inputs));
  gemm_state g = matmul_state(context, call);
  int64_t batch = lk_tensor_count(y) / g.step_c;
  if (y->dtype == LK_BF16) {
    g.c = call->scratch;
    g.beta = 0;
  }
  cpu_parallel(context, batch * g.tiles, gemm_part, &g);
  if (y->dtype != LK_BF16) return LK_OK;
  round_state state = {call->scratch, y->data, lk_tensor_count(y),
                       call->attr.accumulate};
  cpu_parallel(context, cpu_pieces(state.count, ROUND_PART), round_part,
               &state);
  return LK_OK;
}

/* --- biases ------------------------------------------------------------- */

typedef struct bias_state {
  const float *x, *bias;
  float *y, *part;
  int64_t rows, columns, parts;
  bool accumulate;
} bias_state;

enum { BIAS_ROWS = 16 };

static void bias_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const bias_state *s = opaque;
  int64_t last = cpu_smaller((index + 1) * BIAS_ROWS, s->rows);
  for (int64_t r = index * BIAS_ROWS; r < last; r++) {
    const float *x = s->x + r * s->columns;
    float *y = s->y + r * s->columns;
#pragma GCC ivdep
    for (int64_t c = 0; c < s->columns; c++) y[c] = x[c] + s->bias[c];
  }
}

static lk_status cpu_bias(lk_context *context, const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  int64_t columns = lk_tensor_count(&call->in[1]);
  bias_state state = {.x = call->in[0].data, .bias = call->in[1].data,
                      .y = call->out[0].data, .columns = columns,
                      .rows = lk_tensor_count(&call->in[0]) / columns};
  cpu_parallel(context, cpu_pieces(state.rows, BIAS_ROWS), bias_part, &state);
  return LK_OK;
}

/* y [width] = (or +=) the sum of `parts` rows of `part`, in order: how every
 * gradient of a row vector ends. */
static void parts_add(const float *part, int64_t parts, int64_t width,
                      bool accumulate, float *y) {
  if (!accumulate) memset(y, 0, (size_t)width * sizeof *y);
  for (int64_t p = 0; p < parts; p++) row_add(y, part + p * width, width);
}

static void bias_backward_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const bias_state *s = opaque;
  float *sum = s->part + index * s->columns;
  int64_t last = (index + 1) * s->rows / s->parts;
  memset(sum, 0, (size_t)s->columns * sizeof *sum);
  for (int64_t r = index * s->rows / s->parts; r < last; r++)
    row_add(sum, s->x + r * s->columns, s->columns);
}

static lk_status cpu_bias_backward(lk_context *context, const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  int64_t columns = lk_tensor_count(&call->out[0]);
  bias_state state = {.x = call->in[0].data, .part = call->scratch,
                      .columns = columns,
                      .rows = lk_tensor_count(&call->in[0]) / columns};
  state.parts = lk_row_parts(state.rows);
  cpu_parallel(context, state.parts, bias_backward_part, &state);
  parts_add(state.part, state.parts, columns, call->attr.accumulate,
            call->out[0].data);
  return LK_OK;
}
