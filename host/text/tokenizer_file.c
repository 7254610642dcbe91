/* Tokenizers from and to files: HF's tokenizer.json, and merges.txt under
 * SmolLM's rules. */
#include <stdlib.h>
#include <string.h>

#include "../sys/file.h"
#include "../sys/json.h"
#include "hash64.h"
#include "tokenizer.h"
#include "unicode.h"

enum { FILE_MOST = 256 << 20 };

/* A vocabulary on its way: token bytes per id, and where they are. */
typedef struct builder {
  const char *name;       /* of the file, for messages */
  int32_t count, merges;
  const uint8_t **token;
  int32_t *size;
  bool *special;
  lh_merge *merge;
  uint8_t *bytes;         /* the tokens' bytes, `used` of `room` */
  int64_t used, room;
  lh_wordmap ids;         /* ordinary tokens: bytes -> id */
  lk_error *e;
} builder;

static void builder_free(builder *b) {
  free(b->token);
  free(b->size);
  free(b->special);
  free(b->merge);
  free(b->bytes);
  lh_wordmap_free(&b->ids);
}

static lk_status builder_start(builder *b, int64_t ids, int64_t merges,
                               int64_t bytes) {
  if (ids < 1 || ids > LH_VOCAB_MOST || merges > LH_VOCAB_MOST)
    return lk_fail(b->e, LK_FORMAT,
                   "%s: %lld tokens and %lld merges (allowed: 1 to %d)",
                   b->name, (long long)ids, (long long)merges, LH_VOCAB_MOST);
  b->token = calloc((size_t)ids, sizeof *b->token);
  b->size = calloc((size_t)ids, sizeof *b->size);
  b->special = calloc((size_t)ids, sizeof *b->special);
  b->merge = calloc((size_t)merges + 1, sizeof *b->merge);
  b->bytes = malloc((size_t)bytes + 1);
  b->count = (int32_t)ids;
  b->room = bytes;
  if (!b->token || !b->size || !b->special || !b->merge || !b->bytes)
    return lk_fail(b->e, LK_OOM, "no memory for the tokenizer of %s", b->name);
  return LK_OK;
}

/* Give an id its bytes. Ordinary tokens must differ from each other. */
static lk_status put_token(builder *b, int64_t id, const uint8_t *bytes,
                           int64_t size, bool special) {
  if (id < 0 || id >= b->count || b->token[id] != NULL || size < 1 ||
      size > b->room - b->used)
    return lk_fail(b->e, LK_FORMAT,
                   "%s: token id %lld is given twice, empty, or outside 0 to "
                   "%d (ids must be dense)", b->name, (long long)id,
                   b->count - 1);
  uint8_t *to = b->bytes + b->used;
  memmove(to, bytes, (size_t)size);
  b->used += size;
  b->token[id] = to;
  b->size[id] = (int32_t)size;
  b->special[id] = special;
  if (special) return LK_OK;
  bool added;
  lh_word *word = lh_wordmap_insert(&b->ids, to, size,
                                    lh_hash64(to, (size_t)size, 0), &added);
  if (word == NULL) return lk_fail(b->e, LK_OOM, "no memory for a vocabulary");
  if (!added)
    return lk_fail(b->e, LK_FORMAT, "%s: tokens %lld and %lld are the same",
                   b->name, (long long)word->value, (long long)id);
  word->value = id;
  return LK_OK;
}

/* As put_token, from a name in the byte alphabet. */
static lk_status put_name(builder *b, int64_t id, const char *name,
                          int64_t size) {
  uint8_t *to = b->bytes + b->used;
  int64_t bytes = size <= b->room - b->used
                      ? lh_bytes_from_name(name, size, to) : -1;
  if (bytes < 0)
    return lk_fail(b->e, LK_FORMAT,
                   "%s: token %lld ('%.40s') is not written in the byte-level "
                   "alphabet", b->name, (long long)id, name);
  return put_token(b, id, to, bytes, false);
}

static int32_t id_of_name(const builder *b, const char *name, int64_t size) {
  uint8_t bytes[LH_TOKEN_BYTES_MOST];
  if (size > (int64_t)sizeof bytes) return -1;
  int64_t count = lh_bytes_from_name(name, size, bytes);
  lh_word *word = count > 0 ? lh_wordmap_find(&b->ids, bytes, count) : NULL;
  return word ? (int32_t)word->value : -1;
}

