/* Waiting for, reading from and ending child processes. Starting them is
 * spawn.c. */
#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "file.h"
#include "machine.h"

#define PIECE ((size_t)1 << 16)
#define LONGEST_LINE ((size_t)8 << 20)
#define MOST_HELD ((size_t)64 << 20)

/* --- inlets --- */

static size_t held(const lh_inlet *inlet) { return inlet->end - inlet->start; }

static void end_inlet(lh_inlet *inlet) {
  if (inlet->fd >= 0) close(inlet->fd);
  inlet->fd = -1;
}

static void free_inlet(lh_inlet *inlet) {
  end_inlet(inlet);
  free(inlet->data);
  *inlet = (lh_inlet){.fd = -1};
}

/* Room for one more piece at the end; false without memory. */
static bool make_room(lh_inlet *inlet) {
  if (inlet->start > 0) {
    memmove(inlet->data, inlet->data + inlet->start, held(inlet));
    inlet->end -= inlet->start;
    inlet->start = 0;
  }
  if (inlet->room - inlet->end >= PIECE) return true;
  size_t room = inlet->room ? 2 * inlet->room : 2 * PIECE;
  char *data = realloc(inlet->data, room);
  if (data == NULL) return false;
  inlet->data = data;
  inlet->room = room;
  return true;
}

/* Read one piece of what is there; ends the inlet at the end of the pipe.
 * False without memory: it stays in the pipe. */
static bool fill_inlet(lh_inlet *inlet) {
  if (!make_room(inlet)) return false;
  ssize_t n = read(inlet->fd, inlet->data + inlet->end,
                   inlet->room - inlet->end);
  if (n > 0) {
    inlet->end += (size_t)n;
    inlet->fresh = true;
  } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
    end_inlet(inlet);
  }
  return true;
}

/* Length of the line at the start, its newline not counted: held() when the
 * pipe ended or the line is too long to wait for; -1: not there yet. */
static ssize_t line_length(const lh_inlet *inlet) {
  size_t n = held(inlet);
  if (n == 0) return -1;
  const char *start = inlet->data + inlet->start;
  const char *newline = memchr(start, '\n', n);
  if (newline) return newline - start;
  return inlet->fd < 0 || n >= LONGEST_LINE ? (ssize_t)n : -1;
}

static bool take_line(lh_inlet *inlet, const char **line, size_t *size) {
  ssize_t n = line_length(inlet);
  if (n < 0) return false;
  *line = inlet->data + inlet->start;
  *size = (size_t)n;
  inlet->start += (size_t)n;
  if (held(inlet) > 0 && inlet->data[inlet->start] == '\n') inlet->start++;
  return true;
}

/* --- waiting --- */

static int milliseconds_left(double deadline) {
  if (deadline < 0) return -1;
  double left = deadline - lh_clock();
  if (left <= 0) return 0;
  return left > 1e6 ? 1000000000 : (int)(left * 1000) + 1;
}

static double deadline_after(double seconds) {
  return seconds < 0 ? -1 : lh_clock() + seconds;
}

/* Has it ended (reaped or not)? Nothing is taken from the system. */
static bool has_ended(const lh_process *p) {
  siginfo_t info = {0};
  if (p->reaped || p->pid == 0) return true;
  int rc = waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT);
  return rc < 0 ? errno == ECHILD : info.si_pid == p->pid;
}

/* Add what there is to watch of one process. */
static int add_watches(const lh_process *p, struct pollfd *fds) {
  int n = 0;
  const lh_inlet *inlets[] = {&p->out, &p->err};
  for (int i = 0; i < 2; i++) {
    if (inlets[i]->fd < 0 || held(inlets[i]) >= MOST_HELD) continue;
    fds[n++] = (struct pollfd){.fd = inlets[i]->fd, .events = POLLIN};
  }
  if (!p->reaped && p->watch >= 0) {
    fds[n++] = (struct pollfd){.fd = p->watch, .events = POLLIN};
  }
  return n;
}

