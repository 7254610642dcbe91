/* The tokenizer: training by hand and against Hugging Face's, round trips,
 * files good and bad. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../host/sys/file.h"
#include "../../host/text/encode.h"
#include "../../host/text/train.h"
#include "../../kernels/base/rng.h"
#include "check.h"

static lk_error e;

static lh_tokenizer *trained(const char *text, int64_t size, int32_t vocab,
                             int threads) {
  lh_tokenizer *t = NULL;
  lh_span span = {text, size};
  CHECK(lh_tokenizer_train(&span, 1, vocab, threads, &t, &e) == LK_OK, "%s",
        e.message);
  return t;
}

static char *read_reference(const char *name, int64_t *size) {
  char path[256];
  void *text = NULL;
  snprintf(path, sizeof path, "tests/reference/text/%s", name);
  CHECK(lh_file_read(path, 0, &text, size, &e) == LK_OK, "%s", e.message);
  return text;
}

static int round_trip(lh_tokenizer *t, const char *text, int64_t size) {
  lh_encoder *encoder;
  lh_ids ids = {0};
  char *back;
  int64_t length;
  if (lh_encoder_new(t, &encoder, &e) != LK_OK) return 0;
  int same = lh_encode(encoder, text, size, &ids, &e) == LK_OK &&
             lh_decode(t, ids.data, ids.count, false, &back, &length, &e) ==
                 LK_OK;
  if (same) {
    same = length == size && memcmp(back, text, (size_t)size) == 0;
    free(back);
  }
  free(ids.data);
  lh_encoder_free(encoder);
  return same;
}

static void check_token(const lh_tokenizer *t, int32_t id, const char *want) {
  int64_t size;
  const uint8_t *token = lh_token(t, id, &size);
  CHECK((size_t)size == strlen(want) && memcmp(token, want, (size_t)size) == 0,
        "token %d is '%.*s', not '%s'", id, (int)size, token, want);
}

/* aaabdaaabac twice: (a a) occurs 8 times; then (a b) and (aa a) 4 times each,
 * of which (a b) has the smaller ids; then (aa ab) 4 times; then (a c), (d
 * aaab), (aaab d), (aaab a) twice, of which (a c) is the smallest. */
static void test_by_hand(void) {
  lh_tokenizer *t = trained("aaabdaaabac\naaabdaaabac", 23, 261, 1);
  if (t == NULL) return;
  CHECK(t->count == 261 && t->merges == 4, "%d ids", t->count);
  check_token(t, 0, "<|endoftext|>");
  check_token(t, 1, "!");
  check_token(t, 257, "aa");
  check_token(t, 258, "ab");
  check_token(t, 259, "aaab");
  check_token(t, 260, "ac");
  CHECK(t->special[0] && !t->special[1] && t->end_id == 0);
  lh_tokenizer_release(t);
}

static void test_stops_early(void) {
  lh_tokenizer *t = trained("abcdefg", 7, 5000, 1);
  CHECK(t && t->count == 257 && t->merges == 0, "no pair occurs twice");
  lh_tokenizer_release(t);
  CHECK(lh_tokenizer_train(NULL, 0, 256, 1, &t, &e) == LK_ARGUMENT &&
        strstr(e.message, "257 to 1048576 are possible"), "%s", e.message);
}

/* One merge's line of tokenizer.json: "left right". */
static void merge_name(const lh_tokenizer *t, int32_t rank, char *out) {
  char *json, *at;
  int64_t size;
  *out = 0;
  if (lh_tokenizer_json(t, &json, &size, &e) != LK_OK) return;
  at = strstr(json, "\"merges\": [");
  for (int32_t i = 0; at && i <= rank; i++) at = strchr(at + 1, '\n');
  if (at) sscanf(at, " \"%255[^\"]", out);
  free(json);
}

