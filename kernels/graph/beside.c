/* Calls that may run beside each other: conflicts between what calls touch. */
#include "beside.h"

#include "../core/scratch.h"

/* Operators of a few microseconds that come in rows, most of whose time is
 * beginning and end. Any other ends a run. */
static const bool in_runs[LK_OP_COUNT] = {
    [LK_OP_sum_squares] = true,         [LK_OP_adamw] = true,
    [LK_OP_muon_momentum] = true,       [LK_OP_muon_update] = true,
    [LK_OP_muon_momentum_int8] = true,  [LK_OP_nf4r_update] = true,
    [LK_OP_dequantize] = true,
};

/* A piece of memory that a call touches. */
typedef struct touch {
  const char *first, *end;
  bool written;
  bool shared;   /* … also by other calls of the operator at the same time */
} touch;

enum { TOUCHES = LK_MAX_RESULTS + LK_MAX_INPUTS + 1 };

static int add_touch(touch *list, int count, const void *data, int64_t bytes,
                     bool written, bool shared) {
  if (data == NULL || bytes <= 0) return count;
  list[count] = (touch){data, (const char *)data + bytes, written, shared};
  return count + 1;
}

static int touches_of(const lk_profile *profile, const lk_call *call,
                      touch list[TOUCHES]) {
  const lk_op_info *info = lk_op_info_of(call->op);
  int n = add_touch(list, 0, call->scratch, lk_scratch(profile, call), true,
                    false);
  for (int i = 0; i < info->inputs; i++)
    if (lk_present(&call->in[i]))
      n = add_touch(list, n, call->in[i].data, lk_tensor_bytes(&call->in[i]),
                    false, false);
  for (int r = 0; r < info->results; r++)
    if (lk_present(&call->out[r]))
      n = add_touch(list, n, call->out[r].data,
                    lk_tensor_bytes(&call->out[r]), true,
                    info->result[r].shared);
  return n;
}

static bool in_conflict(const lk_profile *profile, const lk_call *a,
                        const lk_call *b) {
  touch x[TOUCHES], y[TOUCHES];
  int n = touches_of(profile, a, x), m = touches_of(profile, b, y);
  for (int i = 0; i < n; i++)
    for (int k = 0; k < m; k++) {
      bool overlap = x[i].first < y[k].end && y[k].first < x[i].end;
      bool together = a->op == b->op && x[i].shared && y[k].shared;
      if (overlap && (x[i].written || y[k].written) && !together) return true;
    }
  return false;
}

void lk_beside_mark(const lk_profile *profile, lk_call *calls, int count) {
  int first = 0; /* of the run */
  for (int n = 0; n < count; n++) {
    bool beside = in_runs[calls[n].op];
    for (int k = first; k < n && beside; k++)
      beside = in_runs[calls[k].op] &&
               !in_conflict(profile, &calls[k], &calls[n]);
    calls[n].beside = beside && n > first;
    if (!calls[n].beside) first = n;
  }
}
