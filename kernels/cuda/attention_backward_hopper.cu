/* Attention backward for heads up to 64 wide on Hopper's warpgroups: what
 * attention_backward.cu computes, from the same statistics and what the forward
 * kept of its draws, in the same turns.
 *
 * One block a processor takes task after task, a tile of 128 keys of a query
 * head, and walks the tiles of 64 queries that see it. Its warpgroups:
 *   0  two warps copy tiles ahead, a third passes turns on
 *   1  makes dq = dsᵀ k and adds it to the sum of its query tile
 *   2, 3  own 64 keys each: they make scores transposed, keys by queries, so
 *      that probabilities and their gradients are the next products' operands
 *      as they lie in registers, sum dk and dv, and hand ds on in shared
 *      memory. */
#include "attention_queries.cuh"
#include "warpgroup.cuh"

namespace hopper {

enum {
  ROWS = 64, KEYS = 128, D = 64, SINGLE = KEYS / ROWS, THREADS = 512,
  LOADERS = 64, PASSER = 64, QUERIES = 128, KEY_THREADS = 256, /* first ones */
  PAIRS = 3, STAGES = 4, HANDS = 3,    /* how many of each are under way */
  TILE = ROWS * D * 2, KEY_TILE = KEYS * D * 2, PAIR = 2 * KEY_TILE,
  STAGE = 2 * TILE, DS_TILE = KEYS * ROWS * 2, KEPT = 512,
  SIDE = ROWS * 8 + 2 * KEPT,          /* lse, delta, kept of a stage */
  /* k v | q d_o | ds | lse delta kept | barriers | places | turns */
  STAGES_AT = PAIRS * PAIR, DS_AT = STAGES_AT + STAGES * STAGE,
  SIDE_AT = DS_AT + HANDS * DS_TILE, BARRIERS_AT = SIDE_AT + STAGES * SIDE,
  PLACES_AT = BARRIERS_AT + 192,
  TURNS_AT = PLACES_AT + PAIRS * (int)sizeof(backward_place),
  BYTES = TURNS_AT + HANDS * 16 + 1024, /* to align */
  HELP_REGISTERS = 56, QUERY_REGISTERS = 72, KEY_REGISTERS = 192, /* 4 · 128 */
  LOAD_BARRIER = 1, KEY_BARRIER = 2    /* and 3, 4: of a warpgroup of keys */
};

/* Barriers: a stage is loaded or free, a pair free, ds made or taken, a turn's
 * additions left or passed on. */
enum {
  LOADED = 0, FREE = LOADED + STAGES, PAIR_FREE = FREE + STAGES,
  MADE = PAIR_FREE + PAIRS, TAKEN = MADE + HANDS, LEFT = TAKEN + HANDS,
  PASSED = LEFT + HANDS
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

/* --- tiles in ------------------------------------------------------------- */

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

/* Turns on to other blocks: slow, so that a warp does nothing else. */
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

/* --- dq ------------------------------------------------------------------- */

/* dq · scale · factor to its place in dqkv. */
template <typename T>
static __device__ __forceinline__ void
queries_store(const attention_args &a, const backward_place &at,
              float dq[8][4]) {
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x & 31;
  const float factor = a.scale * a.factor;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const int i = at.row + warp * 16 + (lane >> 2) + r * 8;
    T *out = (T *)a.dqkv + at.q + i * at.pitch;
    if (i >= a.seq) continue;
#pragma unroll
    for (int n = 0; n < 8; n++) {
      const int column = n * 8 + (lane & 3) * 2;
      float *x = &dq[n][2 * r];
      if (n < 4 && a.table) backward_turn(a, i, column, x, &dq[n + 4][2 * r]);
      if (column < a.width)
        *(uint32_t *)(out + column) = pack2<T>(x[0] * factor, x[1] * factor);
    }
  }
}

/* dq of a tile is made: dsᵀ k of the block's keys, asked for. */
template <typename T>
static __device__ __forceinline__ void queries_make(uint32_t ds, uint32_t keys,
                                                    float dq[8][4]) {
  group_begin();
  group_product<T>::template shared<0, 1, 1>(dq, group_operand(ds),
                                             group_operand(keys));
#pragma unroll
  for (int j = 1; j < KEYS / 16; j++)
    group_product<T>::template shared<1, 1, 1>(
        dq, group_operand(ds + j * 2048), group_operand(keys + j * 2048));
  group_commit();
}

/* Add to a sum that several blocks make in turn; nobody waits for it. */
static __device__ __forceinline__ void queries_give(const float dq[8][4],
                                                    float *sum) {
#pragma unroll
  for (int i = 0; i < 8; i++)
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(
                     sum + (i * 128 + threadIdx.x) * 4),
                 "f"(dq[i][0]), "f"(dq[i][1]), "f"(dq[i][2]), "f"(dq[i][3])
                 : "memory");
}

