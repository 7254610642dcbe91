/* The store: a model's parameters and every buffer that outlives a step. */
#include "store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *lk_parameter_kind_word(lk_parameter_kind kind) {
  static const char *const words[] = {"linear", "embedding", "head", "norm",
                                      "bias", "custom"};
  return (unsigned)kind < LK_KIND_COUNT ? words[kind] : "?";
}

const char *lk_part_word(lk_part part) {
  static const char *const words[] = {"master", "copy", "codes", "scales",
                                      "residual", "moment1", "moment2",
                                      "mscale"};
  return (unsigned)part < LK_PART_COUNT ? words[part] : "?";
}

void lk_clip_text(char *text, size_t size, const char *a, const char *b) {
  size_t na = strlen(a), nb = strlen(b);
  if (na > size - 1) na = size - 1;
  if (nb > size - 1 - na) nb = size - 1 - na;
  memcpy(text, a, na);
  memcpy(text + na, b, nb);
  text[na + nb] = 0;
}

void lk_store_free(lk_store *s) {
  free(s->parameters);
  free(s->buffers);
  memset(s, 0, sizeof *s);
}

lk_status lk_store_check(const lk_store *s, lk_error *error) {
  if (!s->starved) return LK_OK;
  return lk_fail(error, LK_OOM, "no host memory for the entry of a weight");
}

/* Room for entry `count` (entry 0 stays unused). */
static bool grow(void **array, int *count, int *room, size_t size) {
  if (*count == 0) *count = 1;
  if (*count < *room) return true;
  int wanted = *room ? 2 * *room : 64;
  void *bigger = realloc(*array, (size_t)wanted * size);
  if (bigger == NULL) return false;
  *array = bigger;
  *room = wanted;
  return true;
}

int lk_store_add_parameter(lk_store *s, const lk_parameter *p) {
  if (!grow((void **)&s->parameters, &s->parameter_count, &s->parameter_room,
            sizeof *s->parameters)) {
    s->starved = true;
    return 0;
  }
  int index = s->parameter_count++;
  s->parameters[index] = *p;
  s->parameters[index].index = index;
  return index;
}

int lk_store_parameter_count(const lk_store *s) {
  return s->parameter_count ? s->parameter_count - 1 : 0;
}

lk_parameter *lk_store_parameter(const lk_store *s, int index) {
  return &s->parameters[index];
}

lk_parameter *lk_store_find(const lk_store *s, const char *name) {
  for (int i = 1; i < s->parameter_count; i++)
    if (strcmp(s->parameters[i].name, name) == 0) return &s->parameters[i];
  return NULL;
}

int lk_store_find_buffer(const lk_store *s, const char *name) {
  for (int i = 1; i < s->buffer_count; i++)
    if (strcmp(s->buffers[i].name, name) == 0) return i;
  return 0;
}

int lk_store_add_buffer(lk_store *s, const char *name, lk_dtype dtype,
                        lk_shape shape, lk_category category) {
  int known = lk_store_find_buffer(s, name);
  if (known) return known;
  if (!grow((void **)&s->buffers, &s->buffer_count, &s->buffer_room,
            sizeof *s->buffers)) {
    s->starved = true;
    return 0;
  }
  lk_buffer *b = &s->buffers[s->buffer_count];
  *b = (lk_buffer){.dtype = dtype, .shape = shape, .category = category};
  lk_clip_text(b->name, sizeof b->name, name, "");
  return s->buffer_count++;
}

void lk_store_add_part(lk_store *s, lk_parameter *p, lk_part part,
                       lk_dtype dtype, lk_shape shape, lk_category category) {
  char name[sizeof((lk_buffer *)0)->name];
  snprintf(name, sizeof name, "%s.%s", p->name, lk_part_word(part));
  int buffer = lk_store_add_buffer(s, name, dtype, shape, category);
  p->part[part] = buffer;
  if (buffer == 0) return;
  s->buffers[buffer].parameter = p->index;
  s->buffers[buffer].part = part;
}

lk_value lk_value_of_buffer(lk_graph *g, int buffer) {
  if (buffer == 0)
    return lk_graph_fail(g, LK_OOM, "no host memory for a buffer's entry");
  for (lk_value v = 1; v < g->value_count; v++)
    if (g->values[v].buffer == buffer && g->values[v].base == LK_NONE) return v;
  const lk_buffer *b = &g->store->buffers[buffer];
  lk_value v = lk_value_new(g, b->dtype, b->shape, b->category, b->name);
  if (v != LK_NONE) g->values[v].buffer = buffer;
  return v;
}
