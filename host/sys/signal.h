/* INT and TERM: the first asks to stop at the next good moment, the second
 * ends the process at once. Nothing is installed unless asked for. */
#ifndef LH_SYS_SIGNAL_H
#define LH_SYS_SIGNAL_H

#include <stdbool.h>

#include "../../kernels/base/status.h"

/* Count INT and TERM from now on; the second ends the process with
 * LH_EXIT_INTERRUPTED. Harmless when called again. */
void lh_signal_install(void);

/* How many INT or TERM were counted: 0, 1 (or 2, seen for a moment). Any
 * thread may ask; long loops ask between their steps. */
int lh_signal_count(void);
/* Count one, as if a signal had come (a REPL's own handler does). */
void lh_signal_note(void);
/* Forget what was counted. */
void lh_signal_reset(void);

/* Whether a signal breaks native work off where it stands, as a prompt wants
 * it, rather than asking for an end at the next good moment. Off at first. */
void lh_signal_breaks(bool on);
/* A signal came and work is to be broken off. */
bool lh_signal_broken(void);
/* LK_INTERRUPTED then, for long loops to ask between their steps. */
lk_status lh_signal_check(lk_error *error);

/* Start a thread that reads standard input to its end and then ends the
 * process with LH_EXIT_INTERRUPTED: a child's leash. LK_INTERNAL when no
 * thread could be started. */
lk_status lh_signal_watch_stdin(lk_error *error);

#endif
