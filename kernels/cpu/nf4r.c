/* NF4R on the CPU: 4-bit weights with an 8-bit residual that learn. Formulas
 * by element are those of base/codebook.h, segments and packing quantize.c's,
 * draws random.c's. */
#include "../base/scalar.h"
#include "cpu.h"
#include "vector.h"

/* By code: the value, and half the way to its neighbours below and above; for
 * both codes of a byte. */
typedef struct nf4r_tables {
  float value[16], half[2][16];
  quant_pairs values, below, above;
} nf4r_tables;

typedef struct nf4r_state {
  const lk_call *call;
  const float *w;              /* encode: the weights */
  float *master;               /* master: where they go */
  const lk_tensor *o;          /* update: the direction */
  uint8_t *codes;
  float *absmax;
  int8_t *residual;            /* or NULL */
  int64_t count, block, blocks, group;
  float rate, scale, decay;
  draw_source draws;
  nf4r_tables tables;
} nf4r_state;

static void nf4r_fill(nf4r_tables *t) {
  for (int32_t c = 0; c < 16; c++) {
    t->value[c] = lk_nf4_value(c);
    t->half[0][c] = lk_nf4r_half(c, 0);
    t->half[1][c] = lk_nf4r_half(c, 1);
  }
  for (int byte = 0; byte < 256; byte++)
    for (int i = 0; i < 2; i++) {
      int code = i == 0 ? byte >> 4 : byte & 15;
      t->values.value[byte][i] = t->value[code];
      t->above.value[byte][i] = t->half[0][code];
      t->below.value[byte][i] = t->half[1][code];
    }
}

/* --- decoding ------------------------------------------------------------- */

/* n <= QUANT_SEGMENT master values from packed codes and residuals (NULL:
 * none). */
static void nf4r_decode(const nf4r_tables *t, const uint8_t *codes,
                        const int8_t *restrict residual, float scale,
                        float *restrict w, int64_t n) {
  float below[QUANT_SEGMENT], above[QUANT_SEGMENT];
  quant_lookup(&t->values, codes, w, n);
  if (residual == NULL) {
    for (int64_t i = 0; i < n; i++) w[i] *= scale;
    return;
  }
  quant_lookup(&t->below, codes, below, n);
  quant_lookup(&t->above, codes, above, n);
  for (int64_t i = 0; i < n; i++) {
    float half = residual[i] < 0 ? below[i] : above[i];
    w[i] = lk_nf4r_master(scale, w[i], half, residual[i]);
  }
}

/* --- encoding ------------------------------------------------------------- */

/* u − value[code] for a segment. */
static void nf4r_rest(const nf4r_tables *t, const uint8_t *packed,
                      const float *restrict u, float *restrict e, int64_t n) {
  quant_lookup(&t->values, packed, e, n);
  for (int64_t i = 0; i < n; i++) e[i] = u[i] - e[i];
}

static void nf4r_residuals(const nf4r_tables *t, const uint8_t *packed,
                           const float *restrict u,
                           const uint16_t *restrict draws,
                           int8_t *restrict out, int64_t n) {
  float e[QUANT_SEGMENT], below[QUANT_SEGMENT], above[QUANT_SEGMENT];
  nf4r_rest(t, packed, u, e, n);
  quant_lookup(&t->below, packed, below, n);
  quant_lookup(&t->above, packed, above, n);
  for (int64_t i = 0; i < n; i++) {
    float half = e[i] < 0.0f ? below[i] : above[i];
    out[i] = (int8_t)lk_nf4r_residual(e[i], half, lk_rng_unit16(draws[i]));
  }
}

static void nf4r_stochastic(const nf4r_tables *t, const float *restrict u,
                            const uint16_t *restrict draws,
                            int32_t *restrict code, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    int32_t c = lk_nf4_below(u[i]);
    code[i] = lk_nf4_stochastic(u[i], c, t->value[c], t->value[c + 1],
                                lk_rng_unit16(draws[i]));
  }
}

