/* Weight formats: how a parameter is kept, given to layers and updated. */
#include <stdlib.h>
#include <string.h>

#include "run.h"

const lk_weight_format lk_weight_formats[] = {
    {.name = "f32"},
    /* fp4.md §3: 4-bit codes, an int8 residual, int8 momentum */
    {.name = "nf4r", .quantized = true, .int8_momentum = true,
     .residual = true},
    /* controls that must fail: no residual, two roundings; frozen codes */
    {.name = "nf4_nearest", .quantized = true, .int8_momentum = true},
    {.name = "nf4_stochastic", .quantized = true, .int8_momentum = true,
     .stochastic = true},
    {.name = "nf4_frozen", .quantized = true, .int8_momentum = true,
     .residual = true, .frozen = true},
    {.name = NULL},
};

const lk_weight_format *lk_weight_format_find(const char *name) {
  for (const lk_weight_format *f = lk_weight_formats; f->name; f++)
    if (strcmp(f->name, name) == 0) return f;
  return NULL;
}

bool lk_is_quantizable(const lk_parameter *p, int64_t from) {
  bool linear = p->kind == LK_KIND_LINEAR ||
                (p->kind == LK_KIND_CUSTOM && p->shape.rank == 2);
  return linear && lk_shape_count(p->shape) >= from;
}

static void declare_codes(lk_store *s, lk_parameter *p,
                          const lk_weight_options *o) {
  int64_t count = lk_shape_count(p->shape);
  p->block = o->block;
  lk_store_add_part(s, p, LK_PART_CODES, LK_U4, p->shape, LK_PARAMETERS);
  lk_store_add_part(s, p, LK_PART_SCALES, LK_F32,
                    lk_shape_of((count + o->block - 1) / o->block),
                    LK_PARAMETERS);
  if (p->format->residual)
    lk_store_add_part(s, p, LK_PART_RESIDUAL, LK_I8, p->shape, LK_PARAMETERS);
}

/* Matrices are multiplied in the compute dtype, vectors applied in f32. */
static bool needs_copy(const lk_parameter *p, lk_dtype compute) {
  return compute != LK_F32 && p->shape.rank >= 2;
}

void lk_weight_declare(lk_store *s, lk_parameter *p,
                       const lk_weight_options *o) {
  p->format = o->format;
  if (p->format->quantized) {
    declare_codes(s, p, o);
    return;
  }
  lk_store_add_part(s, p, LK_PART_MASTER, LK_F32, p->shape, LK_PARAMETERS);
  if (needs_copy(p, o->compute))
    lk_store_add_part(s, p, LK_PART_COPY, o->compute, p->shape, LK_PARAMETERS);
}

/* A part's buffer as a value; LK_NONE when the parameter has none. */
static lk_value part(lk_graph *g, const lk_parameter *p, lk_part which) {
  return p->part[which] ? lk_value_of_buffer(g, p->part[which]) : LK_NONE;
}

static lk_value dequantized(lk_graph *g, const lk_parameter *p) {
  lk_value w = lk_value_new(g, g->compute, p->shape, LK_SCRATCH, p->name);
  lk_emit(g, LK_OP_dequantize,
          LK_IN(part(g, p, LK_PART_CODES), part(g, p, LK_PART_SCALES)),
          LK_OUT(w), LK_ATTRS(.format = LK_FORMAT_NF4, .block = p->block));
  if (w != LK_NONE) /* else kept: nothing is made again */
    lk_value_get(g, w)->forced = g->recompute > LK_RECOMPUTE_NONE;
  return w;
}

void lk_weights_decode(lk_graph *g) {
  int count = lk_store_parameter_count(g->store);
  if (!lk_graph_ok(g) || g->recompute > LK_RECOMPUTE_NONE || g->e4m3) return;
  g->decoded = calloc((size_t)count + 1, sizeof *g->decoded);
  if (g->decoded == NULL) {
    lk_graph_fail(g, LK_OOM, "no host memory for a program");
    return;
  }
  for (int i = 1; i <= count; i++) {
    const lk_parameter *p = lk_store_parameter(g->store, i);
    if (p->format->quantized) g->decoded[i] = dequantized(g, p);
  }
}

