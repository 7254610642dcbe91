/* Causal attention and its gradient: strips of keys packed once, six query
 * rows at a time against them, softmax with running statistics (Milakov and
 * Gimelshein 2018), probabilities recomputed in the backward (Dao et al.
 * 2022). */
#include "../core/attention.h"
#include "../core/scratch.h"
#include "cpu.h"
#include "tile.h"
#include "vector.h"

enum {
  ATTN_ROWS = LK_ATTENTION_ROWS,   /* most query rows of a forward part */
  ATTN_KEYS = LK_ATTENTION_KEYS,   /* keys of a strip */
  ATTN_CHUNK = LK_ATTENTION_CHUNK, /* query rows at a time in the backward */
  ATTN_STEP = LK_ATTENTION_STEP    /* floats from one row of scores on */
};

typedef struct attention_state {
  draw_source source;
  const float *qkv, *o, *d_o;
  float *out, *dqkv, *lse, *scratch;
  int64_t batch, seq, heads, kv_heads, width;
  int64_t row;         /* floats of a row of qkv */
  int64_t step;        /* floats of a row of o */
  int64_t padded;      /* width, rounded up to whole stripes */
  int64_t rows, parts; /* query rows of a forward part, parts of a sequence */
  int64_t lane_floats;
  float scale;
} attention_state;

/* One query head of one sequence. q, k, v point to its row 0 of qkv. */
typedef struct attention_head {
  int64_t b, h;
  const float *q, *k, *v;
} attention_head;

static attention_state attention_open(const lk_call *call,
                                      int64_t lane_bytes) {
  const lk_attr *a = &call->attr;
  attention_state s = {.scratch = call->scratch,
                       .batch = a->batch, .seq = a->seq, .heads = a->heads,
                       .kv_heads = a->kv_heads, .width = a->width,
                       .scale = (float)a->scale};
  s.row = (s.heads + 2 * s.kv_heads) * s.width;
  s.step = s.heads * s.width;
  s.padded = tile_size(1, s.width);
  s.parts = cpu_pieces(s.seq, ATTN_ROWS);
  s.rows = cpu_pieces(cpu_pieces(s.seq, s.parts), TILE_ROWS) * TILE_ROWS;
  s.lane_floats = lane_bytes / (int64_t)sizeof(float);
  return s;
}

static attention_head attention_at(const attention_state *s, int64_t b,
                                   int64_t h) {
  int64_t kv = h / (s->heads / s->kv_heads);
  attention_head a = {.b = b, .h = h};
  a.q = s->qkv + b * s->seq * s->row + h * s->width;
  a.k = s->qkv + b * s->seq * s->row + (s->heads + kv) * s->width;
  a.v = a.k + s->kv_heads * s->width;
  return a;
}

/* Element index of the probability (row, 0) of a head. */
static uint64_t attention_element(const attention_state *s,
                                  const attention_head *a, int64_t row) {
  uint64_t b = s->source.micro * (uint64_t)s->batch + (uint64_t)a->b;
  uint64_t head = b * (uint64_t)s->heads + (uint64_t)a->h;
  return (head * (uint64_t)s->seq + (uint64_t)row) * (uint64_t)s->seq;
}

/* How many of the `keys` keys from `key` on query row `row` sees. */
static int64_t attention_seen(int64_t row, int64_t key, int64_t keys) {
  int64_t seen = row + 1 - key;
  return seen < 0 ? 0 : cpu_smaller(seen, keys);
}

/* --- forward ------------------------------------------------------------- */

/* What a lane holds: a strip of keys and values, the part's sums. */
typedef struct attention_lane {
  float *keys, *values; /* stripes: scale · kᵀ, v */
  float *p;             /* [TILE_ROWS, ATTN_STEP] */
  float *o;             /* [ATTN_ROWS, padded], before division by `sum` */
  float most[ATTN_ROWS], sum[ATTN_ROWS];
} attention_lane;

