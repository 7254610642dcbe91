/* A corpus: reading a source into documents and holding some of them out. */
#define _GNU_SOURCE
#include "corpus.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../sys/file.h"
#include "../sys/signal.h"
#include "hash64.h"
#include "held_out.h"
#include "jsonl.h"
#include "unicode.h"
#include "unpack.h"
#include "wordmap.h"

enum { ROWS_BLOCK = 1 << 20, PACKED_PIECE = 1 << 18 };
enum { DOCUMENT_MOST = 32 << 10, DOCUMENT_LEAST = 1 << 10, FEW_FILES = 20 };
enum { RULES = 2 };       /* of cutting and holding out: others, other keys */
static const int64_t corpus_most = INT64_C(2) << 30;
static const int64_t system_most = INT64_C(256) << 20;
static const char separator[] = "<|endoftext|>";

/* What is being read, and how much of it is still wanted. */
typedef struct reading {
  const lh_source *source;
  const lh_corpus_options *options;
  lh_corpus *corpus;
  int64_t wanted;         /* bytes */
  int64_t piece;          /* the longest document */
  int64_t file;           /* the one being read */
  bool whole_files;       /* the pieces of a file form one group */
  bool bounded;           /* `wanted` was asked for, by whatever option */
  char *rows;             /* where the next row goes: `room` bytes are left */
  int64_t room;
  bool in_rows;           /* each row of the file is a group */
  lh_wordmap seen;        /* contents of found files */
  lk_error *e;
} reading;

static lk_status no_memory(lk_error *e) {
  return lk_fail(e, LK_OOM, "no memory for a corpus");
}

/* --- text ---------------------------------------------------------------- */
static bool is_utf8(const char *text, int64_t size) {
  const uint8_t *p = (const uint8_t *)text, *end = p + size;
  while (p < end) {
    uint32_t code;
    int length = *p < 0x80 ? 1 : lh_utf8_decode(p, end, &code);
    if (length == 0) return false;
    p += length;
  }
  return true;
}

/* Bytes of the first `chars` characters. */
static int64_t bytes_of_chars(const char *text, int64_t size, int64_t chars) {
  int64_t at = 0;
  for (; at < size; at++) {
    bool starts = ((uint8_t)text[at] & 0xC0) != 0x80;
    if (starts && chars-- == 0) break;
  }
  return at;
}

/* `size`, less the bytes of a character that is cut off at the end. */
static int64_t whole_characters(const char *text, int64_t size) {
  int64_t at = size - 1;
  while (at > 0 && size - at < 4 && ((uint8_t)text[at] & 0xC0) == 0x80) at--;
  uint8_t lead = size > 0 ? (uint8_t)text[at] : 0;
  int64_t needed = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
  return needed > size - at ? at : size;
}

/* Where to cut a text longer than `most`: after the last blank line of its
 * second half, else after the last line, else between characters. */
static int64_t cut_place(const char *text, int64_t most) {
  int64_t line = 0;
  for (int64_t at = most; at > most / 2; at--) {
    if (text[at - 1] != '\n') continue;
    if (line == 0) line = at;
    if (at >= 2 && text[at - 2] == '\n') return at;
  }
  return line ? line : whole_characters(text, most);
}

static bool is_blank(const char *text, int64_t size) {
  for (int64_t i = 0; i < size; i++)
    if (!strchr(" \t\r\n\f\v", text[i]) || text[i] == 0) return false;
  return true;
}

/* --- documents ----------------------------------------------------------- */
static bool is_full(const reading *r) {
  int64_t most = r->options->max_documents;
  return r->wanted <= 0 || (most > 0 && r->corpus->count >= most);
}

static lk_status add_document(reading *r, const char *text, int64_t size) {
  lh_corpus *c = r->corpus;
  if (is_full(r) || is_blank(text, size)) return LK_OK;
  if (r->options->max_chars > 0)
    size = bytes_of_chars(text, size, r->options->max_chars);
  if (size > r->wanted) size = whole_characters(text, r->wanted);
  if (size == 0) return LK_OK;
  if (c->count == c->room) {
    int64_t room = c->room * 2 + 64;
    lh_corpus_document *more =
        realloc(c->documents, (size_t)room * sizeof *more);
    if (more == NULL) return no_memory(r->e);
    c->documents = more;
    c->room = room;
  }
  bool whole = r->whole_files && !r->in_rows;
  c->documents[c->count] =
      (lh_corpus_document){.text = text, .size = size,
                           .group = (r->file << 32) + (whole ? 0 : c->count)};
  c->count++;
  c->bytes += size;
  r->wanted -= size;
  return LK_OK;
}

