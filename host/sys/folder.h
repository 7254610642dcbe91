/* Folders: making, listing, matching, removing. */
#ifndef LH_SYS_FOLDER_H
#define LH_SYS_FOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include "../../kernels/base/status.h"

/* A growing list of names; all malloc'ed. Start from {0}. */
typedef struct lh_names {
  char **names;
  int64_t count, room;
} lh_names;

lk_status lh_names_add(lh_names *list, const char *name, lk_error *error);
void lh_names_sort(lh_names *list); /* by bytes */
void lh_names_free(lh_names *list);

/* Make a folder and those above it; one that exists already is fine. */
lk_status lh_folder_make(const char *path, lk_error *error);
/* The names in a folder, sorted, without "." and "..". */
lk_status lh_folder_list(const char *path, lh_names *names, lk_error *error);
/* The paths that match a shell pattern, sorted; none is an empty list. */
lk_status lh_folder_glob(const char *pattern, lh_names *names,
                         lk_error *error);
/* Remove a file or a folder with everything in it. Links are removed, never
 * followed. Something that does not exist is fine. */
lk_status lh_folder_remove_tree(const char *path, lk_error *error);
/* Free and total bytes of the disk that holds `path`. */
lk_status lh_folder_disk(const char *path, int64_t *free_bytes, int64_t *total,
                         lk_error *error);

#endif
