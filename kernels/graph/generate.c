/* Generating text: the two graphs over caches, and feeding them. */
#include "generate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program_private.h"

/* The graphs: one position of every sequence, and a piece of a prompt. Without
 * caches there is one, over the whole context. */
enum { STEP, PROMPT, GRAPHS, WHOLE = STEP };
/* Fewer ids than this are fed one by one. */
enum { PIECE_LEAST = 4 };

typedef struct generator_inputs {
  int ids, positions, row;  /* buffers */
  int64_t rows;             /* positions at a time */
} generator_inputs;

struct lk_generator {
  lk_program *program;
  lk_generator_options o;
  lk_store store;
  int graphs;
  bool cached;
  lk_graph graph[GRAPHS];
  lk_plan plan[GRAPHS];
  generator_inputs inputs[GRAPHS];
  lk_machine machine;
  int logits;               /* buffer */
  int64_t words, position;
  bool fed;                 /* the logits are of the last position */
  int32_t *history;         /* [B, context]: the ids fed */
  int32_t *piece;           /* [B, chunk] */
};

/* --- building ------------------------------------------------------------ */

static int add_input(lk_store *s, const char *name, int64_t rows,
                     int64_t count) {
  char full[48];
  snprintf(full, sizeof full, "%s.%lld", name, (long long)rows);
  return lk_store_add_buffer(s, full, LK_I32, lk_shape_of(count), LK_DATA);
}

static void declare_inputs(lk_generator *g, generator_inputs *in,
                           int64_t rows) {
  in->rows = rows;
  in->ids = add_input(&g->store, "ids", rows, g->o.batch * rows);
  in->positions = add_input(&g->store, "positions", rows, rows);
  in->row = add_input(&g->store, "row", rows, g->o.batch);
}

static void open_graph(lk_generator *g, lk_graph *to,
                       const generator_inputs *in) {
  const lk_program *p = g->program;
  lk_graph_init(to);
  to->profile = p->profile;
  to->store = &g->store;
  to->batch = g->o.batch;
  to->seq = in->rows;
  to->compute = p->o.weights.compute;
  to->ids = lk_value_of_buffer(to, in->ids);
  to->generation.on = true;
  to->generation.cached = g->cached;
  to->generation.context = g->o.context;
  to->generation.positions = lk_value_of_buffer(to, in->positions);
  to->generation.row = lk_value_of_buffer(to, in->row);
}

static lk_status build_graph(lk_generator *g, int which, lk_error *error) {
  lk_graph *to = &g->graph[which];
  open_graph(g, to, &g->inputs[which]);
  lk_value last = lk_force(to, lk_layer_emit(to, g->program->model, to->ids));
  if (lk_graph_ok(to) && (last == LK_NONE || last != to->generation.logits))
    lk_graph_fail(to, LK_ARGUMENT, "generate: a model must end with nn.head");
  if (!lk_graph_ok(to)) {
    *error = to->error;
    return to->error.code;
  }
  return lk_plan_make(to, &g->plan[which], error);
}

/* Every weight lies where the program has it. */
static lk_status check_layout(const lk_generator *g, lk_error *error) {
  const lk_store *own = &g->store, *theirs = &g->program->store;
  bool same = own->parameter_count == theirs->parameter_count;
  for (int i = 1; i < own->parameter_count && same; i++)
    for (int k = 0; k < LK_PART_COUNT && same; k++) {
      int a = own->parameters[i].part[k], b = theirs->parameters[i].part[k];
      if (a == 0) continue;
      same = b != 0 && own->buffers[a].offset == theirs->buffers[b].offset &&
             own->buffers[a].dtype == theirs->buffers[b].dtype &&
             own->buffers[a].category == LK_PARAMETERS;
    }
  return same ? LK_OK : lk_fail(error, LK_INTERNAL, "generate: the program's "
                                "weights lie elsewhere");
}

static lk_status open_generator(lk_generator *g, lk_error *error) {
  const lk_graph *graphs[GRAPHS] = {&g->graph[0], &g->graph[1]};
  const lk_plan *plans[GRAPHS] = {&g->plan[0], &g->plan[1]};
  lk_machine *owner = &g->program->machine;
  lk_status status = lk_machine_open_beside(&g->machine, owner, &g->store,
                                            graphs, plans, g->graphs);
  for (int i = 0; i < g->graphs && status == LK_OK; i++)
    status = lk_machine_run(&g->machine, i, LK_SETUP);
  if (status != LK_OK) {
    *error = owner->context->error;
    return status;
  }
  return check_layout(g, error);
}

