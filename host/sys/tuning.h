/* Choices that were made by measuring, kept in a file of text: which device and
 * libraries they are for, then a line "key = choice" each, sorted. A choice,
 * once in the file, never changes: of two that are made at the same time the
 * first one written holds for both. */
#ifndef LH_SYS_TUNING_H
#define LH_SYS_TUNING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../kernels/base/status.h"

typedef struct lh_tuning lh_tuning;

/* Read what `path` holds for `identity`, one line that names device and
 * versions. No file, one for another identity and a damaged one are an empty
 * start: the next choice replaces it. LK_OOM alone. */
lk_status lh_tuning_open(lh_tuning **tuning, const char *path,
                         const char *identity, lk_error *error);
void lh_tuning_close(lh_tuning *tuning);

/* For lk_tuner; `state` is a tuning. A note goes to the file at once, under a
 * lock, with what others wrote meanwhile; where that fails it holds in memory
 * and lh_tuning_error says why. */
bool lh_tuning_find(void *state, const char *key, char *choice, size_t size);
void lh_tuning_note(void *state, const char *key, const char *choice);

const char *lh_tuning_path(const lh_tuning *tuning);
/* Why the file could not be written last; NULL: it could. */
const char *lh_tuning_error(const lh_tuning *tuning);
/* How many choices are known, and how many of them were noted here. */
int lh_tuning_count(const lh_tuning *tuning);
int lh_tuning_noted(const lh_tuning *tuning);
/* FNV-1a of identity and choices: what results depend on. */
uint64_t lh_tuning_hash(const lh_tuning *tuning);

/* "$XDG_CACHE_HOME/llmhost/tuning-<hash of identity>.txt", or under ~/.cache;
 * false when there is neither. */
bool lh_tuning_place(const char *identity, char *path, size_t size);

#endif
