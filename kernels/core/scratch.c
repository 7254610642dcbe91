/* Scratch of operators: bytes that a call needs beside its tensors. */
#include "scratch.h"

#include "../base/codebook.h"
#include "attention.h"

#include <string.h>

static bool is_cpu(const lk_profile *profile) {
  return strcmp(profile->backend, "cpu") == 0;
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t columns(const lk_tensor *t) {
  return t->shape.rank > 0 ? t->shape.dim[t->shape.rank - 1] : 1;
}

/* One double a piece of a sum: only sums over contiguous values are cut. */
int64_t lk_scratch_sum(const lk_profile *profile, const lk_call *call) {
  (void)profile;
  const lk_tensor *x = &call->in[0];
  int64_t reduced = lk_tensor_count(x) / lk_tensor_count(&call->out[0]);
  return lk_tensor_count(&call->out[0]) * lk_sum_pieces(reduced) * 8;
}

int64_t lk_scratch_mean(const lk_profile *profile, const lk_call *call) {
  return lk_scratch_sum(profile, call);
}

/* Two f32 intermediates, each at most x over the first reduced dimension that
 * is larger than 1, and the pieces of a sum. */
int64_t lk_scratch_sum_to(const lk_profile *profile, const lk_call *call) {
  (void)profile;
  const lk_tensor *x = &call->in[0], *y = &call->out[0];
  int64_t n = lk_tensor_count(x);
  int64_t rest = n;
  int offset = x->shape.rank - y->shape.rank;
  for (int i = 0; i < x->shape.rank && rest == n; i++)
    if (i < offset || y->shape.dim[i - offset] == 1)
      rest = n / x->shape.dim[i];
  return rest * 4 * 2 + (rest + lk_sum_pieces(n)) * 8;
}

/* A product of f32 operands goes to a 16-bit result through an f32 copy. */
int64_t lk_scratch_matmul(const lk_profile *profile, const lk_call *call) {
  const lk_tensor *y = &call->out[0];
  (void)profile;
  if (call->in[0].dtype != LK_F32 || y->dtype == LK_F32) return 0;
  return lk_tensor_count(y) * 4;
}

/* The CPU decodes b and some rows of a. */
int64_t lk_scratch_e4m3_matmul(const lk_profile *profile,
                               const lk_call *call) {
  const lk_shape *a = &call->in[0].shape, *b = &call->in[2].shape;
  if (!is_cpu(profile)) return 0;
  return (b->dim[0] + smaller(a->dim[0], LK_E4M3_ROWS)) * b->dim[1] * 4;
}

/* The CPU decodes both; CUDA has scales in the library's order, two factors. */
int64_t lk_scratch_nvfp4_matmul(const lk_profile *profile,
                                const lk_call *call) {
  const lk_shape *a = &call->in[0].shape, *b = &call->in[3].shape;
  int64_t k = a->dim[1], rows = a->dim[0] + b->dim[0];
  if (is_cpu(profile)) return rows * k * 4;
  return lk_nvfp4_scale_bytes(a->dim[0], k / 16) +
         lk_nvfp4_scale_bytes(b->dim[0], k / 16) + 16;
}

/* CUDA: largest magnitudes of columns in parts. */
static int64_t turn_bytes(const lk_tensor *x) {
  return lk_turn_parts(x->shape.dim[0]) * columns(x) * 4;
}

int64_t lk_scratch_e4m3_turn(const lk_profile *profile, const lk_call *call) {
  return is_cpu(profile) ? 0 : turn_bytes(&call->in[0]);
}

/* The CPU decodes all. */
int64_t lk_scratch_e4m3_from_nf4(const lk_profile *profile,
                                 const lk_call *call) {
  const lk_tensor *q = &call->in[0];
  if (is_cpu(profile)) return lk_tensor_count(q) * 4;
  return call->attr.transpose_a ? turn_bytes(q) : 0;
}

int64_t lk_row_parts_of(const lk_profile *profile, int64_t rows) {
  return is_cpu(profile) ? lk_row_parts(rows)
                         : smaller((rows + 7) / 8, LK_CUDA_ROW_PARTS);
}

/* One row of f32 a part. */
static int64_t row_parts_bytes(const lk_profile *profile, const lk_tensor *x,
                               int64_t width) {
  int64_t rows = lk_tensor_count(x) / columns(x);
  return lk_row_parts_of(profile, rows) * width * 4;
}

int64_t lk_scratch_bias_backward(const lk_profile *profile,
                                 const lk_call *call) {
  return row_parts_bytes(profile, &call->in[0], columns(&call->in[0]));
}

/* CUDA: positions sorted by id, one count a row of the table, one index a
 * row. */
int64_t lk_scratch_embed_backward(const lk_profile *profile,
                                  const lk_call *call) {
  if (is_cpu(profile)) return 0;
  return (call->out[0].shape.dim[0] + 1) * 4 +
         lk_tensor_count(&call->in[1]) * 4;
}

int64_t lk_scratch_rmsnorm_backward(const lk_profile *profile,
                                    const lk_call *call) {
  return row_parts_bytes(profile, &call->in[0], columns(&call->in[0]));
}

int64_t lk_scratch_head_norm_backward(const lk_profile *profile,
                                      const lk_call *call) {
  return row_parts_bytes(profile, &call->in[0], 2 * call->attr.width);
}

/* Packed heads are padded to the widest stripes, 32 floats. */
static int64_t padded_width(const lk_attr *attr) {
  return (attr->width + 31) / 32 * 32;
}

/* Keys and values of a strip, the part's sums, scores of six rows. */
int64_t lk_scratch_attention_lane(const lk_attr *attr) {
  int64_t padded = padded_width(attr);
  return (LK_ATTENTION_KEYS * (attr->width + padded) +
          LK_ATTENTION_ROWS * padded + 6 * LK_ATTENTION_STEP + 16) / 16 * 64;
}

/* Keys and values of a strip, packed both ways, with their gradients; a
 * chunk's queries, output gradients and scores; six rows of dq. */
int64_t lk_scratch_attention_back_lane(const lk_attr *attr) {
  int64_t padded = padded_width(attr);
  return (LK_ATTENTION_KEYS * (2 * attr->width + 3 * padded) +
          2 * LK_ATTENTION_CHUNK * (padded + LK_ATTENTION_STEP) +
          6 * padded + 16) / 16 * 64;
}

int64_t lk_scratch_attention(const lk_profile *profile, const lk_call *call) {
  if (!is_cpu(profile)) return 0;
  return profile->lanes * lk_scratch_attention_lane(&call->attr);
}

/* One row of scores a lane. */
int64_t lk_scratch_attention_cached(const lk_profile *profile,
                                    const lk_call *call) {
  if (!is_cpu(profile)) return 0;
  return profile->lanes * lk_scratch_cached_lane(call->out[1].shape.dim[3]);
}

/* What lanes hold on the CPU; core/attention.h has CUDA's. */
int64_t lk_scratch_attention_backward(const lk_profile *profile,
                                      const lk_call *call) {
  const lk_attr *a = &call->attr;
  if (is_cpu(profile))
    return profile->lanes * lk_scratch_attention_back_lane(a);
  return lk_attention_layout_of(a, call->in[1].dtype).bytes;
}

static int64_t logits_bytes(const lk_call *call) {
  const lk_tensor *x = &call->in[0], *w = &call->in[1];
  int64_t rows = smaller(call->attr.chunk, x->shape.dim[0]);
  return lk_dtype_bytes(x->dtype, rows * w->shape.dim[0]);
}

int64_t lk_scratch_head_loss(const lk_profile *profile, const lk_call *call) {
  (void)profile;
  return logits_bytes(call);
}

int64_t lk_scratch_head_loss_train(const lk_profile *profile,
                                   const lk_call *call) {
  (void)profile;
  return logits_bytes(call);
}

/* For k matrices of r x c (r <= c): x, xx' and its polynomial; on the CPU in
 * f32 with one stripe of columns a lane, on CUDA in 16 bits if u has them (o is
 * the second x where its elements are as large) with parts of norms. */
int64_t lk_scratch_newton_schulz(const lk_profile *profile,
                                 const lk_call *call) {
  const lk_shape *s = &call->in[0].shape;
  int64_t rows = s->dim[s->rank - 2], cols = s->dim[s->rank - 1];
  int64_t k = lk_tensor_count(&call->in[0]) / (rows * cols);
  int64_t r = smaller(rows, cols), c = rows + cols - r;
  if (is_cpu(profile))
    return (k * (r * c + 2 * r * r) +
            (int64_t)profile->lanes * r * LK_NS_COLUMNS) * 4;
  lk_dtype dtype = call->in[0].dtype;
  bool alike = lk_dtype_bits(call->out[0].dtype) == lk_dtype_bits(dtype);
  int64_t copies = alike ? 1 : 2;
  return lk_ns_squares(dtype, r, c) *
             lk_ns_aligned(lk_dtype_bytes(dtype, k * r * r)) +
         copies * lk_ns_aligned(lk_dtype_bytes(dtype, k * r * c)) +
         k * LK_NS_PARTS * 4;
}

/* CUDA keeps partial maxima for formats with a tensor-wide scale. */
int64_t lk_scratch_quantize(const lk_profile *profile, const lk_call *call) {
  (void)call;
  return is_cpu(profile) ? 0 : 1024 * 4;
}

static int64_t (*const functions[LK_OP_COUNT])(const lk_profile *,
                                               const lk_call *) = {
#define LK_SCRATCH_ENTRY(op) [LK_OP_##op] = lk_scratch_##op,
    LK_SCRATCH_OPS(LK_SCRATCH_ENTRY)
#undef LK_SCRATCH_ENTRY
};

int64_t lk_scratch(const lk_profile *profile, const lk_call *call) {
  return functions[call->op] != NULL ? functions[call->op](profile, call) : 0;
}
