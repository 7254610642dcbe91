/* Checkpoints: which tensors a program's state consists of, and moving them
 * between its buffers and files. */
#define _GNU_SOURCE
#include "checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../sys/safetensors.h"
#include "bitsandbytes.h"

enum { PIECE = 1 << 20, STATE_MOST = 4096 };

/* --- what there is to store ---------------------------------------------- */

typedef enum item_kind { BUFFER, MAP, STATE } item_kind;

/* One tensor of a file. */
typedef struct item {
  char name[160];
  item_kind kind;
  lk_dtype dtype;                /* in the file */
  lk_shape shape;
  int buffer;                    /* of the store, for BUFFER */
  const lk_parameter *parameter;
} item;

typedef struct list {
  item *item;
  int64_t count;
} list;

/* What both directions need. */
typedef struct job {
  lk_program *program;
  const lk_store *store;
  lk_machine *machine;
  list model, training;
  char *piece;
  lk_error *error;
} job;

static item *add(list *l, const char *name, const char *suffix) {
  item *i = &l->item[l->count++];
  snprintf(i->name, sizeof i->name, "%s%s", name, suffix);
  return i;
}

static lh_bnb_state state_of(const job *j, const lk_parameter *p) {
  return (lh_bnb_state){
      .format = LK_FORMAT_NF4, .block = p->block, .shape = p->shape,
      .dtype = lk_program_options_of(j->program)->weights.compute};
}

static void add_buffer(const job *j, list *l, const char *name,
                       const char *suffix, int buffer) {
  const lk_buffer *b = &j->store->buffers[buffer];
  item *i = add(l, name, suffix);
  i->buffer = buffer;
  i->dtype = b->dtype;
  i->shape = b->shape;
}

/* A 4-bit weight: packed codes as bytes, scales, the codebook, the JSON. */
static void add_quantized(const job *j, list *l, const lk_parameter *p) {
  char text[LH_BNB_TEXT];
  lh_bnb_state state = state_of(j, p);
  add_buffer(j, l, p->name, "", p->part[LK_PART_CODES]);
  item *codes = &l->item[l->count - 1];
  codes->dtype = LK_U8;
  codes->shape = lk_shape_of((lk_shape_count(p->shape) + 1) / 2, 1);
  add_buffer(j, l, p->name, LH_BNB_ABSMAX, p->part[LK_PART_SCALES]);
  item *map = add(l, p->name, LH_BNB_MAP);
  map->kind = MAP;
  map->dtype = LK_F32;
  map->shape = lk_shape_of(16);
  item *json = add(l, p->name, LH_BNB_STATE "nf4");
  json->kind = STATE;
  json->dtype = LK_U8;
  json->shape = lk_shape_of(lh_bnb_text(&state, text));
  json->parameter = p;
}

static void list_model(job *j) {
  for (int i = 1; i <= lk_store_parameter_count(j->store); i++) {
    const lk_parameter *p = lk_store_parameter(j->store, i);
    if (p->format->quantized)
      add_quantized(j, &j->model, p);
    else
      add_buffer(j, &j->model, p->name, "", p->part[LK_PART_MASTER]);
  }
}

static bool is_training_part(lk_part part) {
  return part == LK_PART_RESIDUAL || part == LK_PART_MOMENT1 ||
         part == LK_PART_MOMENT2 || part == LK_PART_MSCALE;
}

static void list_training(job *j) {
  for (int i = 1; i < j->store->buffer_count; i++) {
    const lk_buffer *b = &j->store->buffers[i];
    if (b->parameter && is_training_part(b->part))
      add_buffer(j, &j->training, b->name, "", i);
  }
}

/* Does the program train? */
static bool trains(const job *j) {
  for (int i = 1; i <= lk_store_parameter_count(j->store); i++)
    if (lk_store_parameter(j->store, i)->group) return true;
  return false;
}

static void job_close(job *j) {
  free(j->model.item);
  free(j->training.item);
  free(j->piece);
}

static lk_status job_open(job *j, lk_program *program, lk_error *error) {
  *j = (job){.program = program, .store = lk_program_store(program),
             .machine = lk_program_machine(program), .error = error};
  if (j->machine == NULL)
    return lk_fail(error, LK_ARGUMENT, "a checkpoint needs an open program");
  size_t parameters = (size_t)lk_store_parameter_count(j->store);
  j->model.item = calloc(4 * parameters + 1, sizeof(item));
  j->training.item = calloc((size_t)j->store->buffer_count + 1, sizeof(item));
  j->piece = malloc(PIECE);
  if (!j->model.item || !j->training.item || !j->piece) {
    job_close(j);
    return lk_fail(error, LK_OOM, "no host memory for a checkpoint");
  }
  list_model(j);
  list_training(j);
  return LK_OK;
}

