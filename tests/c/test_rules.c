/* Rules: every operator has a valid call here, with a cost, that runs; calls
 * changed at random places give an error with a text or run as well; and the
 * texts that users meet are pinned. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../../kernels/core/context.h"
#include "check.h"

/* --- calls written as text ----------------------------------------------- */

/* One call: tensors as "f32 2x3, - , i32 4": a dtype and sizes ("." for none),
 * "-" for an absent one. Results that are inferred are absent. */
typedef struct op_case {
  lk_op op;
  const char *inputs, *results;
  lk_attr attr;
} op_case;

#define CLOCK "u32 4"
#define CONTROL "f32 16"
#define HEADS .heads = 4, .kv_heads = 2, .width = 6
#define ATTENTION HEADS, .batch = 2, .seq = 5, .scale = .4, .p = .1

static const op_case cases[] = {
    {LK_OP_add, "f32 2x3, f32 3", "", {0}},
    {LK_OP_sub, "f32 2x3, f32 2x1", "", {0}},
    {LK_OP_mul, "f32 2x3, f32 .", "", {0}},
    {LK_OP_div, "f32 2x3, f32 4x2x3", "", {0}},
    {LK_OP_affine, "f32 2x3", "", {.scale = 2, .value = 1}},
    {LK_OP_pow, "f32 2x3", "", {.value = 3}},
    {LK_OP_exp, "f32 2x3", "", {0}},
    {LK_OP_log, "f32 2x3", "", {0}},
    {LK_OP_sqrt, "f32 2x3", "", {0}},
    {LK_OP_tanh, "f32 2x3", "", {0}},
    {LK_OP_sigmoid, "f32 2x3", "", {0}},
    {LK_OP_relu, "f32 2x3", "", {0}},
    {LK_OP_relu_backward, "f32 2x3, f32 2x3", "", {0}},
    {LK_OP_sum, "f32 2x3x4", "", {.dim = 1}},
    {LK_OP_mean, "f32 2x3x4", "", {.dim = -1, .keep = true}},
    {LK_OP_max, "f32 2x3x4", "", {.dim = 0}},
    {LK_OP_min, "f32 2x3x4", "", {.dim = 2}},
    {LK_OP_argmax, "f32 2x3x4", "", {.dim = 2}},
    {LK_OP_sum_to, "f32 2x3x4", "f32 3x1", {0}},
    {LK_OP_broadcast, "f32 3x1", "f32 2x3x4", {0}},
    {LK_OP_softmax, "f32 2x3x3", "", {.causal = true}},
    {LK_OP_softmax_backward, "f32 2x3, f32 2x3", "", {0}},
    {LK_OP_reshape, "f32 2x3", "f32 6", {0}},
    {LK_OP_transpose, "f32 2x3x4", "", {.dim = 0, .other = 2}},
    {LK_OP_slice, "f32 2x5x4", "f32 2x2x4", {.dim = 1, .first = 2}},
    {LK_OP_unslice, "f32 2x2x4", "f32 2x5x4", {.dim = 1, .first = 3}},
    {LK_OP_cat, "f32 2x3x4, f32 2x1x4", "", {.dim = 1}},
    {LK_OP_cast, "f32 2x3", "bf16 2x3", {0}},
    {LK_OP_copy, "i32 2x3", "", {0}},
    {LK_OP_fill, "", "f32 2x3", {.value = 2}},
    {LK_OP_arange, "", "f32 7", {.scale = 2}},
    {LK_OP_randn, CLOCK, "f32 2x3", {.scale = 1}},
    {LK_OP_matmul, "f32 2x3, f32 3x4", "f32 2x4", {.accumulate = true}},
    {LK_OP_e4m3_matmul, "e4m3 16x32, f32 16, e4m3 48x32, f32 48", "", {0}},
    {LK_OP_nvfp4_matmul,
     "u4 16x32, e4m3 32, f32 1, u4 48x32, e4m3 96, f32 1", "", {0}},
    {LK_OP_bias, "f32 2x3, f32 3", "", {0}},
    {LK_OP_bias_backward, "f32 2x3", "", {0}},
    {LK_OP_embed, "i32 5, f32 7x3", "", {.scale = 2}},
    {LK_OP_embed_backward, "f32 5x3, i32 5", "f32 7x3", {.scale = 2}},
    {LK_OP_dropout, "f32 2x3, " CLOCK, "", {.p = .5}},
    {LK_OP_residual, "f32 2x3, f32 2x3, " CLOCK, "", {.p = .5}},
    {LK_OP_rmsnorm, "f32 2x8, f32 8", "", {.eps = 1e-6}},
    {LK_OP_residual_norm, "f32 2x8, f32 2x8, f32 8, -", "", {.eps = 1e-6}},
    {LK_OP_rmsnorm_backward,
     "f32 2x8, f32 2x8, f32 8, f32 2, f32 2x8, " CLOCK, "-, -, f32 2x8",
     {.p = .1}},
    {LK_OP_silu, "f32 2x3, " CLOCK, "", {.p = .1}},
    {LK_OP_silu_backward, "f32 2x3, f32 2x3, -", "", {0}},
    {LK_OP_gated_silu, "f32 2x6, " CLOCK, "", {.p = .1}},
    {LK_OP_gated_silu_backward, "f32 2x3, f32 2x6, " CLOCK, "", {.p = .1}},
    {LK_OP_rope_table, "", "f32 5x3x2", {.base = 1e4, .fraction = .5}},
    {LK_OP_rope, "f32 10x48, f32 5x3x2", "", {HEADS}},
    {LK_OP_head_norm, "f32 10x48, f32 6, f32 6", "", {HEADS, .eps = 1e-6}},
    {LK_OP_head_norm_backward,
     "f32 10x48, f32 10x48, f32 6, f32 6, f32 10x6", "", {HEADS}},
    {LK_OP_attention, "f32 10x48, " CLOCK, "-, -, u32 2x4x128", {ATTENTION}},
    {LK_OP_attention_backward,
     "f32 10x24, f32 10x48, f32 10x24, f32 2x4x5, " CLOCK
     ", u32 2x4x128, f32 5x3x2", "", {ATTENTION}},
    {LK_OP_attention_cached, "f32 2x48, i32 1", "-, f32 2x2x2x5x6",
     {HEADS, .batch = 2, .scale = .4}},
    {LK_OP_head_loss, "f32 5x3, f32 7x3, i32 5", "", {.chunk = 2}},
    {LK_OP_head_loss_train, "f32 5x3, f32 7x3, i32 5, " CONTROL, "",
     {.chunk = 2, .value = .2}},
    {LK_OP_metrics, "f32 5, i32 5", "f32 4", {0}},
    {LK_OP_accumulate, "f32 5", "bf16 5", {0}},
    {LK_OP_sum_squares, "bf16 5x3", "f32 4, " CONTROL, {.index = 3}},
    {LK_OP_clip, "f32 4", CONTROL, {0}},
    {LK_OP_adamw, "f32 2x3, " CONTROL, "f32 2x3, f32 2x3, f32 2x3, bf16 2x3",
     {.lr = .1, .beta1 = .9, .beta2 = .99, .eps = 1e-8}},
    {LK_OP_sgd, "f32 2x3, " CONTROL, "f32 2x3, f32 2x3, -", {.lr = .1}},
    {LK_OP_muon_momentum, "f32 2x3, " CONTROL, "f32 2x3, bf16 2x3",
     {.beta1 = .9}},
    {LK_OP_muon_momentum_int8, "bf16 5x7, " CONTROL, "i8 5x7, f32 5",
     {.beta1 = .9, .block = 8}},
    {LK_OP_newton_schulz, "f32 2x5x3", "", {.steps = 5, .eps = 1e-7}},
    {LK_OP_muon_update, "bf16 2x3, " CONTROL, "f32 2x3, bf16 2x3",
     {.lr = .1, .scale = 1}},
    {LK_OP_quantize, "f32 5x13", "", {.format = LK_FORMAT_NVFP4}},
    {LK_OP_dequantize, "u4 65, f32 2, -", "f32 5x13",
     {.format = LK_FORMAT_NF4, .block = 64}},
    {LK_OP_e4m3_turn, "f32 32x16", "", {0}},
    {LK_OP_e4m3_from_nf4, "u4 32x16, f32 8", "",
     {.block = 64, .transpose_a = true}},
    {LK_OP_nf4r_encode, "f32 5x13, " CLOCK, "-, -, i8 5x13", {.block = 64}},
    {LK_OP_nf4r_master, "u4 5x13, f32 2, i8 5x13", "f32 5x13",
     {.block = 64}},
    {LK_OP_nf4r_update, "f32 5x13, " CONTROL ", " CLOCK,
     "u4 5x13, f32 2, i8 5x13", {.block = 64, .lr = .1, .scale = 1}},
};
enum { CASES = sizeof cases / sizeof *cases };

