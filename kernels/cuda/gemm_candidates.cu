/* The algorithms that a product may be measured with: those cuBLASLt offers;
 * and of gradients of weights, whose results are few tiles that fill the device
 * badly (1280 x 5120 are 200 tiles of 256 x 128, 1.5 turns of 132 processors),
 * each of many terms, more: with sums in parts, and by tiles that the library
 * takes but does not offer. */
#include "gemm_private.cuh"

enum {
  LIBRARY = 8,      /* that many are asked of the library */
  SPLIT_OF = 2,     /* so many of them are offered split too, ... */
  SPLIT_PARTS = 3   /* ... into this many parts and fewer */
};

/* Few results, many terms, and for variants at least some 50 us of work. */
static const int64_t FEW_RESULTS = 1280 * 5120, MANY_TERMS = 8192;
static const double VARIED_WORK = 3e10;

bool gemm_fits(lk_context *context, const gemm_entry *e,
               const cublasLtMatmulAlgo_t *algorithm) {
  cublasLtMatmulHeuristicResult_t result;
  memset(&result, 0, sizeof result);
  return cublasLtMatmulAlgoCheck(cuda_of(context)->gemm->library, e->product,
                                 e->b, e->a, e->d, e->d, algorithm,
                                 &result) == CUBLAS_STATUS_SUCCESS &&
         result.state == CUBLAS_STATUS_SUCCESS &&
         (int64_t)result.workspaceSize <= cuda_of(context)->workspace_bytes;
}

static bool set(cublasLtMatmulAlgo_t *algorithm,
                cublasLtMatmulAlgoConfigAttributes_t attribute,
                const void *value, size_t size) {
  return cublasLtMatmulAlgoConfigSetAttribute(algorithm, attribute, value,
                                              size) == CUBLAS_STATUS_SUCCESS;
}

int gemm_offered(lk_context *context, const gemm_entry *e,
                 gemm_candidates *list) {
  struct gemm_table *table = cuda_of(context)->gemm;
  cublasLtMatmulHeuristicResult_t found[LIBRARY];
  int count = 0;
  list->count = list->plain = 0;
  if (cublasLtMatmulAlgoGetHeuristic(table->library, e->product, e->b, e->a,
                                     e->d, e->d, table->preference, LIBRARY,
                                     found, &count) != CUBLAS_STATUS_SUCCESS)
    return 0;
  for (int i = 0; i < count; i++)
    if (found[i].state == CUBLAS_STATUS_SUCCESS)
      list->algorithm[list->count++] = found[i].algo;
  return list->plain = list->count;
}

static bool known(const gemm_candidates *list,
                  const cublasLtMatmulAlgo_t *algorithm) {
  for (int i = 0; i < list->count; i++)
    if (memcmp(&list->algorithm[i], algorithm, sizeof *algorithm) == 0)
      return true;
  return false;
}

/* Add an algorithm that the library did not offer, if it takes it. */
static void add(lk_context *context, const gemm_entry *e,
                gemm_candidates *list, const cublasLtMatmulAlgo_t *algorithm) {
  if (list->count < GEMM_CANDIDATES && !known(list, algorithm) &&
      gemm_fits(context, e, algorithm))
    list->algorithm[list->count++] = *algorithm;
}

/* --- split sums ----------------------------------------------------------- */

/* Put an algorithm's sums in parts, which the workspace holds in f32 until they
 * are added up in order; 1: whole. */
static bool set_parts(cublasLtMatmulAlgo_t *algorithm, int32_t parts) {
  uint32_t scheme = parts > 1 ? CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
                              : CUBLASLT_REDUCTION_SCHEME_NONE;
  return set(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts,
             sizeof parts) &&
         set(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
             sizeof scheme);
}

static int32_t parts_of(const cublasLtMatmulAlgo_t *algorithm) {
  int32_t parts = 0;
  size_t size;
  cublasLtMatmulAlgoConfigGetAttribute(algorithm,
                                       CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts,
                                       sizeof parts, &size);
  return parts;
}

