/* Generating text: a program's model run on new positions alone, everything
 * before kept as keys and values in a cache. Two planned graphs, a piece of a
 * prompt and one position, over the weights of an open program.
 *
 *   lk_generator_new(program, &options, &g, &e);
 *   lk_generator_feed(g, prompt, n);            // then, again and again:
 *   lk_generator_logits(g, logits);  lk_sample(…, &id);
 *   lk_generator_feed(g, &id, 1);
 *
 * The cache of a layer is [2, B, K, T, D] in the compute dtype: keys, then
 * values, of T = `context` positions. A model with layers of the caller's own,
 * which may look back in ways that no cache of ours shows, has none: every
 * feed runs it on the whole context, padded behind. */
#ifndef LK_GRAPH_GENERATE_H
#define LK_GRAPH_GENERATE_H

#include "program.h"

typedef struct lk_generator_options {
  int64_t batch;            /* sequences that grow side by side; 0: 1 */
  int64_t context;          /* positions of the cache; 0: the program's seq */
  int64_t chunk;            /* positions of a prompt at a time; 0: 64 */
} lk_generator_options;

typedef struct lk_generator lk_generator;

/* Plan, allocate (caches as activations) and start empty. The program is open
 * and outlives the generator; its weights are read, not copied: after they
 * change, rewind to 0. LK_OOM. */
lk_status lk_generator_new(lk_program *program,
                           const lk_generator_options *options,
                           lk_generator **generator, lk_error *error);
void lk_generator_free(lk_generator *generator);

/* Append `count` ids to every sequence: ids [B, count] on the host. When the
 * cache has no room for them, or an id is none of the vocabulary, LK_ARGUMENT
 * and nothing is done. The message of a failure is the context's. */
lk_status lk_generator_feed(lk_generator *generator, const int32_t *ids,
                            int64_t count);
/* Logits [B, V] of what comes after the last id that was fed. LK_ARGUMENT when
 * nothing was fed since the start or a rewind. */
lk_status lk_generator_logits(lk_generator *generator, float *logits);
/* Forget all but the first `position` ids. */
lk_status lk_generator_rewind(lk_generator *generator, int64_t position);
/* Let the window slide: all but the last `keep` ids are forgotten and those
 * computed again, from position 0. */
lk_status lk_generator_slide(lk_generator *generator, int64_t keep);

int64_t lk_generator_position(const lk_generator *generator);
const lk_generator_options *lk_generator_options_of(const lk_generator *g);
/* V, the columns of the logits. */
int64_t lk_generator_words(const lk_generator *generator);
lk_context *lk_generator_context(const lk_generator *generator);

typedef struct lk_generator_memory {
  int64_t cache;            /* bytes of all caches; 0: there are none */
  int64_t cache_plain;      /* what they would be with a key/value head for
                               every query head */
  int64_t peak;             /* all that the generator allocates */
  int64_t heads, kv_heads;  /* of all layers together */
} lk_generator_memory;
void lk_generator_memory_of(const lk_generator *generator,
                            lk_generator_memory *memory);

#endif
