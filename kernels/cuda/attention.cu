/* The attention operators of CUDA: which kernels take a call. Owns none.
 *
 * cuDNN's is not among them: forward and backward together it measured slower
 * at every shape tried (NOTES.md). */
#include "attention.cuh"
#include "device.cuh"

/* The arguments that both directions share; `qkv` among the inputs. */
static lk_status attention_open(lk_context *context, const lk_call *call,
                                const lk_tensor *qkv, const lk_tensor *clock,
                                attention_args *args) {
  const lk_attr *a = &call->attr;
  const char *name = lk_op_info_of(call->op)->name;
  if (a->seq > INT32_MAX || a->width > ATTENTION_PLAIN_WIDTH ||
      a->batch * a->heads > INT32_MAX)
    return lk_fail(&context->error, LK_UNSUPPORTED,
                   "%s: width %lld, seq %lld is too large for a device "
                   "(width at most %d)", name, (long long)a->width,
                   (long long)a->seq, ATTENTION_PLAIN_WIDTH);
  drops d = drops_of(clock, a, 0);
  memset(args, 0, sizeof *args);
  args->qkv = qkv->data;
  args->dtype = qkv->dtype;
  args->clock = d.clock;
  args->batch = (int)a->batch;
  args->seq = (int)a->seq;
  args->heads = (int)a->heads;
  args->kv_heads = (int)a->kv_heads;
  args->width = (int)a->width;
  args->scale = (float)a->scale;
  args->factor = d.threshold ? d.factor : 1.0f; /* as the CPU has it */
  args->threshold = d.threshold;
  args->stream = d.stream;
  if (cuda_of(context)->hopper) args->hopper = cuda_of(context)->processors;
  return LK_OK;
}

lk_status cuda_attention(lk_context *context, const lk_call *call) {
  attention_args args;
  LK_TRY(attention_open(context, call, &call->in[0], &call->in[1], &args));
  args.o = call->out[0].data;
  args.lse = (float *)call->out[1].data;
  if (lk_present(&call->out[2])) args.kept = (uint32_t *)call->out[2].data;
  bool tiled = lk_attention_tiled(&call->attr, args.dtype);
  if (args.kept && (!tiled || args.threshold == 0))
    CUDA_TRY(context, attention_kept(&args, cuda_stream(context)));
  auto forward = tiled ? attention_forward_tiled : attention_forward_plain;
  return cuda_check(context, forward(&args, cuda_stream(context)),
                    "attention");
}

/* dq and dk turned where no kernel has done it. */
static lk_status attention_turn(lk_context *context, const lk_call *call) {
  lk_call turn = lk_call_new(LK_OP_rope);
  turn.attr = call->attr;
  turn.in[0] = turn.out[0] = call->out[0];
  turn.in[1] = call->in[6];
  return cuda_rope(context, &turn);
}

lk_status cuda_attention_backward(lk_context *context, const lk_call *call) {
  attention_args args;
  LK_TRY(attention_open(context, call, &call->in[1], &call->in[4], &args));
  char *scratch = (char *)call->scratch;
  lk_attention_layout layout =
      lk_attention_layout_of(&call->attr, args.dtype);
  args.d_o = call->in[0].data;
  args.o = call->in[2].data;
  args.lse = (float *)call->in[3].data;
  args.dqkv = call->out[0].data;
  args.dq = (float *)(scratch + layout.dq);
  args.dkv = (float *)(scratch + layout.dkv);
  args.dq_turns = (uint32_t *)(scratch + layout.turns);
  args.dkv_turns = args.dq_turns + layout.queries;
  args.taken = args.dkv_turns + layout.keys;
  args.stats = (float2 *)(scratch + layout.stats);
  if (lk_present(&call->in[5])) args.kept = (uint32_t *)call->in[5].data;
  bool tiled = lk_attention_tiled(&call->attr, args.dtype);
  bool turns = lk_present(&call->in[6]), fused = turns && tiled &&
               lk_attention_padded(args.width) == args.width;
  if (fused) args.table = (const float *)call->in[6].data;
  args.sense = call->attr.inverse ? -1.0f : 1.0f;
  auto backward = tiled ? attention_backward_tiled : attention_backward_plain;
  cudaStream_t stream = cuda_stream(context);
  CUDA_TRY(context,
           attention_stats(&args, lk_attention_words(&layout), stream));
  LK_TRY(cuda_check(context, backward(&args, stream), "attention_backward"));
  return turns && !fused ? attention_turn(context, call) : LK_OK;
}
