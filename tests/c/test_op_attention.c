/* attention and its gradient against double-precision loops over the whole
 * score matrix, and those against finite differences; how CUDA's backward
 * divides its scratch. */
#include "../../kernels/core/attention.h"
#include "ops.h"

typedef struct model {
  int64_t B, T, H, K, D;
  double scale;
  const double *qkv; /* [B, T, H + 2K, D] */
  const lk_tensor *clock;
  const lk_attr *attr;
  double *o, *lse, *p; /* o [B, T, H, D]; p [B, H, T, T] before dropout */
  const double *d_o;
} model;

static double *at_q(const model *m, const double *base, int64_t b, int64_t t,
                    int64_t head) {
  return (double *)base + ((b * m->T + t) * (m->H + 2 * m->K) + head) * m->D;
}

static double keep(const model *m, int64_t b, int64_t h, int64_t i,
                   int64_t j) {
  if (m->attr->p == 0) return 1;
  const uint32_t *c = m->clock->data;
  uint64_t sequence = (uint64_t)c[LK_CLOCK_MICRO] * (uint64_t)m->B;
  uint64_t head = (sequence + (uint64_t)b) * (uint64_t)m->H + (uint64_t)h;
  uint64_t row = head * (uint64_t)m->T + (uint64_t)i;
  return ops_keep(m->clock, m->attr, row * (uint64_t)m->T + (uint64_t)j);
}

