/* Rows in e4m3: codes of turned matrices and of NF4 weights, and the product of
 * such rows. Codes and scales are the CPU's, bit for bit (-fmad=false). */
#include "e4m3.cuh"
#include "gemm.cuh"

/* --- what rows are made of ----------------------------------------------- */

/* A matrix of floats, eight columns at a time. */
struct rows_of_floats {
  view x;
  int64_t cols;
  bool whole;
  __device__ void load(const float *table, int64_t row, int64_t col,
                       float v[8]) const {
    (void)table;
    view_load(x, row * cols + col, 8, whole, v);
  }
};

/* The same of NF4 weights; `table` has their 16 values. */
struct rows_of_nf4 {
  const uint8_t *codes;
  const float *absmax;
  int64_t cols;
  int block, shift; /* block = 2^shift, or -1 */
  __device__ void load(const float *table, int64_t row, int64_t col,
                       float v[8]) const {
    int64_t i = row * cols + col;
    uint32_t word = *(const uint32_t *)(codes + i / 2);
    float scale = absmax[shift >= 0 ? i >> shift : i / block];
#pragma unroll
    for (int j = 0; j < 8; j++)
      v[j] = table[word >> (j / 2 * 8 + (j % 2 ? 0 : 4)) & 15u] * scale;
  }
};

static __device__ __forceinline__ void table_fill(float *table) {
  if (threadIdx.x < 16) table[threadIdx.x] = lk_nf4_value((int)threadIdx.x);
  __syncthreads();
}

static __device__ __forceinline__ uint32_t magnitude(float v) {
  return lk_bits_of_float(v) & 0x7FFFFFFFu;
}

/* --- as they lie --------------------------------------------------------- */

enum { ROW_WARPS = 8 };

/* A warp takes a row, twice. */
static __global__ void __launch_bounds__(ROW_WARPS * 32)
    k_nf4_rows(rows_of_nf4 source, code_args c) {
  __shared__ float table[16];
  table_fill(table);
  int lane = (int)threadIdx.x % 32;
  int64_t row = (int64_t)blockIdx.x * ROW_WARPS + threadIdx.x / 32;
  if (row >= c.rows) return;
  uint32_t most = 0;
  float v[8];
#pragma unroll 4
  for (int col = lane * 8; col < c.width; col += 256) {
    source.load(table, row, col, v);
#pragma unroll
    for (int j = 0; j < 8; j++) most = max(most, magnitude(v[j]));
  }
  most = __reduce_max_sync(0xFFFFFFFFu, most);
  float scale = lk_e4m3_scale(lk_float_of_bits(most));
  lk_unit unit = lk_unit_of_scale(scale);
  if (lane == 0) c.scales[row] = scale;
#pragma unroll 4
  for (int col = lane * 8; col < c.width; col += 256) {
    source.load(table, row, col, v);
    *(uint2 *)(c.codes + row * c.width + col) = e4m3_eight(unit, v);
  }
}

/* --- turned -------------------------------------------------------------- */

/* A tile: columns of x, which become rows, by rows, of which a thread takes
 * four; 8 columns a thread. */
enum { TURN_COLS = 64, TURN_ROWS = 64, TURN_THREADS = 128 };

typedef struct turn_args {
  uint8_t *codes;
  float *scales, *part; /* part [parts, cols]: largest magnitudes */
  int64_t rows, cols;
  int parts;
} turn_args;

/* Part p of a stripe's columns: their largest magnitudes. */
template <class S>
static __global__ void __launch_bounds__(256)
    k_turn_amax(S source, turn_args a) {
  __shared__ float table[16];
  __shared__ uint32_t room[32][TURN_COLS + 1];
  table_fill(table);
  int group = (int)threadIdx.x % 8, line = (int)threadIdx.x / 8;
  int64_t col = (int64_t)blockIdx.x * TURN_COLS + group * 8;
  int64_t p = blockIdx.y, last = (p + 1) * a.rows / a.parts;
  uint32_t most[8] = {0};
  float v[8];
#pragma unroll 4
  for (int64_t r = p * a.rows / a.parts + line; r < last; r += 32) {
    if (col >= a.cols) break;
    source.load(table, r, col, v);
#pragma unroll
    for (int j = 0; j < 8; j++) most[j] = max(most[j], magnitude(v[j]));
  }
#pragma unroll
  for (int j = 0; j < 8; j++) room[line][group * 8 + j] = most[j];
  __syncthreads();
  int c = (int)threadIdx.x;
  col = (int64_t)blockIdx.x * TURN_COLS + c;
  if (c >= TURN_COLS || col >= a.cols) return;
  uint32_t all = 0;
  for (int i = 0; i < 32; i++) all = max(all, room[i][c]);
  a.part[p * a.cols + col] = lk_float_of_bits(all);
}

