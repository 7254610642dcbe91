/* gpu.optim: optimizers, groups of them, and schedules. */
#include <string.h>

#include "gpu.h"

static const lh_function no_methods[] = {{NULL, NULL, NULL, NULL, NULL}};
const lh_class lh_optimizer_class = {"gpu.optimizer", no_methods, NULL};
static const lh_class schedule_class = {"gpu.schedule", no_methods, NULL};

const lk_optimizer *lh_optimizer_check(lua_State *L, int index) {
  return lh_object_check(L, index, &lh_optimizer_class);
}

typedef struct optim_options {
  lk_optimizer_group g;
  int betas, schedule;
  double clip;
  lk_schedule s;
} optim_options;

#define AT(field) offsetof(optim_options, field)
#define LR {"lr", LH_NUMBER, AT(g.lr), 0, 1e6, NULL, "learning rate"}
#define DECAY {"weight_decay", LH_NUMBER, AT(g.decay), 0, 1e6, NULL, \
               "decoupled weight decay; 0"}
#define END {NULL, 0, 0, 0, 0, NULL, NULL}

static const lh_option muon_options[] = {
    LR, DECAY,
    {"momentum", LH_NUMBER, AT(g.beta1), 0, 0.9999, NULL, "0.95"},
    {"steps", LH_INTEGER, AT(g.steps), 1, 20, NULL,
     "Newton–Schulz iterations; 5"},
    {"split_qkv", LH_BOOLEAN, AT(g.split), 0, 0, NULL,
     "orthogonalize q, k and v by themselves; false"},
    END};
static const lh_option adamw_options[] = {
    LR, DECAY,
    {"betas", LH_ANY, AT(betas), 0, 0, NULL, "{0.9, 0.999}"},
    {"eps", LH_NUMBER, AT(g.eps), 0, 1, NULL, "1e-8"},
    END};
static const lh_option sgd_options[] = {
    LR, DECAY,
    {"momentum", LH_NUMBER, AT(g.beta1), 0, 0.9999, NULL, "0"},
    {"nesterov", LH_BOOLEAN, AT(g.nesterov), 0, 0, NULL, "false"},
    END};
static const lh_option schedule_options[] = {
    {"warmup", LH_NUMBER, AT(s.warmup), 0, 1, NULL,
     "fraction of the steps with a rising rate; 0"},
    {"final", LH_NUMBER, AT(s.final), 0, 1, NULL,
     "the last rate as a fraction; 0"},
    {"steps", LH_INTEGER, AT(s.steps), 0, (double)(1LL << 40), NULL,
     "optimizer steps in all"},
    END};
static const lh_option groups_options[] = {
    {"schedule", LH_ANY, AT(schedule), 0, 0, NULL,
     "gpu.optim.cosine{…}, linear{…}; a constant rate"},
    {"clip", LH_NUMBER, AT(clip), 0, 1e30, NULL,
     "largest gradient norm; none"},
    END};

static int push_single(lua_State *L, const lk_optimizer_group *group) {
  lk_optimizer *o = lh_object_new(L, &lh_optimizer_class, sizeof *o);
  o->group[o->groups++] = *group;
  return 1;
}

static int optim_muon(lua_State *L) {
  optim_options o = {.g = {.kind = LK_MUON, .lr = 0.01, .beta1 = 0.95,
                           .eps = 1e-7, .steps = 5}};
  lh_options(L, 1, "optim.muon", muon_options, 0, &o);
  return push_single(L, &o.g);
}

static int optim_adamw(lua_State *L) {
  optim_options o = {.g = {.kind = LK_ADAMW, .lr = 0.001, .beta1 = 0.9,
                           .beta2 = 0.999, .eps = 1e-8}};
  lh_options(L, 1, "optim.adamw", adamw_options, 0, &o);
  if (o.betas) {
    double *beta[2] = {&o.g.beta1, &o.g.beta2};
    luaL_checktype(L, o.betas, LUA_TTABLE);
    for (int i = 0; i < 2; i++) {
      lua_rawgeti(L, o.betas, i + 1);
      *beta[i] = luaL_checknumber(L, -1);
      lua_pop(L, 1);
      if (!(*beta[i] >= 0 && *beta[i] < 1))
        lh_raise(L, LK_ARGUMENT, "optim.adamw: betas must be in [0, 1)");
    }
  }
  return push_single(L, &o.g);
}

static int optim_sgd(lua_State *L) {
  optim_options o = {.g = {.kind = LK_SGD, .lr = 0.01}};
  lh_options(L, 1, "optim.sgd", sgd_options, 0, &o);
  return push_single(L, &o.g);
}

