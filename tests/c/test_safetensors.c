/* safetensors: what is written is read again, foreign files open, and no
 * damaged file passes or crashes. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../host/sys/file.h"
#include "../../host/sys/safetensors.h"
#include "check.h"

static const char *place(void) {
  static char path[512];
  const char *folder = getenv("TMPDIR");
  snprintf(path, sizeof path, "%s/test_safetensors_%ld.safetensors",
           folder ? folder : "/tmp", (long)getpid());
  return path;
}

/* --- writing and reading ------------------------------------------------- */

static const float floats[6] = {1, -2, 3.5f, 0, 1e-30f, 7};
static const uint8_t bytes3[3] = {1, 2, 255};

static lh_safetensors_entry entries[] = {
    {"odd", LK_U8, {2, {3, 1}}, 1},
    {"b \"quoted\"\n\\é", LK_F32, {2, {2, 3}}, 2},
    {"half", LK_BF16, {1, {1}}, 3},
    {"scalar", LK_F32, {0, {0}}, 4}};
enum { COUNT = sizeof entries / sizeof *entries };

static const void *value_of(int64_t tag, int64_t *bytes) {
  static const uint16_t half = 0x3F80;
  static const int64_t sizes[] = {0, 3, 24, 2, 4};
  const void *const values[] = {NULL, bytes3, floats, &half, &floats[1]};
  *bytes = sizes[tag];
  return values[tag];
}

static lk_status write_all(const char *path, lk_error *e) {
  lh_safetensors_writer *w;
  lh_safetensors_pair pairs[] = {{"format", "pt"}, {"a", "tab\tand \x01"}};
  lh_safetensors_sort(entries, COUNT);
  LK_TRY(lh_safetensors_writer_open(&w, path, entries, COUNT, pairs, 2, e));
  for (int i = 0; i < COUNT; i++) {
    int64_t bytes;
    const char *value = value_of(entries[i].tag, &bytes);
    lk_status status = lh_safetensors_writer_append(w, value, 1, e);
    if (status == LK_OK)
      status = lh_safetensors_writer_append(w, value + 1, bytes - 1, e);
    if (status == LK_OK) continue;
    lh_safetensors_writer_abort(w);
    return status;
  }
  return lh_safetensors_writer_commit(w, e);
}

static void test_round_trip(void) {
  lk_error e = {0};
  lh_safetensors f;
  CHECK(write_all(place(), &e) == LK_OK, "%s", e.message);
  CHECK(lh_safetensors_open(place(), &f, &e) == LK_OK, "%s", e.message);
  CHECK(f.count == COUNT, "%d", (int)f.count);
  for (int i = 0; i < COUNT && f.count == COUNT; i++) {
    char got[32];
    int64_t bytes;
    const void *want = value_of(entries[i].tag, &bytes);
    const lh_safetensor *t = lh_safetensors_find(&f, entries[i].name);
    CHECK(t != NULL, "%s", entries[i].name);
    if (t == NULL) continue;
    CHECK(t->dtype == entries[i].dtype && t->bytes == bytes);
    CHECK(lk_shape_equal(t->shape, entries[i].shape));
    CHECK(t->offset % (lk_dtype_bits(t->dtype) / 8) == 0, "%d",
          (int)t->offset);
    CHECK(lh_safetensors_read(&f, t, 0, got, bytes, &e) == LK_OK);
    CHECK(memcmp(got, want, (size_t)bytes) == 0, "%s", t->name);
    CHECK(lh_safetensors_read(&f, t, 1, got, bytes, &e) == LK_INTERNAL);
  }
  const char *a = lh_safetensors_metadata(&f, "a");
  CHECK(a && strcmp(a, "tab\tand \x01") == 0);
  CHECK(lh_safetensors_metadata(&f, "b") == NULL);
  CHECK(lh_safetensors_find(&f, "nothing") == NULL);
  lh_safetensors_close(&f);
  unlink(place());
}

