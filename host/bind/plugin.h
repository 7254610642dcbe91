/* The CUDA backend, a plugin: one binary starts on machines with and without a
 * GPU. */
#ifndef LH_PLUGIN_H
#define LH_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>

#include "../../kernels/core/plugin.h"

/* Load it (once) from beside the executable or PREFIX/lib/llmhost and register
 * the backend, if there is a device; otherwise do nothing, quietly. */
void lh_plugin_load(void);

/* Why there is no GPU backend ("no NVIDIA device", a loader's message); NULL
 * when there is one. */
const char *lh_plugin_absence(void);

/* What the plugin says of itself, loading it even where no device is; false
 * with the reason in `why` when it is absent or cannot be loaded. */
bool lh_plugin_about(lk_plugin_facts *facts, char *why, size_t size);

#endif
