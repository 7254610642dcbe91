/* Random draws a row at a time, and the operators that are nothing else:
 * dropout, randn. Draws are those of base/rng.h, bit for bit. */
#include "../base/rng.h"
#include "cpu.h"
#include "vector.h"

/* Who drops: the counters of one operator call, from its clock and p. */
typedef struct draw_source {
  uint64_t seed;
  uint32_t stream, step, threshold;
  float factor;     /* 1 / (1 − p), of what is kept */
  uint64_t micro;   /* micro-batch within the step */
} draw_source;

enum { DRAW_TILE = 1024, DRAW_GROUP = 8 };

/* Room for the draws of DRAW_TILE elements, wherever the first one falls. */
typedef struct draw_buffer {
  uint32_t word[(DRAW_TILE / 8 + 1 + DRAW_GROUP) * 4];
} draw_buffer;

/* p = 0 (no clock) gives a source that keeps everything. */
static draw_source draw_open(const lk_tensor *clock, const lk_attr *attr) {
  draw_source s = {.stream = (uint32_t)attr->stream, .factor = 1.0f};
  if (attr->p <= 0 || !lk_present(clock)) return s;
  const uint32_t *c = clock->data;
  s.seed = (uint64_t)c[LK_CLOCK_SEED_HIGH] << 32 | c[LK_CLOCK_SEED_LOW];
  s.step = c[LK_CLOCK_STEP];
  s.micro = c[LK_CLOCK_MICRO];
  s.threshold = lk_dropout_threshold(attr->p);
  s.factor = (float)(1.0 / (1.0 - attr->p));
  return s;
}

/* Counter words are kept one to a 64-bit lane, their upper halves unused: x86
 * multiplies the lower halves of such lanes to 64 bits at once. */
#define DRAW_SHUFFLE(a, b, ...) CPU_SHUFFLE(draw_v, a, b, __VA_ARGS__)
#if defined(__AVX2__)
typedef uint64_t draw_v __attribute__((vector_size(32)));
typedef int draw_half __attribute__((vector_size(32)));
#define DRAW_MUL(a, b) \
  ((draw_v)__builtin_ia32_pmuludq256((draw_half)(a), (draw_half)(b)))
#define DRAW_ZIP_LOW(a, b) DRAW_SHUFFLE(a, b, 0, 4, 1, 5)
#define DRAW_ZIP_HIGH(a, b) DRAW_SHUFFLE(a, b, 2, 6, 3, 7)
#else
typedef uint64_t draw_v __attribute__((vector_size(16)));
#ifdef __SSE2__
typedef int draw_half __attribute__((vector_size(16)));
#define DRAW_MUL(a, b) \
  ((draw_v)__builtin_ia32_pmuludq128((draw_half)(a), (draw_half)(b)))
#else
#define DRAW_MUL(a, b) (((a) & 0xFFFFFFFFu) * (b))
#endif
#define DRAW_ZIP_LOW(a, b) DRAW_SHUFFLE(a, b, 0, 2)
#define DRAW_ZIP_HIGH(a, b) DRAW_SHUFFLE(a, b, 1, 3)
#endif
enum { DRAW_LANES = sizeof(draw_v) / 8 };
_Static_assert((int)DRAW_GROUP % (int)DRAW_LANES == 0, "whole vectors");

/* Words 0 and 1, or 2 and 3, of each lane's counter side by side. */
static inline draw_v draw_pair(draw_v a, draw_v b) {
  return (a & 0xFFFFFFFFu) | b << 32;
}

enum { DRAW_VECTORS = DRAW_GROUP / DRAW_LANES };

/* Counters of a group by word: c0 all at once, and so on. */
typedef struct draw_counters {
  draw_v c0[DRAW_VECTORS], c1[DRAW_VECTORS], c2[DRAW_VECTORS],
      c3[DRAW_VECTORS];
} draw_counters;

/* One round of lk_philox on all counters of a group: they are independent, so
 * that one's products run while another's are waited for. */
static inline __attribute__((always_inline)) void draw_round(
    draw_counters *c, draw_v k0, draw_v k1) {
  const draw_v none = {0}, m0 = none + 0xD2511F53u, m1 = none + 0xCD9E8D57u;
#pragma GCC unroll 4
  for (int i = 0; i < DRAW_VECTORS; i++) {
    draw_v p0 = DRAW_MUL(c->c0[i], m0), p1 = DRAW_MUL(c->c2[i], m1);
    c->c0[i] = p1 >> 32 ^ c->c1[i] ^ k0;
    c->c2[i] = p0 >> 32 ^ c->c3[i] ^ k1;
    c->c1[i] = p1;
    c->c3[i] = p0;
  }
}

/* DRAW_GROUP counters from `block` on, each lk_philox: words [counter][4].
 * Keys run in vectors of their own: what they carry into the upper halves is
 * not looked at. */
