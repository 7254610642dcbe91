/* Optimizers: gradients gathered, measured and applied. Formulas by element are
 * those of base/update.h; what a step needs of `control` is read on the device,
 * so that a recorded step can be replayed. */
#include "muon.cuh"
#include "quads.cuh"

/* --- gathering and measuring ---------------------------------------------- */

struct accumulate_each {
  view x, y;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    float a[8], b[8];
    view_load(y, i, n, whole, a);
    view_load(x, i, n, whole, b);
    for (int j = 0; j < 8; j++) a[j] += b[j];
    view_store(y, i, n, whole, a);
  }
};

lk_status cuda_accumulate(lk_context *context, const lk_call *call) {
  accumulate_each f = {view_of(&call->in[0]), view_of(&call->out[0])};
  return cuda_each(context, call, lk_tensor_count(&call->in[0]),
                   view_whole(f.x) && view_whole(f.y), f);
}

typedef struct squares_args {
  view g;
  float *slots, *control;
  int64_t count;
  bool whole;
} squares_args;

/* A thread's part of a whole piece in f32, from `g` on: all of it is asked for
 * before the first of it is added. */
static __device__ __forceinline__ float squares_whole(const float *g) {
  enum { GROUPS = LK_SUM_PIECE / (CUDA_THREADS * 8) };
  float4 v[GROUPS][2];
  float part = 0;
#pragma unroll
  for (int k = 0; k < 2 * GROUPS; k++)
    v[k / 2][k % 2] = *(const float4 *)(g + k / 2 * CUDA_THREADS * 8 +
                                        k % 2 * 4);
#pragma unroll
  for (int k = 0; k < 2 * GROUPS; k++) {
    const float4 w = v[k / 2][k % 2];
    part += w.x * w.x;
    part += w.y * w.y;
    part += w.z * w.z;
    part += w.w * w.w;
  }
  return part;
}

/* The same of any piece, which ends at `last`. */
static __device__ __forceinline__ float
squares_any(const squares_args &a, int64_t first, int64_t last) {
  float part = 0, v[8];
#pragma unroll 4
  for (int64_t i = first; i < last; i += CUDA_THREADS * 8) {
    int n = last - i < 8 ? (int)(last - i) : 8;
    view_load(a.g, i, n, a.whole && n == 8, v);
#pragma unroll
    for (int j = 0; j < 8; j++) part += v[j] * v[j];
  }
  return part;
}

/* A block a piece. */
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_sum_squares(squares_args a) {
  beside_kernel beside;
  __shared__ double room[33];
  int64_t first = (int64_t)blockIdx.x * LK_SUM_PIECE;
  int64_t last = first + LK_SUM_PIECE, mine = first + threadIdx.x * 8;
  bool whole = a.whole && a.g.dtype == LK_F32 && last <= a.count;
  double scale = (double)a.control[LK_CONTROL_LOSS_SCALE];
  float part = whole ? squares_whole((const float *)a.g.data + mine)
                     : squares_any(a, mine, last < a.count ? last : a.count);
  double sum = block_sum((double)part, room);
  if (threadIdx.x != 0) return;
  float total = (float)(sum / (scale * scale));
  a.slots[blockIdx.x] = total;
  if (!(total < INFINITY)) a.control[LK_CONTROL_FINITE] = 0.0f;
}

lk_status cuda_sum_squares(lk_context *context, const lk_call *call) {
  squares_args a = {view_of(&call->in[0]),
                    (float *)call->out[0].data + call->attr.index,
                    (float *)call->out[1].data,
                    lk_tensor_count(&call->in[0]), false};
  a.whole = view_whole(a.g);
  beside_launch(context, call, k_sum_squares, lk_sum_pieces(a.count),
                CUDA_THREADS, a);
  return cuda_launched(context, call);
}

enum { CLIP_THREADS = 1024 };

