/* Running a program: initial weights, optimizer steps, evaluation. */
#include <math.h>
#include <string.h>

#include "program_private.h"

static lk_context *context_of(lk_program *p) { return p->machine.context; }

static lk_status set_clock(lk_program *p, int64_t step, int64_t micro) {
  uint32_t clock[LK_CLOCK] = {
      [LK_CLOCK_SEED_LOW] = (uint32_t)p->o.seed,
      [LK_CLOCK_SEED_HIGH] = (uint32_t)(p->o.seed >> 32),
      [LK_CLOCK_STEP] = (uint32_t)step,
      [LK_CLOCK_MICRO] = (uint32_t)micro};
  return lk_machine_upload(&p->machine, p->clock, clock, sizeof clock);
}

static lk_status clear_state(lk_program *p) {
  lk_context *x = context_of(p);
  for (int i = 1; i < p->store.buffer_count; i++) {
    const lk_buffer *b = &p->store.buffers[i];
    if (b->category != LK_OPTIMIZER) continue;
    lk_tensor t = lk_machine_tensor(&p->machine, i);
    LK_TRY(x->backend->zero(x, t.data, lk_tensor_bytes(&t)));
  }
  return LK_OK;
}

lk_status lk_program_reset(lk_program *p) {
  p->steps = 0;
  p->muon_factor = 1;
  p->scaling = lk_scaling_first(p->scales);
  LK_TRY(clear_state(p));
  LK_TRY(set_clock(p, 0, 0));
  for (int i = 1; i < p->store.parameter_count; i++)
    LK_TRY(lk_parameter_initialize(&p->machine, &p->store.parameters[i],
                                   p->clock, p->o.weights.search));
  return context_of(p)->backend->synchronize(context_of(p));
}

/* --- opening ------------------------------------------------------------- */

lk_status lk_program_open(lk_program *p, lk_context *context,
                          lk_run_mode mode) {
  const lk_graph *graphs[2] = {&p->graph[0], &p->graph[1]};
  const lk_plan *plans[2] = {&p->plan[0], &p->plan[1]};
  if (p->open) return LK_OK;
  if (strcmp(context->profile->backend, p->profile->backend) != 0)
    return lk_fail(&context->error, LK_ARGUMENT, "this program was compiled "
                   "for %s, not for %s", p->profile->backend,
                   context->profile->backend);
  LK_TRY(lk_machine_open(&p->machine, context, &p->store, graphs, plans,
                         p->graphs, mode));
  p->open = true;
  p->machine.tf32 = p->o.tf32;
  lk_status status = LK_OK;
  for (int i = 0; i < p->graphs && status == LK_OK; i++)
    status = lk_machine_run(&p->machine, i, LK_SETUP);
  if (status == LK_OK) status = lk_program_reset(p);
  if (status != LK_OK) lk_program_close(p);
  return status;
}

void lk_program_close(lk_program *p) {
  if (p->open) lk_machine_close(&p->machine);
  p->open = false;
}

/* --- steps --------------------------------------------------------------- */

/* The number of a step's update, from 1: skipped ones made none. */
static int64_t update_number(const lk_program *p, int64_t step) {
  int64_t n = step + 1 - p->scaling.skipped;
  return n > 1 ? n : 1;
}

lk_status lk_program_begin(lk_program *p, int64_t step) {
  p->step = step;
  p->micro = 0;
  p->rate = lk_schedule_rate(&p->optimizer.schedule, step);
  float clip = p->optimizer.clip > 0 ? (float)p->optimizer.clip : INFINITY;
  float control[LK_CONTROL] = {
      [LK_CONTROL_RATE] = (float)p->rate,
      [LK_CONTROL_LOSS_SCALE] = (float)p->scaling.scale,
      [LK_CONTROL_CLIP] = clip,
      [LK_CONTROL_MUON_FACTOR] = (float)p->muon_factor,
      [LK_CONTROL_STEP] = (float)update_number(p, step),
      [LK_CONTROL_FACTOR] = 1,
      [LK_CONTROL_FINITE] = 1};
  LK_TRY(lk_machine_upload(&p->machine, p->control, control, sizeof control));
  LK_TRY(set_clock(p, step, 0));
  return lk_machine_run(&p->machine, 0, LK_BEGIN);
}

static lk_status set_batch(lk_program *p, const int32_t *ids,
                           const int32_t *targets) {
  int64_t bytes = p->o.batch * p->o.seq * (int64_t)sizeof *ids;
  LK_TRY(lk_machine_upload(&p->machine, p->ids, ids, bytes));
  return lk_machine_upload(&p->machine, p->targets, targets, bytes);
}