/* Cut a text without separators into documents. */
static lk_status add_pieces(reading *r, const char *text, int64_t size) {
  while (size > r->piece && !is_full(r)) {
    int64_t cut = cut_place(text, r->piece);
    LK_TRY(add_document(r, text, cut));
    text += cut;
    size -= cut;
  }
  return add_document(r, text, size);
}

/* All documents of one file's text, which is a block of the corpus. */
static lk_status add_text(reading *r, const char *text, int64_t size) {
  const char *end = text + size, *found;
  int64_t length = (int64_t)sizeof separator - 1;
  while ((found = memmem(text, (size_t)(end - text), separator,
                         (size_t)length)) != NULL) {
    LK_TRY(add_pieces(r, text, found - text));
    text = found + length;
  }
  return add_pieces(r, text, end - text);
}

/* Make a malloc'ed text the corpus's; frees it on failure. */
static lk_status add_block(reading *r, char *text) {
  lh_corpus *c = r->corpus;
  if (c->block_count == c->block_room) {
    int64_t room = c->block_room * 2 + 64;
    char **blocks = realloc(c->blocks, (size_t)room * sizeof *blocks);
    if (blocks == NULL) {
      free(text);
      return no_memory(r->e);
    }
    c->blocks = blocks;
    c->block_room = room;
  }
  c->blocks[c->block_count++] = text;
  return LK_OK;
}

/* --- files --------------------------------------------------------------- */
/* Whether a found file is to be passed over; counts why. */
static lk_status is_unwanted(reading *r, const char *text, int64_t size,
                             bool *unwanted) {
  *unwanted = memchr(text, 0, (size_t)size) != NULL || !is_utf8(text, size);
  r->corpus->skipped += *unwanted;
  if (*unwanted) return LK_OK;
  bool added;
  if (!lh_wordmap_insert(&r->seen, text, size,
                         lh_hash64(text, (size_t)size, 0), &added))
    return no_memory(r->e);
  *unwanted = !added;
  r->corpus->duplicates += !added;
  return LK_OK;
}

/* The most bytes of a file that can still be used. */
static int64_t usable(const reading *r) {
  return r->options->max_chars > 0 ? corpus_most : r->wanted;
}

/* Read a plain file's first bytes, `most` of them. */
static lk_status read_plain(reading *r, const char *path, int64_t most,
                            char **text, int64_t *size, bool *cut) {
  int fd;
  LK_TRY(lh_file_open(path, &fd, size, r->e));
  *cut = *size > most;
  if (*cut) *size = most;
  *text = malloc((size_t)*size + 1);
  lk_status status = *text ? lh_file_pread(fd, path, *text, *size, 0, r->e)
                           : no_memory(r->e);
  close(fd);
  return status;
}

/* The same of a packed one; of a found file that shows not to be text, only
 * the beginning. */
static lk_status read_packed(reading *r, const char *path, int64_t most,
                             char **text, int64_t *size, bool *cut) {
  lh_unpack *u;
  int64_t got = PACKED_PIECE;
  *size = 0;
  LK_TRY(lh_unpack_open(path, &u, r->e));
  lk_status status = LK_OK;
  while (status == LK_OK && got == PACKED_PIECE && *size < most) {
    char *more = realloc(*text, (size_t)(*size + PACKED_PIECE) + 1);
    if (more) *text = more;
    status = more ? lh_unpack_read(u, *text + *size, PACKED_PIECE, &got, r->e)
                  : no_memory(r->e);
    if (status != LK_OK) break;
    *size += got;
    if (r->source->mixed && memchr(*text, 0, (size_t)*size)) break;
  }
  *cut = *size > most;
  if (*cut) *size = most;
  lh_unpack_close(u);
  return status;
}

/* Read the part of a file that can still be used. A found file that cannot be
 * read any more is skipped (*text NULL). */
static lk_status read_file(reading *r, const lh_source_file *file,
                           char **text, int64_t *size) {
  bool cut = false;
  *text = NULL;
  bool packed = lh_packing_of(file->path) != LH_PLAIN;
  lk_status status = (packed ? read_packed : read_plain)(
      r, file->path, usable(r), text, size, &cut);
  if (status == LK_OK) {
    (*text)[*size] = 0;
    if (cut) *size = whole_characters(*text, *size);
    return LK_OK;
  }
  free(*text);
  *text = NULL;
  return r->source->mixed && status != LK_OOM ? LK_OK : status;
}