static void test_header_is_aligned(void) {
  lk_error e = {0};
  uint8_t *data;
  int64_t size;
  CHECK(write_all(place(), &e) == LK_OK, "%s", e.message);
  CHECK(lh_file_read(place(), 0, (void **)&data, &size, &e) == LK_OK);
  int header = data[0] | data[1] << 8;
  CHECK(header % 8 == 0 && data[8] == '{', "%d", header);
  CHECK(8 + header + 33 == size, "%d of %d", header, (int)size);
  free(data);
  unlink(place());
}

static void test_empty(void) {
  lk_error e = {0};
  lh_safetensors f;
  lh_safetensors_writer *w;
  CHECK(lh_safetensors_writer_open(&w, place(), NULL, 0, NULL, 0, &e) == LK_OK);
  CHECK(lh_safetensors_writer_commit(w, &e) == LK_OK);
  CHECK(lh_safetensors_open(place(), &f, &e) == LK_OK, "%s", e.message);
  CHECK(f.count == 0 && lh_safetensors_find(&f, "x") == NULL);
  CHECK(lh_safetensors_metadata(&f, "x") == NULL);
  lh_safetensors_close(&f);
  unlink(place());
}

/* A file by another writer: the reference models of the tests. */
static void test_foreign(void) {
  lk_error e = {0};
  lh_safetensors f;
  const char *path = "tests/reference/mha.safetensors";
  if (access(path, R_OK) != 0) SKIP("the reference files are not here");
  CHECK(lh_safetensors_open(path, &f, &e) == LK_OK, "%s", e.message);
  CHECK(f.count > 10, "%d", (int)f.count);
  for (int64_t i = 1; i < f.count; i++)
    CHECK(strcmp(f.tensor[i - 1].name, f.tensor[i].name) < 0);
  lh_safetensors_close(&f);
}

/* --- refusing to write --------------------------------------------------- */

static void refuse(lh_safetensors_entry *list, int64_t count, lk_status code,
                   const char *message) {
  lk_error e = {0};
  lh_safetensors_writer *w;
  CHECK(lh_safetensors_writer_open(&w, place(), list, count, NULL, 0, &e) ==
        code, "%s", e.message);
  CHECK(w == NULL);
  CHECK(strstr(e.message, message) != NULL, "'%s' lacks '%s'", e.message,
        message);
  CHECK(access(place(), F_OK) != 0);
}

static void test_bad_entries(void) {
  lh_safetensors_entry one = {"x", LK_F32, {1, {2}}, 0};
  refuse((lh_safetensors_entry[]){one, one}, 2, LK_ARGUMENT,
         "the name 'x' comes twice");
  one.name = "\xff";
  refuse(&one, 1, LK_ARGUMENT, "a tensor's name is not UTF-8");
  one.name = "__metadata__";
  refuse(&one, 1, LK_ARGUMENT, "no tensor can be called __metadata__");
  one = (lh_safetensors_entry){"q", LK_U4, {1, {2}}, 0};
  refuse(&one, 1, LK_DTYPE, "tensor 'q' is u4, safetensors has whole bytes");
}

static void test_wrong_amount(void) {
  lk_error e = {0};
  lh_safetensors_writer *w;
  lh_safetensors_entry one = {"x", LK_F32, {1, {2}}, 0};
  CHECK(lh_safetensors_writer_open(&w, place(), &one, 1, NULL, 0, &e) == LK_OK);
  CHECK(lh_safetensors_writer_append(w, floats, 12, &e) == LK_INTERNAL);
  CHECK(lh_safetensors_writer_append(w, floats, 4, &e) == LK_OK);
  CHECK(lh_safetensors_writer_commit(w, &e) == LK_INTERNAL);
  CHECK(strstr(e.message, "4 bytes of values are missing") != NULL, "%s",
        e.message);
  CHECK(access(place(), F_OK) != 0);
}

