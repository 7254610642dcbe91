/* embed, its gradient, rope_table and rope. */
#include "ops.h"

enum { ROWS = 61, WIDTH = 37, COUNT = 203 };

static int32_t *some_ids(void) {
  int32_t *ids = ops_memory(COUNT * 4);
  for (int n = 0; n < COUNT; n++)
    ids[n] = (int32_t)(lk_philox(5, (uint64_t)n, 0, 0).w[0] % (ROWS / 2)) * 2;
  ids[COUNT - 1] = ROWS - 1;
  return ids;
}

static void test_embed(void) {
  float *table = ops_numbers(ROWS * WIDTH, 1, 1);
  int32_t *ids = some_ids();
  double *want = ops_doubles(COUNT * WIDTH);
  for (int i = 0; i < COUNT * WIDTH; i++)
    want[i] = 1.7 * table[ids[i / WIDTH] * WIDTH + i % WIDTH];
  lk_call call = lk_call_new(LK_OP_embed);
  call.attr.scale = 1.7;
  call.in[0] = OPS_I32(ids, COUNT);
  call.in[1] = OPS_F32(table, ROWS, WIDTH);
  ops_run(&call);
  ops_close("y", call.out[0].data, want, COUNT * WIDTH, 2e-7);
}

static void test_embed_backward(void) {
  int32_t *ids = some_ids();
  float *dy = ops_numbers(COUNT * WIDTH, 2, 1);
  for (int accumulate = 0; accumulate < 2; accumulate++) {
    float *dtable = ops_numbers(ROWS * WIDTH, 3, 1);
    double *want = ops_doubles(ROWS * WIDTH);
    for (int i = 0; i < ROWS * WIDTH && accumulate; i++) want[i] = dtable[i];
    for (int i = 0; i < COUNT * WIDTH; i++)
      want[ids[i / WIDTH] * WIDTH + i % WIDTH] += 0.3 * dy[i];
    lk_call call = lk_call_new(LK_OP_embed_backward);
    call.attr = (lk_attr){.scale = 0.3, .accumulate = accumulate};
    call.in[0] = OPS_F32(dy, COUNT, WIDTH);
    call.in[1] = OPS_I32(ids, COUNT);
    call.out[0] = OPS_F32(dtable, ROWS, WIDTH);
    ops_run(&call);
    ops_close("dtable", dtable, want, ROWS * WIDTH, 1e-6);
  }
}

static void test_embed_refuses(void) {
  int32_t ids[] = {0, 3, ROWS};
  float *table = ops_numbers(ROWS * WIDTH, 1, 1);
  lk_context *context = ops_open(2);
  lk_call call = lk_call_new(LK_OP_embed);
  call.attr.scale = 1;
  call.in[0] = OPS_I32(ids, 3);
  call.in[1] = OPS_F32(table, ROWS, WIDTH);
  call.out[0] = OPS_F32(ops_memory(3 * WIDTH * 4), 3, WIDTH);
  CHECK(lk_run(context, &call) == LK_ARGUMENT, "an id past the table");
  CHECK(!strcmp(context->error.message,
                "embed: ids[2] is 61, the table has 61 rows"), "%s",
        context->error.message);
  lk_context_close(context);
}

/* --- rotary positions ---------------------------------------------------- */

enum { T = 13, HEADS = 4, KV = 2, D = 12, HALF = D / 2 };
enum { ROW = (HEADS + 2 * KV) * D };

/* cos and sin by the contract: n frequencies, the rest 0 */
static void table_reference(const lk_attr *a, double *table) {
  int n = (int)lround(a->fraction * HALF);
  for (int t = 0; t < T; t++)
    for (int i = 0; i < HALF; i++) {
      double steps = a->inclusive ? n - 1 : n;
      double f = i < n ? exp(-log(a->base) * i / (steps > 0 ? steps : 1)) : 0;
      double angle = (double)(t + a->first) * f;
      table[(t * HALF + i) * 2] = cos(angle);
      table[(t * HALF + i) * 2 + 1] = sin(angle);
    }
}

static float *check_table(lk_attr attr) {
  lk_call call = lk_call_new(LK_OP_rope_table);
  call.attr = attr;
  call.out[0] = OPS_F32(ops_memory(T * HALF * 8), T, HALF, 2);
  ops_run(&call);
  double *want = ops_doubles(T * HALF * 2);
  table_reference(&attr, want);
  ops_close("table", call.out[0].data, want, T * HALF * 2, 1e-7);
  return call.out[0].data;
}

static void test_rope_table(void) {
  check_table((lk_attr){.base = 10000, .fraction = 1});
  check_table((lk_attr){.base = 10000, .fraction = 0.5, .inclusive = true});
  check_table((lk_attr){.base = 500, .fraction = 0, .first = 7});
  check_table((lk_attr){.base = 500, .fraction = 1.0 / HALF, .first = 90,
                        .inclusive = true});
}

static void rope_reference(const float *x, const double *table, double *y,
                           double sign) {
  for (int i = 0; i < 2 * T * ROW; i++) y[i] = x[i];
  for (int r = 0; r < 2 * T; r++)
    for (int h = 0; h < HEADS + KV; h++)
      for (int i = 0; i < HALF; i++) {
        int at = r * ROW + h * D + i;
        double c = table[(r % T * HALF + i) * 2];
        double s = sign * table[(r % T * HALF + i) * 2 + 1];
        y[at] = x[at] * c + x[at + HALF] * s;
        y[at + HALF] = -x[at] * s + x[at + HALF] * c;
      }
}

static void test_rope(void) {
  lk_attr attr = {.base = 100, .fraction = 0.5, .inclusive = true};
  float *x = ops_numbers(2 * T * ROW, 4, 1), *table = check_table(attr);
  double *wide = ops_widen(table, T * HALF * 2);
  double *want = ops_doubles(2 * T * ROW);
  lk_call call = lk_call_new(LK_OP_rope);
  call.attr = (lk_attr){.heads = HEADS, .kv_heads = KV, .width = D};
  call.in[0] = OPS_F32(x, 2 * T, ROW);
  call.in[1] = OPS_F32(table, T, HALF, 2);
  rope_reference(x, wide, want, 1);
  ops_run(&call);
  ops_close("y", call.out[0].data, want, 2 * T * ROW, 5e-7);
  call.attr.inverse = true;
  rope_reference(x, wide, want, -1);
  ops_run(&call);
  ops_close("inverse", call.out[0].data, want, 2 * T * ROW, 5e-7);
  /* in place, forward of the inverse: back to x */
  call.in[0] = call.out[0];
  call.attr.inverse = false;
  ops_run(&call);
  ops_close("back", call.out[0].data, ops_widen(x, 2 * T * ROW), 2 * T * ROW,
            5e-7);
}

int main(void) {
  OPS_RUN(test_embed);
  OPS_RUN(test_embed_backward);
  OPS_RUN(test_embed_refuses);
  OPS_RUN(test_rope_table);
  OPS_RUN(test_rope);
  return check_done();
}