/* Append the merge of two tokens whose joined bytes are a token, too. */
static lk_status put_merge(builder *b, int32_t left, int32_t right) {
  uint8_t bytes[LH_TOKEN_BYTES_MOST];
  lh_word *word = NULL;
  if (left >= 0 && right >= 0 &&
      b->size[left] <= (int32_t)sizeof bytes - b->size[right]) {
    int32_t size = b->size[left] + b->size[right];
    memcpy(bytes, b->token[left], (size_t)b->size[left]);
    memcpy(bytes + b->size[left], b->token[right], (size_t)b->size[right]);
    word = lh_wordmap_find(&b->ids, bytes, size);
  }
  if (word == NULL)
    return lk_fail(b->e, LK_FORMAT,
                   "%s: merge %d names a token that is not in the vocabulary",
                   b->name, b->merges + 1);
  b->merge[b->merges++] = (lh_merge){left, right, (int32_t)word->value};
  return LK_OK;
}

static lk_status builder_finish(builder *b, lh_tokenizer **out) {
  lh_tokenizer_parts parts = {b->count, b->token, b->size, b->special,
                              b->merges, b->merge};
  for (int32_t id = 0; id < b->count; id++)
    if (b->token[id] == NULL)
      return lk_fail(b->e, LK_FORMAT, "%s: no token has id %d", b->name, id);
  lk_status status = lh_tokenizer_new(&parts, out, b->e);
  if (status == LK_OK || b->e == NULL) return status;
  lk_error inner = *b->e;
  return lk_fail(b->e, status, "%s: %s", b->name, inner.message);
}

/* --- tokenizer.json ------------------------------------------------------ */
static lk_status refuse(const builder *b, const char *what) {
  return lk_fail(b->e, LK_FORMAT,
                 "%s: %s; this program reads byte-level BPE with digits "
                 "alone and the GPT-2 pattern", b->name, what);
}

static bool is_null(const lh_json *j, int64_t node) {
  return node == 0 || j->node[node].type == LH_JSON_NULL;
}

static bool is_type(const lh_json *j, int64_t node, lh_json_type type) {
  return node != 0 && j->node[node].type == type;
}

/* Whether an object says `key`: true; absent counts as `otherwise`. */
static bool flag(const lh_json *j, int64_t object, const char *key,
                 bool otherwise) {
  int64_t n = lh_json_member(j, object, key);
  return n ? j->node[n].type == LH_JSON_TRUE : otherwise;
}

/* The pre-tokenizer must be Digits(individual) then ByteLevel with its regex
 * and no space put in front: what pretokenize.c does. */
static bool is_our_split(const lh_json *j, int64_t pre) {
  if (!lh_json_is(j, lh_json_member(j, pre, "type"), "Sequence")) return false;
  int64_t list = lh_json_member(j, pre, "pretokenizers");
  if (!is_type(j, list, LH_JSON_ARRAY) || j->node[list].size != 2) return false;
  int64_t digits = j->node[list].first, bytes = j->node[digits].next;
  return lh_json_is(j, lh_json_member(j, digits, "type"), "Digits") &&
         flag(j, digits, "individual_digits", false) &&
         lh_json_is(j, lh_json_member(j, bytes, "type"), "ByteLevel") &&
         !flag(j, bytes, "add_prefix_space", true) &&
         flag(j, bytes, "use_regex", true);
}

static lk_status check_shape(const builder *b, const lh_json *j,
                             int64_t model) {
  static const char *const unused[] = {"dropout", "unk_token",
      "continuing_subword_prefix", "end_of_word_suffix", NULL};
  if (!is_type(j, 1, LH_JSON_OBJECT) || !is_type(j, model, LH_JSON_OBJECT))
    return refuse(b, "there is no object 'model'");
  if (!lh_json_is(j, lh_json_member(j, model, "type"), "BPE"))
    return refuse(b, "the model's type is not 'BPE'");
  if (!is_null(j, lh_json_member(j, 1, "normalizer")))
    return refuse(b, "it has a normalizer");
  if (!is_our_split(j, lh_json_member(j, 1, "pre_tokenizer")))
    return refuse(b, "its pre-tokenizer is another one");
  for (int i = 0; unused[i]; i++) {
    int64_t n = lh_json_member(j, model, unused[i]);
    if (!is_null(j, n) && !lh_json_is(j, n, ""))
      return lk_fail(b->e, LK_FORMAT, "%s: the model sets '%s', which is not "
                     "supported", b->name, unused[i]);
  }
  if (flag(j, model, "byte_fallback", false) ||
      flag(j, model, "ignore_merges", false))
    return refuse(b, "the model sets byte_fallback or ignore_merges");
  return LK_OK;
}

static lk_status read_added(builder *b, const lh_json *j, int64_t added) {
  int64_t id;
  for (int64_t n = j->node[added].first; n; n = j->node[n].next) {
    int64_t content = lh_json_member(j, n, "content");
    if (!is_type(j, content, LH_JSON_STRING) ||
        !lh_json_integer(j, lh_json_member(j, n, "id"), 0, LH_VOCAB_MOST, &id))
      return refuse(b, "an added token lacks 'id' or 'content'");
    LK_TRY(put_token(b, id, (const uint8_t *)j->node[content].string,
                     j->node[content].size, true));
  }
  return LK_OK;
}