static lk_tensor parse_tensor(const char *text, size_t length) {
  char word[16], copy[64];
  snprintf(copy, sizeof copy, "%.*s", (int)length, text);
  lk_tensor t = {.shape.rank = 0};
  int used = 0;
  if (sscanf(copy, " %15s %n", word, &used) != 1 || word[0] == '-')
    return LK_ABSENT;
  if (!lk_dtype_from_word(word, &t.dtype)) abort();
  for (char *p = copy + used; *p >= '0' && *p <= '9'; p += *p == 'x')
    t.shape.dim[t.shape.rank++] = strtol(p, &p, 10);
  return t;
}

static void parse_tensors(const char *text, lk_tensor *tensors) {
  while (*text) {
    size_t length = strcspn(text, ",");
    *tensors++ = parse_tensor(text, length);
    text += length + (text[length] == ',');
  }
}

static lk_call call_of(const op_case *c) {
  lk_call call = lk_call_new(c->op);
  parse_tensors(c->inputs, call.in);
  parse_tensors(c->results, call.out);
  call.attr = c->attr;
  return call;
}

/* --- every operator has a rule, a cost and a kernel ---------------------- */

static void test_cases_are_complete(void) {
  for (int op = 0; op < LK_OP_COUNT; op++) {
    int found = 0;
    for (int i = 0; i < CASES; i++) found += cases[i].op == (lk_op)op;
    CHECK(found == 1, "%s has %d cases", lk_op_info_of((lk_op)op)->name,
          found);
  }
}