/* Copy a row into the corpus's blocks; each row is a document. */
static lk_status take_row(void *context, const char *text, int64_t size,
                          bool *enough, lk_error *e) {
  reading *r = context;
  if (size == 0) return LK_OK;
  if (size > r->room) {
    int64_t room = size > ROWS_BLOCK ? size : ROWS_BLOCK;
    char *block = malloc((size_t)room);
    if (block == NULL) return no_memory(e);
    LK_TRY(add_block(r, block));
    r->rows = block;
    r->room = room;
  }
  memcpy(r->rows, text, (size_t)size);
  LK_TRY(add_document(r, r->rows, size));
  r->rows += size;
  r->room -= size;
  *enough = is_full(r);
  return LK_OK;
}

/* A file of rows. What is wrong in it is told even if it was only found: its
 * name says what it should be. */
static lk_status read_rows(reading *r, const char *path) {
  const char *field = r->options->field ? r->options->field : "text";
  r->in_rows = true;
  lk_status status = lh_jsonl_read(path, field, take_row, r, r->e);
  r->in_rows = false;
  r->corpus->files++;
  return status;
}

static lk_status read_one(reading *r, int64_t number) {
  const lh_source_file *file = &r->source->files[number];
  r->file = number;
  if (lh_is_jsonl(file->path)) return read_rows(r, file->path);
  char *text;
  int64_t size;
  bool unwanted = false;
  LK_TRY(read_file(r, file, &text, &size));
  if (text == NULL) {
    r->corpus->skipped++;
    return LK_OK;
  }
  LK_TRY(add_block(r, text));
  r->corpus->files++;
  if (r->source->mixed) LK_TRY(is_unwanted(r, text, size, &unwanted));
  else if (memchr(text, 0, (size_t)size))
    return lk_fail(r->e, LK_FORMAT, "'%s' is not text (it holds zero bytes)",
                   file->path);
  if (!unwanted) return add_text(r, text, size);
  free(text);
  r->corpus->block_count--;
  return LK_OK;
}

static int by_place(const void *a, const void *b) {
  const lh_corpus_document *x = a, *y = b;
  if (x->group != y->group) return x->group < y->group ? -1 : 1;
  return (x->text > y->text) - (x->text < y->text); /* of one block */
}

/* Read files from all over until the limits are reached, then put their
 * documents into the order of the files. */
static lk_status read_sample(reading *r) {
  const lh_source *s = r->source;
  int64_t *order = lh_shuffled(s->count, 17);
  lk_status status = order ? LK_OK : no_memory(r->e);
  for (int64_t i = 0; status == LK_OK && i < s->count && !is_full(r); i++) {
    status = lh_signal_check(r->e);
    if (status == LK_OK) status = read_one(r, order[i]);
  }
  free(order);
  if (r->whole_files && r->corpus->count > 0)
    qsort(r->corpus->documents, (size_t)r->corpus->count,
          sizeof *r->corpus->documents, by_place);
  return status;
}

static lk_status read_files(reading *r) {
  const lh_source *s = r->source;
  lk_status status = LK_OK;
  if (s->sampled && (s->bytes > r->wanted || r->options->max_documents > 0))
    return read_sample(r);
  for (int64_t i = 0; status == LK_OK && i < s->count && !is_full(r); i++) {
    status = lh_signal_check(r->e);
    if (status == LK_OK) status = read_one(r, i);
  }
  return status;
}

static lk_status read_text(reading *r) {
  const lh_source *s = r->source;
  char *text = malloc((size_t)s->bytes + 1);
  if (text == NULL) return no_memory(r->e);
  memcpy(text, s->text, (size_t)s->bytes + 1);
  LK_TRY(add_block(r, text));
  if (memchr(text, 0, (size_t)s->bytes))
    return lk_fail(r->e, LK_FORMAT, "'%s' is not text (it holds zero bytes)",
                   s->name);
  return add_text(r, text, s->bytes);
}

/* --- opening ------------------------------------------------------------- */
uint64_t lh_corpus_key(const lh_source *source,
                       const lh_corpus_options *options) {
  uint64_t h = lh_hash_number(RULES, source->key);
  h = lh_hash64(&options->validation, sizeof options->validation, h);
  h = lh_hash_number((int64_t)options->seed, h);
  h = lh_hash_number(options->max_documents, h);
  h = lh_hash_number(options->max_chars, h);
  h = lh_hash_string(options->field ? options->field : "text", h);
  return lh_hash_number(options->max_bytes, h);
}

