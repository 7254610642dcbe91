/* What the files of attention share: the arguments of a launch, the layout of
 * scratch, and who can do what. attention.cu chooses, attention_forward.cu and
 * attention_backward.cu use the tensor cores, attention_plain.cu does not. */
#ifndef LK_CUDA_ATTENTION_CUH
#define LK_CUDA_ATTENTION_CUH

#include <cuda_runtime.h>
#include <stdint.h>

extern "C" {
#include "../core/attention.h"
}

#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f

/* qkv [B·T, (H + 2K)·D], o and d_o [B·T, H·D], dqkv as qkv, all of one dtype;
 * lse [B, H, T] f32. stats and what follows is scratch of the backward,
 * core/attention.h. */
typedef struct attention_args {
  const void *qkv, *d_o;
  void *o, *dqkv;
  float *lse;
  const uint32_t *clock;    /* NULL when nothing is dropped */
  lk_dtype dtype;
  int batch, seq, heads, kv_heads, width;
  float scale;
  float factor;             /* 1 / (1 - p) */
  uint32_t threshold;       /* draws below it drop; 0: none are made */
  uint32_t stream;
  uint32_t *kept;           /* core/attention.h; NULL: draws are made anew */
  const float *table;       /* of rope [T, D/2, 2]; NULL: nothing is turned */
  float sense;              /* times the table's sines */
  float2 *stats;            /* [B, H, T]: lse · log2 e, Σ do · o / factor */
  float *dq, *dkv;          /* sums that several blocks add to */
  uint32_t *dq_turns, *dkv_turns; /* how many have, by tile */
  uint32_t *taken;          /* tasks that blocks have begun */
  int hopper;               /* processors, where warpgroups are; else 0 */
} attention_args;

/* Each enqueues on `stream` and gives the launch's error, if any. */
cudaError_t attention_forward_tiled(const attention_args *, cudaStream_t);
cudaError_t attention_backward_tiled(const attention_args *, cudaStream_t);
/* For attention_backward_tiled, which asks it where it fits;
 * cudaErrorNotSupported: nothing was enqueued. */
bool attention_backward_hopper_fits(const attention_args *);
cudaError_t attention_backward_hopper(const attention_args *, cudaStream_t);
/* Widths up to ATTENTION_PLAIN_WIDTH. */
enum { ATTENTION_PLAIN_WIDTH = 1024 };
cudaError_t attention_forward_plain(const attention_args *, cudaStream_t);
cudaError_t attention_backward_plain(const attention_args *, cudaStream_t);
/* What `kept` of any forward holds, one word a thread. */
cudaError_t attention_kept(const attention_args *, cudaStream_t);
/* stats, and zeros to `tiles` turns from dq_turns on: before a backward. */
cudaError_t attention_stats(const attention_args *, int64_t tiles,
                            cudaStream_t);

#endif