static void test_costs(void) {
  static const char *const profiles[] = {"cpu", "cuda"};
  for (int i = 0; i < CASES; i++)
    for (int p = 0; p < 2; p++) {
      lk_call call = call_of(&cases[i]);
      lk_cost cost;
      lk_error error;
      lk_status status =
          lk_rule(lk_profile_find(profiles[p]), &call, &cost, &error);
      const char *name = lk_op_info_of(call.op)->name;
      CHECK(status == LK_OK, "%s", error.message);
      CHECK((cost.bytes > 0) == (call.op != LK_OP_reshape), "%s: %g bytes",
            name, cost.bytes);
      CHECK(cost.flops >= 0 && cost.scratch >= 0, "%s", name);
    }
}

/* --- running ------------------------------------------------------------- */

static void *allocated[16];
static int allocated_count;

/* Memory with contents any operator can take: small indices, values in
 * (0, 1), a clock, a control. */
static void give_data(lk_tensor *t, const char *name) {
  int64_t bytes = lk_tensor_bytes(t), count = lk_tensor_count(t);
  t->data = allocated[allocated_count++] = aligned_alloc(64,
      (size_t)(bytes + 63) / 64 * 64);
  memset(t->data, 0, (size_t)bytes);
  if (t->dtype != LK_F32) return;
  float *x = t->data;
  for (int64_t i = 0; i < count; i++)
    x[i] = strcmp(name, "control") == 0 ? 1.0f
                                        : (float)(i * 37 % 101 + 1) / 102.0f;
}

static lk_status run(lk_context *context, lk_call call) {
  const lk_op_info *info = lk_op_info_of(call.op);
  lk_storage *storage[LK_MAX_RESULTS];
  allocated_count = 0;
  for (int i = 0; i < info->inputs; i++)
    if (lk_present(&call.in[i])) give_data(&call.in[i], info->input[i].name);
  for (int r = 0; r < info->results; r++)
    if (lk_present(&call.out[r]) && !info->result[r].view)
      give_data(&call.out[r], info->result[r].name);
  lk_status status = lk_dispatch(context, &call, storage);
  for (int r = 0; r < LK_MAX_RESULTS; r++) lk_storage_release(storage[r]);
  while (allocated_count > 0) free(allocated[--allocated_count]);
  return status;
}