/* What was added is told to the warp that passes turns; `left`: how many were
 * before. */
static __device__ __forceinline__ void queries_left(const memory &m, int &left,
                                                    uint32_t *turns,
                                                    uint32_t turn) {
  const int hand = left % HANDS;
  barrier_wait(m.barrier(PASSED + hand), ~(left / HANDS) & 1);
  if (threadIdx.x == QUERIES) *m.note(hand) = {turns, turn};
  barrier_arrive(m.barrier(LEFT + hand));
  left++;
}

/* dq of a tile, number `n`, whose ds is there: to the sum of the blocks before,
 * or, as the last, with it to its place. `made`: how many blocks were seen to
 * have added. */
template <typename T>
static __device__ __forceinline__ void
queries_add(const attention_args &a, const memory &m,
            const backward_place &at, int64_t place, uint32_t before,
            uint32_t made, int n, uint32_t keys, int &left) {
  float *sum = a.dq + place * (ROWS * D) - QUERIES * 4; /* of its threads */
  float dq[8][4];
  const int hand = n % HANDS;
  queries_make<T>(m.at + DS_AT + hand * DS_TILE, keys, dq);
  if (made != before) turn_await(a.dq_turns + place, before);
  group_wait<0>();
  group_result(dq);
  if (threadIdx.x % 32 == 0) barrier_arrive(m.barrier(TAKEN + hand));
  if (at.key == 0) {
    if (before > 0) turn_take<8, 128>(dq, sum);
    queries_store<T>(a, at, dq);
    return;
  }
  if (before > 0)
    queries_give(dq, sum);
  else
    turn_leave<8, 128>(dq, sum);
  queries_left(m, left, a.dq_turns + place, before + 1);
}

template <typename T>
static __device__ __forceinline__ void
queries_side(const attention_args &a, const extent &e, const memory &m) {
  backward_place at = {};
  int pair = 0, tile = e.tiles, left = 0;
  for (int n = 0;; n++, tile++) {
    const int slot = pair % PAIRS;
    int64_t place = 0;
    uint32_t before = 0, made = 0;
    if (tile < e.tiles) { /* asked for early: it takes a while */
      before = tile / SINGLE - at.block;
      place = ((int64_t)at.b * a.heads + at.h) * (e.tiles - SINGLE) - SINGLE +
              tile;
      if (before > 0) made = turn_made(a.dq_turns + place);
    }
    barrier_wait(m.barrier(MADE + n % HANDS), n / HANDS & 1);
    if (tile == e.tiles) { /* a task's first tile, which awaits nobody */
      at = *m.place(slot);
      if (at.block < 0) break;
      tile = at.block * SINGLE;
      place = ((int64_t)at.b * a.heads + at.h) * (e.tiles - SINGLE) - SINGLE +
              tile;
    }
    at.row = tile * ROWS;
    queries_add<T>(a, m, at, place, before, made, n, m.at + slot * PAIR, left);
    if (tile + 1 < e.tiles) continue;
    if (threadIdx.x % 32 == 0) barrier_arrive(m.barrier(PAIR_FREE + slot));
    pair++;
  }
  queries_left(m, left, NULL, 0);
}

/* --- dk and dv ------------------------------------------------------------ */

/* c (64 keys by 64 queries) = x yᵀ, asked for. */
template <typename T>
static __device__ __forceinline__ void keys_scores(uint32_t x, uint32_t y,
                                                   float c[8][4]) {
  group_product<T>::template shared<0, 0, 0>(c, group_operand(x),
                                             group_operand(y));
#pragma unroll
  for (int d = 1; d < D / 16; d++)
    group_product<T>::template shared<1, 0, 0>(c, group_operand(x + d * 32),
                                               group_operand(y + d * 32));
  group_commit();
}

