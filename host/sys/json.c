/* A small strict JSON reader. */
#include "json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "utf8.h"

typedef struct reader {
  const char *p, *start, *end;
  const char *name;
  lh_json *json;
  char *out;              /* where the next decoded string goes */
  int depth;
  lk_error *e;
} reader;

static lk_status fail(const reader *r, const char *what) {
  int64_t line = 1;
  for (const char *p = r->start; p < r->p; p++) line += *p == '\n';
  return lk_fail(r->e, LK_FORMAT, "%s:%lld: %s", r->name, (long long)line,
                 what);
}

static void skip_space(reader *r) {
  while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\r' ||
                           *r->p == '\t'))
    r->p++;
}

static bool accept(reader *r, char c) {
  skip_space(r);
  if (r->p >= r->end || *r->p != c) return false;
  r->p++;
  return true;
}

static lk_status new_node(reader *r, int64_t *number) {
  lh_json *json = r->json;
  if (json->count + 1 >= json->room) {
    int64_t room = json->room * 2 + 64;
    lh_json_node *node = realloc(json->node, (size_t)room * sizeof *node);
    if (node == NULL)
      return lk_fail(r->e, LK_OOM, "no memory to read %s", r->name);
    json->node = node;
    json->room = room;
  }
  *number = ++json->count;
  json->node[*number] = (lh_json_node){0};
  return LK_OK;
}

/* --- strings -------------------------------------------------------------- */
static bool hex4(reader *r, uint32_t *code) {
  *code = 0;
  if (r->end - r->p < 4) return false;
  for (int i = 0; i < 4; i++) {
    char c = *r->p++;
    int digit = c >= '0' && c <= '9' ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return false;
    *code = *code << 4 | (uint32_t)digit;
  }
  return true;
}

static lk_status read_unicode_escape(reader *r) {
  uint32_t code, low;
  if (!hex4(r, &code)) return fail(r, "\\u needs four hexadecimal digits");
  if (code >= 0xD800 && code < 0xE000) {
    if (code >= 0xDC00 || r->end - r->p < 6 || r->p[0] != '\\' ||
        r->p[1] != 'u')
      return fail(r, "a surrogate that stands alone");
    r->p += 2;
    if (!hex4(r, &low) || low < 0xDC00 || low >= 0xE000)
      return fail(r, "a surrogate that stands alone");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }
  r->out += lh_utf8_encode(code, (uint8_t *)r->out);
  return LK_OK;
}

static lk_status read_escape(reader *r) {
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  if (r->p >= r->end) return fail(r, "a string has no end");
  char c = *r->p++;
  if (c == 'u') return read_unicode_escape(r);
  const char *found = c ? strchr(from, c) : NULL;
  if (found == NULL) return fail(r, "unknown escape in a string");
  *r->out++ = to[found - from];
  return LK_OK;
}

/* After the opening quote. A decoded string is never longer than its source,
 * so `strings` cannot overflow. */
static lk_status read_string(reader *r, const char **text, int32_t *size) {
  *text = r->out;
  while (r->p < r->end && *r->p != '"') {
    uint8_t c = (uint8_t)*r->p;
    if (c == '\\') {
      r->p++;
      LK_TRY(read_escape(r));
      continue;
    }
    uint32_t code;
    int length = lh_utf8_decode((const uint8_t *)r->p, (const uint8_t *)r->end,
                                &code);
    if (c < 0x20) return fail(r, "a control character in a string");
    if (length == 0) return fail(r, "invalid UTF-8 in a string");
    memcpy(r->out, r->p, (size_t)length);
    r->out += length;
    r->p += length;
  }
  if (r->p >= r->end) return fail(r, "a string has no end");
  r->p++;
  *size = (int32_t)(r->out - *text);
  *r->out++ = 0;
  return LK_OK;
}

/* --- values --------------------------------------------------------------- */
static bool digits(reader *r) {
  const char *from = r->p;
  while (r->p < r->end && *r->p >= '0' && *r->p <= '9') r->p++;
  return r->p > from;
}

/* The text ends with a zero byte, so strtod stops in time. */
static lk_status read_number(reader *r, double *number) {
  const char *from = r->p;
  if (*r->p == '-') r->p++;
  const char *first = r->p;
  bool fine = digits(r) && !(*first == '0' && r->p > first + 1);
  if (fine && r->p < r->end && *r->p == '.') {
    r->p++;
    fine = digits(r);
  }
  if (fine && r->p < r->end && (*r->p == 'e' || *r->p == 'E')) {
    r->p++;
    if (r->p < r->end && (*r->p == '+' || *r->p == '-')) r->p++;
    fine = digits(r);
  }
  *number = fine ? strtod(from, NULL) : 0;
  if (!fine || !isfinite(*number)) return fail(r, "a malformed number");
  return LK_OK;
}