static int schedule(lua_State *L, const char *who, lk_schedule_kind kind) {
  optim_options o = {.s = {.kind = kind}};
  lh_options(L, 1, who, schedule_options, 0, &o);
  lk_schedule *s = lh_object_new(L, &schedule_class, sizeof *s);
  *s = o.s;
  return 1;
}

static int optim_cosine(lua_State *L) {
  return schedule(L, "optim.cosine", LK_COSINE);
}
static int optim_linear(lua_State *L) {
  return schedule(L, "optim.linear", LK_LINEAR);
}
static int optim_constant(lua_State *L) {
  return schedule(L, "optim.constant", LK_CONSTANT);
}

/* One entry {match = "…", optimizer} of optim.groups, on top of the stack. */
static void add_group(lua_State *L, lk_optimizer *o, int number) {
  if (!lua_istable(L, -1))
    lh_raise(L, LK_ARGUMENT, "optim.groups: entry %d is a %s; write "
             "{match = \"…\", gpu.optim.muon{…}}", number,
             luaL_typename(L, -1));
  int entry = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, entry); lua_pop(L, 1))
    if (lua_type(L, -2) == LUA_TSTRING &&
        strcmp(lua_tostring(L, -2), "match") != 0)
      lh_raise(L, LK_ARGUMENT, "optim.groups: unknown option '%s' of entry "
               "%d; did you mean 'match'?", lua_tostring(L, -2), number);
  if (o->groups == LK_OPTIMIZER_GROUPS)
    lh_raise(L, LK_ARGUMENT, "optim.groups: at most %d groups",
             LK_OPTIMIZER_GROUPS);
  lk_optimizer_group *g = &o->group[o->groups++];
  lua_rawgeti(L, entry, 1);
  *g = lh_optimizer_check(L, -1)->group[0];
  if (lua_getfield(L, entry, "match") != LUA_TNIL)
    lk_clip_text(g->match, sizeof g->match, luaL_checkstring(L, -1), "");
  lua_pop(L, 2);
}

static int optim_groups(lua_State *L) {
  optim_options n = {0};
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lua_newtable(L);  /* the named options */
  for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
    if (lua_isinteger(L, -2)) continue;
    lua_pushvalue(L, -2);
    lua_pushvalue(L, -2);
    lua_rawset(L, 2);
  }
  lh_options(L, 2, "optim.groups", groups_options, 0, &n);
  lk_optimizer *o = lh_object_new(L, &lh_optimizer_class, sizeof *o);
  int count = (int)lua_rawlen(L, 1);
  if (count == 0)
    lh_raise(L, LK_ARGUMENT, "optim.groups: needs at least one group");
  for (int i = 1; i <= count; i++) {
    lua_rawgeti(L, 1, i);
    add_group(L, o, i);
    lua_pop(L, 1);
  }
  if (n.schedule)
    o->schedule = *(lk_schedule *)lh_object_check(L, n.schedule,
                                                  &schedule_class);
  o->clip = n.clip;
  return 1;
}

/* The schedule's factor at a step, from 1. */
static int optim_rate(lua_State *L) {
  const lk_schedule *s = lh_object_check(L, 1, &schedule_class);
  int64_t step = lh_check_integer(L, 2, "step", 1, INT64_MAX);
  lua_pushnumber(L, lk_schedule_rate(s, step - 1));
  return 1;
}

static const lh_function functions[] = {
    {"muon", optim_muon, "(options?: table): gpu.optimizer",
     "Muon: momentum orthogonalized by Newton–Schulz, for matrices.",
     muon_options},
    {"adamw", optim_adamw, "(options?: table): gpu.optimizer",
     "AdamW (Loshchilov & Hutter 2019).", adamw_options},
    {"sgd", optim_sgd, "(options?: table): gpu.optimizer",
     "Stochastic gradient descent with momentum.", sgd_options},
    {"groups", optim_groups, "(groups: table): gpu.optimizer",
     "Optimizers by parameter name: the first group whose match fits takes a "
     "parameter; Muon takes matrices only.", groups_options},
    {"cosine", optim_cosine, "(options: table): gpu.schedule",
     "Warm-up, then half a cosine down to final.", schedule_options},
    {"linear", optim_linear, "(options: table): gpu.schedule",
     "Warm-up, then a line down to final.", schedule_options},
    {"constant", optim_constant, "(options?: table): gpu.schedule",
     "Warm-up, then the full rate.", schedule_options},
    {"rate", optim_rate, "(schedule: gpu.schedule, step: integer): number",
     "A schedule's factor at a step, from 1.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

int lh_open_optim(lua_State *L) {
  lh_class_new(L, &lh_optimizer_class);
  lh_class_new(L, &schedule_class);
  lua_newtable(L);
  lh_register(L, "gpu.optim", functions);
  return 1;
}