/* sum += p y, asked for: p 64 keys by 64 queries, y 64 queries. */
template <typename T>
static __device__ __forceinline__ void keys_gather(const uint32_t p[8][2],
                                                   uint32_t y,
                                                   float sum[8][4]) {
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const uint32_t a[4] = {p[2 * k][0], p[2 * k][1], p[2 * k + 1][0],
                           p[2 * k + 1][1]};
    group_product<T>::held(sum, a, group_operand(y + k * 2048));
  }
  group_commit();
}

/* Scores become probabilities, 0 behind the diagonal where the tile is on
 * it; lse: of the lane's first two queries. */
static __device__ __forceinline__ void keys_exp(const float *lse, float unit,
                                                bool diagonal,
                                                float s[8][4]) {
  const int lane = threadIdx.x & 31, c = lane & 3;
  const int key = threadIdx.x / 32 % 4 * 16 + (lane >> 2);
#pragma unroll
  for (int n = 0; n < 8; n++) {
    const float2 x = *(const float2 *)(lse + n * 8);
#pragma unroll
    for (int r = 0; r < 2; r++) {
      s[n][2 * r] = exp2_fast(fmaf(s[n][2 * r], unit, -x.x));
      s[n][2 * r + 1] = exp2_fast(fmaf(s[n][2 * r + 1], unit, -x.y));
    }
  }
  if (!diagonal) return;
#pragma unroll
  for (int i = 0; i < 32; i++)
    if (key + i / 2 % 2 * 8 > i / 4 * 8 + c * 2 + i % 2) s[i / 4][i % 4] = 0;
}

/* Probabilities x and d_o vᵀ become p (dropped out, unscaled) and ds / scale /
 * factor, packed; `delta`: of the lane's first two queries; `kept`: the lane's
 * first word of the tile's. */
template <typename T, bool DROP>
static __device__ __forceinline__ void
keys_softmax(const float *delta, const char *kept, const float x[8][4],
             const float dp[8][4], uint32_t p[8][2], uint32_t ds[8][2]) {
  const int g = (threadIdx.x & 31) >> 2;
  const int shift = threadIdx.x / 64 % 2 * 8 + (g >> 1) + (g & 1) * 16;
  uint32_t word[2][2];
#pragma unroll
  for (int n = 0; n < 8; n++) {
    const float2 sums = *(const float2 *)(delta + n * 8);
    if (DROP && n % 2 == 0)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const uint2 w = *(const uint2 *)(kept + n / 2 * 128 + e * 16);
        word[0][e] = w.x >> shift;
        word[1][e] = w.y >> shift;
      }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float y[2], dy[2];
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const float v = x[n][2 * r + e], d = dp[n][2 * r + e];
        const float sum = e ? sums.y : sums.x;
        y[e] = !DROP || word[r][e] & (n % 2 ? 16u : 1u) ? v : 0;
        dy[e] = DROP ? fmaf(y[e], d, -v * sum) : v * (d - sum);
      }
      p[n][r] = pack2<T>(y[0], y[1]);
      ds[n][r] = pack2<T>(dy[0], dy[1]);
    }
  }
}

/* The warp's 16 keys by 64 queries of ds, of tile number `n`, for dq. */
static __device__ __forceinline__ void keys_put(const memory &m, int half,
                                                int n,
                                                const uint32_t ds[8][2]) {
  const int lane = threadIdx.x & 31, hand = n % HANDS;
  const uint32_t to = m.at + DS_AT + hand * DS_TILE;
  const int row = half * 64 + threadIdx.x % 128 / 32 * 16 + (lane & 15);
  barrier_wait(m.barrier(TAKEN + hand), ~(n / HANDS) & 1);
#pragma unroll
  for (int i = 0; i < 8; i += 2)
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(
            to + piece_at<D>(row, i + (lane >> 4))),
        "r"(ds[i][0]), "r"(ds[i][1]), "r"(ds[i + 1][0]), "r"(ds[i + 1][1])
        : "memory");
  shared_written();
  __syncwarp();
  if (lane == 0) barrier_arrive(m.barrier(MADE + hand));
}

/* The block's sum of dk and dv and those of the group's heads before it; true
 * in the last head, which has it all. */