/* Scores of one row to dropped-out exponentials; returns the factor that what
 * was gathered before must take. p's end is worked on in whole vectors: what
 * is behind `seen` counts as −∞. */
static float attention_row(const attention_state *s, uint64_t element,
                           float *p, int64_t seen, float *most, float *sum) {
  int64_t n = row_whole(seen);
  for (int64_t i = seen; i < n; i++) p[i] = -INFINITY;
  float largest = row_max(p, n);
  float top = largest > *most ? largest : *most;
  float shrink = lk_expf_negative(*most - top);
  row_exp(p, p, n, top);
  *sum = *sum * shrink + row_sum(p, n);
  *most = top;
  if (s->source.threshold) drop_row(&s->source, element, p, NULL, p, n);
  return shrink;
}

/* Query rows [row, row + rows), rows <= TILE_ROWS, `at` rows into the part,
 * against the lane's strip of `keys` keys from `key` on. */
static void attention_tile(const attention_state *s, const attention_head *a,
                           attention_lane *l, int64_t row, int64_t rows,
                           int64_t at, int64_t key, int64_t keys) {
  int64_t most = attention_seen(row + rows - 1, key, keys);
  float *o = l->o + at * s->padded;
  tile_rows(rows, most, s->width, a->q + row * s->row, s->row, 1, l->keys,
            s->width * TILE_COLUMNS, l->p, ATTN_STEP, false);
  for (int64_t r = 0; r < rows; r++) {
    float *p = l->p + r * ATTN_STEP, shrink = 1.0f;
    int64_t seen = attention_seen(row + r, key, keys);
    uint64_t element = attention_element(s, a, row + r) + (uint64_t)key;
    if (seen > 0)
      shrink = attention_row(s, element, p, seen, &l->most[at + r],
                             &l->sum[at + r]);
    for (int64_t i = seen; i < most; i++) p[i] = 0;
    if (key > 0 && shrink != 1.0f)
      row_scale(o + r * s->padded, s->width, shrink);
  }
  tile_rows(rows, s->width, most, l->p, ATTN_STEP, 1, l->values,
            ATTN_KEYS * TILE_COLUMNS, o, s->padded, key > 0);
}

static void attention_finish(const attention_state *s,
                             const attention_head *a, attention_lane *l,
                             int64_t first, int64_t rows) {
  float *out = s->out + (a->b * s->seq + first) * s->step + a->h * s->width;
  float *lse = s->lse + (a->b * s->heads + a->h) * s->seq + first;
  for (int64_t r = 0; r < rows; r++) {
    const float *o = l->o + r * s->padded;
    float factor = 1.0f / l->sum[r];
    for (int64_t d = 0; d < s->width; d++)
      out[r * s->step + d] = o[d] * factor;
    lse[r] = l->most[r] + lk_logf(l->sum[r]);
  }
}

/* Part: some query rows of one head. */
static void attention_part(void *opaque, int64_t index, int lane) {
  const attention_state *s = opaque;
  int64_t heads = s->batch * s->heads;
  int64_t head = index % heads; /* the parts with the most keys come first */
  int64_t first = (s->parts - 1 - index / heads) * s->rows;
  int64_t rows = cpu_smaller(s->rows, s->seq - first);
  attention_head a = attention_at(s, head / s->heads, head % s->heads);
  attention_lane l = {.keys = s->scratch + lane * s->lane_floats};
  l.values = l.keys + s->width * ATTN_KEYS;
  l.o = l.values + ATTN_KEYS * s->padded;
  l.p = l.o + ATTN_ROWS * s->padded;
  for (int r = 0; r < ATTN_ROWS; r++) l.most[r] = -INFINITY, l.sum[r] = 0;
  for (int64_t key = 0; key < first + rows; key += ATTN_KEYS) {
    int64_t keys = cpu_smaller(ATTN_KEYS, first + rows - key);
    int64_t skip = key > first ? (key - first) / TILE_ROWS * TILE_ROWS : 0;
    tile_pack_turned(a.k + key * s->row, s->row, keys, s->width, s->scale,
                     l.keys);
    tile_pack(a.v + key * s->row, s->row, keys, s->width, l.values,
              ATTN_KEYS * TILE_COLUMNS);
    for (int64_t r = skip; r < rows; r += TILE_ROWS)
      attention_tile(s, &a, &l, first + r, cpu_smaller(TILE_ROWS, rows - r),
                     r, key, keys);
  }
  attention_finish(s, &a, &l, first, rows);
}

