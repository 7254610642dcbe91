/* Newton-Schulz on the CPU: the nearest orthogonal matrix, roughly, of each of
 * a batch (Muon; Jordan et al. 2024). Every product is cut in tiles that
 * depend on the shape alone; of symmetric ones only a half is computed. Reads
 * and writes tensors with optimizer.c's helpers. */
#include "cpu.h"
#include "vector.h"

/* k matrices [rows, cols], worked on as x [r, c], r <= c, in f32: transposed
 * when rows > cols. */
typedef struct schulz_state {
  const cpu_provider *provider;
  const lk_tensor *u, *o;
  int64_t k, rows, cols, r, c;
  float *x, *gram, *poly, *stripe; /* [k, r, c], twice [k, r, r], by lane */
  int64_t tile, tiles, pairs;      /* of symmetric products */
  int64_t width, stripes;          /* of the product with x */
  float eps;
} schulz_state;

enum {
  SCHULZ_TILE = 256,  /* most rows of a tile of a symmetric product */
  SCHULZ_BAND = 64    /* rows of x that are read or written together */
};

/* Even pieces of at most `most`, multiples of 16. */
static int64_t schulz_even(int64_t size, int64_t most) {
  int64_t each = cpu_pieces(size, cpu_pieces(size, most));
  return cpu_pieces(each, 16) * 16;
}

static schulz_state schulz_of(lk_context *context, const lk_call *call) {
  const lk_shape *shape = &call->in[0].shape;
  schulz_state s = {.provider = cpu_provider_of(context),
                    .u = &call->in[0], .o = &call->out[0],
                    .eps = (float)call->attr.eps, .x = call->scratch};
  s.rows = shape->dim[shape->rank - 2];
  s.cols = shape->dim[shape->rank - 1];
  s.k = lk_tensor_count(&call->in[0]) / (s.rows * s.cols);
  s.r = cpu_smaller(s.rows, s.cols);
  s.c = cpu_larger(s.rows, s.cols);
  s.gram = s.x + s.k * s.r * s.c;
  s.poly = s.gram + s.k * s.r * s.r;
  s.stripe = s.poly + s.k * s.r * s.r;
  s.tile = schulz_even(s.r, cpu_smaller(SCHULZ_TILE, (s.r + 1) / 2));
  s.tiles = cpu_pieces(s.r, s.tile);
  s.pairs = s.tiles * (s.tiles + 1) / 2;
  s.width = schulz_even(s.c, LK_NS_COLUMNS);
  s.stripes = cpu_pieces(s.c, s.width);
  return s;
}

/* ‖u‖_F of matrix `index`, to gram's first element. */
static void schulz_norm(void *opaque, int64_t index, int lane) {
  (void)lane;
  const schulz_state *s = opaque;
  float tile[UPDATE_TILE];
  double sum = 0;
  int64_t first = index * s->r * s->c, last = first + s->r * s->c;
  for (int64_t i = first; i < last; i += UPDATE_TILE) {
    int64_t n = cpu_smaller(UPDATE_TILE, last - i);
    const float *u = update_read(s->u, i, n, tile);
    sum += (double)row_dot(u, u, n);
  }
  s->gram[index * s->r * s->r] = (float)sqrt(sum);
}

/* n <= UPDATE_TILE values at (row, col) of a matrix of u into x, divided. */
static void schulz_take(const schulz_state *s, int64_t matrix, int64_t row,
                        int64_t col, int64_t n, float norm) {
  float tile[UPDATE_TILE];
  float *x = s->x + matrix * s->r * s->c;
  int64_t first = (matrix * s->rows + row) * s->cols + col;
  const float *u = update_read(s->u, first, n, tile);
  if (s->rows <= s->cols)
    for (int64_t j = 0; j < n; j++) x[row * s->c + col + j] = u[j] / norm;
  else
    for (int64_t j = 0; j < n; j++) x[(col + j) * s->c + row] = u[j] / norm;
}

static void schulz_begin(void *opaque, int64_t index, int lane) {
  (void)lane;
  const schulz_state *s = opaque;
  int64_t bands = cpu_pieces(s->rows, SCHULZ_BAND);
  int64_t matrix = index / bands, first = index % bands * SCHULZ_BAND;
  int64_t last = cpu_smaller(s->rows, first + SCHULZ_BAND);
  float norm = s->gram[matrix * s->r * s->r] + s->eps;
  for (int64_t col = 0; col < s->cols; col += 32)
    for (int64_t row = first; row < last; row++)
      schulz_take(s, matrix, row, col, cpu_smaller(32, s->cols - col), norm);
}

/* The tile pair of a symmetric product: row tile >= column tile. */
static void schulz_pair(const schulz_state *s, int64_t pair, int64_t *row,
                        int64_t *col) {
  int64_t i = 0;
  for (; pair > i; i++) pair -= i + 1;
  *row = i * s->tile;
  *col = pair * s->tile;
}

/* Copy tile (row, col) of a symmetric [r, r] to (col, row): of a tile on the
 * diagonal the triangle below it. */
