/* The CUDA backend: devices, contexts, memory, transfers, recordings. Owns no
 * operator. Built as a plugin that exports lk_cuda_backend alone. */
#include "device.cuh"
#include "ranges.cuh"
#include "gemm.cuh"

/* --- failures ----------------------------------------------------------- */

lk_status cuda_check(lk_context *context, cudaError_t code,
                     const char *what) {
  if (code == cudaSuccess) return LK_OK;
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError(); /* else the next launch would report it again */
    return lk_fail(&context->error, LK_OOM, "out of memory: %.60s", what);
  }
  context->broken = true;
  return lk_fail(&context->error, LK_DEVICE, "%.200s: %s", what,
                 cudaGetErrorString(code));
}

lk_status cuda_shared(lk_context *context, const lk_call *call,
                      const void *kernel, int64_t bytes) {
  if (bytes > cuda_of(context)->shared_most)
    return lk_fail(&context->error, LK_UNSUPPORTED,
                   "%s: rows this long need %lld bytes of shared memory, the "
                   "device has %d", lk_op_info_of(call->op)->name,
                   (long long)bytes, cuda_of(context)->shared_most);
  if (bytes <= 48 * 1024) return LK_OK;
  return cuda_check(context,
                    cudaFuncSetAttribute(
                        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                        (int)bytes),
                    "shared memory");
}

lk_status cuda_needs(lk_context *context, const char *what, int capability) {
  int has = cuda_of(context)->capability;
  if (has >= capability) return LK_OK;
  return lk_fail(&context->error, LK_UNSUPPORTED,
                 "%s needs compute capability %d.%d, cuda:%d has %d.%d", what,
                 capability / 10, capability % 10, cuda_of(context)->device,
                 has / 10, has % 10);
}

/* --- devices ------------------------------------------------------------ */

