/* The accountant, contexts, storage, the operator list, dispatch. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "../../kernels/core/context.h"
#include "check.h"

/* --- the accountant ------------------------------------------------------ */

static void *plain_allocate(void *state, int64_t bytes) {
  ++*(int *)state;
  return malloc((size_t)bytes);
}

static void plain_release(void *state, void *data, int64_t bytes) {
  (void)bytes;
  --*(int *)state;
  free(data);
}

static void *never_allocate(void *state, int64_t bytes) {
  (void)state, (void)bytes;
  return NULL;
}

static void test_accountant(void) {
  int alive = 0;
  lk_memory *memory;
  lk_allocator allocator = {plain_allocate, plain_release, &alive};
  CHECK(lk_memory_open(allocator, &memory) == LK_OK, "open");
  int64_t a[LK_CATEGORY_COUNT] = {[LK_PARAMETERS] = 100, [LK_DATA] = 28};
  int64_t b[LK_CATEGORY_COUNT] = {[LK_SCRATCH] = 50};
  void *x, *y;
  CHECK(lk_memory_allocate(memory, a, &x, NULL) == LK_OK, "a");
  CHECK(lk_memory_allocate(memory, b, &y, NULL) == LK_OK, "b");
  lk_memory_release(memory, a, x);
  CHECK(lk_memory_allocate(memory, b, &x, NULL) == LK_OK, "b again");
  lk_memory_stats stats;
  lk_memory_read(memory, &stats);
  CHECK(stats.current == 100 && stats.peak == 178 && stats.allocations == 2,
        "%lld %lld", (long long)stats.current, (long long)stats.peak);
  CHECK(stats.category_peak[LK_PARAMETERS] == 100 &&
        stats.category_peak[LK_DATA] == 28 &&
        stats.category_peak[LK_SCRATCH] == 50, "composition at the peak");
  CHECK(stats.category_current[LK_PARAMETERS] == 0 &&
        stats.category_current[LK_SCRATCH] == 100, "composition now");
  lk_memory_reset_peak(memory);
  lk_memory_read(memory, &stats);
  CHECK(stats.peak == 100 && stats.category_peak[LK_SCRATCH] == 100, "reset");
  lk_memory_release(memory, b, x);
  lk_memory_release(memory, b, y);
  lk_memory_release(memory, b, NULL);
  lk_memory_read(memory, &stats);
  CHECK(stats.current == 0 && stats.allocations == 0 && alive == 0, "empty");
  lk_memory_close(memory);
}

static void check_text(const lk_error *error, const char *text) {
  CHECK(error->code == LK_OOM && strcmp(error->message, text) == 0, "%s",
        error->message);
}

static void test_budget(void) {
  int alive = 0;
  lk_memory *memory;
  lk_memory_open((lk_allocator){plain_allocate, plain_release, &alive},
                 &memory);
  lk_memory_set_budget(memory, 24000);
  int64_t most[LK_CATEGORY_COUNT] = {[LK_PARAMETERS] = 22000};
  int64_t more[LK_CATEGORY_COUNT] = {[LK_ACTIVATIONS] = 1900,
                                     [LK_SCRATCH] = 101};
  void *x, *y;
  lk_error error;
  CHECK(lk_memory_allocate(memory, most, &x, &error) == LK_OK, "most");
  CHECK(lk_memory_allocate(memory, more, &y, &error) == LK_OOM && y == NULL,
        "one byte too many");
  check_text(&error, "out of memory: 2.0 kB requested, 22.0 kB in use, "
                     "budget 24.0 kB (activations)");
  more[LK_SCRATCH] = 100;
  CHECK(lk_memory_allocate(memory, more, &y, &error) == LK_OK, "exactly full");
  lk_memory_release(memory, more, y);
  lk_memory_set_budget(memory, 100); /* below what is in use */
  CHECK(lk_memory_allocate(memory, more, &y, &error) == LK_OOM, "no room");
  lk_memory_set_budget(memory, 0);
  CHECK(lk_memory_allocate(memory, more, &y, &error) == LK_OK, "lifted");
  lk_memory_release(memory, more, y);
  lk_memory_release(memory, most, x);
  more[LK_SCRATCH] = -1;
  CHECK(lk_memory_allocate(memory, more, &y, &error) == LK_ARGUMENT,
        "negative");
  for (int i = 0; i < 4; i++) more[i] = (int64_t)1 << 62; /* 0 mod 2^64 */
  more[LK_SCRATCH] = 100;
  CHECK(lk_memory_allocate(memory, more, &y, &error) == LK_ARGUMENT,
        "more bytes than there are numbers for");
  lk_memory_close(memory);
}

