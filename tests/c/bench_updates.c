/* How fast the updates of a model's matrices are on CUDA, in 32 bits and with
 * 4-bit weights: every matrix of 20 layers 1280 wide in turn, recorded and
 * replayed as a step is, so that none is in the cache. Prints a line an
 * operator: microseconds of all matrices, GB/s of the fewest bytes there are to
 * move, and a hash of what one run from the same start leaves, by which two
 * builds of the plugin (in the folder above the program's) can be compared.
 *
 *   bench_updates [LAYERS [WIDTH]] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../host/bind/plugin.h"
#include "../../kernels/base/scalar.h"
#include "../../kernels/core/context.h"

enum { RUNS = 15, CHUNK = 1 << 22 };

static int64_t layers = 20, width = 1280, total;
static lk_context *device;

static void must(lk_status status) {
  if (status == LK_OK) return;
  printf("# %s\n", device->error.message);
  exit(1);
}

/* --- what the operators work on, for all matrices in a row ---------------- */

typedef enum { G, O, W, COPY, M, M8, MSCALE, U, CODES, ABSMAX, RESIDUAL,
               WEIGHT, PARTS } part;

/* Bits of a weight; the numbers that floats come from. */
static const struct {
  lk_dtype dtype;
  int bits;
  float scale;
} parts[PARTS] = {
    [G] = {LK_F32, 32, 1e-3f},       [O] = {LK_BF16, 16, 0.05f},
    [W] = {LK_F32, 32, 0.05f},       [COPY] = {LK_BF16, 16, 0.05f},
    [M] = {LK_F32, 32, 1e-3f},       [M8] = {LK_I8, 8, 0},
    [MSCALE] = {LK_F32, 0, 1e-5f},   [U] = {LK_BF16, 16, 0},
    [CODES] = {LK_U4, 4, 0},         [ABSMAX] = {LK_F32, 0, 0.05f},
    [RESIDUAL] = {LK_I8, 8, 0},      [WEIGHT] = {LK_BF16, 16, 0},
};
enum { BLOCK = 64, MOMENTUM_BLOCK = 256 };

static char *memory[PARTS];
static float *control;
static uint32_t *step_clock;

/* The bytes of a part for the first n weights. */
static int64_t part_bytes(part p, int64_t n) {
  if (p == MSCALE) return n / MOMENTUM_BLOCK * 4;
  if (p == ABSMAX) return n / BLOCK * 4;
  return n * parts[p].bits / 8;
}

static void *fresh(int64_t bytes) {
  int64_t split[LK_CATEGORY_COUNT] = {[LK_DATA] = bytes};
  void *data;
  must(lk_memory_allocate(device->memory, split, &data, &device->error));
  return data;
}

/* Random words, or numbers of ±scale (scales: from half of it up). */
static void fill(part p, char *chunk) {
  uint64_t state = 0x9E3779B97F4A7C15u * (uint64_t)(p + 1);
  for (int64_t i = 0; i < CHUNK; i += 4) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    uint32_t word = (uint32_t)(state >> 32);
    float x = parts[p].scale * ((float)(word >> 8) / 8388608.0f - 1.0f);
    uint32_t bits = lk_bits_of_float(x);
    if (p == MSCALE || p == ABSMAX)
      bits = lk_bits_of_float(0.75f * parts[p].scale + 0.25f * x);
    if (parts[p].dtype == LK_BF16)
      bits = (bits & 0xFFFF0000u) | bits >> 16;
    memcpy(chunk + i, parts[p].scale == 0 ? &word : &bits, 4);
  }
}

/* A part as at the start. */
static void begin(part p) {
  static char chunk[CHUNK];
  if (p == PARTS) return;
  int64_t bytes = part_bytes(p, total);
  if (memory[p] == NULL) memory[p] = fresh(bytes);
  fill(p, chunk);
  for (int64_t at = 0; at < bytes; at += CHUNK)
    must(device->backend->upload(device, memory[p] + at, chunk,
                                 bytes - at < CHUNK ? bytes - at : CHUNK));
}

/* A part of the matrix [rows, cols] whose first weight is `at`. */
static lk_tensor tensor(part p, int64_t at, int64_t rows, int64_t cols) {
  lk_shape shape = lk_shape_of(rows, cols);
  if (p == MSCALE) shape = lk_shape_of(rows * cols / MOMENTUM_BLOCK);
  if (p == ABSMAX) shape = lk_shape_of(rows * cols / BLOCK);
  return (lk_tensor){memory[p] + part_bytes(p, at), parts[p].dtype, shape};
}

/* --- the operators -------------------------------------------------------- */

typedef struct operation {
  lk_op op;
  part in, in2, out[3]; /* in2, out: PARTS, there is none */
  bool controlled;
  double bytes;         /* of a weight, the fewest */
} operation;

