/* Quantized formats: golden bytes, the error table, corners, and each format
 * written again from its definition. */
#include <stdio.h>

#include "../../kernels/base/scalar.h"
#include "quant.h"

/* --- what the tests compare with: tables of their own -------------------- */

static uint64_t fnv1a64(const void *data, int64_t bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (int64_t i = 0; i < bytes; i++)
    hash = (hash ^ ((const uint8_t *)data)[i]) * 0x100000001b3u;
  return hash;
}

/* --- golden bytes -------------------------------------------------------- */

static void check_golden(lk_format format, const char *head, uint64_t packed,
                         uint64_t absmax, uint64_t values) {
  enum { N = 65536 };
  lk_call q = quantized(golden_input(N), N, format, 64, false);
  char text[33];
  for (int i = 0; i < 16; i++)
    snprintf(text + 2 * i, 3, "%02x", ((uint8_t *)q.out[0].data)[i]);
  CHECK(strcmp(text, head) == 0, "packed starts %s", text);
  uint64_t hash = fnv1a64(q.out[0].data, N / 2);
  CHECK(hash == packed, "packed %016llx", (unsigned long long)hash);
  hash = fnv1a64(q.out[1].data, N / 64 * 4);
  CHECK(hash == absmax, "absmax %016llx", (unsigned long long)hash);
  CHECK(*(float *)q.out[1].data == 0x1.f943bp-2f, "%a",
        (double)*(float *)q.out[1].data);
  hash = fnv1a64(dequantized(&q, N), N * 4);
  CHECK(hash == values, "dequantized %016llx", (unsigned long long)hash);
}

static void test_golden_nf4(void) {
  check_golden(LK_FORMAT_NF4, "1c4f92e60b3e81d50a2e71c4f91d50b3",
               0x064dbc868a5dbd9d, 0x97a77fa79051274f, 0xab3eee9451c1cd3b);
}

static void test_golden_fp4(void) {
  check_golden(LK_FORMAT_FP4, "a5c36a2eb4c31a5fb7d29a5c36a2eb4d",
               0xe6e1833176eaf4c9, 0x97a77fa79051274f, 0x99651217a856e221);
}

/* --- golden.json's small cases ------------------------------------------- */

static char *golden_text(void) {
  FILE *file = fopen("tests/reference/golden.json", "rb");
  if (file == NULL) return NULL;
  char *text = ops_memory(1 << 20);
  size_t size = fread(text, 1, (1 << 20) - 1, file);
  fclose(file);
  text[size] = '\0';
  return text;
}

/* Bytes of the hex string under `key` after `*at`; moves *at behind it. */
static int64_t golden_bytes(const char **at, const char *key, uint8_t *out) {
  char quoted[64];
  snprintf(quoted, sizeof quoted, "\"%s\": \"", key);
  const char *p = strstr(*at, quoted);
  int64_t n = 0;
  unsigned byte;
  if (p == NULL) return -1;
  p += strlen(quoted);
  for (; *p != '"' && sscanf(p, "%2x", &byte) == 1; p += 2)
    out[n++] = (uint8_t)byte;
  *at = p;
  return n;
}

static void check_small(const char **at, const char *word, lk_format format,
                        int64_t block, const uint8_t *input, int64_t n) {
  static uint8_t want[1 << 16];
  float *x = ops_memory(n * 4);
  memcpy(x, input, (size_t)n * 4);
  lk_call q = quantized(x, n, format, block, false);
  int64_t bytes = golden_bytes(at, "packed", want);
  CHECK(bytes == (n + 1) / 2 && memcmp(want, q.out[0].data, (size_t)bytes) == 0,
        "%s packed", word);
  bytes = golden_bytes(at, "absmax", want);
  CHECK(bytes == lk_tensor_bytes(&q.out[1]) &&
        memcmp(want, q.out[1].data, (size_t)bytes) == 0, "%s absmax", word);
  bytes = golden_bytes(at, "dequantized", want);
  CHECK(bytes == n * 4 &&
        memcmp(want, dequantized(&q, n), (size_t)bytes) == 0,
        "%s dequantized", word);
}

static void test_golden_corners(void) {
  static const char *const names[] = {
      "odd_length", "short_last_block", "one_value", "zero_block", "block_32",
      "block_128", "signed_zeros", "nf4_thresholds", "nf4_above_thresholds",
      "fp4_thresholds", "denormals"};
  static uint8_t input[1 << 16];
  const char *text = golden_text();
  if (text == NULL) SKIP("tests/reference/golden.json is absent");
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\": {", names[i]);
    const char *at = strstr(text, quoted);
    CHECK(at != NULL, "%s", names[i]);
    if (at == NULL) continue;
    const char *size = strstr(at, "\"block\": ");
    int64_t block = size ? atol(size + 9) : 0;
    int64_t n = golden_bytes(&at, "input", input) / 4;
    at = strstr(at, "\"nf4\"");
    check_small(&at, names[i], LK_FORMAT_NF4, block, input, n);
    at = strstr(at, "\"fp4\"");
    check_small(&at, names[i], LK_FORMAT_FP4, block, input, n);
  }
}

