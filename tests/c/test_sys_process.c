/* Tests child processes, locks and signals, with real ones. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../host/sys/exit.h"
#include "../../host/sys/lock.h"
#include "../../host/sys/machine.h"
#include "../../host/sys/process.h"
#include "../../host/sys/signal.h"
#include "check.h"

static lk_error error;

static lk_status start(lh_process *p, lh_spawn s, const char *script) {
  char *argv[] = {"sh", "-c", (char *)script, NULL};
  s.argv = argv;
  return lh_process_spawn(p, &s, &error);
}

static const lh_spawn piped = {.in = LH_PIPE, .out = LH_PIPE, .err = LH_PIPE,
                               .group = true, .die_with_parent = true};

/* The next line, as text; "" if there is none in time. */
static const char *next_line(lh_process *p, lh_inlet *inlet, double seconds) {
  static char text[256];
  const char *line = "";
  size_t size = 0;
  text[0] = 0;
  if (lh_process_line(p, inlet, seconds, &line, &size) == LH_READY) {
    snprintf(text, sizeof text, "%.*s", (int)size, line);
  }
  return text;
}

/* Wait until a process is gone (a zombie counts as gone). */
static bool is_gone(pid_t pid) {
  for (int i = 0; i < 100; i++) {
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (f == NULL) return true;
    if (fscanf(f, "%*d %*s %c", &state) != 1) state = 'Z';
    fclose(f);
    if (state == 'Z' || state == 'X') return true;
    lh_sleep(0.02);
  }
  return false;
}

static void test_talk(void) {
  lh_process p;
  CHECK(start(&p, piped, "read x; echo got $x; echo bad >&2; printf end; "
              "exit 7") == LK_OK, "%s", error.message);
  CHECK(lh_process_write(&p, "hello\n", 6, &error) == LK_OK);
  CHECK(!strcmp(next_line(&p, &p.out, 5), "got hello"));
  CHECK(!strcmp(next_line(&p, &p.err, 5), "bad"));
  CHECK(!strcmp(next_line(&p, &p.out, 5), "end"), "the line without newline");
  const char *line;
  size_t size;
  CHECK(lh_process_line(&p, &p.out, 5, &line, &size) == LH_END);
  CHECK(lh_process_wait(&p, 5) == LH_READY);
  CHECK(p.ending.exit == 7 && p.ending.signal == 0);
  CHECK(p.ending.max_rss > 100000, "%lld", (long long)p.ending.max_rss);
  CHECK(!lh_process_kill(&p, SIGTERM), "a reaped process was signalled");
  lh_process_close(&p);
  lh_process_close(&p);
}

static void test_timeouts(void) {
  lh_process p;
  const char *line;
  size_t size;
  CHECK(start(&p, piped, "sleep 30") == LK_OK);
  double before = lh_clock();
  CHECK(lh_process_line(&p, &p.out, 0.1, &line, &size) == LH_TIMEOUT);
  CHECK(lh_process_wait(&p, 0.1) == LH_TIMEOUT);
  double took = lh_clock() - before;
  CHECK(took >= 0.19 && took < 5, "%g s", took);
  lh_process_kill(&p, SIGTERM);
  CHECK(lh_process_wait(&p, 5) == LH_READY && p.ending.signal == SIGTERM);
  CHECK(p.ending.exit == -1);
  lh_process_close(&p);
}

/* A child's child ends with the group: on kill, on its leader's end, and on
 * close. */
static void test_group(void) {
  static const char *const scripts[] = {
      "sleep 60 & echo $!; wait", "sleep 60 & echo $!; exit 0",
      "trap '' TERM; sleep 60 & echo $!; wait"};
  for (int i = 0; i < 3; i++) {
    lh_process p;
    CHECK(start(&p, piped, scripts[i]) == LK_OK);
    pid_t grandchild = atoi(next_line(&p, &p.out, 5));
    CHECK(grandchild > 0 && kill(grandchild, 0) == 0);
    if (i == 0) CHECK(lh_process_kill(&p, SIGKILL));
    if (i < 2) CHECK(lh_process_wait(&p, 5) == LH_READY);
    if (i == 2) lh_process_close(&p);
    CHECK(is_gone(grandchild), "case %d: the grandchild lives", i);
    lh_process_close(&p);
  }
}

