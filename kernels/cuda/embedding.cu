/* Rows of a table by id, and positions: embedding, its gradient, the rotary
 * table and the rotation of q and k heads. */
#include "device.cuh"

/* An id outside the table gives a row of NaN. */
struct embed_row {
  const int32_t *ids;
  view table, y;
  int64_t table_rows, width;
  float scale;
  bool whole;
  __device__ void operator()(int64_t row, int64_t unit) const {
    float v[8];
    int64_t c = unit * 8, left = width - c;
    int n = left < 8 ? (int)left : 8, id = ids[row];
    bool there = id >= 0 && id < table_rows;
    view_load(table, (there ? id : 0) * width + c, n, whole, v);
    for (int j = 0; j < 8; j++) v[j] = there ? scale * v[j] : NAN;
    view_store(y, row * width + c, n, whole, v);
  }
};

lk_status cuda_embed(lk_context *context, const lk_call *call) {
  const lk_tensor *table = &call->in[1];
  embed_row f = {(const int32_t *)call->in[0].data, view_of(table),
                 view_of(&call->out[0]), table->shape.dim[0],
                 table->shape.dim[1], (float)call->attr.scale, false};
  f.whole = f.width % 8 == 0 && view_whole(f.table) && view_whole(f.y);
  return cuda_rows(context, call, lk_tensor_count(&call->in[0]),
                   cuda_pieces(f.width, 8), f);
}

/* --- gradient: positions sorted by id, then one block a row --- */

/* In scratch: start[v] … start[v + 1] are the places in `order` of the
 * positions whose id is v; start has table_rows + 1 entries. */
typedef struct embed_sort {
  const int32_t *ids;
  int *start, *order;
  int64_t rows, table_rows;
} embed_sort;

static __device__ bool embed_there(const embed_sort &s, int64_t n) {
  return s.ids[n] >= 0 && s.ids[n] < s.table_rows;
}

static __global__ void k_embed_count(embed_sort s) {
  int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (n < s.rows && embed_there(s, n)) atomicAdd(&s.start[s.ids[n]], 1);
}

/* start becomes the inclusive sum of itself: ends of the runs. One block. */
static __global__ void __launch_bounds__(1024) k_embed_scan(embed_sort s) {
  __shared__ int sums[1024];
  int t = (int)threadIdx.x;
  int64_t each = (s.table_rows + 1023) / 1024, first = t * each;
  int64_t last = first + each < s.table_rows ? first + each : s.table_rows;
  int sum = 0;
  for (int64_t v = first; v < last; v++) sum += s.start[v];
  sums[t] = sum;
  __syncthreads();
  for (int step = 1; step < 1024; step *= 2) {
    int add = t >= step ? sums[t - step] : 0;
    __syncthreads();
    sums[t] += add;
    __syncthreads();
  }
  int running = sums[t] - sum;
  for (int64_t v = first; v < last; v++) {
    running += s.start[v];
    s.start[v] = running;
  }
  if (t == 1023) s.start[s.table_rows] = sums[1023];
}

/* Ends become starts; the order within a run is left to chance here. */
static __global__ void k_embed_place(embed_sort s) {
  int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (n < s.rows && embed_there(s, n))
    s.order[atomicSub(&s.start[s.ids[n]], 1) - 1] = (int)n;
}

enum { EMBED_THREADS = 256, EMBED_SORT = 1024 };

/* Ascending order of a run of up to EMBED_SORT positions, bitonic. */
static __device__ void embed_sort_run(int *order, int count, int *room) {
  int size = 2;
  while (size < count) size *= 2;
  for (int i = (int)threadIdx.x; i < size; i += EMBED_THREADS)
    room[i] = i < count ? order[i] : 0x7FFFFFFF;
  __syncthreads();
  for (int k = 2; k <= size; k *= 2)
    for (int j = k / 2; j > 0; j /= 2) {
      for (int i = (int)threadIdx.x; i < size; i += EMBED_THREADS) {
        int other = i ^ j;
        if (other <= i) continue;
        int a = room[i], b = room[other];
        if ((a > b) == ((i & k) == 0)) room[i] = b, room[other] = a;
      }
      __syncthreads();
    }
  for (int i = (int)threadIdx.x; i < count; i += EMBED_THREADS)
    order[i] = room[i];
  __syncthreads();
}

