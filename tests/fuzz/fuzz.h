/* The fuzzed parsers: each takes any bytes and must come back without a crash,
 * a leak, a sanitizer's finding, or an allocation that the bytes present do not
 * justify. `make fuzz` drives them with libFuzzer, tests/c/test_fuzz.c with the
 * seeds that are kept. A target may print and abort where a promise beyond
 * that is broken. */
#ifndef LK_TESTS_FUZZ_H
#define LK_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* FUZZ(name): fuzz_<name> in <name>.c, seeds in seeds/<name>/. */
#define FUZZ_TARGETS(FUZZ) \
  FUZZ(json)               \
  FUZZ(tokenizer)          \
  FUZZ(merges)             \
  FUZZ(tokens)             \
  FUZZ(jsonl)              \
  FUZZ(safetensors)        \
  FUZZ(checkpoint)         \
  FUZZ(journal)

#define FUZZ(name) int fuzz_##name(const uint8_t *data, size_t size);
FUZZ_TARGETS(FUZZ)
#undef FUZZ

/* A file in memory with these bytes; its path, good until the next call with
 * the same `name`, in which it ends. */
const char *fuzz_file(const char *name, const uint8_t *data, size_t size);

/* Print what was promised and abort. */
void fuzz_broken(const char *promise) __attribute__((noreturn));

#endif
