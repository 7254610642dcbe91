/* Token files and loaders. */
#include <string.h>
#include <unistd.h>

#include "../../host/sys/hash.h"
#include "../../host/text/loader.h"
#include "text_folder.h"

/* --- token files --------------------------------------------------------- */
static lh_tokens *counting(int64_t count, int64_t vocab) {
  int32_t *ids = malloc((size_t)count * sizeof *ids);
  lh_tokens *tokens = NULL;
  lh_tokens_info info = {.count = count, .vocab = vocab, .documents = 1,
                         .tokenizer = 11, .source = 12, .name = "counting"};
  for (int64_t i = 0; i < count; i++) ids[i] = (int32_t)(i % vocab);
  CHECK(lh_tokens_new(&info, ids, &tokens, &e) == LK_OK, "%s", e.message);
  free(ids);
  return tokens;
}

static void test_token_file(void) {
  const int64_t vocabs[] = {1000, 65536, 65537, 100000};
  start();
  for (int i = 0; i < 4; i++) {
    lh_tokens *a = counting(200000, vocabs[i]), *b = NULL;
    int32_t *got = malloc(sizeof *got * 150000);
    int wrong = 0;
    const char *path = in_folder("tokens");
    CHECK(lh_tokens_save(a, path, &e) == LK_OK, "%s", e.message);
    CHECK(lh_tokens_open(path, &b, &e) == LK_OK, "%s", e.message);
    const lh_tokens_info *info = lh_tokens_about(b);
    CHECK(info->count == 200000 && info->vocab == vocabs[i] &&
          info->tokenizer == 11 && strcmp(info->name, "counting") == 0 &&
          info->crc == lh_tokens_about(a)->crc);
    CHECK(lh_tokens_read(b, 33333, 150000, got, &e) == LK_OK, "%s", e.message);
    for (int64_t k = 0; k < 150000; k++)
      wrong += got[k] != (k + 33333) % vocabs[i];
    CHECK(wrong == 0, "%d of %d", wrong, i);
    CHECK(lh_tokens_read(b, 199999, 2, got, &e) == LK_ARGUMENT &&
          strcmp(e.message, "tokens 200000 to 200001 of 200000 do not exist")
          == 0, "%s", e.message);
    lh_tokens_release(a);
    lh_tokens_release(b);
    free(got);
  }
}

/* Change a copy of a token file and try to open it. */
static void check_damage(const uint8_t *file, int64_t size, int64_t at,
                         uint8_t value, int64_t cut, const char *message) {
  uint8_t *copy = malloc((size_t)size);
  lh_tokens *tokens;
  memcpy(copy, file, (size_t)size);
  copy[at] = value;
  put_file("damaged", (char *)copy, cut);
  lk_status status = lh_tokens_open(in_folder("damaged"), &tokens, &e);
  CHECK(status == LK_FORMAT && tokens == NULL, "byte %d", (int)at);
  CHECK(strstr(e.message, "damaged': ") && strstr(e.message, message), "%s",
        e.message);
  free(copy);
}

static void test_damaged_token_file(void) {
  void *file;
  int64_t size;
  lh_tokens *a = counting(1000, 500), *b;
  start();
  CHECK(lh_tokens_save(a, in_folder("tokens"), &e) == LK_OK);
  lh_tokens_release(a);
  CHECK(lh_file_read(in_folder("tokens"), 0, &file, &size, &e) == LK_OK);
  CHECK(size == 256 + 2000, "%d bytes", (int)size);
  uint8_t *bytes = file;
  check_damage(file, size, 700, (uint8_t)(bytes[700] ^ 1), size,
               "the checksum of its ids differs");
  check_damage(file, size, 0, 'X', size, "not a token file");
  check_damage(file, size, 8, 9, size, "another version");
  check_damage(file, size, 16, 1, size, "the header's checksum differs");
  check_damage(file, size, 0, 'L', 200, "too short for a header");
  check_damage(file, size, 0, 'L', size - 2, "its length is not the one");
  /* Ids that lie outside a vocabulary which the header, rightly summed, says
   * is smaller. */
  bytes[24] = 5;
  bytes[25] = 0;
  uint32_t crc = lh_crc32(0, bytes, 252);
  for (int i = 0; i < 4; i++) bytes[252 + i] = (uint8_t)(crc >> (8 * i));
  check_damage(file, size, 0, 'L', size, "an id outside its vocabulary");
  CHECK(lh_tokens_open(in_folder("absent"), &b, &e) == LK_IO, "%s", e.message);
  free(file);
}

