/* Loading the CUDA backend where its plugin and a device are. */
#define _GNU_SOURCE
#include "plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../kernels/core/context.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char absence[512] = "not looked for";

/* The folder of the file that holds this code into `folder` (PATH_MAX bytes):
 * of the program, or of libllmhost in another's. There the plugin, which takes
 * the kernels' functions from whoever loads it, must be let see the library.
 * False when it cannot be known. */
static bool own_folder(char *folder) {
  Dl_info own;
  char program[PATH_MAX];
  if (realpath("/proc/self/exe", program) == NULL) return false;
  if (!dladdr((void *)(size_t)&lh_plugin_load, &own) ||
      realpath(own.dli_fname, folder) == NULL)
    strcpy(folder, program);
  if (strcmp(folder, program) != 0)
    dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
  *strrchr(folder, '/') = 0;
  return true;
}

/* The first of the plugin's places that has it, loaded; NULL with the reason
 * in `why`: beside this code; installed, seen from the program and from the
 * library; where tests have it. */
static void *open_plugin(char *why, size_t size) {
  static const char *const places[] = {"%s/llmhost_cuda.so",
                                       "%s/../lib/llmhost/llmhost_cuda.so",
                                       "%s/llmhost/llmhost_cuda.so",
                                       "%s/../llmhost_cuda.so"};
  char folder[PATH_MAX], path[PATH_MAX + 64];
  snprintf(why, size, "this build has no CUDA plugin");
  if (!own_folder(folder)) return NULL;
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
