/* Operators on CUDA against the CPU, what layers are made of: embedding,
 * dropout, norms, activations, attention, head and loss. See backends.h. */
#include "../../kernels/core/attention.h"
#include "backends.h"

/* --- embedding ----------------------------------------------------------- */

static void check_embed(int64_t rows, int64_t words, int64_t width,
                        bool accumulate) {
  back_case c = back_new(LK_OP_embed);
  c.call.attr.scale = 2.5;
  c.call.in[0] = back_ids(rows, words);
  IN(c, 1, 1, words, width);
  back_run(c);
  c = back_new(LK_OP_embed_backward);
  c.call.attr.scale = 2.5;
  c.call.attr.accumulate = accumulate;
  IN(c, 0, 1, rows, width);
  c.call.in[1] = back_ids(rows, words);
  OUT32(c, 0, 1, words, width);
  c.rough = 1;
  back_run(c);
}

static void test_embed(void) {
  NEED_DEVICE();
  check_embed(101, 31, 37, false);
  check_embed(101, 31, 40, true);
  check_embed(3000, 2, 24, true);     /* runs longer than a block sorts */
  check_embed(4096, 4096, 256, false);
}

/* --- dropout, residual, norm --------------------------------------------- */

static void test_dropout(void) {
  NEED_DEVICE();
  for (int micro = 0; micro < 2; micro++) {
    back_case c = back_new(LK_OP_dropout);
    c.call.attr.p = 0.3;
    c.call.attr.stream = 3;
    c.call.in[1] = back_clock(7, (uint32_t)micro);
    c.exact = 0;
    c.rough = 1;
    IN(c, 0, 1, 61, 27);
    back_run(c);
    c.call.op = LK_OP_residual;
    IN(c, 0, 1, 61, 27);
    IN(c, 1, 1, 61, 27);
    c.call.in[2] = back_clock(7, (uint32_t)micro);
    back_run(c);
    IN(c, 0, 1, 64, 128);
    IN(c, 1, 1, 64, 128);
    back_run(c);
  }
}

static void check_norm(int64_t rows, int64_t width) {
  back_case c = back_new(LK_OP_rmsnorm);
  c.call.attr.eps = 1e-6;
  IN(c, 0, 2, rows, width);
  IN32(c, 1, 1, width);
  back_run(c);
  c = back_new(LK_OP_residual_norm);
  c.call.attr = (lk_attr){.eps = 1e-6, .p = 0.1, .stream = 4};
  IN(c, 0, 2, rows, width);
  IN(c, 1, 2, rows, width);
  IN32(c, 2, 1, width);
  c.call.in[3] = back_clock(2, 1);
  back_run(c);
  c = back_new(LK_OP_rmsnorm_backward);
  IN(c, 0, 1, rows, width);
  IN(c, 1, 2, rows, width);
  IN32(c, 2, 1, width);
  c.call.in[3] = back_positive(lk_shape_of(rows), 0.5f, 1);
  OUT32(c, 1, 1, width);
  back_run(c);
  c.call.attr = (lk_attr){.accumulate = true, .p = 0.2, .stream = 5};
  IN(c, 4, 1, rows, width);
  c.call.in[5] = back_clock(6, 3);
  OUT(c, 2, 1, rows, width);
  back_run(c);
}

static void test_norm(void) {
  NEED_DEVICE();
  check_norm(53, 37);
  check_norm(300, 512);
  check_norm(70, 1280);
  check_norm(5, 3000);
}

static void test_head_norm(void) {
  NEED_DEVICE();
  back_case c = back_new(LK_OP_head_norm);
  c.call.attr = (lk_attr){.heads = 6, .kv_heads = 2, .width = 36,
                          .eps = 1e-6};
  IN(c, 0, 1, 91, 10 * 36);
  IN32(c, 1, 1, 36);
  IN32(c, 2, 1, 36);
  back_run(c);
  c.call.op = LK_OP_head_norm_backward;
  IN(c, 0, 1, 91, 10 * 36);
  IN(c, 1, 1, 91, 10 * 36);
  c.half_in = 3;
  IN32(c, 2, 1, 36);
  IN32(c, 3, 1, 36);
  c.call.in[4] = back_positive(lk_shape_of(91, 8), 0.5f, 1);
  OUT32(c, 1, 1, 36);
  OUT32(c, 2, 1, 36);
  back_run(c);
  c.call.attr.accumulate = true;
  back_run(c);
}

