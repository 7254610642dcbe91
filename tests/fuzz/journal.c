/* Journals. The first byte says whether each line's checksum is mended. What
 * is opened can be appended to, and then ends with that line. */
#include "../../host/sys/journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../host/sys/file.h"
#include "../../host/sys/hash.h"
#include "fuzz.h"

/* Write the right checksum into a line that has the form of a record. */
static void mend_line(char *line, size_t size) {
  static const char key[] = ",\"crc\":\"";
  size_t tail = sizeof key - 1 + 8 + 2;
  if (size < tail || memcmp(line + size - tail, key, sizeof key - 1)) return;
  char crc[9];
  snprintf(crc, sizeof crc, "%08x",
           (unsigned)lh_crc32(0, line, size - tail));
  memcpy(line + size - 10, crc, 8);
}

static void mend(char *text, size_t size) {
  for (size_t at = 0; at < size;) {
    char *end = memchr(text + at, '\n', size - at);
    size_t length = end ? (size_t)(end - text) - at : size - at;
    mend_line(text + at, length);
    at += length + 1;
  }
}

static void check_end(const char *path, int64_t seq) {
  void *text;
  int64_t size, at = 0, length, number, last = 0;
  const char *line;
  lh_line kind = LH_LINE_TORN;
  lk_error e;
  if (lh_file_read(path, 0, &text, &size, &e) != LK_OK)
    fuzz_broken("a journal can be read");
  while (lh_journal_next(text, size, &at, &line, &length, &kind, &number))
    if (kind == LH_LINE_GOOD) last = number;
  if (kind != LH_LINE_GOOD || last != seq)
    fuzz_broken("what was appended is the last line");
  free(text);
}

int fuzz_journal(const uint8_t *data, size_t size) {
  if (size < 1) return 0;
  char *text = malloc(size);
  memcpy(text, data + 1, size - 1);
  if (data[0] & 1) mend(text, size - 1);
  char path[160];
  snprintf(path, sizeof path, "%s",
           fuzz_file("journal.jsonl", (uint8_t *)text, size - 1));
  lh_journal journal;
  lk_error e;
  int64_t seq;
  if (lh_journal_open(&journal, path, &e) == LK_OK) {
    if (lh_journal_append(&journal, "{\"a\":1}", 7, &seq, &e) == LK_OK)
      check_end(path, seq);
    lh_journal_close(&journal);
  }
  free(text);
  return 0;
}
