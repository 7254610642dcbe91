/* Symmetric products for Newton-Schulz on Hopper's warpgroup instructions: of
 * d = alpha · a b + beta · c only the tiles on and below the diagonal are
 * computed, each written to its mirror place too, so that d is symmetric to the
 * bit. a and b are read along their rows: b stands for its own transpose.
 *
 * A block has one tile of 128 × 128, two warpgroups 64 rows each; operands come
 * 64 columns at a time into three stages of shared memory, rows of 128 bytes
 * whose 16-byte pieces are permuted by their row (PTX ISA: wgmma, 128-byte
 * swizzle). sm_90a only; elsewhere schulz_square_fits says no. */
#include "schulz.cuh"
#include "warpgroup.cuh"

enum {
  SQUARE_SIDE = 128, SQUARE_DEPTH = 64, SQUARE_STAGES = 3,
  SQUARE_THREADS = 256,
  SQUARE_OPERAND = SQUARE_SIDE * SQUARE_DEPTH * 2,
  SQUARE_STAGE = 2 * SQUARE_OPERAND,
  SQUARE_BYTES = SQUARE_STAGES * SQUARE_STAGE + 1024, /* to be aligned */
  SQUARE_PITCH = SQUARE_SIDE + 8 /* of the result in shared memory */
};

/* Tiles of all products. */
static int64_t square_tiles(int64_t side, int64_t count) {
  int64_t tiles = side / SQUARE_SIDE;
  return tiles * (tiles + 1) / 2 * count;
}

/* With fewer tiles than processors the library's smaller ones win, unless there
 * are so few that nothing matters (and tests are to see this kernel). */
bool schulz_square_fits(const cuda_state *s, lk_dtype dtype, int64_t side,
                        int64_t depth, int64_t count) {
  int64_t tiles = square_tiles(side, count);
  return s->hopper && dtype == LK_F16 && side % SQUARE_SIDE == 0 &&
         depth % SQUARE_DEPTH == 0 && depth >= SQUARE_DEPTH * SQUARE_STAGES &&
         (tiles >= s->processors || tiles < 16);
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/* --- pieces of a product ------------------------------------------------- */

/* c [64, 128] += a [64, 16] · b [128, 16]ᵀ by the warpgroup. */
static __device__ __forceinline__ void square_mma(float c[64], uint64_t a,
                                                  uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7,"
      "%8, %9, %10, %11, %12, %13, %14, %15,"
      "%16, %17, %18, %19, %20, %21, %22, %23,"
      "%24, %25, %26, %27, %28, %29, %30, %31,"
      "%32, %33, %34, %35, %36, %37, %38, %39,"
      "%40, %41, %42, %43, %44, %45, %46, %47,"
      "%48, %49, %50, %51, %52, %53, %54, %55,"
      "%56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, 1, 1, 1, 0, 0;"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]),
        "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]),
        "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]),
        "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]),
        "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]),
        "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]),
        "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]),
        "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31]),
        "+f"(c[32]), "+f"(c[33]), "+f"(c[34]), "+f"(c[35]),
        "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]),
        "+f"(c[40]), "+f"(c[41]), "+f"(c[42]), "+f"(c[43]),
        "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]),
        "+f"(c[48]), "+f"(c[49]), "+f"(c[50]), "+f"(c[51]),
        "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]),
        "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]),
        "+f"(c[60]), "+f"(c[61]), "+f"(c[62]), "+f"(c[63])
      : "l"(a), "l"(b));
}

/* A thread's part of copying 128 rows of 64 columns, `from` its first piece. */
static __device__ __forceinline__ void square_load(uint32_t to,
                                                   const __half *from,
                                                   int64_t pitch) {
  const int row = threadIdx.x / 8, piece = threadIdx.x % 8;
#pragma unroll
  for (int i = 0; i < SQUARE_SIDE; i += SQUARE_THREADS / 8) {
    uint32_t at = to + (row + i) * 128 + (piece ^ (row & 7)) * 16;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at),
                 "l"(from + i * pitch)
                 : "memory");
  }
}

/* One stage's part of the sum; waits until it is made. */
static __device__ __forceinline__ void square_step(uint32_t stage,
                                                   float c[64]) {
  const uint32_t a = stage + threadIdx.x / 128 * (SQUARE_OPERAND / 2);
  const uint32_t b = stage + SQUARE_OPERAND;
  group_begin();
#pragma unroll
  for (int k = 0; k < SQUARE_DEPTH / 16; k++)
    square_mma(c, group_operand(a + k * 32), group_operand(b + k * 32));
  group_commit();
}

/* --- the tile's way out -------------------------------------------------- */

