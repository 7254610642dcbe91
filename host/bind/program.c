/* gpu.compile and the class of what it returns. */
#include "program.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "checkpoint.h"
#include "gpu.h"
#include "text.h"

static void program_close(void *object) {
  lh_program *p = object;
  lk_program_free(p->program);
  free(p->ids);
  free(p->targets);
}

lh_program *lh_program_self(lua_State *L, int index) {
  return lh_object_check(L, index, &lh_program_class);
}

lk_program *lh_program_check(lua_State *L, int index) {
  return lh_program_self(L, index)->program;
}

/* --- stores that the collector frees ------------------------------------- */

static void store_close(void *object) { lk_store_free(object); }
static const lh_class store_class = {"gpu.store", NULL, store_close};

lk_store *lh_store_push(lua_State *L) {
  lh_class_new(L, &store_class);
  return lh_object_new(L, &store_class, sizeof(lk_store));
}

/* --- opening ------------------------------------------------------------- */

static lk_status try_open(lua_State *L, void *argument) {
  lh_program *p = argument;
  (void)L;
  return lk_program_open(p->program, p->context, p->mode);
}

lh_program *lh_program_opened(lua_State *L, int index) {
  lh_program *p = lh_program_self(L, index);
  if (p->context == NULL)
    lh_raise(L, LK_ARGUMENT, "this program was compiled with plan = '%s': it "
             "answers questions and does not run",
             lk_program_profile(p->program)->backend);
  if (lk_program_machine(p->program) == NULL)
    lh_retry(L, p->context, try_open, p);
  if (p->ids == NULL) {
    const lk_program_options *o = lk_program_options_of(p->program);
    size_t rows = (size_t)(o->batch * o->seq);
    p->ids = malloc(rows * sizeof *p->ids);
    p->targets = malloc(rows * sizeof *p->targets);
    if (p->ids == NULL || p->targets == NULL)
      lh_raise(L, LK_OOM, "no host memory for a batch");
  }
  return p;
}

static lh_program *opened(lua_State *L) { return lh_program_opened(L, 1); }

static int program_open(lua_State *L) {
  opened(L);
  lua_settop(L, 1);
  return 1;
}

/* --- running ------------------------------------------------------------- */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void check(lua_State *L, const lh_program *p, lk_status status) {
  lh_check(L, status, &p->context->error);
}

/* i32 [B, T] values of the tensor at `index` into `to`, ids within the
 * vocabulary. */
static void read_ids(lua_State *L, const lh_program *p, int index,
                     int32_t *to) {
  const lk_program_options *o = lk_program_options_of(p->program);
  lh_tensor *t = lh_tensor_check(L, index);
  if (t->t.dtype != LK_I32 || lk_tensor_count(&t->t) != o->batch * o->seq)
    lh_raise(L, LK_SHAPE, "a batch is i32 [%d, %d]", (int)o->batch,
             (int)o->seq);
  lh_tensor_download(L, t, to);
}

typedef struct batch_source {
  lh_loader *loader;  /* or tensors at stack indices 2 and 3 */
  int64_t step;
} batch_source;

static void fill_batch(lua_State *L, lh_program *p, const batch_source *s,
                       int64_t micro) {
  const lk_program_options *o = lk_program_options_of(p->program);
  lk_error error = {0};
  if (s->loader == NULL) {
    read_ids(L, p, 2, p->ids);
    read_ids(L, p, 3, p->targets);
    return;
  }
  lh_check(L, lh_loader_fill(s->loader, s->step, micro * o->batch, o->batch,
                             p->ids, p->targets, &error), &error);
}

static void check_loader(lua_State *L, const lh_program *p, lh_loader *loader,
                         bool training) {
  const lk_program_options *o = lk_program_options_of(p->program);
  const lh_loader_options *l = lh_loader_about(loader);
  if (l->seq != o->seq)
    lh_raise(L, LK_SHAPE, "the loader's sequences have %d tokens, the "
             "program's %d", (int)l->seq, (int)o->seq);
  if (training && l->batch != o->batch * o->accumulate)
    lh_raise(L, LK_SHAPE, "the loader gives %d sequences a step, the program "
             "takes %d (batch %d, accumulate %d)", (int)l->batch,
             (int)(o->batch * o->accumulate), (int)o->batch,
             (int)o->accumulate);
}

