/* Which of cuBLASLt's algorithms a product takes: the library's first choice,
 * or the fastest of its candidates and of some with their sums split, measured
 * once a shape (gemm_measure.cu) and kept as text by the context's tuner. */
#include "gemm_private.cuh"

enum {
  SPLIT_OF = 2,     /* that many candidates are offered split too, ... */
  SPLIT_PARTS = 3,  /* ... into this many parts and fewer */
  LIBRARY = GEMM_CANDIDATES - SPLIT_OF * (SPLIT_PARTS - 1),
};

/* Where sums are worth splitting: results of few tiles, which fill the device
 * badly (1280 x 5120 are 200 tiles of 256 x 128, 1.5 turns of 132 processors),
 * each of many terms: gradients of weights. */
static const int64_t SPLIT_RESULTS = 1280 * 5120, SPLIT_TERMS = 8192;

/* --- candidates ---------------------------------------------------------- */

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

/* The library's usable candidates, best guess first; how many. */
static int candidates(lk_context *context, const gemm_entry *e,
                      cublasLtMatmulHeuristicResult_t *found) {
  struct gemm_table *table = cuda_of(context)->gemm;
  int count = 0, usable = 0;
  if (cublasLtMatmulAlgoGetHeuristic(table->library, e->product, e->b, e->a,
                                     e->d, e->d, table->preference,
                                     LIBRARY, found, &count) !=
      CUBLAS_STATUS_SUCCESS)
    return 0;
  for (int i = 0; i < count; i++)
    if (found[i].state == CUBLAS_STATUS_SUCCESS) found[usable++] = found[i];
  return usable;
}

/* --- split sums ---------------------------------------------------------- */

/* Whether the library takes an algorithm that it did not offer just now. */
static bool fits(lk_context *context, const gemm_entry *e,
                 const cublasLtMatmulAlgo_t *algorithm) {
  cublasLtMatmulHeuristicResult_t result;
  memset(&result, 0, sizeof result);
  return cublasLtMatmulAlgoCheck(cuda_of(context)->gemm->library, e->product,
                                 e->b, e->a, e->d, e->d, algorithm,
                                 &result) == CUBLAS_STATUS_SUCCESS &&
         result.state == CUBLAS_STATUS_SUCCESS &&
         (int64_t)result.workspaceSize <= cuda_of(context)->workspace_bytes;
}

static int32_t parts_of(const cublasLtMatmulAlgo_t *algorithm) {
  int32_t parts = 0;
  size_t size;
  cublasLtMatmulAlgoConfigGetAttribute(algorithm,
                                       CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts,
                                       sizeof parts, &size);
  return parts;
}

/* A copy of an algorithm with its sums in parts, which the workspace holds in
 * f32 until they are added up in order. False when the library has none, or the
 * workspace is too small. */
static bool split(lk_context *context, const gemm_entry *e,
                  const cublasLtMatmulAlgo_t *algorithm, int32_t parts,
                  cublasLtMatmulAlgo_t *copy) {
  uint32_t scheme = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  *copy = *algorithm;
  return cublasLtMatmulAlgoConfigSetAttribute(
             copy, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, sizeof parts) ==
             CUBLAS_STATUS_SUCCESS &&
         cublasLtMatmulAlgoConfigSetAttribute(
             copy, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
             sizeof scheme) == CUBLAS_STATUS_SUCCESS &&
         fits(context, e, copy);
}

/* Put split copies of the first candidates behind the `count` there are; how
 * many there are then. */
static int add_split(lk_context *context, const gemm_entry *e,
                     cublasLtMatmulHeuristicResult_t *found, int count) {
  const gemm_key *k = &e->key;
  int all = count, whole = 0;
  if (k->batch * k->m * k->n > SPLIT_RESULTS || k->k < SPLIT_TERMS)
    return count;
  for (int i = 0; i < count && whole < SPLIT_OF; i++) {
    if (parts_of(&found[i].algo) != 1) continue;
    whole++;
    for (int32_t parts = SPLIT_PARTS; parts > 1; parts--)
      all += split(context, e, &found[i].algo, parts, &found[all].algo);
  }
  return all;
}

