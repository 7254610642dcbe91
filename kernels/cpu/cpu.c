/* The CPU backend: level choice, thread pool, memory, CBLAS provider. Owns no
 * operator; those are in level.c's files. */
#define _GNU_SOURCE
#include "cpu.h"

#include <cblas.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* --- instruction-set levels --------------------------------------------- */

typedef struct level {
  const char *name, *isa;
  const lk_kernel *kernels;
} level;

#ifdef __x86_64__
extern const lk_kernel lk_cpu_kernels_v1[], lk_cpu_kernels_v3[],
    lk_cpu_kernels_v4[];
static const level levels[] = {{"v4", "avx512", lk_cpu_kernels_v4},
                               {"v3", "avx2", lk_cpu_kernels_v3},
                               {"v1", "sse2", lk_cpu_kernels_v1}};

/* What -march=x86-64-v3 and -v4 let the compiler use. */
static bool level_works(const level *l) {
  __builtin_cpu_init();
  bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
            __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  bool v4 = v3 && __builtin_cpu_supports("avx512f") &&
            __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512cd") &&
            __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512vl");
  return l->name[1] == '1' || (l->name[1] == '3' ? v3 : v4);
}
#else
extern const lk_kernel lk_cpu_kernels_base[];
static const level levels[] = {{"base", "base", lk_cpu_kernels_base}};
static bool level_works(const level *l) { return l != NULL; }
#endif

enum { LEVELS = sizeof levels / sizeof *levels };

static const level *level_find(const char *name) {
  for (int i = 0; i < LEVELS; i++)
    if (strcmp(levels[i].name, name) == 0 && level_works(&levels[i]))
      return &levels[i];
  return NULL;
}

/* The override if this processor has it, else the first level that works. */
static const level *level_choose(void) {
  const char *wanted = getenv("LLMHOST_CPU_LEVEL");
  const level *found = wanted ? level_find(wanted) : NULL;
  for (int i = 0; !found && i < LEVELS; i++)
    if (level_works(&levels[i])) found = &levels[i];
  return found;
}

const lk_kernel *cpu_level_kernels(const char *name) {
  const level *found = level_find(name);
  return found ? found->kernels : NULL;
}

/* --- thread pool -------------------------------------------------------- */

/* A job is `count` parts. `remaining` is claimed down by compare-and-swap;
 * who claims a part may read the job's fields, which the caller rewrites only
 * after every part is done. A worker may sleep through a job. */
struct cpu_pool {
  int threads; /* beside the caller */
  pthread_t *thread;
  atomic_int_fast64_t remaining, done;
  atomic_int sleepers;
  atomic_bool stop;
  cpu_body body;
  void *state;
  int64_t count;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
};

typedef struct worker_argument {
  cpu_pool *pool;
  int lane;
} worker_argument;

enum { SPINS = 3000 }; /* some tens of microseconds */

static _Thread_local int current_lane = -1; /* >= 0 inside a body */

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* Claim and run parts until none is left. */
static void pool_work(cpu_pool *pool, int lane) {
  int_fast64_t left = atomic_load(&pool->remaining);
  current_lane = lane;
  while (left > 0) {
    if (!atomic_compare_exchange_weak(&pool->remaining, &left, left - 1))
      continue;
    pool->body(pool->state, pool->count - left, lane);
    atomic_fetch_add(&pool->done, 1);
    left = atomic_load(&pool->remaining);
  }
  current_lane = -1;
}

static void pool_sleep(cpu_pool *pool) {
  pthread_mutex_lock(&pool->mutex);
  atomic_fetch_add(&pool->sleepers, 1);
  while (atomic_load(&pool->remaining) == 0 && !atomic_load(&pool->stop))
    pthread_cond_wait(&pool->wake, &pool->mutex);
  atomic_fetch_sub(&pool->sleepers, 1);
  pthread_mutex_unlock(&pool->mutex);
}

static void *pool_thread(void *opaque) {
  worker_argument argument = *(worker_argument *)opaque;
  cpu_pool *pool = argument.pool;
  free(opaque);
  while (!atomic_load(&pool->stop)) {
    pool_work(pool, argument.lane);
    int spins = 0;
    while (spins++ < SPINS && atomic_load(&pool->remaining) == 0) relax();
    if (atomic_load(&pool->remaining) == 0) pool_sleep(pool);
  }
  return NULL;
}

