/* Small products in registers, for operators that work on blocks too small
 * for the library's packing: six rows at a time against panels, matrices
 * stored as stripes of TILE_COLUMNS columns, each stripe row by row. */
#ifndef LK_CPU_TILE_H
#define LK_CPU_TILE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "cpu.h"

#if defined(__AVX512F__)
enum { TILE_BYTES = 64 };
#elif defined(__AVX__)
enum { TILE_BYTES = 32 };
#else
enum { TILE_BYTES = 16 };
#endif
typedef float tile_v __attribute__((vector_size(TILE_BYTES)));
typedef float tile_m
    __attribute__((vector_size(TILE_BYTES), aligned(4), may_alias));

/* Floats of a vector, columns of a stripe, rows of a tile. */
enum { TILE_V = TILE_BYTES / 4, TILE_COLUMNS = 2 * TILE_V, TILE_ROWS = 6 };

#pragma GCC push_options
#pragma GCC optimize("fp-contract=fast") /* fused where there are such */

/* c [rows, vectors · TILE_V] = (or +=) Σ_k a(i, k) · b[k], with a(i, k) at
 * a[i · ai + k · ak] and b a stripe. `rows` and `vectors` are constants. */
static inline __attribute__((always_inline)) void tile_one(
    int rows, int vectors, int64_t k, const float *a, int64_t ai, int64_t ak,
    const float *b, float *c, int64_t ldc, bool add) {
  tile_v s[TILE_ROWS][2];
  const tile_v none = {0};
#pragma GCC unroll 6
  for (int i = 0; i < rows; i++) s[i][0] = s[i][1] = none;
  for (int64_t q = 0; q < k; q++) {
    const float *row = b + q * TILE_COLUMNS;
    tile_v b0 = (tile_v)*(const tile_m *)row;
    tile_v b1 = (tile_v)*(const tile_m *)(row + TILE_V);
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
      float x = a[i * ai + q * ak];
      s[i][0] += x * b0;
      if (vectors > 1) s[i][1] += x * b1;
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < vectors; v++) {
      tile_m *to = (tile_m *)(c + i * ldc + v * TILE_V);
      if (add) s[i][v] += (tile_v)*to;
      *to = (tile_m)s[i][v];
    }
}

/* The same for any n columns: c is written in whole vectors; `step` floats lie
 * between the starts of two stripes of b. */
#define TILE_LINE(rows)                                                     \
  static void tile_line_##rows(int64_t n, int64_t k, const float *a,       \
                               int64_t ai, int64_t ak, const float *b,     \
                               int64_t step, float *c, int64_t ldc,        \
                               bool add) {                                 \
    for (; n > TILE_V; n -= TILE_COLUMNS, b += step, c += TILE_COLUMNS)    \
      tile_one(rows, 2, k, a, ai, ak, b, c, ldc, add);                     \
    if (n > 0) tile_one(rows, 1, k, a, ai, ak, b, c, ldc, add);            \
  }
TILE_LINE(1)
TILE_LINE(2)
TILE_LINE(3)
TILE_LINE(4)
TILE_LINE(5)
TILE_LINE(6)
#undef TILE_LINE
#pragma GCC pop_options

typedef void (*tile_line)(int64_t n, int64_t k, const float *a, int64_t ai,
                          int64_t ak, const float *b, int64_t step, float *c,
                          int64_t ldc, bool add);

/* c [rows, n] = (or +=) a · b for rows <= TILE_ROWS, see tile_one. */
static inline void tile_rows(int64_t rows, int64_t n, int64_t k,
                             const float *a, int64_t ai, int64_t ak,
                             const float *b, int64_t step, float *c,
                             int64_t ldc, bool add) {
  static const tile_line lines[] = {tile_line_1, tile_line_2, tile_line_3,
                                    tile_line_4, tile_line_5, tile_line_6};
  lines[rows - 1](n, k, a, ai, ak, b, step, c, ldc, add);
}

