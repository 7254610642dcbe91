/* The way of a call: its entry in ops.def taken apart, the checks every
 * operator shares, its rule, its kernel. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "rules.h"
#include "scratch.h"

const lk_format_info lk_formats[LK_FORMAT_COUNT] = {
#define FORMAT(name, word, code, scale, block, per_tensor) \
  {word, LK_##code, LK_##scale, block, per_tensor},
#include "format.def"
#undef FORMAT
};

/* --- ops.def, taken apart ------------------------------------------------- */

typedef struct op_text {
  const char *name, *results, *inputs, *attributes;
} op_text;

static const op_text op_texts[LK_OP_COUNT] = {
#define OP(name, results, inputs, attributes, gradient) \
  {#name, results, inputs, attributes},
#include "ops.def"
#undef OP
};

static lk_op_info infos[LK_OP_COUNT];
static pthread_once_t infos_once = PTHREAD_ONCE_INIT;

static int input_named(const lk_op_info *info, const char *name) {
  for (int i = 0; i < info->inputs; i++)
    if (strcmp(info->input[i].name, name) == 0) return i;
  return -1;
}

/* One word of a results or inputs string, marks and all. */
static lk_role parse_role(const lk_op_info *info, const char *word,
                          size_t length) {
  lk_role role = {.alias = -1};
  char text[48];
  snprintf(text, sizeof text, "%.*s", (int)length, word);
  char *name = text;
  role.shared = *name == '&';
  role.updated = *name == '!' || role.shared;
  role.accumulated = *name == '+';
  if (role.updated || role.accumulated) name++;
  char *mark = strchr(name, '?');
  role.optional = mark != NULL;
  if (mark != NULL) *mark = '\0';
  mark = strpbrk(name, "=@");
  if (mark != NULL) {
    role.view = *mark == '@';
    *mark = '\0';
    role.alias = input_named(info, mark + 1);
  }
  snprintf(role.name, sizeof role.name, "%.15s", name);
  return role;
}

static int parse_roles(const lk_op_info *info, const char *text,
                       lk_role *roles) {
  int count = 0;
  for (text += strspn(text, " "); *text; text += strspn(text, " ")) {
    size_t length = strcspn(text, " ");
    roles[count++] = parse_role(info, text, length);
    text += length;
  }
  return count;
}

static void parse_ops(void) {
  for (int op = 0; op < LK_OP_COUNT; op++) {
    lk_op_info *info = &infos[op];
    info->name = op_texts[op].name;
    info->attributes = op_texts[op].attributes;
    info->inputs = parse_roles(info, op_texts[op].inputs, info->input);
    info->results = parse_roles(info, op_texts[op].results, info->result);
  }
}

const lk_op_info *lk_op_info_of(lk_op op) {
  pthread_once(&infos_once, parse_ops);
  return &infos[op];
}

lk_op lk_op_find(const char *name) {
  for (int op = 0; op < LK_OP_COUNT; op++)
    if (strcmp(op_texts[op].name, name) == 0) return (lk_op)op;
  return LK_OP_COUNT;
}

lk_call lk_call_new(lk_op op) {
  lk_call call = {.op = op};
  for (int i = 0; i < LK_MAX_RESULTS; i++) call.out[i] = LK_ABSENT;
  for (int i = 0; i < LK_MAX_INPUTS; i++) call.in[i] = LK_ABSENT;
  return call;
}

/* --- checks that every operator shares ------------------------------------ */

/* A tensor's rank, dtype and sizes make sense and its bytes fit an int64_t. */
static lk_status check_tensor(const char *op, const char *name,
                              const lk_tensor *t, lk_error *error) {
  if (t->shape.rank > LK_MAX_RANK)
    return lk_fail(error, LK_SHAPE, "%s: %s has %d dimensions, at most %d",
                   op, name, t->shape.rank, LK_MAX_RANK);
  if ((unsigned)t->dtype >= LK_DTYPE_COUNT)
    return lk_fail(error, LK_DTYPE, "%s: %s has no dtype", op, name);
  int64_t bits = 32;
  for (int i = 0; i < t->shape.rank; i++) {
    char text[128];
    if (t->shape.dim[i] < 1)
      return lk_fail(error, LK_SHAPE,
                     "%s: %s has shape %s, every size must be at least 1", op,
                     name, lk_shape_text(t->shape, text, sizeof text));
    if (!lk_size_product(bits, t->shape.dim[i], &bits))
      return lk_fail(error, LK_SHAPE, "%s: %s has shape %s, too large", op,
                     name, lk_shape_text(t->shape, text, sizeof text));
  }
  return LK_OK;
}

static lk_status check_inputs(const lk_op_info *info, const lk_call *call,
                              lk_error *error) {
  for (int i = 0; i < info->inputs; i++) {
    const lk_role *role = &info->input[i];
    if (lk_present(&call->in[i]))
      LK_TRY(check_tensor(info->name, role->name, &call->in[i], error));
    else if (!role->optional)
      return lk_fail(error, LK_ARGUMENT, "%s: %s is missing", info->name,
                     role->name);
  }
  return LK_OK;
}

/* Results that are read must be there before the call. */
static lk_status check_presets(const lk_op_info *info, const lk_call *call,
                               lk_error *error) {
  for (int i = 0; i < info->results; i++) {
    const lk_role *role = &info->result[i];
    bool read = role->updated || (role->accumulated && call->attr.accumulate);
    if (lk_present(&call->out[i]))
      LK_TRY(check_tensor(info->name, role->name, &call->out[i], error));
    else if (read && !role->optional)
      return lk_fail(error, LK_ARGUMENT, "%s: %s is missing", info->name,
                     role->name);
  }
  return LK_OK;
}

static lk_status check_results(const lk_op_info *info, const lk_call *call,
                               lk_error *error) {
  for (int i = 0; i < info->results; i++) {
    const lk_role *role = &info->result[i];
    if (lk_present(&call->out[i]))
      LK_TRY(check_tensor(info->name, role->name, &call->out[i], error));
    else if (!role->optional)
      return lk_fail(error, LK_INTERNAL, "%s: the rule left %s open",
                     info->name, role->name);
  }
  return LK_OK;
}

/* Least traffic: every tensor once, what is read and written twice, nothing
 * for a view. */
static double traffic(const lk_op_info *info, const lk_call *call) {
  double bytes = 0;
  bool viewed = info->results > 0 && info->result[0].view;
  for (int i = 0; i < info->inputs && !viewed; i++)
    bytes += (double)lk_tensor_bytes(&call->in[i]);
  for (int i = 0; i < info->results && !viewed; i++) {
    const lk_role *role = &info->result[i];
    bool read = role->updated || (role->accumulated && call->attr.accumulate);
    bytes += (read ? 2.0 : 1.0) * (double)lk_tensor_bytes(&call->out[i]);
  }
  return bytes;
}

typedef lk_status (*rule_function)(const lk_profile *, lk_call *, lk_cost *,
                                   lk_error *);

static const rule_function rules[LK_OP_COUNT] = {
#define OP(name, results, inputs, attributes, gradient) \
  [LK_OP_##name] = rule_##name,
#include "ops.def"
#undef OP
};

lk_status lk_rule(const lk_profile *profile, lk_call *call, lk_cost *cost,
                  lk_error *error) {
  lk_cost unused;
  if (cost == NULL) cost = &unused;
  *cost = (lk_cost){.bytes = -1};
  if ((unsigned)call->op >= LK_OP_COUNT)
    return lk_fail(error, LK_ARGUMENT, "there is no operator %d", call->op);
  const lk_op_info *info = lk_op_info_of(call->op);
  LK_TRY(check_inputs(info, call, error));
  LK_TRY(check_presets(info, call, error));
  LK_TRY(rules[call->op](profile, call, cost, error));
  LK_TRY(check_results(info, call, error));
  if (cost->bytes < 0) cost->bytes = traffic(info, call);
  cost->scratch = lk_scratch(profile, call);
  return LK_OK;
}

/* --- running -------------------------------------------------------------- */

static lk_status check_usable(lk_context *context, const lk_call *call) {
  const char *op = lk_op_info_of(call->op)->name;
  if (context->broken)
    return lk_fail(&context->error, LK_DEVICE,
                   "%s: the device failed before; nothing works any more", op);
  if (context->backend->kernels[call->op] == NULL)
    return lk_fail(&context->error, LK_UNSUPPORTED,
                   "%s: backend %s does not have it", op,
                   context->backend->name);
  return LK_OK;
}

lk_status lk_context_interrupted(lk_context *context) {
  if (context->interrupted == NULL || !context->interrupted()) return LK_OK;
  return lk_fail(&context->error, LK_INTERRUPTED, "interrupted");
}

lk_status lk_run(lk_context *context, const lk_call *call) {
  LK_TRY(check_usable(context, call));
  LK_TRY(lk_context_interrupted(context));
  const lk_tracer *tracer = &context->tracer;
  if (tracer->before != NULL) tracer->before(tracer->state, call);
  lk_status status = context->backend->kernels[call->op](context, call);
  if (tracer->after != NULL) tracer->after(tracer->state, call);
  if (status == LK_DEVICE) context->broken = true;
  return status;
}

static bool overlap(const lk_tensor *a, const lk_tensor *b) {
  const char *x = a->data, *y = b->data;
  return lk_present(a) && lk_present(b) && x != NULL && y != NULL &&
         x < y + lk_tensor_bytes(b) && y < x + lk_tensor_bytes(a);
}

/* Memory is shared only as the entry allows: a result with the one input it
 * names, from the same start and of the same size. */
static lk_status check_aliases(const lk_call *call, lk_error *error) {
  const lk_op_info *info = lk_op_info_of(call->op);
  for (int r = 0; r < info->results; r++) {
    const lk_tensor *y = &call->out[r];
    for (int i = 0; i < info->inputs; i++) {
      const lk_tensor *x = &call->in[i];
      bool same = x->data == y->data &&
                  lk_tensor_bytes(x) == lk_tensor_bytes(y);
      if (overlap(y, x) && !(same && info->result[r].alias == i))
        return lk_fail(error, LK_ARGUMENT, "%s: %s may not overlap %s",
                       info->name, info->result[r].name, info->input[i].name);
    }
    for (int s = 0; s < r; s++)
      if (overlap(y, &call->out[s]))
        return lk_fail(error, LK_ARGUMENT, "%s: %s may not overlap %s",
                       info->name, info->result[r].name,
                       info->result[s].name);
  }
  return LK_OK;
}

static lk_status check_memory(const lk_call *call, lk_error *error) {
  const lk_op_info *info = lk_op_info_of(call->op);
  for (int i = 0; i < info->inputs; i++)
    if (lk_present(&call->in[i]) && call->in[i].data == NULL)
      return lk_fail(error, LK_ARGUMENT, "%s: %s has no memory", info->name,
                     info->input[i].name);
  for (int r = 0; r < info->results; r++) {
    const lk_role *role = &info->result[r];
    bool read = role->updated || (role->accumulated && call->attr.accumulate);
    if (read && lk_present(&call->out[r]) && call->out[r].data == NULL)
      return lk_fail(error, LK_ARGUMENT, "%s: %s has no memory", info->name,
                     role->name);
  }
  return LK_OK;
}

/* Memory for the results that have none: a view's is its input's. */
static lk_status give_memory(lk_context *context, lk_call *call,
                             lk_storage *storage[LK_MAX_RESULTS]) {
  const lk_op_info *info = lk_op_info_of(call->op);
  for (int r = 0; r < info->results; r++) {
    lk_tensor *y = &call->out[r];
    if (info->result[r].view) y->data = call->in[info->result[r].alias].data;
    if (!lk_present(y) || y->data != NULL) continue;
    LK_TRY(lk_storage_new(context, lk_tensor_bytes(y), LK_DATA, &storage[r]));
    y->data = lk_storage_data(storage[r]);
  }
  return LK_OK;
}

lk_status lk_dispatch(lk_context *context, lk_call *call,
                      lk_storage *storage[LK_MAX_RESULTS]) {
  lk_storage *scratch = NULL;
  lk_cost cost;
  for (int r = 0; r < LK_MAX_RESULTS; r++) storage[r] = NULL;
  call->beside = false;
  lk_status status = lk_rule(context->profile, call, &cost, &context->error);
  if (status == LK_OK) status = check_memory(call, &context->error);
  if (status == LK_OK) status = check_aliases(call, &context->error);
  if (status == LK_OK) status = give_memory(context, call, storage);
  if (status == LK_OK && cost.scratch > 0)
    status = lk_storage_new(context, cost.scratch, LK_SCRATCH, &scratch);
  if (scratch != NULL) call->scratch = lk_storage_data(scratch);
  if (status == LK_OK) status = lk_run(context, call);
  lk_storage_release(scratch);
  call->scratch = NULL;
  if (status == LK_OK) return LK_OK;
  for (int r = 0; r < LK_MAX_RESULTS; r++) {
    lk_storage_release(storage[r]);
    storage[r] = NULL;
  }
  return status;
}