static inline void draw_group(const draw_source *s, uint64_t block,
                              uint32_t *word) {
  const draw_v none = {0}, w0 = none + 0x9E3779B9u, w1 = none + 0xBB67AE85u;
  draw_v k0 = none + (uint32_t)s->seed, k1 = none + (s->seed >> 32), lane;
  for (int l = 0; l < DRAW_LANES; l++) lane[l] = (uint64_t)l;
  draw_counters c;
  for (int i = 0; i < DRAW_VECTORS; i++) {
    c.c0[i] = lane + (block + (uint64_t)(i * DRAW_LANES));
    c.c1[i] = c.c0[i] >> 32;
    c.c2[i] = none + s->stream;
    c.c3[i] = none + s->step;
  }
#pragma GCC unroll LK_PHILOX_ROUNDS
  for (int round = 0; round < LK_PHILOX_ROUNDS; round++, k0 += w0, k1 += w1)
    draw_round(&c, k0, k1);
  for (int i = 0; i < DRAW_VECTORS; i++, word += 4 * DRAW_LANES) {
    draw_v low = draw_pair(c.c0[i], c.c1[i]);
    draw_v high = draw_pair(c.c2[i], c.c3[i]);
    draw_v first = DRAW_ZIP_LOW(low, high), second = DRAW_ZIP_HIGH(low, high);
    memcpy(word, &first, sizeof first);
    memcpy(word + sizeof first / 4, &second, sizeof second);
  }
}

/* The draws of `count` <= DRAW_TILE elements from `element` on, in order. */
static const uint16_t *draw_row(const draw_source *s, uint64_t element,
                                int64_t count, draw_buffer *buffer) {
  uint64_t first = element / 8, last = (element + (uint64_t)count - 1) / 8;
  uint32_t *word = buffer->word;
  for (uint64_t b = first; b <= last; b += DRAW_GROUP, word += 4 * DRAW_GROUP)
    draw_group(s, b, word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  for (uint32_t *w = buffer->word; w < word; w++) *w = *w << 16 | *w >> 16;
#endif
  return (const uint16_t *)(const void *)buffer->word + element % 8;
}

/* y[i] = dropout(x[i]) (+ base[i], when given): n <= DRAW_TILE draws at d. */
static inline void drop_tile(const draw_source *s, const uint16_t *d,
                             const float *x, const float *base, float *y,
                             int64_t n) {
  const float factor = s->factor;
  const int32_t threshold = (int32_t)s->threshold;
  if (base) {
#pragma GCC ivdep
    for (int64_t j = 0; j < n; j++)
      y[j] = base[j] + (d[j] >= threshold ? x[j] * factor : 0.0f);
  } else {
#pragma GCC ivdep
    for (int64_t j = 0; j < n; j++)
      y[j] = d[j] >= threshold ? x[j] * factor : 0.0f;
  }
}

/* y = dropout(x) (+ base, when given) over n elements from `element` on. All
 * three rows may be the same memory. */
static void drop_row(const draw_source *s, uint64_t element, const float *x,
                     const float *base, float *y, int64_t n) {
  draw_buffer buffer;
  for (int64_t i = 0; i < n; i += DRAW_TILE) {
    int64_t m = cpu_smaller(DRAW_TILE, n - i);
    const uint16_t *d = draw_row(s, element + (uint64_t)i, m, &buffer);
    drop_tile(s, d, x + i, base ? base + i : NULL, y + i, m);
  }
}

/* --- operators ---------------------------------------------------------- */

enum { RANDOM_PART = 16384 };

typedef struct dropout_state {
  draw_source source;
  const float *x;
  float *y;
  int64_t count;
} dropout_state;

static void dropout_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const dropout_state *s = opaque;
  int64_t first = index * RANDOM_PART;
  int64_t n = cpu_smaller(RANDOM_PART, s->count - first);
  uint64_t element = s->source.micro * (uint64_t)s->count + (uint64_t)first;
  if (s->source.threshold)
    drop_row(&s->source, element, s->x + first, NULL, s->y + first, n);
  else if (s->y != s->x)
    memcpy(s->y + first, s->x + first, (size_t)n * sizeof(float));
}

static lk_status cpu_dropout(lk_context *context, const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  dropout_state state = {draw_open(&call->in[1], &call->attr),
                         call->in[0].data, call->out[0].data,
                         lk_tensor_count(&call->in[0])};
  cpu_parallel(context, cpu_pieces(state.count, RANDOM_PART), dropout_part,
               &state);
  return cpu_give_codes(context, call, 0, 1);
}

typedef struct randn_state {
  draw_source source;
  float *y;
  int64_t count;
  float scale, shift;
} randn_state;

static void randn_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const randn_state *s = opaque;
  int64_t first = index * RANDOM_PART;
  int64_t last = cpu_smaller(first + RANDOM_PART, s->count);
  for (int64_t i = first; i < last; i += 4) {
    float normal[4];
    lk_rng_normal4(s->source.seed, (uint64_t)i / 4, s->source.stream,
                   s->source.step, normal);
    for (int64_t j = i; j < last && j < i + 4; j++)
      s->y[j] = s->shift + s->scale * normal[j - i];
  }
}

static lk_status cpu_randn(lk_context *context, const lk_call *call) {
  LK_TRY(cpu_need_f32(context, call));
  const uint32_t *c = call->in[0].data;
  randn_state state = {.y = call->out[0].data,
                       .count = lk_tensor_count(&call->out[0]),
                       .scale = (float)call->attr.scale,
                       .shift = (float)call->attr.value};
  state.source.seed =
      (uint64_t)c[LK_CLOCK_SEED_HIGH] << 32 | c[LK_CLOCK_SEED_LOW];
  state.source.stream = (uint32_t)call->attr.stream;
  state.source.step = c[LK_CLOCK_STEP];
  cpu_parallel(context, cpu_pieces(state.count, RANDOM_PART), randn_part,
               &state);
  return LK_OK;
}
