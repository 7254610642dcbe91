/* Runs of calls beside each other on CUDA: large updates of many tensors, the
 * same bits with flags as without, call by call and recorded, also where a call
 * within a run takes a kernel that does not begin early. Skipped where there is
 * no device. */
#include "backends.h"

#include "../../kernels/core/scratch.h"
#include "../../kernels/graph/beside.h"

enum {
  TENSORS = 8,
  ROOM = 1 << 20,   /* values from one tensor to the next */
  SLOTS = TENSORS * ROOM / LK_SUM_PIECE,
  CALLS = 4 * TENSORS + 1,
  ROUNDS = 3
};

/* What calls work on: for every tensor a gradient, momentum, direction,
 * weights, their copy, and AdamW's second moment. */
typedef enum { G, M, U, W, COPY, V, SLOT, CONTROL, PARTS } part;
static const struct {
  lk_dtype dtype;
  int64_t count;
} parts[PARTS] = {
    [G] = {LK_F32, TENSORS * ROOM},     [M] = {LK_F32, TENSORS * ROOM},
    [U] = {LK_BF16, TENSORS * ROOM},    [W] = {LK_F32, TENSORS * ROOM},
    [COPY] = {LK_BF16, TENSORS * ROOM}, [V] = {LK_F32, TENSORS * ROOM},
    [SLOT] = {LK_F32, SLOTS},           [CONTROL] = {LK_F32, LK_CONTROL},
};

static int64_t part_bytes(int p) {
  return lk_dtype_bytes(parts[p].dtype, parts[p].count);
}

/* The fourth tensor has no whole groups. */
static int64_t count_of(int k) {
  return ROOM - 8192 * k - (k == 3 ? 5 : 0);
}

/* What a part holds at first. */
static void *image_of(int p) {
  static void *images[PARTS];
  static float *numbers;
  if (images[p] != NULL) return images[p];
  if (p == CONTROL) return images[p] = back_control(1).data;
  if (numbers == NULL) numbers = back_numbers(1 << 16, 0.1f);
  images[p] = back_memory(part_bytes(p));
  memset(images[p], 0, (size_t)part_bytes(p));
  float *x = images[p];
  for (int64_t i = 0; (p == G || p == M || p == W) && i < parts[p].count; i++)
    x[i] = numbers[(i * 7 + p) & 0xFFFF];
  return x;
}

typedef struct machine {
  back_device d;
  char *data[PARTS];
  lk_call calls[CALLS];
} machine;

static lk_tensor tensor_of(const machine *m, part p, int k) {
  int64_t at = lk_dtype_bytes(parts[p].dtype, (int64_t)k * ROOM);
  return (lk_tensor){m->data[p] + at, parts[p].dtype,
                     lk_shape_of(count_of(k))};
}

static lk_tensor whole_of(const machine *m, part p) {
  return (lk_tensor){m->data[p], parts[p].dtype,
                     lk_shape_of(parts[p].count)};
}

/* Squares, clipping, momenta, updates. */
static void make_calls(machine *m) {
  lk_call *c = m->calls;
  for (int k = 0; k < TENSORS; k++, c++) {
    *c = lk_call_new(LK_OP_sum_squares);
    c->in[0] = tensor_of(m, G, k);
    c->out[0] = whole_of(m, SLOT);
    c->out[1] = whole_of(m, CONTROL);
    c->attr.index = (int64_t)k * ROOM / LK_SUM_PIECE;
  }
  *c = lk_call_new(LK_OP_clip);
  c->in[0] = whole_of(m, SLOT);
  c->out[0] = whole_of(m, CONTROL);
  c++;
  for (int k = 0; k < TENSORS; k++, c++) {
    *c = lk_call_new(LK_OP_muon_momentum);
    c->in[0] = tensor_of(m, G, k);
    c->in[1] = whole_of(m, CONTROL);
    c->out[0] = tensor_of(m, M, k);
    c->out[1] = tensor_of(m, U, k);
    c->attr.beta1 = 0.95;
  }
  for (int k = 0; k < TENSORS; k++, c++) {
    *c = lk_call_new(LK_OP_muon_update);
    c->in[0] = tensor_of(m, U, TENSORS - 1 - k);
    c->in[1] = whole_of(m, CONTROL);
    c->out[0] = tensor_of(m, W, TENSORS - 1 - k);
    c->out[1] = tensor_of(m, COPY, TENSORS - 1 - k);
    c->attr = (lk_attr){.lr = 0.01, .scale = 1, .decay = 0.1};
  }
  for (int k = 0; k < TENSORS; k++, c++) {
    *c = lk_call_new(LK_OP_adamw);
    c->in[0] = tensor_of(m, G, k);
    c->in[1] = whole_of(m, CONTROL);
    c->out[0] = tensor_of(m, W, k);
    c->out[1] = tensor_of(m, M, k);
    c->out[2] = tensor_of(m, V, k);
    c->out[3] = tensor_of(m, COPY, k);
    c->attr = (lk_attr){.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.99, .eps = 1};
  }
}

