/* JSONL, plain, .gz and .zst: the first byte says which. */
#include "../../host/text/jsonl.h"

#include <string.h>

#include "../../host/text/unpack.h"
#include "fuzz.h"

static lk_status take(void *context, const char *text, int64_t size,
                      bool *enough, lk_error *e) {
  int64_t *rows = context;
  (void)e;
  if (size < 0 || (size && memchr(text, 0, 0) != NULL))
    fuzz_broken("texts have sizes");
  *enough = ++*rows >= 1000;
  return LK_OK;
}

int fuzz_jsonl(const uint8_t *data, size_t size) {
  static const char *const names[] = {"a.jsonl", "a.jsonl.gz", "a.jsonl.zst"};
  lk_error e;
  int64_t rows = 0;
  if (size < 1) return 0;
  const char *name = names[data[0] % 3];
  if (lh_packing_check(name, &e) != LK_OK) return 0;
  lh_jsonl_read(fuzz_file(name, data + 1, size - 1), "text", take, &rows, &e);
  return 0;
}
