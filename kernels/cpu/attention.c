/* Causal attention and its gradient: blocks of query rows against strips of
 * keys, products by the library, softmax over strips with running statistics
 * (Milakov and Gimelshein 2018), probabilities recomputed in the backward
 * (Dao et al. 2022). */
#include "../core/scratch.h"
#include "cpu.h"
#include "vector.h"

enum { ATTN_ROWS = LK_ATTENTION_ROWS, ATTN_KEYS = LK_ATTENTION_KEYS };

typedef struct attention_state {
  const cpu_provider *provider;
  draw_source source;
  const float *qkv, *o, *d_o;
  float *out, *dqkv, *lse, *scratch;
  int64_t batch, seq, heads, kv_heads, width;
  int64_t row;        /* floats of a row of qkv */
  int64_t strip;      /* keys of a strip */
  int64_t lane_floats;
  float scale;
} attention_state;

/* Where one query block of one head stands. */
typedef struct attention_block {
  int64_t b, h, first, rows;
  const float *q, *k, *v; /* q at row `first`, k and v at row 0 */
} attention_block;

static attention_state attention_open(lk_context *context,
                                      const lk_call *call) {
  const lk_attr *a = &call->attr;
  attention_state s = {.provider = cpu_provider_of(context),
                       .scratch = call->scratch,
                       .batch = a->batch, .seq = a->seq, .heads = a->heads,
                       .kv_heads = a->kv_heads, .width = a->width,
                       .scale = (float)a->scale};
  s.row = (s.heads + 2 * s.kv_heads) * s.width;
  s.strip = cpu_smaller(ATTN_KEYS, s.seq);
  return s;
}

static attention_block attention_at(const attention_state *s, int64_t b,
                                    int64_t h, int64_t block) {
  int64_t kv = h / (s->heads / s->kv_heads);
  attention_block a = {.b = b, .h = h, .first = block * ATTN_ROWS};
  const float *rows = s->qkv + b * s->seq * s->row;
  a.rows = cpu_smaller(ATTN_ROWS, s->seq - a.first);
  a.q = rows + a.first * s->row + h * s->width;
  a.k = rows + (s->heads + kv) * s->width;
  a.v = a.k + s->kv_heads * s->width;
  return a;
}

/* Element index of the probability (row, 0) of a block's head. */
static uint64_t attention_element(const attention_state *s,
                                  const attention_block *a, int64_t row) {
  uint64_t b = s->source.micro * (uint64_t)s->batch + (uint64_t)a->b;
  uint64_t head = b * (uint64_t)s->heads + (uint64_t)a->h;
  return (head * (uint64_t)s->seq + (uint64_t)(a->first + row)) *
         (uint64_t)s->seq;
}

/* How many keys of the strip from `key` on row r of the block sees. */
static int64_t attention_visible(const attention_block *a, int64_t r,
                                 int64_t key, int64_t keys) {
  int64_t seen = a->first + r + 1 - key;
  return seen < 0 ? 0 : cpu_smaller(seen, keys);
}

/* scores [rows, keys] = scale · q kᵀ of one strip */
static void attention_scores(const attention_state *s,
                             const attention_block *a, int64_t key,
                             int64_t keys, float *scores) {
  s->provider->sgemm(false, true, (int)a->rows, (int)keys, (int)s->width,
                     s->scale, a->q, (int)s->row, a->k + key * s->row,
                     (int)s->row, 0, scores, (int)s->strip);
}

/* --- forward ------------------------------------------------------------ */

/* Scores of one row to dropped-out exponentials; returns the factor that what
 * was gathered before must take. */
static float attention_row(const attention_state *s, uint64_t element,
                           float *p, int64_t seen, float *most, float *sum) {
  float largest = row_max(p, seen);
  float top = largest > *most ? largest : *most;
  float shrink = lk_expf_negative(*most - top);
  row_exp(p, p, seen, top);
  *sum = *sum * shrink + row_sum(p, seen);
  *most = top;
  if (s->source.threshold) drop_row(&s->source, element, p, NULL, p, seen);
  return shrink;
}