/* A write that fails leaves the old file. */
static void test_failing_write(void) {
  lh_tokens *a = counting(1000, 500), *b = counting(2000, 500), *c;
  start();
  const char *path = in_folder("tokens");
  CHECK(lh_tokens_save(a, path, &e) == LK_OK);
  for (int n = 1; n <= 3; n++) {
    lh_file_fail_after(n, false);
    CHECK(lh_tokens_save(b, path, &e) == LK_DISK, "call %d: %s", n, e.message);
    lh_file_fail_after(0, false);
    CHECK(lh_tokens_open(path, &c, &e) == LK_OK, "%s", e.message);
    CHECK(lh_tokens_about(c)->count == 1000);
    lh_tokens_release(c);
  }
  lh_tokens_release(a);
  lh_tokens_release(b);
}

/* --- loader -------------------------------------------------------------- */
enum { T = 8 };

static lh_loader *loader_of(int64_t count, lh_loader_options options) {
  lh_tokens *tokens = counting(count, 100000);
  lh_loader *l = NULL;
  lh_loader_new(tokens, &options, &l, &e);
  lh_tokens_release(tokens);
  return l;
}

/* Every window once an epoch, targets one ahead, epochs differ. */
static void test_epochs(void) {
  lh_loader *l = loader_of(1003, (lh_loader_options){.seq = T, .batch = 1,
                                                     .seed = 7});
  int64_t windows = lh_loader_windows(l);
  int32_t x[T], y[T], starts[2][200];
  CHECK(windows == (1003 - T) / T, "%d windows", (int)windows);
  for (int64_t epoch = 0; epoch < 2; epoch++) {
    char seen[200] = {0};
    int64_t offset = -1, bad = 0;
    for (int64_t i = 0; i < windows; i++) {
      lh_loader_fill(l, epoch * windows + i, 0, 1, x, y, &e);
      if (offset < 0) offset = x[0] % T;
      for (int k = 0; k < T; k++) bad += x[k] != x[0] + k || y[k] != x[k] + 1;
      bad += x[0] % T != offset || seen[x[0] / T]++ != 0;
      starts[epoch][i] = x[0] / T;
    }
    CHECK(bad == 0, "epoch %d: %d wrong", (int)epoch, (int)bad);
  }
  int64_t same = 0, ordered = 0;
  for (int64_t i = 0; i < windows; i++) {
    same += starts[0][i] == starts[1][i];
    ordered += starts[0][i] == i;
  }
  CHECK(same < windows / 8 && ordered < windows / 8, "%d and %d of %d in "
        "place", (int)same, (int)ordered, (int)windows);
  lh_loader_free(l);
}

/* Samples of a step do not depend on the micro-batches or on prefetching. */
static void test_micro_batches(void) {
  enum { BATCH = 12 };
  lh_loader_options options = {.seq = T, .batch = BATCH, .seed = 7};
  const int64_t sizes[] = {1, 2, 3, 4, 6, 12};
  lh_loader *whole = loader_of(5000, options);
  int32_t x[BATCH * T], y[BATCH * T], px[BATCH * T], py[BATCH * T];
  for (int i = 0; i < 6; i++) {
    lh_loader *parts = loader_of(5000, options);
    for (int64_t step = 0; step < 60; step++) {
      lh_loader_fill(whole, step, 0, BATCH, x, y, &e);
      for (int64_t at = 0; at < BATCH; at += sizes[i])
        lh_loader_fill(parts, step, at, sizes[i], px + at * T, py + at * T,
                       &e);
      CHECK(memcmp(x, px, sizeof x) == 0 && memcmp(y, py, sizeof y) == 0,
            "step %d in parts of %d", (int)step, (int)sizes[i]);
    }
    lh_loader_free(parts);
  }
  lh_loader_free(whole);
}

/* Hints, used or not and in any order, change nothing. */
static void test_prefetch(void) {
  lh_loader_options options = {.seq = T, .batch = 4, .seed = 3};
  lh_loader *plain = loader_of(3000, options);
  lh_loader *hinted = loader_of(3000, options);
  int32_t x[4 * T], y[4 * T], hx[4 * T], hy[4 * T];
  for (int64_t i = 0; i < 400; i++) {
    int64_t step = i * i % 97, other = i * 31 % 97;
    lh_loader_prefetch(hinted, step, 0, 4);
    lh_loader_prefetch(hinted, other, 0, 4);
    if (i % 3 == 0) lh_loader_prefetch(hinted, other + 1, 0, 2);
    lh_loader_fill(hinted, i % 2 ? step : other, 0, 4, hx, hy, &e);
    lh_loader_fill(plain, i % 2 ? step : other, 0, 4, x, y, &e);
    CHECK(memcmp(x, hx, sizeof x) == 0 && memcmp(y, hy, sizeof y) == 0);
  }
  lh_loader_free(plain);
  lh_loader_free(hinted);
}

