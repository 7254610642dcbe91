/* Functions: a few values in, one value out, and the gradients of its sum. */
#include "function.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const lk_weight_options plain = {.format = &lk_weight_formats[0],
                                        .compute = LK_F32};

/* Float inputs are parameters, so that their gradients gather; others are
 * plain buffers. */
static void add_input(lk_function *f, const lk_tensor *t, int i) {
  char name[32];
  snprintf(name, sizeof name, "input.%d", i + 1);
  if (t->dtype != LK_F32) {
    f->input[i] = -lk_store_add_buffer(&f->store, name, t->dtype, t->shape,
                                       LK_DATA);
    return;
  }
  lk_parameter p = {.shape = t->shape, .kind = LK_KIND_CUSTOM};
  lk_clip_text(p.name, sizeof p.name, name, "");
  f->input[i] = lk_store_add_parameter(&f->store, &p);
}

static void open_graph(lk_function *f, const lk_profile *profile,
                       bool training) {
  lk_graph *g = &f->graph;
  g->profile = profile;
  g->store = &f->store;
  g->training = training;
  g->batch = g->seq = 1;
  f->clock = lk_store_add_buffer(&f->store, "clock", LK_U32,
                                 lk_shape_of(LK_CLOCK), LK_DATA);
  size_t n = (size_t)lk_store_parameter_count(&f->store) + 1;
  g->parameter_gradients = calloc(n, sizeof *g->parameter_gradients);
  if (g->parameter_gradients == NULL)
    lk_graph_fail(g, LK_OOM, "no host memory for a function");
  g->clock = lk_value_of_buffer(g, f->clock);
}

static void set_batch(lk_graph *g, const lk_tensor *x) {
  if (x->shape.rank < 2) return;
  g->batch = x->shape.dim[0];
  g->seq = x->shape.dim[1];
}

static lk_status status_of(const lk_graph *g, lk_error *error) {
  if (!lk_graph_ok(g)) *error = g->error;
  return g->error.code;
}

lk_status lk_function_begin(lk_function *f, const lk_profile *profile,
                            const lk_tensor *inputs, int count,
                            lk_layer *layer, bool training,
                            lk_error *error) {
  memset(f, 0, sizeof *f);
  lk_graph_init(&f->graph);
  if (count > LK_FUNCTION_INPUTS)
    return lk_fail(error, LK_ARGUMENT, "at most %d inputs",
                   LK_FUNCTION_INPUTS);
  f->inputs = count;
  if (layer) LK_TRY(lk_layer_collect(layer, &f->store, error));
  for (int i = 0; i < count; i++) add_input(f, &inputs[i], i);
  for (int i = 1; i < f->store.parameter_count; i++)
    lk_weight_declare(&f->store, &f->store.parameters[i], &plain);
  LK_TRY(lk_store_check(&f->store, error));
  open_graph(f, profile, training);
  if (count > 0) set_batch(&f->graph, &inputs[0]);
  for (int i = 0; i < count; i++)
    f->value[i] = f->input[i] > 0
        ? lk_weight_operand(&f->graph, f->input[i])
        : lk_value_of_buffer(&f->graph, -f->input[i]);
  return status_of(&f->graph, error);
}

/* Copy a transient value where it outlives the run. */
static int keep(lk_function *f, lk_value v, const char *name) {
  lk_graph *g = &f->graph;
  if (v == LK_NONE || !lk_graph_ok(g)) return 0;
  int buffer = lk_store_add_buffer(&f->store, name, lk_value_dtype(g, v),
                                   lk_value_shape(g, v), LK_DATA);
  lk_emit(g, LK_OP_copy, LK_IN(v), LK_OUT(lk_value_of_buffer(g, buffer)),
          LK_ATTRS(0));
  return buffer;
}

static void differentiate(lk_function *f, lk_value result) {
  lk_graph *g = &f->graph;
  g->in_backward = true;
  lk_value ones = lk_emit_as(g, LK_OP_fill, NULL, lk_value_dtype(g, result),
                             lk_value_shape(g, result), LK_ATTRS(.value = 1));
  g->in_backward = false;
  lk_graph_reverse(g, result, ones, NULL, NULL);
  g->in_backward = true;
  for (int i = 0; i < f->inputs; i++) {
    char name[32];
    snprintf(name, sizeof name, "gradient.%d", i + 1);
    if (f->input[i] > 0)
      f->gradient[i] = keep(f, g->parameter_gradients[f->input[i]].value,
                            name);
  }
  g->in_backward = false;
}

lk_status lk_function_end(lk_function *f, lk_value result, bool gradients,
                          lk_error *error) {
  lk_graph *g = &f->graph;
  result = lk_force(g, result);
  f->output = keep(f, result, "output");
  if (gradients && lk_graph_ok(g)) differentiate(f, result);
  LK_TRY(status_of(g, error));
  return lk_plan_make(g, &f->plan, error);
}

static lk_status set_input(lk_function *f, int i, const lk_tensor *t) {
  int buffer = f->input[i] < 0 ? -f->input[i]
      : f->store.parameters[f->input[i]].part[LK_PART_MASTER];
  lk_context *x = f->machine.context;
  return x->backend->copy(x, lk_machine_buffer(&f->machine, buffer), t->data,
                          lk_tensor_bytes(t));
}

static bool is_input(const lk_function *f, int parameter) {
  for (int i = 0; i < f->inputs; i++)
    if (f->input[i] == parameter) return true;
  return false;
}

lk_status lk_function_run(lk_function *f, lk_context *context,
                          const lk_tensor *inputs, uint64_t seed) {
  const lk_graph *g = &f->graph;
  const lk_plan *plan = &f->plan;
  uint32_t clock[LK_CLOCK] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
  LK_TRY(lk_machine_open(&f->machine, context, &f->store, &g, &plan, 1,
                         LK_RUN_ARENA));
  LK_TRY(lk_machine_upload(&f->machine, f->clock, clock, sizeof clock));
  for (int i = 1; i < f->store.parameter_count; i++)
    if (!is_input(f, i))
      LK_TRY(lk_parameter_initialize(&f->machine, &f->store.parameters[i],
                                     f->clock, false));
  for (int i = 0; i < f->inputs; i++) LK_TRY(set_input(f, i, &inputs[i]));
  for (int s = 0; s < LK_SECTION_COUNT; s++)
    LK_TRY(lk_machine_run(&f->machine, 0, (lk_section)s));
  return context->backend->synchronize(context);
}

void lk_function_free(lk_function *f) {
  lk_machine_close(&f->machine);
  lk_graph_free(&f->graph);
  lk_plan_free(&f->plan);
  lk_store_free(&f->store);
}