static void test_full_pipes(void) {
  lh_process p;
  CHECK(start(&p, piped, "head -c 3000000 /dev/zero >&2; "
              "head -c 3000000 /dev/zero; echo; echo done") == LK_OK);
  const char *line;
  size_t size;
  CHECK(lh_process_line(&p, &p.out, 20, &line, &size) == LH_READY &&
        size == 3000000);
  CHECK(!strcmp(next_line(&p, &p.out, 20), "done"));
  CHECK(lh_process_wait(&p, 20) == LH_READY && p.ending.exit == 0);
  CHECK(p.err.end - p.err.start == 3000000);
  lh_process_close(&p);
}

static void test_start_failures(void) {
  lh_process p;
  char *argv[] = {"llmhost-no-such-program", NULL};
  lh_spawn s = piped;
  s.argv = argv;
  CHECK(lh_process_spawn(&p, &s, &error) == LK_IO);
  CHECK(!strcmp(error.message, "cannot start 'llmhost-no-such-program': "
                "No such file or directory"), "%s", error.message);
  s.cwd = "/no/such/folder";
  CHECK(start(&p, s, "true") == LK_IO);
  CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "a zombie stayed");
  lh_process_close(&p);
}

/* The child sees its standard three descriptors and none of ours. */
static void test_descriptors(void) {
  lh_process p, q;
  lh_lock lock;
  lh_holder holder;
  bool busy;
  char path[] = "/tmp/lh_lock_XXXXXX";
  close(mkstemp(path));
  CHECK(lh_lock_take(&lock, path, 0, &busy, &holder, &error) == LK_OK);
  CHECK(start(&q, piped, "sleep 60") == LK_OK);
  /* Its own pipes: input, errors, and output to grep. */
  CHECK(start(&p, piped, "ls -l /proc/self/fd | grep -c pipe:; "
              "ls -l /proc/self/fd | grep -c lh_lock") == LK_OK);
  CHECK(!strcmp(next_line(&p, &p.out, 5), "3"), "pipes besides its own");
  CHECK(!strcmp(next_line(&p, &p.out, 5), "0"), "a lock went along");
  lh_process_close(&p);
  lh_process_close(&q);
  lh_lock_release(&lock);
  unlink(path);
}

static void test_broken_pipe(void) {
  lh_process p;
  char text[200000];
  memset(text, 'x', sizeof text);
  CHECK(start(&p, piped, "exec <&-; sleep 60") == LK_OK);
  lh_sleep(0.1);
  CHECK(lh_process_write(&p, text, sizeof text, &error) == LK_IO);
  CHECK(strstr(error.message, "Broken pipe"), "%s", error.message);
  lh_process_close(&p);
}

static void test_poll(void) {
  lh_process a, b, c;
  bool ready[3];
  CHECK(start(&a, piped, "sleep 60") == LK_OK);
  CHECK(start(&b, piped, "exit 1") == LK_OK);
  CHECK(start(&c, piped, "sleep 0.2; echo line; sleep 60") == LK_OK);
  lh_process *all[] = {&a, &b, &c};
  CHECK(lh_process_poll(all, 3, 5, ready) == 1 && ready[1]);
  CHECK(lh_process_wait(&b, 5) == LH_READY && b.ending.exit == 1);
  CHECK(lh_process_poll(all, 3, 5, ready) == 1 && ready[2]);
  CHECK(!strcmp(next_line(&c, &c.out, 0), "line"));
  double before = lh_clock();
  CHECK(lh_process_poll(all, 3, 0.1, ready) == 0);
  CHECK(lh_clock() - before >= 0.09);
  for (int i = 0; i < 3; i++) lh_process_close(all[i]);
}

