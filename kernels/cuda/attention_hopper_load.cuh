/* Hopper's attention backward, warpgroup 0: a thread that has tiles copied
 * ahead for the others, and one that passes their turns on. */
#ifndef LK_CUDA_ATTENTION_HOPPER_LOAD_CUH
#define LK_CUDA_ATTENTION_HOPPER_LOAD_CUH

#include "attention_hopper.cuh"

namespace hopper {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* How far the copies are: of task number `pair` − 1, at `at`, tile `tile` comes
 * next; `stage` tiles were asked for before it; `claimed`: the next task. */
struct loader {
  bool more;
  int pair, tile, stage;
  uint32_t claimed;
  backward_place at;
  __device__ __forceinline__ uint32_t loaded(const memory &m) const {
    return m.barrier(LOADED + stage % STAGES);
  }
};

/* The next task begins: its place for all to see. */
static __device__ __forceinline__ void
load_begin(const attention_args &a, const extent &e, const memory &m,
           loader &l) {
  const int slot = l.pair % PAIRS;
  barrier_wait(m.barrier(PAIR_FREE + slot), ~(l.pair / PAIRS) & 1);
  l.at = place_of(a, e, (int)l.claimed);
  *m.place(slot) = l.at;
  l.pair++;
  l.more = l.at.block >= 0;
  l.tile = l.at.block * SINGLE;
}

/* Its keys and values. */
static __device__ __forceinline__ void
load_keys(const attention_args &a, const maps &maps, const memory &m,
          const loader &l) {
  const uint32_t to = m.at + (l.pair - 1) % PAIRS * PAIR, b = l.loaded(m);
  const int head = a.heads + l.at.kv;
#pragma unroll
  for (int i = 0; i < SINGLE; i++) {
    const int row = l.at.key + i * ROWS;
    bulk_box(to + i * TILE, &maps.qkv, 0, head, row, l.at.b, b);
    bulk_box(to + KEY_TILE + i * TILE, &maps.qkv, 0, head + a.kv_heads, row,
             l.at.b, b);
  }
}

/* q, d_o, stats and what is kept of the next tile, `kept` tiles of keys. */
static __device__ __forceinline__ void
load_rows(const attention_args &a, const maps &maps, const memory &m,
          const loader &l, int kept) {
  const int slot = l.stage % STAGES, row = l.tile * ROWS;
  const uint32_t to = m.at + STAGES_AT + slot * STAGE, b = l.loaded(m);
  const uint32_t side = m.at + SIDE_AT + slot * SIDE;
  const int bh = l.at.b * a.heads + l.at.h;
  bulk_box(to, &maps.qkv, 0, l.at.h, row, l.at.b, b);
  bulk_box(to + TILE, &maps.d_o, 0, l.at.h, row, l.at.b, b);
  bulk_box(side, &maps.stats, row * 2, bh, b);
  if (kept > 0)
    bulk_run(side + ROWS * 8,
             a.kept + bh * lk_attention_kept_words(a.seq) +
                 lk_attention_kept_tile(l.tile, l.at.key / 64) *
                     LK_ATTENTION_KEPT_TILE,
             kept * KEPT, b);
}

/* Tiles of all tasks, and after the last the word that it was. With the last
 * tile of a task the next one is claimed: late, since others wait for whoever
 * has it. */
template <bool DROP>
static __device__ __forceinline__ void
load_all(const attention_args &a, const maps &maps, const extent &e,
         const memory &m) {
  loader l = {};
  l.tile = e.tiles;
  l.claimed = atomicAdd(a.taken, 1u);
  for (;; l.tile++, l.stage++) {
    const bool begins = l.tile == e.tiles;
    barrier_wait(m.barrier(FREE + l.stage % STAGES), ~(l.stage / STAGES) & 1);
    if (begins) load_begin(a, e, m, l);
    if (begins && !l.more) break;
    /* tiles of keys behind the diagonal are not looked at */
    const int kept = DROP ? min(SINGLE, l.tile - l.at.block * SINGLE + 1) : 0;
    barrier_expect(l.loaded(m),
                   STAGE + ROWS * 8 + kept * KEPT + (begins ? PAIR : 0));
    if (begins) load_keys(a, maps, m, l);
    load_rows(a, maps, m, l, kept);
    if (l.tile == e.tiles - 1) l.claimed = atomicAdd(a.taken, 1u);
  }
  barrier_arrive(l.loaded(m));
}

/* Turns on to other blocks: slow, so that one thread does nothing else. */
static __device__ __forceinline__ void pass_turns(const memory &m) {
  for (int n = 0;; n++) {
    const int hand = n % HANDS;
    barrier_wait(m.barrier(LEFT + hand), n / HANDS & 1);
    const turn_note note = *m.note(hand);
    barrier_arrive(m.barrier(PASSED + hand));
    if (!note.turns) return;
    turn_pass(note.turns, note.turn);
  }
}

#endif

}

#endif
