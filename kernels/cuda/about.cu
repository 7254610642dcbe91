/* What this plugin was built with and for: asked before any device is. */
#include <cublasLt.h>
#include <cuda_runtime.h>

#include "../core/plugin.h"

/* The compiler's own list, as 800,900,…: a -gencode it was given each. */
static const int architectures[] = {__CUDA_ARCH_LIST__};

extern "C" __attribute__((visibility("default"))) void
lk_cuda_about(lk_plugin_facts *facts) {
  *facts = {};
  facts->toolkit = CUDART_VERSION;
  if (cudaRuntimeGetVersion(&facts->runtime) != cudaSuccess)
    facts->runtime = 0;
  if (cudaDriverGetVersion(&facts->driver) != cudaSuccess) facts->driver = 0;
  cudaGetLastError();
  facts->library = (int)cublasLtGetVersion();
  for (int value : architectures)
    if (facts->count < LK_PLUGIN_ARCHITECTURES)
      facts->architecture[facts->count++] = value / 10;
}