/* Every output call fails once: the old file stays. */
static void test_full_disk(void) {
  lk_error e = {0};
  CHECK(lh_file_write(place(), "old", 3, &e) == LK_OK);
  int failures = 0;
  for (int n = 1; n < 100; n++) {
    lh_file_fail_after(n, false);
    lk_status status = write_all(place(), &e);
    lh_file_fail_after(0, false);
    if (status == LK_OK) break;
    failures++;
    void *data;
    int64_t size;
    CHECK(status == LK_DISK, "%d: %s", n, e.message);
    CHECK(lh_file_read(place(), 0, &data, &size, &e) == LK_OK);
    bool old = size == 3 && memcmp(data, "old", 3) == 0;
    /* the last call syncs the folder, after the rename */
    CHECK(old || failures > 3, "call %d", n);
    free(data);
  }
  CHECK(failures >= 4, "%d", failures);
  unlink(place());
}

/* --- damaged files ------------------------------------------------------- */

static void write_file(const char *header, int64_t header_size,
                       int64_t values) {
  char data[4096] = {0};
  lk_error e;
  size_t length = strlen(header);
  for (int i = 0; i < 8; i++) data[i] = (char)((uint64_t)header_size >> 8 * i);
  memcpy(data + 8, header, length);
  int64_t size = 8 + (int64_t)length + values;
  CHECK(lh_file_write(place(), data, size, &e) == LK_OK);
}

static void expect(const char *message) {
  lk_error e = {0};
  lh_safetensors f;
  lk_status status = lh_safetensors_open(place(), &f, &e);
  CHECK(status == LK_FORMAT, "%d, for %s", status, message);
  CHECK(strstr(e.message, message) != NULL, "'%s' lacks '%s'", e.message,
        message);
  lh_safetensors_close(&f);
  unlink(place());
}

static void damaged(const char *header, int64_t values, const char *message) {
  write_file(header, (int64_t)strlen(header), values);
  expect(message);
}

#define ONE(dtype, shape, offsets) \
  "{\"x\":{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets \
  "}}"
#define GOOD "{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}"

static void test_bad_sizes(void) {
  write_file("{}", 3, 0);
  expect("a header of 3 bytes does not fit in a file of 10");
  write_file("{}", 100000001, 0);
  expect("a header of 100000001 bytes, at most 100000000");
  write_file("{}", -1, 0);
  expect("a header of 18446744073709551615 bytes, at most 100000000");
  write_file("", 0, 0);
  expect("the header does not begin with '{'");
  lk_error e;
  CHECK(lh_file_write(place(), "abc", 3, &e) == LK_OK);
  expect("is too short for safetensors: 3 bytes");
}

static void test_bad_json(void) {
  damaged(" {}", 0, "the header does not begin with '{'");
  damaged("{", 0, "expected a name in quotes");
  damaged("{}x", 0, "text after the end of the value");
  damaged("{\"\xff\":1}", 0, "invalid UTF-8 in a string");
  damaged("{\"x\":" GOOD ",}", 2, "expected a name in quotes");
  damaged("{\"x\":" GOOD ",\"x\":" GOOD "}", 2, "the name 'x' comes twice");
  damaged("{\"x\\u0000y\":" GOOD "}", 2, "its name holds a zero byte");
  damaged("{\"__metadata__\":[]}", 0, "__metadata__ is not an object");
  damaged("{\"__metadata__\":{\"a\":1}}", 0,
          "__metadata__ 'a' is not a string");
  damaged("{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", 0,
          "the name 'a' comes twice");
}

