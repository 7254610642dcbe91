/* Symmetric products for Newton-Schulz on Hopper: of d = alpha · a bᵀ + beta ·
 * c only what lies on and below the diagonal is computed, and written to its
 * mirror place too, so that d is symmetric to the bit.
 *
 * Blocks, one a processor, go in pairs, which take tile after tile of 256 rows
 * and columns, or of half the columns where whole ones would leave many pairs
 * idle. A block sums half of the rows, half as wide where the rest lies above
 * the diagonal; it copies its rows' operand and, for both, half of the
 * columns'. Its warpgroups:
 *   0  a thread has operands copied ahead, into a ring of stages of 64 terms;
 *      two others have c copied before and results after a tile is summed
 *   1, 2  own 64 rows each: they sum, and leave rounded results in shared
 *      memory, first as they lie, then turned, in boxes of 64 × 64.
 * sm_90a only; elsewhere schulz_square_fits says no. */
#include "schulz.cuh"
#include "schulz_sums.cuh"

namespace square {

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* --- warpgroup 0: copies -------------------------------------------------- */

/* A step's box of an operand, from row (turned: column) `line` of boxes on. */
template <bool BOTH, bool TURNED>
static __device__ __forceinline__ void
load_box(uint32_t to, const CUtensorMap *map, int line, int step, int matrix,
         uint32_t barrier) {
  const int x = BOX * (TURNED ? line : step), y = BOX * (TURNED ? step : line);
  if (BOTH) bulk_box_both(to, map, x, y, matrix, barrier);
  else bulk_box(to, map, x, y, matrix, barrier);
}

/* Operands of all tiles. */
template <bool TURNED>
static __device__ __forceinline__ void load_all(const work &k,
                                                const maps &from,
                                                const memory &m) {
  const turns mine;
  ring r = {0, 0};
  for (int task = mine.first; task < k.p.tasks; task += mine.stride) {
    const place at = place_of(k.p, task, mine.rank);
    const int share = at.boxes / PAIR, first = mine.rank * share;
    for (int s = 0; s < k.steps; s++, r.next()) {
      const uint32_t to = m.at + r.slot * STAGE;
      const uint32_t barrier = m.barrier(LOADED + r.slot);
      barrier_wait(m.barrier(FREE + r.slot), r.phase ^ 1);
      barrier_expect(barrier, (ROWS + at.boxes) * BOX_BYTES);
      for (int i = 0; i < ROWS; i++)
        load_box<false, TURNED>(to + i * BOX_BYTES, &from.a, at.row + i, s,
                                at.matrix, barrier);
      for (int i = first; i < first + share; i++)
        load_box<true, TURNED>(to + (ROWS + i) * BOX_BYTES, &from.b,
                               at.column + i, s, at.matrix, barrier);
    }
  }
}

/* A warpgroup's results as they lie, row `row` of boxes. */
static __device__ __forceinline__ void
put_rows(const work &k, const maps &to, const memory &m, const place &at,
         int group, int row, int kept) {
  for (int i = 0; i < kept; i++) {
    const int x = (at.column + i) * BOX, y = row * BOX;
    bulk_put(&to.d, x, y, at.matrix, m.result(group, i));
    if (k.shifted && x != y)
      bulk_put(&to.shifted, x, y, at.matrix, m.result(group, i));
  }
}

/* Turned, the same; of a box on the diagonal only what is shifted is new. */
static __device__ __forceinline__ void
put_columns(const work &k, const maps &to, const memory &m, const place &at,
            int group, int row, int kept) {
  for (int i = 0; i < kept; i++) {
    const int x = row * BOX, y = (at.column + i) * BOX;
    if (x != y) bulk_put(&to.d, x, y, at.matrix, m.result(group, i));
    if (k.shifted) bulk_put(&to.shifted, x, y, at.matrix, m.result(group, i));
  }
}

/* c before and results after every tile of a warpgroup. */
static __device__ __forceinline__ void pass_all(const work &k,
                                                const maps &with,
                                                const memory &m, int group) {
  const turns mine;
  const uint32_t ready = m.barrier(READY + group);
  uint32_t phase = 0;
  for (int task = mine.first; task < k.p.tasks;
       task += mine.stride, phase ^= 1) {
    const place at = place_of(k.p, task, mine.rank);
    const int row = at.row + group, kept = kept_of(k, at, row);
    const int read = k.beta != 0 ? kept : 0;
    barrier_expect(ready, read * BOX_BYTES);
    for (int i = 0; i < read; i++)
      bulk_box(m.result(group, i), &with.c, (at.column + i) * BOX, row * BOX,
               at.matrix, ready);
    barrier_wait(m.barrier(MADE + group), 0);
    put_rows(k, with, m, at, group, row, kept);
    bulk_put_wait();
    barrier_arrive(m.barrier(TAKEN + group));
    barrier_wait(m.barrier(MADE + group), 1);
    put_columns(k, with, m, at, group, row, kept);
    bulk_put_wait();
  }
}

/* --- the kernel ---------------------------------------------------------- */

static __device__ __forceinline__ void open_barriers(const memory &m) {
  if (threadIdx.x != 0) return;
  for (int i = 0; i < STAGES; i++) {
    barrier_open(m.barrier(LOADED + i), 1);
    barrier_open(m.barrier(FREE + i), ROWS * PAIR);
  }
  for (int i = 0; i < ROWS; i++) {
    barrier_open(m.barrier(READY + i), 1);
    barrier_open(m.barrier(MADE + i), 4);
    barrier_open(m.barrier(TAKEN + i), 1);
  }
  barriers_opened();
}
#endif

/* No block of a pair begins before the other's barriers are there, or ends
 * while the other writes to it. */
template <bool TURNED>
static __global__ void __launch_bounds__(THREADS, 1)
    k_schulz_square(const work k, const __grid_constant__ maps with) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char room[];
  memory m;
  m.at = (uint32_t)__cvta_generic_to_shared(room);
  m.at += (1024 - m.at % 1024) % 1024;
  open_barriers(m);
  cluster_meet();
  if (threadIdx.x < 128) {
    registers_fewer<COPY_REGISTERS>();
    if (threadIdx.x == 0) load_all<TURNED>(k, with, m);
    else if (threadIdx.x == 32) pass_all(k, with, m, 0);
    else if (threadIdx.x == 64) pass_all(k, with, m, 1);
    __syncwarp();
  } else {
    registers_more<SUM_REGISTERS>();
    sum_all<TURNED>(k, m);
  }
  cluster_meet();
#endif
}

