/* tokenizer.json. What is accepted encodes, decodes, and survives being
 * written and read again. */
#include "../../host/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "../../host/text/encode.h"
#include "fuzz.h"

static const char sample[] = "for (int i = 0; i < 10; i++) \xc3\xa9\xff\0 1234";

static void encode(lh_tokenizer *t, lk_error *e) {
  lh_encoder *encoder;
  lh_ids ids = {0};
  char *text = NULL;
  int64_t size = 0;
  if (lh_encoder_new(t, &encoder, e) != LK_OK) return;
  if (lh_encode(encoder, sample, sizeof sample - 1, &ids, e) == LK_OK) {
    if (lh_decode(t, ids.data, ids.count, false, &text, &size, e) != LK_OK)
      fuzz_broken("what was encoded can be decoded");
    if (t->missing_bytes == 0 &&
        (size != sizeof sample - 1 || memcmp(text, sample, (size_t)size)))
      fuzz_broken("encoding round trips when no byte is missing");
  }
  free(text);
  free(ids.data);
  lh_encoder_free(encoder);
}

static void write_again(const lh_tokenizer *t, lk_error *e) {
  char *text = NULL;
  int64_t size;
  lh_tokenizer *again = NULL;
  if (lh_tokenizer_json(t, &text, &size, e) == LK_OK) {
    if (lh_tokenizer_parse(text, size, "again", &again, e) != LK_OK)
      fuzz_broken("what was written can be read");
    if (again->hash != t->hash) fuzz_broken("and is the same tokenizer");
    lh_tokenizer_release(again);
  }
  free(text);
}

int fuzz_tokenizer(const uint8_t *data, size_t size) {
  lh_tokenizer *t = NULL;
  lk_error e;
  if (lh_tokenizer_parse((const char *)data, (int64_t)size, "fuzz", &t, &e) ==
      LK_OK) {
    encode(t, &e);
    write_again(t, &e);
  }
  lh_tokenizer_release(t);
  return 0;
}