/* A weight's value as it is multiplied with. */
static lk_value operand(lk_graph *g, const lk_parameter *p) {
  if (p->format->quantized)
    return g->decoded ? g->decoded[p->index] : dequantized(g, p);
  return part(g, p, p->part[LK_PART_COPY] ? LK_PART_COPY : LK_PART_MASTER);
}

lk_value lk_weight_operand(lk_graph *g, int index) {
  if (!lk_graph_ok(g)) return LK_NONE;
  lk_value w = operand(g, lk_store_parameter(g->store, index));
  if (w == LK_NONE) return LK_NONE;
  lk_value_get(g, w)->parameter = index;
  lk_value_get(g, w)->wants = g->training;
  return w;
}

/* The call that gives rows of a weight. */
static lk_results emit_weight_rows(lk_graph *g, const lk_parameter *p,
                                   bool turned, const lk_value *out) {
  lk_value w = part(g, p, p->part[LK_PART_COPY] ? LK_PART_COPY
                                                : LK_PART_MASTER);
  if (p->format->quantized)
    return lk_emit(g, LK_OP_e4m3_from_nf4,
                   LK_IN(part(g, p, LK_PART_CODES),
                         part(g, p, LK_PART_SCALES)),
                   out, LK_ATTRS(.block = p->block, .transpose_a = turned));
  if (turned) return lk_emit(g, LK_OP_e4m3_turn, LK_IN(w), out, LK_ATTRS(0));
  return lk_emit(g, LK_OP_quantize, LK_IN(w), out,
                 LK_ATTRS(.format = LK_FORMAT_E4M3, .block = p->shape.dim[1]));
}

lk_rows lk_weight_rows(lk_graph *g, int index, bool turned) {
  lk_rows r = {0};
  if (!lk_graph_ok(g)) return r;
  const lk_parameter *p = lk_store_parameter(g->store, index);
  lk_shape s = turned ? lk_shape_of(p->shape.dim[1], p->shape.dim[0])
                      : p->shape;
  r.codes = lk_value_new(g, LK_E4M3, s, LK_SCRATCH, p->name);
  r.scales = lk_value_new(g, LK_F32, lk_shape_of(s.dim[0]), LK_SCRATCH,
                          "scales");
  emit_weight_rows(g, p, turned, LK_OUT(r.codes, r.scales));
  if (!lk_graph_ok(g)) return r;
  lk_value_get(g, r.codes)->forced = lk_value_get(g, r.scales)->forced = true;
  lk_value_get(g, r.codes)->parameter = index;
  lk_value_get(g, r.codes)->wants = g->training && !g->in_backward;
  return r;
}

void lk_weight_update(lk_graph *g, lk_parameter *p, const lk_weight_options *o,
                      lk_update u) {
  lk_attr attr = {.lr = u.lr, .scale = u.scale, .decay = u.decay};
  if (!p->format->quantized) {
    lk_emit(g, LK_OP_muon_update, LK_IN(u.direction, g->control),
            LK_OUT(part(g, p, LK_PART_MASTER), part(g, p, LK_PART_COPY)),
            attr);
    return;
  }
  if (p->format->frozen) return;
  attr.block = o->block;
  attr.search = o->search;
  attr.stochastic = p->format->stochastic;
  attr.stream = lk_stream_encode(p);
  lk_emit(g, LK_OP_nf4r_update, LK_IN(u.direction, g->control, g->clock),
          LK_OUT(part(g, p, LK_PART_CODES), part(g, p, LK_PART_SCALES),
                 part(g, p, LK_PART_RESIDUAL)),
          attr);
}

lk_dtype lk_parameter_gradient_dtype(const lk_parameter *p, lk_dtype compute,
                                     int64_t accumulate) {
  bool short_sums = p->format->quantized && accumulate > 1;
  return short_sums && compute != LK_F16 ? LK_BF16 : LK_F32;
}
