/* NF4R on the CPU: 4-bit weights with an 8-bit residual that learn. Formulas
 * by element are those of base/codebook.h, segments and packing quantize.c's,
 * draws random.c's. */
#include "../base/scalar.h"
#include "cpu.h"
#include "vector.h"

enum {
  NF4R_PART = 4096, /* values of a part; a block is not larger */
  NF4R_RUN = 1024   /* values encoded together: a multiple of 8 */
};

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
  int64_t count, block, group, parts; /* group: values of a part */
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

/* n <= NF4R_RUN master values of one scale, from packed codes and residuals
 * (NULL: none). */
static void nf4r_decode_run(const nf4r_tables *t, const uint8_t *codes,
                            const int8_t *restrict residual, float scale,
                            float *restrict w, int64_t n) {
  float below[NF4R_RUN], above[NF4R_RUN];
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

/* Values in units of their scales, their codes and draws, for a run. */
typedef struct nf4r_run {
  float u[NF4R_RUN];
  int32_t code[NF4R_RUN];
  draw_buffer buffer;
  const uint16_t *draws;
} nf4r_run;

static void nf4r_residuals(const nf4r_tables *t, const uint8_t *packed,
                           const nf4r_run *run, int8_t *restrict out,
                           int64_t n) {
  float value[NF4R_RUN], below[NF4R_RUN], above[NF4R_RUN];
  const float *restrict u = run->u;
  const uint16_t *restrict draws = run->draws;
  quant_lookup(&t->values, packed, value, n);
  quant_lookup(&t->below, packed, below, n);
  quant_lookup(&t->above, packed, above, n);
  for (int64_t i = 0; i < n; i++) {
    float low = below[i], high = above[i], rest = u[i] - value[i];
    float half = rest < 0.0f ? low : high;
    out[i] = (int8_t)lk_nf4r_residual(rest, half, lk_rng_unit16(draws[i]));
  }
}

static void nf4r_stochastic(const nf4r_tables *t, nf4r_run *run, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    int32_t c = lk_nf4_below(run->u[i]);
    run->code[i] =
        lk_nf4_stochastic(run->u[i], c, t->value[c], t->value[c + 1],
                          lk_rng_unit16(run->draws[i]));
  }
}

/* Values [first, first + n) become codes (and residuals) by the scales in
 * absmax; n <= NF4R_RUN; they start a block or lie in one. */
static void nf4r_encode_run(const nf4r_state *s, int64_t first,
                            const float *w, int64_t n) {
  nf4r_run run;
  bool drawn = s->residual != NULL || s->call->attr.stochastic;
  if (drawn) run.draws = draw_row(&s->draws, (uint64_t)first, n, &run.buffer);
  for (int64_t i = 0; i < n; i += s->block) {
    lk_unit unit = lk_unit_of_scale(s->absmax[(first + i) / s->block]);
    quant_scale(w + i, unit, run.u + i, cpu_smaller(s->block, n - i));
  }
  if (s->residual == NULL && drawn)
    nf4r_stochastic(&s->tables, &run, n);
  else
    quant_nf4_encode(NULL, run.u, run.code, n);
  quant_pack(run.code, n, 7, false, s->codes + first / 2);
  if (s->residual != NULL)
    nf4r_residuals(&s->tables, s->codes + first / 2, &run,
                   s->residual + first, n);
}

/* A large block, or some small ones, in runs. */
static void nf4r_encode_step(const nf4r_state *s, int64_t first,
                             const float *w, int64_t n) {
  for (int64_t i = 0; i < n; i += NF4R_RUN)
    nf4r_encode_run(s, first + i, w + i, cpu_smaller(NF4R_RUN, n - i));
}

/* Values from `first`, the start of a block, on: scales, then codes. */
static void nf4r_encode(const nf4r_state *s, int64_t first, const float *w,
                        int64_t n) {
  const quant_format *format = &quant_formats[LK_FORMAT_NF4];
  for (int64_t i = 0; i < n; i += s->block)
    s->absmax[(first + i) / s->block] =
        quant_block_scale(format, w + i, cpu_smaller(s->block, n - i),
                          s->call->attr.search);
  int64_t step = s->block > NF4R_RUN ? s->block
                                     : NF4R_RUN / s->block * s->block;
  for (int64_t i = 0; i < n; i += step)
    nf4r_encode_step(s, first + i, w + i, cpu_smaller(step, n - i));
}

/* --- operators ------------------------------------------------------------ */

static void nf4r_open(nf4r_state *s, const lk_call *call, int64_t count) {
  *s = (nf4r_state){.call = call, .count = count, .block = call->attr.block};
  s->group = NF4R_PART / s->block * s->block;
  s->parts = cpu_pieces(count, s->group);
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
  nf4r_encode(s, first, s->w + first,
              cpu_smaller(s->group, s->count - first));
}

static lk_status cpu_nf4r_encode(lk_context *context, const lk_call *call) {
  nf4r_state s;
  nf4r_open(&s, call, lk_tensor_count(&call->in[0]));
  s.w = call->in[0].data;
  nf4r_results(&s);
  nf4r_draws(&s, &call->in[1]);
  cpu_parallel(context, s.parts, nf4r_encode_part, &s);
  return LK_OK;
}

/* The master of values [first, first + n), from the start of a block on. */
static void nf4r_decode(const nf4r_state *s, int64_t first, float *w,
                        int64_t n) {
  for (int64_t i = 0, part; i < n; i += part) {
    int64_t at = first + i, left = s->block - at % s->block;
    part = cpu_smaller(cpu_smaller(left, n - i), NF4R_RUN);
    nf4r_decode_run(&s->tables, s->codes + at / 2,
                    s->residual != NULL ? s->residual + at : NULL,
                    s->absmax[at / s->block], w + i, part);
  }
}

static void nf4r_master_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const nf4r_state *s = opaque;
  int64_t first = index * s->group;
  nf4r_decode(s, first, s->master + first,
              cpu_smaller(s->group, s->count - first));
}

static lk_status cpu_nf4r_master(lk_context *context, const lk_call *call) {
  nf4r_state s;
  nf4r_open(&s, call, lk_tensor_count(&call->in[0]));
  s.codes = call->in[0].data;
  s.absmax = call->in[1].data;
  s.residual = lk_present(&call->in[2]) ? call->in[2].data : NULL;
  s.master = call->out[0].data;
  cpu_parallel(context, s.parts, nf4r_master_part, &s);
  return LK_OK;
}

/* Decode a part, move it, encode it again. */
static void nf4r_update_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const nf4r_state *s = opaque;
  float w[NF4R_PART], tile[UPDATE_TILE];
  int64_t first = index * s->group;
  int64_t n = cpu_smaller(s->group, s->count - first);
  nf4r_decode(s, first, w, n);
  for (int64_t i = 0; i < n; i += UPDATE_TILE) {
    int64_t part = cpu_smaller(UPDATE_TILE, n - i);
    const float *o = update_read(s->o, first + i, part, tile);
    for (int64_t j = 0; j < part; j++)
      w[i + j] = lk_muon_step(w[i + j], o[j], s->rate, s->scale, s->decay);
  }
  nf4r_encode(s, first, w, n);
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
  cpu_parallel(context, s.parts, nf4r_update_part, &s);
  return LK_OK;
}
