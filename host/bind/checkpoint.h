/* A program's state on disk: model.safetensors and training.safetensors. */
#ifndef LH_BIND_CHECKPOINT_H
#define LH_BIND_CHECKPOINT_H

#include "../../kernels/graph/program.h"

/* Write both files of an open program into the folder `dir`. */
lk_status lh_checkpoint_save(lk_program *program, const char *dir,
                             lk_error *error) __attribute__((weak));
/* Read them back, bit for bit, into an open program of the same model, format
 * and optimizer; on failure the program is as it was. */
lk_status lh_checkpoint_load(lk_program *program, const char *dir,
                             lk_error *error) __attribute__((weak));

#endif
