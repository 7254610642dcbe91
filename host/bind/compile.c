/* gpu.compile: its options, and from them a program. */
#include <string.h>

#include "program.h"

typedef struct compile_options {
  lk_program_options o;
  int optimizer, quantize, fuse, head_chunk, recompute, saved, precision, mode;
  int64_t fuse_group, seed;
  const char *plan, *device;
} compile_options;

#define AT(field) offsetof(compile_options, field)
static const char *const saved_words[] = {"native", "exact", "int8", NULL};
enum { AUTO, F32, TF32, BF16, F16, FP8 };
static const char *const precision_words[] = {"auto", "f32", "tf32", "bf16",
                                              "f16", "fp8", NULL};
static const char *const mode_words[] = {"arena", "poisoned", "separate",
                                         NULL};

static const lh_option options[] = {
    {"batch", LH_INTEGER, AT(o.batch), 1, 1 << 24, NULL,
     "sequences of a micro-batch; 1"},
    {"seq", LH_INTEGER, AT(o.seq), 1, 1 << 24, NULL,
     "positions of a sequence; 128"},
    {"accumulate", LH_INTEGER, AT(o.accumulate), 1, 1 << 20, NULL,
     "micro-batches of an optimizer step; 1"},
    {"recompute", LH_WORD, AT(recompute), 0, 0, lk_recompute_words,
     "what the backward computes again: none, light (norms, activations), "
     "mlp, block; light"},
    {"precision", LH_WORD, AT(precision), 0, 0, precision_words,
     "of activations: auto (f32 on a CPU, bf16 on a GPU), f32, bf16, f16; "
     "tf32: f32 whose products round what they multiply to 10 bits, on a GPU; "
     "fp8: as auto, and linear layers multiply in e4m3, one scale a row"},
    {"optimizer", LH_ANY, AT(optimizer), 0, 0, NULL,
     "of gpu.optim; without one the program only evaluates"},
    {"quantize", LH_ANY, AT(quantize), 0, 0, NULL,
     "how linear weights are kept: \"nf4r\" or {\"nf4r\", block = 64, search = "
     "false}; f32"},
    {"saved", LH_WORD, AT(saved), 0, 0, saved_words,
     "activations kept for the backward: native, int8; native"},
    {"fuse", LH_ANY, AT(fuse), 0, 0, NULL,
     "update Muon's weights inside the backward; when weights are quantized, "
     "accumulate is 1 and precision is not f16"},
    {"fuse_group", LH_INTEGER, AT(fuse_group), 1, 64, NULL,
     "same-shaped matrices orthogonalized at once; by the device: 4, on a GPU "
     "16"},
    {"head_chunk", LH_ANY, AT(head_chunk), 0, 0, NULL,
     "rows of logits at a time, or \"all\"; by the device"},
    {"seed", LH_INTEGER, AT(seed), 0, 0, NULL,
     "of initial weights and dropout; gpu.seed's"},
    {"plan", LH_STRING, AT(plan), 0, 0, NULL,
     "a backend to plan for without touching it: \"cpu\", \"cuda\""},
    {"device", LH_STRING, AT(device), 0, 0, NULL, "where it runs; current"},
    {"mode", LH_WORD, AT(mode), 0, 0, mode_words,
     "how memory is had: arena; for checks poisoned, separate"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};

static const lh_option quantize_options[] = {
    {"format", LH_STRING, AT(device), 0, 0, NULL, "nf4r"},
    {"block", LH_INTEGER, AT(o.weights.block), 32, 4096, NULL,
     "values that share a scale; 64"},
    {"search", LH_BOOLEAN, AT(o.weights.search), 0, 0, NULL,
     "try five scales a block; false"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};

static void read_quantize(lua_State *L, compile_options *c) {
  const char *device = c->device, *word = NULL;
  if (c->quantize == 0 || !lua_toboolean(L, c->quantize)) return;
  if (lua_istable(L, c->quantize)) {
    c->device = NULL;
    lh_options(L, c->quantize, "gpu.compile: quantize", quantize_options, 1, c);
    word = c->device ? c->device : "nf4r";
    c->device = device;
  } else {
    word = luaL_checkstring(L, c->quantize);
  }
  c->o.weights.format = lk_weight_format_find(word);
  if (c->o.weights.format == NULL)
    lh_raise(L, LK_ARGUMENT, "gpu.compile: quantize = '%s' is not a storage "
             "format; there are: nf4r, f32", word);
}

static const lk_profile *read_profile(lua_State *L, const compile_options *c,
                                      lk_context **context) {
  *context = NULL;
  if (c->plan == NULL) {
    *context = c->device ? lh_context_of(L, c->device) : lh_context(L);
    return (*context)->profile;
  }
  const lk_profile *profile = lk_profile_find(c->plan);
  if (profile == NULL)
    lh_raise(L, LK_ARGUMENT, "gpu.compile: plan = '%s' is not a backend; there "
             "are: cpu, cuda", c->plan);
  return profile;
}

static void read_words(lua_State *L, compile_options *c,
                       const lk_profile *profile) {
  const lk_dtype dtypes[] = {[AUTO] = profile->compute, [F32] = LK_F32,
                             [TF32] = LK_F32, [BF16] = LK_BF16,
                             [F16] = LK_F16, [FP8] = profile->compute};
  c->o.recompute = (lk_recompute)c->recompute;
  c->o.saved_int8 = c->saved == 2;
  c->o.e4m3 = c->precision == FP8;
  c->o.tf32 = c->precision == TF32;
  c->o.weights.compute = dtypes[c->precision];
  if (strcmp(profile->backend, "cpu") == 0 &&
      (c->o.weights.compute != LK_F32 || c->o.tf32))
    lh_raise(L, LK_UNSUPPORTED, "gpu.compile: precision = '%s' needs a GPU; "
             "the cpu computes in f32", precision_words[c->precision]);
  if (c->fuse) c->o.fuse = lua_toboolean(L, c->fuse);
  c->o.fuse_group = (int)c->fuse_group;
  c->o.seed = (uint64_t)c->seed;
  if (!c->head_chunk) return;
  if (lua_type(L, c->head_chunk) == LUA_TSTRING &&
      strcmp(lua_tostring(L, c->head_chunk), "all") == 0)
    c->o.head_chunk = -1;
  else
    c->o.head_chunk = lh_check_integer(L, c->head_chunk, "head_chunk", 1,
                                       1 << 30);
}

static int gpu_compile(lua_State *L) {
  compile_options c = {.o = lk_program_defaults(),
                       .recompute = LK_RECOMPUTE_LIGHT,
                       .seed = (int64_t)lh_seed(L)};
  lk_layer *model = lh_layer_check(L, 1);
  lh_options(L, 2, "gpu.compile", options, 0, &c);
  read_quantize(L, &c);
  lk_context *context;
  const lk_profile *profile = read_profile(L, &c, &context);
  read_words(L, &c, profile);
  const lk_optimizer *o = c.optimizer ? lh_optimizer_check(L, c.optimizer)
                                      : NULL;
  lh_program *p = lh_object_new(L, &lh_program_class, sizeof *p);
  lk_error error = {0};
  p->context = context;
  p->mode = (lk_run_mode)c.mode;
  *lh_compiling(L) = L;
  lk_status status = lk_program_new(&c.o, model, o, profile, &p->program,
                                    &error);
  *lh_compiling(L) = NULL;
  if (status != LK_OK) lh_raise_build(L, &error);
  return 1;
}

static const lh_function functions[] = {
    {"compile", gpu_compile,
     "(model: gpu.layer, options: table): gpu.program",
     "Turn a layer tree into a planned program.", options},
    {NULL, NULL, NULL, NULL, NULL}};

void lh_add_compile(lua_State *L) { lh_register(L, "gpu", functions); }