static void run_calls(machine *m) {
  for (int i = 0; i < CALLS; i++) BACK_OK(lk_run(back_cuda, &m->calls[i]));
}

static void run_recorded(machine *m) {
  const lk_backend *b = back_cuda->backend;
  void *recording = NULL;
  BACK_OK(b->record_begin(back_cuda));
  run_calls(m);
  lk_status status = b->record_end(back_cuda, &recording);
  CHECK(status == LK_OK, "%s", back_cuda->error.message);
  for (int i = 0; i < ROUNDS && status == LK_OK; i++)
    BACK_OK(b->replay(back_cuda, recording));
  if (recording) b->forget(back_cuda, recording);
}

/* What the parts hold after some rounds; how many calls may begin early. */
static int run(bool beside, bool recorded, void *out[PARTS]) {
  machine m = {.d.count = 0};
  int flags = 0;
  for (int p = 0; p < PARTS; p++)
    m.data[p] = back_device_new(&m.d, image_of(p), part_bytes(p));
  make_calls(&m);
  for (int i = 0; i < CALLS; i++)
    BACK_OK(lk_rule(back_cuda->profile, &m.calls[i], NULL, &back_cuda->error));
  if (beside) lk_beside_mark(back_cuda->profile, m.calls, CALLS);
  for (int i = 0; i < CALLS; i++) flags += m.calls[i].beside;
  if (recorded) run_recorded(&m);
  for (int i = 0; i < ROUNDS && !recorded; i++) run_calls(&m);
  for (int p = 0; p < PARTS; p++) {
    out[p] = back_memory(part_bytes(p));
    BACK_OK(back_cuda->backend->download(back_cuda, out[p], m.data[p],
                                         part_bytes(p)));
  }
  back_device_close(&m.d, "a run");
  return flags;
}

static void check_same(const char *what, void *const a[PARTS],
                       void *const b[PARTS]) {
  for (int p = 0; p < PARTS; p++)
    CHECK(memcmp(a[p], b[p], (size_t)part_bytes(p)) == 0, "%s: part %d", what,
          p);
}

static void test_same_bits(void) {
  NEED_DEVICE();
  void *plain[PARTS], *other[PARTS];
  CHECK(run(false, false, plain) == 0, "flags from nowhere");
  float norm = ((float *)plain[CONTROL])[LK_CONTROL_NORM];
  CHECK(norm > 0 && isfinite(norm), "norm %g", (double)norm);
  for (int i = 0; i < 3; i++) {
    int flags = run(true, i > 0, other);
    CHECK(flags == 4 * (TENSORS - 1), "%d flags", flags);
    check_same(i > 0 ? "recorded" : "call by call", plain, other);
  }
  run(false, true, other);
  check_same("recorded without flags", plain, other);
}

int main(void) {
  BACK_RUN(test_same_bits);
  if (back_cuda != NULL) lk_context_close(back_cuda);
  if (back_cpu != NULL) lk_context_close(back_cpu);
  return check_done();
}
