/* NF4R: codes, residuals and masters against the definition written again, bit
 * for bit; the searched scale; no bias over many draws; updates. */
#include "../../kernels/base/scalar.h"
#include "quant.h"

static const float nf4[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
    -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
    0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f,
    0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,
    0.7229568362236023f, 1.0f};

static lk_call encoded(float *w, int64_t n, bool residual, int64_t block,
                       bool search, bool stochastic, uint32_t step) {
  lk_call call = lk_call_new(LK_OP_nf4r_encode);
  call.in[0] = OPS_F32(w, n);
  call.in[1] = ops_clock(0x123456789ABCDEF0u, step, 0);
  call.attr.block = block;
  call.attr.search = search;
  call.attr.stochastic = stochastic;
  call.attr.stream = 11;
  if (residual) call.out[2] = ops_tensor(NULL, LK_I8, lk_shape_of(n));
  ops_run(&call);
  return call;
}

static float *master_of(const lk_call *e, int64_t n) {
  lk_call call = lk_call_new(LK_OP_nf4r_master);
  for (int i = 0; i < 3; i++) call.in[i] = e->out[i];
  call.attr.block = e->attr.block;
  call.out[0] = OPS_F32(NULL, n);
  ops_run(&call);
  return call.out[0].data;
}

static int code_at(const lk_call *e, int64_t i) {
  uint8_t byte = ((uint8_t *)e->out[0].data)[i / 2];
  return i % 2 ? byte & 15 : byte >> 4;
}

static float half_of(int c, float e) {
  if (e < 0) return c > 0 ? (nf4[c] - nf4[c - 1]) / 2 : .6f;
  return c < 15 ? (nf4[c + 1] - nf4[c]) / 2 : .6f;
}

/* Codes, residuals and masters as the definition says, bit for bit. */
static void check_encoding(const float *w, const lk_call *e, int64_t n,
                           uint32_t step) {
  int64_t block = e->attr.block;
  float *master = master_of(e, n);
  for (int64_t i = 0; i < n; i++) {
    float s = ((float *)e->out[1].data)[i / block];
    float inverse = s > 0 ? 1.0f / s : 0.0f, u = w[i] * inverse;
    int c = code_at(e, i);
    for (int k = 0; k < 16; k++)
      CHECK(fabsf(u - nf4[c]) <= fabsf(u - nf4[k]) + 1e-6f, "[%d]", (int)i);
    float rest = u - nf4[c], h = half_of(c, rest);
    uint32_t draw = lk_rng_draw16(0x123456789ABCDEF0u, (uint64_t)i, 11, step);
    float t = floorf(127 * rest / h + (float)draw / 65536);
    int r = (int)fminf(fmaxf(t, -127), 127);
    CHECK(((int8_t *)e->out[2].data)[i] == r, "[%d] residual %d, %d", (int)i,
          ((int8_t *)e->out[2].data)[i], r);
    float value = s * (nf4[c] + half_of(c, (float)r) * (float)r / 127);
    CHECK(master[i] == value, "[%d] master", (int)i);
    CHECK(fabsf(w[i] - master[i]) <= s * h / 127 * 1.0001f, "[%d] %g, %g",
          (int)i, (double)w[i], (double)master[i]);
  }
}

static void test_nf4r(void) {
  static const int64_t sizes[] = {1, 63, 64, 777, 5000};
  static const int64_t blocks[] = {8, 64, 1000, 1032, 4096};
  for (int k = 0; k < 5; k++)
    for (int b = 0; b < 5; b++) {
      int64_t n = sizes[k], block = blocks[b];
      float *w = ops_numbers(n, 20 + (uint64_t)k, .1f);
      if (n > 200) memset(w + 64, 0, 64 * sizeof *w);
      lk_call e = encoded(w, n, true, block, false, false, 9);
      check_encoding(w, &e, n, 9);
    }
}

static void test_nf4r_search(void) {
  enum { N = 64 * 500 };
  float *w = normal_numbers(N, 30);
  lk_call e = encoded(w, N, true, 64, true, false, 3);
  int chosen[5] = {0};
  for (int64_t b = 0; b < N / 64; b++) {
    static const double factors[5] = {1, .95, 1.05, .9, 1.1};
    double errors[5], amax = 0;
    for (int i = 0; i < 64; i++)
      amax = fmax(amax, fabs((double)w[b * 64 + i]));
    double s = ((float *)e.out[1].data)[b];
    int used = -1, best = 0;
    for (int f = 0; f < 5; f++) {
      errors[f] = 0;
      for (int i = 0; i < 64; i++) {
        double least = INFINITY, x = w[b * 64 + i];
        for (int c = 0; c < 16; c++)
          least = fmin(least, fabs(x - amax * factors[f] * nf4[c]));
        errors[f] += least * least;
      }
      if (errors[f] < errors[best]) best = f;
      if (fabs(s - amax * factors[f]) < 1e-6 * amax) used = f;
    }
    CHECK(used >= 0, "block %d has a scale of its own", (int)b);
    if (used < 0) continue;
    chosen[used]++;
    CHECK(errors[used] <= errors[best] * (1 + 1e-5), "block %d", (int)b);
  }
  for (int f = 0; f < 5; f++) CHECK(chosen[f] > 0, "factor %d never", f);
  double error = relative_error(w, master_of(&e, N), N);
  CHECK(error < 6e-7, "master's mean squared error %g", error);
}