static void test_failures(void) {
  int alive = 0;
  lk_memory *memory;
  void *x;
  lk_error error;
  int64_t part[LK_CATEGORY_COUNT] = {[LK_GRADIENTS] = 1200000000};
  lk_memory_open((lk_allocator){never_allocate, plain_release, NULL},
                 &memory);
  CHECK(lk_memory_allocate(memory, part, &x, &error) == LK_OOM, "full");
  check_text(&error,
             "out of memory: 1.2 GB requested, 0 B in use (gradients)");
  lk_memory_close(memory);
  lk_memory_open((lk_allocator){plain_allocate, plain_release, &alive},
                 &memory);
  part[LK_GRADIENTS] = 16;
  lk_memory_fail_after(memory, 3);
  for (int i = 1; i <= 5; i++) {
    lk_status status = lk_memory_allocate(memory, part, &x, &error);
    CHECK(status == (i == 3 ? LK_OOM : LK_OK), "allocation %d", i);
    if (status == LK_OK) lk_memory_release(memory, part, x);
  }
  CHECK(alive == 0, "%d alive", alive);
  lk_memory_close(memory);
}

static void *allocate_often(void *opaque) {
  lk_memory *memory = opaque;
  int64_t part[LK_CATEGORY_COUNT] = {[LK_DATA] = 8};
  for (int i = 0; i < 2000; i++) {
    void *x;
    if (lk_memory_allocate(memory, part, &x, NULL) == LK_OK)
      lk_memory_release(memory, part, x);
  }
  return NULL;
}

static void test_threads(void) {
  int alive = 0;
  lk_memory *memory;
  pthread_t threads[4];
  lk_memory_open((lk_allocator){plain_allocate, plain_release, &alive},
                 &memory);
  for (int i = 0; i < 4; i++)
    pthread_create(&threads[i], NULL, allocate_often, memory);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  lk_memory_stats stats;
  lk_memory_read(memory, &stats);
  CHECK(stats.current == 0 && stats.allocations == 0 && alive == 0, "%lld",
        (long long)stats.current);
  CHECK(stats.peak >= 8 && stats.peak <= 32, "%lld", (long long)stats.peak);
  lk_memory_close(memory);
}

/* --- contexts and storage ------------------------------------------------ */

static lk_context *opened(void) {
  lk_context *context = NULL;
  lk_error error = {0};
  lk_backend_register(lk_cpu_backend());
  lk_backend_register(lk_cpu_backend()); /* once is enough */
  lk_status status =
      lk_context_open(lk_backend_find("cpu"), 0, &context, &error);
  CHECK(status == LK_OK, "%s", error.message);
  return context;
}

static void test_context(void) {
  lk_context *context = opened(), *other;
  lk_error error;
  CHECK(lk_backend_at(0) == lk_cpu_backend() && lk_backend_at(1) == NULL &&
        lk_backend_at(-1) == NULL, "one backend");
  CHECK(lk_backend_find("tpu") == NULL, "no such backend");
  CHECK(lk_context_open(lk_cpu_backend(), 1, &other, &error) == LK_ARGUMENT &&
        other == NULL, "device 1");
  CHECK(strcmp(error.message, "there is no device cpu:1 (1 found)") == 0,
        "%s", error.message);
  CHECK(context->profile == lk_profile_find("cpu"), "profile");
  CHECK(context->profile->lanes == lk_threads() && lk_threads() >= 1, "lanes");
  CHECK(lk_profile_find("cuda")->compute == LK_BF16, "cuda is planned here");
  CHECK(lk_profile_find("tpu") == NULL, "no such profile");
  lk_context_close(context);
  lk_context_close(NULL);
}