static void schulz_mirror(float *a, int64_t r, int64_t row, int64_t col,
                          int64_t m, int64_t n) {
  for (int64_t j0 = 0; j0 < n; j0 += 16) /* few columns: few cache lines */
    for (int64_t i = row == col ? j0 + 1 : 0; i < m; i++) {
      int64_t last = cpu_smaller(row == col ? i : n, j0 + 16);
      for (int64_t j = j0; j < cpu_smaller(last, n); j++)
        a[(col + j) * r + row + i] = a[(row + i) * r + col + j];
    }
}

/* Tile (row, col) of c = alpha · a aᵀ + beta · c, a [r, k], and its mirror
 * image. */
static void schulz_tile(const schulz_state *s, const float *a, int64_t k,
                        float alpha, float beta, float *c, int64_t row,
                        int64_t col) {
  int64_t m = cpu_smaller(s->tile, s->r - row);
  int64_t n = cpu_smaller(s->tile, s->r - col);
  float *to = c + row * s->r + col;
  if (row == col)
    s->provider->ssyrk((int)m, (int)k, alpha, a + row * k, (int)k, beta, to,
                       (int)s->r);
  else
    s->provider->sgemm(false, true, (int)m, (int)n, (int)k, alpha, a + row * k,
                       (int)k, a + col * k, (int)k, beta, to, (int)s->r);
  schulz_mirror(c, s->r, row, col, m, n);
}

/* gram = x xᵀ, one tile and its mirror image. */
static void schulz_gram(void *opaque, int64_t index, int lane) {
  (void)lane;
  const schulz_state *s = opaque;
  int64_t matrix = index / s->pairs, row, col;
  schulz_pair(s, index % s->pairs, &row, &col);
  schulz_tile(s, s->x + matrix * s->r * s->c, s->c, 1.0f, 0.0f,
              s->gram + matrix * s->r * s->r, row, col);
}

/* poly = −4.7750 gram + 2.0315 gram², the same way: gram is its own
 * transpose. */
static void schulz_poly(void *opaque, int64_t index, int lane) {
  (void)lane;
  const schulz_state *s = opaque;
  int64_t matrix = index / s->pairs, row, col;
  schulz_pair(s, index % s->pairs, &row, &col);
  int64_t m = cpu_smaller(s->tile, s->r - row);
  int64_t n = cpu_smaller(s->tile, s->r - col);
  const float *a = s->gram + matrix * s->r * s->r;
  float *b = s->poly + matrix * s->r * s->r;
  for (int64_t i = row; i < row + m; i++)
    memcpy(b + i * s->r + col, a + i * s->r + col, (size_t)n * sizeof *b);
  schulz_tile(s, a, s->r, 2.0315f, -4.7750f, b, row, col);
}

/* x = 3.4445 x + poly x on one stripe of columns, which depends on itself
 * alone: it is copied aside first. */
static void schulz_apply(void *opaque, int64_t index, int lane) {
  const schulz_state *s = opaque;
  int64_t matrix = index / s->stripes, col = index % s->stripes * s->width;
  int64_t n = cpu_smaller(s->width, s->c - col);
  float *x = s->x + matrix * s->r * s->c + col;
  float *old = s->stripe + (int64_t)lane * s->r * LK_NS_COLUMNS;
  for (int64_t i = 0; i < s->r; i++)
    memcpy(old + i * n, x + i * s->c, (size_t)n * sizeof *old);
  s->provider->sgemm(false, false, (int)s->r, (int)n, (int)s->r, 1.0f,
                     s->poly + matrix * s->r * s->r, (int)s->r, old, (int)n,
                     3.4445f, x, (int)s->c);
}

/* A band of o from x, transposed back. */
static void schulz_end(void *opaque, int64_t index, int lane) {
  (void)lane;
  const schulz_state *s = opaque;
  int64_t bands = cpu_pieces(s->rows, SCHULZ_BAND);
  int64_t matrix = index / bands, first = index % bands * SCHULZ_BAND;
  int64_t last = cpu_smaller(s->rows, first + SCHULZ_BAND);
  const float *x = s->x + matrix * s->r * s->c;
  float tile[32];
  for (int64_t col = 0; col < s->cols; col += 32)
    for (int64_t row = first; row < last; row++) {
      int64_t n = cpu_smaller(32, s->cols - col);
      for (int64_t j = 0; j < n; j++)
        tile[j] = s->rows <= s->cols ? x[row * s->c + col + j]
                                     : x[(col + j) * s->c + row];
      update_write(s->o, (matrix * s->rows + row) * s->cols + col, tile, n);
    }
}

static lk_status cpu_newton_schulz(lk_context *context, const lk_call *call) {
  schulz_state s = schulz_of(context, call);
  int64_t bands = s.k * cpu_pieces(s.rows, SCHULZ_BAND);
  cpu_parallel(context, s.k, schulz_norm, &s);
  cpu_parallel(context, bands, schulz_begin, &s);
  for (int64_t step = 0; step < call->attr.steps; step++) {
    cpu_parallel(context, s.k * s.pairs, schulz_gram, &s);
    cpu_parallel(context, s.k * s.pairs, schulz_poly, &s);
    cpu_parallel(context, s.k * s.stripes, schulz_apply, &s);
  }
  cpu_parallel(context, bands, schulz_end, &s);
  return LK_OK;
}