static const operation operations[] = {
    {LK_OP_muon_momentum, G, PARTS, {M, U, PARTS}, true, 14},
    {LK_OP_muon_momentum_int8, G, PARTS, {M8, MSCALE, U}, true,
     8 + 8.0 / MOMENTUM_BLOCK},
    {LK_OP_muon_update, O, PARTS, {W, COPY, PARTS}, true, 12},
    {LK_OP_nf4r_update, O, PARTS, {CODES, ABSMAX, RESIDUAL}, true,
     5 + 8.0 / BLOCK},
    {LK_OP_dequantize, CODES, ABSMAX, {WEIGHT, PARTS, PARTS}, false,
     2.5 + 4.0 / BLOCK},
};

static void run_one(const operation *o, int64_t at, int64_t rows,
                    int64_t cols) {
  lk_call call = lk_call_new(o->op);
  call.attr = (lk_attr){.lr = 0.01, .scale = 1.5, .decay = 0.1, .beta1 = 0.95,
                        .block = BLOCK, .stream = (uint32_t)at};
  if (o->op == LK_OP_muon_momentum_int8) call.attr.block = MOMENTUM_BLOCK;
  if (o->op == LK_OP_dequantize) call.attr.format = LK_FORMAT_NF4;
  call.in[0] = tensor(o->in, at, rows, cols);
  if (o->in2 != PARTS) call.in[1] = tensor(o->in2, at, rows, cols);
  if (o->controlled)
    call.in[1] = (lk_tensor){control, LK_F32, lk_shape_of(LK_CONTROL)};
  if (o->op == LK_OP_nf4r_update)
    call.in[2] = (lk_tensor){step_clock, LK_U32, lk_shape_of(LK_CLOCK)};
  for (int r = 0; r < 3; r++)
    if (o->out[r] != PARTS) call.out[r] = tensor(o->out[r], at, rows, cols);
  must(lk_run(device, &call));
}

static void run_all(const operation *o) {
  const int64_t c = width;
  const int64_t shapes[][2] = {{3 * c, c}, {c, c}, {4 * c, c}, {c, 4 * c}};
  for (int64_t layer = 0, at = 0; layer < layers; layer++)
    for (int i = 0; i < 4; at += shapes[i][0] * shapes[i][1], i++)
      run_one(o, at, shapes[i][0], shapes[i][1]);
}

/* FNV-1a over words of what the operator leaves. */
static uint64_t hash(const operation *o) {
  static char chunk[CHUNK];
  uint64_t h = 0xCBF29CE484222325u;
  for (int r = 0; r < 3 && o->out[r] != PARTS; r++) {
    int64_t bytes = part_bytes(o->out[r], total);
    for (int64_t at = 0, n; at < bytes; at += n) {
      n = bytes - at < CHUNK ? bytes - at : CHUNK;
      must(device->backend->download(device, chunk, memory[o->out[r]] + at,
                                     n));
      for (int64_t i = 0; i + 8 <= n; i += 8) {
        uint64_t word;
        memcpy(&word, chunk + i, 8);
        h = (h ^ word) * 0x100000001B3u;
      }
    }
  }
  return h;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void bench(const operation *o) {
  const lk_backend *b = device->backend;
  double t[RUNS];
  void *recording;
  begin(o->in);
  begin(o->in2);
  for (int r = 0; r < 3; r++) begin(o->out[r]);
  run_all(o);
  uint64_t left = hash(o);
  must(b->record_begin(device));
  run_all(o);
  must(b->record_end(device, &recording));
  for (int i = 0; i < RUNS; i++) {
    must(b->stopwatch_start(device));
    must(b->replay(device, recording));
    must(b->stopwatch_read(device, &t[i]));
  }
  b->forget(device, recording);
  qsort(t, RUNS, sizeof *t, ascending);
  printf("%-20s %8.0f us (%.0f to %.0f) %6.0f GB/s  %016llx\n",
         lk_op_info_of(o->op)->name, t[RUNS / 2] * 1e6, t[0] * 1e6,
         t[RUNS - 1] * 1e6, o->bytes * (double)total / t[RUNS / 2] * 1e-9,
         (unsigned long long)left);
  fflush(stdout);
}

int main(int argc, char **argv) {
  static const float steps[LK_CONTROL] = {
      [LK_CONTROL_RATE] = 0.7f, [LK_CONTROL_LOSS_SCALE] = 1,
      [LK_CONTROL_MUON_FACTOR] = 0.9f, [LK_CONTROL_FINITE] = 1};
  static const uint32_t clocks[LK_CLOCK] = {0x12345678u, 0x9ABCDEFu, 17, 0};
  lk_error error = {0};
  lh_plugin_load();
  const lk_backend *cuda = lk_backend_find("cuda");
  if (cuda == NULL || lk_context_open(cuda, 0, &device, &error) != LK_OK) {
    printf("%s\n", cuda ? error.message : lh_plugin_absence());
    return 1;
  }
  if (argc > 1) layers = atoll(argv[1]);
  if (argc > 2) width = atoll(argv[2]);
  total = layers * 12 * width * width;
  control = fresh(sizeof steps);
  step_clock = fresh(sizeof clocks);
  must(device->backend->upload(device, control, steps, sizeof steps));
  must(device->backend->upload(device, step_clock, clocks, sizeof clocks));
  for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
    bench(&operations[i]);
  lk_context_close(device);
  return 0;
}
