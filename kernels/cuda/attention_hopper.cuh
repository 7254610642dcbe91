/* Hopper's attention backward: its block's memory and barriers, and how tasks
 * are numbered. */
#ifndef LK_CUDA_ATTENTION_HOPPER_CUH
#define LK_CUDA_ATTENTION_HOPPER_CUH

#include "attention_queries.cuh"
#include "bulk.cuh"

namespace hopper {

enum {
  D = 64, ROWS = LK_ATTENTION_QUERY_TILE(D), KEYS = LK_ATTENTION_KEY_TILE(D),
  SINGLE = KEYS / ROWS, THREADS = 512,
  PASSER = 32, QUERIES = 128, KEY_THREADS = 256, /* first ones */
  PAIRS = 3, STAGES = 4, HANDS = 3,    /* how many of each are under way */
  TILE = ROWS * D * 2, KEY_TILE = KEYS * D * 2, PAIR = 2 * KEY_TILE,
  STAGE = 2 * TILE, DS_TILE = KEYS * ROWS * 2,
  KEPT = LK_ATTENTION_KEPT_TILE * 4, BARRIER_BYTES = 192,
  SIDE = ROWS * 8 + 2 * KEPT,          /* stats, kept of a stage */
  /* k v | q d_o | ds | stats kept | barriers | places | turns */
  STAGES_AT = PAIRS * PAIR, DS_AT = STAGES_AT + STAGES * STAGE,
  SIDE_AT = DS_AT + HANDS * DS_TILE, BARRIERS_AT = SIDE_AT + STAGES * SIDE,
  PLACES_AT = BARRIERS_AT + BARRIER_BYTES,
  TURNS_AT = PLACES_AT + PAIRS * (int)sizeof(backward_place),
  BYTES = TURNS_AT + HANDS * 16 + 1024, /* to align */
  HELP_REGISTERS = 32, QUERY_REGISTERS = 96, KEY_REGISTERS = 192, /* 4 · 128 */
  KEY_BARRIER = 1                      /* and 2, 3: of a warpgroup of keys */
};

/* Barriers: a stage is loaded or free, a pair free, ds made or taken, a turn's
 * additions left or passed on. */
enum {
  LOADED = 0, FREE = LOADED + STAGES, PAIR_FREE = FREE + STAGES,
  MADE = PAIR_FREE + PAIRS, TAKEN = MADE + HANDS, LEFT = TAKEN + HANDS,
  PASSED = LEFT + HANDS
};
static_assert((PASSED + HANDS) * 8 <= BARRIER_BYTES, "barriers have room");

/* What tiles are copied from: of qkv [B, T, H + 2K, D] and d_o [B, T, H, D] 64
 * rows of a head, of stats [B·H, 2T] those of 64 rows. */
struct maps {
  CUtensorMap qkv, d_o, stats;
};

/* A turn to be passed on: NULL: there are no more. */
struct turn_note {
  uint32_t *turns;
  uint32_t turn;
};

/* A block's memory: as it is addressed by products and by threads. */
struct memory {
  uint32_t at;
  char *bytes;
  __device__ __forceinline__ uint32_t barrier(int which) const {
    return at + BARRIERS_AT + which * 8;
  }
  /* Of a task; `block` is negative when there are no more. */
  __device__ __forceinline__ backward_place *place(int slot) const {
    return (backward_place *)(void *)(bytes + PLACES_AT) + slot;
  }
  __device__ __forceinline__ turn_note *note(int hand) const {
    return (turn_note *)(void *)(bytes + TURNS_AT) + hand;
  }
};

/* Tiles of keys of a head, tiles of queries, tasks of a launch. Heads that
 * share keys are apart by the tasks of `spread` sequences, or some would wait
 * for the others' sums. */
struct extent {
  int blocks, tiles, tasks, spread;
};

static __host__ __device__ __forceinline__ extent
extent_of(const attention_args &a) {
  extent e;
  e.blocks = (a.seq + KEYS - 1) / KEYS;
  e.tiles = (a.seq + ROWS - 1) / ROWS;
  e.tasks = e.blocks * a.batch * a.heads;
  e.spread = 1;
  if (a.heads > a.kv_heads) {
    const int shared = a.kv_heads * e.blocks;
    e.spread = min(a.batch, (3 * a.hopper / 2 + shared - 1) / shared);
  }
  return e;
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* Task by task: key tiles from the last to the first, head after head, those of
 * a group far apart. Waits for tasks before it only. */
static __device__ __forceinline__ backward_place
place_of(const attention_args &a, const extent &e, int task) {
  backward_place at = {};
  if (task >= e.tasks) {
    at.block = -1;
    return at;
  }
  const int group = a.heads / a.kv_heads, shared = a.kv_heads * e.blocks;
  const int first = task / (e.spread * group * shared) * e.spread;
  const int sequences = min(e.spread, a.batch - first);
  task -= first * group * shared;
  const int turn = task / (sequences * shared);
  task -= turn * sequences * shared;
  at.b = first + task / shared;
  at.kv = task % shared / e.blocks;
  at.h = at.kv * group + turn;
  at.block = e.blocks - 1 - task % e.blocks;
  at.key = at.block * KEYS;
  at.pitch = (int64_t)(a.heads + 2 * a.kv_heads) * a.width;
  at.q = (int64_t)at.b * a.seq * at.pitch + at.h * a.width;
  at.k = at.q + (a.heads - at.h + at.kv) * a.width;
  at.unit = a.scale * LOG2_E;
  return at;
}

#endif

}

#endif
