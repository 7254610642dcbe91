/* Tests files, folders and journals, with every output call made to fail. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../host/sys/file.h"
#include "../../host/sys/folder.h"
#include "../../host/sys/hash.h"
#include "../../host/sys/journal.h"
#include "check.h"

static char folder[256];
static lk_error error;

static const char *in_folder(const char *name) {
  static char paths[4][512];
  static int next;
  char *path = paths[next++ & 3];
  snprintf(path, sizeof paths[0], "%s/%s", folder, name);
  return path;
}

static bool has_text(const char *path, const char *text) {
  void *data;
  int64_t size;
  if (lh_file_read(path, 0, &data, &size, &error) != LK_OK) return false;
  bool same = size == (int64_t)strlen(text) && !memcmp(data, text, size);
  free(data);
  return same;
}

static int64_t count_files(void) {
  lh_names names = {0};
  lh_folder_list(folder, &names, &error);
  int64_t n = names.count;
  lh_names_free(&names);
  return n;
}

static void put(const char *path, const char *text) {
  lk_status status = lh_file_write(path, text, (int64_t)strlen(text), &error);
  CHECK(status == LK_OK, "%s", error.message);
}

static void test_round_trip(void) {
  const char *path = in_folder("round");
  char bytes[200000];
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)(i * 7 + i / 256);
  static const int64_t sizes[] = {0, 1, 65535, 65536, 65537, 200000};
  for (int i = 0; i < 6; i++) {
    void *data = NULL;
    int64_t size;
    CHECK(lh_file_write(path, bytes, sizes[i], &error) == LK_OK);
    CHECK(lh_file_read(path, 0, &data, &size, &error) == LK_OK);
    CHECK(size == sizes[i] && memcmp(data, bytes, (size_t)size) == 0);
    CHECK(data && ((char *)data)[size] == 0, "no zero byte after the end");
    uint32_t crc;
    CHECK(lh_file_crc32(path, &crc, &error) == LK_OK);
    CHECK(crc == lh_crc32(0, bytes, (size_t)size));
    free(data);
  }
}

static void test_short_writes(void) {
  const char *path = in_folder("short");
  char text[1000];
  memset(text, 'x', sizeof text);
  text[999] = 0;
  lh_file_short_writes(7);
  put(path, text);
  lh_file_short_writes(0);
  CHECK(has_text(path, text));
}

/* Let call n fail, for every n: old or new content, whole, and no litter. */
static void fail_writes(bool lasting) {
  const char *path = in_folder("old");
  put(path, "old");
  int64_t before = lh_file_calls(), files = count_files();
  put(path, "old");
  int64_t calls = lh_file_calls() - before;
  CHECK(calls >= 5, "%d calls", (int)calls);
  for (int64_t n = 1; n <= calls; n++) {
    put(path, "old");
    lh_file_fail_after(n, lasting);
    lk_status status = lh_file_write(path, "new", 3, &error);
    lh_file_fail_after(0, false);
    CHECK(status == LK_DISK, "call %d: %s", (int)n, lk_status_word(status));
    CHECK(strstr(error.message, "No space left on device"), "%s",
          error.message);
    bool is_old = has_text(path, "old");
    CHECK(is_old || (n == calls && has_text(path, "new")), "call %d", (int)n);
    CHECK(count_files() == files, "call %d left a file", (int)n);
  }
}

static void test_failing_writes(void) { fail_writes(false); }
static void test_failing_for_good(void) { fail_writes(true); }

static void test_writer_abort(void) {
  const char *path = in_folder("abort");
  put(path, "kept");
  int64_t files = count_files();
  lh_file_writer *w;
  CHECK(lh_file_writer_open(&w, path, &error) == LK_OK);
  CHECK(lh_file_writer_append(w, "half", 4, &error) == LK_OK);
  lh_file_writer_abort(w);
  lh_file_writer_abort(NULL);
  CHECK(has_text(path, "kept") && count_files() == files);
}

static void test_mode_is_kept(void) {
  const char *path = in_folder("mode");
  struct stat st;
  put(path, "a");
  CHECK(chmod(path, 0640) == 0);
  put(path, "b");
  CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0640);
}

