/* Matrix products through cuBLASLt. The library is column-major: a row-major
 * d = a b is its dᵀ = bᵀ aᵀ, so that operands change places and every matrix
 * is read as its own transpose. */
#include "gemm_private.cuh"

lk_status gemm_check(lk_context *context, cublasStatus_t code,
                     const char *what) {
  if (code == CUBLAS_STATUS_SUCCESS) return LK_OK;
  lk_status status = code == CUBLAS_STATUS_NOT_SUPPORTED ? LK_UNSUPPORTED
                     : code == CUBLAS_STATUS_ALLOC_FAILED ? LK_OOM
                                                          : LK_DEVICE;
  return lk_fail(&context->error, status, "%s: cuBLASLt: %s", what,
                 cublasLtGetStatusString(code));
}

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
         : dtype == LK_E4M3 ? CUDA_R_8F_E4M3
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
  key.fast = g->fast;
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
  return gemm_check(
      context,
      cublasLtMatrixLayoutSetAttribute(
          *layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step,
          sizeof step),
      what);
}

/* Two settings of a description, of the library's first and second operand,
 * which are b and a. */
static lk_status set_pair(lk_context *context, const gemm_entry *e,
                          cublasLtMatmulDescAttributes_t first,
                          cublasLtMatmulDescAttributes_t second,
                          const void *of_b, const void *of_a, size_t size,
                          const char *what) {
  LT_TRY(what, cublasLtMatmulDescSetAttribute(e->product, first, of_b, size));
  return gemm_check(
      context, cublasLtMatmulDescSetAttribute(e->product, second, of_a, size),
      what);
}

#if CUBLAS_VERSION >= 120900
lk_status gemm_scale_mode(lk_context *context, gemm_entry *e, bool by_row,
                          const char *what) {
  cublasLtMatmulMatrixScale_t mode =
      by_row ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F
             : CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
  return set_pair(context, e, CUBLASLT_MATMUL_DESC_A_SCALE_MODE,
                  CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &mode, &mode, sizeof mode,
                  what);
}
#else /* scales by row are 12.9's */
lk_status gemm_scale_mode(lk_context *context, gemm_entry *e, bool by_row,
                          const char *what) {
  (void)context, (void)what;
  e->rescaled |= by_row;
  return LK_OK;
}
#endif

lk_status gemm_set_scales(lk_context *context, const gemm *g,
                          const gemm_entry *e, const char *what) {
  const float *of_b = e->rescaled ? NULL : g->scale_b;
  const float *of_a = e->rescaled ? NULL : g->scale_a;
  return set_pair(context, e, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER,
                  CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &of_b, &of_a,
                  sizeof of_b, what);
}

/* What an e4m3 product has beside others. */
static lk_status describe_e4m3(lk_context *context, const gemm *g,
                               gemm_entry *e, const char *what) {
  int8_t fast = g->fast;
  LT_TRY(what, cublasLtMatmulDescSetAttribute(
                   e->product, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast,
                   sizeof fast));
  LK_TRY(gemm_scale_mode(context, e, true, what));
  return gemm_set_scales(context, g, e, what);
}

static lk_status describe(lk_context *context, const gemm *g, gemm_entry *e,
                          const char *what) {
  cublasOperation_t first = g->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  cublasOperation_t second = g->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  cublasComputeType_t compute = g->fast && g->in == LK_F32
                                    ? CUBLAS_COMPUTE_32F_FAST_TF32
                                    : CUBLAS_COMPUTE_32F;
  LT_TRY(what, cublasLtMatmulDescCreate(&e->product, compute, CUDA_R_32F));
  LT_TRY(what, cublasLtMatmulDescSetAttribute(
                   e->product, CUBLASLT_MATMUL_DESC_TRANSA, &first,
                   sizeof first));
  LT_TRY(what, cublasLtMatmulDescSetAttribute(
                   e->product, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                   sizeof second));
  if (g->in == LK_E4M3) LK_TRY(describe_e4m3(context, g, e, what));
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

cublasStatus_t gemm_launch(lk_context *context, const gemm *g,
                           const gemm_entry *e,
                           const cublasLtMatmulAlgo_t *algorithm,
                           const void *c, void *d) {
  cuda_state *s = cuda_of(context);
  if (g->in == LK_E4M3 && !e->rescaled &&
      gemm_set_scales(context, g, e, "scales") != LK_OK)
    return CUBLAS_STATUS_INVALID_VALUE;
  return cublasLtMatmul(s->gemm->library, e->product, &g->alpha, g->b, e->b,
                        g->a, e->a, &g->beta, c, e->d, d, e->d, algorithm,
                        s->workspace, (size_t)s->workspace_bytes,
                        cuda_stream(context));
}

/* d [rows, columns] scaled by row and column, in place. */
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_rescale(view d, const float *rows, const float *columns, int64_t n) {
  int64_t row = blockIdx.x;
  for (int64_t c = threadIdx.x; c < n; c += CUDA_THREADS)
    view_set(d, row * n + c,
             view_get(d, row * n + c) * rows[row] * columns[c]);
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
  if (status == LK_OK) status = gemm_choose(context, g, e, what);
  if (status != LK_OK) {
    entry_close(e);
    return status;
  }
  e->used = true;
  table->count++;
  *entry = e;
  return LK_OK;
}

/* As the context wants products of f32. */
static gemm in_context(const lk_context *context, const gemm *g) {
  gemm own = *g;
  own.fast |= context->tf32 && g->in == LK_F32;
  return own;
}

lk_status gemm_run(lk_context *context, const gemm *product,
                   const char *what) {
  const gemm own = in_context(context, product), *g = &own;
  gemm_entry *e = NULL;
  LK_TRY(table_find(context, g, &e, what));
  const void *c = g->beta != 0 ? g->c : g->d;
  LT_TRY(what, gemm_launch(context, g, e, &e->algorithm, c, g->d));
  if (!e->rescaled) return LK_OK;
  view d = {g->d, (int)g->out};
  k_rescale<<<(unsigned)g->m, CUDA_THREADS, 0, cuda_stream(context)>>>(
      d, g->scale_a, g->scale_b, g->n);
  return cuda_check(context, cudaGetLastError(), what);
}

lk_status gemm_open(lk_context *context) {
  cuda_state *s = cuda_of(context);
  uint64_t most = (uint64_t)s->workspace_bytes;
  uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  s->gemm = (struct gemm_table *)calloc(1, sizeof *s->gemm);
  if (s->gemm == NULL)
    return lk_fail(&context->error, LK_OOM, "out of host memory");
  LT_TRY("open", cublasLtCreate(&s->gemm->library));
  LT_TRY("open", cublasLtMatmulPreferenceCreate(&s->gemm->preference));
  LT_TRY("open", cublasLtMatmulPreferenceSetAttribute(
                     s->gemm->preference,
                     CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most,
                     sizeof most));
  return gemm_check(
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
