/* Programs: compiling a model into a planned pair of graphs, training and
 * evaluation, and what can be asked of it before it runs. */
#include "program.h"

#include <stdlib.h>
#include <string.h>

#include "program_private.h"

lk_program_options lk_program_defaults(void) {
  return (lk_program_options){
      .batch = 1, .seq = 128, .accumulate = 1,
      .recompute = LK_RECOMPUTE_LIGHT,
      .weights = {.format = &lk_weight_formats[0], .block = 64,
                  .compute = LK_F32},
      .quantize_from = 1001, .fuse = -1};
}

/* --- compiling ----------------------------------------------------------- */

lk_status lk_program_declare(const lk_program *p, lk_store *store,
                             lk_error *error) {
  lk_weight_options plain = p->o.weights;
  plain.format = &lk_weight_formats[0];
  LK_TRY(lk_layer_collect(p->model, store, error));
  for (int i = 1; i < store->parameter_count; i++) {
    lk_parameter *w = &store->parameters[i];
    bool quantize = p->o.weights.format->quantized &&
                    lk_is_quantizable(w, p->o.quantize_from);
    lk_weight_declare(store, w, quantize ? &p->o.weights : &plain);
  }
  return lk_store_check(store, error);
}

static void declare_data(lk_program *p) {
  lk_store *s = &p->store;
  lk_shape rows = lk_shape_of(p->o.batch * p->o.seq);
  int64_t slots = 1;
  if (p->has_optimizer)
    slots = lk_optimizer_slot(s, lk_store_parameter_count(s) + 1);
  p->ids = lk_store_add_buffer(s, "ids", LK_I32, rows, LK_DATA);
  p->targets = lk_store_add_buffer(s, "targets", LK_I32, rows, LK_DATA);
  p->clock = lk_store_add_buffer(s, "clock", LK_U32, lk_shape_of(LK_CLOCK),
                                 LK_DATA);
  p->control = lk_store_add_buffer(s, "control", LK_F32,
                                   lk_shape_of(LK_CONTROL), LK_DATA);
  p->metrics = lk_store_add_buffer(s, "metrics", LK_F32, lk_shape_of(4),
                                   LK_DATA);
  p->slots = lk_store_add_buffer(s, "slots", LK_F32, lk_shape_of(slots),
                                 LK_DATA);
}

static void open_graph(lk_program *p, lk_graph *g, bool training) {
  lk_graph_init(g);
  g->profile = p->profile;
  g->store = &p->store;
  g->training = training;
  g->batch = p->o.batch;
  g->seq = p->o.seq;
  g->accumulate = training ? p->o.accumulate : 1;
  g->recompute = p->o.recompute;
  g->saved_int8 = p->o.saved_int8;
  g->e4m3 = p->o.e4m3;
  g->compute = p->o.weights.compute;
  g->head_chunk = p->o.head_chunk;
  size_t n = (size_t)lk_store_parameter_count(&p->store) + 1;
  g->parameter_gradients = calloc(n, sizeof *g->parameter_gradients);
  if (g->parameter_gradients == NULL)
    lk_graph_fail(g, LK_OOM, "no host memory for a program");
  g->ids = lk_value_of_buffer(g, p->ids);
  g->targets = lk_value_of_buffer(g, p->targets);
  g->clock = lk_value_of_buffer(g, p->clock);
  g->control = lk_value_of_buffer(g, p->control);
  g->metrics = lk_value_of_buffer(g, p->metrics);
  g->section = LK_BEGIN;
  lk_emit(g, LK_OP_fill, NULL, LK_OUT(g->metrics), LK_ATTRS(0));
  g->section = LK_MICRO;
}

/* Emit the model; the head must have given a loss. */
static void emit_model(lk_program *p, lk_graph *g) {
  lk_value loss = lk_force(g, lk_layer_emit(g, p->model, g->ids));
  if (!lk_graph_ok(g)) return;
  int producer = lk_value_get(g, loss)->producer;
  lk_op op = producer > 0 ? g->instrs[producer - 1].op : LK_OP_COUNT;
  if (op != LK_OP_head_loss && op != LK_OP_head_loss_train)
    lk_graph_fail(g, LK_ARGUMENT, "a model must end with nn.head, which turns "
                  "channels into the loss");
}

