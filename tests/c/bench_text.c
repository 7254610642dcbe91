/* Speed of the text half: training, encoding and the loader, on a file.
 *
 *   make build/release/tests/bench_text
 *   build/release/tests/bench_text FILE [VOCAB] [THREADS]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../../host/sys/file.h"
#include "../../host/text/encode.h"
#include "../../host/text/loader.h"
#include "../../host/text/train.h"

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Cut the text into spans of about 64 KiB at line ends. */
static int64_t cut(const char *text, int64_t size, lh_span *spans) {
  int64_t count = 0, at = 0;
  while (at < size) {
    int64_t end = at + (64 << 10) < size ? at + (64 << 10) : size;
    while (end < size && text[end - 1] != '\n') end++;
    spans[count++] = (lh_span){text + at, end - at};
    at = end;
  }
  return count;
}

static lk_status time_loader(const lh_tokenizer *t, const lh_ids *ids,
                             lk_error *e) {
  enum { SEQ = 512, BATCH = 32, STEPS = 2000 };
  static int32_t x[BATCH * SEQ], y[BATCH * SEQ];
  lh_tokens_info info = {.count = ids->count, .vocab = t->count};
  lh_tokens *tokens;
  lh_loader *loader;
  LK_TRY(lh_tokens_new(&info, ids->data, &tokens, e));
  lk_status status = lh_loader_new(
      tokens, &(lh_loader_options){.seq = SEQ, .batch = BATCH}, &loader, e);
  double from = now();
  for (int64_t i = 0; i < STEPS && status == LK_OK; i++)
    status = lh_loader_fill(loader, i, 0, BATCH, x, y, e);
  printf("loader: %.1f M tokens/s\n",
         (double)STEPS * BATCH * SEQ / (now() - from) * 1e-6);
  lh_loader_free(loader);
  lh_tokens_release(tokens);
  return status;
}

static lk_status run(const char *text, int64_t size, int32_t vocab,
                     int threads, lk_error *e) {
  lh_span *spans = malloc((size_t)(size / (64 << 10) + 2) * sizeof *spans);
  lh_tokenizer *t;
  lh_encoder *encoder;
  lh_ids ids = {0};
  int64_t count = cut(text, size, spans);
  double from = now();
  LK_TRY(lh_tokenizer_train(spans, count, vocab, threads, &t, e));
  printf("training: %d ids from %.1f MB in %.2f s on %d threads\n", t->count,
         (double)size * 1e-6, now() - from, threads);
  LK_TRY(lh_encoder_new(t, &encoder, e));
  from = now();
  LK_TRY(lh_encode(encoder, text, size, &ids, e));
  printf("encoding: %.1f MB/s on one core, %.2f bytes a token\n",
         (double)size * 1e-6 / (now() - from),
         (double)size / (double)ids.count);
  lk_status status = time_loader(t, &ids, e);
  lh_encoder_free(encoder);
  lh_tokenizer_release(t);
  free(ids.data);
  free(spans);
  return status;
}

int main(int argc, char **argv) {
  lk_error e;
  void *text;
  int64_t size;
  if (argc < 2) {
    fprintf(stderr, "usage: bench_text FILE [VOCAB] [THREADS]\n");
    return 2;
  }
  lk_status status = lh_file_read(argv[1], 0, &text, &size, &e);
  if (status == LK_OK)
    status = run(text, size, argc > 2 ? atoi(argv[2]) : 8192,
                 argc > 3 ? atoi(argv[3]) : 2, &e);
  if (status != LK_OK) fprintf(stderr, "%s\n", e.message);
  return status != LK_OK;
}