/* --- choices as text ----------------------------------------------------- */

enum { CHOICE_BYTES = sizeof(cublasLtMatmulAlgo_t) };

/* "sustained": what was chosen by single runs alone has keys without it. */
static void key_text(const gemm_entry *e, char *text, size_t size) {
  const gemm_key *k = &e->key;
  snprintf(text, size, "gemm sustained %s %s t%d m%lld n%lld k%lld b%lld "
           "ld%lld,%lld,%lld s%lld,%lld,%lld %d%d%d%d a%d",
           lk_dtype_word((lk_dtype)k->in), lk_dtype_word((lk_dtype)k->out),
           k->transposes, (long long)k->m, (long long)k->n, (long long)k->k,
           (long long)k->batch, (long long)k->lda, (long long)k->ldb,
           (long long)k->ldd, (long long)k->step_a, (long long)k->step_b,
           (long long)k->step_d, k->in_place, k->adds, k->fast, e->rescaled,
           k->align);
}

/* An algorithm is bytes that the same library takes back: two digits each. */
static void choice_write(const cublasLtMatmulAlgo_t *algorithm, char *text) {
  const unsigned char *bytes = (const unsigned char *)algorithm;
  for (int i = 0; i < CHOICE_BYTES; i++)
    snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

static bool choice_read(const char *text, cublasLtMatmulAlgo_t *algorithm) {
  unsigned char *bytes = (unsigned char *)algorithm;
  if (strlen(text) != 2 * CHOICE_BYTES) return false;
  for (int i = 0; i < CHOICE_BYTES; i++) {
    unsigned byte;
    if (sscanf(text + 2 * i, "%2x", &byte) != 1) return false;
    bytes[i] = (unsigned char)byte;
  }
  return true;
}

/* A recording cannot be measured in. */
static bool recording(lk_context *context) {
  cudaStreamCaptureStatus state = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(cuda_stream(context), &state) != cudaSuccess ||
         state != cudaStreamCaptureStatusNone;
}

/* --- the choice ---------------------------------------------------------- */

/* Of the library's `count` candidates and more, by the tuner. */
static void choose_tuned(lk_context *context, const gemm *g, gemm_entry *e,
                         cublasLtMatmulHeuristicResult_t *found, int count) {
  const lk_tuner *tuner = &context->tuner;
  char key[320], choice[2 * CHOICE_BYTES + 1];
  cublasLtMatmulAlgo_t known;
  key_text(e, key, sizeof key);
  if (tuner->find(tuner->state, key, choice, sizeof choice) &&
      choice_read(choice, &known) && fits(context, e, &known)) {
    e->algorithm = known;
    return;
  }
  if (recording(context)) return;
  count = add_split(context, e, found, count);
  int best = count > 1 ? gemm_measure(context, g, e, found, count) : 0;
  if (best < 0) return;
  e->algorithm = found[best].algo;
  choice_write(&e->algorithm, choice);
  tuner->note(tuner->state, key, choice); /* another's may have come first */
  if (tuner->find(tuner->state, key, choice, sizeof choice) &&
      choice_read(choice, &known) && fits(context, e, &known))
    e->algorithm = known;
}

lk_status gemm_choose(lk_context *context, const gemm *g, gemm_entry *e,
                      const char *what) {
  cublasLtMatmulHeuristicResult_t found[GEMM_CANDIDATES];
  LK_TRY(prefer(context, &e->key, what));
  int count = candidates(context, e, found);
  if (count == 0 && g->in == LK_E4M3) {
    e->rescaled = true;
    LK_TRY(gemm_scale_mode(context, e, false, what));
    LK_TRY(gemm_set_scales(context, g, e, what));
    count = candidates(context, e, found);
  }
  if (count == 0)
    return lk_fail(&context->error, LK_UNSUPPORTED,
                   "%s: no product of %s in %s for m %lld, n %lld, k %lld",
                   what, lk_dtype_word(g->in), lk_dtype_word(g->out),
                   (long long)g->m, (long long)g->n, (long long)g->k);
  e->algorithm = found[0].algo;
  if (context->tuner.find) choose_tuned(context, g, e, found, count);
  return LK_OK;
}
