/* What machine this is: processor, memory, system. */
#ifndef LH_SYS_MACHINE_H
#define LH_SYS_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct lh_machine {
  char cpu[128];    /* "AMD EPYC 7763 64-Core Processor", or "unknown" */
  char os[128];     /* "Debian GNU/Linux 12 (bookworm)" */
  char kernel[128]; /* "6.1.0-18-amd64" */
  const char *isa;  /* "avx512", "avx2", "sse2", "neon", or "generic" */
  int cores;        /* physical cores this process may use */
  int threads;      /* hardware threads this process may use */
  int64_t memory;   /* bytes, container limits included */
  int64_t available;/* bytes that can be had now without swapping */
  bool wsl;         /* Windows Subsystem for Linux */
} lh_machine;

/* Fill `machine`. Never fails: what cannot be known is "unknown" or 0. */
void lh_machine_get(lh_machine *machine);

/* Bytes of memory this process may use at most: the machine's, or the
 * container's if that is less. */
int64_t lh_machine_memory(void);

/* This process's resident and peak resident bytes (VmRSS, VmHWM); 0 if
 * unknown. */
void lh_process_memory(int64_t *resident, int64_t *peak);
/* Start the peak again from what is resident now; false if refused. */
bool lh_process_reset_peak(void);

/* Seconds that only ever grow, and seconds since 1970. */
double lh_clock(void);
double lh_time(void);
/* Sleep; comes back early when a signal arrives. */
void lh_sleep(double seconds);

#endif
