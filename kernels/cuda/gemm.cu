/* Matrix products through cuBLASLt. The library is column-major: a row-major
 * d = a b is its dᵀ = bᵀ aᵀ, so that operands change places and every matrix
 * is read as its own transpose. */
#include "gemm.cuh"

#include <cublasLt.h>

/* What an algorithm is chosen for; compared byte by byte. */
typedef struct gemm_key {
  int64_t m, n, k, batch, lda, ldb, ldd, step_a, step_b, step_d;
  int32_t in, out, transposes, in_place, adds, align;
} gemm_key;

typedef struct gemm_entry {
  bool used;
  gemm_key key;
  cublasLtMatmulDesc_t product;
  cublasLtMatrixLayout_t a, b, d;
  cublasLtMatmulAlgo_t algorithm;
} gemm_entry;

enum { GEMM_ROOM = 2048 }; /* entries; more than half full: start over */

struct gemm_table {
  cublasLtHandle_t library;
  cublasLtMatmulPreference_t preference;
  bool measures;    /* LLMHOST_TUNE=measure: else the library's first choice */
  int count;
  gemm_entry entry[GEMM_ROOM];
};

static lk_status library_check(lk_context *context, cublasStatus_t code,
                               const char *what) {
  if (code == CUBLAS_STATUS_SUCCESS) return LK_OK;
  lk_status status = code == CUBLAS_STATUS_NOT_SUPPORTED ? LK_UNSUPPORTED
                     : code == CUBLAS_STATUS_ALLOC_FAILED ? LK_OOM
                                                          : LK_DEVICE;
  return lk_fail(&context->error, status, "%s: cuBLASLt: %s", what,
                 cublasLtGetStatusString(code));
}

#define LT_TRY(what, call) LK_TRY(library_check(context, call, what))

gemm gemm_dense(lk_dtype in, lk_dtype out, bool transpose_a, bool transpose_b,
                int64_t m, int64_t n, int64_t k, int64_t batch) {
  gemm g = {};
  g.in = in;
  g.out = out;
  g.transpose_a = transpose_a;
  g.transpose_b = transpose_b;
  g.m = m;
  g.n = n;
  g.k = k;
  g.batch = batch;
  g.alpha = 1;
  g.lda = transpose_a ? m : k;
  g.ldb = transpose_b ? k : n;
  g.ldd = n;
  g.step_a = m * k;
  g.step_b = k * n;
  g.step_d = m * n;
  return g;
}

static cudaDataType type_of(lk_dtype dtype) {
  return dtype == LK_BF16 ? CUDA_R_16BF
         : dtype == LK_F16 ? CUDA_R_16F
                           : CUDA_R_32F;
}

/* The largest power of two up to 16 that divides all addresses. */
static int32_t alignment_of(const gemm *g) {
  uintptr_t bits = (uintptr_t)g->a | (uintptr_t)g->b | (uintptr_t)g->d | 16;
  if (g->beta != 0) bits |= (uintptr_t)g->c;
  return (int32_t)(bits & -bits);
}

static gemm_key key_of(const gemm *g) {
  gemm_key key;
  memset(&key, 0, sizeof key);
  key.m = g->m, key.n = g->n, key.k = g->k, key.batch = g->batch;
  key.lda = g->lda, key.ldb = g->ldb, key.ldd = g->ldd;
  key.step_a = g->step_a, key.step_b = g->step_b, key.step_d = g->step_d;
  key.in = (int32_t)g->in, key.out = (int32_t)g->out;
  key.transposes = g->transpose_a + 2 * g->transpose_b;
  key.adds = g->beta != 0;
  key.in_place = key.adds && g->c == g->d;
  key.align = alignment_of(g);
  return key;
}

static uint32_t key_hash(const gemm_key *key) {
  const unsigned char *bytes = (const unsigned char *)key;
  uint32_t hash = 2166136261u;
  for (size_t i = 0; i < sizeof *key; i++) hash = (hash ^ bytes[i]) * 16777619;
  return hash;
}

/* --- descriptions ------------------------------------------------------- */

