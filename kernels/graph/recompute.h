/* Recompute: which forward values are dropped, and making them again where the
 * backward asks for one. */
#ifndef LK_GRAPH_RECOMPUTE_H
#define LK_GRAPH_RECOMPUTE_H

#include "graph.h"

/* By forward value: the value that holds it in the backward. */
typedef struct lk_remade {
  lk_value *by_value;
  int room;
} lk_remade;

bool lk_remade_open(lk_remade *made, const lk_graph *graph);
void lk_remade_close(lk_remade *made);

/* Whether the graph's recompute mode gives `value` up after the forward. */
bool lk_is_dropped(const lk_graph *graph, lk_value value);

/* `value` where the backward can read it: itself if it was kept; else the
 * result of emitting its producer again (with everything dropped that that one
 * needs), once, at the current end of the list. The random counters are the
 * same, so the bits are. */
lk_value lk_make_again(lk_graph *graph, lk_remade *made, lk_value value);

/* "none", "light", "mlp", "block"; NULL-ended. */
extern const char *const lk_recompute_words[];

#endif
