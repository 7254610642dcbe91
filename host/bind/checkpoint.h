/* Checkpoints of a program: a folder with model.safetensors, which others can
 * read, and training.safetensors, what training goes on from. The state beside
 * them (schedule, data, CRCs) is the caller's.
 *
 * model.safetensors: every f32 weight under its parameter's name, row-major
 * [out, in]; a 4-bit weight under bitsandbytes' keys (bitsandbytes.h).
 * training.safetensors: residuals and every optimizer buffer under
 * "<parameter>.<part>"; metadata storage, block, steps, muon_factor,
 * loss_scale, and of programs that scale losses good_steps, skipped_steps.
 * Copies in the compute dtype are not stored; they follow from the weights. */
#ifndef LH_CHECKPOINT_H
#define LH_CHECKPOINT_H

#include "../../kernels/graph/program.h"

/* Write both files into the folder `dir`, which exists, each atomically. The
 * program is open. LK_DISK, LK_IO; LK_ARGUMENT for a closed program. */
lk_status lh_checkpoint_save(lk_program *program, const char *dir,
                             lk_error *error);

/* Put a checkpoint's bits into an open program. Both files are checked in full
 * before anything changes: the same tensors of the same dtypes and shapes,
 * the same storage format, or LK_FORMAT naming file, tensor and both shapes. A
 * program without an optimizer reads model.safetensors alone; one that scales
 * losses begins with its first scale where the file's program did not. When a
 * read of checked files fails half-way (LK_IO, LK_DISK), the program is back
 * at its initial weights. */
lk_status lh_checkpoint_load(lk_program *program, const char *dir,
                             lk_error *error);

#endif
