/* JSONL and packed files: rows, wrong lines, damage at every byte. */
#define _GNU_SOURCE
#include <string.h>
#ifdef HAVE_ZLIB
#include <zlib.h>
#endif
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif

#include "../../host/text/corpus.h"
#include "../../host/text/unpack.h"
#include "text_folder.h"

static lh_corpus *read_corpus(const char *name, lh_corpus_options options) {
  lh_source source;
  lh_corpus *corpus = NULL;
  lk_status status =
      lh_source_open(in_folder(name), options.max_bytes, &source, &e);
  if (status == LK_OK) status = lh_corpus_read(&source, &options, &corpus, &e);
  lh_source_free(&source);
  return corpus;
}

static char rows[1 << 21];
static int64_t rows_size;

/* `count` rows "row N of …", with a second field. */
static void make_rows(int count) {
  rows_size = 0;
  for (int i = 0; i < count; i++)
    rows_size += sprintf(rows + rows_size, "{\"id\": %d, \"text\": \"row %d "
                         "h\\u00e4lt %d\\nund %d\"}\n", i, i, i * i, i % 7);
}

#ifdef HAVE_ZLIB
static int64_t gzip(const void *data, int64_t size, uint8_t *out,
                    int64_t room) {
  z_stream z = {0};
  deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  z.next_in = (Bytef *)data;
  z.avail_in = (uInt)size;
  z.next_out = out;
  z.avail_out = (uInt)room;
  int code = deflate(&z, Z_FINISH);
  CHECK(code == Z_STREAM_END, "gzip %d", code);
  int64_t got = (int64_t)z.total_out;
  deflateEnd(&z);
  return got;
}
#else
static int64_t gzip(const void *data, int64_t size, uint8_t *out,
                    int64_t room) {
  return (void)data, (void)size, (void)out, (void)room, 0;
}
#endif

static int64_t zstd(const void *data, int64_t size, uint8_t *out,
                    int64_t room) {
#ifdef HAVE_ZSTD
  ZSTD_CCtx *c = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
  size_t got = ZSTD_compress2(c, out, (size_t)room, data, (size_t)size);
  ZSTD_freeCCtx(c);
  CHECK(!ZSTD_isError(got));
  return (int64_t)got;
#else
  return (void)data, (void)size, (void)out, (void)room, 0;
#endif
}

static const struct {
  const char *ending, *name;
  lh_packing packing;
  int64_t (*pack)(const void *, int64_t, uint8_t *, int64_t);
} packers[] = {{".gz", "x.jsonl.gz", LH_GZIP, gzip},
               {".zst", "x.jsonl.zst", LH_ZSTD, zstd}};
static uint8_t packed[1 << 21];

/* --- rows ---------------------------------------------------------------- */
static void test_rows(void) {
  static const char text[] =
      "\xEF\xBB\xBF{\"text\": \"one\", \"n\": 1}\r\n"
      "\n"
      "{\"n\": [1, {}], \"text\": \"tw\\u00f6\\n\\nlines\"}\n"
      "  \t\n"
      "{\"text\": null}\n"
      "{\"text\": \"a<|endoftext|>b\", \"body\": \"x\"}";
  start();
  put_file("r.jsonl", text, sizeof text - 1);
  lh_corpus *c = read_corpus("r.jsonl", (lh_corpus_options){0});
  CHECK(c && c->count == 3, "%s", c ? "count" : e.message);
  CHECK(c && c->documents[1].size == 11 &&
        memcmp(c->documents[1].text, "tw\xc3\xb6\n\nlines", 11) == 0);
  CHECK(c && c->documents[2].size == 15, "a row is one document");
  uint64_t key = c ? c->key : 0;
  lh_corpus_release(c);
  c = read_corpus("r.jsonl", (lh_corpus_options){.max_chars = 3});
  CHECK(c && c->documents[1].size == 4, "three characters, four bytes");
  lh_corpus_release(c);
  c = read_corpus("r.jsonl", (lh_corpus_options){.max_documents = 2});
  CHECK(c && c->count == 2);
  lh_corpus_release(c);
  put_file("r.jsonl", "{\"body\":\"a\"}\n{\"body\":\"b\"}\n", 26);
  c = read_corpus("r.jsonl", (lh_corpus_options){.field = "body"});
  CHECK(c && c->count == 2 && c->key != key, "%s", e.message);
  lh_corpus_release(c);
}

