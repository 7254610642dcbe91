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
  TILE = 4,                            /* boxes of a pair's tile, each way */
  PAIR = 2, ROWS = TILE / PAIR,        /* blocks; either one's rows of boxes */
  STAGES = 3, STAGE = (ROWS + TILE) * BOX_BYTES,
  /* stages | results of either warpgroup | barriers */
  RESULTS = TILE * BOX_BYTES, RESULTS_AT = STAGES * STAGE,
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

/* How tiles are dealt out: a matrix has `tiles`; of all matrices' the first
 * `whole` are a task each, of the others either half is one. */
typedef struct plan {
  int tiles, whole, tasks;
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

/* Where the last turn has tiles for half of the pairs at most, they are cut in
 * two: that turn takes half the time. */
static plan plan_of(int64_t side, int64_t count, int64_t pairs) {
  const int64_t lines = (side + TILE * BOX - 1) / (TILE * BOX);
  const int64_t tiles = lines * (lines + 1) / 2, all = tiles * count;
  const int64_t last = all % pairs, cut = 2 * last <= pairs ? last : 0;
  plan p = {(int)tiles, (int)(all - cut), (int)(all + cut)};
  return p;
}

/* A block's part of a task: where its first box is, counted in boxes, and how
 * many boxes of columns are loaded. */
struct place {
  int matrix, row, column, boxes;
};

/* Of task number `task`, of a pair's block `rank`. */
static __device__ __forceinline__ place place_of(const plan &p, int task,
                                                 int rank) {
  const int over = task - p.whole; /* among the halves, if not negative */
  const int half = over >= 0 ? over % 2 : 0;
  int tile = over >= 0 ? p.whole + over / 2 : task, line = 0;
  place at;
  at.boxes = over >= 0 ? TILE / 2 : TILE;
  at.matrix = tile / p.tiles;
  tile %= p.tiles;
  while (tile > line) tile -= ++line; /* tile (line, tile), tile <= line */
  at.row = line * TILE + rank * ROWS;
  at.column = tile * TILE + half * (TILE / 2);
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
struct turns {
  int first, stride, rank;
  __device__ __forceinline__ turns()
      : first(blockIdx.x / PAIR), stride(gridDim.x / PAIR),
        rank(blockIdx.x % PAIR) {}
};

#endif

}

#endif