static void add_split(lk_context *context, const gemm_entry *e,
                      gemm_candidates *list) {
  int offered = list->count, whole = 0;
  for (int i = 0; i < offered && whole < SPLIT_OF; i++) {
    if (parts_of(&list->algorithm[i]) != 1) continue;
    whole++;
    for (int32_t parts = SPLIT_PARTS; parts > 1; parts--) {
      cublasLtMatmulAlgo_t copy = list->algorithm[i];
      if (set_parts(&copy, parts)) add(context, e, list, &copy);
    }
  }
}

/* --- variants ------------------------------------------------------------- */

/* A tile of the library's (of dᵀ: columns of d first), its custom option, the
 * blocks that share operands. */
typedef struct gemm_variant {
  cublasLtMatmulTile_t tile;
  uint32_t option;
  cublasLtClusterShape_t cluster;
} gemm_variant;

#define VARIANT(tile, option, cluster) \
  {CUBLASLT_MATMUL_TILE_##tile, option, CUBLASLT_CLUSTER_SHAPE_##cluster##x1}

/* What was among the best for some gradient of a layer when everything that the
 * library takes was tried back to back on an H200 (NOTES.md, Tuning), and some
 * of it turned. */
static const gemm_variant variants[] = {
    VARIANT(128x112, 3, 2x2), VARIANT(128x112, 7, 2x1),
    VARIANT(112x128, 2, 1x2), VARIANT(112x128, 4, 1x2),
    VARIANT(128x144, 1, 2x1), VARIANT(128x144, 3, 2x1),
    VARIANT(144x128, 0, 2x2), VARIANT(144x128, 2, 1x2),
    VARIANT(128x160, 3, 1x2), VARIANT(160x128, 2, 2x1),
    VARIANT(128x176, 1, 2x1), VARIANT(176x128, 2, 1x2),
    VARIANT(104x256, 4, 2x1), VARIANT(256x104, 7, 1x2),
    VARIANT(128x208, 5, 2x1), VARIANT(208x128, 4, 1x2),
    VARIANT(208x128, 6, 1x2), VARIANT(128x224, 5, 2x1),
    VARIANT(224x128, 4, 1x2), VARIANT(224x128, 4, 2x1),
    VARIANT(112x256, 4, 2x2), VARIANT(256x144, 7, 1x2),
    VARIANT(128x320, 5, 2x1), VARIANT(320x128, 4, 1x2),
    VARIANT(320x128, 6, 1x2), VARIANT(320x128, 6, 2x1),
};
#undef VARIANT

static bool set_variant(cublasLtMatmulAlgo_t *algorithm,
                        const gemm_variant *v) {
  int32_t tile = v->tile;
  uint16_t cluster = v->cluster;
  return set_parts(algorithm, 1) &&
         set(algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID, &tile, sizeof tile) &&
         set(algorithm, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, &v->option,
             sizeof v->option) &&
         set(algorithm, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, &cluster,
             sizeof cluster);
}

static void add_variants(lk_context *context, const gemm_entry *e,
                         gemm_candidates *list) {
  for (const gemm_variant &v : variants) {
    cublasLtMatmulAlgo_t copy = list->algorithm[0];
    if (set_variant(&copy, &v)) add(context, e, list, &copy);
  }
}

void gemm_offer_more(lk_context *context, const gemm_entry *e,
                     gemm_candidates *list) {
  const gemm_key *k = &e->key;
  int64_t results = k->batch * k->m * k->n;
  if (list->count == 0 || results > FEW_RESULTS || k->k < MANY_TERMS) return;
  add_split(context, e, list);
  list->plain = list->count;
  if (2.0 * (double)results * (double)k->k >= VARIED_WORK)
    add_variants(context, e, list);
}
