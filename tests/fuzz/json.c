/* JSON texts. What is accepted has a tree whose parts lie inside it. */
#include "../../host/sys/json.h"

#include "fuzz.h"

static void walk(const lh_json *json, int64_t at, int depth) {
  if (depth > LH_JSON_DEPTH_MOST) fuzz_broken("depth is bounded");
  const lh_json_node *n = &json->node[at];
  if (n->type == LH_JSON_STRING && n->string[n->size] != 0)
    fuzz_broken("strings end with NUL");
  if (n->type < LH_JSON_ARRAY) return;
  int32_t seen = 0;
  for (int64_t i = n->first; i; i = json->node[i].next, seen++) {
    if (i <= at || i > json->count) fuzz_broken("members come after");
    walk(json, i, depth + 1);
  }
  if (seen != n->size) fuzz_broken("members are counted");
}

int fuzz_json(const uint8_t *data, size_t size) {
  lh_json json;
  lk_error e;
  if (lh_json_parse((const char *)data, (int64_t)size, "fuzz", &json, &e) ==
      LK_OK)
    walk(&json, 1, 0);
  lh_json_free(&json);
  return 0;
}