/* One block; a thread asks for several slots before it adds the first. */
static __global__ void __launch_bounds__(CLIP_THREADS)
    k_clip(const float *slots, int64_t count, float *control) {
  __shared__ double room[33];
  double sum = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < count; i += CLIP_THREADS)
    sum += (double)slots[i];
  sum = block_sum(sum, room);
  if (threadIdx.x != 0) return;
  float norm = (float)sqrt(sum), factor = control[LK_CONTROL_CLIP] / norm;
  control[LK_CONTROL_NORM] = norm;
  control[LK_CONTROL_FACTOR] = factor < 1.0f ? factor : 1.0f;
}

lk_status cuda_clip(lk_context *context, const lk_call *call) {
  k_clip<<<1, CLIP_THREADS, 0, cuda_stream(context)>>>(
      (const float *)call->in[0].data, lk_tensor_count(&call->in[0]),
      (float *)call->out[0].data);
  return cuda_launched(context, call);
}

/* --- AdamW, SGD ----------------------------------------------------------- */

/* Tensors of an update; m, v, copy may be absent. */
typedef struct update_args {
  view g, w, m, v, copy;
  const float *control;
  int64_t count;
  bool whole;
} update_args;

static update_args update_of(const lk_call *call) {
  update_args a = {};
  a.g = view_of(&call->in[0]);
  a.w = view_of(&call->out[0]);
  a.control = (const float *)call->in[1].data;
  a.count = lk_tensor_count(&call->in[0]);
  return a;
}

static void update_align(update_args *a) {
  a->whole = view_whole(a->g) && view_whole(a->w) && view_whole(a->m) &&
             view_whole(a->v) && view_whole(a->copy);
}

enum { UPDATE_TURNS = 4 }; /* groups a thread updates */

static unsigned update_blocks(int64_t count) {
  return (unsigned)cuda_pieces(count, UPDATE_TURNS * CUDA_THREADS * 8);
}

/* The group of this thread's turn t; false past the end. */
static __device__ bool update_group(const update_args &a, int t, int64_t *i,
                                    int *n, bool *whole) {
  *i = (((int64_t)blockIdx.x * UPDATE_TURNS + t) * CUDA_THREADS +
        threadIdx.x) * 8;
  if (*i >= a.count) return false;
  *n = a.count - *i < 8 ? (int)(a.count - *i) : 8;
  *whole = a.whole && *n == 8;
  return true;
}

/* Stepping `lr` and so on: doubles, computed once a block. */
static __global__ void __launch_bounds__(CUDA_THREADS)
    k_adamw(update_args a, lk_attr attr) {
  beside_kernel beside;
  __shared__ lk_adamw step;
  const float *control = a.control;
  if (control[LK_CONTROL_FINITE] == 0.0f) return;
  if (threadIdx.x == 0)
    step = lk_adamw_begin(attr.lr, attr.beta1, attr.beta2, attr.eps,
                          attr.decay, control[LK_CONTROL_RATE],
                          update_scale(control, LK_CONTROL_FACTOR),
                          control[LK_CONTROL_STEP]);
  __syncthreads();
  const lk_adamw s = step;
  for (int t = 0; t < UPDATE_TURNS; t++) {
    int64_t i;
    int n;
    bool whole;
    float g[8], w[8], m[8], v[8];
    if (!update_group(a, t, &i, &n, &whole)) return;
    view_load(a.g, i, n, whole, g);
    view_load(a.w, i, n, whole, w);
    view_load(a.m, i, n, whole, m);
    view_load(a.v, i, n, whole, v);
#pragma unroll
    for (int j = 0; j < 8; j++)
      w[j] = lk_adamw_step(&s, w[j], g[j], &m[j], &v[j]);
    view_store(a.w, i, n, whole, w);
    view_store(a.m, i, n, whole, m);
    view_store(a.v, i, n, whole, v);
    if (a.copy.data) view_store(a.copy, i, n, whole, w);
  }
}