/* A longer run is gathered anew, all positions in their order. */
static __device__ void embed_gather_run(const embed_sort &s, int id,
                                        int *order, int *room) {
  int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, done = 0;
  for (int64_t base = 0; base < s.rows; base += EMBED_THREADS) {
    int64_t n = base + threadIdx.x;
    bool mine = n < s.rows && s.ids[n] == id;
    unsigned votes = __ballot_sync(0xFFFFFFFFu, mine);
    if (lane == 0) room[warp] = __popc(votes);
    __syncthreads();
    int before = done + __popc(votes & ((1u << lane) - 1));
    for (int w = 0; w < EMBED_THREADS / 32; w++) {
      if (w < warp) before += room[w];
      done += room[w];
    }
    if (mine) order[before] = (int)n;
    __syncthreads();
  }
}

typedef struct embed_sum {
  view dy;
  float *dtable;
  int64_t width;
  float scale;
  bool accumulate, whole;
} embed_sum;

/* Group `unit` of row `id`: the gradients of every `sets`-th position of the
 * run, from `set` on. */
static __device__ void embed_add(const embed_sum &e, const int *order,
                                 int count, int64_t unit, int set, int sets,
                                 float sum[8]) {
  int64_t c = unit * 8, left = e.width - c;
  int n = left < 8 ? (int)left : 8;
  float v[8];
#pragma unroll 8
  for (int i = set; i < count; i += sets) {
    view_load(e.dy, order[i] * e.width + c, n, e.whole, v);
#pragma unroll
    for (int j = 0; j < 8; j++) sum[j] += e.scale * v[j];
  }
}

/* The sum of all sets, in their order, into the table's row. */
static __device__ void embed_store(const embed_sum &e, int64_t id,
                                   int64_t unit, const float *room, int sets,
                                   int64_t step) {
  int64_t c = unit * 8, left = e.width - c;
  int n = left < 8 ? (int)left : 8;
  view row = view_f32(e.dtable + id * e.width);
  float sum[8] = {0};
  if (e.accumulate) view_load(row, c, n, e.whole, sum);
  for (int s = 0; s < sets; s++)
#pragma unroll
    for (int j = 0; j < 8; j++) sum[j] += room[s * step + unit * 8 + j];
  view_store(row, c, n, e.whole, sum);
}

/* A block a row of the table; where rows are short, its threads share a run:
 * set k of K adds positions k, k + K, … in order. */
static __global__ void __launch_bounds__(EMBED_THREADS)
    k_embed_backward(embed_sort s, embed_sum e) {
  __shared__ int room[EMBED_SORT];
  __shared__ float sums[EMBED_THREADS * 8];
  int64_t id = blockIdx.x, units = (e.width + 7) / 8;
  int first = s.start[id], count = s.start[id + 1] - first;
  if (count == 0 && e.accumulate) return;
  if (count > EMBED_SORT)
    embed_gather_run(s, (int)id, s.order + first, room);
  else if (count > 1)
    embed_sort_run(s.order + first, count, room);
  int sets = units < EMBED_THREADS ? EMBED_THREADS / (int)units : 1;
  for (int64_t base = 0; base < units; base += EMBED_THREADS / sets) {
    int64_t here = EMBED_THREADS / sets, unit = base + threadIdx.x % here;
    int set = (int)(threadIdx.x / here);
    bool works = unit < units && set < sets;
    float sum[8] = {0};
    if (works)
      embed_add(e, s.order + first, count, unit, set, sets, sum);
#pragma unroll
    for (int j = 0; j < 8; j++) sums[threadIdx.x * 8 + j] = sum[j];
    __syncthreads();
    if (works && set == 0)
      embed_store(e, id, unit, sums - base * 8, sets, here * 8);
    __syncthreads();
  }
}

