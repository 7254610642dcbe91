/* How CUDA's attention takes a shape: what its kernels and the prediction of
 * their scratch must agree on. */
#ifndef LK_CORE_ATTENTION_H
#define LK_CORE_ATTENTION_H

#include "backend.h"

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

/* Scratch of the backward: offsets in bytes, each a multiple of 16. */
typedef struct lk_attention_layout {
  int64_t queries;  /* query tiles of all heads that several blocks add to */
  int64_t keys;     /* key tiles that several query heads add to */
  int64_t dq;       /* f32 [queries, query tile, padded width] */
  int64_t dkv;      /* f32 [keys, 2, key tile, padded width] */
  int64_t turns;    /* u32 [queries + keys]: additions made */
  int64_t stats;    /* f32 [B, H, T, 2] */
  int64_t bytes;
} lk_attention_layout;

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
  l.stats = l.turns + (l.queries + l.keys + 3) / 4 * 16;
  l.bytes = l.stats + heads * a->seq * 8;
  return l;
}

#endif