/* Added tokens may be listed in the vocabulary, too, under the same id. */
static bool is_added(const builder *b, int64_t id, const lh_json_node *n) {
  return id < b->count && b->special[id] && b->size[id] == n->key_size &&
         memcmp(b->token[id], n->key, (size_t)n->key_size) == 0;
}

static lk_status read_vocab(builder *b, const lh_json *j, int64_t vocab) {
  int64_t id;
  for (int64_t n = j->node[vocab].first; n; n = j->node[n].next) {
    if (!lh_json_integer(j, n, 0, LH_VOCAB_MOST, &id))
      return lk_fail(b->e, LK_FORMAT, "%s: the id of token '%.40s' is not a "
                     "whole number from 0 to %d", b->name, j->node[n].key,
                     LH_VOCAB_MOST);
    if (is_added(b, id, &j->node[n])) continue;
    LK_TRY(put_name(b, id, j->node[n].key, j->node[n].key_size));
  }
  return LK_OK;
}

/* A merge is "left right" or ["left", "right"]. */
static lk_status read_merge(builder *b, const lh_json *j, int64_t n) {
  const lh_json_node *node = &j->node[n];
  if (node->type == LH_JSON_STRING) {
    const char *space = memchr(node->string, ' ', (size_t)node->size);
    int64_t left = space ? space - node->string : 0;
    if (space)
      return put_merge(b, id_of_name(b, node->string, left),
                       id_of_name(b, space + 1, node->size - left - 1));
  } else if (node->type == LH_JSON_ARRAY && node->size == 2) {
    const lh_json_node *left = &j->node[node->first];
    const lh_json_node *right = &j->node[left->next];
    if (left->type == LH_JSON_STRING && right->type == LH_JSON_STRING)
      return put_merge(b, id_of_name(b, left->string, left->size),
                       id_of_name(b, right->string, right->size));
  }
  return lk_fail(b->e, LK_FORMAT, "%s: merge %d is not a pair of names",
                 b->name, b->merges + 1);
}

/* The ids: the vocabulary's entries and the added tokens that are not there. */
static int64_t count_ids(const lh_json *j, int64_t vocab, int64_t added) {
  int64_t count = j->node[vocab].size;
  for (int64_t n = added ? j->node[added].first : 0; n; n = j->node[n].next) {
    int64_t content = lh_json_member(j, n, "content");
    if (is_type(j, content, LH_JSON_STRING) &&
        !lh_json_member(j, vocab, j->node[content].string))
      count++;
  }
  return count;
}

static lk_status read_json(builder *b, const lh_json *j, int64_t size) {
  int64_t model = lh_json_member(j, 1, "model");
  int64_t added = lh_json_member(j, 1, "added_tokens");
  LK_TRY(check_shape(b, j, model));
  int64_t vocab = lh_json_member(j, model, "vocab");
  int64_t merges = lh_json_member(j, model, "merges");
  if (!is_type(j, vocab, LH_JSON_OBJECT) || !is_type(j, merges, LH_JSON_ARRAY))
    return refuse(b, "the model lacks 'vocab' or 'merges'");
  if (added && (!is_type(j, added, LH_JSON_ARRAY) ||
                j->node[added].size > 4096))
    return refuse(b, "'added_tokens' is not a list of at most 4096 tokens");
  LK_TRY(builder_start(b, count_ids(j, vocab, added), j->node[merges].size,
                       size));
  if (added) LK_TRY(read_added(b, j, added));
  LK_TRY(read_vocab(b, j, vocab));
  for (int64_t n = j->node[merges].first; n; n = j->node[n].next)
    LK_TRY(read_merge(b, j, n));
  return LK_OK;
}

lk_status lh_tokenizer_parse(const char *text, int64_t size, const char *name,
                             lh_tokenizer **out, lk_error *e) {
  lh_json json;
  builder b = {.name = name, .e = e};
  *out = NULL;
  lk_status status = lh_json_parse(text, size, name, &json, e);
  if (status == LK_OK) status = read_json(&b, &json, size);
  if (status == LK_OK) status = builder_finish(&b, out);
  builder_free(&b);
  lh_json_free(&json);
  return status;
}

lk_status lh_tokenizer_load(const char *path, lh_tokenizer **out,
                            lk_error *e) {
  void *text;
  int64_t size;
  *out = NULL;
  LK_TRY(lh_file_read(path, FILE_MOST, &text, &size, e));
  lk_status status = lh_tokenizer_parse(text, size, path, out, e);
  free(text);
  return status;
}

/* --- merges.txt under SmolLM's rules ------------------------------------- */
static const char *const smollm_specials[] = {
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>",
    "<file_sep>", "<filename>", "<gh_stars>", "<issue_start>",
    "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>",
    "<jupyter_code>", "<jupyter_output>", "<jupyter_script>",
    "<empty_output>"};