/* The error of a block under one candidate scale. */
static float nf4r_error(const nf4r_tables *t, const float *w, int64_t n,
                        float scale, float factor) {
  float u[QUANT_SEGMENT], e[QUANT_SEGMENT], sum[8] = {0};
  int32_t code[QUANT_SEGMENT];
  uint8_t packed[QUANT_SEGMENT / 2];
  lk_unit unit = lk_unit_of_scale(scale);
  for (int64_t i = 0; i < n; i += QUANT_SEGMENT) {
    int64_t part = cpu_smaller(QUANT_SEGMENT, n - i), j = 0;
    quant_scale(w + i, unit, u, part);
    quant_nf4_encode(NULL, u, code, part);
    quant_pack(code, part, 7, false, packed);
    nf4r_rest(t, packed, u, e, part);
    for (; j + 8 <= part; j += 8)
      for (int l = 0; l < 8; l++)
        sum[l] += lk_search_error(factor, e[j + l], 0.0f);
    for (; j < part; j++) sum[j % 8] += lk_search_error(factor, e[j], 0.0f);
  }
  return lk_search_sum(sum);
}

static float nf4r_scale(const nf4r_state *s, const float *w, int64_t n) {
  const float factors[LK_SEARCH_COUNT] = {LK_SEARCH_FACTORS(LK_COMMA)};
  float absmax = lk_float_of_bits(quant_amax_bits(w, n));
  float best = absmax, least = INFINITY;
  for (int f = 0; f < LK_SEARCH_COUNT && s->call->attr.search; f++) {
    float scale = absmax * factors[f];
    float error = nf4r_error(&s->tables, w, n, scale, factors[f]);
    if (!(error < least)) continue;
    least = error;
    best = scale;
  }
  return best;
}

/* Block b becomes the code of w. */
static void nf4r_encode_block(const nf4r_state *s, int64_t b, const float *w,
                              int64_t n) {
  float u[QUANT_SEGMENT];
  int32_t code[QUANT_SEGMENT];
  draw_buffer buffer;
  int64_t first = b * s->block;
  float scale = nf4r_scale(s, w, n);
  lk_unit unit = lk_unit_of_scale(scale);
  s->absmax[b] = scale;
  for (int64_t i = 0; i < n; i += QUANT_SEGMENT) {
    int64_t part = cpu_smaller(QUANT_SEGMENT, n - i), at = first + i;
    bool drawn = s->residual != NULL || s->call->attr.stochastic;
    const uint16_t *draws =
        drawn ? draw_row(&s->draws, (uint64_t)at, part, &buffer) : NULL;
    quant_scale(w + i, unit, u, part);
    if (s->residual == NULL && drawn)
      nf4r_stochastic(&s->tables, u, draws, code, part);
    else
      quant_nf4_encode(NULL, u, code, part);
    quant_pack(code, part, 7, false, s->codes + at / 2);
    if (s->residual != NULL)
      nf4r_residuals(&s->tables, s->codes + at / 2, u, draws,
                     s->residual + at, part);
  }
}

/* --- operators ------------------------------------------------------------ */

static void nf4r_open(nf4r_state *s, const lk_call *call, int64_t count) {
  *s = (nf4r_state){.call = call, .count = count, .block = call->attr.block};
  s->blocks = cpu_pieces(count, s->block);
  s->group = cpu_larger(1, QUANT_PART / s->block);
  nf4r_fill(&s->tables);
}

static void nf4r_draws(nf4r_state *s, const lk_tensor *clock) {
  const uint32_t *c = clock->data;
  s->draws.seed = (uint64_t)c[LK_CLOCK_SEED_HIGH] << 32 |
                  c[LK_CLOCK_SEED_LOW];
  s->draws.stream = (uint32_t)s->call->attr.stream;
  s->draws.step = c[LK_CLOCK_STEP];
}

static void nf4r_results(nf4r_state *s) {
  const lk_tensor *out = s->call->out;
  s->codes = out[0].data;
  s->absmax = out[1].data;
  s->residual = lk_present(&out[2]) ? out[2].data : NULL;
}

