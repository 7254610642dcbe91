/* Hopper's attention backward, warpgroup 0: copies tiles ahead for the others
 * and passes their turns on. */
#ifndef LK_CUDA_ATTENTION_HOPPER_LOAD_CUH
#define LK_CUDA_ATTENTION_HOPPER_LOAD_CUH

#include "attention_hopper.cuh"

namespace hopper {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* How far the copies are: of task number `pair` − 1 tile `tile` comes next;
 * `stage` tiles were asked for before it. Pointers are to row 0 of the task's
 * head, q and d_o to the thread's own piece of its own first row; `rows`: how
 * many there are. */
struct loader {
  bool more;
  int pair, tile, stage, key_tile, rows;
  uint32_t claimed; /* thread 0's: the next task */
  const char *q, *d_o;
  const float *stats;
  const uint32_t *kept;
};

/* The thread's part of COUNT rows from `first` on: from · [row 0 …] to `to`. */
template <int COUNT>
static __device__ __forceinline__ void load_tile(uint32_t to, const char *from,
                                                 int pitch, int first,
                                                 int rows) {
  const int row = threadIdx.x / 8;
  from += (int64_t)first * pitch;
  to += piece_at<D>(row, threadIdx.x % 8);
#pragma unroll
  for (int i = 0; i < COUNT; i += LOADERS / 8) {
    copy_async16(to + i * D * 2, from, first + row + i < rows);
    from += LOADERS / 8 * pitch;
  }
}

/* The next task begins: its place for all to see, and its keys and values. */
static __device__ __forceinline__ void
load_keys(const attention_args &a, const extent &e, const memory &m,
          loader &l) {
  const int slot = l.pair % PAIRS;
  barrier_wait(m.barrier(PAIR_FREE + slot), ~(l.pair / PAIRS) & 1);
  if (threadIdx.x == 0) *m.place(slot) = place_of(a, e, (int)l.claimed);
  barrier_among(LOAD_BARRIER, LOADERS);
  const backward_place &at = *m.place(slot);
  l.pair++;
  l.more = at.block >= 0;
  if (!l.more) return;
  const int64_t bh = (int64_t)at.b * a.heads + at.h;
  const int64_t o_pitch = (int64_t)a.heads * a.width;
  const int row = threadIdx.x / 8, piece = threadIdx.x % 8;
  const char *own = (const char *)a.qkv + (row * at.pitch + piece * 8) * 2;
  const int pitch = (int)at.pitch * 2;
  l.rows = piece * 8 < a.width ? a.seq : 0;
  l.tile = at.block * SINGLE;
  l.key_tile = at.key / 64;
  l.q = own + at.q * 2;
  l.d_o = (const char *)a.d_o + (((int64_t)at.b * a.seq + row) * o_pitch +
                                 at.h * a.width + piece * 8) * 2;
  l.stats = (const float *)(a.stats + bh * a.seq);
  l.kept = a.kept + bh * lk_attention_kept_words(a.seq);
  own += at.k * 2;
  load_tile<KEYS>(m.at + slot * PAIR, own, pitch, at.key, l.rows);
  load_tile<KEYS>(m.at + slot * PAIR + KEY_TILE,
                  own + a.kv_heads * a.width * 2, pitch, at.key, l.rows);
}

/* q, d_o, stats and what is kept of the next tile. With the last one the next
 * task is claimed: late, since others wait for whoever has it. */
template <bool DROP>
static __device__ __forceinline__ void
load_rows(const attention_args &a, const extent &e, const memory &m,
          loader &l) {
  const int slot = l.stage % STAGES, row = l.tile * ROWS;
  const int thread = threadIdx.x;
  const uint32_t to = m.at + STAGES_AT + slot * STAGE;
  const uint32_t side = m.at + SIDE_AT + slot * SIDE;
  load_tile<ROWS>(to, l.q, (a.heads + 2 * a.kv_heads) * a.width * 2, row,
                  l.rows);
  load_tile<ROWS>(to + TILE, l.d_o, a.heads * a.width * 2, row, l.rows);
#pragma unroll
  for (int i = 0; i < 2; i++)
    copy_async4(side + i * ROWS * 4 + thread * 4,
                l.stats + (row + thread) * 2 + i, row + thread < a.seq);
  if (DROP) {
    const int key_tile = l.key_tile + thread / 32;
    copy_async16(side + ROWS * 8 + thread * 16,
                 l.kept + lk_attention_kept_tile(l.tile, key_tile) *
                              LK_ATTENTION_KEPT_TILE + thread % 32 * 4,
                 key_tile <= l.tile);
  }
  if (thread == 0 && l.tile == e.tiles - 1) l.claimed = atomicAdd(a.taken, 1u);
}

/* Tiles of all tasks, and after the last the word that it was; each is given
 * away when the one after it was asked for and it has come. */
template <bool DROP>
static __device__ __forceinline__ void
load_all(const attention_args &a, const extent &e, const memory &m) {
  loader l = {};
  l.tile = e.tiles;
  l.more = true;
  if (threadIdx.x == 0) l.claimed = atomicAdd(a.taken, 1u);
  while (l.more) {
    barrier_wait(m.barrier(FREE + l.stage % STAGES), ~(l.stage / STAGES) & 1);
    if (l.tile == e.tiles) load_keys(a, e, m, l);
    if (l.more) load_rows<DROP>(a, e, m, l);
    copy_commit();
    if (l.stage > 0) {
      asm volatile("cp.async.wait_group 1;" ::: "memory");
      shared_written();
      barrier_arrive(m.barrier(LOADED + (l.stage - 1) % STAGES));
    }
    l.tile++;
    l.stage++;
  }
  barrier_arrive(m.barrier(LOADED + (l.stage - 1) % STAGES));
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