/* The device's message as this job's. */
static lk_status told(const job *j, lk_status status) {
  if (status != LK_OK && j->error) *j->error = j->machine->context->error;
  return status;
}

static char *buffer_data(const job *j, const item *i) {
  return lk_machine_buffer(j->machine, i->buffer);
}

static int64_t item_bytes(const item *i) {
  return lk_dtype_bytes(i->dtype, lk_shape_count(i->shape));
}

static int64_t piece_size(int64_t bytes, int64_t at) {
  return bytes - at < PIECE ? bytes - at : PIECE;
}

/* --- saving -------------------------------------------------------------- */

static lk_status save_buffer(const job *j, const item *i,
                             lh_safetensors_writer *w) {
  lk_context *x = j->machine->context;
  int64_t bytes = item_bytes(i);
  for (int64_t at = 0; at < bytes; at += PIECE) {
    int64_t size = piece_size(bytes, at);
    LK_TRY(told(j, x->backend->download(x, j->piece, buffer_data(j, i) + at,
                                        size)));
    LK_TRY(lh_safetensors_writer_append(w, j->piece, size, j->error));
  }
  return LK_OK;
}

static lk_status save_item(const job *j, const item *i,
                           lh_safetensors_writer *w) {
  float map[16];
  char text[LH_BNB_TEXT];
  if (i->kind == BUFFER) return save_buffer(j, i, w);
  if (i->kind == MAP) {
    lh_bnb_map(LK_FORMAT_NF4, map);
    return lh_safetensors_writer_append(w, map, sizeof map, j->error);
  }
  lh_bnb_state state = state_of(j, i->parameter);
  int size = lh_bnb_text(&state, text);
  return lh_safetensors_writer_append(w, text, size, j->error);
}

static lk_status save_items(const job *j, const list *l, const char *path,
                            lh_safetensors_entry *entries,
                            const lh_safetensors_pair *pairs, int64_t count) {
  lh_safetensors_writer *w;
  for (int64_t k = 0; k < l->count; k++)
    entries[k] = (lh_safetensors_entry){l->item[k].name, l->item[k].dtype,
                                        l->item[k].shape, k};
  lh_safetensors_sort(entries, l->count);
  LK_TRY(lh_safetensors_writer_open(&w, path, entries, l->count, pairs, count,
                                    j->error));
  lk_status status = LK_OK;
  for (int64_t k = 0; k < l->count && status == LK_OK; k++)
    status = save_item(j, &l->item[entries[k].tag], w);
  if (status == LK_OK) return lh_safetensors_writer_commit(w, j->error);
  lh_safetensors_writer_abort(w);
  return status;
}

static lk_status save_file(const job *j, const list *l, const char *dir,
                           const char *name, const lh_safetensors_pair *pairs,
                           int64_t count) {
  char *path = NULL;
  lh_safetensors_entry *entries =
      calloc((size_t)l->count + 1, sizeof *entries);
  lk_status status;
  if (entries == NULL || asprintf(&path, "%s/%s", dir, name) < 0)
    status = lk_fail(j->error, LK_OOM, "no host memory for a checkpoint");
  else
    status = save_items(j, l, path, entries, pairs, count);
  free(entries);
  free(path);
  return status;
}

/* Numbers as text that gives them back bit for bit. */
static lk_status save_training(const job *j, const char *dir) {
  const lk_weight_options *w = &lk_program_options_of(j->program)->weights;
  lk_scaling s = lk_program_scaling(j->program);
  char block[24], steps[24], factor[40], scale[40], good[24], skipped[24];
  snprintf(block, sizeof block, "%lld", (long long)w->block);
  snprintf(steps, sizeof steps, "%lld",
           (long long)lk_program_steps(j->program));
  snprintf(factor, sizeof factor, "%.17g", lk_program_muon_factor(j->program));
  snprintf(scale, sizeof scale, "%.17g", s.scale);
  snprintf(good, sizeof good, "%lld", (long long)s.good);
  snprintf(skipped, sizeof skipped, "%lld", (long long)s.skipped);
  lh_safetensors_pair pairs[] = {{"storage", w->format->name},
                                 {"block", block},
                                 {"steps", steps},
                                 {"muon_factor", factor},
                                 {"loss_scale", scale},
                                 {"good_steps", good},
                                 {"skipped_steps", skipped}};
  return save_file(j, &j->training, dir, "training.safetensors", pairs,
                   lk_program_scales(j->program) ? 7 : 5);
}

lk_status lh_checkpoint_save(lk_program *program, const char *dir,
                             lk_error *error) {
  job j;
  LK_TRY(job_open(&j, program, error));
  lh_safetensors_pair pairs[] = {{"format", "pt"}}; /* as other readers ask */
  lk_status status =
      save_file(&j, &j.model, dir, "model.safetensors", pairs, 1);
  if (status == LK_OK) status = save_training(&j, dir);
  job_close(&j);
  return status;
}

