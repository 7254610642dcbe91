/* Starting a child process: pipes, fork, and a report when exec fails. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "process.h"

extern char **environ;

/* Both ends of the pipes of one start; -1 where there is none. */
typedef struct plumbing {
  int in[2], out[2], err[2], report[2];
} plumbing;

static void close_end(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

static void close_pair(int fds[2]) {
  close_end(&fds[0]);
  close_end(&fds[1]);
}

static void close_all(plumbing *p) {
  close_pair(p->in);
  close_pair(p->out);
  close_pair(p->err);
  close_pair(p->report);
}

/* Move a descriptor above the standard three: a program started with some of
 * them closed would otherwise get a pipe there, and overwrite it below. */
static int lift(int fd) {
  if (fd > STDERR_FILENO) return fd;
  int lifted = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  int err = errno;
  close(fd);
  errno = err;
  return lifted;
}

static bool open_pair(int fds[2]) {
  if (pipe2(fds, O_CLOEXEC) != 0) {
    fds[0] = fds[1] = -1;
    return false;
  }
  fds[0] = lift(fds[0]);
  fds[1] = lift(fds[1]);
  return fds[0] >= 0 && fds[1] >= 0;
}

/* Open /dev/null into `end`, the side that the child keeps. */
static bool open_null(int *end, int flags) {
  int fd = open("/dev/null", flags | O_CLOEXEC);
  *end = fd < 0 ? -1 : lift(fd);
  return *end >= 0;
}

static bool open_stream(lh_stream how, int fds[2], int child_end) {
  if (how == LH_PIPE) return open_pair(fds);
  if (how == LH_NULL) {
    return open_null(&fds[child_end], child_end ? O_WRONLY : O_RDONLY);
  }
  return true;
}

static bool open_all(plumbing *p, const lh_spawn *s) {
  memset(p, -1, sizeof *p);
  return open_pair(p->report) && open_stream(s->in, p->in, 0) &&
         open_stream(s->out, p->out, 1) && open_stream(s->err, p->err, 1);
}

/* --- in the child: only calls that are safe after a fork --- */

static void report_and_end(int fd, int err) __attribute__((noreturn));
static void report_and_end(int fd, int err) {
  if (write(fd, &err, sizeof err) < 0) _exit(127);
  _exit(127);
}

static void reset_signals(void) {
  sigset_t none;
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = SIG_DFL;
  for (int i = 1; i < NSIG; i++) sigaction(i, &action, NULL);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

static bool connect_streams(const plumbing *p) {
  return (p->in[0] < 0 || dup2(p->in[0], STDIN_FILENO) >= 0) &&
         (p->out[1] < 0 || dup2(p->out[1], STDOUT_FILENO) >= 0) &&
         (p->err[1] < 0 || dup2(p->err[1], STDERR_FILENO) >= 0);
}

/* Let exec close what others opened without close-on-exec: a library's
 * descriptors, or those this process was started with. */
static void close_foreign(void) {
#ifdef SYS_close_range
  const unsigned close_on_exec = 4; /* CLOSE_RANGE_CLOEXEC, Linux 5.11 */
  syscall(SYS_close_range, 3u, ~0u, close_on_exec);
#endif
}

static void run_child(const plumbing *p, const lh_spawn *s, pid_t parent)
    __attribute__((noreturn));
static void run_child(const plumbing *p, const lh_spawn *s, pid_t parent) {
  if (s->group) setpgid(0, 0);
  if (s->die_with_parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127); /* it died before the prctl */
  }
  reset_signals();
  if (!connect_streams(p)) report_and_end(p->report[1], errno);
  close_foreign();
  if (s->cwd && chdir(s->cwd) != 0) report_and_end(p->report[1], errno);
  execvpe(s->argv[0], s->argv, s->env ? s->env : environ);
  report_and_end(p->report[1], errno);
}

/* --- in the parent --- */

/* The errno the child reported, or 0 when exec closed the pipe. */
static int read_report(int fd) {
  int err = 0;
  ssize_t n;
  do {
    n = read(fd, &err, sizeof err);
  } while (n < 0 && errno == EINTR);
  return n == (ssize_t)sizeof err ? err : 0;
}

static int open_watch(pid_t pid) {
#ifdef SYS_pidfd_open
  return (int)syscall(SYS_pidfd_open, pid, 0); /* close-on-exec by nature */
#else
  (void)pid;
  return -1;
#endif
}

/* Take the parent's ends over into `process`. */
static void adopt(lh_process *process, plumbing *p, pid_t pid,
                  const lh_spawn *s) {
  *process = (lh_process){.pid = pid, .group = s->group};
  process->watch = open_watch(pid);
  process->in = p->in[1];
  process->out = (lh_inlet){.fd = p->out[0]};
  process->err = (lh_inlet){.fd = p->err[0]};
  p->in[1] = p->out[0] = p->err[0] = -1;
}

lk_status lh_process_spawn(lh_process *process, const lh_spawn *s,
                           lk_error *error) {
  plumbing p;
  memset(process, 0, sizeof *process);
  if (!open_all(&p, s)) {
    int err = errno;
    close_all(&p);
    return lk_fail_errno(error, err, "cannot open a pipe");
  }
  sigset_t all, before;
  pid_t parent = getpid();
  /* No handler of ours may run in the child before its signals are reset. */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t pid = fork();
  if (pid == 0) run_child(&p, s, parent);
  int err = errno;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (pid < 0) {
    close_all(&p);
    return lk_fail_errno(error, err, "cannot start '%s'", s->argv[0]);
  }
  if (s->group) setpgid(pid, pid); /* both sides, whoever comes first */
  close_end(&p.report[1]);
  err = read_report(p.report[0]);
  adopt(process, &p, pid, s);
  close_all(&p);
  if (err == 0) return LK_OK;
  lh_process_close(process);
  return lk_fail_errno(error, err, "cannot start '%s'", s->argv[0]);
}
