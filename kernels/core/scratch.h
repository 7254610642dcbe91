/* Scratch of operators: bytes that a call needs beside its tensors, by
 * profile. The rule asks for them, the kernel uses them; both call these. */
#ifndef LK_CORE_SCRATCH_H
#define LK_CORE_SCRATCH_H

#include "context.h"

/* Every operator that needs scratch, with the function that says how much;
 * `call` has passed its rule. */
#define LK_SCRATCH_OPS(SCRATCH) \
  SCRATCH(sum)                  \
  SCRATCH(mean)                 \
  SCRATCH(sum_to)               \
  SCRATCH(matmul)               \
  SCRATCH(e4m3_matmul)          \
  SCRATCH(e4m3_from_nf4)        \
  SCRATCH(nvfp4_matmul)         \
  SCRATCH(e4m3_turn)            \
  SCRATCH(bias_backward)        \
  SCRATCH(embed_backward)       \
  SCRATCH(rmsnorm_backward)     \
  SCRATCH(head_norm_backward)   \
  SCRATCH(attention)            \
  SCRATCH(attention_cached)     \
  SCRATCH(attention_backward)   \
  SCRATCH(head_loss)            \
  SCRATCH(head_loss_train)      \
  SCRATCH(newton_schulz)        \
  SCRATCH(quantize)

#define LK_SCRATCH_DECLARE(op) \
  int64_t lk_scratch_##op(const lk_profile *profile, const lk_call *call);
LK_SCRATCH_OPS(LK_SCRATCH_DECLARE)
#undef LK_SCRATCH_DECLARE

/* The bytes of any call; 0 for operators not listed. */
int64_t lk_scratch(const lk_profile *profile, const lk_call *call);

/* Sums run over pieces of this many values, each summed on its own and then
 * added in order, whatever the thread count. */
enum { LK_SUM_PIECE = 8192 };
static inline int64_t lk_sum_pieces(int64_t count) {
  return (count + LK_SUM_PIECE - 1) / LK_SUM_PIECE;
}

/* Work that reduces over rows is cut into this many parts at most; part p of
 * P owns rows [p·N/P, (p + 1)·N/P). Never a function of the thread count. */
enum { LK_ROW_PARTS = 16 };
static inline int64_t lk_row_parts(int64_t rows) {
  int64_t parts = (rows + 31) / 32;
  return parts < LK_ROW_PARTS ? parts : LK_ROW_PARTS;
}

/* The same on a backend: CUDA has as many parts as keep a large device busy. */
enum { LK_CUDA_ROW_PARTS = 264 };
int64_t lk_row_parts_of(const lk_profile *profile, int64_t rows);

/* The CPU's e4m3 product: rows of a that are decoded at a time. */
enum { LK_E4M3_ROWS = 256 };
/* CUDA's largest magnitudes of columns: parts that the rows are cut in. */
static inline int64_t lk_turn_parts(int64_t rows) {
  int64_t parts = (rows + 127) / 128;
  return parts < 32 ? parts : 32;
}

/* The CPU's attention: query rows of a part, keys of a strip, floats from one
 * row of scores to the next, query rows at a time in the backward. */
enum {
  LK_ATTENTION_ROWS = 258,
  LK_ATTENTION_KEYS = 256,
  LK_ATTENTION_STEP = 272,
  LK_ATTENTION_CHUNK = 36
};
/* Bytes that one lane of it holds: strips of packed keys and values, sums. */
int64_t lk_scratch_attention_lane(const lk_attr *attr);
int64_t lk_scratch_attention_back_lane(const lk_attr *attr);

/* The same of attention through a cache of `positions`: a row of scores. */
static inline int64_t lk_scratch_cached_lane(int64_t positions) {
  return (positions + 15) / 16 * 64;
}

/* Tiles of the CPU's Newton-Schulz: columns that are replaced at a time. */
enum { LK_NS_COLUMNS = 256 };

/* CUDA's Newton-Schulz: parts that a matrix's norm is summed in, and where its
 * pieces of scratch may begin. */
enum { LK_NS_PARTS = 64 };
/* Square matrices it works with: five where one side is long enough for steps
 * on x xᵀ alone, else two. */
static inline int64_t lk_ns_squares(lk_dtype dtype, int64_t r, int64_t c) {
  return dtype != LK_F32 && 2 * c >= 3 * r ? 5 : 2;
}
static inline int64_t lk_ns_aligned(int64_t bytes) {
  return (bytes + 255) / 256 * 256;
}

#endif