static lk_status build_training(lk_program *p, lk_error *error) {
  lk_graph *g = &p->graph[0];
  open_graph(p, g, true);
  lk_updates updates = {.weights = &p->o.weights, .fused = p->fused,
                        .fuse_group = p->o.fuse_group};
  LK_TRY(lk_updates_open(&updates, &p->store, error));
  updates.slots = lk_value_of_buffer(g, p->slots);
  lk_weights_decode(g);
  emit_model(p, g);
  lk_graph_reverse(g, LK_NONE, LK_NONE, lk_updates_final, &updates);
  lk_updates_finish(g, &updates);
  lk_updates_close(&updates);
  return LK_OK;
}

static lk_status build_graphs(lk_program *p, lk_error *error) {
  if (p->has_optimizer) LK_TRY(build_training(p, error));
  lk_graph *g = &p->graph[p->has_optimizer];
  open_graph(p, g, false);
  emit_model(p, g);
  p->graphs = p->has_optimizer + 1;
  for (int i = 0; i < p->graphs; i++) {
    if (!lk_graph_ok(&p->graph[i])) {
      *error = p->graph[i].error;
      return p->graph[i].error.code;
    }
    LK_TRY(lk_plan_make(&p->graph[i], &p->plan[i], error));
  }
  return LK_OK;
}

static lk_status check_options(const lk_program *p, lk_error *error) {
  const lk_program_options *o = &p->o;
  if (o->batch < 1 || o->seq < 1 || o->accumulate < 1)
    return lk_fail(error, LK_ARGUMENT, "compile: batch, seq and accumulate "
                   "must be at least 1");
  if (o->fuse_group < 0)
    return lk_fail(error, LK_ARGUMENT, "compile: fuse_group must not be "
                   "negative");
  if (o->fuse == 1 && o->accumulate > 1)
    return lk_fail(error, LK_ARGUMENT, "compile: fused updates need "
                   "accumulate = 1, got %lld", (long long)o->accumulate);
  if (p->fused && p->scales)
    return lk_fail(error, LK_ARGUMENT, "compile: fused updates need bf16 or "
                   "f32: f16's loss scaling decides after all gradients");
  return LK_OK;
}

static lk_status compile(lk_program *p, lk_error *error) {
  bool wish = p->o.fuse == 1 ||
              (p->o.fuse < 0 && p->o.weights.format->quantized && !p->scales);
  p->fused = wish && p->o.accumulate == 1 && p->has_optimizer;
  LK_TRY(check_options(p, error));
  LK_TRY(lk_program_declare(p, &p->store, error));
  if (p->has_optimizer) {
    LK_TRY(lk_optimizer_assign(&p->optimizer, &p->store, error));
    LK_TRY(lk_optimizer_declare(&p->store, error));
  }
  declare_data(p);
  LK_TRY(lk_store_check(&p->store, error));
  LK_TRY(build_graphs(p, error));
  const lk_plan *plans[2] = {&p->plan[0], &p->plan[1]};
  lk_needs_count(&p->store, p->profile, plans, p->graphs, &p->needs);
  return LK_OK;
}

lk_status lk_program_new(const lk_program_options *options, lk_layer *model,
                         const lk_optimizer *optimizer,
                         const lk_profile *profile, lk_program **program,
                         lk_error *error) {
  lk_program *p = calloc(1, sizeof *p);
  if (p == NULL) return lk_fail(error, LK_OOM, "no host memory for a program");
  p->o = *options;
  p->model = model;
  lk_layer_retain(model);
  p->has_optimizer = optimizer != NULL;
  if (optimizer) p->optimizer = *optimizer;
  p->profile = profile;
  if (p->o.fuse_group == 0) p->o.fuse_group = profile->update_group;
  p->muon_factor = 1;
  p->scales = p->o.scale_losses || p->o.weights.compute == LK_F16;
  p->scaling = lk_scaling_first(p->scales);
  lk_status status = compile(p, error);
  if (status != LK_OK) {
    lk_program_free(p);
    return status;
  }
  *program = p;
  return LK_OK;
}

void lk_program_free(lk_program *p) {
  if (p == NULL) return;
  lk_program_close(p);
  for (int i = 0; i < 2; i++) {
    lk_graph_free(&p->graph[i]);
    lk_plan_free(&p->plan[i]);
  }
  lk_store_free(&p->store);
  lk_layer_release(p->model);
  free(p);
}

lk_status lk_program_rebatch(const lk_program *p, int64_t batch,
                             int64_t accumulate, lk_program **other,
                             lk_error *error) {
  lk_program_options o = p->o;
  o.batch = batch;
  o.accumulate = accumulate;
  return lk_program_new(&o, p->model, p->has_optimizer ? &p->optimizer : NULL,
                        p->profile, other, error);
}

/* --- questions ----------------------------------------------------------- */

/* Bytes of state that belong to quantizable weights: their buffers, and their
 * gradients where those outlive a batch of the fused step. */