static void test_bad_tensors(void) {
  damaged("{\"x\":1}", 0, "needs dtype, shape, data_offsets");
  damaged("{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"shape\":[2]}}", 2,
          "data_offsets are not [begin, end]");
  damaged(ONE("7", "[2]", "[0,2]"), 2, "dtype is not a string");
  damaged(ONE("\"F99\"", "[2]", "[0,2]"), 2, "has unknown dtype 'F99'");
  damaged(ONE("\"\"", "[2]", "[0,2]"), 2, "has unknown dtype ''");
  damaged(ONE("\"U8\"", "2", "[0,2]"), 2, "shape is not a list");
  damaged(ONE("\"U8\"", "[-2]", "[0,2]"), 2, "is no whole number");
  damaged(ONE("\"U8\"", "[1.5]", "[0,2]"), 2, "is no whole number");
  damaged(ONE("\"U8\"", "[1,1,1,1,1,1,2]", "[0,2]"), 2,
          "has 7 dimensions, at most 6");
  damaged(ONE("\"F32\"", "[2]", "[0,2]"), 2, "F32 [2] does not take 2 bytes");
  damaged(ONE("\"U8\"", "[2]", "[0,3]"), 3, "U8 [2] does not take 3 bytes");
  damaged(ONE("\"U8\"", "[4611686018427387904,4]", "[0,2]"), 2,
          "is no whole number");
  damaged(ONE("\"F32\"", "[4503599627370496,4503599627370496]", "[0,0]"), 0,
          "does not take 0 bytes");
  damaged(ONE("\"U8\"", "[2]", "[2,0]"), 2, "are not [begin, end]");
  damaged(ONE("\"U8\"", "[2]", "[0,2,3]"), 2, "are not [begin, end]");
}

static void test_bad_layout(void) {
  damaged(ONE("\"U8\"", "[2]", "[1,3]"), 3, "begins at byte 1");
  damaged(ONE("\"U8\"", "[2]", "[0,2]"), 1,
          "has 1 bytes of values, its header says 2");
  damaged(ONE("\"U8\"", "[2]", "[0,2]"), 3,
          "has 3 bytes of values, its header says 2");
  damaged("{\"x\":" GOOD ",\"y\":{\"dtype\":\"U8\",\"shape\":[2],"
          "\"data_offsets\":[1,3]}}", 3,
          "tensor 'y' begins at byte 1, the one before it ends at 2");
}

static void test_no_file(void) {
  lk_error e = {0};
  lh_safetensors f;
  CHECK(lh_safetensors_open("/nonexistent/x", &f, &e) == LK_IO);
  lh_safetensors_close(&f);
  CHECK(lh_safetensors_open("/dev/null", &f, &e) == LK_IO, "%s", e.message);
  lh_safetensors_close(&f);
  lh_safetensors zero = {0};
  lh_safetensors_close(&zero);
}

/* Bytes changed and the end cut off at random: an answer, never a crash; what
 * opens is inside the file. */
static void test_mutations(void) {
  lk_error e = {0};
  uint8_t *data;
  int64_t size;
  uint32_t random = 12345;
  CHECK(write_all(place(), &e) == LK_OK, "%s", e.message);
  CHECK(lh_file_read(place(), 0, (void **)&data, &size, &e) == LK_OK);
  for (int round = 0; round < 1500; round++) {
    uint8_t copy[1024];
    memcpy(copy, data, (size_t)size);
    for (int i = 0; i <= round % 3; i++) {
      random = random * 1664525u + 1013904223u;
      copy[(random >> 8) % (uint32_t)(round % 2 ? 300 : 16)] =
          (uint8_t)random ^ (uint8_t)(random >> 24);
    }
    int64_t kept = round % 5 ? size : (int64_t)(random >> 9) % size;
    FILE *out = fopen(place(), "wb");
    fwrite(copy, 1, (size_t)kept, out);
    fclose(out);
    lh_safetensors f;
    if (lh_safetensors_open(place(), &f, &e) == LK_OK)
      for (int64_t i = 0; i < f.count; i++)
        CHECK(f.tensor[i].offset + f.tensor[i].bytes <= kept);
    lh_safetensors_close(&f);
  }
  free(data);
  unlink(place());
}

int main(void) {
  RUN(test_round_trip);
  RUN(test_header_is_aligned);
  RUN(test_empty);
  RUN(test_foreign);
  RUN(test_bad_entries);
  RUN(test_wrong_amount);
  RUN(test_full_disk);
  RUN(test_bad_sizes);
  RUN(test_bad_json);
  RUN(test_bad_tensors);
  RUN(test_bad_layout);
  RUN(test_no_file);
  RUN(test_mutations);
  return check_done();
}
