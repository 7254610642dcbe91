/* All CPU operators compiled for one instruction-set level, -DLK_CPU_LEVEL=v3
 * and the like, and the table of them: lk_cpu_kernels_<level>. */
#include "cpu.h"

static lk_status cpu_need_f32(lk_context *context, const lk_call *call) {
  const lk_op_info *info = lk_op_info_of(call->op);
  for (int i = 0; i < info->results + info->inputs; i++) {
    const lk_tensor *t =
        i < info->results ? &call->out[i] : &call->in[i - info->results];
    if (lk_present(t) && lk_dtype_is_float(t->dtype) && t->dtype != LK_F32 &&
        !(t->dtype == LK_E4M3 && i < info->results &&
          info->result[i].optional))
      return lk_fail(&context->error, LK_UNSUPPORTED,
                     "%s: the cpu backend computes in f32, not %s", info->name,
                     lk_dtype_word(t->dtype));
  }
  return LK_OK;
}

#include "random.c"
#include "matmul.c"
#include "activation.c"
#include "attention.c"
#include "decode.c"
#include "elementwise.c"
#include "embedding.c"
#include "loss.c"
#include "norm.c"
#include "shape.c"
#include "optimizer.c"
#include "newton_schulz.c"
#include "quantize.c"
#include "nf4r.c"
#include "e4m3.c"
#include "reduce.c"

#define CPU_TABLE(level) CPU_TABLE_NAME(level)
#define CPU_TABLE_NAME(level) lk_cpu_kernels_##level

extern const lk_kernel CPU_TABLE(LK_CPU_LEVEL)[LK_OP_COUNT];
const lk_kernel CPU_TABLE(LK_CPU_LEVEL)[LK_OP_COUNT] = {
#define OP(name, results, inputs, attributes, gradient) \
  [LK_OP_##name] = cpu_##name,
#include "../core/ops.def"
#undef OP
};
