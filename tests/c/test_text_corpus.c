/* Corpora: sources, documents, what is held out, and their tokens. */
#define _GNU_SOURCE
#include <string.h>

#include "../../host/text/encode_corpus.h"
#include "text_folder.h"

static lh_corpus *read_corpus(const char *name, lh_corpus_options options) {
  lh_source source;
  lh_corpus *corpus = NULL;
  lk_status status = lh_source_open(name, options.max_bytes, &source, &e);
  if (status == LK_OK) status = lh_corpus_read(&source, &options, &corpus, &e);
  lh_source_free(&source);
  return corpus;
}

/* 30 files of different text, in two folders. */
static void put_texts(void) {
  for (int i = 0; i < 30; i++) {
    char name[64], text[4000];
    int64_t size = 0;
    snprintf(name, sizeof name, i % 2 ? "texts/%02d.txt" : "texts/sub/%02d.txt",
             i);
    for (int k = 0; k < 20 + i; k++)
      size += snprintf(text + size, sizeof text - (size_t)size,
                       "file %d holds line %d of its own\n", i, k * k);
    put_file(name, text, size);
  }
}

/* --- corpus -------------------------------------------------------------- */
static void test_held_out(void) {
  lh_corpus_options options = {.validation = 0.2, .seed = 1};
  start();
  put_texts();
  lh_corpus *c = read_corpus(in_folder("texts"), options);
  lh_corpus *again = read_corpus(in_folder("texts"), options);
  CHECK(c && again && c->count == 30, "%s", e.message);
  int64_t held = 0, bytes = 0, same = 0;
  for (int64_t i = 0; i < c->count; i++) {
    held += c->documents[i].held_out ? c->documents[i].size : 0;
    bytes += c->documents[i].size;
    same += c->documents[i].held_out == again->documents[i].held_out;
  }
  CHECK(bytes == c->bytes && held == c->held_bytes && same == 30);
  double share = (double)held / (double)bytes;
  CHECK(share > 0.15 && share < 0.25, "a share of %g", share);
  CHECK(c->key == again->key);
  lh_corpus_release(again);
  options.seed = 2;
  again = read_corpus(in_folder("texts"), options);
  same = 0;
  for (int64_t i = 0; i < c->count; i++)
    same += c->documents[i].held_out == again->documents[i].held_out;
  CHECK(same < 30 && again->key != c->key, "another seed holds out others");
  lh_corpus_release(again);
  lh_corpus_release(c);
}

/* The pieces of a file stay on one side. */
static void test_whole_files_held_out(void) {
  static char big[100000];
  start();
  put_texts();
  for (int i = 0; i < (int)sizeof big; i++)
    big[i] = i % 70 == 69 ? '\n' : (char)('a' + i % 23);
  for (int i = 0; i < 6; i++) {
    char name[32];
    big[0] = (char)('A' + i);
    snprintf(name, sizeof name, "texts/big%d", i);
    put_file(name, big, sizeof big);
  }
  lh_corpus *c = read_corpus(in_folder("texts"),
                             (lh_corpus_options){.validation = 0.4, .seed = 3});
  CHECK(c != NULL, "%s", e.message);
  int mixed = 0, cut = 0;
  for (int64_t i = 1; c && i < c->count; i++) {
    if (c->documents[i].group != c->documents[i - 1].group) continue;
    cut++;
    mixed += c->documents[i].held_out != c->documents[i - 1].held_out;
  }
  CHECK(cut >= 6 * 3 && mixed == 0, "%d pieces, %d mixed", cut, mixed);
  CHECK(c->held_count > 0);
  lh_corpus_release(c);
}