/* --- the error table ----------------------------------------------------- */

static void test_error_table(void) {
  enum { N = 1 << 20 };
  static const struct {
    lk_format format;
    int64_t block;
    bool search;
    double error;
  } rows[] = {
      {LK_FORMAT_NF4, 64, false, .00841}, {LK_FORMAT_NF4, 64, true, .00739},
      {LK_FORMAT_NF4, 32, true, .00644},  {LK_FORMAT_FP4, 64, false, .01484},
      {LK_FORMAT_INT4, 64, false, .01154},
      {LK_FORMAT_NVFP4, 0, false, .00901},
      {LK_FORMAT_MXFP4, 0, false, .01327},
  };
  float *x = normal_numbers(N, 42);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    lk_call call = lk_call_new(LK_OP_quantize);
    call.in[0] = OPS_F32(x, N);
    call.attr.format = rows[i].format;
    call.attr.block = rows[i].block;
    call.attr.search = rows[i].search;
    ops_results(&call);
    ops_once(&call, 2);
    lk_call back = lk_call_new(LK_OP_dequantize);
    for (int k = 0; k < 3; k++) back.in[k] = call.out[k];
    back.attr = call.attr;
    back.out[0] = OPS_F32(ops_memory(N * 4), N);
    ops_once(&back, 2);
    double error = relative_error(x, back.out[0].data, N);
    CHECK(fabs(error / rows[i].error - 1) < .02, "%s block %lld%s: %.5f, %.5f",
          lk_formats[rows[i].format].word, (long long)rows[i].block,
          rows[i].search ? " searched" : "", error, rows[i].error);
  }
}

/* --- the other formats against their definitions ------------------------- */

static void test_int(void) {
  enum { N = 203, B = 64 };
  float *x = ops_numbers(N, 5, 3);
  for (int bits = 4; bits <= 8; bits += 4) {
    double limit = bits == 8 ? 127 : 7;
    lk_call q = quantized(x, N, bits == 8 ? LK_FORMAT_INT8 : LK_FORMAT_INT4,
                          B, false);
    float *y = dequantized(&q, N), *scales = q.out[1].data;
    for (int64_t i = 0; i < N; i++) {
      double amax = 0;
      for (int64_t j = i / B * B; j < N && j < i / B * B + B; j++)
        amax = fmax(amax, fabs((double)x[j]));
      double scale = amax / limit, code = nearbyint(x[i] / scale);
      CHECK(fabs(scales[i / B] - scale) < 1e-7 * scale, "%g", scale);
      CHECK(fabs(y[i] - code * scale) < 1e-6 * amax ||
            fabs(fabs(x[i] / scale - trunc(x[i] / scale)) - .5) < 1e-5,
            "int%d [%d] %g is %g", bits, (int)i, (double)x[i], (double)y[i]);
    }
  }
  lk_call q = quantized(x, 3, LK_FORMAT_INT4, B, false);
  CHECK((((uint8_t *)q.out[0].data)[1] & 15) == 8, "padded with 0");
}

/* e4m3 by trying all its values. */
static double nearest_e4m3(double x) {
  double best = 0, least = INFINITY;
  for (int e = 0; e < 16; e++)
    for (int m = 0; m < 8 && !(e == 15 && m == 7); m++) {
      double v = e == 0 ? ldexp(m, -9) : ldexp(8 + m, e - 10);
      double d = fabs(fabs(x) - v);
      if (d < least || (d == least && m % 2 == 0)) least = d, best = v;
    }
  return x < 0 ? -best : best;
}

static void test_e4m3(void) {
  enum { N = 20001 };
  float *x = ops_numbers(N, 6, 100);
  lk_call q = quantized(x, N, LK_FORMAT_E4M3, 0, false);
  CHECK(lk_tensor_count(&q.out[1]) == 1, "one scale");
  float scale = *(float *)q.out[1].data, amax = 0, *y = dequantized(&q, N);
  for (int64_t i = 0; i < N; i++) amax = fmaxf(amax, fabsf(x[i]));
  CHECK(scale == amax / 448.0f, "%g", (double)scale);
  for (int64_t i = 0; i < N; i++) {
    double want = nearest_e4m3(x[i] * (1.0f / scale)) * scale;
    CHECK(fabs(y[i] - want) <= 1e-6 * fabs(want), "[%d] %g: %g, %g", (int)i,
          (double)x[i], (double)y[i], want);
  }
}

static const double e2m1[8] = {0, .5, 1, 1.5, 2, 3, 4, 6};