/* A process killed with -9 takes what it started with it. */
static void test_die_with_parent(void) {
  int fds[2];
  CHECK(pipe(fds) == 0);
  pid_t parent = fork();
  if (parent == 0) {
    lh_process p;
    pid_t pid = start(&p, piped, "sleep 60") == LK_OK ? p.pid : 0;
    if (write(fds[1], &pid, sizeof pid) < 0) _exit(1);
    for (;;) pause();
  }
  pid_t grandchild = 0;
  CHECK(read(fds[0], &grandchild, sizeof grandchild) == sizeof grandchild);
  CHECK(grandchild > 0 && kill(grandchild, 0) == 0);
  kill(parent, SIGKILL);
  waitpid(parent, NULL, 0);
  CHECK(is_gone(grandchild), "process %d lives on", (int)grandchild);
  close(fds[0]);
  close(fds[1]);
}

static void test_start_time(void) {
  int64_t mine = lh_process_start_time(getpid());
  CHECK(mine > 0 && mine == lh_process_start_time(getpid()));
  CHECK(lh_process_start_time(getppid()) <= mine);
  CHECK(lh_process_start_time(0x3fffffff) == -1);
}

/* --- locks --------------------------------------------------------------- */

static void test_lock(void) {
  char path[] = "/tmp/lh_lock_XXXXXX";
  lh_lock lock, second;
  lh_holder holder;
  bool busy;
  close(mkstemp(path));
  CHECK(lh_lock_take(&lock, path, 0, &busy, &holder, &error) == LK_OK);
  double before = lh_clock();
  CHECK(lh_lock_take(&second, path, 0.2, &busy, &holder, &error) == LK_IO);
  CHECK(busy && lh_clock() - before >= 0.19);
  CHECK(holder.pid == getpid() &&
        holder.start == lh_process_start_time(getpid()));
  lh_lock_release(&lock);
  CHECK(lh_lock_take(&second, path, 0, &busy, &holder, &error) == LK_OK);
  lh_lock_release(&second);
  CHECK(lh_lock_take(&second, "/no/such/lock", 0, &busy, &holder, &error) ==
        LK_IO && !busy);
  unlink(path);
}

/* A lock goes with the process that held it, however that ends. */
static void test_lock_of_the_killed(void) {
  char path[] = "/tmp/lh_lock_XXXXXX";
  int fds[2];
  lh_lock lock;
  lh_holder holder;
  bool busy;
  close(mkstemp(path));
  CHECK(pipe(fds) == 0);
  pid_t pid = fork();
  if (pid == 0) {
    lh_lock_take(&lock, path, 0, &busy, &holder, &error);
    if (write(fds[1], "x", 1) < 0) _exit(1);
    for (;;) pause();
  }
  char byte;
  CHECK(read(fds[0], &byte, 1) == 1);
  CHECK(lh_lock_take(&lock, path, 0, &busy, &holder, &error) == LK_IO);
  CHECK(busy && holder.pid == pid);
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  CHECK(lh_lock_take(&lock, path, 0, &busy, &holder, &error) == LK_OK);
  lh_lock_release(&lock);
  close(fds[0]);
  close(fds[1]);
  unlink(path);
}

/* --- signals ------------------------------------------------------------- */

static void test_signals(void) {
  pid_t pid = fork();
  if (pid == 0) {
    lh_signal_install();
    if (lh_signal_count() != 0) _exit(1);
    raise(SIGINT);
    if (lh_signal_count() != 1) _exit(2);
    lh_signal_reset();
    raise(SIGTERM);
    if (lh_signal_count() != 1) _exit(3);
    raise(SIGINT);
    _exit(4); /* not reached: the second ends the process */
  }
  int status;
  waitpid(pid, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == LH_EXIT_INTERRUPTED,
        "status %x", status);
}

int main(void) {
  RUN(test_talk);
  RUN(test_timeouts);
  RUN(test_group);
  RUN(test_full_pipes);
  RUN(test_start_failures);
  RUN(test_descriptors);
  RUN(test_broken_pipe);
  RUN(test_poll);
  RUN(test_die_with_parent);
  RUN(test_start_time);
  RUN(test_lock);
  RUN(test_lock_of_the_killed);
  RUN(test_signals);
  return check_done();
}