static __device__ __forceinline__ bool
keys_group(const attention_args &a, const extent &e, const backward_place &at,
           int half, float dk[8][4], float dv[8][4]) {
  const int group = a.heads / a.kv_heads, turn = at.h % group;
  const int64_t tile = ((int64_t)at.b * a.kv_heads + at.kv) * e.blocks +
                       at.block;
  uint32_t *turns = a.dkv_turns + tile;
  /* whichever warpgroup has a half: 128 threads of 256 */
  float *sum = a.dkv + tile * (2 * KEYS * D) +
               (half * 128 + (int)(threadIdx.x % 128 - threadIdx.x)) * 4;
  if (turn > 0) {
    if (threadIdx.x == KEY_THREADS) turn_await(turns, turn);
    barrier_among(KEY_BARRIER, 256);
    turn_take<8, 256>(dk, sum);
    turn_take<8, 256>(dv, sum + KEYS * D);
  }
  if (turn == group - 1) return true;
  turn_leave<8, 256>(dk, sum);
  turn_leave<8, 256>(dv, sum + KEYS * D);
  barrier_among(KEY_BARRIER, 256);
  if (threadIdx.x == KEY_THREADS) turn_pass(turns, turn + 1);
  return false;
}

/* dk and dv of the warp's keys, through its rows of v. */
template <typename T>
static __device__ __forceinline__ void
keys_finish(const attention_args &a, const backward_place &at, int half,
            float dk[8][4], float dv[8][4], char *v) {
  const int first = half * 64 + threadIdx.x % 128 / 32 * 16;
  const float scale = a.scale * a.factor;
  T *out = (T *)a.dqkv + at.k + (at.key + first) * at.pitch;
  const int rows = a.seq - at.key - first;
  char *own = v + first * D * 2;
  if (a.table) backward_turn_keys<D>(a, at.key + first, dk);
  store_rows<T, D>(dk, scale, scale, own, out, at.pitch, rows, a.width);
  store_rows<T, D>(dv, a.factor, a.factor, own, out + a.kv_heads * a.width,
                   at.pitch, rows, a.width);
}

/* A tile of queries that some of the warpgroup's keys, at `k`, see. The sums of
 * the tile before may still be under way and are done after it; `before`: its
 * stage, to be freed, or 0. */
template <typename T, bool DROP>
static __device__ __forceinline__ void
keys_tile(const memory &m, float unit, uint32_t k, int half, int n,
          bool diagonal, uint32_t before, float dk[8][4], float dv[8][4]) {
  const int slot = n % STAGES, lane = threadIdx.x & 31;
  const uint32_t q = m.at + STAGES_AT + slot * STAGE;
  const char *side = m.bytes + SIDE_AT + slot * SIDE;
  const float *lse = (const float *)(const void *)side + (lane & 3) * 2;
  const char *kept = side + ROWS * 8 + half * KEPT + (lane & 3) * 32 +
                     threadIdx.x / 32 % 2 * 8;
  float s[8][4], dp[8][4];
  uint32_t p[8][2], ds[8][2];
  group_begin();
  keys_scores<T>(k, q, s);
  keys_scores<T>(k + KEY_TILE, q + TILE, dp);
  group_wait<1>();
  group_result(s);
  if (before && lane == 0) barrier_arrive(before);
  keys_exp(lse, unit, diagonal, s);
  group_wait<0>();
  group_result(dp);
  keys_softmax<T, DROP>(lse + ROWS, kept, s, dp, p, ds);
  group_begin();
  keys_gather<T>(p, q + TILE, dv);
  keys_put(m, half, n, ds);
  group_begin();
  keys_gather<T>(ds, q, dk);
}