static void test_wrong_rows(void) {
  static const struct { const char *text, *message; } cases[] = {
      {"{\"text\": \"a\"}\n\n{\"text\": }\n", ":3: expected a value"},
      {"{\"text\": \"a\"}\n{\"text\": \"b", ":2: "},
      {"[1]\n", ":1: not a JSON object"},
      {"{\"a\": 1, \"b\": 2}\n",
       ":1: no field 'text'; this line has: a, b (field = NAME takes another)"},
      {"{\"text\": 7}\n", ":1: field 'text' is not a string"},
      {"{\"text\": \"\xff\"}\n", ":1: "},
      {"PAR1\n", ":1: expected a value"}};
  start();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    put_file("w.jsonl", cases[i].text, (int64_t)strlen(cases[i].text));
    lh_corpus *c = read_corpus("w.jsonl", (lh_corpus_options){0});
    char want[600];
    snprintf(want, sizeof want, "%s%s", in_folder("w.jsonl"),
             cases[i].message);
    CHECK(c == NULL && e.code == LK_FORMAT &&
          strncmp(e.message, want, strlen(want)) == 0, "%s", e.message);
  }
  put_file("w.jsonl", "{\"text\": \"\"}\n", 13);
  CHECK(!read_corpus("w.jsonl", (lh_corpus_options){0}) &&
        strstr(e.message, "holds no text"), "%s", e.message);
}

/* A line longer than any buffer at the start, and one that is too long. */
static void test_long_rows(void) {
  int64_t size = 1500000;
  start();
  memset(rows, 'x', (size_t)size);
  memcpy(rows, "{\"text\":\"", 9);
  memcpy(rows + size - 3, "\"}\n", 3);
  put_file("l.jsonl", rows, size);
  lh_corpus *c = read_corpus("l.jsonl", (lh_corpus_options){0});
  CHECK(c && c->count == 1 && c->documents[0].size == size - 12);
  lh_corpus_release(c);
  size = (64 << 20) + 100;
  char *big = malloc((size_t)size);
  memset(big, ' ', (size_t)size);
  put_file("l.jsonl", big, size);
  free(big);
  CHECK(!read_corpus("l.jsonl", (lh_corpus_options){0}) &&
        strstr(e.message, "l.jsonl:1: a line of more than 64 MiB"), "%s",
        e.message);
}

/* Rows are held out one by one, and beside text files of the same folder. */
static void test_rows_held_out(void) {
  start();
  make_rows(400);
  put_file("texts/r.jsonl", rows, rows_size);
  for (int i = 0; i < 30; i++) {
    char name[32], text[64];
    int size = snprintf(text, sizeof text, "text number %d\n", i);
    snprintf(name, sizeof name, "texts/%02d.txt", i);
    put_file(name, text, size);
  }
  lh_corpus_options o = {.validation = 0.25, .seed = 1};
  lh_corpus *c = read_corpus("texts", o);
  CHECK(c && c->count == 430 && c->files == 31, "%s", e.message);
  CHECK(c && c->held_count > 60 && c->held_count < 200, "%d held",
        c ? (int)c->held_count : 0);
  lh_corpus_release(c);
}

/* --- packed -------------------------------------------------------------- */
static void test_packed_rows(void) {
  start();
  make_rows(20000);
  put_file("x.jsonl", rows, rows_size);
  lh_corpus_options o = {.validation = 0.1, .seed = 1};
  lh_corpus *want = read_corpus("x.jsonl", o);
  CHECK(want && want->count == 20000, "%s", e.message);
  for (int i = 0; want && i < 2; i++) {
    if (lh_packing_version(packers[i].packing) == NULL) continue;
    /* Two members (frames), one after the other. */
    int64_t half = rows_size / 2;
    int64_t size = packers[i].pack(rows, half, packed, sizeof packed);
    size += packers[i].pack(rows + half, rows_size - half, packed + size,
                            (int64_t)sizeof packed - size);
    put_file(packers[i].name, (char *)packed, size);
    lh_corpus *c = read_corpus(packers[i].name, o);
    CHECK(c && c->count == 20000 && c->bytes == want->bytes &&
          c->held_count == want->held_count, "%s: %s", packers[i].name,
          e.message);
    for (int64_t k = 0; c && k < c->count; k += 97)
      CHECK(c->documents[k].size == want->documents[k].size &&
            !memcmp(c->documents[k].text, want->documents[k].text,
                    (size_t)c->documents[k].size));
    lh_corpus_release(c);
  }
  lh_corpus_release(want);
}