static void pool_wake(cpu_pool *pool) {
  pthread_mutex_lock(&pool->mutex);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->mutex);
}

static void pool_close(cpu_pool *pool) {
  if (!pool) return;
  atomic_store(&pool->stop, true);
  pool_wake(pool);
  for (int i = 0; i < pool->threads; i++) pthread_join(pool->thread[i], NULL);
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->mutex);
  free(pool->thread);
  free(pool);
}

/* Start one more worker; false when the system refuses. */
static bool pool_start(cpu_pool *pool) {
  worker_argument *argument = malloc(sizeof *argument);
  if (!argument) return false;
  *argument = (worker_argument){pool, pool->threads + 1};
  if (pthread_create(&pool->thread[pool->threads], NULL, pool_thread,
                     argument) != 0) {
    free(argument);
    return false;
  }
  pool->threads++;
  return true;
}

/* A pool of `lanes` threads, the caller counted; NULL when the system refuses
 * memory or threads. */
static cpu_pool *pool_open(int lanes) {
  cpu_pool *pool = calloc(1, sizeof *pool);
  if (!pool) return NULL;
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->wake, NULL);
  pool->thread = calloc((size_t)lanes, sizeof *pool->thread);
  bool ok = pool->thread != NULL;
  while (ok && pool->threads < lanes - 1) ok = pool_start(pool);
  if (ok) return pool;
  pool_close(pool);
  return NULL;
}

int cpu_lanes(const lk_context *context) {
  return ((const cpu_state *)context->state)->pool->threads + 1;
}

static void run_inline(int64_t count, cpu_body body, void *state) {
  int lane = current_lane < 0 ? 0 : current_lane;
  for (int64_t i = 0; i < count; i++) body(state, i, lane);
}

void cpu_parallel(lk_context *context, int64_t count, cpu_body body,
                  void *state) {
  cpu_pool *pool = ((cpu_state *)context->state)->pool;
  if (count <= 1 || pool->threads == 0 || current_lane >= 0) {
    run_inline(count, body, state);
    return;
  }
  pool->body = body;
  pool->state = state;
  pool->count = count;
  atomic_store(&pool->done, 0);
  atomic_store(&pool->remaining, count);
  if (atomic_load(&pool->sleepers) > 0) pool_wake(pool);
  pool_work(pool, 0);
  for (int spins = 0; atomic_load(&pool->done) < count; spins++) {
    if (spins < SPINS)
      relax();
    else
      sched_yield();
  }
}

/* --- memory ------------------------------------------------------------- */

enum { HUGE_PAGE = 2 << 20, LINE = 64 };

static int64_t physical_memory(void) {
  return (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
}

static void *cpu_allocate(void *context, int64_t bytes) {
  (void)context;
  if (bytes > physical_memory()) return NULL; /* never promise it */
  bool huge = bytes >= 4 * HUGE_PAGE;
  void *data = NULL;
  size_t size = bytes > 0 ? (size_t)bytes : 1;
  if (posix_memalign(&data, huge ? HUGE_PAGE : LINE, size) != 0) return NULL;
#ifdef MADV_HUGEPAGE
  if (huge) madvise(data, size, MADV_HUGEPAGE); /* advice: may be refused */
#endif
  return data;
}

static void cpu_release(void *context, void *data, int64_t bytes) {
  (void)context, (void)bytes;
  free(data);
}

static lk_status cpu_move(lk_context *context, void *to, const void *from,
                          int64_t bytes) {
  (void)context;
  if (bytes > 0) memmove(to, from, (size_t)bytes);
  return LK_OK;
}

typedef struct zero_state {
  char *data;
  int64_t bytes;
} zero_state;

enum { ZERO_PART = 1 << 20 };

static void zero_part(void *opaque, int64_t index, int lane) {
  (void)lane;
  const zero_state *s = opaque;
  int64_t first = index * ZERO_PART;
  memset(s->data + first, 0, (size_t)cpu_smaller(ZERO_PART, s->bytes - first));
}

static lk_status cpu_zero(lk_context *context, void *data, int64_t bytes) {
  zero_state state = {data, bytes};
  cpu_parallel(context, cpu_pieces(bytes, ZERO_PART), zero_part, &state);
  return LK_OK;
}

static lk_status cpu_synchronize(lk_context *context) {
  (void)context;
  return LK_OK;
}

/* --- provider ----------------------------------------------------------- */

/* OpenBLAS's switch; absent in other CBLAS libraries. */
extern void openblas_set_num_threads(int count) __attribute__((weak));

static void cblas_product(bool transpose_a, bool transpose_b, int m, int n,
                          int k, float alpha, const float *a, int lda,
                          const float *b, int ldb, float beta, float *c,
                          int ldc) {
  cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
              transpose_b ? CblasTrans : CblasNoTrans, m, n, k, alpha, a, lda,
              b, ldb, beta, c, ldc);
}