static void nf4r_encode_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const nf4r_state *s = opaque;
  int64_t first = index * s->group;
  int64_t last = cpu_smaller(s->blocks, first + s->group);
  for (int64_t b = first; b < last; b++)
    nf4r_encode_block(s, b, s->w + b * s->block,
                      cpu_smaller(s->block, s->count - b * s->block));
}

static lk_status cpu_nf4r_encode(lk_context *context, const lk_call *call) {
  nf4r_state s;
  nf4r_open(&s, call, lk_tensor_count(&call->in[0]));
  s.w = call->in[0].data;
  nf4r_results(&s);
  nf4r_draws(&s, &call->in[1]);
  cpu_parallel(context, cpu_pieces(s.blocks, s.group), nf4r_encode_part, &s);
  return LK_OK;
}

/* Block b's master values, to w. */
static void nf4r_master_block(const nf4r_state *s, int64_t b, float *w,
                              int64_t n) {
  for (int64_t i = 0; i < n; i += QUANT_SEGMENT) {
    int64_t at = b * s->block + i;
    nf4r_decode(&s->tables, s->codes + at / 2,
                s->residual != NULL ? s->residual + at : NULL, s->absmax[b],
                w + i, cpu_smaller(QUANT_SEGMENT, n - i));
  }
}

static void nf4r_master_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const nf4r_state *s = opaque;
  int64_t first = index * s->group;
  int64_t last = cpu_smaller(s->blocks, first + s->group);
  for (int64_t b = first; b < last; b++)
    nf4r_master_block(s, b, s->master + b * s->block,
                      cpu_smaller(s->block, s->count - b * s->block));
}

static lk_status cpu_nf4r_master(lk_context *context, const lk_call *call) {
  nf4r_state s;
  nf4r_open(&s, call, lk_tensor_count(&call->in[0]));
  s.codes = call->in[0].data;
  s.absmax = call->in[1].data;
  s.residual = lk_present(&call->in[2]) ? call->in[2].data : NULL;
  s.master = call->out[0].data;
  cpu_parallel(context, cpu_pieces(s.blocks, s.group), nf4r_master_part, &s);
  return LK_OK;
}

/* Decode a block, move it, encode it again. */
static void nf4r_update_block(const nf4r_state *s, int64_t b) {
  float w[QUANT_BLOCK], tile[UPDATE_TILE];
  int64_t first = b * s->block;
  int64_t n = cpu_smaller(s->block, s->count - first);
  nf4r_master_block(s, b, w, n);
  for (int64_t i = 0; i < n; i += UPDATE_TILE) {
    int64_t part = cpu_smaller(UPDATE_TILE, n - i);
    const float *o = update_read(s->o, first + i, part, tile);
    for (int64_t j = 0; j < part; j++)
      w[i + j] = lk_muon_step(w[i + j], o[j], s->rate, s->scale, s->decay);
  }
  nf4r_encode_block(s, b, w, n);
}

static void nf4r_update_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const nf4r_state *s = opaque;
  int64_t first = index * s->group;
  int64_t last = cpu_smaller(s->blocks, first + s->group);
  for (int64_t b = first; b < last; b++) nf4r_update_block(s, b);
}

static lk_status cpu_nf4r_update(lk_context *context, const lk_call *call) {
  update_state update =
      update_of(call, call->in[1].data, LK_CONTROL_FACTOR);
  if (update.stopped) return LK_OK;
  nf4r_state s;
  nf4r_open(&s, call, lk_tensor_count(&call->in[0]));
  s.o = &call->in[0];
  s.rate = update.rate;
  s.scale = update.scale;
  s.decay = update.decay;
  nf4r_results(&s);
  nf4r_draws(&s, &call->in[2]);
  cpu_parallel(context, cpu_pieces(s.blocks, s.group), nf4r_update_part, &s);
  return LK_OK;
}
