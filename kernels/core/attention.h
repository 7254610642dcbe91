/* How CUDA's attention takes a shape: what its kernels and the prediction of
 * their scratch must agree on. */
#ifndef LK_CORE_ATTENTION_H
#define LK_CORE_ATTENTION_H

#include "backend.h"

#ifdef __CUDACC__
#define LK_ATTENTION_BOTH static __host__ __device__ __forceinline__
#else
#define LK_ATTENTION_BOTH static inline
#endif

/* The head width that tiles are padded to: 32, 64 or 128. */
static inline int64_t lk_attention_padded(int64_t width) {
  return width <= 32 ? 32 : width <= 64 ? 64 : 128;
}

/* Rows of a tile of queries and of a tile of keys of the backward. */
#define LK_ATTENTION_QUERY_TILE(padded) ((padded) <= 64 ? 64 : 32)
#define LK_ATTENTION_KEY_TILE(padded) ((padded) <= 64 ? 128 : 64)

/* Whether tensor cores take it: 16-bit elements, rows of whole 16-byte pieces,
 * random counters that fall on multiples of eight keys, a threshold under
 * 2^16. Plain kernels take everything else, slowly. */
static inline bool lk_attention_tiled(const lk_attr *a, lk_dtype dtype) {
  return (dtype == LK_BF16 || dtype == LK_F16) && a->width % 8 == 0 &&
         a->width <= 128 && a->scale > 0 &&
         (a->p <= 0 || (a->seq % 8 == 0 && a->p < 0.9999));
}

/* What a forward keeps of its draws, u32 [B, H, words]: tiles of 64 queries by
 * 64 keys on and below the diagonal, row after row of tiles, in 128 words each.
 * Word 32w + 4g + c has the queries 16w + g + 8i of the tile with the keys
 * 32k + 8c + 2v + e: bit 4 (i + 2k) + v + 16e is set where that is kept. (Four
 * words in a row are what four lanes of a tensor core's fragment hold.) */
enum { LK_ATTENTION_KEPT_TILE = 128 };

LK_ATTENTION_BOTH int lk_attention_kept_tile(int row_tile, int key_tile) {
  return row_tile * (row_tile + 1) / 2 + key_tile;
}
/* Words of one head. */
LK_ATTENTION_BOTH int64_t lk_attention_kept_words(int64_t seq) {
  int64_t tiles = (seq + 63) / 64;
  return tiles * (tiles + 1) / 2 * LK_ATTENTION_KEPT_TILE;
}

/* Where a bit of word `index` of one head belongs; may lie past the end. */
typedef struct lk_attention_kept_place {
  int64_t query, key;
} lk_attention_kept_place;

LK_ATTENTION_BOTH lk_attention_kept_place
lk_attention_kept_at(int64_t index, int bit) {
  int64_t tile = index / LK_ATTENTION_KEPT_TILE, row = 0;
  int word = (int)(index % LK_ATTENTION_KEPT_TILE);
  while ((row + 1) * (row + 2) / 2 <= tile) row++;
  lk_attention_kept_place at;
  at.query = row * 64 + word / 32 * 16 + word % 32 / 4 + bit / 4 % 2 * 8;
  at.key = (tile - row * (row + 1) / 2) * 64 + bit / 8 % 2 * 32 +
           word % 4 * 8 + bit % 4 * 2 + bit / 16;
  return at;
}

/* Scratch of the backward: offsets in bytes, each a multiple of 16. */
typedef struct lk_attention_layout {
  int64_t queries;  /* query tiles of all heads that several blocks add to */
  int64_t keys;     /* key tiles that several query heads add to */
  int64_t dq;       /* f32 [queries, query tile, padded width] */
  int64_t dkv;      /* f32 [keys, 2, key tile, padded width] */
  int64_t turns;    /* u32 [queries + keys]: additions made; one: tasks taken */
  int64_t stats;    /* f32 [B, H, T, 2] */
  int64_t bytes;
} lk_attention_layout;

/* Words from `turns` on, which are 0 when a backward begins. */
static inline int64_t lk_attention_words(const lk_attention_layout *l) {
  return l->queries + l->keys + 1;
}

static inline lk_attention_layout lk_attention_layout_of(const lk_attr *a,
                                                         lk_dtype dtype) {
  lk_attention_layout l = {0};
  int64_t padded = lk_attention_padded(a->width);
  int64_t rows = LK_ATTENTION_QUERY_TILE(padded);
  int64_t keys = LK_ATTENTION_KEY_TILE(padded);
  int64_t heads = a->batch * a->heads;
  if (lk_attention_tiled(a, dtype)) {
    /* the first tile of keys is the only one that its own queries see */
    if (a->seq > keys)
      l.queries = heads * ((a->seq + rows - 1) / rows - keys / rows);
    if (a->heads > a->kv_heads)
      l.keys = a->batch * a->kv_heads * ((a->seq + keys - 1) / keys);
  }
  l.dkv = l.dq + l.queries * rows * padded * 4;
  l.turns = l.dkv + l.keys * 2 * keys * padded * 4;
  l.stats = l.turns + (lk_attention_words(&l) + 3) / 4 * 16;
  l.bytes = l.stats + heads * a->seq * 8;
  return l;
}

#endif