/* --- activations --------------------------------------------------------- */

static void check_silu(int64_t rows, int64_t width, double p) {
  lk_attr attr = {.p = p, .stream = 8};
  lk_tensor clock = p > 0 ? back_clock(3, 1) : LK_ABSENT;
  back_case c = back_new(LK_OP_silu);
  c.call.attr = attr;
  IN(c, 0, 6, rows, width);
  c.call.in[1] = clock;
  back_run(c);
  c.call.op = LK_OP_silu_backward;
  IN(c, 1, 6, rows, width);
  c.call.in[2] = clock;
  back_run(c);
  c = back_new(LK_OP_gated_silu);
  c.call.attr = attr;
  IN(c, 0, 6, rows, 2 * width);
  c.call.in[1] = clock;
  back_run(c);
  c = back_new(LK_OP_gated_silu_backward);
  c.call.attr = attr;
  IN(c, 0, 1, rows, width);
  IN(c, 1, 6, rows, 2 * width);
  c.call.in[2] = clock;
  back_run(c);
}

static void test_silu(void) {
  NEED_DEVICE();
  check_silu(31, 27, 0.2);
  check_silu(31, 27, 0);
  check_silu(64, 2048, 0.1);
}

/* --- attention ----------------------------------------------------------- */

static void test_rope(void) {
  NEED_DEVICE();
  back_case c = back_new(LK_OP_rope_table);
  c.call.attr = (lk_attr){.base = 10000, .fraction = 0.5, .inclusive = true,
                          .first = 3};
  c.call.out[0] = (lk_tensor){NULL, LK_F32, lk_shape_of(50, 32, 2)};
  c.exact = 2e-7;
  back_run(c);
  for (int odd = 0; odd < 2; odd++) {
    int64_t width = odd ? 36 : 64;
    c = back_new(LK_OP_rope);
    c.call.attr = (lk_attr){.heads = 6, .kv_heads = 2, .width = width,
                            .inverse = odd};
    IN(c, 0, 1, 3 * 25, 10 * width);
    IN32(c, 1, 1, 25, width / 2, 2);
    c.exact = 1e-6;
    back_run(c);
  }
}

static void check_attention(lk_attr a) {
  int64_t rows = a.batch * a.seq, d = a.width;
  lk_tensor clock = a.p > 0 ? back_clock(3, 2) : LK_ABSENT;
  back_case c = back_new(LK_OP_attention);
  c.call.attr = a;
  IN(c, 0, 2, rows, (a.heads + 2 * a.kv_heads) * d);
  c.call.in[1] = clock;
  c.call.out[2] = (lk_tensor){NULL, LK_U32,
                              lk_shape_of(a.batch, a.heads,
                                          lk_attention_kept_words(a.seq))};
  back_run(c);
  lk_call forward = c.call;
  back_on_cpu(&forward);
  c.call = lk_call_new(LK_OP_attention_backward);
  c.call.attr = a;
  IN(c, 0, 1, rows, a.heads * d);
  c.call.in[1] = forward.in[0];
  c.call.in[2] = forward.out[0];
  c.call.in[3] = forward.out[1];
  c.call.in[4] = clock;
  c.half_in = 7;
  c.rough = 12; /* lse and o are of the unrounded qkv */
  c.exact = 1e-4;
  back_run(c);
  c.call.in[5] = forward.out[2];
  IN32(c, 6, 1, a.seq, d / 2, 2);
  back_run(c);
  c.call.attr.inverse = true;
  back_run(c);
}

static void test_attention(void) {
  NEED_DEVICE();
  lk_attr a = {.batch = 2, .seq = 75, .heads = 4, .kv_heads = 4, .width = 64,
               .scale = 0.125, .stream = 11};
  check_attention(a);
  a.p = 0.1;
  a.kv_heads = 2;
  check_attention(a);
  a.width = 32;
  a.seq = 130;
  check_attention(a);
}