static lk_context *opened(void) {
  lk_context *context = NULL;
  lk_error error;
  if (lk_context_open(lk_cpu_backend(), 0, &context, &error) != LK_OK) abort();
  return context;
}

static void test_every_case_runs(void) {
  lk_context *context = opened();
  for (int i = 0; i < CASES; i++)
    CHECK(run(context, call_of(&cases[i])) == LK_OK, "%s: %s",
          lk_op_info_of(cases[i].op)->name, context->error.message);
  lk_context_close(context);
}

/* --- calls with one thing changed ---------------------------------------- */

static int refused, accepted;

/* A rule says no with a text, or the operator runs. */
static void try_call(lk_context *context, const lk_call *call) {
  lk_call planned = *call;
  lk_cost cost;
  lk_error error = {0};
  const char *name = lk_op_info_of(call->op)->name;
  lk_status status = lk_rule(context->profile, &planned, &cost, &error);
  if (status != LK_OK) {
    refused++;
    CHECK(strncmp(error.message, name, strlen(name)) == 0 &&
          error.code == status && status != LK_INTERNAL, "%s: \"%s\"", name,
          error.message);
    return;
  }
  accepted++;
  CHECK(run(context, *call) == LK_OK, "%s: %s", name, context->error.message);
}

static void change_tensor(lk_context *context, lk_call *call, lk_tensor *t) {
  lk_tensor before = *t;
  if (!lk_present(t)) return;
  *t = LK_ABSENT;
  try_call(context, call);
  for (int d = 0; d < LK_DTYPE_COUNT; d++) {
    *t = before;
    t->dtype = (lk_dtype)d;
    try_call(context, call);
  }
  for (int i = 0; i < before.shape.rank; i++)
    for (int k = 0; k < 4; k++) {
      *t = before;
      t->shape.dim[i] = k == 0 ? 0 : k == 1 ? 1 : k == 2 ? t->shape.dim[i] + 1
                                                 : (int64_t)1 << 61;
      try_call(context, call);
    }
  for (int rank = 0; rank <= LK_MAX_RANK + 1; rank++) {
    *t = before;
    for (int i = before.shape.rank; i < rank && i < LK_MAX_RANK; i++)
      t->shape.dim[i] = 1;
    t->shape.rank = rank;
    try_call(context, call);
  }
  *t = before;
}