/* One strip: probabilities into `p`, o shrunk where the maximum grew. */
static void attention_strip(const attention_state *s,
                            const attention_block *a, int64_t key,
                            int64_t keys, float *p, float *most, float *sum,
                            float *o) {
  int64_t step = s->heads * s->width;
  attention_scores(s, a, key, keys, p);
  for (int64_t r = 0; r < a->rows; r++) {
    float *row = p + r * s->strip;
    int64_t seen = attention_visible(a, r, key, keys);
    memset(row + seen, 0, (size_t)(keys - seen) * sizeof *row);
    if (seen == 0) continue;
    uint64_t element = attention_element(s, a, r) + (uint64_t)key;
    float shrink = attention_row(s, element, row, seen, &most[r], &sum[r]);
    if (key > 0 && shrink != 1.0f) row_scale(o + r * step, s->width, shrink);
  }
}

static void attention_part(void *opaque, int64_t index, int lane) {
  const attention_state *s = opaque;
  int64_t blocks = cpu_pieces(s->seq, ATTN_ROWS), step = s->heads * s->width;
  int64_t head = index % (s->batch * s->heads); /* long blocks first */
  attention_block a =
      attention_at(s, head / s->heads, head % s->heads,
                   blocks - 1 - index / (s->batch * s->heads));
  float *p = s->scratch + lane * s->lane_floats;
  float *o = s->out + (a.b * s->seq + a.first) * step + a.h * s->width;
  float most[ATTN_ROWS], sum[ATTN_ROWS];
  for (int r = 0; r < ATTN_ROWS; r++) most[r] = -INFINITY, sum[r] = 0;
  for (int64_t key = 0; key < a.first + a.rows; key += s->strip) {
    int64_t keys = cpu_smaller(s->strip, a.first + a.rows - key);
    attention_strip(s, &a, key, keys, p, most, sum, o);
    s->provider->sgemm(false, false, (int)a.rows, (int)s->width, (int)keys, 1,
                       p, (int)s->strip, a.v + key * s->row, (int)s->row,
                       key > 0, o, (int)step);
  }
  float *lse = s->lse + (a.b * s->heads + a.h) * s->seq + a.first;
  for (int64_t r = 0; r < a.rows; r++) {
    row_scale(o + r * step, s->width, 1.0f / sum[r]);
    lse[r] = most[r] + lk_logf(sum[r]);
  }
}

static lk_status cpu_attention(lk_context *context, const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  attention_state s = attention_open(context, call);
  s.source = draw_open(&call->in[1], &call->attr);
  s.qkv = call->in[0].data;
  s.out = call->out[0].data;
  s.lse = call->out[1].data;
  s.lane_floats = ATTN_ROWS * s.strip;
  cpu_parallel(context,
               s.batch * s.heads * cpu_pieces(s.seq, ATTN_ROWS),
               attention_part, &s);
  return LK_OK;
}

/* --- backward ----------------------------------------------------------- */

/* One row, `seen` keys: scores → p = e^(scores − lse); then p ← dropped-out p
 * and dp ← scale · p · (dropped-out dp − delta). */
static void attention_backward_row(const attention_state *s, uint64_t element,
                                   float *restrict p, float *restrict dp,
                                   int64_t seen, float lse, float delta) {
  const int32_t threshold = (int32_t)s->source.threshold;
  const float factor = s->source.factor, scale = s->scale;
  draw_buffer buffer;
  row_exp(p, p, seen, lse);
  if (!threshold) {
    for (int64_t i = 0; i < seen; i++) dp[i] = p[i] * (dp[i] - delta) * scale;
    return;
  }
  for (int64_t first = 0; first < seen; first += DRAW_TILE) {
    int64_t n = cpu_smaller(DRAW_TILE, seen - first);
    const uint16_t *d =
        draw_row(&s->source, element + (uint64_t)first, n, &buffer);
    for (int64_t i = 0; i < n; i++) {
      float keep = d[i] >= threshold ? factor : 0.0f, y = p[first + i];
      dp[first + i] = y * (dp[first + i] * keep - delta) * scale;
      p[first + i] = y * keep;
    }
  }
}

/* Gradients of one query block against one strip of keys: dq (+)= …, dk and
 * dv += …; p and dp are the lane's [ATTN_ROWS, strip] each. */