/* Sequences of whole draws, eight keys each: tensor cores, which pad widths to
 * the next of 32, 64 and 128. */
static void test_attention_widths(void) {
  static const int64_t widths[] = {32, 40, 64, 80, 96, 128};
  NEED_DEVICE();
  lk_attr a = {.batch = 2, .seq = 200, .heads = 4, .kv_heads = 2,
               .scale = 0.125, .stream = 11};
  for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
    a.width = widths[i];
    for (int dropped = 0; dropped < 2; dropped++) {
      a.p = 0.1 * dropped;
      check_attention(a);
      back_free();
    }
  }
}

/* Small enough for a sanitizer. */
static void test_attention_small(void) {
  NEED_DEVICE();
  lk_attr a = {.batch = 1, .seq = 72, .heads = 2, .kv_heads = 1, .width = 64,
               .scale = 0.125, .stream = 11};
  check_attention(a);
  a.p = 0.1;
  check_attention(a);
}

/* Two pieces: the second reads what the first put into the cache. */
static void check_cached(lk_attr a, int64_t n) {
  for (int64_t first = 0; first < 2 * n; first += n) {
    back_case c = back_new(LK_OP_attention_cached);
    c.call.attr = a;
    IN(c, 0, 2, a.batch * n, (a.heads + 2 * a.kv_heads) * a.width);
    c.call.in[1] = back_ids(n, 1);
    for (int64_t i = 0; i < n; i++)
      ((int32_t *)c.call.in[1].data)[i] = (int32_t)(first + i);
    OUT(c, 1, 2, 2, a.batch, a.kv_heads, 2 * n + 3, a.width);
    back_run(c);
  }
}

static void test_attention_cached(void) {
  NEED_DEVICE();
  lk_attr a = {.batch = 2, .heads = 4, .kv_heads = 2, .width = 64,
               .scale = 0.125};
  check_cached(a, 1);
  check_cached(a, 37);
  a.width = 36;
  a.batch = 1;
  check_cached(a, 50);
}

/* --- head and loss ------------------------------------------------------- */

static void check_head(int64_t rows, int64_t width, int64_t words,
                       int64_t chunk) {
  back_case c = back_new(LK_OP_head_loss);
  c.call.attr.chunk = chunk;
  c.loose_int = true;
  IN(c, 0, 1, rows, width);
  IN(c, 1, 1, words, width);
  c.call.in[2] = back_ids(rows, words);
  ((int32_t *)c.call.in[2].data)[rows / 2] = -1;
  back_run(c);
  c.call.op = LK_OP_head_loss_train;
  c.call.attr.value = 16; /* f16 has no place for 1 / rows of a small p */
  c.call.in[3] = back_control(1);
  OUT32(c, 3, 1, words, width);
  c.rough = 12;
  back_run(c);
  c.call.attr.accumulate = true;
  back_run(c);
}

static void test_head_large(void) {
  NEED_DEVICE();
  check_head(100, 64, 4096, 64);
  check_head(40, 64, 49152, 32);
}

/* Small enough for a sanitizer. */
static void test_head(void) {
  NEED_DEVICE();
  check_head(29, 24, 37, 8);
  check_head(20, 64, 1024, 8);
  back_case c = back_new(LK_OP_metrics);
  IN32(c, 0, 3, 5001);
  c.call.in[1] = back_ids(5001, 2);
  OUT32(c, 0, 1, 4);
  back_run(c);
}

/* --- all of them --------------------------------------------------------- */

static void test_coverage(void) {
  NEED_DEVICE();
  back_check_coverage(LK_OP_embed, LK_OP_accumulate, false);
}

int main(void) {
  BACK_RUN(test_embed);
  BACK_RUN(test_dropout);
  BACK_RUN(test_norm);
  BACK_RUN(test_head_norm);
  BACK_RUN(test_silu);
  BACK_RUN(test_rope);
  BACK_RUN(test_attention);
  BACK_RUN(test_attention_widths);
  BACK_RUN(test_attention_small);
  BACK_RUN(test_attention_cached);
  BACK_RUN(test_head);
  BACK_RUN(test_head_large);
  BACK_RUN(test_coverage);
  lk_context_close(back_cuda);
  lk_context_close(back_cpu);
  return check_done();
}
