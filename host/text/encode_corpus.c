/* A corpus into tokens: sampling, threads, putting the parts together. */
#include "encode_corpus.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "encode.h"
#include "train.h"

enum { THREADS_MOST = 64, GROUP = 16 /* documents taken at a time */ };
static const int64_t train_most = 20000000;
static const uint64_t sample_seed = 29;

/* --- training ------------------------------------------------------------ */
lk_status lh_corpus_train(const lh_corpus *corpus, int32_t vocab, int threads,
                          lh_tokenizer **out, lk_error *e) {
  int64_t count = 0, bytes = 0;
  *out = NULL;
  int64_t *order = lh_shuffled(corpus->count, sample_seed);
  lh_span *spans = malloc((size_t)corpus->count * sizeof *spans);
  lk_status status = LK_OK;
  if (order == NULL || spans == NULL) {
    status = lk_fail(e, LK_OOM, "no memory to train a tokenizer");
    goto done;
  }
  for (int64_t i = 0; i < corpus->count && bytes < train_most; i++) {
    const lh_corpus_document *d = &corpus->documents[order[i]];
    if (d->held_out) continue;
    int64_t left = train_most - bytes;
    spans[count] = (lh_span){d->text, d->size < left ? d->size : left};
    bytes += spans[count++].size;
  }
  status = lh_tokenizer_train(spans, count, vocab, threads, out, e);
done:
  free(order);
  free(spans);
  return status;
}

/* --- encoding ------------------------------------------------------------ */
/* One document's tokens. */
typedef struct part {
  int64_t document;
  lh_ids ids;
  int64_t used;           /* how many of them go into the result */
  int64_t dropped;        /* bytes of it without a token */
} part;

/* What the threads share: parts in sampling order, up to `count`. */
typedef struct job {
  const lh_corpus *corpus;
  lh_tokenizer *t;
  part *parts;
  int64_t count;
  int64_t next;           /* first part nobody has taken */
  int64_t most, done;     /* tokens wanted (0: all), made so far */
  lk_status status;
  lk_error error;
  pthread_mutex_t mutex;
} job;

static lk_status encode_part(job *j, lh_encoder *encoder, part *p,
                             lk_error *e) {
  const lh_corpus_document *d = &j->corpus->documents[p->document];
  int64_t before = lh_encoder_dropped(encoder);
  LK_TRY(lh_encode(encoder, d->text, d->size, &p->ids, e));
  p->dropped = lh_encoder_dropped(encoder) - before;
  if (j->t->end_id >= 0) LK_TRY(lh_ids_append(&p->ids, j->t->end_id, e));
  return LK_OK;
}

/* Take the next parts; none when enough is done or something failed. Groups
 * that are encoded beyond the wanted number are not used, so how many there
 * are does not show. */
static int64_t take_group(job *j, int64_t *first) {
  pthread_mutex_lock(&j->mutex);
  int64_t left = j->count - j->next;
  if (j->status != LK_OK || (j->most > 0 && j->done >= j->most)) left = 0;
  if (left > GROUP) left = GROUP;
  *first = j->next;
  j->next += left;
  pthread_mutex_unlock(&j->mutex);
  return left;
}

static void finish_group(job *j, int64_t tokens, lk_status status,
                         const lk_error *e) {
  pthread_mutex_lock(&j->mutex);
  j->done += tokens;
  if (status != LK_OK && j->status == LK_OK) {
    j->status = status;
    j->error = *e;
  }
  pthread_mutex_unlock(&j->mutex);
}

static void *encode_parts(void *argument) {
  job *j = argument;
  lk_error e;
  lh_encoder *encoder;
  int64_t first, count;
  lk_status status = lh_encoder_new(j->t, &encoder, &e);
  if (status != LK_OK) finish_group(j, 0, status, &e);
  while (status == LK_OK && (count = take_group(j, &first)) > 0) {
    int64_t tokens = 0;
    for (int64_t i = first; i < first + count && status == LK_OK; i++) {
      status = encode_part(j, encoder, &j->parts[i], &e);
      tokens += j->parts[i].ids.count;
    }
    finish_group(j, tokens, status, &e);
  }
  lh_encoder_free(encoder);
  return NULL;
}

