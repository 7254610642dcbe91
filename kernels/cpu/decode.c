/* Attention of new positions through a cache of keys and values: for
 * generating text, where everything before has been computed already. */
#include "../core/scratch.h"
#include "cpu.h"
#include "vector.h"

typedef struct cached_state {
  const float *qkv;
  const int32_t *positions;
  float *o, *keys, *values, *scratch;
  int64_t batch, rows;   /* sequences, new positions of each */
  int64_t heads, kv_heads, width;
  int64_t most;          /* T: positions that the cache has room for */
  int64_t row;           /* floats of a row of qkv */
  int64_t lane_floats;
  float scale;
} cached_state;

static cached_state cached_open(const lk_call *call) {
  const lk_attr *a = &call->attr;
  cached_state s = {.qkv = call->in[0].data, .positions = call->in[1].data,
                    .o = call->out[0].data, .keys = call->out[1].data,
                    .scratch = call->scratch, .batch = a->batch,
                    .rows = call->in[1].shape.dim[0], .heads = a->heads,
                    .kv_heads = a->kv_heads, .width = a->width,
                    .most = call->out[1].shape.dim[3],
                    .scale = (float)a->scale};
  s.values = s.keys + s.batch * s.kv_heads * s.most * s.width;
  s.row = (s.heads + 2 * s.kv_heads) * s.width;
  s.lane_floats = lk_scratch_cached_lane(s.most) / (int64_t)sizeof(float);
  return s;
}

/* Floats before the place of a position in keys and values. */
static int64_t cached_place(const cached_state *s, int64_t b, int64_t kv,
                            int64_t position) {
  return ((b * s->kv_heads + kv) * s->most + position) * s->width;
}

/* Part: one new position of one sequence, its keys and values put in. */
static void cached_put(void *opaque, int64_t index, int lane) {
  (void)lane;
  const cached_state *s = opaque;
  const float *k = s->qkv + index * s->row + s->heads * s->width;
  const float *v = k + s->kv_heads * s->width;
  size_t bytes = (size_t)s->width * sizeof *k;
  for (int64_t kv = 0; kv < s->kv_heads; kv++) {
    int64_t at = cached_place(s, index / s->rows, kv,
                              s->positions[index % s->rows]);
    memcpy(s->keys + at, k + kv * s->width, bytes);
    memcpy(s->values + at, v + kv * s->width, bytes);
  }
}

/* o = factor · Σ p[j] · values[j] */
static void cached_gather(const cached_state *s, const float *p, int64_t seen,
                          const float *values, float factor, float *o) {
  for (int64_t d = 0; d < s->width; d++) o[d] = 0;
  for (int64_t j = 0; j < seen; j++) {
    const float *restrict v = values + j * s->width;
    for (int64_t d = 0; d < s->width; d++) o[d] += p[j] * v[d];
  }
  row_scale(o, s->width, factor);
}

/* Part: one query head of one new position. */
static void cached_attend(void *opaque, int64_t index, int lane) {
  const cached_state *s = opaque;
  int64_t r = index / s->heads, h = index % s->heads;
  int64_t kv = h / (s->heads / s->kv_heads);
  int64_t seen = s->positions[r % s->rows] + 1;
  const float *q = s->qkv + r * s->row + h * s->width;
  int64_t start = cached_place(s, r / s->rows, kv, 0);
  float *p = s->scratch + lane * s->lane_floats;
  for (int64_t j = 0; j < seen; j++)
    p[j] = s->scale * row_dot(q, s->keys + start + j * s->width, s->width);
  row_exp(p, p, seen, row_max(p, seen));
  cached_gather(s, p, seen, s->values + start, 1.0f / row_sum(p, seen),
                s->o + index * s->width);
}

static lk_status cached_check(lk_context *context, const cached_state *s) {
  for (int64_t i = 0; i < s->rows; i++)
    if (s->positions[i] < 0 || s->positions[i] >= s->most)
      return lk_fail(&context->error, LK_ARGUMENT,
                     "attention_cached: positions[%lld] is %d, cache has room "
                     "for %lld", (long long)i, s->positions[i],
                     (long long)s->most);
  return LK_OK;
}

static lk_status cpu_attention_cached(lk_context *context,
                                      const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  cached_state s = cached_open(call);
  LK_TRY(cached_check(context, &s));
  cpu_parallel(context, s.batch * s.rows, cached_put, &s);
  cpu_parallel(context, s.batch * s.rows * s.heads, cached_attend, &s);
  return LK_OK;
}