/* alpha · sum + beta · c, rounded, into shared memory [128, SQUARE_PITCH]. */
static __device__ __forceinline__ void
square_scale(const schulz_product &p, const __half *c, int row, int column,
             const float sum[64], __half *tile) {
  const int lane = threadIdx.x & 31;
  const int i = threadIdx.x / 32 * 16 + lane / 4, j = lane % 4 * 2;
#pragma unroll
  for (int n = 0; n < 16; n++)
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const float *x = sum + 4 * n + 2 * r;
      float2 y = make_float2(p.alpha * x[0], p.alpha * x[1]);
      if (p.beta != 0) {
        const __half *at =
            c + (int64_t)(row + i + 8 * r) * p.side + column + n * 8 + j;
        float2 z = __half22float2(*(const __half2 *)at);
        y.x += p.beta * z.x, y.y += p.beta * z.y;
      }
      *(__half2 *)(tile + (i + 8 * r) * SQUARE_PITCH + n * 8 + j) =
          __floats2half2_rn(y.x, y.y);
    }
}

/* The tile and its mirror image; on the diagonal the lower half is both. */
static __device__ __forceinline__ void square_store(const __half *tile,
                                                    __half *d, int64_t side,
                                                    int row, int column) {
  for (int at = threadIdx.x; at < SQUARE_SIDE * SQUARE_SIDE / 8;
       at += SQUARE_THREADS) {
    __align__(16) __half x[8], y[8];
    const int i = at / 16, j = at % 16 * 8;   /* of a piece of the tile */
    const int k = at % 128, l = at / 128 * 8; /* of one of the mirror's */
#pragma unroll
    for (int e = 0; e < 8; e++) {
      const bool above = row == column && j + e > i;
      x[e] = tile[above ? (j + e) * SQUARE_PITCH + i
                        : i * SQUARE_PITCH + j + e];
      y[e] = tile[(l + e) * SQUARE_PITCH + k];
    }
    *(uint4 *)(d + (row + i) * side + column + j) = *(const uint4 *)x;
    if (row != column)
      *(uint4 *)(d + (column + k) * side + row + l) = *(const uint4 *)y;
  }
}

/* --- the product --------------------------------------------------------- */

static __device__ __forceinline__ void square_tile(const schulz_product &p,
                                                   char *room) {
  const uint32_t shared = (uint32_t)__cvta_generic_to_shared(room);
  int row = 0, column = (int)blockIdx.x;
  while (column > row) column -= ++row; /* tile (row, column), column <= row */
  row *= SQUARE_SIDE, column *= SQUARE_SIDE;
  const int64_t in = blockIdx.y * p.step, out = blockIdx.y * p.side * p.side;
  const int64_t mine = threadIdx.x / 8 * p.pitch + threadIdx.x % 8 * 8;
  const __half *a = (const __half *)p.a + in + row * p.pitch + mine;
  const __half *b = (const __half *)p.b + in + column * p.pitch + mine;
  const int steps = (int)(p.depth / SQUARE_DEPTH);
  float sum[64];
#pragma unroll
  for (int i = 0; i < 64; i++) sum[i] = 0;
  for (int s = 0; s < SQUARE_STAGES - 1; s++) {
    square_load(shared + s * SQUARE_STAGE, a + s * SQUARE_DEPTH, p.pitch);
    square_load(shared + s * SQUARE_STAGE + SQUARE_OPERAND,
                b + s * SQUARE_DEPTH, p.pitch);
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  for (int s = 0; s < steps; s++) {
    const int next = s + SQUARE_STAGES - 1;
    const uint32_t to = shared + next % SQUARE_STAGES * SQUARE_STAGE;
    asm volatile("cp.async.wait_group %0;" ::"n"(SQUARE_STAGES - 2)
                 : "memory");
    shared_written();
    group_wait<0>();
    __syncthreads(); /* the stage is there, and nobody reads the last one */
    if (next < steps) {
      square_load(to, a + next * SQUARE_DEPTH, p.pitch);
      square_load(to + SQUARE_OPERAND, b + next * SQUARE_DEPTH, p.pitch);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
    square_step(shared + s % SQUARE_STAGES * SQUARE_STAGE, sum);
  }
  group_wait<0>();
  __syncthreads();
  __half *d = (__half *)p.d + out;
  square_scale(p, (const __half *)p.c + out, row, column, sum,
               (__half *)(void *)room);
  __syncthreads();
  square_store((const __half *)(const void *)room, d, p.side, row, column);
}
#endif

static __global__ void __launch_bounds__(SQUARE_THREADS, 2)
    k_schulz_square(const schulz_product p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ char memory[];
  const uint32_t at = (uint32_t)__cvta_generic_to_shared(memory);
  square_tile(p, memory + (1024 - at % 1024) % 1024);
#endif
}

cudaError_t schulz_square_run(const schulz_product *p, int64_t count,
                              cudaStream_t stream) {
  dim3 grid((unsigned)square_tiles(p->side, 1), (unsigned)count);
  cudaError_t status = cudaFuncSetAttribute(
      k_schulz_square, cudaFuncAttributeMaxDynamicSharedMemorySize,
      SQUARE_BYTES);
  if (status != cudaSuccess) return status;
  k_schulz_square<<<grid, SQUARE_THREADS, SQUARE_BYTES, stream>>>(*p);
  return cudaGetLastError();
}
