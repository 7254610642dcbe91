/* A small strict JSON reader: text into a tree of nodes. RFC 8259 and nothing
 * beside it: no NaN, no 0x10, no trailing commas, valid UTF-8 only, no lone
 * surrogates, bounded depth. Made for vocabularies and tensor headers; equal
 * names in one object are the caller's to refuse. */
#ifndef LH_SYS_JSON_H
#define LH_SYS_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "../../kernels/base/status.h"

enum { LH_JSON_DEPTH_MOST = 64 };

typedef enum lh_json_type {
  LH_JSON_NULL, LH_JSON_FALSE, LH_JSON_TRUE, LH_JSON_NUMBER, LH_JSON_STRING,
  LH_JSON_ARRAY, LH_JSON_OBJECT
} lh_json_type;

typedef struct lh_json_node {
  lh_json_type type;
  int32_t size;           /* bytes of the string; members of the rest */
  const char *key;        /* in an object; NUL-ended, key_size bytes */
  int32_t key_size;
  const char *string;     /* NUL-ended; may hold NUL bytes, too */
  double number;
  int64_t next, first;    /* node numbers; 0: none */
} lh_json_node;

typedef struct lh_json {
  lh_json_node *node;     /* node[1] is the whole value */
  int64_t count, room;
  char *strings;          /* every string, decoded */
} lh_json;

/* Parse `size` bytes (at most 2^30). FORMAT: "<name>:<line>: what is wrong";
 * OOM. lh_json_free in every case. */
lk_status lh_json_parse(const char *text, int64_t size, const char *name,
                        lh_json *json, lk_error *e);
void lh_json_free(lh_json *json);

/* Number of the first member of an object that has this key, or 0. */
int64_t lh_json_member(const lh_json *json, int64_t object, const char *key);
/* Whether a node is a string equal to `text`. */
bool lh_json_is(const lh_json *json, int64_t node, const char *text);
/* The node as an integer in [least, most]; false when it is not one. */
bool lh_json_integer(const lh_json *json, int64_t node, int64_t least,
                     int64_t most, int64_t *value);

#endif