static lk_status check_options(lk_generator *g, lk_error *error) {
  lk_generator_options *o = &g->o;
  if (!g->program->open)
    return lk_fail(error, LK_ARGUMENT, "generate: the program is not open");
  if (o->batch == 0) o->batch = 1;
  if (o->context == 0) o->context = g->program->o.seq;
  if (o->chunk == 0) o->chunk = 64;
  if (o->chunk > o->context) o->chunk = o->context;
  if (o->batch < 1 || o->context < 1 || o->chunk < 1)
    return lk_fail(error, LK_ARGUMENT, "generate: batch, context and chunk "
                   "must be at least 1");
  size_t ids = (size_t)(o->batch * o->context);
  g->history = calloc(ids, sizeof *g->history);
  g->piece = calloc(ids, sizeof *g->piece);
  if (g->history && g->piece) return LK_OK;
  return lk_fail(error, LK_OOM, "no host memory to generate");
}

static bool has_custom(const lk_layer *l) {
  bool found = l->kind == LK_LAYER_custom;
  for (int i = 0; i < l->children && !found; i++)
    found = has_custom(l->child[i]);
  return found;
}

static lk_status build(lk_generator *g, lk_error *error) {
  LK_TRY(check_options(g, error));
  LK_TRY(lk_program_declare(g->program, &g->store, error));
  g->cached = !has_custom(g->program->model);
  g->graphs = g->cached ? GRAPHS : 1;
  declare_inputs(g, &g->inputs[0], g->cached ? 1 : g->o.context);
  if (g->cached) declare_inputs(g, &g->inputs[PROMPT], g->o.chunk);
  for (int i = 0; i < g->graphs; i++) LK_TRY(build_graph(g, i, error));
  LK_TRY(lk_store_check(&g->store, error));
  g->logits = lk_store_find_buffer(&g->store, "logits");
  g->words = g->store.buffers[g->logits].shape.dim[1];
  return open_generator(g, error);
}

lk_status lk_generator_new(lk_program *program,
                           const lk_generator_options *options,
                           lk_generator **generator, lk_error *error) {
  lk_generator *g = calloc(1, sizeof *g);
  if (g == NULL) return lk_fail(error, LK_OOM, "no host memory to generate");
  g->program = program;
  g->o = *options;
  lk_status status = build(g, error);
  if (status != LK_OK) {
    lk_generator_free(g);
    return status;
  }
  *generator = g;
  return LK_OK;
}

void lk_generator_free(lk_generator *g) {
  if (g == NULL) return;
  lk_machine_close(&g->machine);
  for (int i = 0; i < GRAPHS; i++) {
    lk_graph_free(&g->graph[i]);
    lk_plan_free(&g->plan[i]);
  }
  lk_store_free(&g->store);
  free(g->history);
  free(g->piece);
  free(g);
}

/* --- feeding ------------------------------------------------------------- */

static lk_error *error_of(lk_generator *g) {
  return &g->machine.context->error;
}

static lk_status check_feed(lk_generator *g, const int32_t *ids,
                            int64_t count) {
  if (count < 1)
    return lk_fail(error_of(g), LK_ARGUMENT, "generate: no ids to feed");
  if (count > g->o.context - g->position)
    return lk_fail(error_of(g), LK_ARGUMENT, "generate: %lld ids after %lld do "
                   "not fit a context of %lld", (long long)count,
                   (long long)g->position, (long long)g->o.context);
  for (int64_t i = 0; i < g->o.batch * count; i++)
    if (ids[i] < 0 || ids[i] >= g->words)
      return lk_fail(error_of(g), LK_ARGUMENT, "generate: id %d is none of the "
                     "vocabulary's %lld", ids[i], (long long)g->words);
  return LK_OK;
}

static lk_status upload(lk_generator *g, int buffer, int64_t count) {
  return lk_machine_upload(&g->machine, buffer, g->piece,
                           count * (int64_t)sizeof *g->piece);
}

/* The inputs of a graph for the `n` ids of every sequence that the history
 * holds from `first` on; rows past them stand at positions that are written
 * again before they are read. */
