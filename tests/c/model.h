/* A small model for tests of the graph floor: any stack of layers between an
 * embedding and a head, with batches of random tokens. */
#ifndef LK_TESTS_MODEL_H
#define LK_TESTS_MODEL_H

#include <stdlib.h>
#include <string.h>

#include "../../kernels/graph/program.h"

enum { MODEL_V = 29, MODEL_C = 16, MODEL_B = 3, MODEL_T = 10 };

static inline lk_layer *layer_of(lk_layer_kind kind, lk_layer_options o,
                                 lk_layer *const *children, int count) {
  lk_layer *layer = NULL;
  lk_error e = {0};
  if (o.std == 0) o.std = 0.2;
  if (lk_layer_new(kind, "", &o, children, count, &layer, &e) != LK_OK) {
    printf("# layer: %s\n", e.message);
    abort();
  }
  for (int i = 0; i < count; i++) lk_layer_release(children[i]);
  return layer;
}

#define LAYER_OF(kind, ...) \
  layer_of(LK_LAYER_##kind, (lk_layer_options){__VA_ARGS__}, NULL, 0)
#define TREE_OF(kind, ...)                                       \
  layer_of(LK_LAYER_##kind, (lk_layer_options){0},               \
           (lk_layer *[]){__VA_ARGS__},                          \
           (int)(sizeof((lk_layer *[]){__VA_ARGS__}) / sizeof(lk_layer *)))

/* embedding, body, norm, head (tied or not). */
static inline lk_layer *model_around(lk_layer *body, bool tied) {
  lk_layer *embedding = LAYER_OF(embedding, .in = MODEL_V, .out = MODEL_C,
                                 .scale = 2);
  lk_layer *head = tied ? LAYER_OF(head, .tied = embedding)
                        : LAYER_OF(head, .in = MODEL_C, .out = MODEL_V);
  return TREE_OF(sequential, embedding, body,
                 LAYER_OF(rmsnorm, .in = MODEL_C), head);
}

/* One block of the decoder with everything on. */
static inline lk_layer *decoder_block(double p, int64_t kv_heads) {
  lk_layer *attention = TREE_OF(
      residual, LAYER_OF(rmsnorm, .in = MODEL_C),
      LAYER_OF(attention, .in = MODEL_C, .heads = 4, .kv_heads = kv_heads,
               .rope = true, .rope_base = 10000, .rope_fraction = 0.5,
               .rope_inclusive = true, .p = p),
      LAYER_OF(dropout, .p = p));
  lk_layer *mlp = TREE_OF(
      residual, LAYER_OF(rmsnorm, .in = MODEL_C),
      LAYER_OF(linear, .in = MODEL_C, .out = 40), LAYER_OF(silu, 0),
      LAYER_OF(dropout, .p = p), LAYER_OF(linear, .in = 40, .out = MODEL_C),
      LAYER_OF(dropout, .p = p));
  return TREE_OF(sequential, attention, mlp);
}

/* Two such blocks: the decoder. */
static inline lk_layer *decoder(double p, int64_t kv_heads) {
  return model_around(TREE_OF(sequential, decoder_block(p, kv_heads),
                              decoder_block(p, kv_heads)), true);
}

/* Muon for matrices inside the blocks, AdamW for the rest. */
static inline lk_optimizer muon_and_adamw(void) {
  return (lk_optimizer){
      .groups = 2, .clip = 1,
      .schedule = {.kind = LK_COSINE, .warmup = 0.1, .final = 0.1,
                   .steps = 20},
      .group = {{.match = "1.*", .kind = LK_MUON, .lr = 0.01, .beta1 = 0.95,
                 .eps = 1e-7, .steps = 5},
                {.kind = LK_ADAMW, .lr = 0.001, .beta1 = 0.9, .beta2 = 0.999,
                 .eps = 1e-8, .decay = 0.1}}};
}

static inline lk_context *open_cpu(void) {
  static lk_context *context;
  lk_error e = {0};
  if (context) return context;
  lk_backend_register(lk_cpu_backend());
  if (lk_context_open(lk_cpu_backend(), 0, &context, &e) != LK_OK) {
    printf("# %s\n", e.message);
    abort();
  }
  return context;
}

static inline lk_program_options small_options(void) {
  lk_program_options o = lk_program_defaults();
  o.batch = MODEL_B;
  o.seq = MODEL_T;
  o.recompute = LK_RECOMPUTE_NONE;
  o.quantize_from = 100;
  o.seed = 7;
  return o;
}

/* Compile (consuming `model`); aborts with the message on failure. */
static inline lk_program *compile_model(lk_layer *model, lk_program_options o,
                                        lk_optimizer optimizer) {
  lk_program *p = NULL;
  lk_error e = {0};
  lk_status s = lk_program_new(&o, model, &optimizer,
                               lk_profile_find("cpu"), &p, &e);
  lk_layer_release(model);
  if (s == LK_OK) return p;
  printf("# compile: %s\n", e.message);
  abort();
}

static inline void must(lk_status status) {
  if (status == LK_OK) return;
  printf("# %s\n", open_cpu()->error.message);
  abort();
}

/* Batch number `n`: ids and targets, the same for the same n. */
static inline void random_batch(int n, int32_t *ids, int32_t *targets,
                                int count) {
  uint32_t x = 12345u + 7919u * (uint32_t)n;
  for (int i = 0; i < count; i++) {
    x = x * 1664525u + 1013904223u;
    ids[i] = (int32_t)(x >> 8) % MODEL_V;
    x = x * 1664525u + 1013904223u;
    targets[i] = (int32_t)(x >> 8) % MODEL_V;
  }
}

/* Forward and backward of one micro-batch at step 0; the mean loss. */
static inline double forward_backward(lk_program *p, int batch) {
  int32_t ids[256], targets[256];
  float metrics[4];
  const lk_program_options *o = lk_program_options_of(p);
  random_batch(batch, ids, targets, (int)(o->batch * o->seq));
  must(lk_program_begin(p, 0));
  must(lk_program_micro(p, ids, targets));
  must(lk_machine_download(
      lk_program_machine(p),
      lk_store_find_buffer(lk_program_store(p), "metrics"), metrics,
      sizeof metrics));
  return (double)metrics[0] / (double)metrics[2];
}

/* One optimizer step on batches step·accumulate, …; the result. */
static inline lk_step_result train_step(lk_program *p, int step) {
  int32_t ids[256], targets[256];
  const lk_program_options *o = lk_program_options_of(p);
  lk_step_result r;
  must(lk_program_begin(p, step));
  for (int i = 0; i < o->accumulate; i++) {
    random_batch(step * (int)o->accumulate + i, ids, targets,
                 (int)(o->batch * o->seq));
    must(lk_program_micro(p, ids, targets));
  }
  must(lk_program_finish(p, &r));
  return r;
}

/* FNV-1a over the bytes of every persistent buffer that holds state. */
static inline uint64_t state_hash(lk_program *p) {
  const lk_store *s = lk_program_store(p);
  uint64_t h = 0xcbf29ce484222325u;
  for (int i = 1; i < s->buffer_count; i++) {
    lk_tensor t = lk_machine_tensor(lk_program_machine(p), i);
    if (s->buffers[i].category == LK_DATA) continue;
    for (int64_t k = 0; k < lk_tensor_bytes(&t); k++)
      h = (h ^ ((uint8_t *)t.data)[k]) * 0x100000001b3u;
  }
  return h;
}

#endif
