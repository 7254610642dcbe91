/* Generating text: gpu.generator, a program's model with a cache of keys and
 * values, and the program's methods `generator` and `generate`. */
#include "../../kernels/graph/generate.h"

#include <stdlib.h>
#include <string.h>

#include "../../kernels/graph/sample.h"
#include "program.h"

/* User value 1 is the program, which owns the weights. */
typedef struct generator_object {
  lk_generator *generator;
  float *logits;         /* [B, V] */
  int64_t drawn;         /* tokens so far: the number of the next draw */
} generator_object;

static void generator_close(void *object) {
  generator_object *o = object;
  lk_generator_free(o->generator);
  free(o->logits);
}

static const lh_function methods[];
static const lh_class generator_class = {"gpu.generator", methods,
                                         generator_close};

/* The generator at `index`, whose program must still be open. */
static generator_object *self(lua_State *L, int index) {
  generator_object *o = lh_object_check(L, index, &generator_class);
  lua_getiuservalue(L, index, 1);
  if (lh_object_test(L, -1, &lh_program_class) == NULL)
    lh_raise(L, LK_ARGUMENT, "the program of this generator is closed");
  lua_pop(L, 1);
  return o;
}

static void check(lua_State *L, const generator_object *o, lk_status status) {
  lh_check(L, status, &lk_generator_context(o->generator)->error);
}

/* --- opening ------------------------------------------------------------- */

