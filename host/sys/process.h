/* Child processes: started in a group of their own, read line by line with a
 * time limit, waited for with what they used, and ended with everything they
 * started. */
#ifndef LH_SYS_PROCESS_H
#define LH_SYS_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../../kernels/base/status.h"

typedef enum lh_stream { LH_PIPE, LH_NULL, LH_INHERIT } lh_stream;

typedef struct lh_spawn {
  char *const *argv;   /* NULL-ended; argv[0] is searched on the PATH */
  char *const *env;    /* the whole environment, NULL-ended; NULL: ours */
  const char *cwd;     /* NULL: ours */
  lh_stream in, out, err;
  bool group;          /* a process group of its own */
  bool die_with_parent;/* killed when the thread that started it ends */
} lh_spawn;

/* What came from a pipe and was not read yet. */
typedef struct lh_inlet {
  int fd;              /* -1: ended, or no pipe */
  bool fresh;          /* bytes came since lh_process_poll last told so */
  char *data;
  size_t start, end, room;
} lh_inlet;

typedef struct lh_ending {
  int exit;            /* exit code, -1 if a signal ended it */
  int signal;          /* 0 if it exited */
  bool core;
  int64_t max_rss;     /* bytes */
  double user, system; /* seconds */
} lh_ending;

typedef struct lh_process {
  pid_t pid;           /* 0: closed or never started */
  int watch;           /* pidfd, readable once it ended; -1: none */
  int in;              /* its standard input, -1: none */
  lh_inlet out, err;
  bool group, reaped;
  lh_ending ending;    /* valid once reaped */
} lh_process;

typedef enum lh_wait {
  LH_READY,            /* there is what was waited for */
  LH_TIMEOUT,          /* the time ran out, or a signal came */
  LH_END,              /* there will be nothing more */
  LH_STARVED           /* there is no memory to read into */
} lh_wait;

/* Start a process. On failure (LK_IO, LK_OOM; an unknown program too) nothing
 * is left. The caller closes it. */
lk_status lh_process_spawn(lh_process *process, const lh_spawn *spawn,
                           lk_error *error);

/* The next line of `inlet` (one of the process's own), without its newline, in
 * *line and *size, valid until the next call on the process. Waits at most
 * `seconds` (negative: no limit); drains the other pipe meanwhile, so that the
 * child cannot stall. A line over 8 MiB comes in pieces. */
lh_wait lh_process_line(lh_process *process, lh_inlet *inlet, double seconds,
                        const char **line, size_t *size);

/* Wait for the end; LH_READY fills process->ending. What the process left in
 * its group is killed then. Output is drained into memory meanwhile (at most
 * 64 MiB a pipe; then the child waits for a reader). */
lh_wait lh_process_wait(lh_process *process, double seconds);

/* Wait until one of the processes has a line to read, new bytes on either
 * pipe, or has ended without having been waited for; set ready[i]. Gives how
 * many; 0 after `seconds` or a signal, and at once when there is no limit and
 * nothing that could still come. */
int lh_process_poll(lh_process *const *processes, int count, double seconds,
                    bool *ready);

/* Write all of it to the standard input. LK_IO when the process no longer
 * reads, without any SIGPIPE. */
lk_status lh_process_write(lh_process *process, const void *data, size_t size,
                           lk_error *error);
void lh_process_close_input(lh_process *process);

/* Send a signal to the group (or the process); false once it was waited for. */
bool lh_process_kill(lh_process *process, int signal);

/* Kill and reap what still runs, release everything. A zeroed or closed
 * process is fine. */
void lh_process_close(lh_process *process);

/* When `pid` started, in clock ticks since boot: with the pid it names a
 * process for good. -1 if there is no such process. */
int64_t lh_process_start_time(pid_t pid);

#endif
