/* NVTX ranges: with LLMHOST_NVTX=1 in the environment every call of an operator
 * is a range of its name, for Nsight Systems and Compute. Sections are then
 * called one by one, not replayed from recordings. */
#include <nvtx3/nvToolsExt.h>
#include <stdlib.h>
#include <string.h>

#include "ranges.cuh"

static void begin_range(void *state, const lk_call *call) {
  (void)state;
  nvtxRangePushA(lk_op_info_of(call->op)->name);
}

static void end_range(void *state, const lk_call *call) {
  (void)state, (void)call;
  nvtxRangePop();
}

void ranges_open(lk_context *context) {
  const char *asked = getenv("LLMHOST_NVTX");
  if (asked == NULL || strcmp(asked, "1") != 0) return;
  context->tracer.before = begin_range;
  context->tracer.after = end_range;
}