static void test_storage(void) {
  lk_context *context = opened();
  lk_storage *s;
  lk_memory_stats stats;
  CHECK(lk_storage_new(context, 1000, LK_OPTIMIZER, &s) == LK_OK, "new");
  CHECK((uintptr_t)lk_storage_data(s) % 64 == 0, "aligned");
  CHECK(lk_storage_bytes(s) == 1000 && lk_storage_context(s) == context, "is");
  lk_memory_read(context->memory, &stats);
  CHECK(stats.category_current[LK_OPTIMIZER] == 1000, "charged");
  lk_storage_retain(s);
  lk_storage_release(s);
  lk_memory_read(context->memory, &stats);
  CHECK(stats.current == 1000, "still used");
  lk_storage_release(s);
  lk_storage_release(NULL);
  lk_memory_read(context->memory, &stats);
  CHECK(stats.current == 0, "freed");
  lk_memory_set_budget(context->memory, 500);
  CHECK(lk_storage_new(context, 1000, LK_DATA, &s) == LK_OOM && s == NULL,
        "over budget");
  CHECK(strcmp(context->error.message, "out of memory: 1.0 kB requested, 0 B "
               "in use, budget 500 B (data)") == 0, "%s",
        context->error.message);
  lk_context_close(context);
}

/* --- the list ------------------------------------------------------------ */

static void test_op_info(void) {
  const lk_op_info *info = lk_op_info_of(LK_OP_residual_norm);
  CHECK(info->results == 5 && info->inputs == 4, "residual_norm");
  CHECK(info->result[0].alias == 0 && info->result[1].alias == -1 &&
        !info->result[0].view, "h=x");
  CHECK(info->input[3].optional && strcmp(info->input[3].name, "clock") == 0,
        "clock?");
  info = lk_op_info_of(LK_OP_nf4r_update);
  CHECK(info->result[2].updated && info->result[2].optional &&
        strcmp(info->result[2].name, "residual") == 0, "!residual?");
  CHECK(!info->result[2].shared, "! alone");
  info = lk_op_info_of(LK_OP_sum_squares);
  CHECK(info->result[0].updated && info->result[0].shared &&
        strcmp(info->result[1].name, "control") == 0, "&slots &control");
  info = lk_op_info_of(LK_OP_matmul);
  CHECK(info->result[0].accumulated && info->result[0].alias == -1, "+y");
  info = lk_op_info_of(LK_OP_reshape);
  CHECK(info->result[0].view && info->result[0].alias == 0, "y@x");
  CHECK(lk_op_info_of(LK_OP_fill)->inputs == 0, "fill");
  for (int op = 0; op < LK_OP_COUNT; op++) {
    info = lk_op_info_of((lk_op)op);
    CHECK(lk_op_find(info->name) == (lk_op)op, "%s", info->name);
    CHECK(info->results >= 1 && info->results <= LK_MAX_RESULTS &&
          info->inputs <= LK_MAX_INPUTS, "%s", info->name);
  }
  CHECK(lk_op_find("nothing") == LK_OP_COUNT, "unknown");
}

/* --- dispatch ------------------------------------------------------------ */

static lk_tensor tensor(void *data, int64_t a, int64_t b) {
  return (lk_tensor){data, LK_F32, lk_shape_of(a, b)};
}

static void test_dispatch(void) {
  lk_context *context = opened();
  float x[6] = {1, 2, 3, 4, 5, 6}, y[3] = {10, 20, 30};
  lk_storage *storage[LK_MAX_RESULTS];
  lk_call call = lk_call_new(LK_OP_add);
  call.in[0] = tensor(x, 2, 3);
  call.in[1] = tensor(y, 1, 3);
  CHECK(lk_dispatch(context, &call, storage) == LK_OK, "%s",
        context->error.message);
  const float *z = call.out[0].data;
  CHECK(z[0] == 11 && z[5] == 36 && storage[0] != NULL &&
        lk_storage_data(storage[0]) == z, "sum");
  lk_storage_release(storage[0]);
  call = lk_call_new(LK_OP_sum); /* with scratch, which is gone after */
  call.in[0] = tensor(x, 2, 3);
  call.attr.dim = -1;
  CHECK(lk_dispatch(context, &call, storage) == LK_OK &&
        *(float *)call.out[0].data == 21 && call.scratch == NULL, "21");
  lk_storage_release(storage[0]);
  call = lk_call_new(LK_OP_reshape);
  call.in[0] = tensor(x, 2, 3);
  call.out[0] = tensor(NULL, 3, 2);
  CHECK(lk_dispatch(context, &call, storage) == LK_OK &&
        call.out[0].data == x && storage[0] == NULL, "a view");
  lk_memory_stats stats;
  lk_memory_read(context->memory, &stats);
  CHECK(stats.current == 0, "%lld bytes left", (long long)stats.current);
  lk_context_close(context);
}