static void test_seeds(void) {
  lh_loader *a = loader_of(3000, (lh_loader_options){T, 16, 1, false, 0});
  lh_loader *b = loader_of(3000, (lh_loader_options){T, 16, 2, false, 0});
  int32_t x[16 * T], y[16 * T], bx[16 * T];
  lh_loader_fill(a, 0, 0, 16, x, y, &e);
  lh_loader_fill(b, 0, 0, 16, bx, y, &e);
  CHECK(memcmp(x, bx, sizeof x) != 0);
  lh_loader_free(a);
  lh_loader_free(b);
}

static void test_sequential(void) {
  lh_loader *l = loader_of(83, (lh_loader_options){T, 4, 9, true, 0});
  int32_t x[4 * T], y[4 * T];
  CHECK(lh_loader_windows(l) == 10 && lh_loader_steps(l) == 3);
  for (int64_t step = 0; step < 3; step++) {
    CHECK(lh_loader_fill(l, step, 0, 4, x, y, &e) == LK_OK);
    for (int64_t i = 0; i < 4 * T; i++) {
      int64_t at = step * 4 * T + i;
      CHECK(x[i] == (at < 80 ? at : 0) && y[i] == (at < 80 ? at + 1 : -1),
            "place %d: %d, %d", (int)at, x[i], y[i]);
    }
  }
  lh_loader_free(l);
  l = loader_of(83, (lh_loader_options){T, 4, 9, true, 35});
  CHECK(lh_loader_windows(l) == 4, "35 targets are four windows of 8");
  lh_loader_free(l);
}

static void test_loader_limits(void) {
  CHECK(!loader_of(T, (lh_loader_options){T, 1, 1, false, 0}) &&
        strncmp(e.message, "8 tokens are too few for samples of 8 (one more",
                46) == 0, "%s", e.message);
  CHECK(!loader_of(50, (lh_loader_options){T, 0, 1, false, 0}) &&
        strcmp(e.message, "a loader needs seq ≥ 1 and batch ≥ 1, got 8 and 0")
        == 0, "%s", e.message);
  lh_loader *l = loader_of(T + 1, (lh_loader_options){T, 2, 1, false, 0});
  int32_t x[2 * T], y[2 * T];
  CHECK(lh_loader_fill(l, 5, 0, 2, x, y, &e) == LK_OK && x[0] == 0 &&
        x[T] == 0, "one window is every sample");
  CHECK(lh_loader_fill(l, 0, 1, 2, x, y, &e) == LK_ARGUMENT &&
        strcmp(e.message, "samples 2 to 3 of step 1: a step has 2 samples")
        == 0, "%s", e.message);
  CHECK(lh_loader_epochs(l, 3) == 6.0);
  lh_loader_free(l);
}

/* The file under a loader shrinks: an error, not a crash. */
static void test_vanishing_file(void) {
  lh_tokens *a = counting(5000, 500), *b = NULL;
  lh_loader *l;
  int32_t x[4 * T], y[4 * T];
  start();
  const char *path = in_folder("tokens");
  lh_tokens_save(a, path, &e);
  lh_tokens_release(a);
  CHECK(lh_tokens_open(path, &b, &e) == LK_OK, "%s", e.message);
  lh_loader_new(b, &(lh_loader_options){T, 4, 1, false, 0}, &l, &e);
  CHECK(truncate(path, 300) == 0);
  lk_status status = LK_OK;
  for (int64_t i = 0; i < 20 && status == LK_OK; i++)
    status = lh_loader_fill(l, i, 0, 4, x, y, &e);
  CHECK(status == LK_FORMAT, "%s", e.message);
  lh_loader_free(l);
  lh_tokens_release(b);
}

int main(void) {
  RUN(test_token_file);
  RUN(test_damaged_token_file);
  RUN(test_failing_write);
  RUN(test_epochs);
  RUN(test_micro_batches);
  RUN(test_prefetch);
  RUN(test_seeds);
  RUN(test_sequential);
  RUN(test_loader_limits);
  RUN(test_vanishing_file);
  lh_folder_remove_tree(in_folder(""), &e);
  return check_done();
}