/* Set the attribute called `name` to the k-th value of a list of its type. */
static bool change_attribute(lk_attr *attr, const char *name, int k) {
  static const int64_t INTEGER[] = {-2, 0, 1, 2, 8, (int64_t)1 << 40,
                                    INT64_MAX, INT64_MIN};
  static const double NUMBER[] = {-1, 0, .25, 1, 7, 1e30, INFINITY, NAN};
  static const bool BOOLEAN[] = {false, true, false, true, false, true, false,
                                 true};
#define ATTR(field, type, ctype)      \
  if (strcmp(name, #field) == 0) {    \
    attr->field = type[k];            \
    return true;                      \
  }
#include "../../kernels/core/attr.def"
#undef ATTR
  return false;
}

static void change_attributes(lk_context *context, lk_call *call) {
  char words[128];
  lk_attr before = call->attr;
  snprintf(words, sizeof words, "%s", lk_op_info_of(call->op)->attributes);
  for (char *word = strtok(words, " "); word; word = strtok(NULL, " "))
    for (int k = 0; k < 8; k++) {
      CHECK(change_attribute(&call->attr, word, k), "attribute %s", word);
      try_call(context, call);
      call->attr = before;
    }
}

static void test_changed_calls(void) {
  lk_context *context = opened();
  refused = accepted = 0;
  for (int i = 0; i < CASES; i++) {
    lk_call call = call_of(&cases[i]);
    const lk_op_info *info = lk_op_info_of(call.op);
    for (int k = 0; k < info->inputs; k++)
      change_tensor(context, &call, &call.in[k]);
    for (int k = 0; k < info->results; k++)
      change_tensor(context, &call, &call.out[k]);
    change_attributes(context, &call);
  }
  CHECK(refused > 1000 && accepted > 200, "%d refused, %d accepted", refused,
        accepted);
  lk_memory_stats stats;
  lk_memory_read(context->memory, &stats);
  CHECK(stats.current == 0, "%lld bytes left", (long long)stats.current);
  lk_context_close(context);
}

/* --- texts --------------------------------------------------------------- */

static const struct {
  op_case call;
  const char *text;
} texts[] = {
    {{LK_OP_rmsnorm, "f32 2x8, f32 4", "", {0}},
     "rmsnorm: w has shape [4], x [2, 8] needs [8]"},
    {{LK_OP_rmsnorm, "f32 2x8", "", {0}}, "rmsnorm: w is missing"},
    {{LK_OP_rmsnorm, "f32 2x8x1, f32 8", "", {0}},
     "rmsnorm: x has shape [2, 8, 1], needs 2 dimensions"},
    {{LK_OP_add, "f32 2x3, f32 4", "", {0}},
     "add: shapes [2, 3] of a and [4] of b do not fit together"},
    {{LK_OP_add, "f32 2x3, i32 3", "", {0}}, "add: a is f32, b is i32"},
    {{LK_OP_add, "bf16 2x3, bf16 3", "", {0}},
     "add: a is bf16, needs f32 on the CPU"},
    {{LK_OP_add, "f32 2x3, f32 3", "f32 3", {0}},
     "add: y has shape [3], needs [2, 3]"},
    {{LK_OP_add, "f32 2x3, f32 3", "i32 2x3", {0}},
     "add: y is i32, needs f32"},
    {{LK_OP_add, "f32 2x0, f32 3", "", {0}},
     "add: a has shape [2, 0], every size must be at least 1"},
    {{LK_OP_sum, "f32 2x3", "", {.dim = 2}},
     "sum: dim is 2, x [2, 3] has 2 dimensions"},
    {{LK_OP_softmax, "f32 2x3", "", {.causal = true}},
     "softmax: x has shape [2, 3], causal needs [.., T, T]"},
    {{LK_OP_reshape, "f32 2x3", "f32 4", {0}},
     "reshape: x [2, 3] has 6 elements, y [4] needs 4"},
    {{LK_OP_slice, "f32 5x2", "f32 3x2", {.first = 3}},
     "slice: [3, 2] is no part of [5, 2] along dimension 0 from 3 on"},
    {{LK_OP_cast, "i32 2", "f32 2", {0}}, "cast: from i32 to f32, needs "
                                          "floats"},
    {{LK_OP_cast, "f32 2", "", {0}},
     "cast: y must be given, its shape or dtype is a choice"},
    {{LK_OP_matmul, "f32 2x3, f32 4x5", "", {0}},
     "matmul: a [2, 3] and b [4, 5] do not fit together"},
    {{LK_OP_matmul, "f32 2x3, f32 4x3", "", {.transpose_a = true}},
     "matmul: a [2, 3] transposed and b [4, 3] do not fit together"},
    {{LK_OP_matmul, "f32 2x4x3, f32 3x3x5", "", {0}},
     "matmul: a [2, 4, 3] and b [3, 3, 5] need equal leading dimensions"},
    {{LK_OP_matmul, "f32 2x3, f32 3x4", "", {.accumulate = true}},
     "matmul: y is missing"},
    {{LK_OP_dropout, "f32 2, " CLOCK, "", {.p = 1}},
     "dropout: p is 1, needs 0 <= p < 1"},
    {{LK_OP_residual, "f32 2, f32 2", "", {.p = .1}},
     "residual: clock is missing, p = 0.1 needs it"},
    {{LK_OP_dropout, "f32 2, f32 4", "", {.p = .1}},
     "dropout: clock is f32 [4], needs u32 [4]"},
    {{LK_OP_gated_silu, "f32 2x3", "", {0}},
     "gated_silu: x has shape [2, 3], needs an even last dimension"},
    {{LK_OP_rope, "f32 10x40, f32 5x3x2", "", {HEADS}},
     "rope: x has shape [10, 40], needs 48 columns (4 + 2·2 heads of 6)"},
    {{LK_OP_attention, "f32 10x48", "", {.heads = 4, .kv_heads = 3,
                                         .width = 6, .batch = 2, .seq = 5}},
     "attention: kv_heads is 3, no divisor of heads = 4"},
    {{LK_OP_attention, "f32 10x48", "", {HEADS, .batch = 2, .seq = 4}},
     "attention: qkv has 10 rows, batch 2 of seq 4 does not fit"},
    {{LK_OP_attention_cached, "f32 5x48, i32 2", "-, f32 2x2x2x5x6",
      {HEADS, .batch = 2}},
     "attention_cached: qkv has 5 rows, batch 2 of 2 positions does not fit"},
    {{LK_OP_attention_cached, "f32 6x48, i32 3", "-, f32 2x2x2x2x6",
      {HEADS, .batch = 2}},
     "attention_cached: cache has shape [2, 2, 2, 2, 6], needs [2, 2, 2, T >= "
     "3, 6]"},
    {{LK_OP_head_loss, "f32 5x3, f32 7x3, i32 5", "", {0}},
     "head_loss: chunk is 0, needs at least 1"},
    {{LK_OP_sum_squares, "f32 5", "f32 2, " CONTROL, {.index = 2}},
     "sum_squares: index is 2, slots has 2"},
    {{LK_OP_sum_squares, "f32 5", "f32 2, " CONTROL, {.index = -1}},
     "sum_squares: index is -1, slots has 2"},
    {{LK_OP_sum_squares, "f32 3x8192", "f32 4, " CONTROL, {.index = 2}},
     "sum_squares: slots has 4, needs 5: from index 2 on one for each 8192 "
     "values of g"},
    {{LK_OP_adamw, "f32 2x3, " CONTROL, "f32 3, f32 2x3, f32 2x3", {0}},
     "adamw: w has shape [3], needs [2, 3]"},
    {{LK_OP_adamw, "i8 2x3, " CONTROL, "f32 2x3, f32 2x3, f32 2x3", {0}},
     "adamw: g is i8, needs f32 or bf16"},
    {{LK_OP_newton_schulz, "f32 5", "", {.steps = 5}},
     "newton_schulz: u has shape [5], needs [R, C] or [k, R, C]"},
    {{LK_OP_quantize, "f32 5", "", {.format = 99}},
     "quantize: there is no format 99"},
    {{LK_OP_quantize, "f32 5", "", {.block = 12}},
     "quantize: block is 12, needs a multiple of 8 up to 4096"},
    {{LK_OP_quantize, "f32 5", "", {.format = LK_FORMAT_NVFP4, .block = 32}},
     "quantize: block is 32, nvfp4 needs 16"},
    {{LK_OP_quantize, "f32 5", "", {.format = LK_FORMAT_MXFP4,
                                    .search = true}},
     "quantize: search is not for mxfp4"},
    {{LK_OP_dequantize, "u4 6, f32 1", "f32 5", {.block = 64}},
     "dequantize: y has shape [5], there are 6 codes"},
    {{LK_OP_e4m3_turn, "f32 32x24", "", {0}},
     "e4m3_turn: x has shape [32, 24], needs multiples of 16"},
    {{LK_OP_e4m3_matmul, "e4m3 16x24, f32 16, e4m3 48x24, f32 48", "", {0}},
     "e4m3_matmul: a has shape [16, 24], needs multiples of 16"},
    {{LK_OP_e4m3_matmul, "e4m3 16x32, f32 16, e4m3 48x16, f32 48", "", {0}},
     "e4m3_matmul: rows of a [16, 32] and b [48, 16] differ in length"},
    {{LK_OP_e4m3_matmul, "f32 16x32, f32 16, e4m3 48x32, f32 48", "", {0}},
     "e4m3_matmul: a is f32, needs e4m3"},
    {{LK_OP_nvfp4_matmul, "u4 16x48, e4m3 48, f32 1, u4 16x48, e4m3 48, f32 1",
      "", {0}},
     "nvfp4_matmul: a has shape [16, 48], needs multiples of 16 and 32"},
    {{LK_OP_nvfp4_matmul, "u4 16x32, e4m3 32, f32 1, u4 16x64, e4m3 64, f32 1",
      "", {0}},
     "nvfp4_matmul: rows of a [16, 32] and b [16, 64] differ in length"},
    {{LK_OP_nvfp4_matmul, "u4 16x32, e4m3 31, f32 1, u4 16x32, e4m3 32, f32 1",
      "", {0}},
     "nvfp4_matmul: sa has shape [31], a [16, 32] needs [32]"},
    {{LK_OP_silu, "f32 2x12, -", "-, e4m3 2x12, f32 2", {0}},
     "silu: codes need rows of a multiple of 8, got [2, 12]"},
    {{LK_OP_silu, "f32 2x16, -", "-, e4m3 2x16", {0}},
     "silu: codes and scales go together"},
    {{LK_OP_nf4r_master, "u4 65, f32 1", "f32 65", {.block = 64}},
     "nf4r_master: absmax has shape [1], codes [65] needs [2]"},
};

static void test_texts(void) {
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    lk_call call = call_of(&texts[i].call);
    lk_cost cost;
    lk_error error = {0};
    lk_status status = lk_rule(lk_profile_find("cpu"), &call, &cost, &error);
    CHECK(status != LK_OK && strcmp(error.message, texts[i].text) == 0,
          "\"%s\", not \"%s\"", error.message, texts[i].text);
  }
}