/* --- checking ------------------------------------------------------------ */

static lk_status check_found(const job *j, const lh_safetensors *f,
                             const item *i, const lh_safetensor *t) {
  char needs[160], has[160];
  lk_shape_text(i->shape, needs, sizeof needs);
  if (t == NULL)
    return lk_fail(j->error, LK_FORMAT, "'%s': tensor '%s' is missing, the "
                   "program needs %s %s", f->path, i->name,
                   lk_dtype_safetensors(i->dtype), needs);
  bool fits = t->dtype == i->dtype && lk_shape_equal(t->shape, i->shape);
  /* the JSON's length follows from the compute dtype in it */
  if (i->kind == STATE)
    fits = t->dtype == LK_U8 && t->shape.rank == 1 && t->bytes <= STATE_MOST;
  if (fits) return LK_OK;
  return lk_fail(j->error, LK_FORMAT, "'%s': tensor '%s' is %s %s, the program "
                 "needs %s %s", f->path, i->name, t->word,
                 lk_shape_text(t->shape, has, sizeof has),
                 lk_dtype_safetensors(i->dtype), needs);
}

/* The values that every program has alike. */
static lk_status check_value(const job *j, const lh_safetensors *f,
                             const item *i, const lh_safetensor *t) {
  char text[STATE_MOST];
  float map[16];
  if (i->kind == BUFFER) return LK_OK;
  LK_TRY(lh_safetensors_read(f, t, 0, text, t->bytes, j->error));
  if (i->kind == STATE) {
    lh_bnb_state state = state_of(j, i->parameter);
    return lh_bnb_check(&state, text, t->bytes, i->name, j->error);
  }
  lh_bnb_map(LK_FORMAT_NF4, map);
  if (memcmp(text, map, sizeof map) == 0) return LK_OK;
  return lk_fail(j->error, LK_FORMAT, "'%s': tensor '%s' is not NF4's codebook",
                 f->path, i->name);
}

static int compare_items(const void *a, const void *b) {
  return strcmp(((const item *)a)->name, ((const item *)b)->name);
}

/* Nothing in the file that the program has not. Sorts the list. */
static lk_status check_known(const job *j, const lh_safetensors *f, list *l) {
  qsort(l->item, (size_t)l->count, sizeof(item), compare_items);
  for (int64_t k = 0; k < f->count; k++) {
    item key;
    snprintf(key.name, sizeof key.name, "%s", f->tensor[k].name);
    if (!bsearch(&key, l->item, (size_t)l->count, sizeof key, compare_items))
      return lk_fail(j->error, LK_FORMAT, "'%s': tensor '%.100s' is none of "
                     "the program's", f->path, f->tensor[k].name);
  }
  return LK_OK;
}

static lk_status check_file(const job *j, const lh_safetensors *f, list *l) {
  for (int64_t k = 0; k < l->count; k++) {
    const item *i = &l->item[k];
    const lh_safetensor *t = lh_safetensors_find(f, i->name);
    LK_TRY(check_found(j, f, i, t));
    LK_TRY(check_value(j, f, i, t));
  }
  return check_known(j, f, l);
}

static lk_status read_number(const job *j, const lh_safetensors *f,
                             const char *key, double *value) {
  const char *text = lh_safetensors_metadata(f, key);
  char *end = NULL;
  *value = text ? strtod(text, &end) : 0;
  if (text && end != text && *end == 0 && *value >= 0 && *value < 1e15)
    return LK_OK;
  return lk_fail(j->error, LK_FORMAT, "'%s': %s is %.40s, needs a number",
                 f->path, key, text ? text : "missing");
}

/* Files of programs that do not scale losses, and older ones, count no good
 * steps: their scale says nothing, *s stays. */
static lk_status read_scaling(const job *j, const lh_safetensors *f,
                              lk_scaling *s) {
  double scale, good, skipped;
  LK_TRY(read_number(j, f, "loss_scale", &scale));
  if (!lk_program_scales(j->program) ||
      lh_safetensors_metadata(f, "good_steps") == NULL)
    return LK_OK;
  LK_TRY(read_number(j, f, "good_steps", &good));
  LK_TRY(read_number(j, f, "skipped_steps", &skipped));
  *s = (lk_scaling){scale, (int64_t)good, (int64_t)skipped};
  return LK_OK;
}