lk_status cuda_embed_backward(lk_context *context, const lk_call *call) {
  const lk_tensor *dy = &call->in[0], *table = &call->out[0];
  cudaStream_t stream = cuda_stream(context);
  embed_sort s = {(const int32_t *)call->in[1].data, (int *)call->scratch,
                  NULL, dy->shape.dim[0], table->shape.dim[0]};
  s.order = s.start + s.table_rows + 1;
  embed_sum e = {view_of(dy), (float *)table->data, dy->shape.dim[1],
                 (float)call->attr.scale, call->attr.accumulate, false};
  e.whole = e.width % 8 == 0 && view_whole(e.dy) &&
            view_whole(view_of(table));
  unsigned blocks = (unsigned)cuda_pieces(s.rows, CUDA_THREADS);
  LK_TRY(context->backend->zero(context, s.start, (s.table_rows + 1) * 4));
  k_embed_count<<<blocks, CUDA_THREADS, 0, stream>>>(s);
  k_embed_scan<<<1, 1024, 0, stream>>>(s);
  k_embed_place<<<blocks, CUDA_THREADS, 0, stream>>>(s);
  k_embed_backward<<<(unsigned)s.table_rows, EMBED_THREADS, 0, stream>>>(s,
                                                                         e);
  return cuda_launched(context, call);
}

/* --- rotary positions ----------------------------------------------------- */

struct table_each {
  float *table;
  int64_t half, turning, first;
  double base, steps;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    (void)whole;
    for (int j = 0; j < n; j++) {
      int64_t t = (i + j) / half, k = (i + j) % half;
      double f = steps > 0 ? pow(base, -(double)k / steps) : 1.0;
      double angle = k < turning ? (double)(first + t) * f : 0.0;
      table[2 * (i + j)] = (float)cos(angle);
      table[2 * (i + j) + 1] = (float)sin(angle);
    }
  }
};

lk_status cuda_rope_table(lk_context *context, const lk_call *call) {
  const lk_attr *a = &call->attr;
  int64_t half = call->out[0].shape.dim[1];
  int64_t turning = (int64_t)floor(a->fraction * (double)half + 0.5);
  table_each f = {(float *)call->out[0].data, half, turning, a->first,
                  a->base, (double)(a->inclusive ? turning - 1 : turning)};
  return cuda_each(context, call, lk_tensor_count(&call->out[0]) / 2, false,
                   f);
}

/* A unit is eight pairs of one head; units past the q and k heads copy v. */
struct rope_row {
  view x, y;
  const float *table;
  int64_t positions, row_width;
  int turned, width, half, groups; /* heads that turn; groups of a half */
  float sign;
  bool whole;
  /* Cosines and sines of a position's n frequencies from c on. */
  __device__ void angles(int64_t position, int c, int n, float w[16]) const {
    view t = view_f32((void *)(table + (position * half + c) * 2));
    view_load(t, 0, 2 * n < 8 ? 2 * n : 8, whole, w);
    view_load(t, 8, 2 * n - 8, whole, w + 8);
  }
  __device__ void turn(const float w[16], float u[8], float v[8]) const {
#pragma unroll
    for (int j = 0; j < 8; j++) {
      float a = u[j], b = v[j], sine = sign * w[2 * j + 1];
      u[j] = a * w[2 * j] + b * sine;
      v[j] = b * w[2 * j] - a * sine;
    }
  }
  __device__ void operator()(int64_t row, int64_t unit) const {
    int head = (int)unit / groups, c = (int)unit % groups * 8;
    int n = half - c < 8 ? half - c : 8;
    int64_t at = row * row_width + (int64_t)head * width + c;
    float u[8], v[8], w[16];
    view_load(x, at, n, whole, u);
    view_load(x, at + half, n, whole, v);
    if (head < turned) {
      angles(row % positions, c, n, w);
      turn(w, u, v);
    }
    view_store(y, at, n, whole, u);
    view_store(y, at + half, n, whole, v);
  }
};

