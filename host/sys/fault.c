/* Faults that tests inject into output calls, as fault.h says, and the
 * functions of file.h that set them. */
#define _GNU_SOURCE
#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file.h"

enum { ANY_SPACE, ANY_IO, TORN, SHORT }; /* kinds */

static atomic_llong calls, fail_at, short_limit;
static atomic_bool fail_lasting;
static atomic_int kind;
static const char *log_path;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Whether this process was started with the argument `word`. */
static bool has_argument(const char *word) {
  char text[8192];
  int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n < 0) return false;
  text[n] = '\0';
  for (char *p = text; p < text + n; p += strlen(p) + 1) {
    if (strcmp(p, word) == 0) return true;
  }
  return false;
}

static int kind_of(const char *text) {
  static const char *const words[] = {":ENOSPC", ":EIO", ":torn", ":short"};
  for (int i = 0; i < 4; i++) {
    size_t length = strlen(words[i]);
    if (strncmp(text, words[i], length) == 0) return i;
  }
  return ANY_SPACE;
}

static void read_environment(void) {
  log_path = getenv("LLMHOST_FAIL_LOG");
  const char *text = getenv("LLMHOST_FAIL_WRITE");
  if (text == NULL) return;
  const char *word = strchr(text, '@');
  if (word) {
    bool without = word[1] == '!';
    if (has_argument(word + 1 + without) == without) return;
  }
  char *end;
  long long n = strtoll(text, &end, 10);
  atomic_store(&fail_lasting, *end == '+');
  atomic_store(&kind, kind_of(end + (*end == '+')));
  atomic_store(&fail_at, n > 0 ? n : 0);
}

void lh_file_fail_after(int64_t n, bool lasting) {
  pthread_once(&once, read_environment);
  atomic_store(&fail_lasting, lasting);
  atomic_store(&kind, ANY_SPACE);
  atomic_store(&fail_at, n > 0 ? atomic_load(&calls) + n : 0);
}

void lh_file_short_writes(int64_t most) { atomic_store(&short_limit, most); }

int64_t lh_file_calls(void) { return atomic_load(&calls); }

static void log_call(long long n, bool fails, const char *call,
                     const char *path) {
  char line[1024];
  int size = snprintf(line, sizeof line, "%ld %lld %s %s %s\n",
                      (long)getpid(), n, fails ? "fail" : "pass", call, path);
  if (size >= (int)sizeof line) size = (int)sizeof line - 1;
  int fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) return;
  if (write(fd, line, (size_t)size) != size) perror(log_path);
  close(fd);
}

/* Count; whether this is a call that the settings mean. */
static bool is_meant(const char *call, const char *path) {
  pthread_once(&once, read_environment);
  long long at = atomic_load(&fail_at);
  long long now = atomic_fetch_add(&calls, 1) + 1;
  bool meant = at && (atomic_load(&fail_lasting) ? now >= at : now == at);
  if (log_path) log_call(now, meant, call, path);
  return meant;
}

bool lh_fault(const char *call, const char *path) {
  if (!is_meant(call, path) || atomic_load(&kind) == SHORT) return false;
  errno = atomic_load(&kind) == ANY_IO ? EIO : ENOSPC;
  return true;
}

lh_write_fault lh_fault_write(const char *path, int64_t *size) {
  long long limit = atomic_load(&short_limit);
  if (limit > 0 && *size > limit) *size = limit;
  if (!is_meant("write", path)) return LH_WRITES;
  int how = atomic_load(&kind);
  if (how == SHORT || how == TORN) *size = (*size + 1) / 2;
  if (how == SHORT) return LH_WRITES;
  errno = how == ANY_IO ? EIO : ENOSPC;
  return how == TORN ? LH_TEARS : LH_FAILS;
}