enum { SMOLLM_SPECIALS = 17, SMOLLM_BYTES = 235 };

/* The 21 bytes without a token. Sure: the 13 that no UTF-8 text holds; 0xF1
 * and 0xF2, lead bytes of unassigned planes; two more below newline and four
 * between newline and space, since newline is id 198 and the first merge is
 * id 252. merges.txt does not say which these six control bytes are; the
 * choice here moves the ids of rare control characters only. */
static bool smollm_lacks(int byte) {
  static const uint8_t lacks[] = {
      0xC0, 0xC1, 0xF1, 0xF2, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA, 0xFB,
      0xFC, 0xFD, 0xFE, 0xFF, 0x05, 0x06, 0x15, 0x16, 0x17, 0x1A};
  return memchr(lacks, byte, sizeof lacks) != NULL;
}

static lk_status put_smollm_start(builder *b) {
  int32_t id = 0;
  for (; id < SMOLLM_SPECIALS; id++)
    LK_TRY(put_token(b, id, (const uint8_t *)smollm_specials[id],
                     (int64_t)strlen(smollm_specials[id]), true));
  for (uint32_t code = 0; code < 0x144; code++) {
    int byte = lh_char_byte(code);
    uint8_t value = (uint8_t)byte;
    if (byte >= 0 && !smollm_lacks(byte))
      LK_TRY(put_token(b, id++, &value, 1, false));
  }
  return LK_OK;
}

/* One line of merges.txt, "left right": the next id is their joined bytes. */
static lk_status put_line(builder *b, const char *line, int64_t size) {
  int64_t id = SMOLLM_SPECIALS + SMOLLM_BYTES + b->merges;
  const char *space = memchr(line, ' ', (size_t)size);
  int32_t left = -1, right = -1;
  if (space) {
    left = id_of_name(b, line, space - line);
    right = id_of_name(b, space + 1, size - (space + 1 - line));
  }
  if (left < 0 || right < 0)
    return lk_fail(b->e, LK_FORMAT, "%s: merge %d ('%.*s') does not name two "
                   "earlier tokens", b->name, b->merges + 1,
                   size > 60 ? 60 : (int)size, line);
  int32_t bytes = b->size[left] + b->size[right];
  uint8_t *joined = b->bytes + b->used;
  if (bytes > b->room - b->used || bytes > LH_TOKEN_BYTES_MOST)
    return lk_fail(b->e, LK_FORMAT, "%s: merge %d makes a token of %d bytes",
                   b->name, b->merges + 1, bytes);
  memcpy(joined, b->token[left], (size_t)b->size[left]);
  memcpy(joined + b->size[left], b->token[right], (size_t)b->size[right]);
  LK_TRY(put_token(b, id, joined, bytes, false));
  b->merge[b->merges++] = (lh_merge){left, right, (int32_t)id};
  return LK_OK;
}

/* The end of the line at p; a comment or an empty line has *size 0. */
static const char *next_line(const char *p, const char *end, int64_t *size) {
  const char *stop = memchr(p, '\n', (size_t)(end - p));
  if (stop == NULL) stop = end;
  *size = stop - p;
  if (*size > 0 && p[*size - 1] == '\r') (*size)--;
  return stop < end ? stop + 1 : end;
}

/* Only the first line can be a comment: "# #" is a merge. */
static lk_status read_merges(builder *b, const char *text, int64_t size) {
  const char *end = text + size, *first = text;
  int64_t length, lines = 0;
  if (size >= 9 && memcmp(text, "#version:", 9) == 0)
    first = next_line(text, end, &length);
  for (const char *p = first; p < end;) {
    p = next_line(p, end, &length);
    lines += length > 0;
  }
  /* A merged token is at most as long as all merges before it; bytes that the
   * file can justify: no token is longer than its own line's two names. */
  LK_TRY(builder_start(b, SMOLLM_SPECIALS + SMOLLM_BYTES + lines, lines,
                       size + 1024));
  LK_TRY(put_smollm_start(b));
  for (const char *p = first, *next; p < end; p = next) {
    next = next_line(p, end, &length);
    if (length > 0) LK_TRY(put_line(b, p, length));
  }
  return LK_OK;
}

lk_status lh_tokenizer_load_merges(const char *path, lh_tokenizer **out,
                                   lk_error *e) {
  void *text;
  int64_t size;
  builder b = {.name = path, .e = e};
  *out = NULL;
  LK_TRY(lh_file_read(path, FILE_MOST, &text, &size, e));
  lk_status status = read_merges(&b, text, size);
  if (status == LK_OK) status = builder_finish(&b, out);
  builder_free(&b);
  free(text);
  return status;
}