template <typename T, bool DROP>
static __device__ __forceinline__ void
keys_side(const attention_args &a, const extent &e, const memory &m) {
  /* by shuffle, so that it is known to be the same in all threads */
  const int group = __shfl_sync(~0u, (threadIdx.x - KEY_THREADS) / 128, 0);
  const int lane = threadIdx.x & 31;
  const uint32_t zeros[8][2] = {};
  int n = 0;
  for (int pair = 0;; pair++) {
    barrier_wait(m.barrier(LOADED + n % STAGES), n / STAGES & 1);
    const int slot = pair % PAIRS;
    const int half = group ^ (pair & 1); /* the second has a tile less */
    const backward_place &at = *m.place(slot);
    if (at.block < 0) break;
    const uint32_t k = m.at + slot * PAIR + half * TILE;
    const int first = at.block * SINGLE + half;
    float dk[8][4], dv[8][4];
    uint32_t before = 0;
#pragma unroll
    for (int i = 0; i < 32; i++) dk[i / 4][i % 4] = dv[i / 4][i % 4] = 0;
    if (half) { /* all behind the diagonal */
      keys_put(m, half, n, zeros);
      if (lane == 0) barrier_arrive(m.barrier(FREE + n % STAGES));
      n++;
    }
    for (int tile = first; tile < e.tiles; tile++, n++) {
      barrier_wait(m.barrier(LOADED + n % STAGES), n / STAGES & 1);
      keys_tile<T, DROP>(m, at.unit, k, half, n, tile == first, before, dk,
                         dv);
      before = m.barrier(FREE + n % STAGES);
    }
    group_wait<0>();
    group_result(dk);
    group_result(dv);
    if (before && lane == 0) barrier_arrive(before);
    barrier_among(KEY_BARRIER + 1 + group, 128); /* none reads v any more */
    if (a.heads == a.kv_heads || keys_group(a, e, at, half, dk, dv))
      keys_finish<T>(a, at, half, dk, dv, m.bytes + slot * PAIR + KEY_TILE);
    __syncwarp();
    if (lane == 0) barrier_arrive(m.barrier(PAIR_FREE + slot));
  }
  keys_put(m, group, n, zeros); /* that there are no more */
}

static __device__ __forceinline__ void open_barriers(const memory &m) {
  if (threadIdx.x != 0) return;
  for (int i = 0; i < STAGES; i++) {
    barrier_open(m.barrier(LOADED + i), LOADERS);
    barrier_open(m.barrier(FREE + i), 8);
  }
  for (int i = 0; i < PAIRS; i++) barrier_open(m.barrier(PAIR_FREE + i), 12);
  for (int i = 0; i < HANDS; i++) {
    barrier_open(m.barrier(MADE + i), 8);
    barrier_open(m.barrier(TAKEN + i), 4);
    barrier_open(m.barrier(LEFT + i), 128);
    barrier_open(m.barrier(PASSED + i), 32);
  }
}
#endif

template <typename T, bool DROP>
static __global__ void __launch_bounds__(THREADS, 1)
    k_attention_backward_hopper(const attention_args a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char room[];
  const extent e = extent_of(a);
  memory m;
  m.at = shared_address(room);
  m.bytes = room + (1024 - m.at % 1024) % 1024;
  m.at = shared_address(m.bytes);
  open_barriers(m);
  __syncthreads();
  if (threadIdx.x < QUERIES) {
    registers_fewer<HELP_REGISTERS>();
    if (threadIdx.x < LOADERS) load_all<DROP>(a, e, m);
    else if (threadIdx.x / 32 == PASSER / 32) pass_turns(m);
  } else if (threadIdx.x < KEY_THREADS) {
    registers_fewer<QUERY_REGISTERS>();
    queries_side<T>(a, e, m);
  } else {
    registers_more<KEY_REGISTERS>();
    keys_side<T, DROP>(a, e, m);
  }
#endif
}

template <typename T, bool DROP>
static cudaError_t launch(const attention_args *a, cudaStream_t stream) {
  auto kernel = k_attention_backward_hopper<T, DROP>;
  cudaError_t status = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
  if (status != cudaSuccess) return status;
  int blocks = extent_of(*a).tasks;
  if (blocks > a->hopper) blocks = a->hopper;
  kernel<<<(unsigned)blocks, THREADS, BYTES, stream>>>(*a);
  return cudaGetLastError();
}

template <typename T>
static cudaError_t launch_drop(const attention_args *a, cudaStream_t stream) {
  return a->threshold > 0 ? launch<T, true>(a, stream)
                          : launch<T, false>(a, stream);
}

}

/* Draws that were not kept are made by the other kernel only. */
bool attention_backward_hopper_fits(const attention_args *a) {
  return a->hopper > 0 && lk_attention_padded(a->width) == hopper::D &&
         (a->threshold == 0 || a->kept) &&
         (int64_t)a->batch * a->heads * a->seq / hopper::KEYS < INT32_MAX / 2;
}

cudaError_t attention_backward_hopper(const attention_args *a,
                                      cudaStream_t stream) {
  return a->dtype == LK_BF16 ? hopper::launch_drop<__nv_bfloat16>(a, stream)
                             : hopper::launch_drop<__half>(a, stream);
}
