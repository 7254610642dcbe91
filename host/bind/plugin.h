/* The CUDA backend, a plugin: one binary starts on machines with and without a
 * GPU. */
#ifndef LH_PLUGIN_H
#define LH_PLUGIN_H

/* Load it (once) from beside the executable or PREFIX/lib/llmhost and register
 * the backend, if there is a device; otherwise do nothing, quietly. */
void lh_plugin_load(void);

/* Why there is no GPU backend ("no NVIDIA device", a loader's message); NULL
 * when there is one. */
const char *lh_plugin_absence(void);

#endif