/* Part: what is kept of one head, words of core/attention.h. */
typedef struct attention_keep {
  attention_state s;
  uint32_t *kept;
} attention_keep;

static void attention_kept_part(void *opaque, int64_t index, int lane) {
  const attention_keep *k = opaque;
  const draw_source *d = &k->s.source;
  attention_head a = {.b = index / k->s.heads, .h = index % k->s.heads};
  int64_t words = lk_attention_kept_words(k->s.seq);
  (void)lane;
  for (int64_t i = 0; i < words; i++) {
    uint32_t word = 0;
    for (int bit = 0; bit < 32; bit++) {
      lk_attention_kept_place p = lk_attention_kept_at(i, bit);
      uint64_t e = attention_element(&k->s, &a, p.query) + (uint64_t)p.key;
      uint32_t draw = lk_rng_draw16(d->seed, e, d->stream, d->step);
      word |= (uint32_t)(draw >= d->threshold) << bit;
    }
    k->kept[index * words + i] = word;
  }
}

static lk_status cpu_attention(lk_context *context, const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  attention_state s =
      attention_open(call, lk_scratch_attention_lane(&call->attr));
  s.source = draw_open(&call->in[1], &call->attr);
  s.qkv = call->in[0].data;
  s.out = call->out[0].data;
  s.lse = call->out[1].data;
  cpu_parallel(context, s.batch * s.heads * s.parts, attention_part, &s);
  if (!lk_present(&call->out[2])) return LK_OK;
  attention_keep k = {s, call->out[2].data};
  cpu_parallel(context, s.batch * s.heads, attention_kept_part, &k);
  return LK_OK;
}

/* --- backward ------------------------------------------------------------ */

/* What a lane holds: a strip of keys and values with their gradients, a chunk
 * of query rows. */
typedef struct attention_back {
  float *keys_turned, *values_turned, *keys; /* stripes: scale·kᵀ, vᵀ, k */
  float *dk, *dv;                            /* [ATTN_KEYS, padded] */
  float *q, *d_o;                            /* stripes of the chunk's rows */
  float *p, *dp;                             /* [ATTN_CHUNK, ATTN_STEP] */
  float *dq;                                 /* [TILE_ROWS, padded] */
} attention_back;

static attention_back attention_back_open(const attention_state *s,
                                          int lane) {
  attention_back l;
  l.keys_turned = s->scratch + lane * s->lane_floats;
  l.values_turned = l.keys_turned + s->width * ATTN_KEYS;
  l.keys = l.values_turned + s->width * ATTN_KEYS;
  l.dk = l.keys + ATTN_KEYS * s->padded;
  l.dv = l.dk + ATTN_KEYS * s->padded;
  l.q = l.dv + ATTN_KEYS * s->padded;
  l.d_o = l.q + ATTN_CHUNK * s->padded;
  l.p = l.d_o + ATTN_CHUNK * s->padded;
  l.dp = l.p + ATTN_CHUNK * ATTN_STEP;
  l.dq = l.dp + ATTN_CHUNK * ATTN_STEP;
  return l;
}

/* One row, `seen` keys and up to a whole vector: scores → p = e^(scores − lse);
 * then p ← dropped-out p and dp ← scale · p · (dropped-out dp − delta). */