/* A row-major [rows, cols] matrix as the library sees it. */
static lk_status layout_new(lk_context *context, cublasLtMatrixLayout_t *layout,
                            lk_dtype dtype, int64_t rows, int64_t cols,
                            int64_t ld, int64_t batch, int64_t step,
                            const char *what) {
  int32_t count = (int32_t)batch;
  LT_TRY(what, cublasLtMatrixLayoutCreate(layout, type_of(dtype),
                                          (uint64_t)cols, (uint64_t)rows, ld));
  LT_TRY(what, cublasLtMatrixLayoutSetAttribute(
                   *layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                   sizeof count));
  return library_check(
      context,
      cublasLtMatrixLayoutSetAttribute(
          *layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step,
          sizeof step),
      what);
}

static lk_status describe(lk_context *context, const gemm *g, gemm_entry *e,
                          const char *what) {
  cublasOperation_t first = g->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  cublasOperation_t second = g->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  LT_TRY(what, cublasLtMatmulDescCreate(&e->product, CUBLAS_COMPUTE_32F,
                                        CUDA_R_32F));
  LT_TRY(what, cublasLtMatmulDescSetAttribute(
                   e->product, CUBLASLT_MATMUL_DESC_TRANSA, &first,
                   sizeof first));
  LT_TRY(what, cublasLtMatmulDescSetAttribute(
                   e->product, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                   sizeof second));
  LK_TRY(layout_new(context, &e->a, g->in, g->transpose_a ? g->k : g->m,
                    g->transpose_a ? g->m : g->k, g->lda, g->batch, g->step_a,
                    what));
  LK_TRY(layout_new(context, &e->b, g->in, g->transpose_b ? g->n : g->k,
                    g->transpose_b ? g->k : g->n, g->ldb, g->batch, g->step_b,
                    what));
  return layout_new(context, &e->d, g->out, g->m, g->n, g->ldd, g->batch,
                    g->step_d, what);
}

static void entry_close(gemm_entry *e) {
  if (e->product) cublasLtMatmulDescDestroy(e->product);
  if (e->a) cublasLtMatrixLayoutDestroy(e->a);
  if (e->b) cublasLtMatrixLayoutDestroy(e->b);
  if (e->d) cublasLtMatrixLayoutDestroy(e->d);
  memset(e, 0, sizeof *e);
}