/* Over 4096 draws the mean is the value itself, within 4 sigma. */
static void check_unbiased(bool residual) {
  enum { N = 64, DRAWS = 4096 };
  float *w = ops_numbers(N, 40, 1);
  w[5] = 1.0f;
  double sum[N] = {0}, squares[N] = {0};
  for (uint32_t step = 0; step < DRAWS; step++) {
    lk_call e = lk_call_new(LK_OP_nf4r_encode);
    e.in[0] = OPS_F32(w, N);
    e.in[1] = ops_clock(77, step, 0);
    e.attr = (lk_attr){.block = 64, .stream = 2, .stochastic = true};
    if (residual) e.out[2] = ops_tensor(NULL, LK_I8, lk_shape_of(N));
    ops_results(&e);
    const lk_kernel *kernels = cpu_level_kernels(ops_level);
    static lk_context *context;
    if (context == NULL) context = ops_open(1);
    kernels[LK_OP_nf4r_encode](context, &e);
    lk_call m = lk_call_new(LK_OP_nf4r_master);
    for (int i = 0; i < 3; i++) m.in[i] = e.out[i];
    float master[N];
    m.attr.block = 64;
    m.out[0] = OPS_F32(master, N);
    kernels[LK_OP_nf4r_master](context, &m);
    for (int i = 0; i < N; i++) {
      sum[i] += master[i];
      squares[i] += (double)master[i] * master[i];
    }
    if (step % 256 == 255) {
      float keep[N];
      memcpy(keep, w, sizeof keep);
      ops_free();
      w = ops_memory(sizeof keep);
      memcpy(w, keep, sizeof keep);
    }
  }
  for (int i = 0; i < N; i++) {
    double mean = sum[i] / DRAWS;
    double sigma = sqrt(fabs(squares[i] / DRAWS - mean * mean) / DRAWS);
    CHECK(fabs(mean - w[i]) <= 4.2 * sigma + 1e-5, "[%d] %g: %g, sigma %g", i,
          (double)w[i], mean, sigma);
  }
}

static void test_unbiased_residual(void) { check_unbiased(true); }
static void test_unbiased_codes(void) { check_unbiased(false); }

/* Without a residual and without draws: the bytes of plain NF4. */
static void test_nf4r_plain(void) {
  enum { N = 999 };
  float *w = golden_input(N);
  lk_call e = encoded(w, N, false, 64, false, false, 1);
  lk_call q = quantized(w, N, LK_FORMAT_NF4, 64, false);
  CHECK(memcmp(e.out[0].data, q.out[0].data, (N + 1) / 2) == 0, "codes");
  CHECK(memcmp(e.out[1].data, q.out[1].data, (N + 63) / 64 * 4) == 0, "absmax");
  float *values = dequantized(&q, N);
  CHECK(memcmp(master_of(&e, N), values, N * 4) == 0, "master");
}

static float *control_of(bool finite) {
  float *control = ops_memory(LK_CONTROL * 4);
  memset(control, 0, LK_CONTROL * 4);
  control[LK_CONTROL_RATE] = .5f;
  control[LK_CONTROL_LOSS_SCALE] = 1;
  control[LK_CONTROL_FINITE] = finite;
  return control;
}

static void check_update(bool residual, bool bf16, bool finite) {
  enum { N = 64 * 11 + 9 };
  float *w = ops_numbers(N, 50, .1f), *o = ops_numbers(N, 51, 1);
  uint16_t *half = ops_memory(N * 2);
  for (int i = 0; i < N; i++) half[i] = lk_bf16_from_f32(o[i]);
  if (bf16)
    for (int i = 0; i < N; i++) o[i] = lk_f32_from_bf16(half[i]);
  lk_call e = encoded(w, N, residual, 64, false, false, 4);
  float *master = master_of(&e, N), *moved = ops_memory(N * 4);
  for (int i = 0; i < N; i++) {
    double w0 = master[i];
    moved[i] = finite ? (float)(w0 - .01 * .5 * (.7 * o[i] + .1 * w0))
                      : master[i];
  }
  lk_call u = lk_call_new(LK_OP_nf4r_update);
  for (int i = 0; i < 3; i++) u.out[i] = e.out[i];
  u.in[0] = bf16 ? ops_tensor(half, LK_BF16, lk_shape_of(N)) : OPS_F32(o, N);
  u.in[1] = OPS_F32(control_of(finite), LK_CONTROL);
  u.in[2] = ops_clock(0x123456789ABCDEF0u, 5, 0);
  u.attr = (lk_attr){.lr = .01, .scale = .7, .decay = .1, .block = 64,
                     .stream = 11};
  ops_run(&u);
  float *after = master_of(&e, N);
  for (int i = 0; i < N; i++) {
    float s = ((float *)e.out[1].data)[i / 64];
    float grain = residual ? .16f / 127 : .16f;
    CHECK(fabsf(after[i] - moved[i]) <= s * grain + 1e-6f, "[%d] %g, %g", i,
          (double)after[i], (double)moved[i]);
    if (!finite) CHECK(after[i] == master[i], "[%d] moved", i);
  }
}

static void test_nf4r_update(void) {
  for (int bits = 0; bits < 8; bits++)
    check_update(bits & 1, bits & 2, bits & 4);
}

int main(void) {
  OPS_RUN(test_nf4r);
  OPS_RUN(test_nf4r_search);
  OPS_RUN(test_unbiased_residual);
  OPS_RUN(test_unbiased_codes);
  OPS_RUN(test_nf4r_plain);
  OPS_RUN(test_nf4r_update);
  return check_done();
}
