/* A tokenizer as HF's tokenizer.json. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../sys/file.h"
#include "tokenizer.h"
#include "unicode.h"

typedef struct buffer {
  char *text;
  int64_t size, room;
  bool failed;
} buffer;

static void put(buffer *b, const char *text, int64_t size) {
  if (b->size + size + 1 > b->room) {
    int64_t room = b->room * 2 + size + 4096;
    char *moved = realloc(b->text, (size_t)room);
    if (moved == NULL) {
      b->failed = true;
      return;
    }
    b->text = moved;
    b->room = room;
  }
  memcpy(b->text + b->size, text, (size_t)size);
  b->size += size;
  b->text[b->size] = 0;
}

__attribute__((format(printf, 2, 3)))
static void putf(buffer *b, const char *format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  int size = vsnprintf(text, sizeof text, format, args);
  va_end(args);
  put(b, text, size < (int)sizeof text ? size : (int)sizeof text - 1);
}

static void put_char(buffer *b, uint32_t code) {
  char text[8];
  if (code == '"' || code == '\\') putf(b, "\\%c", (char)code);
  else if (code < 0x20) putf(b, "\\u%04x", code);
  else put(b, text, lh_utf8_encode(code, (uint8_t *)text));
}

/* A token's name: bytes in the byte alphabet, or a special's text as it is. */
static void put_name(buffer *b, const lh_tokenizer *t, int32_t id) {
  int64_t size;
  const uint8_t *p = lh_token(t, id, &size), *end = p + size;
  while (p < end) {
    uint32_t code = *p;
    int length = t->special[id] ? lh_utf8_decode(p, end, &code) : 0;
    put_char(b, t->special[id] ? code : lh_byte_char(*p));
    p += length ? length : 1;
  }
}

static void put_added(buffer *b, const lh_tokenizer *t) {
  const char *separator = "";
  for (int32_t id = 0; id < t->count; id++) {
    if (!t->special[id]) continue;
    putf(b, "%s\n    {\"id\": %d, \"content\": \"", separator, id);
    put_name(b, t, id);
    put(b, "\", \"single_word\": false, \"lstrip\": false, "
           "\"rstrip\": false, \"normalized\": false, \"special\": true}",
        strlen("\", \"single_word\": false, \"lstrip\": false, "
               "\"rstrip\": false, \"normalized\": false, "
               "\"special\": true}"));
    separator = ",";
  }
}

static void put_vocab(buffer *b, const lh_tokenizer *t) {
  for (int32_t id = 0; id < t->count; id++) {
    putf(b, "%s\n      \"", id ? "," : "");
    put_name(b, t, id);
    putf(b, "\": %d", id);
  }
}

static void put_merges(buffer *b, const lh_tokenizer *t) {
  for (int32_t i = 0; i < t->merges; i++) {
    putf(b, "%s\n      \"", i ? "," : "");
    put_name(b, t, t->merge[i].left);
    put(b, " ", 1);
    put_name(b, t, t->merge[i].right);
    put(b, "\"", 1);
  }
}

#define PUT(text) put(&b, text, (int64_t)sizeof text - 1)

lk_status lh_tokenizer_json(const lh_tokenizer *t, char **text, int64_t *size,
                            lk_error *e) {
  buffer b = {0};
  PUT("{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n"
      "  \"padding\": null,\n  \"added_tokens\": [");
  put_added(&b, t);
  PUT("\n  ],\n  \"normalizer\": null,\n"
      "  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n"
      "    {\"type\": \"Digits\", \"individual_digits\": true},\n"
      "    {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
      "\"trim_offsets\": true, \"use_regex\": true}\n  ]},\n"
      "  \"post_processor\": null,\n"
      "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
      "\"trim_offsets\": true, \"use_regex\": true},\n"
      "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n"
      "    \"unk_token\": null,\n    \"continuing_subword_prefix\": null,\n"
      "    \"end_of_word_suffix\": null,\n    \"fuse_unk\": false,\n"
      "    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n"
      "    \"vocab\": {");
  put_vocab(&b, t);
  PUT("\n    },\n    \"merges\": [");
  put_merges(&b, t);
  PUT("\n    ]\n  }\n}\n");
  *text = b.text;
  *size = b.size;
  if (!b.failed) return LK_OK;
  free(b.text);
  *text = NULL;
  return lk_fail(e, LK_OOM, "no memory to write a tokenizer");
}

lk_status lh_tokenizer_save(const lh_tokenizer *t, const char *path,
                            lk_error *e) {
  char *text;
  int64_t size;
  LK_TRY(lh_tokenizer_json(t, &text, &size, e));
  lk_status status = lh_file_write(path, text, size, e);
  free(text);
  return status;
}