static lk_status prefer(lk_context *context, const gemm_key *key,
                        const char *what) {
  static const cublasLtMatmulPreferenceAttributes_t attributes[] = {
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
  struct gemm_table *table = cuda_of(context)->gemm;
  uint32_t align = (uint32_t)key->align;
  for (int i = 0; i < 4; i++)
    LT_TRY(what, cublasLtMatmulPreferenceSetAttribute(
                     table->preference, attributes[i], &align, sizeof align));
  return LK_OK;
}

/* One run by an algorithm. */
static cublasStatus_t launch(lk_context *context, const gemm *g,
                             const gemm_entry *e,
                             const cublasLtMatmulAlgo_t *algorithm,
                             const void *c, void *d) {
  cuda_state *s = cuda_of(context);
  return cublasLtMatmul(s->gemm->library, e->product, &g->alpha, g->b, e->b,
                        g->a, e->a, &g->beta, c, e->d, d, e->d, algorithm,
                        s->workspace, (size_t)s->workspace_bytes,
                        cuda_stream(context));
}

/* The least milliseconds of three runs after one, into `room`; infinity when
 * it fails. */
static float time_of(lk_context *context, const gemm *g, const gemm_entry *e,
                     const cublasLtMatmulAlgo_t *algorithm, void *room) {
  cuda_state *s = cuda_of(context);
  const void *c = g->c == g->d || g->beta == 0 ? room : g->c;
  float least = INFINITY;
  for (int i = 0; i < 4; i++) {
    float t = 0;
    cudaEventRecord(s->start, cuda_stream(context));
    if (launch(context, g, e, algorithm, c, room) != CUBLAS_STATUS_SUCCESS)
      return INFINITY;
    cudaEventRecord(s->stop, cuda_stream(context));
    if (cudaEventSynchronize(s->stop) != cudaSuccess ||
        cudaEventElapsedTime(&t, s->start, s->stop) != cudaSuccess)
      return INFINITY;
    if (i > 0 && t < least) least = t;
  }
  return least;
}

/* The fastest of the algorithms found: measured once per shape, results going
 * to memory that is had for the moment. Without it, the first. */
static int measure(lk_context *context, const gemm *g, const gemm_entry *e,
                   const cublasLtMatmulHeuristicResult_t *found, int count) {
  size_t bytes = (size_t)lk_dtype_bytes(
      g->out, (g->batch - 1) * g->step_d + g->m * g->ldd);
  void *room = NULL;
  float least = INFINITY;
  int best = 0;
  if (cudaMalloc(&room, bytes) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  cudaMemsetAsync(room, 0, bytes, cuda_stream(context));
  for (int i = 0; i < count; i++) {
    float t = time_of(context, g, e, &found[i].algo, room);
    if (!(t < least * 0.99f)) continue;
    least = t;
    best = i;
  }
  cudaFree(room);
  return best;
}

static lk_status choose(lk_context *context, const gemm *g, gemm_entry *e,
                        const char *what) {
  struct gemm_table *table = cuda_of(context)->gemm;
  cublasLtMatmulHeuristicResult_t found[8];
  int count = 0;
  LK_TRY(prefer(context, &e->key, what));
  cublasStatus_t code = cublasLtMatmulAlgoGetHeuristic(
      table->library, e->product, e->b, e->a, e->d, e->d, table->preference, 8,
      found, &count);
  int usable = 0;
  for (int i = 0; i < count && code == CUBLAS_STATUS_SUCCESS; i++)
    if (found[i].state == CUBLAS_STATUS_SUCCESS) found[usable++] = found[i];
  if (usable > 0) {
    int best = table->measures && usable > 1
                   ? measure(context, g, e, found, usable) : 0;
    e->algorithm = found[best].algo;
    return LK_OK;
  }
  return lk_fail(&context->error, LK_UNSUPPORTED,
                 "%s: no product of %s in %s for m %lld, n %lld, k %lld", what,
                 lk_dtype_word(g->in), lk_dtype_word(g->out), (long long)g->m,
                 (long long)g->n, (long long)g->k);
}

/* --- the table ---------------------------------------------------------- */

static void table_clear(struct gemm_table *table) {
  for (int i = 0; i < GEMM_ROOM; i++)
    if (table->entry[i].used) entry_close(&table->entry[i]);
  table->count = 0;
}

static lk_status table_find(lk_context *context, const gemm *g,
                            gemm_entry **entry, const char *what) {
  struct gemm_table *table = cuda_of(context)->gemm;
  gemm_key key = key_of(g);
  if (table->count > GEMM_ROOM / 2) table_clear(table);
  uint32_t at = key_hash(&key) % GEMM_ROOM;
  gemm_entry *e = &table->entry[at];
  for (; e->used; e = &table->entry[at = (at + 1) % GEMM_ROOM]) {
    *entry = e;
    if (memcmp(&e->key, &key, sizeof key) == 0) return LK_OK;
  }
  e->key = key;
  lk_status status = describe(context, g, e, what);
  if (status == LK_OK) status = choose(context, g, e, what);
  if (status != LK_OK) {
    entry_close(e);
    return status;
  }
  e->used = true;
  table->count++;
  *entry = e;
  return LK_OK;
}

lk_status gemm_run(lk_context *context, const gemm *g, const char *what) {
  gemm_entry *e = NULL;
  LK_TRY(table_find(context, g, &e, what));
  const void *c = g->beta != 0 ? g->c : g->d;
  return library_check(context,
                       launch(context, g, e, &e->algorithm, c, g->d), what);
}

lk_status gemm_open(lk_context *context) {
  cuda_state *s = cuda_of(context);
  uint64_t most = (uint64_t)s->workspace_bytes;
  uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  s->gemm = (struct gemm_table *)calloc(1, sizeof *s->gemm);
  if (s->gemm == NULL)
    return lk_fail(&context->error, LK_OOM, "out of host memory");
  const char *tune = getenv("LLMHOST_TUNE");
  s->gemm->measures = tune != NULL && strcmp(tune, "measure") == 0;
  LT_TRY("open", cublasLtCreate(&s->gemm->library));
  LT_TRY("open", cublasLtMatmulPreferenceCreate(&s->gemm->preference));
  LT_TRY("open", cublasLtMatmulPreferenceSetAttribute(
                     s->gemm->preference,
                     CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most,
                     sizeof most));
  return library_check(
      context,
      cublasLtMatmulPreferenceSetAttribute(
          s->gemm->preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
          &schemes, sizeof schemes),
      "open");
}

void gemm_close(lk_context *context) {
  struct gemm_table *table = cuda_of(context)->gemm;
  if (table == NULL) return;
  table_clear(table);
  if (table->preference) cublasLtMatmulPreferenceDestroy(table->preference);
  if (table->library) cublasLtDestroy(table->library);
  free(table);
  cuda_of(context)->gemm = NULL;
}
