/* What stands for attention where attention.cu is not linked in. */
#include "device.cuh"

__attribute__((weak)) lk_status cuda_attention(lk_context *context,
                                               const lk_call *call) {
  return lk_fail(&context->error, LK_UNSUPPORTED, "%s: not in this build",
                 lk_op_info_of(call->op)->name);
}

__attribute__((weak)) lk_status cuda_attention_backward(lk_context *context,
                                                        const lk_call *call) {
  return cuda_attention(context, call);
}
