/* Calls that may run beside each other: which of them do not have to wait for
 * those before, found once, when all have their addresses. */
#ifndef LK_GRAPH_BESIDE_H
#define LK_GRAPH_BESIDE_H

#include "../core/context.h"

/* Set `beside` of `count` calls that run one after the other: runs of small
 * operators, the first of a run without the flag, no two in conflict. Two calls
 * are in conflict when one writes what the other touches, scratch included,
 * unless both are of one operator and have it marked '&'. */
void lk_beside_mark(const lk_profile *profile, lk_call *calls, int count);

#endif
