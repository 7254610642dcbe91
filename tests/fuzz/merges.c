/* merges.txt, under SmolLM's rules. */
#include "../../host/text/tokenizer.h"
#include "fuzz.h"

int fuzz_merges(const uint8_t *data, size_t size) {
  lh_tokenizer *t = NULL;
  lk_error e;
  const char *path = fuzz_file("merges.txt", data, size);
  if (lh_tokenizer_load_merges(path, &t, &e) == LK_OK &&
      t->count != 17 + 235 + t->merges)
    fuzz_broken("an id a merge");
  lh_tokenizer_release(t);
  return 0;
}