/* As put_file, but neither synced nor renamed: there are hundreds. */
static void put_quickly(const char *name, const void *data, int64_t size) {
  FILE *file = fopen(in_folder(name), "wb");
  CHECK(file && fwrite(data, 1, (size_t)size, file) == (size_t)size);
  if (file) fclose(file);
}

/* Every shorter file and every changed byte is an error or the same rows. */
static void test_damage(void) {
  start();
  for (int i = 0; i < 2; i++) {
    if (lh_packing_version(packers[i].packing) == NULL) continue;
    make_rows(8);
    int64_t size = packers[i].pack(rows, rows_size, packed, sizeof packed);
    char want[600];
    snprintf(want, sizeof want, "'%s' is damaged at byte ",
             in_folder(packers[i].name));
    for (int64_t cut = 1; cut < size; cut++) {
      put_quickly(packers[i].name, packed, cut);
      lh_corpus *c = read_corpus(packers[i].name, (lh_corpus_options){0});
      CHECK(c == NULL && strncmp(e.message, want, strlen(want)) == 0,
            "%d of %d bytes: %s", (int)cut, (int)size, c ? "read" : e.message);
      lh_corpus_release(c);
    }
    int noticed = 0;
    for (int64_t at = 0; at < size; at++) {
      packed[at] ^= 0x55;
      put_quickly(packers[i].name, packed, size);
      lh_corpus *c = read_corpus(packers[i].name, (lh_corpus_options){0});
      noticed += c == NULL && e.code == LK_FORMAT;
      CHECK(c == NULL || c->count == 8, "byte %d", (int)at);
      lh_corpus_release(c);
      packed[at] ^= 0x55;
    }
    /* Time stamp and system of a gzip header carry nothing. */
    CHECK(noticed >= size - 8, "%d of %d noticed", noticed, (int)size);
  }
}

/* Packed plain text; in a folder, what is not text is passed over. */
static void test_packed_text(void) {
  static char text[300000];
  if (lh_packing_version(LH_GZIP) == NULL) SKIP("no zlib");
  start();
  for (int i = 0; i < (int)sizeof text; i++)
    text[i] = i % 60 == 59 ? '\n' : (char)('a' + i % 25);
  put_file("a.txt.gz", (char *)packed,
           gzip(text, sizeof text, packed, sizeof packed));
  lh_corpus *c = read_corpus("a.txt.gz", (lh_corpus_options){0});
  CHECK(c && c->bytes == (int64_t)sizeof text, "%s", e.message);
  lh_corpus_release(c);
  c = read_corpus("a.txt.gz", (lh_corpus_options){.max_bytes = 1000});
  CHECK(c && c->bytes == 1000);
  lh_corpus_release(c);
  put_file("texts/a.txt.gz", (char *)packed,
           gzip(text, 1000, packed, sizeof packed));
  memset(text, 0, sizeof text);
  put_file("texts/b.gz", (char *)packed,
           gzip(text, sizeof text, packed, sizeof packed));
  put_file("texts/c.gz", "no gzip", 7);
  c = read_corpus("texts", (lh_corpus_options){0});
  CHECK(c && c->bytes == 1000 && c->skipped == 2, "%s", e.message);
  lh_corpus_release(c);
}

int main(void) {
  RUN(test_rows);
  RUN(test_wrong_rows);
  RUN(test_long_rows);
  RUN(test_rows_held_out);
  RUN(test_packed_rows);
  RUN(test_damage);
  RUN(test_packed_text);
  return check_done();
}