struct adamw_quads {
  update_args a;
  lk_attr attr;
  typedef lk_adamw state;
  struct group {
    float g[4], w[4], m[4], v[4];
  };
  /* By all threads of a block. */
  __device__ bool open(state *s) const {
    __shared__ lk_adamw step;
    const float *control = a.control;
    if (control[LK_CONTROL_FINITE] == 0.0f) return false;
    if (threadIdx.x == 0)
      step = lk_adamw_begin(attr.lr, attr.beta1, attr.beta2, attr.eps,
                            attr.decay, control[LK_CONTROL_RATE],
                            update_scale(control, LK_CONTROL_FACTOR),
                            control[LK_CONTROL_STEP]);
    __syncthreads();
    *s = step;
    return true;
  }
  __device__ __forceinline__ void load(int64_t i, group &x) const {
    quad_load(a.g, i, x.g);
    quad_load(a.w, i, x.w);
    quad_load(a.m, i, x.m);
    quad_load(a.v, i, x.v);
  }
  __device__ __forceinline__ void work(const state &s, int64_t i,
                                       group &x) const {
#pragma unroll
    for (int j = 0; j < 4; j++)
      x.w[j] = lk_adamw_step(&s, x.w[j], x.g[j], &x.m[j], &x.v[j]);
    quad_store(a.w, i, x.w);
    quad_store(a.m, i, x.m);
    quad_store(a.v, i, x.v);
    if (a.copy.data) quad_store(a.copy, i, x.w);
  }
};

lk_status cuda_adamw(lk_context *context, const lk_call *call) {
  update_args a = update_of(call);
  a.m = view_of(&call->out[1]);
  a.v = view_of(&call->out[2]);
  a.copy = view_of(&call->out[3]);
  update_align(&a);
  if (a.whole && a.count % 4 == 0) {
    adamw_quads f = {a, call->attr};
    return quads_run(context, call, a.count, f);
  }
  beside_launch(context, call, k_adamw, update_blocks(a.count), CUDA_THREADS,
                a, call->attr);
  return cuda_launched(context, call);
}

static __global__ void __launch_bounds__(CUDA_THREADS)
    k_sgd(update_args a, lk_attr attr) {
  const float *control = a.control;
  if (control[LK_CONTROL_FINITE] == 0.0f) return;
  const lk_sgd s = lk_sgd_begin(attr.lr, attr.beta1, attr.decay,
                                attr.nesterov, control[LK_CONTROL_RATE],
                                update_scale(control, LK_CONTROL_FACTOR));
  for (int t = 0; t < UPDATE_TURNS; t++) {
    int64_t i;
    int n;
    bool whole;
    float g[8], w[8], m[8] = {0};
    if (!update_group(a, t, &i, &n, &whole)) return;
    view_load(a.g, i, n, whole, g);
    view_load(a.w, i, n, whole, w);
    if (a.m.data) view_load(a.m, i, n, whole, m);
#pragma unroll
    for (int j = 0; j < 8; j++)
      w[j] = a.m.data ? lk_sgd_step(&s, w[j], g[j], &m[j])
                      : lk_sgd_plain(&s, w[j], g[j]);
    if (a.m.data) view_store(a.m, i, n, whole, m);
    view_store(a.w, i, n, whole, w);
    if (a.copy.data) view_store(a.copy, i, n, whole, w);
  }
}

lk_status cuda_sgd(lk_context *context, const lk_call *call) {
  update_args a = update_of(call);
  a.m = view_of(&call->out[1]);
  a.copy = view_of(&call->out[2]);
  update_align(&a);
  k_sgd<<<update_blocks(a.count), CUDA_THREADS, 0, cuda_stream(context)>>>(
      a, call->attr);
  return cuda_launched(context, call);
}

/* --- Muon ----------------------------------------------------------------- */

/* A stopped step has no direction: zeros, so that what follows is harmless. */
struct muon_momentum_each {
  view g, m, u;
  const float *control;
  float rest;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    float d[8] = {0}, k[8];
    bool stopped = control[LK_CONTROL_FINITE] == 0.0f;
    if (!stopped) {
      view_load(g, i, n, whole, d);
      view_load(m, i, n, whole, k);
      muon_group<8>(update_scale(control, LK_CONTROL_MUON_FACTOR), rest, d,
                    k);
      view_store(m, i, n, whole, k);
    }
    view_store(u, i, n, whole, d);
  }
};