/* Read what the poll found; false without memory. */
static bool fill_ready(lh_process *p, const struct pollfd *fds, int n) {
  bool filled = true;
  for (int i = 0; i < n; i++) {
    if (fds[i].revents == 0) continue;
    if (fds[i].fd == p->out.fd) filled &= fill_inlet(&p->out);
    else if (fds[i].fd == p->err.fd) filled &= fill_inlet(&p->err);
  }
  return filled;
}

/* Without pidfds (Linux before 5.3) an end is noticed by looking often. */
static int limit_wait(const lh_process *p, int milliseconds) {
  bool blind = !p->reaped && p->watch < 0;
  return blind && (milliseconds < 0 || milliseconds > 10) ? 10 : milliseconds;
}

/* Wait once, at most until `deadline`, and drain what came. False when the
 * time is up or a signal came. */
static bool pump(lh_process *p, double deadline) {
  struct pollfd fds[3];
  int n = add_watches(p, fds);
  int ms = milliseconds_left(deadline);
  int rc = poll(fds, (nfds_t)n, limit_wait(p, ms));
  if (rc < 0) return false;
  bool filled = fill_ready(p, fds, n);
  if (!filled) lh_sleep(0.01); /* until there is memory again */
  return (rc > 0 && filled) || milliseconds_left(deadline) != 0;
}

lh_wait lh_process_line(lh_process *p, lh_inlet *inlet, double seconds,
                        const char **line, size_t *size) {
  double deadline = deadline_after(seconds);
  struct pollfd fds[3];
  for (;;) {
    if (take_line(inlet, line, size)) return LH_READY;
    if (inlet->fd < 0) return LH_END;
    int n = add_watches(p, fds);
    /* The process's end is no reason to wake: its pipe may still hold text. */
    if (n > 0 && fds[n - 1].fd == p->watch && p->watch >= 0) n--;
    int rc = poll(fds, (nfds_t)n, milliseconds_left(deadline));
    if (rc <= 0) return LH_TIMEOUT;
    if (!fill_ready(p, fds, n)) return LH_STARVED;
  }
}

/* --- ending --- */

