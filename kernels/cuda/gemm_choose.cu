/* Which of cuBLASLt's algorithms a product takes: the library's first choice,
 * or the fastest of some candidates (gemm_candidates.cu), measured once a shape
 * (gemm_measure.cu) and kept as text by the context's tuner. */
#include "gemm_private.cuh"

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

/* --- choices as text ----------------------------------------------------- */

enum { CHOICE_BYTES = sizeof(cublasLtMatmulAlgo_t) };

/* "rounds": what was chosen of fewer candidates, or at the first one's chance,
 * has other keys. */
static void key_text(const gemm_entry *e, char *text, size_t size) {
  const gemm_key *k = &e->key;
  snprintf(text, size, "gemm rounds %s %s t%d m%lld n%lld k%lld b%lld "
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

/* Of the library's candidates and more, by the tuner. */
static void choose_tuned(lk_context *context, const gemm *g, gemm_entry *e,
                         gemm_candidates *list) {
  const lk_tuner *tuner = &context->tuner;
  char key[320], choice[2 * CHOICE_BYTES + 1];
  cublasLtMatmulAlgo_t known;
  key_text(e, key, sizeof key);
  if (tuner->find(tuner->state, key, choice, sizeof choice) &&
      choice_read(choice, &known) && gemm_fits(context, e, &known)) {
    e->algorithm = known;
    return;
  }
  if (recording(context)) return;
  gemm_offer_more(context, e, list);
  int best = list->count > 1 ? gemm_measure(context, g, e, list) : 0;
  if (best < 0) return;
  e->algorithm = list->algorithm[best];
  choice_write(&e->algorithm, choice);
  tuner->note(tuner->state, key, choice); /* another's may have come first */
  if (tuner->find(tuner->state, key, choice, sizeof choice) &&
      choice_read(choice, &known) && gemm_fits(context, e, &known))
    e->algorithm = known;
}

lk_status gemm_choose(lk_context *context, const gemm *g, gemm_entry *e,
                      const char *what) {
  gemm_candidates list;
  LK_TRY(prefer(context, &e->key, what));
  if (gemm_offered(context, e, &list) == 0 && g->in == LK_E4M3) {
    e->rescaled = true;
    LK_TRY(gemm_scale_mode(context, e, false, what));
    LK_TRY(gemm_set_scales(context, g, e, what));
    gemm_offered(context, e, &list);
  }
  if (list.count == 0)
    return lk_fail(&context->error, LK_UNSUPPORTED,
                   "%s: no product of %s in %s for m %lld, n %lld, k %lld",
                   what, lk_dtype_word(g->in), lk_dtype_word(g->out),
                   (long long)g->m, (long long)g->n, (long long)g->k);
  e->algorithm = list.algorithm[0];
  if (context->tuner.find) choose_tuned(context, g, e, &list);
  return LK_OK;
}