static lk_status set_inputs(lk_generator *g, const generator_inputs *in,
                            int64_t first, int64_t n) {
  int64_t rows = in->rows, batch = g->o.batch;
  for (int64_t b = 0; b < batch; b++)
    for (int64_t i = 0; i < rows; i++)
      g->piece[b * rows + i] =
          i < n ? g->history[b * g->o.context + first + i] : 0;
  LK_TRY(upload(g, in->ids, batch * rows));
  for (int64_t i = 0; i < rows; i++)
    g->piece[i] = (int32_t)(first + i);
  LK_TRY(upload(g, in->positions, rows));
  for (int64_t b = 0; b < batch; b++)
    g->piece[b] = (int32_t)(b * rows + n - 1);
  return upload(g, in->row, batch);
}

/* Run the whole context, of which `count` ids are new. */
static lk_status advance_whole(lk_generator *g, int64_t count) {
  g->fed = false;
  LK_TRY(set_inputs(g, &g->inputs[WHOLE], 0, g->position + count));
  LK_TRY(lk_machine_run(&g->machine, WHOLE, LK_MICRO));
  g->position += count;
  g->fed = true;
  return LK_OK;
}

/* Compute the next `count` ids of the history. */
static lk_status advance(lk_generator *g, int64_t count) {
  if (!g->cached) return advance_whole(g, count);
  while (count > 0) {
    bool piece = count >= PIECE_LEAST &&
                 g->position + g->o.chunk <= g->o.context;
    int64_t n = !piece ? 1 : count < g->o.chunk ? count : g->o.chunk;
    int which = piece ? PROMPT : STEP;
    g->fed = false;
    LK_TRY(set_inputs(g, &g->inputs[which], g->position, n));
    LK_TRY(lk_machine_run(&g->machine, which, LK_MICRO));
    g->position += n;
    g->fed = true;
    count -= n;
  }
  return LK_OK;
}

lk_status lk_generator_feed(lk_generator *g, const int32_t *ids,
                            int64_t count) {
  LK_TRY(check_feed(g, ids, count));
  for (int64_t b = 0; b < g->o.batch; b++)
    memcpy(g->history + b * g->o.context + g->position, ids + b * count,
           (size_t)count * sizeof *ids);
  return advance(g, count);
}

lk_status lk_generator_logits(lk_generator *g, float *logits) {
  if (!g->fed)
    return lk_fail(error_of(g), LK_ARGUMENT, "generate: there are no logits "
                   "before an id was fed");
  return lk_machine_download(&g->machine, g->logits, logits,
                             g->o.batch * g->words * (int64_t)sizeof *logits);
}

lk_status lk_generator_rewind(lk_generator *g, int64_t position) {
  if (position < 0 || position > g->position)
    return lk_fail(error_of(g), LK_ARGUMENT, "generate: cannot go back to "
                   "position %lld of %lld", (long long)position,
                   (long long)g->position);
  g->fed = g->fed && position == g->position;
  g->position = position;
  return LK_OK;
}

lk_status lk_generator_slide(lk_generator *g, int64_t keep) {
  if (keep < 1 || keep > g->position)
    return lk_fail(error_of(g), LK_ARGUMENT, "generate: cannot keep %lld of "
                   "%lld ids", (long long)keep, (long long)g->position);
  for (int64_t b = 0; b < g->o.batch; b++) {
    int32_t *ids = g->history + b * g->o.context;
    memmove(ids, ids + g->position - keep, (size_t)keep * sizeof *ids);
  }
  g->position = 0;
  return advance(g, keep);
}

/* --- questions ----------------------------------------------------------- */

int64_t lk_generator_position(const lk_generator *g) { return g->position; }

const lk_generator_options *lk_generator_options_of(const lk_generator *g) {
  return &g->o;
}

int64_t lk_generator_words(const lk_generator *g) { return g->words; }

lk_context *lk_generator_context(const lk_generator *g) {
  return g->machine.context;
}

void lk_generator_memory_of(const lk_generator *g, lk_generator_memory *m) {
  const lk_graph *graph = &g->graph[STEP];
  *m = (lk_generator_memory){
      .peak = g->machine.needs.peak -
              g->machine.needs.persistent[LK_PARAMETERS]};
  for (int i = 0; i < graph->instr_count; i++) {
    const lk_instr *k = &graph->instrs[i];
    if (k->op != LK_OP_attention_cached) continue;
    lk_shape shape = lk_value_shape(graph, k->out[1]);
    int64_t bytes = lk_dtype_bytes(lk_value_dtype(graph, k->out[1]),
                                   lk_shape_count(shape));
    m->cache += bytes;
    m->cache_plain += bytes / k->attr.kv_heads * k->attr.heads;
    m->heads += k->attr.heads;
    m->kv_heads += k->attr.kv_heads;
  }
}