static void test_failing_append(void) {
  const char *path = in_folder("append");
  put(path, "one\n");
  lh_file_short_writes(2);
  lh_file_fail_after(3, false); /* open, write, write */
  CHECK(lh_file_append(path, "two\n", 4, true, &error) == LK_DISK);
  lh_file_fail_after(0, false);
  lh_file_short_writes(0);
  CHECK(has_text(path, "one\n"), "half of an append stayed");
  CHECK(lh_file_append(path, "two\n", 4, true, &error) == LK_OK);
  CHECK(has_text(path, "one\ntwo\n"));
}

static void test_reads_refuse(void) {
  const char *path = in_folder("ten");
  void *data;
  int64_t size;
  int fd;
  char buffer[16];
  put(path, "0123456789");
  CHECK(lh_file_read(path, 9, &data, &size, &error) == LK_FORMAT);
  CHECK(strstr(error.message, "is larger than 9 bytes"));
  CHECK(lh_file_read(folder, 0, &data, &size, &error) == LK_IO);
  CHECK(strstr(error.message, "not a regular file"), "%s", error.message);
  CHECK(mkfifo(in_folder("fifo"), 0600) == 0);
  CHECK(lh_file_read(in_folder("fifo"), 0, &data, &size, &error) == LK_IO);
  CHECK(lh_file_read(in_folder("none"), 0, &data, &size, &error) == LK_IO);
  CHECK(strstr(error.message, "No such file"), "%s", error.message);
  CHECK(lh_file_open(path, &fd, &size, &error) == LK_OK && size == 10);
  CHECK(lh_file_pread(fd, path, buffer, 4, 6, &error) == LK_OK);
  CHECK(memcmp(buffer, "6789", 4) == 0);
  CHECK(lh_file_pread(fd, path, buffer, 5, 6, &error) == LK_FORMAT);
  CHECK(strstr(error.message, "ends at byte 10, 1 are missing"), "%s",
        error.message);
  close(fd);
  CHECK(lh_file_read("/proc/self/stat", 0, &data, &size, &error) == LK_OK);
  CHECK(size > 0);
  free(data);
}

static void test_folders(void) {
  char *outside = strdup(in_folder("outside"));
  put(outside, "mine");
  CHECK(lh_folder_make(in_folder("tree/a/b"), &error) == LK_OK);
  CHECK(lh_folder_make(in_folder("tree/a/b/"), &error) == LK_OK);
  put(in_folder("tree/a/b/file"), "x");
  CHECK(symlink(outside, in_folder("tree/a/link")) == 0);
  CHECK(symlink(folder, in_folder("tree/a/up")) == 0);
  CHECK(lh_folder_make(in_folder("outside/x"), &error) == LK_IO);
  CHECK(lh_folder_remove_tree(in_folder("tree"), &error) == LK_OK, "%s",
        error.message);
  CHECK(access(in_folder("tree"), F_OK) != 0);
  CHECK(has_text(outside, "mine"), "a link was followed");
  CHECK(lh_folder_remove_tree(in_folder("tree"), &error) == LK_OK);
  free(outside);
}

/* --- checksums ----------------------------------------------------------- */

static uint32_t crc_slowly(const unsigned char *p, size_t size) {
  uint32_t c = ~0u;
  for (size_t i = 0; i < size; i++) {
    c ^= p[i];
    for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
  }
  return ~c;
}

static void test_checksums(void) {
  unsigned char bytes[300];
  for (int i = 0; i < 300; i++) bytes[i] = (unsigned char)(i * i + 3);
  CHECK(lh_crc32(0, "123456789", 9) == 0xCBF43926u);
  for (size_t n = 0; n < 300; n++) {
    CHECK(lh_crc32(0, bytes, n) == crc_slowly(bytes, n), "%d bytes", (int)n);
    uint32_t half = lh_crc32(0, bytes, n / 3);
    CHECK(lh_crc32(half, bytes + n / 3, n - n / 3) == crc_slowly(bytes, n));
  }
  CHECK(lh_fnv1a64(LH_FNV1A64, "foobar", 6) == 0x85944171f73967e8u);
}

/* --- journals ------------------------------------------------------------ */

/* What a journal's file holds: good, damaged, torn lines. */
static void count_lines(const char *path, int counts[3]) {
  void *text = NULL;
  const char *line;
  lh_line kind;
  int64_t size = 0, at = 0, length, seq;
  memset(counts, 0, 3 * sizeof *counts);
  CHECK(lh_file_read(path, 0, &text, &size, &error) == LK_OK);
  while (lh_journal_next(text, size, &at, &line, &length, &kind, &seq)) {
    counts[kind]++;
  }
  free(text);
}