/* Floats that stripes of a [rows, columns] matrix take. */
static inline int64_t tile_size(int64_t rows, int64_t columns) {
  return (columns + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS * rows;
}

/* x [rows, columns] with rows of `ld` floats into stripes `step` apart,
 * zero-filled on the right. */
static void tile_pack(const float *x, int64_t ld, int64_t rows,
                      int64_t columns, float *to, int64_t step) {
  for (int64_t c = 0; c < columns; c += TILE_COLUMNS, to += step) {
    int64_t n = columns - c < TILE_COLUMNS ? columns - c : TILE_COLUMNS;
    for (int64_t r = 0; r < rows; r++) {
      float *restrict row = to + r * TILE_COLUMNS;
      const float *restrict from = x + r * ld + c;
      if (n == TILE_COLUMNS) { /* a constant: no call */
        memcpy(row, from, TILE_COLUMNS * sizeof *row);
        continue;
      }
      for (int64_t i = 0; i < TILE_COLUMNS; i++) row[i] = i < n ? from[i] : 0;
    }
  }
}

typedef float tile_8 __attribute__((vector_size(32)));
typedef int32_t tile_8i __attribute__((vector_size(32)));
typedef float tile_8m __attribute__((vector_size(32), aligned(4), may_alias));

#define TILE_SHUFFLE(a, b, ...) CPU_SHUFFLE(tile_8i, a, b, __VA_ARGS__)

/* Eight rows of x, `ld` floats apart, turned: eight numbers of each of eight
 * columns, `step` floats apart at `to`; times `scale`. */
static inline void tile_turn_8(const float *x, int64_t ld, float scale,
                               float *to, int64_t step) {
  tile_8 r[8], t[8];
  for (int i = 0; i < 8; i++)
    r[i] = scale * (tile_8)*(const tile_8m *)(x + i * ld);
  for (int i = 0; i < 8; i += 2) { /* pairs of rows, by two columns */
    t[i] = TILE_SHUFFLE(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    t[i + 1] = TILE_SHUFFLE(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4) /* four rows, a column in each half */
    for (int j = 0; j < 2; j++) {
      const tile_8 *p = &t[i + j];
      r[i + 2 * j] = TILE_SHUFFLE(p[0], p[2], 0, 1, 8, 9, 4, 5, 12, 13);
      r[i + 2 * j + 1] = TILE_SHUFFLE(p[0], p[2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  for (int i = 0; i < 4; i++) {
    *(tile_8m *)(to + i * step) =
        (tile_8m)TILE_SHUFFLE(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    *(tile_8m *)(to + (i + 4) * step) =
        (tile_8m)TILE_SHUFFLE(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

/* scale · xᵀ, where x [rows, columns] has rows of `ld` floats, into stripes
 * of `columns` rows, one after the other, zero-filled on the right. */
static void tile_pack_turned(const float *x, int64_t ld, int64_t rows,
                             int64_t columns, float scale, float *to) {
  for (int64_t r = 0; r < rows; r += 8) { /* few rows: few cache sets */
    float *at = to + r / TILE_COLUMNS * TILE_COLUMNS * columns +
                r % TILE_COLUMNS;
    int64_t n = rows - r < 8 ? rows - r : 8, c = 0;
    const float *from = x + r * ld;
    for (; n == 8 && c + 8 <= columns; c += 8)
      tile_turn_8(from + c, ld, scale, at + c * TILE_COLUMNS, TILE_COLUMNS);
    for (; c < columns; c++) {
      float *restrict column = at + c * TILE_COLUMNS;
      for (int64_t i = 0; i < n; i++) column[i] = scale * from[i * ld + c];
    }
  }
  for (int64_t r = rows; r % TILE_COLUMNS != 0; r++)
    for (int64_t c = 0; c < columns; c++)
      to[r / TILE_COLUMNS * TILE_COLUMNS * columns + r % TILE_COLUMNS +
         c * TILE_COLUMNS] = 0;
}

#endif