static lk_status check_storage(const job *j, const lh_safetensors *f) {
  const char *needs =
      lk_program_options_of(j->program)->weights.format->name;
  const char *has = lh_safetensors_metadata(f, "storage");
  if (has && strcmp(has, needs) == 0) return LK_OK;
  return lk_fail(j->error, LK_FORMAT, "'%s': weights are stored as %.40s, the "
                 "program's as %s", f->path, has ? has : "nothing it names",
                 needs);
}

/* --- loading ------------------------------------------------------------- */

static lk_status load_buffer(const job *j, const lh_safetensors *f,
                             const item *i) {
  lk_context *x = j->machine->context;
  const lh_safetensor *t = lh_safetensors_find(f, i->name);
  for (int64_t at = 0; at < t->bytes; at += PIECE) {
    int64_t size = piece_size(t->bytes, at);
    LK_TRY(lh_safetensors_read(f, t, at, j->piece, size, j->error));
    LK_TRY(told(j, x->backend->upload(x, buffer_data(j, i) + at, j->piece,
                                      size)));
  }
  return LK_OK;
}

static lk_status load_items(const job *j, const lh_safetensors *f,
                            const list *l) {
  for (int64_t k = 0; k < l->count; k++)
    if (l->item[k].kind == BUFFER) LK_TRY(load_buffer(j, f, &l->item[k]));
  return LK_OK;
}

/* Compute copies, made again from the weights. */
static lk_status make_copies(const job *j) {
  for (int i = 1; i <= lk_store_parameter_count(j->store); i++) {
    const lk_parameter *p = lk_store_parameter(j->store, i);
    lk_storage *storage[LK_MAX_RESULTS];
    if (p->part[LK_PART_COPY] == 0) continue;
    lk_call call = lk_call_new(LK_OP_cast);
    call.in[0] = lk_machine_tensor(j->machine, p->part[LK_PART_MASTER]);
    call.out[0] = lk_machine_tensor(j->machine, p->part[LK_PART_COPY]);
    LK_TRY(told(j, lk_dispatch(j->machine->context, &call, storage)));
  }
  return LK_OK;
}

/* Residuals of a program that reads the model alone. */
static lk_status clear_training(const job *j) {
  lk_context *x = j->machine->context;
  for (int64_t k = 0; k < j->training.count; k++) {
    const item *i = &j->training.item[k];
    LK_TRY(told(j, x->backend->zero(x, buffer_data(j, i), item_bytes(i))));
  }
  return LK_OK;
}

static lk_status move_all(const job *j, const lh_safetensors *model,
                          const lh_safetensors *training) {
  LK_TRY(load_items(j, model, &j->model));
  LK_TRY(training ? load_items(j, training, &j->training)
                  : clear_training(j));
  LK_TRY(make_copies(j));
  lk_context *x = j->machine->context;
  return told(j, x->backend->synchronize(x));
}

static lk_status load_checked(const job *j, const lh_safetensors *model,
                              const lh_safetensors *training) {
  double steps = 0, factor = 1;
  lk_scaling scaling = lk_scaling_first(lk_program_scales(j->program));
  if (training) {
    LK_TRY(read_number(j, training, "steps", &steps));
    LK_TRY(read_number(j, training, "muon_factor", &factor));
    LK_TRY(read_scaling(j, training, &scaling));
  }
  lk_status status = move_all(j, model, training);
  if (status != LK_OK) {
    lk_program_reset(j->program); /* whole, if not what was asked for */
    return status;
  }
  lk_program_set_steps(j->program, (int64_t)steps);
  lk_program_set_muon_factor(j->program, factor);
  lk_program_set_scaling(j->program, scaling);
  return LK_OK;
}

static lk_status open_file(const job *j, const char *dir, const char *name,
                           lh_safetensors *f) {
  char *path;
  if (asprintf(&path, "%s/%s", dir, name) < 0)
    return lk_fail(j->error, LK_OOM, "no host memory for a checkpoint");
  lk_status status = lh_safetensors_open(path, f, j->error);
  free(path);
  return status;
}

static lk_status load_files(job *j, const char *dir, lh_safetensors *model,
                            lh_safetensors *training) {
  if (training) {
    LK_TRY(open_file(j, dir, "training.safetensors", training));
    LK_TRY(check_storage(j, training));
  }
  LK_TRY(open_file(j, dir, "model.safetensors", model));
  LK_TRY(check_file(j, model, &j->model));
  if (training) LK_TRY(check_file(j, training, &j->training));
  return load_checked(j, model, training);
}

lk_status lh_checkpoint_load(lk_program *program, const char *dir,
                             lk_error *error) {
  job j;
  lh_safetensors model = {0}, training = {0};
  LK_TRY(job_open(&j, program, error));
  lk_status status =
      load_files(&j, dir, &model, trains(&j) ? &training : NULL);
  lh_safetensors_close(&model);
  lh_safetensors_close(&training);
  job_close(&j);
  return status;
}
