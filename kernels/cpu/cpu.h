/* The CPU backend's own ground: its state, the thread pool, the table of
 * matrix-product providers, and what every operator file starts from.
 *
 * The operator files (activation.c … reduce.c) are one translation unit per
 * instruction-set level: level.c includes them all and is compiled once for
 * each level. Every function in them is static; cpu_<op> is the kernel of
 * operator <op>. cpu.c is compiled once and picks the level at run time. */
#ifndef LK_CPU_CPU_H
#define LK_CPU_CPU_H

#include "../core/context.h"

/* Single-threaded products, row-major; may be called by several threads at
 * once. sgemm: c [m, n] = alpha · op(a) · op(b) + beta · c with leading
 * dimensions lda, ldb, ldc; c is not read if beta = 0. ssyrk: the same of
 * a [n, k] · aᵀ, of which only the lower triangle is read and written. */
typedef struct cpu_provider {
  const char *name;
  void (*sgemm)(bool transpose_a, bool transpose_b, int m, int n, int k,
                float alpha, const float *a, int lda, const float *b, int ldb,
                float beta, float *c, int ldc);
  void (*ssyrk)(int n, int k, float alpha, const float *a, int lda, float beta,
                float *c, int ldc);
} cpu_provider;

/* Elements of vector a, then b, in the order of the constants; `pick` is the
 * type of a vector of as many integers of their size. */
#ifdef __clang__
#define CPU_SHUFFLE(pick, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define CPU_SHUFFLE(pick, a, b, ...) \
  __builtin_shuffle(a, b, (pick){__VA_ARGS__})
#endif

typedef struct cpu_pool cpu_pool;

/* context->state of a CPU context. */
typedef struct cpu_state {
  cpu_pool *pool;
  const cpu_provider *provider;
} cpu_state;

static inline const cpu_provider *cpu_provider_of(const lk_context *context) {
  return ((const cpu_state *)context->state)->provider;
}

/* One part of a parallel loop. `lane` in [0, cpu_lanes) is unique among the
 * parts that run at once: it may choose scratch memory, never a value. */
typedef void (*cpu_body)(void *state, int64_t index, int lane);

/* body(state, i, lane) for every i in [0, count), in any order, by all threads
 * of the context and the caller; returns when all are done. Inside a body it
 * runs inline. Results must depend on i alone. */
void cpu_parallel(lk_context *context, int64_t count, cpu_body body,
                  void *state);
/* Threads that take part, the caller included. */
int cpu_lanes(const lk_context *context);

/* The kernels of a level ("v1", "v3", "v4"; "base" off x86); NULL if unknown
 * or not supported by this processor. */
const lk_kernel *cpu_level_kernels(const char *level);
/* The level that lk_cpu_backend() uses: the highest of this processor, or
 * what the environment's LLMHOST_CPU_LEVEL names. */
const char *cpu_level(void);

static inline int64_t cpu_smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static inline int64_t cpu_larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}
/* How many pieces of `size` cover `count`. */
static inline int64_t cpu_pieces(int64_t count, int64_t size) {
  return (count + size - 1) / size;
}

#ifdef LK_CPU_LEVEL
/* c [m, n] = op(a) · op(b) + beta · c, f32, row-major, leading dimensions lda,
 * ldb, ldc; op(a) is [m, k], op(b) [k, n]; beta 0 or 1. Cut in tiles that
 * depend on the shape alone, over cpu_parallel (inline when called from a
 * body). In matmul.c. */
static void cpu_gemm(lk_context *context, bool transpose_a, bool transpose_b,
                     int64_t m, int64_t n, int64_t k, float alpha,
                     const float *a, int64_t lda, const float *b, int64_t ldb,
                     float beta, float *c, int64_t ldc);

/* LK_OK when every tensor of the call that is a float is f32 (integers and
 * e4m3 codes beside a result pass); else LK_UNSUPPORTED with the operator's
 * name. */
static lk_status cpu_need_f32(lk_context *context, const lk_call *call);

/* How an operator with results `codes` and `scales`, from `at` on, ends: result
 * `y` by rows in e4m3, if they are wanted. In e4m3.c. */
static lk_status cpu_give_codes(lk_context *context, const lk_call *call,
                                int y, int at);
#endif

#endif
