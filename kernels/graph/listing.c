/* A program as text: one line an instruction. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program_private.h"

static const char *const section_words[] = {"setup", "begin", "micro",
                                            "update"};

/* "%12 h f32[64, 24]" and, for transient memory, "@4096". */
static void write_value(FILE *f, const lk_graph *g, const lk_plan *plan,
                        lk_value v) {
  char shape[128];
  const lk_value_info *info = &g->values[v];
  lk_shape_text(info->shape, shape, sizeof shape);
  fprintf(f, " %%%d:%s %s%s", v, info->name, lk_dtype_word(info->dtype),
          shape);
  int block = plan->block_of_value[v];
  if (block >= 0)
    fprintf(f, "@%" PRId64, plan->blocks[block].offset + info->offset);
}

static void write_instr(FILE *f, const lk_graph *g, const lk_plan *plan,
                        int n) {
  const lk_instr *i = &g->instrs[n];
  fprintf(f, "%4d %-6s %-8s %s", n, section_words[i->section],
          i->recomputed ? "again" : i->backward ? "backward" : "forward",
          lk_op_info_of(i->op)->name);
  for (int k = 0; k < LK_MAX_RESULTS; k++)
    if (i->out[k]) write_value(f, g, plan, i->out[k]);
  fprintf(f, " <-");
  for (int k = 0; k < LK_MAX_INPUTS; k++)
    if (i->in[k]) write_value(f, g, plan, i->in[k]);
  fprintf(f, "  (%.4g MFLOP, %.4g MB", i->cost.flops / 1e6,
          i->cost.bytes / 1e6);
  int block = plan->block_of_scratch[n];
  if (block >= 0)
    fprintf(f, ", scratch %.4g MB", (double)plan->blocks[block].bytes / 1e6);
  fprintf(f, ")\n");
}

lk_status lk_program_listing(const lk_program *p, bool training, char **text,
                             lk_error *error) {
  size_t size;
  const lk_graph *g = lk_program_graph(p, training);
  const lk_plan *plan = lk_program_plan(p, training);
  *text = NULL;
  FILE *f = open_memstream(text, &size);
  if (f == NULL) return lk_fail(error, LK_OOM, "no host memory for a listing");
  for (int s = 0; s < LK_SECTION_COUNT; s++)
    for (int n = 0; n < g->instr_count; n++)
      if ((int)g->instrs[n].section == s) write_instr(f, g, plan, n);
  bool failed = ferror(f) != 0;
  if (fclose(f) == 0 && !failed) return LK_OK;
  free(*text);
  *text = NULL;
  return lk_fail(error, LK_OOM, "no host memory for a listing");
}
