/* Loading the CUDA backend where its plugin and a device are. */
#define _GNU_SOURCE
#include "plugin.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../../kernels/core/context.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char absence[512] = "not looked for";

/* The executable's folder into `folder`; false when it cannot be known. */
static int own_folder(char *folder, size_t size) {
  ssize_t length = readlink("/proc/self/exe", folder, size - 1);
  if (length <= 0) return 0;
  folder[length] = 0;
  char *slash = strrchr(folder, '/');
  if (slash == NULL) return 0;
  *slash = 0;
  return 1;
}

/* The first of the plugin's places that has it, loaded; NULL with the reason
 * in `why`. The third is where tests have it. */
static void *open_plugin(char *why, size_t size) {
  static const char *const places[] = {"%s/llmhost_cuda.so",
                                       "%s/../lib/llmhost/llmhost_cuda.so",
                                       "%s/../llmhost_cuda.so"};
  char folder[2048], path[2112];
  snprintf(why, size, "this build has no CUDA plugin");
  if (!own_folder(folder, sizeof folder)) return NULL;
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    snprintf(path, sizeof path, places[i], folder);
    if (access(path, R_OK) != 0) continue;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) snprintf(why, size, "%s", dlerror());
    return library;
  }
  return NULL;
}

/* Linux's device file, or WSL's. */
static int device_file(void) {
  return access("/dev/nvidiactl", F_OK) == 0 || access("/dev/dxg", F_OK) == 0;
}

static void load(void) {
  typedef const lk_backend *(*entry)(size_t backend, size_t call);
  snprintf(absence, sizeof absence, "no NVIDIA device");
  if (!device_file()) return;
  void *library = open_plugin(absence, sizeof absence);
  if (library == NULL) return;
  entry find;
  *(void **)(void *)&find = dlsym(library, "lk_cuda_backend");
  const lk_backend *backend =
      find ? find(sizeof(lk_backend), sizeof(lk_call)) : NULL;
  if (backend == NULL) {
    snprintf(absence, sizeof absence, "llmhost_cuda.so is of another build");
  } else if (backend->device_count() < 1) {
    snprintf(absence, sizeof absence, "no CUDA device answers (driver?)");
  } else {
    lk_backend_register(backend);
    absence[0] = 0;
  }
}

void lh_plugin_load(void) { pthread_once(&once, load); }

const char *lh_plugin_absence(void) { return *absence ? absence : NULL; }

bool lh_plugin_about(lk_plugin_facts *facts, char *why, size_t size) {
  void *library = open_plugin(why, size);
  if (library == NULL) return false;
  lk_plugin_about about;
  *(void **)(void *)&about = dlsym(library, "lk_cuda_about");
  if (about == NULL) {
    snprintf(why, size, "llmhost_cuda.so is of another build");
    return false;
  }
  about(facts);
  return true;
}
