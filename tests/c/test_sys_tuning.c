/* The tuning file: choices that stay, whoever made them; identities; damage;
 * disks that refuse. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../host/sys/file.h"
#include "../../host/sys/tuning.h"
#include "check.h"

static const char H200[] = "NVIDIA H200 9.0, cublaslt 130101, driver 13000";
static char path[256];

static lh_tuning *opened(const char *identity) {
  lh_tuning *t = NULL;
  lk_error error = {0};
  CHECK(lh_tuning_open(&t, path, identity, &error) == LK_OK, "%s",
        error.message);
  return t;
}

static const char *found(lh_tuning *t, const char *key) {
  static char value[256];
  return lh_tuning_find(t, key, value, sizeof value) ? value : "none";
}

static char *content(void) {
  void *data = NULL;
  int64_t size;
  lk_error error = {0};
  CHECK(lh_file_read(path, 0, &data, &size, &error) == LK_OK, "%s",
        error.message);
  return data;
}

static void test_keeps(void) {
  lh_tuning *t = opened(H200);
  CHECK(lh_tuning_count(t) == 0, "not empty");
  uint64_t empty = lh_tuning_hash(t);
  lh_tuning_note(t, "gemm b", "02");
  lh_tuning_note(t, "gemm a", "01");
  CHECK(lh_tuning_error(t) == NULL, "%s", lh_tuning_error(t));
  CHECK(lh_tuning_noted(t) == 2 && lh_tuning_hash(t) != empty, "counts");
  char *text = content();
  CHECK(strcmp(text, "llmhost tuning 1\n"
               "NVIDIA H200 9.0, cublaslt 130101, driver 13000\n"
               "gemm a = 01\ngemm b = 02\n") == 0, "%s", text);
  free(text);
  lh_tuning *again = opened(H200);
  CHECK(lh_tuning_count(again) == 2 && lh_tuning_noted(again) == 0, "counts");
  CHECK(strcmp(found(again, "gemm b"), "02") == 0, "%s",
        found(again, "gemm b"));
  CHECK(strcmp(found(again, "gemm c"), "none") == 0, "unknown");
  CHECK(lh_tuning_hash(again) == lh_tuning_hash(t), "hash");
  char small[2];
  CHECK(!lh_tuning_find(again, "gemm b", small, sizeof small), "cut off");
  lh_tuning_close(again);
  lh_tuning_close(t);
}

/* Of two processes that measure the same, the first one's choice holds. */
static void test_first_wins(void) {
  lh_tuning *a = opened(H200), *b = opened(H200);
  lh_tuning_note(a, "gemm x", "aa");
  lh_tuning_note(b, "gemm x", "bb");
  lh_tuning_note(b, "gemm y", "cc");
  CHECK(strcmp(found(b, "gemm x"), "aa") == 0, "%s", found(b, "gemm x"));
  CHECK(lh_tuning_noted(b) == 1, "%d noted", lh_tuning_noted(b));
  lh_tuning_note(a, "gemm z", "dd");
  CHECK(strcmp(found(a, "gemm y"), "cc") == 0, "%s", found(a, "gemm y"));
  CHECK(lh_tuning_hash(a) != lh_tuning_hash(b), "b knows no z yet");
  lh_tuning_close(a);
  lh_tuning_close(b);
}

static void test_identity(void) {
  lh_tuning *t = opened("another device");
  CHECK(lh_tuning_count(t) == 0, "took another's choices");
  lh_tuning_note(t, "gemm x", "ee");
  lh_tuning_close(t);
  t = opened(H200);
  CHECK(lh_tuning_count(t) == 0, "the file is another's now");
  lh_tuning_close(t);
}

static void test_damage(void) {
  static const char *const texts[] = {
      "", "x", "llmhost tuning 1\n", "llmhost tuning 2\nNVIDIA\na = b\n",
      "llmhost tuning 1\nNVIDIA H200 9.0, cublaslt 130101, driver 13000 x\n"
      "a = b\n"};
  lk_error error = {0};
  for (int i = 0; i < 5; i++) {
    CHECK(lh_file_write(path, texts[i], (int64_t)strlen(texts[i]), &error) ==
          LK_OK, "%s", error.message);
    lh_tuning *t = opened(H200);
    CHECK(lh_tuning_count(t) == 0, "text %d", i);
    lh_tuning_note(t, "k", "v");
    lh_tuning_close(t);
    t = opened(H200);
    CHECK(strcmp(found(t, "k"), "v") == 0, "text %d is not replaced", i);
    lh_tuning_close(t);
  }
  const char *odd = "llmhost tuning 1\n"
                    "NVIDIA H200 9.0, cublaslt 130101, driver 13000\n"
                    "no equals sign\n = no key\nno value = \nright = one";
  CHECK(lh_file_write(path, odd, (int64_t)strlen(odd), &error) == LK_OK, "%s",
        error.message);
  lh_tuning *t = opened(H200);
  CHECK(lh_tuning_count(t) == 1 && strcmp(found(t, "right"), "one") == 0,
        "%d lines", lh_tuning_count(t));
  lh_tuning_close(t);
}

/* Where nothing can be written, choices hold in memory and the reason is
 * told. */
static void test_disk(void) {
  lh_tuning *t = opened(H200);
  lh_file_fail_after(1, true);
  lh_tuning_note(t, "gemm q", "ff");
  lh_file_fail_after(0, false);
  CHECK(lh_tuning_error(t) != NULL, "no error");
  CHECK(strcmp(found(t, "gemm q"), "ff") == 0, "forgotten");
  lh_tuning_note(t, "gemm r", "00");
  CHECK(lh_tuning_error(t) == NULL, "%s", lh_tuning_error(t));
  lh_tuning *again = opened(H200);
  CHECK(strcmp(found(again, "gemm q"), "ff") == 0, "not written later");
  lh_tuning_close(again);
  lh_tuning_close(t);
}

static void test_place(void) {
  char a[300], b[300], c[8];
  setenv("XDG_CACHE_HOME", "/somewhere", 1);
  CHECK(lh_tuning_place(H200, a, sizeof a) &&
        strncmp(a, "/somewhere/llmhost/tuning-", 26) == 0, "%s", a);
  CHECK(lh_tuning_place("other", b, sizeof b) && strcmp(a, b) != 0, "%s", b);
  CHECK(!lh_tuning_place(H200, c, sizeof c), "cut off");
  unsetenv("XDG_CACHE_HOME");
  setenv("HOME", "/someone", 1);
  CHECK(lh_tuning_place(H200, a, sizeof a) &&
        strncmp(a, "/someone/.cache/llmhost/", 24) == 0, "%s", a);
  setenv("HOME", "", 1);
  CHECK(!lh_tuning_place(H200, a, sizeof a), "no home");
}

int main(void) {
  char folder[] = "/tmp/llmhost_tuning_XXXXXX", lock[300];
  if (mkdtemp(folder) == NULL) return 1;
  snprintf(path, sizeof path, "%s/cache/tuning.txt", folder);
  RUN(test_keeps);
  RUN(test_first_wins);
  RUN(test_identity);
  RUN(test_damage);
  RUN(test_disk);
  RUN(test_place);
  unlink(path);
  snprintf(lock, sizeof lock, "%s.lock", path);
  unlink(lock);
  snprintf(lock, sizeof lock, "%s/cache", folder);
  rmdir(lock);
  rmdir(folder);
  return check_done();
}