static int nearest_e2m1(double x) {
  int best = 0;
  for (int c = 1; c < 8; c++) {
    double d = fabs(fabs(x) - e2m1[c]) - fabs(fabs(x) - e2m1[best]);
    if (d < 0 || (d == 0 && c % 2 == 0)) best = c;
  }
  return best | (signbit(x) ? 8 : 0);
}

static void test_nvfp4(void) {
  enum { N = 16 * 37 + 5 };
  float *x = ops_numbers(N, 7, .3f);
  for (int64_t i = 32; i < 48; i++) x[i] = 0;
  lk_call q = quantized(x, N, LK_FORMAT_NVFP4, 16, false);
  const uint8_t *codes = q.out[0].data, *scales = q.out[1].data;
  float amax = 0, tensor = *(float *)q.out[2].data, *y = dequantized(&q, N);
  for (int64_t i = 0; i < N; i++) amax = fmaxf(amax, fabsf(x[i]));
  CHECK(tensor == 448.0f * 6.0f / amax, "%g", (double)tensor);
  for (int64_t b = 0; b * 16 < N; b++) {
    float most = 0;
    for (int64_t i = b * 16; i < N && i < b * 16 + 16; i++)
      most = fmaxf(most, fabsf(x[i]));
    double scale = nearest_e4m3(most * tensor / 6.0f);
    CHECK(lk_f32_from_e4m3(scales[b]) == scale, "scale %g", scale);
    for (int64_t i = b * 16; i < N && i < b * 16 + 16; i++) {
      int code = codes[i / 2] >> (i % 2 * 4) & 15; /* low nibble first */
      int want = scale > 0 ? nearest_e2m1(x[i] * tensor / (float)scale) : 0;
      CHECK(code == want, "[%d] %d, %d", (int)i, code, want);
      double value = e2m1[code & 7] * (code & 8 ? -1 : 1) * scale / tensor;
      CHECK(fabs(y[i] - value) <= 1e-6 * fabs(value), "[%d]", (int)i);
    }
  }
}

static void test_mxfp4(void) {
  enum { N = 32 * 9 + 1 };
  float *x = ops_numbers(N, 8, 1e-3f);
  for (int64_t i = 64; i < 96; i++) x[i] = 0;
  for (int64_t i = 96; i < 128; i++) x[i] *= 1e-37f;
  lk_call q = quantized(x, N, LK_FORMAT_MXFP4, 32, false);
  const uint8_t *codes = q.out[0].data, *scales = q.out[1].data;
  float *y = dequantized(&q, N);
  for (int64_t i = 0; i < N; i++) {
    double most = 0;
    for (int64_t j = i / 32 * 32; j < N && j < i / 32 * 32 + 32; j++)
      most = fmax(most, fabs((double)x[j]));
    int e = most > 0 ? (int)floor(log2(most)) - 2 : -127;
    if (e < -127) e = -127;
    CHECK(scales[i / 32] == e + 127, "[%d] %d, %d", (int)i, scales[i / 32],
          e + 127);
    int want = nearest_e2m1(ldexp((double)x[i], -e));
    int code = codes[i / 2] >> (i % 2 * 4) & 15;
    CHECK(code == want, "[%d] %d, %d", (int)i, code, want);
    double value = ldexp(e2m1[code & 7] * (code & 8 ? -1 : 1), e);
    CHECK(y[i] == (float)value, "[%d] %g, %g", (int)i, (double)y[i], value);
  }
}

/* The published ends of the map; nearest entry for every value. */
static void test_dynamic(void) {
  enum { N = 1000 };
  float map[256];
  lk_dynamic_map(map);
  CHECK(map[0] == -0.992968738079071f && map[255] == 1.0f &&
        map[254] == 0.992968738079071f && map[127] == 0.0f,
        "%.9g %.9g %.9g", (double)map[0], (double)map[254], (double)map[127]);
  CHECK(fabs(map[128] - 5.5e-7) < 1e-12 && fabs(map[126] + 5.5e-7) < 1e-12,
        "%g %g", (double)map[128], (double)map[126]);
  for (int i = 1; i < 256; i++) CHECK(map[i] > map[i - 1], "at %d", i);
  float *x = ops_numbers(N, 9, 2);
  lk_call q = quantized(x, N, LK_FORMAT_DYN8, 0, false);
  CHECK(lk_tensor_count(&q.out[1]) == 4, "blocks of 256");
  float *y = dequantized(&q, N);
  for (int64_t i = 0; i < N; i++) {
    float scale = ((float *)q.out[1].data)[i / 256];
    double least = INFINITY;
    for (int c = 0; c < 256; c++)
      least = fmin(least, fabs((double)map[c] * scale - x[i]));
    CHECK(fabs((double)y[i] - x[i]) <= least + 1e-6, "[%d] %g, %g", (int)i,
          (double)x[i], (double)y[i]);
  }
}