static void test_found_files(void) {
  start();
  put_texts();
  put_file("texts/a-copy.txt", "the same\n", 9);
  put_file("texts/b-copy.txt", "the same\n", 9);
  put_file("texts/latin1.txt", "caf\xe9\n", 5);
  put_file("texts/binary", "a\0b", 3);
  put_file("texts/.hidden", "not seen", 8);
  lh_corpus *c = read_corpus(in_folder("texts"), (lh_corpus_options){0});
  CHECK(c && c->count == 31 && c->duplicates == 1 && c->skipped == 2,
        "%s", c ? "other counts" : e.message);
  lh_corpus_release(c);
  c = read_corpus(in_folder("texts/0*.txt"), (lh_corpus_options){0});
  CHECK(c && c->count == 5, "a pattern: %s", c ? "other count" : e.message);
  lh_corpus_release(c);
  c = read_corpus(in_folder("texts/latin1.txt"), (lh_corpus_options){0});
  CHECK(c && c->bytes == 5, "a named file need not be UTF-8");
  lh_corpus_release(c);
}

static void test_documents_of_a_file(void) {
  static const char text[] = "one\n<|endoftext|>two \xc3\xa9\xc3\xa9\n"
                             "<|endoftext|>\n \n<|endoftext|>three";
  start();
  put_file("file", text, sizeof text - 1);
  lh_corpus *c = read_corpus(in_folder("file"), (lh_corpus_options){0});
  CHECK(c && c->count == 3, "blank documents do not count");
  CHECK(c && memcmp(c->documents[2].text, "three", 5) == 0);
  lh_corpus_release(c);
  c = read_corpus(in_folder("file"), (lh_corpus_options){.max_chars = 5});
  CHECK(c && c->documents[1].size == 6 &&
        memcmp(c->documents[1].text, "two \xc3\xa9", 6) == 0,
        "five characters are six bytes here");
  lh_corpus_release(c);
  c = read_corpus(in_folder("file"), (lh_corpus_options){.max_documents = 2});
  CHECK(c && c->count == 2);
  lh_corpus_release(c);
  /* 22 bytes end inside of a character: the document stops before it. */
  c = read_corpus(in_folder("file"), (lh_corpus_options){.max_bytes = 22});
  CHECK(c && c->count == 2 && c->documents[1].size == 4, "%d bytes",
        c ? (int)c->documents[1].size : -1);
  lh_corpus_release(c);
}

