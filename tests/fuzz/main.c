/* libFuzzer's entry to one target: compiled with -DTARGET=fuzz_<name>. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return TARGET(data, size);
}