/* --- launch --------------------------------------------------------------- */

/* Boxes of `count` matrices [rows, columns] of f16. */
static cudaError_t map_of(const void *data, int64_t rows, int64_t columns,
                          int64_t pitch, int64_t step, int64_t count,
                          CUtensorMap *map) {
  bulk_tensor t = {data, LK_F16, 3,
                   {(uint64_t)columns, (uint64_t)rows, (uint64_t)count},
                   {(uint64_t)pitch * 2, (uint64_t)step * 2},
                   {BOX, BOX, 1}, true};
  return bulk_map(&t, map);
}

static cudaError_t maps_of(const schulz_product *p, int64_t count,
                           maps *with) {
  const void *c = p->beta != 0 ? p->c : p->d;
  const void *shifted = p->shifted ? p->shifted : p->d;
  const int64_t rows = p->turned ? p->depth : p->side;
  const int64_t columns = p->turned ? p->side : p->depth;
  const void *operand[] = {p->a, p->b}, *square[] = {c, p->d, shifted};
  CUtensorMap *from[] = {&with->a, &with->b};
  CUtensorMap *to[] = {&with->c, &with->d, &with->shifted};
  cudaError_t status = cudaSuccess;
  for (int i = 0; i < 2 && status == cudaSuccess; i++)
    status = map_of(operand[i], rows, columns, p->pitch, p->step, count,
                    from[i]);
  for (int i = 0; i < 3 && status == cudaSuccess; i++)
    status = map_of(square[i], p->side, p->side, p->side, p->side * p->side,
                    count, to[i]);
  return status;
}

template <bool TURNED>
static cudaError_t launch(const work &k, const maps &with, int64_t pairs,
                          cudaStream_t stream) {
  auto kernel = k_schulz_square<TURNED>;
  cudaError_t status = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
  if (status != cudaSuccess) return status;
  cudaLaunchAttribute cluster;
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = PAIR;
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3((unsigned)pairs * PAIR);
  config.blockDim = dim3(THREADS);
  config.dynamicSmemBytes = BYTES;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, k, with);
}

}

/* Rows must be multiples of 16 bytes. On an H200 (132 processors) the library's
 * whole squares are sooner up to 512, and up to 1024 where matrices are few; at
 * 768 they take a little less time each, but twice the work, which a step at
 * the power limit feels: the table is in NOTES.md. */
bool schulz_square_fits(const cuda_state *s, lk_dtype dtype, int64_t side,
                        int64_t pitch, int64_t count) {
  const bool sooner = side >= 1280 || (side >= 768 && count >= 8);
  return s->hopper && dtype == LK_F16 && sooner && side % 8 == 0 &&
         pitch % 8 == 0 && side * count < INT32_MAX / side;
}

cudaError_t schulz_square_run(const schulz_product *p, int64_t count,
                              int processors, cudaStream_t stream) {
  using namespace square;
  maps with;
  cudaError_t status = maps_of(p, count, &with);
  if (status != cudaSuccess) return status;
  int64_t pairs = processors / PAIR;
  work k = {plan_of(p->side, count, pairs), (int)p->side,
            (int)((p->depth + BOX - 1) / BOX), p->alpha, p->beta, p->shift,
            p->shifted != NULL};
  if (pairs > k.p.tasks) pairs = k.p.tasks;
  return p->turned ? launch<true>(k, with, pairs, stream)
                   : launch<false>(k, with, pairs, stream);
}