static lk_status start_reading(reading *r) {
  const lh_source *s = r->source;
  int64_t most = s->sampled ? system_most : corpus_most;
  r->wanted = r->options->max_bytes;
  r->bounded = true;
  if (r->wanted <= 0) {
    if (!s->sampled && r->options->max_documents == 0 && s->bytes > most)
      return lk_fail(r->e, LK_ARGUMENT, "data source '%s' holds %.1f GB; say "
                     "how much of it to use (tokens or max_bytes)", s->name,
                     (double)s->bytes * 1e-9);
    r->wanted = most;
    r->bounded = s->sampled || r->options->max_documents > 0;
  }
  int64_t total = s->bytes < r->wanted ? s->bytes : r->wanted;
  r->piece = total / 200;
  r->whole_files = s->count >= FEW_FILES;
  if (r->whole_files || r->piece > DOCUMENT_MOST) r->piece = DOCUMENT_MOST;
  if (r->piece < DOCUMENT_LEAST) r->piece = DOCUMENT_LEAST;
  /* The first characters of a document are then those of its file. */
  if (r->whole_files && r->options->max_chars > 0) r->piece = INT64_MAX;
  return LK_OK;
}

static lh_corpus *new_corpus(void) {
  lh_corpus *c = calloc(1, sizeof *c);
  if (c) c->references = 1;
  return c;
}

lk_status lh_corpus_read(const lh_source *source,
                         const lh_corpus_options *options, lh_corpus **out,
                         lk_error *e) {
  reading r = {.source = source, .options = options, .corpus = new_corpus(),
               .e = e};
  *out = NULL;
  if (r.corpus == NULL) return no_memory(e);
  lk_status status = start_reading(&r);
  if (status == LK_OK) status = source->text ? read_text(&r) : read_files(&r);
  lh_wordmap_free(&r.seen);
  if (status == LK_OK && r.wanted <= 0 && !r.bounded)
    status = lk_fail(e, LK_ARGUMENT, "data source '%s' holds more than %.1f GB "
                     "when unpacked; say how much of it to use (tokens or "
                     "max_bytes)", source->name, (double)corpus_most * 1e-9);
  if (status == LK_OK && r.corpus->count == 0)
    status = lk_fail(e, LK_ARGUMENT, "data source '%s' holds no text",
                     source->name);
  if (status == LK_OK) status = lh_hold_out(r.corpus, options, e);
  r.corpus->key = lh_corpus_key(source, options);
  if (status == LK_OK) *out = r.corpus;
  else lh_corpus_release(r.corpus);
  return status;
}

lk_status lh_corpus_of(const char *const *texts, const int64_t *sizes,
                       int64_t count, const lh_corpus_options *options,
                       lh_corpus **out, lk_error *e) {
  reading r = {.options = options, .corpus = new_corpus(), .e = e};
  lk_status status = r.corpus ? LK_OK : no_memory(e);
  uint64_t key = 5;
  *out = NULL;
  r.wanted = options->max_bytes > 0 ? options->max_bytes : corpus_most;
  for (int64_t i = 0; status == LK_OK && i < count; i++) {
    char *text = malloc((size_t)sizes[i] + 1);
    if (text == NULL) status = no_memory(e);
    if (status != LK_OK) break;
    memcpy(text, texts[i], (size_t)sizes[i]);
    text[sizes[i]] = 0;
    key = lh_hash64(text, (size_t)sizes[i], key);
    status = add_block(&r, text);
    if (status == LK_OK) status = add_document(&r, text, sizes[i]);
  }
  if (status == LK_OK && r.corpus->count == 0)
    status = lk_fail(e, LK_ARGUMENT, "the texts given hold no text");
  if (status == LK_OK) status = lh_hold_out(r.corpus, options, e);
  if (status == LK_OK) {
    r.corpus->key = lh_corpus_key(&(lh_source){.key = key}, options);
    *out = r.corpus;
  } else {
    lh_corpus_release(r.corpus);
  }
  return status;
}

lh_corpus *lh_corpus_retain(lh_corpus *corpus) {
  __atomic_add_fetch(&corpus->references, 1, __ATOMIC_RELAXED);
  return corpus;
}

void lh_corpus_release(lh_corpus *corpus) {
  if (corpus == NULL) return;
  if (__atomic_sub_fetch(&corpus->references, 1, __ATOMIC_ACQ_REL) > 0) return;
  for (int64_t i = 0; i < corpus->block_count; i++) free(corpus->blocks[i]);
  free(corpus->blocks);
  free(corpus->documents);
  free(corpus);
}
