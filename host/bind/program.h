/* The class gpu.program, for the files that hold its methods. */
#ifndef LH_BIND_PROGRAM_H
#define LH_BIND_PROGRAM_H

#include "gpu.h"

typedef struct lh_program {
  lk_program *program;
  lk_context *context;   /* NULL: compiled for a plan only */
  lk_run_mode mode;
  int32_t *ids, *targets;/* one micro-batch */
} lh_program;

extern const lh_class lh_program_class;
lh_program *lh_program_self(lua_State *L, int index);

/* The same, with its memory allocated. */
lh_program *lh_program_opened(lua_State *L, int index);

/* Before steps that are run for their time and then reset: ids and targets
 * spread, losses not scaled (a skipped update would take no time). */
void lh_program_rehearse(lh_program *p);

/* Methods that only ask: memory, flops, listing, … (question.c). */
extern const lh_function lh_program_questions[];

/* Add generate and generator to gpu.program (generate.c). */
void lh_add_generate(lua_State *L);

/* Set gpu.compile in the table on top of the stack (compile.c). */
void lh_add_compile(lua_State *L);

#endif