static void cblas_square(int n, int k, float alpha, const float *a, int lda,
                         float beta, float *c, int ldc) {
  cblas_ssyrk(CblasRowMajor, CblasLower, CblasNoTrans, n, k, alpha, a, lda,
              beta, c, ldc);
}

static const cpu_provider cblas_provider = {"cblas", cblas_product,
                                            cblas_square};

/* --- device and context ------------------------------------------------- */

static lk_backend backend;
static const level *chosen;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void backend_fill(void) {
  chosen = level_choose();
  memcpy(backend.kernels, chosen->kernels, sizeof backend.kernels);
  if (openblas_set_num_threads) openblas_set_num_threads(1);
}

const char *cpu_level(void) {
  pthread_once(&once, backend_fill);
  return chosen->name;
}

static int device_count(void) { return 1; }

/* The value of the first "model name : …" line, or "cpu". */
static void cpu_name(char *name, size_t size) {
  snprintf(name, size, "cpu");
  FILE *file = fopen("/proc/cpuinfo", "r");
  char line[512];
  while (file && fgets(line, sizeof line, file)) {
    char *value = strchr(line, ':');
    if (!value || strncmp(line, "model name", 10) != 0) continue;
    line[strcspn(line, "\n")] = 0;
    snprintf(name, size, "%s", value[1] == ' ' ? value + 2 : value + 1);
    break;
  }
  if (file) fclose(file);
}

/* MemAvailable of /proc/meminfo in bytes; 0 when it cannot be read. */
static int64_t memory_available(void) {
  FILE *file = fopen("/proc/meminfo", "r");
  char line[256];
  long long kib = 0;
  while (file && kib == 0 && fgets(line, sizeof line, file))
    if (sscanf(line, "MemAvailable: %lld", &kib) != 1) kib = 0;
  if (file) fclose(file);
  return (int64_t)kib * 1024;
}

static lk_status device_info(int device, lk_device_info *info,
                             lk_error *error) {
  if (device != 0)
    return lk_fail(error, LK_ARGUMENT, "cpu: no device %d", device);
  *info = (lk_device_info){0};
  cpu_name(info->name, sizeof info->name);
  info->memory = physical_memory();
  info->free = memory_available();
  cpu_level();
  snprintf(info->capability, sizeof info->capability, "%s", chosen->isa);
  return LK_OK;
}

static lk_status cpu_open(lk_context *context, int device) {
  if (device != 0)
    return lk_fail(&context->error, LK_ARGUMENT, "cpu: no device %d", device);
  int lanes = context->profile ? context->profile->lanes : 1;
  cpu_state *state = calloc(1, sizeof *state);
  if (state) state->pool = pool_open(lanes);
  if (!state || !state->pool) {
    free(state);
    return lk_fail(&context->error, LK_OOM, "cpu: cannot start %d threads",
                   lanes);
  }
  state->provider = &cblas_provider;
  context->state = state;
  return LK_OK;
}

static void cpu_close(lk_context *context) {
  cpu_state *state = context->state;
  if (state) pool_close(state->pool);
  free(state);
  context->state = NULL;
}

static lk_backend backend = {
    .name = "cpu",
    .device_count = device_count,
    .device_info = device_info,
    .open = cpu_open,
    .close = cpu_close,
    .allocate = cpu_allocate,
    .release = cpu_release,
    .upload = cpu_move,
    .download = cpu_move,
    .copy = cpu_move,
    .zero = cpu_zero,
    .synchronize = cpu_synchronize,
};

const lk_backend *lk_cpu_backend(void) {
  pthread_once(&once, backend_fill);
  return &backend;
}
