/* Backend profiles: what a plan must know of a device without touching it. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "context.h"

enum { MAX_THREADS = 256 };

static const lk_profile cuda_profile = {
    .backend = "cuda",
    .lanes = 1,
    .alignment = 256,
    .head_chunk_bytes = (int64_t)168 << 20, /* 1792 rows of 49152 words */
    .head_chunks = 6,
    .update_group = 16,
    .workspace = (int64_t)32 << 20,
    .compute = LK_BF16,
    .keeps_draws = true,
};

static lk_profile cpu_profile = {
    .backend = "cpu",
    .lanes = 1,
    .alignment = 64,
    .update_group = 4,
    .head_chunk_bytes = (int64_t)96 << 20, /* 512 rows of 49152 words */
    .workspace = 0,
    .compute = LK_F32,
};

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* LLMHOST_THREADS when it is a number from 1, else the processors online. */
static void read_threads(void) {
  const char *text = getenv("LLMHOST_THREADS");
  long threads = text != NULL ? strtol(text, NULL, 10) : 0;
  if (threads < 1) threads = sysconf(_SC_NPROCESSORS_ONLN);
  if (threads < 1) threads = 1;
  cpu_profile.lanes = threads < MAX_THREADS ? (int)threads : MAX_THREADS;
}

int lk_threads(void) {
  pthread_once(&once, read_threads);
  return cpu_profile.lanes;
}

const lk_profile *lk_profile_find(const char *backend) {
  if (strcmp(backend, "cuda") == 0) return &cuda_profile;
  if (strcmp(backend, "cpu") != 0) return NULL;
  lk_threads();
  return &cpu_profile;
}