static void push_step(lua_State *L, const lk_program *p,
                      const lk_step_result *r, double seconds) {
  lua_createtable(L, 0, 9);
  lua_pushnumber(L, r->loss);
  lua_setfield(L, -2, "loss");
  lua_pushnumber(L, r->accuracy);
  lua_setfield(L, -2, "accuracy");
  lua_pushnumber(L, r->norm);
  lua_setfield(L, -2, "grad_norm");
  lua_pushnumber(L, r->rate);
  lua_setfield(L, -2, "lr");
  lua_pushinteger(L, r->tokens);
  lua_setfield(L, -2, "tokens");
  lua_pushboolean(L, r->finite);
  lua_setfield(L, -2, "finite");
  lua_pushboolean(L, r->skipped);
  lua_setfield(L, -2, "skipped");
  if (lk_program_scales(p)) {
    lua_pushnumber(L, r->scale);
    lua_setfield(L, -2, "loss_scale");
  }
  lua_pushnumber(L, seconds);
  lua_setfield(L, -2, "seconds");
}

/* p:step(loader, step) or p:step(x, y, step): one optimizer step. */
static int program_step(lua_State *L) {
  lh_program *p = opened(L);
  if (!lk_program_graph(p->program, true)->training)
    lh_raise(L, LK_ARGUMENT, "step: the program was compiled without an "
             "optimizer");
  batch_source s = {0};
  int at = lh_tensor_test(L, 2) ? 4 : 3;
  if (at == 3) {
    s.loader = lh_loader_check(L, 2);
    check_loader(L, p, s.loader, true);
  }
  s.step = lua_isnoneornil(L, at) ? lk_program_steps(p->program)
           : lh_check_integer(L, at, "step", 1, INT64_MAX) - 1;
  double start = now();
  check(L, p, lk_program_begin(p->program, s.step));
  int64_t accumulate = lk_program_options_of(p->program)->accumulate;
  for (int64_t i = 0; i < accumulate; i++) {
    fill_batch(L, p, &s, i);
    check(L, p, lk_program_micro(p->program, p->ids, p->targets));
  }
  lk_step_result r;
  check(L, p, lk_program_finish(p->program, &r));
  push_step(L, p->program, &r, now() - start);
  return 1;
}

static void push_evaluation(lua_State *L, double loss, double correct,
                            int64_t tokens) {
  lua_createtable(L, 0, 4);
  lua_pushnumber(L, loss / (double)tokens);
  lua_setfield(L, -2, "loss");
  lua_pushnumber(L, exp(loss / (double)tokens));
  lua_setfield(L, -2, "perplexity");
  lua_pushnumber(L, correct / (double)tokens);
  lua_setfield(L, -2, "accuracy");
  lua_pushinteger(L, tokens);
  lua_setfield(L, -2, "tokens");
}