static const lh_option generator_options[] = {
    {"context", LH_INTEGER, offsetof(lk_generator_options, context), 1,
     1 << 24, NULL, "positions that the cache has room for; the program's seq"},
    {"batch", LH_INTEGER, offsetof(lk_generator_options, batch), 1, 1 << 16,
     NULL, "sequences that grow side by side; 1"},
    {"chunk", LH_INTEGER, offsetof(lk_generator_options, chunk), 1, 1 << 20,
     NULL, "positions of a prompt computed at a time; 64"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};

typedef struct opening {
  lh_program *program;
  const lk_generator_options *options;
  lk_generator **generator;
} opening;

static lk_status try_open(lua_State *L, void *argument) {
  opening *o = argument;
  lk_error error = {0};
  *lh_compiling(L) = L;
  lk_status status = lk_generator_new(o->program->program, o->options,
                                      o->generator, &error);
  *lh_compiling(L) = NULL;
  if (status != LK_OK) o->program->context->error = error;
  return status;
}

/* Push a generator of the program at `index`. */
static generator_object *push_generator(lua_State *L, int index,
                                        const lk_generator_options *options) {
  lh_program *p = lh_program_opened(L, index);
  generator_object *o = lh_object_new(L, &generator_class, sizeof *o);
  opening wish = {p, options, &o->generator};
  lua_pushvalue(L, index);
  lua_setiuservalue(L, -2, 1);
  lh_retry(L, p->context, try_open, &wish);
  int64_t count = lk_generator_options_of(o->generator)->batch *
                  lk_generator_words(o->generator);
  o->logits = malloc((size_t)count * sizeof *o->logits);
  if (o->logits == NULL) lh_raise(L, LK_OOM, "no host memory for logits");
  return o;
}

static int program_generator(lua_State *L) {
  lk_generator_options options = {0};
  lh_options(L, 2, "generator", generator_options, 0, &options);
  push_generator(L, 1, &options);
  return 1;
}

/* --- ids ----------------------------------------------------------------- */

/* A list of ids as an array [B, count], the same for every sequence, or an i32
 * tensor [B, count]; kept by a box that is pushed. */
static int32_t *check_ids(lua_State *L, int index, int64_t batch,
                          int64_t *count) {
  lh_tensor *t = lh_tensor_test(L, index);
  if (t && (t->t.dtype != LK_I32 || t->t.shape.rank != 2 ||
            t->t.shape.dim[0] != batch))
    lh_raise(L, LK_SHAPE, "ids are a list of integers or i32 [%d, n]",
             (int)batch);
  if (!t && !lua_istable(L, index))
    lh_raise(L, LK_ARGUMENT, "ids are a list of integers or i32 [%d, n], got "
             "%s", (int)batch, lh_show(L, index));
  *count = t ? t->t.shape.dim[1] : (int64_t)lua_rawlen(L, index);
  void **box = lh_box_new(L);
  int32_t *ids = *box = malloc((size_t)(batch * *count) * sizeof *ids + 1);
  if (ids == NULL) lh_raise(L, LK_OOM, "no host memory for ids");
  if (t) {
    lh_tensor_download(L, t, ids);
    return ids;
  }
  for (int64_t i = 0; i < *count; i++) {
    lua_rawgeti(L, index, i + 1);
    ids[i] = (int32_t)lh_check_integer(L, -1, "an id", 0, INT32_MAX);
    lua_pop(L, 1);
  }
  for (int64_t b = 1; b < batch; b++)
    memcpy(ids + b * *count, ids, (size_t)*count * sizeof *ids);
  return ids;
}

/* g:feed(ids) */
static int generator_feed(lua_State *L) {
  generator_object *o = self(L, 1);
  int64_t count;
  int32_t *ids = check_ids(
      L, 2, lk_generator_options_of(o->generator)->batch, &count);
  check(L, o, lk_generator_feed(o->generator, ids, count));
  lua_settop(L, 1);
  return 1;
}

/* --- sampling ------------------------------------------------------------ */

typedef struct sample_options {
  lk_sampling sampling;
  int64_t seed, most, context;
  int stop, each;
  bool slide;
} sample_options;

#define AT(field) offsetof(sample_options, field)
#define SAMPLING                                                            \
  {"temperature", LH_NUMBER, AT(sampling.temperature), 0, 1000, NULL,       \
   "logits are divided by it; 0: always the most probable; 1"},             \
  {"top_k", LH_INTEGER, AT(sampling.top_k), 0, 1 << 30, NULL,               \
   "of the k most probable alone; 0: of all"},                              \
  {"top_p", LH_NUMBER, AT(sampling.top_p), 1e-9, 1, NULL,                   \
   "of the fewest that together have this probability; 1: of all"},         \
  {"seed", LH_INTEGER, AT(seed), 0, 0, NULL, "of the draws; 0"}

static const lh_option sampling_options[] = {
    SAMPLING, {NULL, 0, 0, 0, 0, NULL, NULL}};
static const lh_option generate_options[] = {
    SAMPLING,
    {"max", LH_INTEGER, AT(most), 0, 1 << 30, NULL, "new tokens at most; 100"},
    {"stop", LH_ANY, AT(stop), 0, 0, NULL, "an id that ends the text"},
    {"context", LH_INTEGER, AT(context), 1, 1 << 24, NULL,
     "positions of the cache; the program's seq"},
    {"slide", LH_BOOLEAN, AT(slide), 0, 0, NULL,
     "when the cache is full, go on from its later half; else end; true"},
    {"each", LH_ANY, AT(each), 0, 0, NULL,
     "function(id), called as tokens come; false ends the text"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};

static sample_options sample_defaults(void) {
  return (sample_options){.sampling = {.temperature = 1, .top_p = 1},
                          .most = 100, .slide = true};
}

/* The next token of every sequence into ids [B]. */
static void sample(lua_State *L, generator_object *o, const sample_options *s,
                   int32_t *ids) {
  lk_error error = {0};
  lk_sampling sampling = s->sampling;
  int64_t words = lk_generator_words(o->generator);
  int64_t batch = lk_generator_options_of(o->generator)->batch;
  sampling.seed = (uint64_t)s->seed;
  check(L, o, lk_generator_logits(o->generator, o->logits));
  for (int64_t b = 0; b < batch; b++)
    lh_check(L, lk_sample(&sampling, o->logits + b * words, words, (uint32_t)b,
                          (uint32_t)o->drawn, &ids[b], &error), &error);
  o->drawn++;
}

/* g:sample{…}: an id, or i32 [B, 1] for a batch. */
static int generator_sample(lua_State *L) {
  generator_object *o = self(L, 1);
  sample_options s = sample_defaults();
  lh_options(L, 2, "sample", sampling_options, 0, &s);
  int64_t batch = lk_generator_options_of(o->generator)->batch;
  int32_t *ids = lua_newuserdatauv(L, (size_t)batch * sizeof *ids, 0);
  sample(L, o, &s, ids);
  if (batch == 1) {
    lua_pushinteger(L, ids[0]);
    return 1;
  }
  lh_tensor *t = lh_tensor_new(L, lk_generator_context(o->generator), LK_I32,
                               lk_shape_of(batch, 1));
  lh_tensor_upload(L, t, ids);
  return 1;
}

/* --- the rest ------------------------------------------------------------ */

/* g:logits(): f32 [B, V] */
static int generator_logits(lua_State *L) {
  generator_object *o = self(L, 1);
  check(L, o, lk_generator_logits(o->generator, o->logits));
  lh_tensor *t = lh_tensor_new(
      L, lk_generator_context(o->generator), LK_F32,
      lk_shape_of(lk_generator_options_of(o->generator)->batch,
                  lk_generator_words(o->generator)));
  lh_tensor_upload(L, t, o->logits);
  return 1;
}

static int generator_position(lua_State *L) {
  generator_object *o = self(L, 1);
  lua_pushinteger(L, lk_generator_position(o->generator));
  lua_pushinteger(L, lk_generator_options_of(o->generator)->context);
  return 2;
}

static int generator_rewind(lua_State *L) {
  generator_object *o = self(L, 1);
  check(L, o, lk_generator_rewind(o->generator, luaL_optinteger(L, 2, 0)));
  lua_settop(L, 1);
  return 1;
}

static int generator_slide(lua_State *L) {
  generator_object *o = self(L, 1);
  check(L, o, lk_generator_slide(o->generator, luaL_checkinteger(L, 2)));
  lua_settop(L, 1);
  return 1;
}

static int generator_memory(lua_State *L) {
  generator_object *o = self(L, 1);
  lk_generator_memory m;
  lk_generator_memory_of(o->generator, &m);
  const struct { const char *name; int64_t value; } fields[] = {
      {"cache", m.cache}, {"cache_plain", m.cache_plain}, {"peak", m.peak},
      {"heads", m.heads}, {"kv_heads", m.kv_heads}};
  lua_createtable(L, 0, 5);
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    lua_pushinteger(L, fields[i].value);
    lua_setfield(L, -2, fields[i].name);
  }
  return 1;
}

/* --- p:generate ---------------------------------------------------------- */

/* The last ids of a prompt that leave the cache half empty, if all of them
 * would not fit. */
static void feed_prompt(lua_State *L, generator_object *o, int32_t *ids,
                        int64_t count) {
  int64_t context = lk_generator_options_of(o->generator)->context;
  int64_t n = count > context ? (context + 1) / 2 : count;
  check(L, o, lk_generator_feed(o->generator, ids + count - n, n));
}

/* Make room for one more id; false when the text ends instead. */
static bool make_room(lua_State *L, generator_object *o, bool slide) {
  int64_t context = lk_generator_options_of(o->generator)->context;
  if (lk_generator_position(o->generator) < context) return true;
  if (slide && context > 1)
    check(L, o, lk_generator_slide(o->generator, context / 2));
  return slide && context > 1;
}

/* Whether each(id) lets the text go on. */
static bool told(lua_State *L, int each, int32_t id) {
  if (each == 0) return true;
  lua_pushvalue(L, each);
  lua_pushinteger(L, id);
  lua_call(L, 1, 1);
  bool on = !lua_isboolean(L, -1) || lua_toboolean(L, -1);
  lua_pop(L, 1);
  return on;
}

/* Append new ids to the list at `list`, which holds none yet. */
static void generate(lua_State *L, generator_object *o, int program,
                     const sample_options *s, int list) {
  int32_t id, end = -1;
  if (s->stop)
    end = (int32_t)lh_check_integer(L, s->stop, "stop", 0, INT32_MAX);
  for (int64_t i = 1; i <= s->most; i++) {
    sample(L, o, s, &id);
    if (id == end) return;
    lua_pushinteger(L, id);
    lua_rawseti(L, list, i);
    if (!told(L, s->each, id) || i == s->most) return;
    lh_program_check(L, program); /* each() may have closed it */
    if (!make_room(L, o, s->slide)) return;
    check(L, o, lk_generator_feed(o->generator, &id, 1));
  }
}

/* p:generate(ids, {…}): the list of new ids. */
static int program_generate(lua_State *L) {
  sample_options s = sample_defaults();
  int64_t count;
  lua_settop(L, 3);
  lh_options(L, 3, "generate", generate_options, 0, &s);
  if (s.each) luaL_checktype(L, s.each, LUA_TFUNCTION);
  int32_t *ids = check_ids(L, 2, 1, &count);
  generator_object *o = push_generator(
      L, 1, &(lk_generator_options){.context = s.context});
  int place = lua_gettop(L);
  lua_newtable(L);
  feed_prompt(L, o, ids, count);
  generate(L, o, 1, &s, place + 1);
  generator_close(o);
  o->generator = NULL;
  o->logits = NULL;
  return 1;
}

static const lh_function methods[] = {
    {"feed", generator_feed,
     "(self, ids: integer[]|gpu.tensor): gpu.generator",
     "Append ids, a list for all sequences or i32 [B, n]; only these are "
     "computed.", NULL},
    {"logits", generator_logits, "(self): gpu.tensor",
     "Logits f32 [B, V] of what follows the ids fed so far.", NULL},
    {"sample", generator_sample, "(self, options?: table): integer|gpu.tensor",
     "Draw what follows: an id, or i32 [B, 1] for a batch.", sampling_options},
    {"position", generator_position, "(self): integer, integer",
     "How many ids were fed, and how many the cache has room for.", NULL},
    {"rewind", generator_rewind, "(self, position?: integer): gpu.generator",
     "Forget all but the first ids; 0 after the weights changed.", NULL},
    {"slide", generator_slide, "(self, keep: integer): gpu.generator",
     "Forget all but the last ids, which are computed again from position 0.",
     NULL},
    {"memory", generator_memory, "(self): table",
     "Bytes: {cache (0: none, with layers written in Lua), cache_plain (with a "
     "key/value head for each query head), peak}, and heads, kv_heads of all "
     "layers.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static const lh_function program_methods[] = {
    {"generator", program_generator,
     "(self, options?: table): gpu.generator",
     "The model with a cache of keys and values, to feed ids and draw new "
     "ones.", generator_options},
    {"generate", program_generate,
     "(self, ids: integer[], options?: table): integer[]",
     "New ids after these.", generate_options},
    {NULL, NULL, NULL, NULL, NULL}};

void lh_add_generate(lua_State *L) {
  lh_class_new(L, &generator_class);
  lh_class_add(L, &lh_program_class, program_methods);
}