static void attention_slope_row(const attention_state *s, uint64_t element,
                                float *restrict p, float *restrict dp,
                                int64_t seen, float lse, float delta) {
  const int32_t threshold = (int32_t)s->source.threshold;
  const float factor = s->source.factor, scale = s->scale;
  draw_buffer buffer;
  seen = row_whole(seen);
  row_exp(p, p, seen, lse);
  if (!threshold) {
    for (int64_t i = 0; i < seen; i++) dp[i] = p[i] * (dp[i] - delta) * scale;
    return;
  }
  const uint16_t *d = draw_row(&s->source, element, seen, &buffer);
  for (int64_t i = 0; i < seen; i++) {
    float keep = d[i] >= threshold ? factor : 0.0f, y = p[i];
    dp[i] = y * (dp[i] * keep - delta) * scale;
    p[i] = y * keep;
  }
}
_Static_assert((int)ATTN_KEYS <= (int)DRAW_TILE, "a strip's draws fit");

/* dq = (or +=) dp · k for some rows: at once where tiles end with the head,
 * else by way of the lane. */
static void attention_back_query(const attention_state *s,
                                 const attention_back *l, const float *dp,
                                 int64_t rows, int64_t keys, bool add,
                                 float *dq) {
  int64_t d = s->width, step = ATTN_KEYS * TILE_COLUMNS;
  if (d % TILE_V == 0) {
    tile_rows(rows, d, keys, dp, ATTN_STEP, 1, l->keys, step, dq, s->row, add);
    return;
  }
  tile_rows(rows, d, keys, dp, ATTN_STEP, 1, l->keys, step, l->dq, s->padded,
            false);
  for (int64_t r = 0; r < rows; r++)
    if (add)
      row_add(dq + r * s->row, l->dq + r * s->padded, d);
    else
      memcpy(dq + r * s->row, l->dq + r * s->padded,
             (size_t)d * sizeof *dq);
}

/* p and dp of query rows [row, row + rows), at row `at` of the chunk, and
 * dq = (or +=) dp · k. */
static void attention_back_tile(const attention_state *s,
                                const attention_head *a,
                                const attention_back *l, int64_t row,
                                int64_t rows, int64_t at, int64_t key,
                                int64_t keys) {
  int64_t most = attention_seen(row + rows - 1, key, keys), d = s->width;
  int64_t o = (a->b * s->seq + row) * s->step + a->h * d;
  const float *lse = s->lse + (a->b * s->heads + a->h) * s->seq + row;
  float *p = l->p + at * ATTN_STEP, *dp = l->dp + at * ATTN_STEP;
  tile_rows(rows, most, d, a->q + row * s->row, s->row, 1, l->keys_turned,
            d * TILE_COLUMNS, p, ATTN_STEP, false);
  tile_rows(rows, most, d, s->d_o + o, s->step, 1, l->values_turned,
            d * TILE_COLUMNS, dp, ATTN_STEP, false);
  for (int64_t r = 0; r < rows; r++) {
    int64_t seen = attention_seen(row + r, key, keys);
    float *pr = p + r * ATTN_STEP, *dpr = dp + r * ATTN_STEP;
    float delta = row_dot(s->d_o + o + r * s->step, s->o + o + r * s->step, d);
    if (seen > 0)
      attention_slope_row(s, attention_element(s, a, row + r) + (uint64_t)key,
                          pr, dpr, seen, lse[r], delta);
    memset(pr + seen, 0, (size_t)(keys - seen) * sizeof *pr);
    memset(dpr + seen, 0, (size_t)(keys - seen) * sizeof *dpr);
  }
  attention_back_query(s, l, dp, rows, most, key > 0,
                       s->dqkv + (a->q - s->qkv) + row * s->row);
}