static int64_t append(lh_journal *j, const char *body) {
  int64_t seq = -1;
  lh_journal_append(j, body, (int64_t)strlen(body), &seq, &error);
  return seq;
}

static void test_journal_tears(void) {
  const char *path = in_folder("journal");
  lh_journal j;
  int counts[3];
  CHECK(lh_journal_open(&j, path, &error) == LK_OK);
  CHECK(append(&j, "{\"a\":1}") == 1 && append(&j, "{}") == 2);
  int64_t whole = j.size;
  CHECK(append(&j, "{\"b\":\"three\"}") == 3);
  int64_t end = j.size;
  lh_journal_close(&j);
  for (int64_t cut = end - 1; cut > whole; cut--) {
    CHECK(truncate(path, cut) == 0);
    count_lines(path, counts);
    CHECK(counts[LH_LINE_GOOD] == 2 && counts[LH_LINE_TORN] == 1 &&
          counts[LH_LINE_DAMAGED] == 0, "cut at %d", (int)cut);
  }
  CHECK(lh_journal_open(&j, path, &error) == LK_OK);
  CHECK(j.size == whole && j.seq == 2);
  CHECK(append(&j, "{\"c\":1}") == 3);
  lh_journal_close(&j);
  count_lines(path, counts);
  CHECK(counts[LH_LINE_GOOD] == 3 && counts[LH_LINE_TORN] == 0);
}

static void test_journal_damage(void) {
  const char *path = in_folder("damaged");
  lh_journal j;
  CHECK(lh_journal_open(&j, path, &error) == LK_OK);
  CHECK(append(&j, "{\"key\":\"value\"}") == 1);
  int64_t size = j.size;
  CHECK(append(&j, "{\"key\":\"value\"}") == 2);
  lh_journal_close(&j);
  int fd = open(path, O_RDWR);
  for (int64_t i = size; i < 2 * size - 1; i++) {
    int counts[3];
    char byte, other;
    CHECK(pread(fd, &byte, 1, i) == 1);
    other = (char)(byte ^ 1);
    CHECK(pwrite(fd, &other, 1, i) == 1);
    count_lines(path, counts);
    CHECK(counts[LH_LINE_GOOD] == 1, "a changed byte %d is not noticed",
          (int)i);
    CHECK(pwrite(fd, &byte, 1, i) == 1);
  }
  CHECK(pwrite(fd, "#", 1, size + 9) == 1);
  close(fd);
  CHECK(lh_journal_open(&j, path, &error) == LK_OK);
  CHECK(append(&j, "{}") == 3, "a number came twice after damage");
  lh_journal_close(&j);
}

/* Each output call of an append fails once: the record is there in full with
 * its number, or not at all, and the next one follows as if nothing was. */
static void test_journal_failing(void) {
  const char *path = in_folder("failing");
  for (int64_t n = 1; n <= 6; n++) {
    lh_journal j;
    int counts[3];
    unlink(path);
    CHECK(lh_journal_open(&j, path, &error) == LK_OK);
    CHECK(append(&j, "{\"a\":1}") == 1);
    lh_file_short_writes(10);
    lh_file_fail_after(n, false);
    int64_t seq = append(&j, "{\"b\":2}");
    lh_file_fail_after(0, false);
    lh_file_short_writes(0);
    CHECK(seq == -1, "call %d did not fail", (int)n);
    CHECK(append(&j, "{\"c\":3}") == 2);
    lh_journal_close(&j);
    count_lines(path, counts);
    CHECK(counts[LH_LINE_GOOD] == 2 && counts[LH_LINE_DAMAGED] == 0 &&
          counts[LH_LINE_TORN] == 0, "call %d", (int)n);
  }
}

int main(void) {
  const char *parent = getenv("TMPDIR");
  snprintf(folder, sizeof folder, "%s/lh_file_XXXXXX",
           parent ? parent : "/tmp");
  if (mkdtemp(folder) == NULL) return 1;
  RUN(test_round_trip);
  RUN(test_short_writes);
  RUN(test_failing_writes);
  RUN(test_failing_for_good);
  RUN(test_writer_abort);
  RUN(test_mode_is_kept);
  RUN(test_failing_append);
  RUN(test_reads_refuse);
  RUN(test_folders);
  RUN(test_checksums);
  RUN(test_journal_tears);
  RUN(test_journal_damage);
  RUN(test_journal_failing);
  lh_folder_remove_tree(folder, NULL);
  return check_done();
}