/* The scale of column `col` from its parts. */
static __device__ float turn_scale(const turn_args &a, int64_t col) {
  uint32_t most = 0;
  for (int p = 0; p < a.parts; p++)
    most = max(most, lk_bits_of_float(a.part[p * a.cols + col]));
  return lk_e4m3_scale(lk_float_of_bits(most));
}

/* Codes of a tile, turned through shared memory. */
template <class S>
static __global__ void __launch_bounds__(TURN_THREADS)
    k_turn(S source, turn_args a) {
  __shared__ float table[16];
  __shared__ lk_unit units[TURN_COLS];
  __shared__ uint32_t tile[TURN_COLS][TURN_ROWS / 4 + 1];
  int64_t col0 = (int64_t)blockIdx.x * TURN_COLS;
  int64_t row0 = (int64_t)blockIdx.y * TURN_ROWS;
  int t = (int)threadIdx.x;
  if (t < TURN_COLS && col0 + t < a.cols) {
    float scale = turn_scale(a, col0 + t);
    units[t] = lk_unit_of_scale(scale);
    if (blockIdx.y == 0) a.scales[col0 + t] = scale;
  }
  table_fill(table);
  int four = t % 16, group = t / 16;
  float v[4][8];
  bool there = row0 + four * 4 < a.rows && col0 + group * 8 < a.cols;
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (there)
      source.load(table, row0 + four * 4 + i, col0 + group * 8, v[i]);
#pragma unroll
  for (int j = 0; j < 8; j++) {
    lk_unit unit = units[group * 8 + j];
    float w[4] = {v[0][j], v[1][j], v[2][j], v[3][j]};
    if (there) tile[group * 8 + j][four] = e4m3_four(unit, w);
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < TURN_COLS * 4 / TURN_THREADS; k++) {
    int line = (t + k * TURN_THREADS) / 4, part = t % 4;
    if (col0 + line >= a.cols || row0 + part * 16 >= a.rows) continue;
    const uint32_t *from = &tile[line][part * 4];
    *(uint4 *)(a.codes + (col0 + line) * a.rows + row0 + part * 16) =
        make_uint4(from[0], from[1], from[2], from[3]);
  }
}

template <class S>
static lk_status turn_run(lk_context *context, const lk_call *call, S source) {
  const int64_t *dim = call->in[0].shape.dim;
  turn_args a = {(uint8_t *)call->out[0].data, (float *)call->out[1].data,
                 (float *)call->scratch, dim[0], dim[1],
                 (int)lk_turn_parts(dim[0])};
  unsigned stripes = (unsigned)cuda_pieces(a.cols, TURN_COLS);
  dim3 tiles(stripes, (unsigned)cuda_pieces(a.rows, TURN_ROWS));
  cudaStream_t stream = cuda_stream(context);
  k_turn_amax<<<dim3(stripes, (unsigned)a.parts), 256, 0, stream>>>(source, a);
  k_turn<<<tiles, TURN_THREADS, 0, stream>>>(source, a);
  return cuda_launched(context, call);
}

lk_status cuda_e4m3_turn(lk_context *context, const lk_call *call) {
  rows_of_floats source = {view_of(&call->in[0]),
                           cuda_columns(&call->in[0]), false};
  source.whole = view_whole(source.x);
  return turn_run(context, call, source);
}

lk_status cuda_e4m3_from_nf4(lk_context *context, const lk_call *call) {
  const lk_tensor *q = &call->in[0];
  int block = (int)call->attr.block;
  rows_of_nf4 source = {(const uint8_t *)q->data,
                        (const float *)call->in[1].data, cuda_columns(q),
                        block, -1};
  for (int s = 0; s < 16; s++)
    if (1 << s == block) source.shift = s;
  if (call->attr.transpose_a) return turn_run(context, call, source);
  code_args c = {(uint8_t *)call->out[0].data, (float *)call->out[1].data,
                 q->shape.dim[0], (int)source.cols};
  k_nf4_rows<<<(unsigned)cuda_pieces(c.rows, ROW_WARPS), ROW_WARPS * 32, 0,
               cuda_stream(context)>>>(source, c);
  return cuda_launched(context, call);
}

/* --- the product --------------------------------------------------------- */

lk_status cuda_e4m3_matmul(lk_context *context, const lk_call *call) {
  const lk_tensor *a = &call->in[0], *b = &call->in[2], *y = &call->out[0];
  LK_TRY(cuda_needs(context, "precision fp8 (e4m3_matmul)", 89));
  gemm g = gemm_dense(LK_E4M3, y->dtype, false, true, a->shape.dim[0],
                      b->shape.dim[0], a->shape.dim[1], 1);
  g.a = a->data;
  g.b = b->data;
  g.c = g.d = y->data;
  g.scale_a = (const float *)call->in[1].data;
  g.scale_b = (const float *)call->in[3].data;
  g.fast = call->attr.fast;
  return gemm_run(context, &g, "e4m3_matmul");
}
