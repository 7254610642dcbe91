/* A C test: CHECK lines, one result line a test case.
 *
 *   static void test_sum(void) { CHECK(sum(1, 2) == 3, "got %d", sum(1, 2)); }
 *   int main(void) { RUN(test_sum); return check_done(); }
 *
 * Prints `ok - name`, `not ok - name` or `skip - name: reason`; the runner
 * counts these lines. */
#ifndef LK_TESTS_CHECK_H
#define LK_TESTS_CHECK_H

#include <stdio.h>

static int check_failures, check_failed_tests;
static const char *check_skipped;

#define CHECK(condition, ...)                                        \
  do {                                                               \
    if (!(condition)) {                                              \
      check_failures++;                                              \
      printf("# %s:%d: %s:", __FILE__, __LINE__, #condition);        \
      printf(" " __VA_ARGS__);                                       \
      printf("\n");                                                  \
    }                                                                \
  } while (0)

/* Leave the running test as skipped. */
#define SKIP(reason)          \
  do {                        \
    check_skipped = (reason); \
    return;                   \
  } while (0)

#define RUN(test)                                             \
  do {                                                        \
    check_failures = 0;                                       \
    check_skipped = NULL;                                     \
    test();                                                   \
    if (check_failures) check_failed_tests++;                 \
    if (check_skipped)                                        \
      printf("skip - %s: %s\n", #test, check_skipped);        \
    else                                                      \
      printf("%s - %s\n", check_failures ? "not ok" : "ok", #test); \
    fflush(stdout);                                           \
  } while (0)

static inline int check_done(void) { return check_failed_tests != 0; }

#endif
