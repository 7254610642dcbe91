/* The exit codes of the program, all in one place. */
#ifndef LH_SYS_EXIT_H
#define LH_SYS_EXIT_H

enum {
  LH_EXIT_OK = 0,
  LH_EXIT_FAILED = 1,       /* the script raised, or something in it failed */
  LH_EXIT_USAGE = 2,        /* the command line makes no sense */
  LH_EXIT_NOTHING_FITS = 3, /* no configuration fitted in memory */
  LH_EXIT_LUA_MEMORY = 77,  /* the Lua VM itself ran out of memory: the parent
                               records it as `oom` */
  LH_EXIT_INTERRUPTED = 130 /* a signal asked to stop; state is saved */
};

#endif