static void attention_backward_strip(const attention_state *s,
                                     const attention_block *a, int64_t key,
                                     int64_t keys, const float *delta,
                                     float *p, float *dp) {
  int64_t step = s->heads * s->width, d = s->width, row = s->row;
  const float *d_o = s->d_o + (a->b * s->seq + a->first) * step + a->h * d;
  const float *lse = s->lse + (a->b * s->heads + a->h) * s->seq + a->first;
  float *dq = s->dqkv + (a->q - s->qkv), *dk = s->dqkv + (a->k - s->qkv);
  float *dv = s->dqkv + (a->v - s->qkv);
  int rows = (int)a->rows, n = (int)keys, width = (int)d, ld = (int)row;
  int strip = (int)s->strip;
  attention_scores(s, a, key, keys, p);
  s->provider->sgemm(false, true, rows, n, width, 1, d_o, (int)step,
                     a->v + key * row, ld, 0, dp, strip);
  for (int64_t r = 0; r < a->rows; r++) {
    int64_t seen = attention_visible(a, r, key, keys);
    float *pr = p + r * s->strip, *dpr = dp + r * s->strip;
    attention_backward_row(s, attention_element(s, a, r) + (uint64_t)key, pr,
                           dpr, seen, lse[r], delta[r]);
    memset(pr + seen, 0, (size_t)(keys - seen) * sizeof *pr);
    memset(dpr + seen, 0, (size_t)(keys - seen) * sizeof *dpr);
  }
  s->provider->sgemm(true, false, n, width, rows, 1, p, strip, d_o, (int)step,
                     1, dv + key * row, ld);
  s->provider->sgemm(false, false, rows, width, n, 1, dp, strip,
                     a->k + key * row, ld, key > 0, dq, ld);
  s->provider->sgemm(true, false, n, width, rows, 1, dp, strip, a->q, ld, 1,
                     dk + key * row, ld);
}

static void attention_backward_block(const attention_state *s,
                                     const attention_block *a, float *p,
                                     float *dp) {
  int64_t step = s->heads * s->width;
  int64_t at = (a->b * s->seq + a->first) * step + a->h * s->width;
  float delta[ATTN_ROWS];
  for (int64_t r = 0; r < a->rows; r++)
    delta[r] = row_dot(s->d_o + at + r * step, s->o + at + r * step, s->width);
  for (int64_t key = 0; key < a->first + a->rows; key += s->strip) {
    int64_t keys = cpu_smaller(s->strip, a->first + a->rows - key);
    attention_backward_strip(s, a, key, keys, delta, p, dp);
  }
}

/* Part: one key/value head of one sequence, with the query heads that read it
 * in order, so that dk and dv are sums in a fixed order. */
static void attention_backward_part(void *opaque, int64_t index, int lane) {
  const attention_state *s = opaque;
  int64_t b = index / s->kv_heads, kv = index % s->kv_heads;
  int64_t group = s->heads / s->kv_heads;
  float *p = s->scratch + lane * s->lane_floats;
  float *dp = p + ATTN_ROWS * s->strip;
  float *dk = s->dqkv + b * s->seq * s->row + (s->heads + kv) * s->width;
  for (int64_t t = 0; t < s->seq; t++) {
    memset(dk + t * s->row, 0, (size_t)s->width * sizeof *dk);
    memset(dk + t * s->row + s->kv_heads * s->width, 0,
           (size_t)s->width * sizeof *dk);
  }
  for (int64_t h = kv * group; h < (kv + 1) * group; h++)
    for (int64_t i = 0; i < cpu_pieces(s->seq, ATTN_ROWS); i++) {
      attention_block a = attention_at(s, b, h, i);
      attention_backward_block(s, &a, p, dp);
    }
}

static lk_status cpu_attention_backward(lk_context *context,
                                        const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  attention_state s = attention_open(context, call);
  s.source = draw_open(&call->in[4], &call->attr);
  s.d_o = call->in[0].data;
  s.qkv = call->in[1].data;
  s.o = call->in[2].data;
  s.lse = call->in[3].data;
  s.dqkv = call->out[0].data;
  s.lane_floats = 2 * ATTN_ROWS * s.strip;
  cpu_parallel(context, s.batch * s.kv_heads, attention_backward_part, &s);
  return LK_OK;
}