/* --- costs that are arithmetic ------------------------------------------- */

static lk_cost cost_of(lk_op op, const char *inputs, const char *results,
                       lk_attr attr) {
  op_case c = {op, inputs, results, attr};
  lk_call call = call_of(&c);
  lk_cost cost = {0};
  lk_error error = {0};
  lk_status status = lk_rule(lk_profile_find("cuda"), &call, &cost, &error);
  CHECK(status == LK_OK, "%s", error.message);
  return cost;
}

static void test_flops(void) {
  lk_cost c = cost_of(LK_OP_matmul, "bf16 20x30, bf16 30x40", "f32 20x40",
                      (lk_attr){0});
  CHECK(c.flops == 2.0 * 20 * 30 * 40, "%g", c.flops);
  CHECK(c.bytes == 2 * 600 + 2 * 1200 + 4 * 800, "%g", c.bytes);
  c = cost_of(LK_OP_matmul, "bf16 20x30, bf16 30x40", "f32 20x40",
              (lk_attr){.accumulate = true});
  CHECK(c.bytes == 2 * 600 + 2 * 1200 + 8 * 800, "%g", c.bytes);
  lk_attr a = {ATTENTION};
  c = cost_of(LK_OP_attention, "bf16 10x48, " CLOCK, "", a);
  CHECK(c.flops == 2.0 * 2 * 4 * 5 * 5 * 6, "%g", c.flops);
  c = cost_of(LK_OP_attention_backward,
              "bf16 10x24, bf16 10x48, bf16 10x24, f32 2x4x5, " CLOCK, "", a);
  CHECK(c.flops == 5.0 * 2 * 4 * 5 * 5 * 6, "%g", c.flops);
  c = cost_of(LK_OP_newton_schulz, "f32 2x30x20", "", (lk_attr){.steps = 5});
  CHECK(c.flops == 2 * 5 * (20.0 * 21 * 30 + 20.0 * 21 * 20 +
                            2.0 * 20 * 20 * 30), "%g", c.flops);
  c = cost_of(LK_OP_head_loss_train,
              "bf16 50x30, bf16 700x30, i32 50, " CONTROL, "",
              (lk_attr){.chunk = 20});
  CHECK(c.flops == 3 * 2.0 * 50 * 30 * 700, "%g", c.flops);
}

int main(void) {
  RUN(test_cases_are_complete);
  RUN(test_costs);
  RUN(test_every_case_runs);
  RUN(test_changed_calls);
  RUN(test_texts);
  RUN(test_flops);
  return check_done();
}
