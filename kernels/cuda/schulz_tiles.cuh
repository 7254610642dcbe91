/* Newton-Schulz's symmetric products on Hopper: how a launch's tiles are dealt
 * out to blocks, and what is where in a block's memory. */
#ifndef LK_CUDA_SCHULZ_TILES_CUH
#define LK_CUDA_SCHULZ_TILES_CUH

#include "bulk.cuh"
#include "warpgroup_wide.cuh"

namespace square {

enum {
  BOX = 64, BOX_BYTES = BOX * BOX * 2, /* 64 rows of 128 bytes */
  THREADS = 384, COPY_REGISTERS = 40, SUM_REGISTERS = 232,
  ROWS = 2, COLUMNS = 4,               /* boxes of a block's tile */
  STAGES = 3, STAGE = (ROWS + COLUMNS) * BOX_BYTES,
  /* stages | results of either warpgroup | barriers */
  RESULTS = COLUMNS * BOX_BYTES, RESULTS_AT = STAGES * STAGE,
  BARRIERS_AT = RESULTS_AT + ROWS * RESULTS,
  BARRIER_BYTES = 128, BYTES = BARRIERS_AT + BARRIER_BYTES + 1024 /* align */
};

/* Barriers: a stage is loaded or free; of a warpgroup, c is there and room for
 * results, results are made (as they lie, then turned), those taken. */
enum {
  LOADED = 0, FREE = LOADED + STAGES, READY = FREE + STAGES,
  MADE = READY + ROWS, TAKEN = MADE + ROWS, BARRIERS = TAKEN + ROWS
};
static_assert(BARRIERS * 8 <= BARRIER_BYTES, "barriers have room");

/* How tiles are dealt out: a matrix has `fulls` whole ones and `halves` half as
 * wide (of a pair's tiles none); all whole ones but the last `cut` come first,
 * then their halves, then the other halves. */
typedef struct plan {
  int fulls, halves, kept, cut, tasks;
} plan;

typedef struct work {
  plan p;
  int side, steps; /* steps: of 64 terms */
  float alpha, beta, shift;
  bool shifted;
} work;

/* What boxes are copied from and to. */
struct maps {
  CUtensorMap a, b, c, d, shifted;
};

/* --- tiles ---------------------------------------------------------------- */

/* How long `groups` take, counted in halves, when whole tiles come first. */
static int64_t length_of(int64_t fulls, int64_t halves, int64_t groups) {
  const int64_t over = fulls % groups;
  int64_t length = fulls / groups * 2;
  if (over > 0) length += 2, halves -= groups - over;
  return halves > 0 ? length + (halves + groups - 1) / groups : length;
}

/* The whole tiles that would not keep all `groups` busy are cut where this is
 * the sooner end. */
static plan plan_of(int64_t side, int64_t count, int64_t groups, bool pairs) {
  const int64_t rows = (side + ROWS * BOX - 1) / (ROWS * BOX);
  const int64_t upper = (rows + 1) / 2;
  const int64_t fulls = pairs ? upper * (upper + 1) / 2 : rows / 2 * upper;
  const int64_t halves = pairs ? 0 : upper, all = fulls * count;
  int64_t cut = all % groups;
  if (length_of(all - cut, halves * count + 2 * cut, groups) >=
      length_of(all, halves * count, groups))
    cut = 0;
  plan p = {(int)fulls, (int)halves, (int)(all - cut), (int)cut,
            (int)(all + cut + halves * count)};
  return p;
}

/* A block's tile: where its first box is, counted in boxes, and how many boxes
 * of columns are loaded. */
struct place {
  int matrix, row, column, boxes;
};

/* Of task number `task`, of a pair's block `rank`. */
template <int PAIR>
static __device__ __forceinline__ place place_of(const plan &p, int task,
                                                 int rank) {
  place at = {0, 0, 0, COLUMNS};
  int full = task, half = 0;
  if (task >= p.kept) {
    half = task - p.kept;
    at.boxes = COLUMNS / 2;
    if (PAIR == 1 && half >= 2 * p.cut) { /* on the diagonal */
      half -= 2 * p.cut;
      at.matrix = half / p.halves;
      at.row = at.column = half % p.halves * 2 * ROWS;
      return at;
    }
    full = p.kept + half / 2;
    half %= 2;
  }
  at.matrix = full / p.fulls;
  full %= p.fulls;
  int line = PAIR == 2 ? 0 : 1; /* of tiles; odd ones have one more */
  if (PAIR == 2) while (full > line) full -= ++line;
  else
    while (full >= (line + 1) / 2) full -= (line + 1) / 2, line++;
  at.row = (line * PAIR + rank) * ROWS;
  at.column = full * COLUMNS + half * (COLUMNS / 2);
  return at;
}

/* Boxes of row `row` of boxes that are on or below the diagonal. */
static __device__ __forceinline__ int kept_of(const work &k, const place &at,
                                              int row) {
  if (row * BOX >= k.side) return 0;
  return max(0, min(at.boxes, row - at.column + 1));
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

struct memory {
  uint32_t at;
  __device__ __forceinline__ uint32_t barrier(int which) const {
    return at + BARRIERS_AT + which * 8;
  }
  __device__ __forceinline__ uint32_t result(int group, int box) const {
    return at + RESULTS_AT + group * RESULTS + box * BOX_BYTES;
  }
};

/* A stage, and the parity of the phase in which it is next loaded. */
struct ring {
  int slot;
  uint32_t phase;
  __device__ __forceinline__ void next() {
    if (++slot == STAGES) slot = 0, phase ^= 1;
  }
};

/* Which tasks are this block's: every `stride`-th. */
template <int PAIR> struct turns {
  int first, stride, rank;
  __device__ __forceinline__ turns()
      : first(blockIdx.x / PAIR), stride(gridDim.x / PAIR),
        rank(blockIdx.x % PAIR) {}
};

#endif

}

#endif