/* Searching never makes a block worse, and stores the scale it used. */
static void test_search(void) {
  enum { N = 64 * 20 + 7 };
  static const lk_format formats[] = {LK_FORMAT_NF4, LK_FORMAT_FP4,
                                      LK_FORMAT_INT8, LK_FORMAT_INT4};
  float *x = normal_numbers(N, 10);
  for (int f = 0; f < 4; f++) {
    lk_call plain = quantized(x, N, formats[f], 64, false);
    lk_call best = quantized(x, N, formats[f], 64, true);
    float *y = dequantized(&plain, N), *z = dequantized(&best, N);
    int other = 0;
    for (int64_t b = 0; b * 64 < N; b++) {
      int64_t n = N - b * 64 < 64 ? N - b * 64 : 64;
      double before = relative_error(x + b * 64, y + b * 64, n);
      double after = relative_error(x + b * 64, z + b * 64, n);
      CHECK(after <= before * (1 + 1e-5), "%s block %d: %g, %g",
            lk_formats[formats[f]].word, (int)b, after, before);
      const float *chosen = best.out[1].data, *given = plain.out[1].data;
      other += chosen[b] != given[b];
    }
    CHECK(other > 0, "%s chose other scales", lk_formats[formats[f]].word);
  }
}

/* Σ (x − scale · its nearest value)², in double precision. */
static double error_under(const float *x, int64_t n, float scale) {
  lk_unit unit = lk_unit_of_scale(scale);
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    double near = lk_nf4_nearest(lk_unit_apply(unit, x[i]));
    sum += (x[i] - scale * near) * (x[i] - scale * near);
  }
  return sum;
}

/* The best of the candidates is found, wherever the block ends. */
static void test_search_best(void) {
  static const float factors[] = {LK_SEARCH_FACTORS(LK_COMMA)};
  for (int64_t n = 257; n < 320; n++) {
    float *x = normal_numbers(n, 100 + (uint64_t)n);
    lk_call plain = quantized(x, n, LK_FORMAT_NF4, 512, false);
    lk_call best = quantized(x, n, LK_FORMAT_NF4, 512, true);
    float absmax = *(float *)plain.out[1].data;
    double least = INFINITY;
    double found = error_under(x, n, *(float *)best.out[1].data);
    for (int f = 0; f < LK_SEARCH_COUNT; f++)
      least = fmin(least, error_under(x, n, absmax * factors[f]));
    CHECK(found <= least * (1 + 1e-5), "%d values: %g, not %g", (int)n, found,
          least);
  }
}

/* Blocks of the smallest numbers, of zeros, and with a NaN. */
static void test_extremes(void) {
  float *x = golden_input(192);
  for (int i = 0; i < 64; i++) x[i] *= 0x1p-145f;
  for (int i = 64; i < 128; i++) x[i] = i % 2 ? 0.0f : -0.0f;
  x[130] = NAN;
  for (int f = 0; f < LK_FORMAT_COUNT; f++) {
    if (f == LK_FORMAT_E4M3 || f == LK_FORMAT_NVFP4) continue;
    lk_call q = quantized(x, 128, (lk_format)f, 0, false);
    float *y = dequantized(&q, 128);
    float scale = f == LK_FORMAT_MXFP4 ? 0x1p-127f : x[0];
    for (int i = 0; i < 128; i++)
      CHECK(isfinite(y[i]) && fabsf(y[i]) <= fabsf(scale) + 0x1p-140f,
            "%s [%d] %g becomes %g", lk_formats[f].word, i, (double)x[i],
            (double)y[i]);
  }
  lk_call q = quantized(x, 192, LK_FORMAT_NF4, 64, false);
  const uint8_t *codes = q.out[0].data;
  for (int j = 32; j < 64; j++) CHECK(codes[j] == 0x77, "%02x", codes[j]);
  float *y = dequantized(&q, 192);
  for (int i = 0; i < 64; i++)
    CHECK(fabsf(y[i] - x[i]) <= .16f * 0x1p-146f + 0x1p-149f, "[%d] %a %a", i,
          (double)x[i], (double)y[i]);
  for (int i = 128; i < 192; i++) CHECK(isnan(y[i]), "[%d] hides a NaN", i);
}

int main(void) {
  OPS_RUN(test_golden_nf4);
  OPS_RUN(test_golden_fp4);
  OPS_RUN(test_golden_corners);
  OPS_RUN(test_error_table);
  OPS_RUN(test_int);
  OPS_RUN(test_e4m3);
  OPS_RUN(test_nvfp4);
  OPS_RUN(test_mxfp4);
  OPS_RUN(test_dynamic);
  OPS_RUN(test_search);
  OPS_RUN(test_search_best);
  OPS_RUN(test_extremes);
  return check_done();
}