static double seconds_of(struct timeval t) {
  return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

static void set_ending(lh_process *p, int status, const struct rusage *used) {
  lh_ending *e = &p->ending;
  e->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  e->exit = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  e->core = WIFSIGNALED(status) && WCOREDUMP(status);
  e->max_rss = (int64_t)used->ru_maxrss * 1024;
  e->user = seconds_of(used->ru_utime);
  e->system = seconds_of(used->ru_stime);
  p->reaped = true;
}

/* Reap a process that ended. While it is a zombie its group's number cannot
 * have been given to another, so this is the moment to end what it left. */
static void reap(lh_process *p) {
  struct rusage used = {0};
  int status = 0;
  if (p->group) kill(-p->pid, SIGKILL);
  pid_t got;
  do {
    got = wait4(p->pid, &status, 0, &used);
  } while (got < 0 && errno == EINTR);
  if (got < 0) status = 0; /* somebody else waited: nothing is known */
  set_ending(p, status, &used);
  if (got < 0) p->ending.exit = -1;
  if (p->watch >= 0) close(p->watch);
  p->watch = -1;
}

/* Read what a process that ended left in its pipes. */
static void drain(lh_process *p) {
  lh_inlet *inlets[] = {&p->out, &p->err};
  for (int i = 0; i < 2; i++) {
    struct pollfd fd = {.fd = inlets[i]->fd, .events = POLLIN};
    while (inlets[i]->fd >= 0 && held(inlets[i]) < MOST_HELD &&
           poll(&fd, 1, 0) > 0) {
      if (!fill_inlet(inlets[i])) break;
    }
  }
}

lh_wait lh_process_wait(lh_process *p, double seconds) {
  double deadline = deadline_after(seconds);
  if (p->pid == 0) return LH_END;
  while (!p->reaped) {
    if (has_ended(p)) {
      reap(p);
      drain(p);
    } else if (!pump(p, deadline)) {
      if (has_ended(p)) continue;
      return LH_TIMEOUT;
    }
  }
  return LH_READY;
}

static bool is_ready(lh_process *p) {
  bool fresh = p->out.fresh || p->err.fresh;
  p->out.fresh = p->err.fresh = false;
  if (p->pid == 0) return false;
  if (fresh || line_length(&p->out) >= 0) return true;
  return !p->reaped && has_ended(p);
}

static int count_ready(lh_process *const *processes, int count, bool *ready) {
  int n = 0;
  for (int i = 0; i < count; i++) n += ready[i] = is_ready(processes[i]);
  return n;
}

/* Can anything still come of any of them? */
static bool any_lives(lh_process *const *processes, int count) {
  for (int i = 0; i < count; i++) {
    const lh_process *p = processes[i];
    bool lives = p->pid != 0 && !p->reaped;
    if (lives || p->out.fd >= 0 || p->err.fd >= 0) return true;
  }
  return false;
}

/* One poll over all of them; what came is drained. */
static int poll_all(lh_process *const *processes, int count,
                    struct pollfd *fds, int milliseconds) {
  int n = 0;
  for (int i = 0; i < count; i++) {
    n += add_watches(processes[i], fds + n);
    milliseconds = limit_wait(processes[i], milliseconds);
  }
  int rc = poll(fds, (nfds_t)n, milliseconds);
  bool filled = true;
  for (int i = 0; i < count && rc > 0; i++) {
    filled &= fill_ready(processes[i], fds, n);
  }
  if (!filled) lh_sleep(0.01);
  return rc;
}

int lh_process_poll(lh_process *const *processes, int count, double seconds,
                    bool *ready) {
  double deadline = deadline_after(seconds);
  struct pollfd *fds = calloc((size_t)count * 3 + 1, sizeof *fds);
  if (fds == NULL) return 0;
  int found = count_ready(processes, count, ready);
  while (found == 0 && (seconds >= 0 || any_lives(processes, count))) {
    int rc = poll_all(processes, count, fds, milliseconds_left(deadline));
    found = count_ready(processes, count, ready);
    if (rc < 0 || milliseconds_left(deadline) == 0) break;
  }
  free(fds);
  return found;
}

/* --- input and signals --- */

/* Write without SIGPIPE: blocked for this thread, and taken back if it came. */
lk_status lh_process_write(lh_process *p, const void *data, size_t size,
                           lk_error *error) {
  sigset_t pipe_only, before, pending;
  if (p->in < 0) return lk_fail(error, LK_IO, "the process has no open input");
  sigemptyset(&pipe_only);
  sigaddset(&pipe_only, SIGPIPE);
  sigpending(&pending);
  pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
  const char *at = data;
  int err = 0;
  while (size > 0 && err == 0) {
    ssize_t n = write(p->in, at, size);
    if (n >= 0) at += n, size -= (size_t)n;
    else if (errno != EINTR) err = errno;
  }
  if (err == EPIPE && !sigismember(&pending, SIGPIPE)) {
    sigtimedwait(&pipe_only, NULL, &(struct timespec){0});
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (err == 0) return LK_OK;
  return lk_fail_errno(error, err, "cannot write to process %d", (int)p->pid);
}

void lh_process_close_input(lh_process *p) {
  if (p->in >= 0) close(p->in);
  p->in = -1;
}

bool lh_process_kill(lh_process *p, int number) {
  if (p->pid == 0 || p->reaped) return false;
  return kill(p->group ? -p->pid : p->pid, number) == 0;
}

void lh_process_close(lh_process *p) {
  if (p->pid == 0) return;
  lh_process_close_input(p);
  if (!p->reaped) {
    lh_process_kill(p, SIGKILL);
    if (!p->group) kill(p->pid, SIGKILL);
    reap(p);
  }
  free_inlet(&p->out);
  free_inlet(&p->err);
  p->pid = 0;
}

/* Field 22 of /proc/<pid>/stat (proc(5)); the name before may hold anything,
 * so count from its closing parenthesis. */
int64_t lh_process_start_time(pid_t pid) {
  char path[64];
  void *text;
  int64_t size, ticks = -1;
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  if (lh_file_read(path, 0, &text, &size, NULL) != LK_OK) return -1;
  char *at = strrchr(text, ')');
  for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
  if (at) ticks = strtoll(at, NULL, 10);
  free(text);
  return ticks;
}