/* The same merges as Hugging Face's trainer, in the same order. */
static void test_merges_of_reference(void) {
  int64_t size, length;
  char *text = read_reference("train.txt", &size);
  char *merges = read_reference("merges.txt", &length), *json, *p, *q;
  lh_tokenizer *t = trained(text, size, 640, 2);
  int32_t rank = 0;
  CHECK(t->count == 640, "%d ids", t->count);
  CHECK(lh_tokenizer_json(t, &json, &length, &e) == LK_OK, "%s", e.message);
  p = strchr(strstr(json, "\"merges\": ["), '\n');
  for (char *line = strtok_r(merges, "\n", &q); line;
       line = strtok_r(NULL, "\n", &q), rank++) {
    char ours[256] = "";
    if (p) sscanf(p, " \"%255[^\n]", ours);
    ours[strcspn(ours, "\n")] = 0;
    size_t n = strlen(ours);
    while (n > 0 && (ours[n - 1] == ',' || ours[n - 1] == '"')) ours[--n] = 0;
    /* Of the names, only the quote and the backslash are escaped. */
    if (!strchr(ours, '\\'))
      CHECK(strcmp(ours, line) == 0, "merge %d: '%s', not '%s'", rank + 1,
            ours, line);
    p = p ? strchr(p + 1, '\n') : NULL;
  }
  CHECK(rank == t->merges, "%d merges, not %d", t->merges, rank);
  free(json);
  free(text);
  free(merges);
  lh_tokenizer_release(t);
}

/* The same ids as Hugging Face's encoder on hostile lines. */
static void test_ids_of_reference(void) {
  int64_t size, length;
  char *text = read_reference("train.txt", &size);
  char *lines = read_reference("hostile.txt", &length), *p = lines;
  int64_t ignored;
  char *ids = read_reference("ids.txt", &ignored), *q = ids;
  lh_tokenizer *t = trained(text, size, 640, 1);
  lh_encoder *encoder;
  int bad = 0, count = 0;
  CHECK(lh_encoder_new(t, &encoder, &e) == LK_OK, "%s", e.message);
  for (; p < lines + length && !bad; count++) {
    char *end = memchr(p, '\n', (size_t)(lines + length - p));
    lh_ids got = {0};
    lh_encode(encoder, p, end - p, &got, &e);
    for (int64_t i = 0; i < got.count; i++)
      bad += strtol(q, &q, 10) != got.data[i];
    bad += *q++ != '\n';
    CHECK(!bad, "line %d", count + 1);
    free(got.data);
    p = end + 1;
  }
  CHECK(count == 219, "%d lines", count);
  lh_encoder_free(encoder);
  lh_tokenizer_release(t);
  free(text);
  free(lines);
  free(ids);
}

static void test_threads_agree(void) {
  int64_t size;
  char *text = read_reference("train.txt", &size);
  lh_span spans[8];
  lh_tokenizer *one, *many;
  for (int i = 0; i < 8; i++)
    spans[i] = (lh_span){text + size * i / 8,
                         size * (i + 1) / 8 - size * i / 8};
  CHECK(lh_tokenizer_train(spans, 8, 600, 1, &one, &e) == LK_OK);
  CHECK(lh_tokenizer_train(spans, 8, 600, 4, &many, &e) == LK_OK);
  CHECK(one->hash == many->hash && one->count == 600);
  lh_tokenizer *other = trained(text, size / 2, 600, 1);
  CHECK(other->hash != one->hash, "half the text gives another vocabulary");
  lh_tokenizer_release(one);
  lh_tokenizer_release(many);
  lh_tokenizer_release(other);
  free(text);
}

/* Every byte string comes back, whatever it is. */
static void test_round_trips(void) {
  int64_t size;
  char *text = read_reference("train.txt", &size);
  lh_tokenizer *t = trained(text, size, 640, 1);
  static uint8_t bytes[70000];
  for (int i = 0; i < 300; i++) {
    int length = (int)(lk_philox(5, (uint64_t)i, 0, 0).w[0] % 300);
    int range = i % 3 == 0 ? 256 : i % 3 == 1 ? 128 : 4;
    for (int k = 0; k < length; k++)
      bytes[k] = (uint8_t)(lk_philox(5, (uint64_t)i, 1, (uint32_t)k).w[0] %
                           (uint32_t)range + (range == 4 ? 'a' : 0));
    CHECK(round_trip(t, (char *)bytes, length), "random string %d", i);
  }
  memset(bytes, '-', sizeof bytes);
  CHECK(round_trip(t, (char *)bytes, sizeof bytes), "one long word");
  CHECK(round_trip(t, text, size), "the training text");
  CHECK(round_trip(t, "", 0), "nothing");
  free(text);
  lh_tokenizer_release(t);
}

/* Merging by heap and by scan must agree: a word's ids do not depend on which
 * of them its length selects. Compared on runs whose merges are periodic. */