/* p:evaluate(loader, tokens?) or p:evaluate(x, y). */
static int program_evaluate(lua_State *L) {
  lh_program *p = opened(L);
  const lk_program_options *o = lk_program_options_of(p->program);
  double loss = 0, correct = 0;
  if (lh_tensor_test(L, 2)) {
    fill_batch(L, p, &(batch_source){0}, 0);
    check(L, p, lk_program_evaluate(p->program, p->ids, p->targets, &loss,
                                    &correct));
    push_evaluation(L, loss, correct, o->batch * o->seq);
    return 1;
  }
  batch_source s = {.loader = lh_loader_check(L, 2)};
  check_loader(L, p, s.loader, false);
  int64_t windows = lh_loader_windows(s.loader);
  int64_t most = luaL_optinteger(L, 3, 0) / o->seq;
  if (most > 0 && most < windows) windows = most;
  for (int64_t at = 0; at < windows; at += o->batch) {
    fill_batch(L, p, &s, at / o->batch);
    for (int64_t i = (windows - at) * o->seq; i < o->batch * o->seq; i++)
      p->targets[i] = -1;  /* past the last window asked for */
    check(L, p, lk_program_evaluate(p->program, p->ids, p->targets, &loss,
                                    &correct));
  }
  push_evaluation(L, loss, correct, windows * o->seq);
  return 1;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int64_t n) {
  qsort(values, (size_t)n, sizeof *values, by_size);
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

void lh_program_rehearse(lh_program *p) {
  lk_program_spread(p->program, p->ids, p->targets);
  lk_program_set_scaling(p->program, lk_scaling_first(false));
}

/* p:time{micro_steps = n}: warmed medians on ids 0, then back to step 0. Fused
 * updates are part of a micro-step. */
static int program_time(lua_State *L) {
  lh_program *p = opened(L);
  int64_t n = 10;
  if (lua_istable(L, 2) && lua_getfield(L, 2, "micro_steps") != LUA_TNIL)
    n = lh_check_integer(L, -1, "micro_steps", 1, 1 << 20);
  double *seconds = lua_newuserdatauv(L, (size_t)n * sizeof *seconds, 0);
  lk_step_result r;
  lh_program_rehearse(p);
  check(L, p, lk_program_begin(p->program, 0));
  for (int64_t i = -1; i < n; i++) {
    double start = now();
    check(L, p, lk_program_micro(p->program, p->ids, p->targets));
    check(L, p, p->context->backend->synchronize(p->context));
    if (i >= 0) seconds[i] = now() - start;
  }
  double start = now();
  check(L, p, lk_program_finish(p->program, &r));
  double update = now() - start;
  check(L, p, lk_program_reset(p->program));
  lua_createtable(L, 0, 2);
  lua_pushnumber(L, median(seconds, n));
  lua_setfield(L, -2, "micro");
  lua_pushnumber(L, update);
  lua_setfield(L, -2, "update");
  return 1;
}

/* --- parameters and state ------------------------------------------------ */

static lk_parameter *parameter_at(lua_State *L, const lh_program *p,
                                  int index) {
  const char *name = luaL_checkstring(L, index);
  lk_parameter *w = lk_store_find(lk_program_store(p->program), name);
  if (w == NULL) lh_raise(L, LK_ARGUMENT, "no parameter is called '%s'", name);
  return w;
}

static lk_tensor part_of(const lh_program *p, const lk_parameter *w,
                         lk_part part) {
  return w->part[part] ? lk_machine_tensor(lk_program_machine(p->program),
                                           w->part[part])
                       : LK_ABSENT;
}

static void dispatch(lua_State *L, lh_program *p, lk_call call) {
  lk_storage *storage[LK_MAX_RESULTS] = {0};
  check(L, p, lk_dispatch(p->context, &call, storage));
}

/* p:parameter(name): a copy, f32: the master where it is kept in f32, else what
 * the 4-bit codes stand for, which is what the model computes with. */
static int program_parameter(lua_State *L) {
  lh_program *p = opened(L);
  const lk_parameter *w = parameter_at(L, p, 2);
  lh_tensor *t = lh_tensor_new(L, p->context, LK_F32, w->shape);
  if (w->format->quantized)
    dispatch(L, p, (lk_call){
        .op = LK_OP_dequantize, .out = {t->t},
        .in = {part_of(p, w, LK_PART_CODES), part_of(p, w, LK_PART_SCALES),
               LK_ABSENT},
        .attr = {.format = LK_FORMAT_NF4, .block = w->block}});
  else
    dispatch(L, p, (lk_call){.op = LK_OP_copy, .out = {t->t},
                             .in = {part_of(p, w, LK_PART_MASTER)}});
  return 1;
}

/* p:assign(name, tensor): overwrite a parameter, encoding it if need be. */
static int program_assign(lua_State *L) {
  lh_program *p = opened(L);
  const lk_parameter *w = parameter_at(L, p, 2);
  lh_tensor *t = lh_tensor_check(L, 3);
  char have[96], want[96];
  if (t->t.dtype != LK_F32 || !lk_shape_equal(t->t.shape, w->shape))
    lh_raise(L, LK_SHAPE, "%s is f32 %s, got %s %s", w->name,
             lk_shape_text(w->shape, want, sizeof want),
             lk_dtype_word(t->t.dtype),
             lk_shape_text(t->t.shape, have, sizeof have));
  lk_machine *m = lk_program_machine(p->program);
  const lk_program_options *o = lk_program_options_of(p->program);
  int clock = lk_store_find_buffer(lk_program_store(p->program), "clock");
  if (w->format->quantized) {
    dispatch(L, p, (lk_call){
        .op = LK_OP_nf4r_encode,
        .out = {part_of(p, w, LK_PART_CODES), part_of(p, w, LK_PART_SCALES),
                part_of(p, w, LK_PART_RESIDUAL)},
        .in = {t->t, lk_machine_tensor(m, clock)},
        .attr = {.block = w->block, .search = o->weights.search,
                 .stochastic = w->format->stochastic,
                 .stream = lk_stream_encode(w)}});
    return 0;
  }
  dispatch(L, p, (lk_call){.op = LK_OP_copy, .in = {t->t},
                           .out = {part_of(p, w, LK_PART_MASTER)}});
  if (w->part[LK_PART_COPY])
    dispatch(L, p, (lk_call){.op = LK_OP_cast, .in = {t->t},
                             .out = {part_of(p, w, LK_PART_COPY)}});
  return 0;
}

/* p:gradients(x, y): loss and every parameter's gradient of one micro-batch, no
 * update; {loss =, [name] = tensor}. Not on fused programs. */
static int program_gradients(lua_State *L) {
  lh_program *p = opened(L);
  lk_step_result r;
  check(L, p, lk_program_begin(p->program, 0));
  fill_batch(L, p, &(batch_source){0}, 0);
  check(L, p, lk_program_micro(p->program, p->ids, p->targets));
  lua_newtable(L);
  const lk_store *s = lk_program_store(p->program);
  double scale = lk_program_scaling(p->program).scale;
  for (int i = 1; i < s->parameter_count; i++) {
    lk_tensor d;
    check(L, p, lk_program_gradient(p->program, s->parameters[i].name, &d));
    lh_tensor *t = lh_tensor_new(L, p->context, LK_F32, d.shape);
    dispatch(L, p, (lk_call){.op = LK_OP_cast, .out = {t->t}, .in = {d}});
    if (scale != 1)
      dispatch(L, p, (lk_call){.op = LK_OP_affine, .out = {t->t}, .in = {t->t},
                               .attr = {.scale = 1 / scale}});
    lua_setfield(L, -2, s->parameters[i].name);
  }
  float metrics[4];
  int buffer = lk_store_find_buffer(s, "metrics");
  check(L, p, lk_machine_download(lk_program_machine(p->program), buffer,
                                  metrics, sizeof metrics));
  r.loss = metrics[0] / metrics[2];
  lua_pushnumber(L, r.loss);
  lua_setfield(L, -2, "loss");
  return 1;
}

static int program_reset(lua_State *L) {
  lh_program *p = opened(L);
  check(L, p, lk_program_reset(p->program));
  lua_settop(L, 1);
  return 1;
}

static int program_save(lua_State *L) {
  lh_program *p = opened(L);
  lk_error error = {0};
  if (lh_checkpoint_save(p->program, luaL_checkstring(L, 2), &error) != LK_OK)
    return lh_world_error(L, &error);
  lua_pushboolean(L, true);
  return 1;
}

static int program_load(lua_State *L) {
  lh_program *p = opened(L);
  lk_error error = {0};
  if (lh_checkpoint_load(p->program, luaL_checkstring(L, 2), &error) != LK_OK)
    return lh_world_error(L, &error);
  lua_pushboolean(L, true);
  return 1;
}

static const lh_function methods[] = {
    {"open", program_open, "(self): gpu.program",
     "Allocate and initialize now rather than at the first step.", NULL},
    {"step", program_step,
     "(self, loader: host.text.loader, step?: integer): table",
     "One optimizer step from a loader, or p:step(x, y, step?): {loss, "
     "accuracy, grad_norm, lr, tokens, finite, seconds, skipped}, in f16 "
     "loss_scale, too. skipped: f16's gradients were not finite, only the "
     "scale has changed.", NULL},
    {"evaluate", program_evaluate,
     "(self, loader: host.text.loader, tokens?: integer): table",
     "Loss, perplexity and accuracy without dropout, also of (x, y).", NULL},
    {"time", program_time, "(self, options?: {micro_steps: integer}): table",
     "Median seconds of a warmed micro-step and of an update; then the "
     "program is back at step 0.", NULL},
    {"parameter", program_parameter, "(self, name: string): gpu.tensor",
     "A copy of a parameter as the model computes with it, f32.", NULL},
    {"assign", program_assign, "(self, name: string, value: gpu.tensor)",
     "Overwrite a parameter.", NULL},
    {"gradients", program_gradients,
     "(self, x: gpu.tensor, y: gpu.tensor): table",
     "Loss and gradients by parameter name, without an update.", NULL},
    {"reset", program_reset, "(self): gpu.program",
     "Initial weights and empty optimizer state.", NULL},
    {"save", program_save, "(self, folder: string): boolean",
     "Write model.safetensors and training.safetensors; nil, message, code on "
     "failure.", NULL},
    {"load", program_load, "(self, folder: string): boolean",
     "Read what save wrote, bit for bit; nil, message, code on failure.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL}};

const lh_class lh_program_class = {"gpu.program", methods, program_close};

void lh_add_program(lua_State *L) {
  lh_class_new(L, &lh_program_class);
  lh_class_add(L, &lh_program_class, lh_program_questions);
  lh_add_generate(L);
  lh_add_compile(L);
}