lk_status lk_program_micro(lk_program *p, const int32_t *ids,
                           const int32_t *targets) {
  LK_TRY(set_batch(p, ids, targets));
  if (p->micro > 0) LK_TRY(set_clock(p, p->step, p->micro));
  p->micro++;
  return lk_machine_run(&p->machine, 0, LK_MICRO);
}

/* `metrics` holds sums: loss, correct, tokens. With the control they come in
 * one download: a step waits for the device once. */
lk_status lk_program_finish(lk_program *p, lk_step_result *r) {
  float control[LK_CONTROL], metrics[4];
  LK_TRY(lk_machine_run(&p->machine, 0, LK_UPDATE));
  LK_TRY(lk_machine_download_two(&p->machine, p->control, control, p->metrics,
                                 metrics));
  bool updated = control[LK_CONTROL_FINITE] != 0;
  p->steps = p->step + 1;
  *r = (lk_step_result){.loss = metrics[0] / metrics[2],
                        .accuracy = metrics[1] / metrics[2],
                        .norm = control[LK_CONTROL_NORM], .rate = p->rate,
                        .tokens = (int64_t)metrics[2],
                        .skipped = p->scales && !updated,
                        .scale = p->scaling.scale};
  r->finite = updated && isfinite(r->loss) && isfinite(r->norm);
  if (!r->skipped) p->muon_factor = control[LK_CONTROL_FACTOR];
  if (p->scales) p->scaling = lk_scaling_next(p->scaling, updated);
  return LK_OK;
}

lk_status lk_program_evaluate(lk_program *p, const int32_t *ids,
                              const int32_t *targets, double *loss,
                              double *correct) {
  int which = p->has_optimizer;
  float metrics[4];
  LK_TRY(set_batch(p, ids, targets));
  LK_TRY(lk_machine_run(&p->machine, which, LK_BEGIN));
  LK_TRY(lk_machine_run(&p->machine, which, LK_MICRO));
  LK_TRY(lk_machine_download(&p->machine, p->metrics, metrics,
                             sizeof metrics));
  *loss += metrics[0];
  *correct += metrics[1];
  return LK_OK;
}

void lk_program_spread(const lk_program *p, int32_t *ids, int32_t *targets) {
  uint32_t words = 2;
  for (int i = 1; i < p->store.parameter_count; i++)
    if (p->store.parameters[i].kind == LK_KIND_EMBEDDING)
      words = (uint32_t)p->store.parameters[i].shape.dim[0];
  for (int64_t i = 0; i < p->o.batch * p->o.seq; i++) {
    ids[i] = (int32_t)((uint32_t)i * 2654435761u % words);
    targets[i] = (int32_t)((uint32_t)(i + 1) * 2654435761u % words);
  }
}

/* --- state --------------------------------------------------------------- */

int64_t lk_program_steps(const lk_program *p) { return p->steps; }

void lk_program_set_steps(lk_program *p, int64_t steps) { p->steps = steps; }

double lk_program_muon_factor(const lk_program *p) { return p->muon_factor; }

void lk_program_set_muon_factor(lk_program *p, double factor) {
  p->muon_factor = factor;
}

bool lk_program_scales(const lk_program *p) { return p->scales; }

lk_scaling lk_program_scaling(const lk_program *p) { return p->scaling; }

void lk_program_set_scaling(lk_program *p, lk_scaling scaling) {
  p->scaling = scaling;
}

lk_status lk_program_gradient(lk_program *p, const char *name,
                              lk_tensor *gradient) {
  lk_error *error = &context_of(p)->error;
  const lk_parameter *w = lk_store_find(&p->store, name);
  if (w == NULL)
    return lk_fail(error, LK_ARGUMENT, "no parameter is called %s", name);
  lk_value v = p->graph[0].parameter_gradients[w->index].value;
  if (p->fused || v == LK_NONE || p->machine.mode == LK_RUN_SEPARATE)
    return lk_fail(error, LK_ARGUMENT, "the gradient of %s is not kept", name);
  const lk_plan *plan = &p->plan[0];
  int64_t offset = plan->blocks[plan->block_of_value[v]].offset;
  *gradient = (lk_tensor){.data = p->machine.arena + offset,
                          .dtype = p->graph[0].values[v].dtype,
                          .shape = w->shape};
  return LK_OK;
}