static void test_long_words(void) {
  static char run[4000];
  memset(run, 'a', sizeof run);
  lh_tokenizer *t = trained(run, 128, 300, 1);
  lh_encoder *encoder;
  lh_ids ids = {0};
  CHECK(t->merges == 6, "aa, aaaa, … 64 a's: %d merges", t->merges);
  CHECK(lh_encoder_new(t, &encoder, &e) == LK_OK);
  CHECK(lh_encode(encoder, run, sizeof run, &ids, &e) == LK_OK);
  CHECK(ids.count == 4000 / 64 + 1, "%d ids", (int)ids.count);
  for (int i = 0; i < 62; i++) CHECK(ids.data[i] == 262, "id %d", i);
  check_token(t, ids.data[62], "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
  free(ids.data);
  lh_encoder_free(encoder);
  lh_tokenizer_release(t);
}

/* --- files --------------------------------------------------------------- */
static void test_save_and_load(void) {
  int64_t size;
  char path[300], *text = read_reference("train.txt", &size);
  const char *folder = getenv("TMPDIR");
  snprintf(path, sizeof path, "%s/tokenizer.json", folder ? folder : "/tmp");
  lh_tokenizer *t = trained(text, size, 500, 1), *back = NULL;
  CHECK(lh_tokenizer_save(t, path, &e) == LK_OK, "%s", e.message);
  CHECK(lh_tokenizer_load(path, &back, &e) == LK_OK, "%s", e.message);
  CHECK(back && back->hash == t->hash && back->specials == 1);
  char name[256];
  merge_name(t, 0, name);
  CHECK(strcmp(name, "t e") == 0, "the first merge is '%s'", name);
  lh_tokenizer_release(t);
  lh_tokenizer_release(back);
  unlink(path);
  free(text);
}

#define PRE "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[" \
  "{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":" \
  "\"ByteLevel\",\"add_prefix_space\":false}]},"
#define FILE_OF(model) "{" PRE "\"model\":{\"type\":\"BPE\"," model "}}"

static void test_refused_files(void) {
  static const struct { const char *text, *message; } cases[] = {
      {"", "t:1: the text ends too early"},
      {"{\"a\":1,}", "t:1: expected a name in quotes"},
      {"[1 2]", "t:1: expected ',' or ']'"},
      {"\n\n{\"a\":NaN}", "t:3: expected a value"},
      {"[0x10]", "t:1: expected ',' or ']'"},
      {"[01]", "t:1: a malformed number"},
      {"[1.]", "t:1: a malformed number"},
      {"[\"\\ud800\"]", "t:1: a surrogate that stands alone"},
      {"[\"\xff\"]", "t:1: invalid UTF-8 in a string"},
      {"[\"a\nb\"]", "t:1: a control character in a string"},
      {"[\"a", "t:1: a string has no end"},
      {"{} {}", "t:1: text after the end of the value"},
      {"[]", "t: there is no object 'model'"},
      {"{\"model\":{\"type\":\"WordPiece\"}}",
       "t: the model's type is not 'BPE'"},
      {"{\"model\":{\"type\":\"BPE\"}}", "t: its pre-tokenizer is another"},
      {FILE_OF("\"vocab\":{}"), "t: the model lacks 'vocab' or 'merges'"},
      {FILE_OF("\"vocab\":{},\"merges\":[]"), "t: 0 tokens and 0 merges"},
      {FILE_OF("\"vocab\":{\"a\":1},\"merges\":[]"),
       "t: token id 1 is given twice, empty, or outside 0 to 0"},
      {FILE_OF("\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]"),
       "t: tokens 0 and 1 are the same"},
      {FILE_OF("\"vocab\":{\"a\":0.5},\"merges\":[]"),
       "t: the id of token 'a' is not a whole number"},
      {FILE_OF("\"vocab\":{\"a b\":0},\"merges\":[]"),
       "t: token 0 ('a b') is not written in the byte-level alphabet"},
      {FILE_OF("\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]"),
       "t: merge 1 names a token that is not in the vocabulary"},
      {FILE_OF("\"vocab\":{\"a\":0},\"merges\":[7]"),
       "t: merge 1 is not a pair of names"},
      {FILE_OF("\"dropout\":0.1,\"vocab\":{\"a\":0},\"merges\":[]"),
       "t: the model sets 'dropout', which is not supported"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    lh_tokenizer *t;
    lk_status status = lh_tokenizer_parse(
        cases[i].text, (int64_t)strlen(cases[i].text), "t", &t, &e);
    CHECK(status == LK_FORMAT && t == NULL, "case %d", (int)i);
    CHECK(strncmp(e.message, cases[i].message, strlen(cases[i].message)) == 0,
          "case %d: %s", (int)i, e.message);
  }
}

/* A damaged file is refused or understood, and never a crash. */
static void test_damaged_files(void) {
  int64_t size;
  char *json;
  lh_tokenizer *t = trained("banana bandana cabana", 21, 262, 1);
  CHECK(lh_tokenizer_json(t, &json, &size, &e) == LK_OK, "%s", e.message);
  lh_tokenizer_release(t);
  for (uint64_t i = 0; i < 1500; i++) {
    lk_rng_word4 r = lk_philox(9, i, 0, 0);
    int64_t at = r.w[0] % (uint64_t)size, cut = size;
    char before = json[at];
    json[at] = (char)r.w[1];
    if (i % 4 == 0) cut = r.w[2] % (uint64_t)size;
    if (lh_tokenizer_parse(json, cut, "t", &t, &e) == LK_OK) {
      CHECK(cut == size, "a cut file was taken");
      lh_tokenizer_release(t);
    }
    json[at] = before;
  }
  CHECK(lh_tokenizer_parse(json, size, "t", &t, &e) == LK_OK, "%s", e.message);
  lh_tokenizer_release(t);
  free(json);
}

static void test_deep_nesting(void) {
  static char text[200];
  lh_tokenizer *t;
  memset(text, '[', sizeof text);
  CHECK(lh_tokenizer_parse(text, sizeof text, "t", &t, &e) == LK_FORMAT &&
        strcmp(e.message, "t:1: nested too deeply") == 0, "%s", e.message);
}

static void test_smollm(void) {
  static const char path[] = "../shared/data/smollm_merges.txt";
  lh_tokenizer *t = NULL;
  if (access(path, R_OK) != 0) SKIP("its merges.txt is not here");
  CHECK(lh_tokenizer_load_merges(path, &t, &e) == LK_OK, "%s", e.message);
  if (t == NULL) return;
  CHECK(t->count == 49152 && t->specials == 17 && t->merges == 48900);
  CHECK(t->missing_bytes == 21, "%d", t->missing_bytes);
  check_token(t, 17, "!");
  check_token(t, 198, "\n");
  check_token(t, 216, " ");
  check_token(t, 252, " t");
  check_token(t, 260, " the");
  check_token(t, 49151, "ectable");
  CHECK(round_trip(t, "In 2024, the caf\xc3\xa9's 7 cats!", 27));
  lh_encoder *encoder;
  lh_ids ids = {0};
  CHECK(lh_encoder_new(t, &encoder, &e) == LK_OK);
  lh_encode(encoder, "a\xff" "b\xf1", 4, &ids, &e);
  CHECK(lh_encoder_dropped(encoder) == 2 && ids.count == 2);
  free(ids.data);
  lh_encoder_free(encoder);
  lh_tokenizer_release(t);
}

static void test_specials(void) {
  static const char text[] = "a<|endoftext|>b<|end";
  lh_tokenizer *t = trained("x", 1, 257, 1);
  lh_encoder *encoder;
  lh_ids plain = {0}, special = {0};
  char *back;
  int64_t size;
  CHECK(lh_encoder_new(t, &encoder, &e) == LK_OK);
  lh_encode(encoder, text, sizeof text - 1, &plain, &e);
  lh_encode_special(encoder, text, sizeof text - 1, &special, &e);
  CHECK(plain.count == 20 && special.count == 8 && special.data[1] == 0,
        "%d and %d ids", (int)plain.count, (int)special.count);
  lh_decode(t, special.data, special.count, true, &back, &size, &e);
  CHECK(strcmp(back, "ab<|end") == 0, "'%s'", back);
  free(back);
  int32_t outside[] = {1, 257};
  CHECK(lh_decode(t, outside, 2, false, &back, &size, &e) == LK_ARGUMENT &&
        strcmp(e.message, "id 257 at place 2 is outside the vocabulary of 257")
        == 0, "%s", e.message);
  free(plain.data);
  free(special.data);
  lh_encoder_free(encoder);
  lh_tokenizer_release(t);
}

int main(void) {
  RUN(test_by_hand);
  RUN(test_stops_early);
  RUN(test_merges_of_reference);
  RUN(test_ids_of_reference);
  RUN(test_threads_agree);
  RUN(test_round_trips);
  RUN(test_long_words);
  RUN(test_save_and_load);
  RUN(test_refused_files);
  RUN(test_damaged_files);
  RUN(test_deep_nesting);
  RUN(test_smollm);
  RUN(test_specials);
  return check_done();
}
