/* The CPU backend's own ground: thread pool, levels, memory, device. */
#include <stdatomic.h>
#include <time.h>

#include "ops.h"

typedef struct tally {
  lk_context *context;
  atomic_int runs[1000], inside[64];
  atomic_int clashes;
  int lanes;
} tally;

static void count_part(void *opaque, int64_t index, int lane) {
  tally *t = opaque;
  if (lane < 0 || lane >= t->lanes || atomic_fetch_add(&t->inside[lane], 1))
    atomic_fetch_add(&t->clashes, 1);
  atomic_fetch_add(&t->runs[index], 1);
  atomic_fetch_sub(&t->inside[lane], 1);
}

/* Every part once, no lane twice at a time, over many short jobs. */
static void test_pool(void) {
  static tally t;
  for (int lanes = 1; lanes <= 5; lanes += 2) {
    lk_context *context = ops_open(lanes);
    memset(&t, 0, sizeof t);
    t.lanes = lanes;
    CHECK(cpu_lanes(context) == lanes, "%d", cpu_lanes(context));
    for (int job = 0; job < 300; job++)
      cpu_parallel(context, job % 7 == 0 ? 1000 : job % 5, count_part, &t);
    int64_t runs = 0, want = 0;
    for (int i = 0; i < 1000; i++) runs += t.runs[i];
    for (int job = 0; job < 300; job++) want += job % 7 == 0 ? 1000 : job % 5;
    CHECK(runs == want && t.runs[999] == 43, "%lld runs", (long long)runs);
    CHECK(t.clashes == 0, "%d clashes", t.clashes);
    lk_context_close(context);
  }
}

static void nested_inner(void *opaque, int64_t index, int lane) {
  tally *t = opaque;
  (void)lane;
  atomic_fetch_add(&t->runs[index], 1);
}

static void nested_outer(void *opaque, int64_t index, int lane) {
  tally *t = opaque;
  (void)index, (void)lane;
  cpu_parallel(t->context, 11, nested_inner, t);
}

/* A loop inside a loop's body runs inline. */
static void test_pool_nested(void) {
  static tally t;
  memset(&t, 0, sizeof t);
  t.context = ops_open(3);
  cpu_parallel(t.context, 50, nested_outer, &t);
  for (int i = 0; i < 11; i++) CHECK(t.runs[i] == 50, "%d", t.runs[i]);
  lk_context_close(t.context);
}

/* Workers that fell asleep between jobs come back. */
static void test_pool_sleep(void) {
  static tally t;
  memset(&t, 0, sizeof t);
  lk_context *context = ops_open(4);
  struct timespec pause = {0, 3000000};
  t.lanes = 4;
  for (int job = 0; job < 20; job++) {
    nanosleep(&pause, NULL);
    cpu_parallel(context, 100, count_part, &t);
  }
  CHECK(t.runs[0] == 20 && t.runs[99] == 20, "%d", t.runs[0]);
  lk_context_close(context);
}

static void test_levels(void) {
  const char *level = cpu_level();
  CHECK(cpu_level_kernels(level) != NULL, "%s", level);
  CHECK(cpu_level_kernels("v9") == NULL, "no such level");
  CHECK(!memcmp(lk_cpu_backend()->kernels, cpu_level_kernels(level),
                sizeof lk_cpu_backend()->kernels), "%s", level);
  const lk_kernel *kernels = cpu_level_kernels(level);
  for (int op = 0; op < LK_OP_COUNT; op++)
    CHECK(kernels[op] != NULL, "%s has no kernel",
          lk_op_info_of((lk_op)op)->name);
}

static void test_memory(void) {
  const lk_backend *b = lk_cpu_backend();
  lk_context *context = ops_open(2);
  int64_t sizes[] = {0, 1, 4096, 20 << 20};
  for (int i = 0; i < 4; i++) {
    char *data = b->allocate(context, sizes[i]);
    CHECK(data && (uintptr_t)data % 64 == 0, "%p", (void *)data);
    memset(data, 7, (size_t)sizes[i]);
    CHECK(b->zero(context, data, sizes[i]) == LK_OK, "zero");
    for (int64_t k = 0; k < sizes[i]; k++)
      if (data[k] != 0) CHECK(false, "byte %lld", (long long)k);
    b->release(context, data, sizes[i]);
  }
  CHECK(b->allocate(context, INT64_MAX / 2) == NULL, "too much");
  lk_context_close(context);
}

static void test_device(void) {
  lk_device_info info;
  lk_error error;
  CHECK(lk_cpu_backend()->device_count() == 1, "one device");
  CHECK(lk_cpu_backend()->device_info(0, &info, &error) == LK_OK, "info");
  CHECK(info.name[0] && info.capability[0], "%s %s", info.name,
        info.capability);
  CHECK(info.memory > 0 && info.free > 0 && info.free <= info.memory,
        "%lld of %lld", (long long)info.free, (long long)info.memory);
  CHECK(lk_cpu_backend()->device_info(1, &info, &error) == LK_ARGUMENT,
        "device 1");
  CHECK(!strcmp(error.message, "cpu: no device 1"), "%s", error.message);
}

/* A dtype that only another backend computes in is refused by name. */
static void test_refuses_bf16(void) {
  uint16_t x[8] = {0}, y[8];
  lk_context *context = ops_open(1);
  lk_call call = lk_call_new(LK_OP_exp);
  call.in[0] = ops_tensor(x, LK_BF16, lk_shape_of(8));
  call.out[0] = ops_tensor(y, LK_BF16, lk_shape_of(8));
  CHECK(lk_run(context, &call) == LK_UNSUPPORTED, "bf16");
  CHECK(!strcmp(context->error.message,
                "exp: the cpu backend computes in f32, not bf16"), "%s",
        context->error.message);
  lk_context_close(context);
}

int main(void) {
  ops_level = cpu_level();
  RUN(test_pool);
  RUN(test_pool_nested);
  RUN(test_pool_sleep);
  RUN(test_levels);
  RUN(test_memory);
  RUN(test_device);
  RUN(test_refuses_bf16);
  ops_free();
  return check_done();
}