/* One chunk of query rows against the lane's strip: dq, and dk, dv += …. */
static void attention_back_chunk(const attention_state *s,
                                 const attention_head *a,
                                 const attention_back *l, int64_t first,
                                 int64_t rows, int64_t key, int64_t keys) {
  int64_t most = attention_seen(first + rows - 1, key, keys), d = s->width;
  const float *d_o = s->d_o + (a->b * s->seq + first) * s->step + a->h * d;
  int64_t step = ATTN_CHUNK * TILE_COLUMNS;
  tile_pack(a->q + first * s->row, s->row, rows, d, l->q, step);
  tile_pack(d_o, s->step, rows, d, l->d_o, step);
  for (int64_t r = 0; r < rows; r += TILE_ROWS)
    attention_back_tile(s, a, l, first + r, cpu_smaller(TILE_ROWS, rows - r),
                        r, key, keys);
  for (int64_t j = 0; j < most; j += TILE_ROWS) {
    int64_t n = cpu_smaller(TILE_ROWS, keys - j); /* rows before see nothing */
    int64_t r = cpu_larger(0, key + j - first);
    float *dk = l->dk + j * s->padded, *dv = l->dv + j * s->padded;
    tile_rows(n, d, rows - r, l->p + r * ATTN_STEP + j, 1, ATTN_STEP,
              l->d_o + r * TILE_COLUMNS, step, dv, s->padded, true);
    tile_rows(n, d, rows - r, l->dp + r * ATTN_STEP + j, 1, ATTN_STEP,
              l->q + r * TILE_COLUMNS, step, dk, s->padded, true);
  }
}

/* dk and dv of a strip to where they belong. */
static void attention_back_store(const attention_state *s,
                                 const attention_head *a,
                                 const attention_back *l, int64_t key,
                                 int64_t keys) {
  float *dk = s->dqkv + (a->k - s->qkv) + key * s->row;
  float *dv = s->dqkv + (a->v - s->qkv) + key * s->row;
  size_t bytes = (size_t)s->width * sizeof *dk;
  for (int64_t j = 0; j < keys; j++) {
    memcpy(dk + j * s->row, l->dk + j * s->padded, bytes);
    memcpy(dv + j * s->row, l->dv + j * s->padded, bytes);
  }
}

/* Part: one key/value head of one sequence, with the query heads that read it
 * in order, so that dk and dv are sums in a fixed order. */
static void attention_back_part(void *opaque, int64_t index, int lane) {
  const attention_state *s = opaque;
  int64_t b = index / s->kv_heads, group = s->heads / s->kv_heads;
  int64_t head = index % s->kv_heads * group;
  attention_back l = attention_back_open(s, lane);
  for (int64_t key = 0; key < s->seq; key += ATTN_KEYS) {
    int64_t keys = cpu_smaller(ATTN_KEYS, s->seq - key);
    attention_head a = attention_at(s, b, head);
    const float *k = a.k + key * s->row, *v = a.v + key * s->row;
    tile_pack_turned(k, s->row, keys, s->width, s->scale, l.keys_turned);
    tile_pack_turned(v, s->row, keys, s->width, 1, l.values_turned);
    tile_pack(k, s->row, keys, s->width, l.keys, ATTN_KEYS * TILE_COLUMNS);
    memset(l.dk, 0, (size_t)(2 * ATTN_KEYS * s->padded) * sizeof *l.dk);
    for (int64_t h = head; h < head + group; h++) {
      a = attention_at(s, b, h);
      for (int64_t row = key; row < s->seq; row += ATTN_CHUNK)
        attention_back_chunk(s, &a, &l, row,
                             cpu_smaller(ATTN_CHUNK, s->seq - row), key, keys);
    }
    attention_back_store(s, &a, &l, key, keys);
  }
}

static lk_status cpu_attention_backward(lk_context *context,
                                        const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  attention_state s =
      attention_open(call, lk_scratch_attention_back_lane(&call->attr));
  s.source = draw_open(&call->in[4], &call->attr);
  s.d_o = call->in[0].data;
  s.qkv = call->in[1].data;
  s.o = call->in[2].data;
  s.lse = call->in[3].data;
  s.dqkv = call->out[0].data;
  cpu_parallel(context, s.batch * s.kv_heads, attention_back_part, &s);
  if (!lk_present(&call->in[6])) return LK_OK;
  lk_call turn = {.op = LK_OP_rope, .attr = call->attr,
                  .in = {call->out[0], call->in[6]}, .out = {call->out[0]}};
  return context->backend->kernels[LK_OP_rope](context, &turn);
}
