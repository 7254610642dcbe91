/* reshape, transpose, slice, unslice, cat: by index, for elements of one, two
 * and four bytes. */
#include "ops.h"

static const lk_dtype dtypes[] = {LK_F32, LK_BF16, LK_U8};

/* n distinct-enough elements */
static lk_tensor some_bytes(lk_dtype dtype, lk_shape shape, unsigned seed) {
  int64_t bytes = lk_dtype_bytes(dtype, lk_shape_count(shape));
  unsigned char *data = ops_memory(bytes);
  for (int64_t i = 0; i < bytes; i++)
    data[i] = (unsigned char)lk_philox(seed, (uint64_t)i, 0, 0).w[0];
  return ops_tensor(data, dtype, shape);
}

/* Position `at` of a row-major shape taken apart. */
static void unravel(lk_shape s, int64_t at, int64_t *index) {
  for (int i = s.rank - 1; i >= 0; i--) {
    index[i] = at % s.dim[i];
    at /= s.dim[i];
  }
}

static int64_t ravel(lk_shape s, const int64_t *index) {
  int64_t at = 0;
  for (int i = 0; i < s.rank; i++) at = at * s.dim[i] + index[i];
  return at;
}

static bool same(const lk_tensor *a, int64_t i, const lk_tensor *b,
                 int64_t j) {
  int64_t size = lk_dtype_bits(a->dtype) / 8;
  return !memcmp((char *)a->data + i * size, (char *)b->data + j * size,
                 (size_t)size);
}

static void check_transpose(lk_shape shape, int dim, int other) {
  for (int k = 0; k < 3; k++) {
    lk_call call = lk_call_new(LK_OP_transpose);
    call.attr = (lk_attr){.dim = dim, .other = other};
    call.in[0] = some_bytes(dtypes[k], shape, 1);
    ops_run(&call);
    int64_t wrong = 0, index[LK_MAX_RANK];
    for (int64_t i = 0; i < lk_shape_count(shape); i++) {
      unravel(shape, i, index);
      int64_t swap = index[dim];
      index[dim] = index[other];
      index[other] = swap;
      wrong += !same(&call.in[0], i, &call.out[0],
                     ravel(call.out[0].shape, index));
    }
    CHECK(wrong == 0, "%s: %lld wrong", lk_dtype_word(dtypes[k]),
          (long long)wrong);
  }
}

static void test_transpose(void) {
  check_transpose(lk_shape_of(37, 61), 0, 1);
  check_transpose(lk_shape_of(3, 5, 7, 4), 1, 2);
  check_transpose(lk_shape_of(3, 5, 7, 4), 3, 0);
  check_transpose(lk_shape_of(2, 70, 3, 40), 1, 3);
  check_transpose(lk_shape_of(3, 5, 7), 1, 1);
  check_transpose(lk_shape_of(1, 9), 0, 1);
}

/* slice takes out what unslice puts into zeros. */
static void check_slice(lk_shape shape, int dim, int64_t first, int64_t n) {
  lk_shape part = shape;
  part.dim[dim] = n;
  for (int k = 0; k < 3; k++) {
    lk_call call = lk_call_new(LK_OP_slice), back = lk_call_new(LK_OP_unslice);
    call.attr = back.attr = (lk_attr){.dim = dim, .first = first};
    call.in[0] = some_bytes(dtypes[k], shape, 2);
    call.out[0] = ops_tensor(NULL, dtypes[k], part);
    ops_run(&call);
    back.in[0] = call.out[0];
    back.out[0] = ops_tensor(NULL, dtypes[k], shape);
    ops_run(&back);
    lk_tensor zero = ops_tensor(ops_doubles(1), dtypes[k], lk_shape_of(1));
    int64_t index[LK_MAX_RANK];
    for (int64_t i = 0; i < lk_shape_count(shape); i++) {
      unravel(shape, i, index);
      index[dim] -= first;
      bool inside = index[dim] >= 0 && index[dim] < n;
      if (inside)
        CHECK(same(&call.in[0], i, &call.out[0], ravel(part, index)), "slice");
      CHECK(same(&back.out[0], i, inside ? &call.in[0] : &zero,
                 inside ? i : 0), "unslice");
    }
  }
}

static void test_slice(void) {
  check_slice(lk_shape_of(13), 0, 4, 5);
  check_slice(lk_shape_of(5, 7, 3), 1, 2, 4);
  check_slice(lk_shape_of(5, 7, 3), 2, 0, 1);
  check_slice(lk_shape_of(9, 3000), 0, 8, 1);
  check_slice(lk_shape_of(4, 2500), 1, 100, 2300);
}

static void test_cat(void) {
  for (int k = 0; k < 3; k++)
    for (int dim = 0; dim < 3; dim++) {
      lk_shape a = lk_shape_of(4, 5, 6), b = a;
      b.dim[dim] = 3;
      lk_call call = lk_call_new(LK_OP_cat);
      call.attr.dim = dim;
      call.in[0] = some_bytes(dtypes[k], a, 3);
      call.in[1] = some_bytes(dtypes[k], b, 4);
      ops_run(&call);
      int64_t index[LK_MAX_RANK];
      for (int64_t i = 0; i < lk_tensor_count(&call.out[0]); i++) {
        unravel(call.out[0].shape, i, index);
        bool second = index[dim] >= a.dim[dim];
        if (second) index[dim] -= a.dim[dim];
        CHECK(same(&call.out[0], i, &call.in[second],
                   ravel(second ? b : a, index)), "[%lld]", (long long)i);
      }
    }
}

static void test_reshape(void) {
  float *x = ops_numbers(12, 5, 1);
  lk_call call = lk_call_new(LK_OP_reshape);
  call.in[0] = OPS_F32(x, 3, 4);
  call.out[0] = OPS_F32(x, 2, 6);
  ops_run(&call);
  CHECK(call.out[0].data == (void *)x, "a view");
}

int main(void) {
  OPS_RUN(test_transpose);
  OPS_RUN(test_slice);
  OPS_RUN(test_cat);
  OPS_RUN(test_reshape);
  return check_done();
}
