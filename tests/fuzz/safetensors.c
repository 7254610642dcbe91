/* safetensors files. The header's size is set right before half of the inputs.
 */
#include "../../host/sys/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

static void read_tensors(const lh_safetensors *file, int64_t size) {
  char piece[256];
  lk_error e;
  for (int64_t i = 0; i < file->count; i++) {
    const lh_safetensor *t = &file->tensor[i];
    if (t->offset < 8 || t->bytes < 0 || t->bytes > size - t->offset)
      fuzz_broken("tensors lie inside the file");
    if (i && strcmp(t[-1].name, t->name) >= 0)
      fuzz_broken("names are sorted and unique");
    int64_t n = t->bytes < 256 ? t->bytes : 256;
    if (lh_safetensors_read(file, t, 0, piece, n, &e) != LK_OK)
      fuzz_broken("tensors can be read");
  }
}

/* Bytes of a header that ends at its last closing brace. */
static size_t header_bytes(const uint8_t *data, size_t size) {
  while (size > 8 && data[size - 1] != '}') size--;
  return size > 8 ? size - 8 : 0;
}

int fuzz_safetensors(const uint8_t *data, size_t size) {
  if (size < 9) return 0;
  uint8_t *file = malloc(size);
  memcpy(file, data + 1, size - 1);
  size_t header = header_bytes(file, size - 1);
  for (int i = 0; i < 8 && (data[0] & 1); i++)
    file[i] = (uint8_t)(header >> (8 * i));
  lh_safetensors st;
  lk_error e;
  if (lh_safetensors_open(fuzz_file("a.safetensors", file, size - 1), &st,
                          &e) == LK_OK)
    read_tensors(&st, (int64_t)size - 1);
  lh_safetensors_close(&st);
  free(file);
  return 0;
}