static lk_status run_job(job *j, int threads, lk_error *e) {
  pthread_t thread[THREADS_MOST];
  bool started[THREADS_MOST] = {false};
  if (threads > THREADS_MOST) threads = THREADS_MOST;
  pthread_mutex_init(&j->mutex, NULL);
  for (int i = 1; i < threads; i++)
    started[i] = pthread_create(&thread[i], NULL, encode_parts, j) == 0;
  encode_parts(j);
  for (int i = 1; i < threads; i++)
    if (started[i]) pthread_join(thread[i], NULL);
  pthread_mutex_destroy(&j->mutex);
  if (j->status == LK_OK) return LK_OK;
  return lk_fail(e, j->status, "%s", j->error.message);
}

static int by_document(const void *a, const void *b) {
  const part *x = a, *y = b;
  return (x->document > y->document) - (x->document < y->document);
}

/* Decide how much of each part is used, then join them in the corpus's order.
 * The wanted number is counted in sampling order, whoever encoded what. */
static lk_status join_parts(job *j, lh_tokens_info *info, lh_ids *all,
                            lk_error *e) {
  int64_t left = j->most > 0 ? j->most : INT64_MAX;
  for (int64_t i = 0; i < j->count && left > 0; i++) {
    part *p = &j->parts[i];
    p->used = p->ids.count < left ? p->ids.count : left;
    left -= p->used;
    info->count += p->used;
    info->documents += p->used > 0;
    info->bytes += p->used > 0 ? j->corpus->documents[p->document].size : 0;
    info->dropped += p->used > 0 ? p->dropped : 0;
  }
  LK_TRY(lh_ids_reserve(all, info->count, e));
  qsort(j->parts, (size_t)j->count, sizeof *j->parts, by_document);
  for (int64_t i = 0; i < j->count; i++) {
    const part *p = &j->parts[i];
    if (p->used == 0) continue;
    memcpy(all->data + all->count, p->ids.data,
           (size_t)p->used * sizeof(int32_t));
    all->count += p->used;
  }
  return LK_OK;
}

static lk_status plan_parts(job *j, bool held_out, lk_error *e) {
  int64_t *order = lh_shuffled(j->corpus->count, sample_seed + 1);
  j->parts = calloc((size_t)j->corpus->count, sizeof *j->parts);
  if (order == NULL || j->parts == NULL) {
    free(order);
    return lk_fail(e, LK_OOM, "no memory to encode a corpus");
  }
  for (int64_t i = 0; i < j->corpus->count; i++)
    if (j->corpus->documents[order[i]].held_out == held_out)
      j->parts[j->count++].document = order[i];
  free(order);
  if (j->count > 0) return LK_OK;
  return lk_fail(e, LK_ARGUMENT, held_out
      ? "the corpus holds no document out (its validation share is 0)"
      : "the corpus has no training document");
}

lk_status lh_corpus_encode(const lh_corpus *corpus, lh_tokenizer *t,
                           bool held_out, int64_t max_tokens, int threads,
                           uint64_t source, const char *name, lh_tokens **out,
                           lk_error *e) {
  job j = {.corpus = corpus, .t = t, .most = max_tokens};
  lh_tokens_info info = {.vocab = t->count, .tokenizer = t->hash,
                         .source = source, .validation = held_out};
  lh_ids all = {0};
  *out = NULL;
  strncpy(info.name, name, LH_TOKENS_NAME - 1);
  lk_status status = plan_parts(&j, held_out, e);
  if (status == LK_OK) status = run_job(&j, threads, e);
  if (status == LK_OK) status = join_parts(&j, &info, &all, e);
  if (status == LK_OK) status = lh_tokens_new(&info, all.data, out, e);
  for (int64_t i = 0; i < j.count; i++) free(j.parts[i].ids.data);
  free(j.parts);
  free(all.data);
  return status;
}
