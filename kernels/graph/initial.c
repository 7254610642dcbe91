/* Initial weights: drawn from the seed, encoded in their format. */
#include "run.h"

/* Far from the streams that layers draw from while a program runs. */
int64_t lk_stream_initial(const lk_parameter *p) { return 0x10000 + p->index; }
int64_t lk_stream_encode(const lk_parameter *p) { return 0x20000 + p->index; }

static lk_status run_eager(lk_machine *m, lk_call call) {
  lk_storage *storage[LK_MAX_RESULTS] = {0};
  lk_status status = lk_dispatch(m->context, &call, storage);
  for (int i = 0; i < LK_MAX_RESULTS; i++) lk_storage_release(storage[i]);
  return status;
}

static lk_tensor part(const lk_machine *m, const lk_parameter *w,
                      lk_part which) {
  return w->part[which] ? lk_machine_tensor(m, w->part[which]) : LK_ABSENT;
}

static lk_call call_of(lk_op op, lk_tensor out, lk_attr attr) {
  lk_call call = {.op = op, .attr = attr};
  for (int i = 0; i < LK_MAX_RESULTS; i++) call.out[i] = LK_ABSENT;
  for (int i = 0; i < LK_MAX_INPUTS; i++) call.in[i] = LK_ABSENT;
  call.out[0] = out;
  return call;
}

/* Initial values, f32, into `to`. */
static lk_status fill_initial(lk_machine *m, const lk_parameter *w, int clock,
                              lk_tensor to) {
  lk_attr attr = {.value = w->init == LK_INIT_ONES};
  if (w->init != LK_INIT_NORMAL)
    return run_eager(m, call_of(LK_OP_fill, to, attr));
  attr.stream = lk_stream_initial(w);
  attr.scale = w->std;
  lk_call call = call_of(LK_OP_randn, to, attr);
  call.in[0] = lk_machine_tensor(m, clock);
  return run_eager(m, call);
}

static lk_status encode_initial(lk_machine *m, const lk_parameter *w, int clock,
                                bool search, lk_tensor values) {
  lk_call call = call_of(LK_OP_nf4r_encode, part(m, w, LK_PART_CODES),
                         (lk_attr){.block = w->block, .search = search,
                                   .stochastic = w->format->stochastic,
                                   .stream = lk_stream_encode(w)});
  call.out[1] = part(m, w, LK_PART_SCALES);
  call.out[2] = part(m, w, LK_PART_RESIDUAL);
  call.in[0] = values;
  call.in[1] = lk_machine_tensor(m, clock);
  return run_eager(m, call);
}

/* Quantized weights pass through the arena where it is large enough (nothing
 * runs yet), or through an allocation of their own. */
static lk_status initialize_quantized(lk_machine *m, const lk_parameter *w,
                                      int clock, bool search) {
  lk_tensor values = {.dtype = LK_F32, .shape = w->shape};
  int64_t bytes = lk_tensor_bytes(&values);
  lk_storage *storage = NULL;
  if (m->arena && m->needs.arena >= bytes) {
    values.data = m->arena;
  } else {
    LK_TRY(lk_storage_new(m->context, bytes, LK_SCRATCH, &storage));
    values.data = lk_storage_data(storage);
  }
  lk_status status = fill_initial(m, w, clock, values);
  if (status == LK_OK) status = encode_initial(m, w, clock, search, values);
  lk_storage_release(storage);
  return status;
}

lk_status lk_parameter_initialize(lk_machine *m, const lk_parameter *w,
                                  int clock, bool search) {
  if (w->format->quantized)
    return initialize_quantized(m, w, clock, search);
  lk_tensor master = part(m, w, LK_PART_MASTER);
  LK_TRY(fill_initial(m, w, clock, master));
  if (!w->part[LK_PART_COPY]) return LK_OK;
  lk_call call = call_of(LK_OP_cast, part(m, w, LK_PART_COPY), (lk_attr){0});
  call.in[0] = master;
  return run_eager(m, call);
}
