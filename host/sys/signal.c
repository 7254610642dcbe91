/* Counting INT and TERM, and the leash that ends a child with its parent. */
#define _GNU_SOURCE
#include "signal.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "exit.h"

static atomic_int count;

int lh_signal_count(void) { return atomic_load(&count); }
void lh_signal_note(void) { atomic_fetch_add(&count, 1); }
void lh_signal_reset(void) { atomic_store(&count, 0); }

static atomic_bool breaks;

void lh_signal_breaks(bool on) { atomic_store(&breaks, on); }
bool lh_signal_broken(void) {
  return atomic_load(&breaks) && atomic_load(&count) > 0;
}

/* Say what the first Ctrl-C did, to a person only. */
static void tell_person(void) {
  static const char text[] =
      "\nllmhost: stopping at the next step (once more stops at once)\n";
  if (!isatty(STDERR_FILENO)) return;
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0) return;
}

static void on_signal(int number) {
  (void)number;
  int saved = errno;
  if (atomic_fetch_add(&count, 1) >= 1) _exit(LH_EXIT_INTERRUPTED);
  tell_person();
  errno = saved;
}

void lh_signal_install(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  /* No SA_RESTART: a wait or a poll must come back and look. */
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
}

lk_status lh_signal_check(lk_error *error) {
  if (!lh_signal_broken()) return LK_OK;
  return lk_fail(error, LK_INTERRUPTED, "interrupted");
}

static void *read_until_end(void *unused) {
  char drop[256];
  (void)unused;
  for (;;) {
    ssize_t n = read(STDIN_FILENO, drop, sizeof drop);
    if (n > 0 || (n < 0 && errno == EINTR)) continue;
    _exit(LH_EXIT_INTERRUPTED);
  }
  return NULL;
}

lk_status lh_signal_watch_stdin(lk_error *error) {
  pthread_t thread;
  pthread_attr_t attributes;
  sigset_t all, before;
  /* Signals are for the main thread, whose waits they end. */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  int err = pthread_create(&thread, &attributes, read_until_end, NULL);
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (err == 0) return LK_OK;
  return lk_fail_errno(error, err, "cannot start a thread");
}