static lk_status read_value(reader *r, int64_t node);

static lk_status read_key(reader *r, int64_t node) {
  const char *key;
  int32_t size;
  if (!accept(r, '"')) return fail(r, "expected a name in quotes");
  LK_TRY(read_string(r, &key, &size));
  if (!accept(r, ':')) return fail(r, "expected ':' after a name");
  r->json->node[node].key = key;
  r->json->node[node].key_size = size;
  return LK_OK;
}

/* After the opening bracket. */
static lk_status read_members(reader *r, int64_t parent, bool object) {
  char closing = object ? '}' : ']';
  int64_t before = 0, node;
  if (++r->depth > LH_JSON_DEPTH_MOST) return fail(r, "nested too deeply");
  if (!accept(r, closing)) do {
    LK_TRY(new_node(r, &node));
    if (object) LK_TRY(read_key(r, node));
    LK_TRY(read_value(r, node));
    if (before) r->json->node[before].next = node;
    else r->json->node[parent].first = node;
    r->json->node[parent].size++;
    before = node;
    if (accept(r, closing)) break;
    if (!accept(r, ','))
      return fail(r, object ? "expected ',' or '}'" : "expected ',' or ']'");
  } while (true);
  r->depth--;
  return LK_OK;
}

static lk_status read_word(reader *r, int64_t node) {
  static const struct { const char *word; lh_json_type type; } words[] = {
      {"true", LH_JSON_TRUE}, {"false", LH_JSON_FALSE}, {"null", LH_JSON_NULL}};
  for (int i = 0; i < 3; i++) {
    size_t length = strlen(words[i].word);
    if ((size_t)(r->end - r->p) >= length &&
        memcmp(r->p, words[i].word, length) == 0) {
      r->p += length;
      r->json->node[node].type = words[i].type;
      return LK_OK;
    }
  }
  return fail(r, "expected a value");
}

static lk_status read_value(reader *r, int64_t node) {
  skip_space(r);
  if (r->p >= r->end) return fail(r, "the text ends too early");
  char c = *r->p;
  if (c == '{' || c == '[') {
    r->p++;
    r->json->node[node].type = c == '{' ? LH_JSON_OBJECT : LH_JSON_ARRAY;
    return read_members(r, node, c == '{');
  }
  if (c == '"') {
    r->p++;
    r->json->node[node].type = LH_JSON_STRING;
    return read_string(r, &r->json->node[node].string,
                       &r->json->node[node].size);
  }
  if (c == '-' || (c >= '0' && c <= '9')) {
    r->json->node[node].type = LH_JSON_NUMBER;
    return read_number(r, &r->json->node[node].number);
  }
  return read_word(r, node);
}

lk_status lh_json_parse(const char *text, int64_t size, const char *name,
                        lh_json *json, lk_error *e) {
  *json = (lh_json){0};
  if (size > 1 << 30)
    return lk_fail(e, LK_FORMAT, "%s: %lld bytes of JSON are too many", name,
                   (long long)size);
  /* The copy gives numbers their zero end; strings need a byte more each,
   * which their two quotes outweigh. */
  char *copy = malloc((size_t)size + 1);
  json->strings = malloc((size_t)size + 1);
  if (copy == NULL || json->strings == NULL) {
    free(copy);
    return lk_fail(e, LK_OOM, "no memory to read %s", name);
  }
  if (size > 0) memcpy(copy, text, (size_t)size);
  copy[size] = 0;
  reader r = {.p = copy, .start = copy, .end = copy + size, .name = name,
              .json = json, .out = json->strings, .e = e};
  int64_t root;
  lk_status status = new_node(&r, &root);
  if (status == LK_OK) status = read_value(&r, root);
  skip_space(&r);
  if (status == LK_OK && r.p < r.end)
    status = fail(&r, "text after the end of the value");
  free(copy);
  return status;
}

void lh_json_free(lh_json *json) {
  free(json->node);
  free(json->strings);
  *json = (lh_json){0};
}

int64_t lh_json_member(const lh_json *json, int64_t object, const char *key) {
  if (object == 0 || json->node[object].type != LH_JSON_OBJECT) return 0;
  int64_t n = json->node[object].first;
  while (n && strcmp(json->node[n].key, key) != 0) n = json->node[n].next;
  return n;
}

bool lh_json_is(const lh_json *json, int64_t node, const char *text) {
  return node && json->node[node].type == LH_JSON_STRING &&
         strcmp(json->node[node].string, text) == 0;
}

bool lh_json_integer(const lh_json *json, int64_t node, int64_t least,
                     int64_t most, int64_t *value) {
  if (node == 0 || json->node[node].type != LH_JSON_NUMBER) return false;
  double number = json->node[node].number;
  if (!(number >= (double)least && number <= (double)most)) return false;
  *value = (int64_t)number;
  return (double)*value == number;
}