static void check_refused(lk_context *context, lk_call call,
                          const char *text) {
  lk_storage *storage[LK_MAX_RESULTS];
  lk_status status = lk_dispatch(context, &call, storage);
  CHECK(status != LK_OK && strcmp(context->error.message, text) == 0, "%s",
        context->error.message);
}

static void test_refusals(void) {
  lk_context *context = opened();
  float x[12] = {0};
  lk_call call = lk_call_new(LK_OP_add);
  call.in[0] = tensor(x, 2, 3);
  call.in[1] = tensor(NULL, 2, 3);
  check_refused(context, call, "add: b has no memory");
  call.in[1] = tensor(x + 6, 2, 3);
  call.out[0] = tensor(x + 6, 2, 3);
  check_refused(context, call, "add: y may not overlap b");
  call.out[0] = tensor(x + 1, 2, 3);
  check_refused(context, call, "add: y may not overlap a");
  call.in[0] = tensor(x, 1, 3); /* y in its place is larger */
  call.out[0] = tensor(x, 2, 3);
  check_refused(context, call, "add: y may not overlap a");
  call = lk_call_new(LK_OP_head_norm_backward);
  call.op = (lk_op)LK_OP_COUNT;
  lk_cost cost;
  lk_error error;
  CHECK(lk_rule(context->profile, &call, &cost, &error) == LK_ARGUMENT,
        "no operator");
  context->broken = true;
  call = lk_call_new(LK_OP_copy);
  call.in[0] = tensor(x, 2, 3);
  check_refused(context, call,
                "copy: the device failed before; nothing works any more");
  context->broken = false;
  lk_context_close(context);
}

/* Every allocation of a call fails once; nothing is left behind. */
static void test_dispatch_failures(void) {
  lk_context *context = opened();
  float x[6] = {0};
  for (int n = 1;; n++) {
    lk_storage *storage[LK_MAX_RESULTS];
    lk_call call = lk_call_new(LK_OP_sum);
    call.in[0] = tensor(x, 2, 3);
    call.attr.dim = 0;
    lk_memory_fail_after(context->memory, n);
    lk_status status = lk_dispatch(context, &call, storage);
    if (status == LK_OK) {
      CHECK(n == 3, "result and scratch, %d", n);
      lk_memory_fail_after(context->memory, 0);
      lk_storage_release(storage[0]);
      break;
    }
    CHECK(status == LK_OOM && storage[0] == NULL, "%d", n);
  }
  lk_memory_stats stats;
  lk_memory_read(context->memory, &stats);
  CHECK(stats.current == 0, "%lld bytes left", (long long)stats.current);
  lk_context_close(context);
}

/* --- tracing ------------------------------------------------------------- */

static void count_before(void *state, const lk_call *call) {
  if (call->op == LK_OP_copy) ++*(int *)state;
}

static void count_after(void *state, const lk_call *call) {
  if (call->op == LK_OP_copy) *(int *)state += 10;
}

static void test_tracer(void) {
  lk_context *context = opened();
  float x[6] = {0};
  int seen = 0;
  lk_storage *storage[LK_MAX_RESULTS];
  lk_call call = lk_call_new(LK_OP_copy);
  call.in[0] = tensor(x, 2, 3);
  context->tracer = (lk_tracer){count_before, count_after, &seen};
  CHECK(lk_dispatch(context, &call, storage) == LK_OK && seen == 11, "%d",
        seen);
  lk_storage_release(storage[0]);
  lk_context_close(context);
}

int main(void) {
  RUN(test_accountant);
  RUN(test_budget);
  RUN(test_failures);
  RUN(test_threads);
  RUN(test_context);
  RUN(test_storage);
  RUN(test_op_info);
  RUN(test_dispatch);
  RUN(test_refusals);
  RUN(test_dispatch_failures);
  RUN(test_tracer);
  return check_done();
}