static double state_per_weight(const lk_program *p) {
  double bytes = 0, weights = 0;
  for (int i = 1; i < p->store.buffer_count; i++) {
    const lk_buffer *b = &p->store.buffers[i];
    if (b->parameter && lk_is_quantizable(&p->store.parameters[b->parameter],
                                        p->o.quantize_from))
      bytes += (double)lk_dtype_bytes(b->dtype, lk_shape_count(b->shape));
  }
  for (int i = 1; i < p->store.parameter_count; i++) {
    const lk_parameter *w = &p->store.parameters[i];
    if (!lk_is_quantizable(w, p->o.quantize_from)) continue;
    double n = (double)lk_shape_count(w->shape);
    weights += n;
    lk_dtype d = lk_parameter_gradient_dtype(w, p->o.weights.compute,
                                             p->o.accumulate);
    if (!p->fused) bytes += n * lk_dtype_bits(d) / 8;
  }
  return weights > 0 ? bytes / weights : 0;
}

void lk_program_memory_of(const lk_program *p, lk_program_memory *m) {
  *m = (lk_program_memory){.peak = p->needs.peak, .arena = p->needs.arena,
                           .state_per_weight = state_per_weight(p)};
  m->live_peak = p->needs.peak - p->needs.arena;
  for (int c = 0; c < LK_CATEGORY_COUNT; c++)
    m->category[c] = p->needs.persistent[c] + p->needs.transient[c];
  int64_t live = 0;
  for (int i = 0; i < p->graphs; i++)
    if (p->plan[i].live_peak > live) live = p->plan[i].live_peak;
  m->live_peak += live;
  int64_t held = p->profile->workspace; /* while the context lives */
  m->peak += held;
  m->live_peak += held;
  m->category[LK_SCRATCH] += held;
}

void lk_program_count_of(const lk_program *p, lk_program_count *c) {
  *c = (lk_program_count){0};
  for (int i = 1; i < p->store.parameter_count; i++) {
    const lk_parameter *w = &p->store.parameters[i];
    int64_t n = lk_shape_count(w->shape);
    c->parameters += n;
    if (w->format->quantized) c->quantized += n;
    if (lk_is_quantizable(w, p->o.quantize_from)) c->quantizable += n;
    if (w->group == NULL) continue;
    if (w->group->kind == LK_MUON) c->muon += n;
    else if (w->group->kind == LK_ADAMW) c->adamw += n;
    else c->sgd += n;
  }
}

/* 6·N a token (2·N forward, 4·N backward; N counts each weight once, the tied
 * table as the head that multiplies with it) and 6·L·d·T of attention, from
 * the attention calls themselves: causal, half of the square. */
static double model_flops(const lk_program *p, const lk_graph *g) {
  lk_program_count c;
  lk_program_count_of(p, &c);
  double rows = (double)(p->o.batch * p->o.seq);
  double flops = 6.0 * (double)c.parameters * rows;
  for (int i = 0; i < g->instr_count; i++) {
    const lk_instr *k = &g->instrs[i];
    if (k->op != LK_OP_attention || k->recomputed) continue;
    flops += 6.0 * (double)(k->attr.heads * k->attr.width * k->attr.seq) * rows;
  }
  return flops;
}

void lk_program_work_of(const lk_program *p, lk_program_work *w) {
  const lk_graph *g = &p->graph[0];
  *w = (lk_program_work){.model_flops = model_flops(p, g)};
  for (int i = 0; i < g->instr_count; i++) {
    const lk_instr *k = &g->instrs[i];
    bool micro = k->section == LK_MICRO;
    *(micro ? &w->micro_flops : &w->update_flops) += k->cost.flops;
    *(micro ? &w->micro_bytes : &w->update_bytes) += k->cost.bytes;
  }
}

const lk_program_options *lk_program_options_of(const lk_program *p) {
  return &p->o;
}
const lk_store *lk_program_store(const lk_program *p) { return &p->store; }
const lk_profile *lk_program_profile(const lk_program *p) {
  return p->profile;
}
bool lk_program_fused(const lk_program *p) { return p->fused; }
lk_machine *lk_program_machine(lk_program *p) {
  return p->open ? &p->machine : NULL;
}

static int graph_index(const lk_program *p, bool training) {
  return training ? 0 : p->has_optimizer;
}

const lk_graph *lk_program_graph(const lk_program *p, bool training) {
  return &p->graph[graph_index(p, training)];
}

const lk_plan *lk_program_plan(const lk_program *p, bool training) {
  return &p->plan[graph_index(p, training)];
}