/* The same for whole groups of a 16-bit type: a thread turns its unit in
 * ROPE_ROWS rows of one position, so that it reads the angles once and has as
 * many rows on their way. */
enum { ROPE_ROWS = 4, ROPE_THREADS = 512 };

template <int T>
static __global__ void __launch_bounds__(ROPE_THREADS)
    k_rope(rope_row f, int sequences, int units) {
  const int position = (int)blockIdx.x, first = (int)blockIdx.y * ROPE_ROWS;
  for (int unit = (int)threadIdx.x; unit < units; unit += (int)blockDim.x) {
    const int head = unit / f.groups, c = unit % f.groups * 8;
    const int64_t step = f.positions * f.row_width;
    const int64_t at = first * step + position * f.row_width +
                       (int64_t)head * f.width + c;
    const uint16_t *x = (const uint16_t *)f.x.data + at;
    uint16_t *y = (uint16_t *)f.y.data + at;
    uint4 low[ROPE_ROWS], high[ROPE_ROWS];
    float w[16], u[8], v[8];
#pragma unroll
    for (int r = 0; r < ROPE_ROWS; r++) {
      if (first + r >= sequences) break;
      low[r] = *(const uint4 *)(x + r * step);
      high[r] = *(const uint4 *)(x + r * step + f.half);
    }
    if (head < f.turned) f.angles(position, c, 8, w);
#pragma unroll
    for (int r = 0; r < ROPE_ROWS; r++) {
      if (first + r >= sequences) break;
      if (head < f.turned) {
        unpack8(T, low[r], u);
        unpack8(T, high[r], v);
        f.turn(w, u, v);
        low[r] = pack8(T, u);
        high[r] = pack8(T, v);
      }
      *(uint4 *)(y + r * step) = low[r];
      *(uint4 *)(y + r * step + f.half) = high[r];
    }
  }
}

static lk_status rope_whole(lk_context *context, const lk_call *call,
                            const rope_row &f, int64_t rows, int units) {
  int64_t sequences = rows / f.positions;
  dim3 grid((unsigned)f.positions,
            (unsigned)cuda_pieces(sequences, ROPE_ROWS));
  unsigned threads = (unsigned)cuda_smaller(ROPE_THREADS, (units + 31) & ~31);
  auto kernel = f.x.dtype == LK_BF16 ? k_rope<LK_BF16> : k_rope<LK_F16>;
  kernel<<<grid, threads, 0, cuda_stream(context)>>>(f, (int)sequences, units);
  return cuda_launched(context, call);
}

/* Heads of v need no copy in place. */
lk_status cuda_rope(lk_context *context, const lk_call *call) {
  const lk_attr *a = &call->attr;
  int64_t turned = a->heads + a->kv_heads, all = turned + a->kv_heads;
  rope_row f = {view_of(&call->in[0]), view_of(&call->out[0]),
                (const float *)call->in[1].data, call->in[1].shape.dim[0],
                all * a->width, (int)turned, (int)a->width,
                (int)(a->width / 2), (int)cuda_pieces(a->width / 2, 8),
                a->inverse ? -1.0f : 1.0f, false};
  f.whole = f.half % 8 == 0 && view_whole(f.x) && view_whole(f.y) &&
            ((uintptr_t)f.table & 15) == 0;
  int64_t rows = lk_tensor_count(&call->in[0]) / f.row_width;
  int64_t units = (f.x.data == f.y.data ? turned : all) * f.groups;
  if (f.whole && f.x.dtype != LK_F32 && rows % f.positions == 0 &&
      rows / f.positions <= ROPE_ROWS * 65535)
    return rope_whole(context, call, f, rows, (int)units);
  return cuda_rows(context, call, rows, units, f);
}
