/* The output projection fused with cross-entropy, a chunk of rows at a time,
 * and the running metrics. */
#include "../core/scratch.h"
#include "cpu.h"
#include "vector.h"

typedef struct loss_state {
  float *logits; /* of the chunk */
  const int32_t *targets;
  float *loss;
  int32_t *correct;
  int64_t rows, width; /* width: V */
  bool train;
  float factor; /* of the gradient */
} loss_state;

enum { LOSS_ROWS = 4 };

/* Whether `target` is the first place of the row's largest value. */
static bool loss_first(const float *row, int64_t target, float most) {
  int earlier = 0;
  if (row[target] != most) return false;
  for (int64_t i = 0; i < target; i++) earlier |= row[i] == most;
  return !earlier;
}

/* Loss and hit of one row; its logits become their gradient. */
static void loss_row(const loss_state *s, int64_t r) {
  float *row = s->logits + r * s->width;
  int32_t target = s->targets[r];
  if (target < 0) { /* padding: not counted */
    s->correct[r] = 0;
    s->loss[r] = 0;
    if (s->train) memset(row, 0, (size_t)s->width * sizeof *row);
    return;
  }
  float most = row_max(row, s->width), goal = row[target];
  s->correct[r] = loss_first(row, target, most);
  row_exp(row, row, s->width, most);
  float sum = row_sum(row, s->width);
  s->loss[r] = lk_logf(sum) + (most - goal);
  if (!s->train) return;
  row_scale(row, s->width, s->factor / sum);
  row[target] -= s->factor;
}

static void loss_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const loss_state *s = opaque;
  int64_t last = cpu_smaller((index + 1) * LOSS_ROWS, s->rows);
  for (int64_t r = index * LOSS_ROWS; r < last; r++) loss_row(s, r);
}

static lk_status loss_check(lk_context *context, const lk_call *call) {
  const int32_t *targets = call->in[2].data;
  int64_t rows = lk_tensor_count(&call->in[2]);
  int64_t vocabulary = call->in[1].shape.dim[0];
  for (int64_t n = 0; n < rows; n++)
    if (targets[n] < -1 || targets[n] >= vocabulary)
      return lk_fail(&context->error, LK_ARGUMENT,
                     "%s: targets[%lld] is %d, w has %lld rows",
                     lk_op_info_of(call->op)->name, (long long)n, targets[n],
                     (long long)vocabulary);
  return LK_OK;
}

/* Rows [first, first + rows): logits, losses, and with dx the gradients; dw is
 * overwritten unless `add`. */
static void loss_chunk(lk_context *context, const lk_call *call,
                       int64_t first, int64_t rows, float factor, bool add) {
  int64_t width = call->in[0].shape.dim[1], words = call->in[1].shape.dim[0];
  const float *x = (const float *)call->in[0].data + first * width;
  const float *w = call->in[1].data;
  loss_state s = {.logits = call->scratch,
                  .targets = (const int32_t *)call->in[2].data + first,
                  .loss = (float *)call->out[0].data + first,
                  .correct = (int32_t *)call->out[1].data + first,
                  .rows = rows, .width = words, .factor = factor,
                  .train = call->op == LK_OP_head_loss_train};
  cpu_gemm(context, false, true, rows, words, width, 1, x, width, w, width, 0,
           s.logits, words);
  cpu_parallel(context, cpu_pieces(rows, LOSS_ROWS), loss_part, &s);
  if (!s.train) return;
  cpu_gemm(context, false, false, rows, width, words, 1, s.logits, words, w,
           width, 0, (float *)call->out[2].data + first * width, width);
  cpu_gemm(context, true, false, words, width, rows, 1, s.logits, words, x,
           width, add, call->out[3].data, width);
}

static lk_status loss_run(lk_context *context, const lk_call *call,
                          float factor) {
  LK_TRY(cpu_need_f32(context, call));
  LK_TRY(loss_check(context, call));
  int64_t count = call->in[0].shape.dim[0];
  int64_t chunk = cpu_smaller(call->attr.chunk, count);
  for (int64_t first = 0; first < count; first += chunk)
    loss_chunk(context, call, first, cpu_smaller(chunk, count - first), factor,
               call->attr.accumulate || first > 0);
  return LK_OK;
}

static lk_status cpu_head_loss(lk_context *context, const lk_call *call) {
  return loss_run(context, call, 0);
}

static lk_status cpu_head_loss_train(lk_context *context,
                                     const lk_call *call) {
  const float *control = call->in[3].data;
  return loss_run(context, call,
                  control[LK_CONTROL_LOSS_SCALE] * (float)call->attr.value);
}

static lk_status cpu_metrics(lk_context *context, const lk_call *call) {
  (void)context;
  float *metrics = call->out[0].data;
  const float *loss = call->in[0].data;
  const int32_t *correct = call->in[1].data;
  int64_t count = lk_tensor_count(&call->in[0]), hits = 0;
  double sum = 0;
  for (int64_t n = 0; n < count; n++) {
    sum += loss[n];
    hits += correct[n];
  }
  metrics[0] = (float)(metrics[0] + sum);
  metrics[1] = (float)(metrics[1] + (double)hits);
  metrics[2] = (float)(metrics[2] + (double)count);
  return LK_OK;
}