static void test_refused_sources(void) {
  static const struct { const char *name, *message; } cases[] = {
      {"hf:a/b/c", "data source 'hf:a/b/c' lies on the hub; "
                   "require(\"llm.hub\").source fetches it"},
      {"no/such/file", "data source 'no/such/file' does not exist; give a "
                       "file (text or JSONL, plain, .gz or .zst), a folder"},
      {"no-such-*.txt", "data source 'no-such-*.txt' holds no text; give"},
      {"/dev/null", "data source '/dev/null' is not a regular file; give"},
      {"", "a data source without a name; give"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    lh_corpus *c = read_corpus(cases[i].name, (lh_corpus_options){0});
    CHECK(c == NULL && e.code == LK_ARGUMENT &&
          strncmp(e.message, cases[i].message, strlen(cases[i].message)) == 0,
          "%s", e.message);
  }
  start();
  put_file("x.parquet", "PAR1", 4);
  CHECK(!read_corpus(in_folder("x.parquet"), (lh_corpus_options){0}) &&
        strstr(e.message, "'.parquet' files are not read; turn it into JSONL"),
        "%s", e.message);
  put_file("zero", "a\0b", 3);
  CHECK(!read_corpus(in_folder("zero"), (lh_corpus_options){0}) &&
        e.code == LK_FORMAT &&
        strstr(e.message, "is not text (it holds zero bytes)"), "%s",
        e.message);
  put_file("short", "one line", 8);
  CHECK(!read_corpus(in_folder("short"),
                     (lh_corpus_options){.validation = 0.1}) &&
        strstr(e.message, "a corpus of one document (8 bytes) cannot be split"),
        "%s", e.message);
}

static void test_changed_source_other_key(void) {
  lh_source a, b;
  start();
  put_texts();
  CHECK(lh_source_open(in_folder("texts"), 0, &a, &e) == LK_OK);
  CHECK(lh_source_open(in_folder("texts"), 0, &b, &e) == LK_OK);
  CHECK(a.key == b.key && a.count == 30);
  lh_source_free(&b);
  put_file("texts/07.txt", "another text", 12);
  CHECK(lh_source_open(in_folder("texts"), 0, &b, &e) == LK_OK);
  CHECK(a.key != b.key);
  lh_source_free(&a);
  lh_source_free(&b);
}

static int any_holds(const lh_corpus *c, const char *word) {
  for (int64_t i = 0; i < c->count; i++)
    if (memmem(c->documents[i].text, (size_t)c->documents[i].size, word,
               strlen(word)))
      return 1;
  return 0;
}

/* A limit takes files from all over, and leaves them in their order. */
static void test_system(void) {
  lh_corpus_options options = {.validation = 0.1, .seed = 1,
                               .max_bytes = 3000000};
  lh_source source;
  CHECK(lh_source_open("system", 0, &source, &e) == LK_OK, "%s", e.message);
  CHECK(source.bytes > 4000000, "%lld bytes", (long long)source.bytes);
  lh_source_free(&source);
  lh_corpus *c = read_corpus("system", options);
  CHECK(c && c->bytes > 2000000 && c->bytes <= 3000000 && c->count > 100,
        "%s", e.message);
  CHECK(c && any_holds(c, "#define") && any_holds(c, "\npackage "),
        "C and Perl are both there");
  for (int64_t i = 1; c && i < c->count; i++)
    CHECK(c->documents[i - 1].group <= c->documents[i].group, "no order");
  lh_corpus_release(c);
}

/* --- encoding a corpus --------------------------------------------------- */
static void test_encoded_corpus(void) {
  lh_tokenizer *t = NULL;
  lh_tokens *one, *many, *held, *cut;
  start();
  put_texts();
  lh_corpus *c = read_corpus(in_folder("texts"),
                             (lh_corpus_options){.validation = 0.2, .seed = 1});
  CHECK(lh_corpus_train(c, 400, 2, &t, &e) == LK_OK, "%s", e.message);
  CHECK(lh_corpus_encode(c, t, false, 0, 1, 1, "x", &one, &e) == LK_OK);
  CHECK(lh_corpus_encode(c, t, false, 0, 4, 1, "x", &many, &e) == LK_OK);
  CHECK(lh_corpus_encode(c, t, true, 0, 2, 1, "x", &held, &e) == LK_OK);
  CHECK(lh_corpus_encode(c, t, false, 1000, 3, 1, "x", &cut, &e) == LK_OK);
  const lh_tokens_info *a = lh_tokens_about(one), *b = lh_tokens_about(many);
  CHECK(a->crc == b->crc && a->count == b->count);
  CHECK(a->documents + lh_tokens_about(held)->documents == 30);
  CHECK(a->bytes + lh_tokens_about(held)->bytes == c->bytes);
  CHECK(lh_tokens_about(cut)->count == 1000);
  int32_t *ids = malloc((size_t)a->count * sizeof *ids);
  int64_t ends = 0;
  lh_tokens_read(one, 0, a->count, ids, &e);
  for (int64_t i = 0; i < a->count; i++) ends += ids[i] == t->end_id;
  CHECK(ends == a->documents && ids[a->count - 1] == t->end_id);
  free(ids);
  lh_tokens_release(one);
  lh_tokens_release(many);
  lh_tokens_release(held);
  lh_tokens_release(cut);
  lh_tokenizer_release(t);
  lh_corpus_release(c);
}

int main(void) {
  RUN(test_held_out);
  RUN(test_whole_files_held_out);
  RUN(test_found_files);
  RUN(test_documents_of_a_file);
  RUN(test_refused_sources);
  RUN(test_changed_source_other_key);
  RUN(test_system);
  RUN(test_encoded_corpus);
  lh_folder_remove_tree(in_folder(""), &e);
  return check_done();
}
