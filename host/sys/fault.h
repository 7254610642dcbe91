/* Faults that tests inject into output calls, counted over the process: every
 * call of host/sys that creates, fills, syncs, renames or removes asks here
 * first. The environment sets them, for one process or for a whole sweep:
 *
 *   LLMHOST_FAIL_WRITE=N[+][:KIND][@[!]WORD]
 *     the N-th call fails, with + every later one too. KIND: ENOSPC (if none
 *     is named), EIO, torn (a write takes half and then fails), short (a write
 *     takes half and succeeds; other calls pass). @WORD: only in a process
 *     with that argument on its command line, @!WORD only in one without.
 *   LLMHOST_FAIL_LOG=FILE
 *     each call appends a line: process, number, pass or fail, call, path */
#ifndef LH_SYS_FAULT_H
#define LH_SYS_FAULT_H

#include <stdbool.h>
#include <stdint.h>

/* Count one call ("open", "sync", …) on `path`; true, with errno set, if it is
 * to fail. */
bool lh_fault(const char *call, const char *path);

typedef enum lh_write_fault { LH_WRITES, LH_TEARS, LH_FAILS } lh_write_fault;

/* Count one write of *size bytes, of which it may take *size afterwards.
 * LH_TEARS: write those, then fail; LH_FAILS: write nothing. errno is set. */
lh_write_fault lh_fault_write(const char *path, int64_t *size);

#endif