static int device_count(void) {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

/* What does not change of a device: asking takes milliseconds. */
static cudaError_t device_facts(int device, lk_device_info *info) {
  cudaDeviceProp p;
  cudaError_t code = cudaGetDeviceProperties(&p, device);
  if (code != cudaSuccess) return code;
  memset(info, 0, sizeof *info);
  snprintf(info->name, sizeof info->name, "%.127s", p.name);
  snprintf(info->capability, sizeof info->capability, "%d.%d", p.major,
           p.minor);
  if (cudaDeviceGetPCIBusId(info->bus, sizeof info->bus, device) !=
      cudaSuccess)
    info->bus[0] = 0;
  return cudaSuccess;
}

static lk_status device_info(int device, lk_device_info *info,
                             lk_error *error) {
  static thread_local lk_device_info known;
  static thread_local int known_device = -1;
  size_t free_bytes = 0, bytes = 0;
  cudaError_t code = cudaSuccess;
  if (known_device != device) code = device_facts(device, &known);
  if (code == cudaSuccess) code = cudaSetDevice(device);
  if (code == cudaSuccess) code = cudaMemGetInfo(&free_bytes, &bytes);
  if (code != cudaSuccess) {
    known_device = -1;
    return lk_fail(error, LK_DEVICE, "cuda:%d: %s", device,
                   cudaGetErrorString(code));
  }
  known_device = device;
  *info = known;
  info->memory = (int64_t)bytes;
  info->free = (int64_t)free_bytes;
  return LK_OK;
}

/* --- contexts ----------------------------------------------------------- */

static __global__ void k_present(void) {}

/* Whether the plugin has code for this device, and Hopper's own: code made from
 * an older architecture's PTX has none of it. */
static lk_status check_code(lk_context *context, cuda_state *s) {
  cudaFuncAttributes attributes;
  cudaError_t code = cudaFuncGetAttributes(&attributes, k_present);
  int driver = 0;
  cudaDriverGetVersion(&driver);
  s->beside = code == cudaSuccess && s->capability >= 90 &&
              attributes.ptxVersion >= 90 && driver >= 12030;
  s->hopper = code == cudaSuccess && s->capability == 90 &&
              attributes.ptxVersion == 90;
  if (code == cudaSuccess) return LK_OK;
  cudaGetLastError();
  return lk_fail(&context->error, LK_UNSUPPORTED,
                 "cuda:%d has compute capability %d.%d, for which this build "
                 "has no code (%s); build with make GPU_ARCH=native",
                 s->device, s->capability / 10, s->capability % 10,
                 cudaGetErrorString(code));
}

static lk_status read_device(lk_context *context, cuda_state *s) {
  int major = 0, minor = 0;
  CUDA_TRY(context, cudaDeviceGetAttribute(
      &s->processors, cudaDevAttrMultiProcessorCount, s->device));
  CUDA_TRY(context, cudaDeviceGetAttribute(
      &s->shared_most, cudaDevAttrMaxSharedMemoryPerBlockOptin, s->device));
  CUDA_TRY(context, cudaDeviceGetAttribute(
      &major, cudaDevAttrComputeCapabilityMajor, s->device));
  CUDA_TRY(context, cudaDeviceGetAttribute(
      &minor, cudaDevAttrComputeCapabilityMinor, s->device));
  s->capability = 10 * major + minor;
  return check_code(context, s);
}

/* The library's workspace, with the counters at its end. */
static lk_status open_workspace(lk_context *context, cuda_state *s) {
  int64_t split[LK_CATEGORY_COUNT] = {0};
  void *data = NULL;
  split[LK_SCRATCH] = context->profile->workspace;
  LK_TRY(lk_memory_allocate(context->memory, split, &data, &context->error));
  s->workspace = (char *)data;
  s->workspace_bytes = split[LK_SCRATCH] - CUDA_COUNTER_BYTES;
  s->counters = (unsigned *)(s->workspace + s->workspace_bytes);
  return cuda_check(context,
                    cudaMemsetAsync(s->counters, 0, CUDA_COUNTER_BYTES,
                                    s->stream),
                    "open");
}

static lk_status open_pinned(lk_context *context, cuda_state *s) {
  CUDA_TRY(context, cudaMallocHost((void **)&s->pinned,
                                   (CUDA_SLOTS + 1) * CUDA_SLOT_BYTES));
  for (int i = 0; i < CUDA_SLOTS; i++)
    CUDA_TRY(context, cudaEventCreateWithFlags(&s->sent[i],
                                               cudaEventDisableTiming));
  CUDA_TRY(context, cudaEventCreate(&s->start));
  CUDA_TRY(context, cudaEventCreate(&s->stop));
  return LK_OK;
}

static void cuda_close(lk_context *context);

static lk_status open_parts(lk_context *context, cuda_state *s) {
  CUDA_TRY(context, cudaSetDevice(s->device));
  LK_TRY(read_device(context, s));
  CUDA_TRY(context, cudaStreamCreateWithFlags(&s->stream,
                                              cudaStreamNonBlocking));
  LK_TRY(open_workspace(context, s));
  LK_TRY(open_pinned(context, s));
  ranges_open(context);
  return gemm_open(context);
}

static lk_status cuda_open(lk_context *context, int device) {
  cuda_state *s = (cuda_state *)calloc(1, sizeof *s);
  if (s == NULL)
    return lk_fail(&context->error, LK_OOM, "out of host memory");
  context->state = s;
  s->device = device;
  lk_status status = open_parts(context, s);
  if (status != LK_OK) cuda_close(context);
  return status;
}

/* Also after a failure half-way; what a broken device refuses is ignored. */
static void cuda_close(lk_context *context) {
  cuda_state *s = cuda_of(context);
  if (s == NULL) return;
  cudaSetDevice(s->device);
  if (s->stream) cudaStreamSynchronize(s->stream);
  gemm_close(context);
  for (int i = 0; i < CUDA_SLOTS; i++)
    if (s->sent[i]) cudaEventDestroy(s->sent[i]);
  if (s->start) cudaEventDestroy(s->start);
  if (s->stop) cudaEventDestroy(s->stop);
  if (s->pinned) cudaFreeHost(s->pinned);
  int64_t split[LK_CATEGORY_COUNT] = {0};
  split[LK_SCRATCH] = context->profile->workspace;
  lk_memory_release(context->memory, split, s->workspace);
  if (s->stream) cudaStreamDestroy(s->stream);
  cudaGetLastError();
  free(s);
  context->state = NULL;
}

/* --- memory ------------------------------------------------------------- */

static void *cuda_allocate(void *opaque, int64_t bytes) {
  lk_context *context = (lk_context *)opaque;
  void *data = NULL;
  if (cudaSetDevice(cuda_of(context)->device) == cudaSuccess &&
      cudaMalloc(&data, bytes > 0 ? (size_t)bytes : 1) == cudaSuccess)
    return data;
  cudaGetLastError();
  return NULL;
}

/* Waits for what still runs on the memory. */
static void cuda_release(void *opaque, void *data, int64_t bytes) {
  lk_context *context = (lk_context *)opaque;
  (void)bytes;
  cudaSetDevice(cuda_of(context)->device);
  cudaFree(data);
}

/* One piece through its pinned slot; the caller's memory is free again. */
static lk_status upload_piece(lk_context *context, char *to, const char *from,
                              size_t bytes) {
  cuda_state *s = cuda_of(context);
  char *slot = s->pinned + s->slot * CUDA_SLOT_BYTES;
  CUDA_TRY(context, cudaEventSynchronize(s->sent[s->slot]));
  memcpy(slot, from, bytes);
  CUDA_TRY(context, cudaMemcpyAsync(to, slot, bytes, cudaMemcpyHostToDevice,
                                    s->stream));
  CUDA_TRY(context, cudaEventRecord(s->sent[s->slot], s->stream));
  s->slot = (s->slot + 1) % CUDA_SLOTS;
  return LK_OK;
}

static lk_status cuda_upload(lk_context *context, void *device,
                             const void *host, int64_t bytes) {
  CUDA_TRY(context, cudaSetDevice(cuda_of(context)->device));
  for (int64_t i = 0; i < bytes; i += CUDA_SLOT_BYTES)
    LK_TRY(upload_piece(context, (char *)device + i, (const char *)host + i,
                        (size_t)cuda_smaller(bytes - i, CUDA_SLOT_BYTES)));
  return LK_OK;
}

static lk_status cuda_synchronize(lk_context *context) {
  CUDA_TRY(context, cudaSetDevice(cuda_of(context)->device));
  return cuda_check(context, cudaStreamSynchronize(cuda_stream(context)),
                    "synchronize");
}

static lk_status cuda_download(lk_context *context, void *host,
                               const void *device, int64_t bytes) {
  cuda_state *s = cuda_of(context);
  char *slot = s->pinned + CUDA_SLOTS * CUDA_SLOT_BYTES;
  CUDA_TRY(context, cudaSetDevice(s->device));
  for (int64_t i = 0; i < bytes; i += CUDA_SLOT_BYTES) {
    size_t n = (size_t)cuda_smaller(bytes - i, CUDA_SLOT_BYTES);
    CUDA_TRY(context, cudaMemcpyAsync(slot, (const char *)device + i, n,
                                      cudaMemcpyDeviceToHost, s->stream));
    LK_TRY(cuda_synchronize(context));
    memcpy((char *)host + i, slot, n);
  }
  return LK_OK;
}

static lk_status cuda_move(lk_context *context, void *to, const void *from,
                           int64_t bytes) {
  if (bytes <= 0 || to == from) return LK_OK;
  CUDA_TRY(context, cudaSetDevice(cuda_of(context)->device));
  return cuda_check(context,
                    cudaMemcpyAsync(to, from, (size_t)bytes,
                                    cudaMemcpyDeviceToDevice,
                                    cuda_stream(context)),
                    "copy");
}

static lk_status cuda_clear(lk_context *context, void *data, int64_t bytes) {
  if (bytes <= 0) return LK_OK;
  CUDA_TRY(context, cudaSetDevice(cuda_of(context)->device));
  return cuda_check(context,
                    cudaMemsetAsync(data, 0, (size_t)bytes,
                                    cuda_stream(context)),
                    "zero");
}

/* --- recordings --------------------------------------------------------- */

static lk_status record_begin(lk_context *context) {
  return cuda_check(context,
                    cudaStreamBeginCapture(cuda_stream(context),
                                           cudaStreamCaptureModeThreadLocal),
                    "record");
}

/* A recording that cannot be made leaves no trace: the caller runs the calls
 * instead. */
static lk_status record_end(lk_context *context, void **recording) {
  cudaGraph_t graph = NULL;
  cudaGraphExec_t made = NULL;
  cudaError_t code = cudaStreamEndCapture(cuda_stream(context), &graph);
  if (code == cudaSuccess) code = cudaGraphInstantiate(&made, graph, 0);
  if (graph) cudaGraphDestroy(graph);
  *recording = made;
  if (code == cudaSuccess) return LK_OK;
  cudaGetLastError();
  return lk_fail(&context->error, LK_UNSUPPORTED, "record: %s",
                 cudaGetErrorString(code));
}

static lk_status replay(lk_context *context, void *recording) {
  CUDA_TRY(context, cudaSetDevice(cuda_of(context)->device));
  return cuda_check(context,
                    cudaGraphLaunch((cudaGraphExec_t)recording,
                                    cuda_stream(context)),
                    "replay");
}

static void forget(lk_context *context, void *recording) {
  cudaStreamSynchronize(cuda_stream(context));
  cudaGraphExecDestroy((cudaGraphExec_t)recording);
}

/* --- stopwatch ---------------------------------------------------------- */

static lk_status stopwatch_start(lk_context *context) {
  return cuda_check(context,
                    cudaEventRecord(cuda_of(context)->start,
                                    cuda_stream(context)),
                    "stopwatch");
}

static lk_status stopwatch_read(lk_context *context, double *seconds) {
  cuda_state *s = cuda_of(context);
  float milliseconds = 0;
  CUDA_TRY(context, cudaEventRecord(s->stop, cuda_stream(context)));
  CUDA_TRY(context, cudaEventSynchronize(s->stop));
  CUDA_TRY(context, cudaEventElapsedTime(&milliseconds, s->start, s->stop));
  *seconds = (double)milliseconds * 1e-3;
  return LK_OK;
}

/* --- the table ---------------------------------------------------------- */

static lk_backend make_backend(void) {
  lk_backend b = {};
  b.name = "cuda";
  b.device_count = device_count;
  b.device_info = device_info;
  b.open = cuda_open;
  b.close = cuda_close;
  b.allocate = cuda_allocate;
  b.release = cuda_release;
  b.upload = cuda_upload;
  b.download = cuda_download;
  b.copy = cuda_move;
  b.zero = cuda_clear;
  b.synchronize = cuda_synchronize;
  b.record_begin = record_begin;
  b.record_end = record_end;
  b.replay = replay;
  b.forget = forget;
  b.stopwatch_start = stopwatch_start;
  b.stopwatch_read = stopwatch_read;
#define OP(name, results, inputs, attributes, gradient) \
  b.kernels[LK_OP_##name] = cuda_##name;
#include "../core/ops.def"
#undef OP
  return b;
}

/* What the host looks up after loading the plugin, with the sizes it knows;
 * NULL for a host of another build. */
extern "C" __attribute__((visibility("default"))) const lk_backend *
lk_cuda_backend(size_t backend_bytes, size_t call_bytes) {
  static const lk_backend backend = make_backend();
  bool same = backend_bytes == sizeof backend && call_bytes == sizeof(lk_call);
  return same ? &backend : NULL;
}