struct muon_momentum_quads {
  muon_momentum_each e;
  struct state {
    bool stopped;
    float scale;
  };
  struct group {
    float g[4], m[4];
  };
  __device__ bool open(state *s) const {
    s->stopped = e.control[LK_CONTROL_FINITE] == 0.0f;
    s->scale = update_scale(e.control, LK_CONTROL_MUON_FACTOR);
    return true;
  }
  __device__ __forceinline__ void load(int64_t i, group &x) const {
    quad_load(e.g, i, x.g);
    quad_load(e.m, i, x.m);
  }
  __device__ __forceinline__ void work(const state &s, int64_t i,
                                       group &x) const {
    const float none[4] = {0};
    if (s.stopped) {
      quad_store(e.u, i, none);
      return;
    }
    muon_group<4>(s.scale, e.rest, x.g, x.m);
    quad_store(e.m, i, x.m);
    quad_store(e.u, i, x.g);
  }
};

lk_status cuda_muon_momentum(lk_context *context, const lk_call *call) {
  muon_momentum_each f = {view_of(&call->in[0]), view_of(&call->out[0]),
                          view_of(&call->out[1]),
                          (const float *)call->in[1].data,
                          (float)(1.0 - call->attr.beta1)};
  bool whole = view_whole(f.g) && view_whole(f.m) && view_whole(f.u);
  if (whole && lk_tensor_count(&call->in[0]) % 4 == 0) {
    muon_momentum_quads q = {f};
    return quads_run(context, call, lk_tensor_count(&call->in[0]), q);
  }
  return cuda_each(context, call, lk_tensor_count(&call->in[0]), whole, f);
}

struct muon_update_each {
  view o, w, copy;
  const float *control;
  double lr;
  float scale, decay;
  __device__ void operator()(int64_t i, int n, bool whole) const {
    float d[8], v[8];
    if (control[LK_CONTROL_FINITE] == 0.0f) return;
    float rate = (float)(lr * (double)control[LK_CONTROL_RATE]);
    view_load(o, i, n, whole, d);
    view_load(w, i, n, whole, v);
    for (int j = 0; j < 8; j++)
      v[j] = lk_muon_step(v[j], d[j], rate, scale, decay);
    view_store(w, i, n, whole, v);
    if (copy.data) view_store(copy, i, n, whole, v);
  }
};

struct muon_update_quads {
  muon_update_each e;
  typedef float state; /* the rate */
  struct group {
    float o[4], w[4];
  };
  __device__ bool open(state *rate) const {
    *rate = (float)(e.lr * (double)e.control[LK_CONTROL_RATE]);
    return e.control[LK_CONTROL_FINITE] != 0.0f;
  }
  __device__ __forceinline__ void load(int64_t i, group &x) const {
    quad_load(e.o, i, x.o);
    quad_load(e.w, i, x.w);
  }
  __device__ __forceinline__ void work(const state &rate, int64_t i,
                                       group &x) const {
#pragma unroll
    for (int j = 0; j < 4; j++)
      x.w[j] = lk_muon_step(x.w[j], x.o[j], rate, e.scale, e.decay);
    quad_store(e.w, i, x.w);
    if (e.copy.data) quad_store(e.copy, i, x.w);
  }
};

lk_status cuda_muon_update(lk_context *context, const lk_call *call) {
  const lk_attr *a = &call->attr;
  muon_update_each f = {view_of(&call->in[0]), view_of(&call->out[0]),
                        view_of(&call->out[1]),
                        (const float *)call->in[1].data, a->lr,
                        (float)a->scale, (float)a->decay};
  bool whole = view_whole(f.o) && view_whole(f.w) && view_whole(f.copy);
  if (whole && lk_tensor_count(&call->in[0]) % 4 == 0) {
    muon_update_quads q = {f};
    return quads_run(context, call, lk_tensor_count(&call->in[0]), q);
  }
  return cuda_each(context, call, lk_tensor_count(&call->in[0]), whole, f);
}