static double dot(const double *a, const double *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

static void forward_row(const model *m, int64_t b, int64_t h, int64_t i) {
  int64_t kv = h / (m->H / m->K);
  double *p = m->p + ((b * m->H + h) * m->T + i) * m->T, sum = 0, top = -1e300;
  const double *q = at_q(m, m->qkv, b, i, h);
  double *o = m->o + ((b * m->T + i) * m->H + h) * m->D;
  for (int64_t j = 0; j <= i; j++) {
    p[j] = m->scale * dot(q, at_q(m, m->qkv, b, j, m->H + kv), m->D);
    top = p[j] > top ? p[j] : top;
  }
  for (int64_t j = 0; j <= i; j++) sum += p[j] = exp(p[j] - top);
  for (int64_t d = 0; d < m->D; d++) o[d] = 0;
  for (int64_t j = 0; j <= i; j++) {
    const double *v = at_q(m, m->qkv, b, j, m->H + m->K + kv);
    p[j] /= sum;
    double kept = keep(m, b, h, i, j) * p[j];
    for (int64_t d = 0; d < m->D; d++) o[d] += kept * v[d];
  }
  m->lse[(b * m->H + h) * m->T + i] = top + log(sum);
}

static void forward(const model *m) {
  for (int64_t b = 0; b < m->B; b++)
    for (int64_t h = 0; h < m->H; h++)
      for (int64_t i = 0; i < m->T; i++) forward_row(m, b, h, i);
}

/* Σ do · o, for the differences */
static double objective(void *state) {
  const model *m = state;
  forward(m);
  return dot(m->d_o, m->o, m->B * m->T * m->H * m->D);
}

static void backward_row(const model *m, double *dqkv, int64_t b, int64_t h,
                         int64_t i) {
  int64_t kv = h / (m->H / m->K);
  const double *p = m->p + ((b * m->H + h) * m->T + i) * m->T;
  const double *d_o = m->d_o + ((b * m->T + i) * m->H + h) * m->D;
  const double *q = at_q(m, m->qkv, b, i, h);
  double *dq = at_q(m, dqkv, b, i, h), total = 0;
  for (int64_t j = 0; j <= i; j++)
    total += p[j] * keep(m, b, h, i, j) *
             dot(d_o, at_q(m, m->qkv, b, j, m->H + m->K + kv), m->D);
  for (int64_t j = 0; j <= i; j++) {
    const double *k = at_q(m, m->qkv, b, j, m->H + kv);
    const double *v = at_q(m, m->qkv, b, j, m->H + m->K + kv);
    double *dk = at_q(m, dqkv, b, j, m->H + kv);
    double *dv = at_q(m, dqkv, b, j, m->H + m->K + kv);
    double kept = keep(m, b, h, i, j);
    double ds = m->scale * p[j] * (kept * dot(d_o, v, m->D) - total);
    for (int64_t d = 0; d < m->D; d++) {
      dq[d] += ds * k[d];
      dk[d] += ds * q[d];
      dv[d] += kept * p[j] * d_o[d];
    }
  }
}

static void backward(const model *m, double *dqkv) {
  for (int64_t b = 0; b < m->B; b++)
    for (int64_t h = 0; h < m->H; h++)
      for (int64_t i = 0; i < m->T; i++) backward_row(m, dqkv, b, h, i);
}

/* One shape: both operators against the loops, these (if `differences`)
 * against finite differences. */
static void check_shape(int64_t B, int64_t T, int64_t H, int64_t K, int64_t D,
                        double p, bool differences) {
  int64_t width = (H + 2 * K) * D, n = B * T * width, no = B * T * H * D;
  double scale = 2 / sqrt((double)D);
  lk_tensor clock = ops_clock(0x123456789ABCDEFu, 5, 3);
  lk_call f = lk_call_new(LK_OP_attention);
  f.attr = (lk_attr){.batch = B, .seq = T, .heads = H, .kv_heads = K,
                     .width = D, .scale = scale, .p = p, .stream = 9};
  float *qkv = ops_numbers(n, 1, 1.5f), *d_o = ops_numbers(no, 2, 1);
  f.in[0] = OPS_F32(qkv, B * T, width);
  if (p > 0) f.in[1] = clock;
  ops_run(&f);
  model m = {B, T, H, K, D, scale, ops_widen(qkv, n), &clock, &f.attr,
             ops_doubles(no), ops_doubles(B * H * T),
             ops_doubles(B * H * T * T), ops_widen(d_o, no)};
  forward(&m);
  ops_close("o", f.out[0].data, m.o, no, 5e-6);
  ops_close("lse", f.out[1].data, m.lse, B * H * T, 2e-6);

  lk_call g = lk_call_new(LK_OP_attention_backward);
  g.attr = f.attr;
  g.in[0] = OPS_F32(d_o, B * T, H * D);
  g.in[1] = f.in[0];
  g.in[2] = f.out[0];
  g.in[3] = f.out[1];
  g.in[4] = f.in[1];
  ops_run(&g);
  double *want = ops_doubles(n);
  backward(&m, want);
  ops_close("dqkv", g.out[0].data, want, n, 1e-5);
  if (!differences) return;
  double *slope = ops_doubles(n);
  ops_differences(objective, &m, (double *)m.qkv, n, slope);
  ops_close("differences", g.out[0].data, slope, n, 1e-5);
}

static void test_attention_small(void) {
  check_shape(2, 13, 3, 3, 8, 0, true);
  check_shape(2, 13, 4, 2, 12, 0.25, true);
  check_shape(1, 1, 2, 1, 5, 0, true);
}

/* Several query blocks; odd everything, so that draws start anywhere. */
static void test_attention_blocks(void) {
  check_shape(2, 149, 4, 2, 32, 0.1, false);
  check_shape(1, 64, 3, 1, 20, 0, false);
  check_shape(1, 129, 2, 2, 8, 0.5, false);
}

/* Several strips of keys, with statistics carried from one to the next. */
static void test_attention_strips(void) {
  check_shape(1, 1087, 2, 1, 8, 0.1, false);
}

/* Scores grow along the keys, so that each strip raises the maximum. */
static void test_attention_large_scores(void) {
  enum { T = 600, D = 4 };
  float *qkv = ops_numbers(T * 3 * D, 3, 1);
  for (int t = 0; t < T; t++)
    for (int d = 0; d < D; d++) {
      qkv[t * 3 * D + d] = 4;
      qkv[t * 3 * D + D + d] = (float)t * 0.05f;
    }
  lk_call f = lk_call_new(LK_OP_attention);
  f.attr = (lk_attr){.batch = 1, .seq = T, .heads = 1, .kv_heads = 1,
                     .width = D, .scale = 1};
  f.in[0] = OPS_F32(qkv, T, 3 * D);
  ops_run(&f);
  model m = {1, T, 1, 1, D, 1, ops_widen(qkv, T * 3 * D), NULL, &f.attr,
             ops_doubles(T * D), ops_doubles(T), ops_doubles(T * T), NULL};
  forward(&m);
  ops_close("o", f.out[0].data, m.o, T * D, 5e-5);
  ops_close("lse", f.out[1].data, m.lse, T, 1e-6);
}

/* Two micro-batches of one sequence drop what one of two sequences drops. */
static void test_attention_micro(void) {
  enum { T = 37, H = 2, D = 8, N = 3 * H * D };
  float *qkv = ops_numbers(2 * T * N, 4, 1);
  lk_call whole = lk_call_new(LK_OP_attention);
  whole.attr = (lk_attr){.batch = 2, .seq = T, .heads = H, .kv_heads = H,
                         .width = D, .scale = 1, .p = 0.3, .stream = 2};
  whole.in[0] = OPS_F32(qkv, 2 * T, N);
  whole.in[1] = ops_clock(7, 1, 0);
  ops_run(&whole);
  for (uint32_t micro = 0; micro < 2; micro++) {
    lk_call half = lk_call_new(LK_OP_attention);
    half.attr = whole.attr;
    half.attr.batch = 1;
    half.in[0] = OPS_F32(qkv + micro * T * N, T, N);
    half.in[1] = ops_clock(7, 1, micro);
    ops_run(&half);
    CHECK(memcmp(half.out[0].data,
                 (float *)whole.out[0].data + micro * T * H * D,
                 T * H * D * sizeof(float)) == 0, "micro-batch %u", micro);
  }
}

/* What is kept, bit by bit; and a backward that is told and turns dq and dk,
 * against one that draws again, with rope after it. */
static void test_attention_kept(void) {
  enum { B = 2, T = 141, H = 4, K = 2, D = 8, N = (H + 2 * K) * D };
  lk_attr a = {.batch = B, .seq = T, .heads = H, .kv_heads = K, .width = D,
               .p = 0.3, .stream = 2, .scale = 0.4};
  int64_t words = lk_attention_kept_words(T);
  lk_call f = lk_call_new(LK_OP_attention);
  f.attr = a;
  f.in[0] = OPS_F32(ops_numbers(B * T * N, 4, 1), B * T, N);
  f.in[1] = ops_clock(7, 1, 2);
  f.out[2] = (lk_tensor){ops_memory(B * H * words * 4), LK_U32,
                         lk_shape_of(B, H, words)};
  ops_run(&f);
  const uint32_t *kept = f.out[2].data;
  model m = {.B = B, .T = T, .H = H, .clock = &f.in[1], .attr = &a};
  int64_t seen = 0;
  for (int64_t i = 0; i < B * H * words; i++)
    for (int bit = 0; bit < 32; bit++) {
      lk_attention_kept_place p = lk_attention_kept_at(i % words, bit);
      if (p.query >= T || p.key > p.query) continue;
      bool want = keep(&m, i / words / H, i / words % H, p.query, p.key) != 0;
      seen++;
      CHECK((kept[i] >> bit & 1) == want, "word %d bit %d", (int)i, bit);
    }
  CHECK(seen == B * H * (T * (T + 1) / 2), "%d bits", (int)seen);

  lk_call table = lk_call_new(LK_OP_rope_table);
  table.attr = (lk_attr){.base = 100, .fraction = 1};
  table.out[0] = OPS_F32(ops_memory(T * D * 4), T, D / 2, 2);
  ops_run(&table);
  for (int inverse = 0; inverse < 2; inverse++) {
    lk_call g = lk_call_new(LK_OP_attention_backward), r;
    g.attr = a;
    g.in[0] = OPS_F32(ops_numbers(B * T * H * D, 5, 1), B * T, H * D);
    g.in[1] = f.in[0];
    g.in[2] = f.out[0];
    g.in[3] = f.out[1];
    g.in[4] = f.in[1];
    lk_call turned = g;
    ops_run(&g);
    r = lk_call_new(LK_OP_rope);
    r.attr = a;
    r.attr.inverse = turned.attr.inverse = inverse;
    r.in[0] = g.out[0];
    r.in[1] = turned.in[6] = table.out[0];
    ops_run(&r);
    turned.in[5] = f.out[2];
    ops_run(&turned);
    CHECK(memcmp(turned.out[0].data, r.out[0].data, B * T * N * 4) == 0,
          "inverse %d", inverse);
  }
}

/* --- how CUDA's backward divides its scratch ----------------------------- */

/* Sizes of the parts in their order, counted in another way: tile by tile. */
static void layout_sizes(const lk_attr *a, lk_dtype dtype, int64_t size[4]) {
  int64_t padded = a->width <= 32 ? 32 : a->width <= 64 ? 64 : 128;
  int64_t rows = padded == 128 ? 32 : 64, keys = padded == 128 ? 64 : 128;
  int64_t shared = 0, gathered = 0;
  bool tiled = lk_attention_tiled(a, dtype);
  /* queries behind the first tile of keys see several */
  for (int64_t first = keys; tiled && first < a->seq; first += rows)
    shared += a->batch * a->heads;
  for (int64_t first = 0; tiled && first < a->seq; first += keys)
    gathered += a->heads > a->kv_heads ? a->batch * a->kv_heads : 0;
  size[0] = shared * rows * padded * 4;
  size[1] = gathered * keys * padded * 8;
  size[2] = (shared + gathered + 1) * 4; /* turns, and tasks taken */
  size[3] = a->batch * a->heads * a->seq * 8;
}

/* Each part is large enough, begins on 16 bytes, behind the one before it with
 * less than 16 unused, and the last ends the scratch. */
static void check_layout(const lk_attr *a, lk_dtype dtype) {
  lk_attention_layout l = lk_attention_layout_of(a, dtype);
  int64_t at[5] = {l.dq, l.dkv, l.turns, l.stats, l.bytes}, size[4];
  layout_sizes(a, dtype, size);
  CHECK(at[0] == 0, "dq begins at %lld", (long long)at[0]);
  for (int i = 0; i < 4; i++) {
    int64_t unused = at[i + 1] - at[i] - size[i];
    CHECK(at[i] % 16 == 0, "part %d at %lld", i, (long long)at[i]);
    CHECK(unused >= 0 && unused < 16 && (i < 3 || unused == 0), "B %lld T "
          "%lld H %lld/%lld D %lld, part %d: %lld bytes unused",
          (long long)a->batch, (long long)a->seq, (long long)a->heads,
          (long long)a->kv_heads, (long long)a->width, i, (long long)unused);
  }
}

static void test_layout(void) {
  static const int64_t widths[] = {8, 32, 36, 40, 64, 80, 96, 128};
  static const int64_t lengths[] = {1, 31, 64, 65, 127, 128, 129, 200, 1000};
  static const int64_t shared[] = {1, 2, 6}; /* kv heads of six */
  lk_attr a = {.heads = 6, .scale = 0.125};
  for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
    for (size_t t = 0; t < sizeof lengths / sizeof *lengths; t++) {
      for (int64_t i = 0; i < 18; i++) {
        a.width = widths[w];
        a.seq = lengths[t];
        a.kv_heads = shared[i % 3];
        a.batch = 1 + i / 3 % 3;
        a.p = i < 9 ? 0 : 0.1;
        check_layout(&a, LK_BF16);
        check_layout(&a, LK_F32);
      }
    }
  }
}

int main(void) {
  RUN(test_layout);
  OPS_RUN(test_attention_kept);
  OPS_RUN(test_attention_small);
  OPS_RUN(test_attention_blocks);
  OPS_RUN(test_attention_strips);
  OPS_RUN(test_attention_large_scores);
  OPS_RUN(test_attention_micro);
  return check_done();
}
