/* Parsing, checking and explaining the command line. */
#include "arguments.h"

#include <lauxlib.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bind/bind.h"

typedef struct option {
  const char *name;
  const char *value;                /* what its value is called; NULL: a flag */
  size_t offset;                    /* of its const char * or bool */
  bool (*check)(const char *value); /* NULL: anything */
  const char *help;                 /* NULL: not for people */
} option;

/* --- the options --- */

static bool is_one_of(const char *value, const char *const *words) {
  for (; *words; words++) {
    if (strcmp(value, *words) == 0) return true;
  }
  return false;
}

/* One device name of `length` characters: cpu, cuda, cuda:N. */
static bool is_device_name(const char *text, size_t length) {
  if (length == 3 && strncmp(text, "cpu", 3) == 0) return true;
  if (length < 4 || strncmp(text, "cuda", 4) != 0) return false;
  if (length == 4) return true;
  size_t digits = strspn(text + 5, "0123456789");
  return text[4] == ':' && digits > 0 && digits < 4 && length == 5 + digits;
}

static bool is_device(const char *value) {
  return strcmp(value, "auto") == 0 || is_device_name(value, strlen(value));
}

/* Whether the next `length` characters of a list are a number that stands for
 * one more GPU, as in cuda:0,1: `before` is the name before it. */
static bool is_next_number(const char *text, size_t length,
                           const char *before) {
  return length > 0 && length < 4 && strspn(text, "0123456789") >= length &&
         before != NULL && strncmp(before, "cuda:", 5) == 0;
}

/* cuda:0,cuda:1 or, shorter, cuda:0,1. */
static bool is_device_list(const char *value) {
  const char *before = NULL;
  for (;;) {
    size_t n = strcspn(value, ",");
    if (is_device_name(value, n)) {
      before = value;
    } else if (!is_next_number(value, n, before)) {
      return false;
    }
    if (value[n] == '\0') return true;
    value += n + 1;
  }
}

static bool is_memory(const char *value) {
  int64_t bytes;
  return strcmp(value, "device") == 0 ||
         (lh_parse_size(value, &bytes) && bytes > 0);
}

static bool is_color(const char *value) {
  static const char *const words[] = {"auto", "always", "never", NULL};
  return is_one_of(value, words);
}

#define FIELD(name) offsetof(lh_arguments, name)
static const option options[] = {
    {"--device", "auto|cpu|cuda[:N]", FIELD(device), is_device,
     "where to compute"},
    {"--devices", "cuda:0,1", FIELD(devices), is_device_list,
     "where experiments may run side by side"},
    {"--memory", "24GB|device", FIELD(memory), is_memory,
     "budget of device memory"},
    {"--color", "auto|always|never", FIELD(color), is_color,
     "colours on the terminal"},
    {"--json", NULL, FIELD(json), NULL, "print results as JSON"},
    {"--force", NULL, FIELD(force), NULL, "go on after a failed check"},
    {"--fresh", NULL, FIELD(fresh), NULL, "start over instead of continuing"},
    {"--experiment", "NAME", FIELD(experiment), NULL, NULL},
    {"--version", NULL, FIELD(version), NULL, NULL},
    {"-v", NULL, FIELD(version), NULL, "print versions and backends"},
    {"-i", NULL, FIELD(interactive), NULL, "prompt, after the script if any"},
    {"--help", NULL, FIELD(help), NULL, "this text"},
    {"-h", NULL, FIELD(help), NULL, NULL},
    {"-e", "code", SIZE_MAX, NULL, "run the code"},
    {"-l", "module", SIZE_MAX, NULL, "require the module"},
};
enum { OPTIONS = sizeof options / sizeof *options };

/* --- parsing --- */

static bool complain(const char *format, const char *a, const char *b) {
  fputs("llmhost: ", stderr);
  fprintf(stderr, format, a, b);
  fputs("\nllmhost: 'llmhost --help' lists the options\n", stderr);
  return false;
}

static bool is_short(const option *o) { return o->name[1] != '-'; }

/* The option a word names, and the value that hangs on it (--name=value,
 * -evalue), NULL if none does. */
static const option *find_option(const char *word, const char **value) {
  *value = NULL;
  for (int i = 0; i < OPTIONS; i++) {
    size_t n = strlen(options[i].name);
    if (strncmp(word, options[i].name, n) != 0) continue;
    if (word[n] == '\0') return &options[i];
    if (!is_short(&options[i]) && word[n] == '=') {
      *value = word + n + 1;
      return &options[i];
    }
    if (is_short(&options[i]) && options[i].value) {
      *value = word + n;
      return &options[i];
    }
  }
  return NULL;
}

static bool complain_unknown(const char *word) {
  const char *names[OPTIONS + 1] = {NULL};
  int n = 0;
  for (int i = 0; i < OPTIONS; i++) {
    if (options[i].help) names[n++] = options[i].name;
  }
  const char *near_name = lh_nearest(word, names);
  return near_name ? complain("unknown option '%s'; did you mean '%s'?", word,
                              near_name)
                   : complain("unknown option '%s'%s", word, "");
}

static bool set_option(lh_arguments *a, const option *o, const char *value) {
  if (o->offset == SIZE_MAX) return true; /* an action, run later */
  void *field = (char *)a + o->offset;
  if (o->value == NULL) {
    *(bool *)field = true;
  } else if (o->check && !o->check(value)) {
    fprintf(stderr, "llmhost: option '%s' must be %s, got '%s'\n", o->name,
            o->value, value);
    return false;
  } else {
    *(const char **)field = value;
  }
  return true;
}

/* Take the option at argv[*at], whose hanging value is `value`; moves *at to
 * its last word. */
static bool take_option(lh_arguments *a, const option *o, const char *value,
                        int *at) {
  a->taken[*at] = true;
  if (o->value == NULL && value) {
    return complain("option '%s' takes no value%s", o->name, "");
  }
  if (o->value && value == NULL) {
    if (*at + 1 >= a->argc) {
      return complain("option '%s' needs a value: %s", o->name, o->value);
    }
    value = a->argv[++*at];
    a->taken[*at] = true;
  }
  return set_option(a, o, value);
}

/* Everything after the script that is the host's. */
static bool parse_rest(lh_arguments *a) {
  for (int i = a->script + 1; i < a->argc; i++) {
    const char *value, *word = a->argv[i];
    if (strcmp(word, "--") == 0) {
      a->taken[i] = true;
      return true;
    }
    const option *o = word[0] == '-' ? find_option(word, &value) : NULL;
    if (o == NULL || is_short(o) || o->help == NULL) continue;
    if (o->offset == FIELD(help)) { /* it asks for the script's help */
      a->taken[i] = a->script_help = true;
      continue;
    }
    if (!take_option(a, o, value, &i)) return false;
  }
  return true;
}

bool lh_arguments_parse(lh_arguments *a, int argc, char **argv) {
  memset(a, 0, sizeof *a);
  a->argc = argc;
  a->argv = argv;
  a->taken = calloc((size_t)argc + 1, sizeof *a->taken);
  if (a->taken == NULL) return complain("out of memory%s%s", "", "");
  for (int i = 1; i < argc; i++) {
    const char *value, *word = argv[i];
    if (word[0] != '-' || word[1] == '\0') {
      a->script = i;
      return parse_rest(a);
    }
    if (strcmp(word, "--") == 0) {
      a->taken[i] = true;
      a->script = i + 1 < argc ? i + 1 : 0;
      return true;
    }
    const option *o = find_option(word, &value);
    if (o == NULL) return complain_unknown(word);
    if (!take_option(a, o, value, &i)) return false;
  }
  return true;
}

void lh_arguments_free(lh_arguments *a) {
  free(a->taken);
  a->taken = NULL;
}

bool lh_arguments_action(const lh_arguments *a, int *at, char *kind,
                         const char **text) {
  int end = a->script ? a->script : a->argc;
  while (*at < end) {
    const option *o = find_option(a->argv[*at], text);
    if (o == NULL) return false;
    bool separate = o->value && *text == NULL;
    if (separate) *text = a->argv[*at + 1];
    *at += 1 + separate;
    *kind = o->name[1];
    if (o->offset == SIZE_MAX) return true;
  }
  return false;
}

/* --- for Lua --- */

static void set_field(lua_State *L, const char *name, const char *value) {
  if (value == NULL) return;
  lua_pushstring(L, value);
  lua_setfield(L, -2, name);
}

static void set_flag(lua_State *L, const char *name, bool value) {
  lua_pushboolean(L, value);
  lua_setfield(L, -2, name);
}

/* "cuda:0,cuda:1" and "cuda:0,1" to {"cuda:0", "cuda:1"} */
static void set_devices(lua_State *L, const char *list) {
  if (list == NULL) return;
  lua_newtable(L);
  for (int i = 1;; i++) {
    size_t n = strcspn(list, ",");
    lua_pushstring(L, strspn(list, "0123456789") ? "cuda:" : "");
    lua_pushlstring(L, list, n);
    lua_concat(L, 2);
    lua_rawseti(L, -2, i);
    if (list[n] == '\0') break;
    list += n + 1;
  }
  lua_setfield(L, -2, "devices");
}

/* The words after the script that are not the host's. */
static void set_words(lua_State *L, const lh_arguments *a) {
  lua_newtable(L);
  int n = 0;
  for (int i = a->script + 1; a->script && i < a->argc; i++) {
    if (a->taken[i]) continue;
    lua_pushstring(L, a->argv[i]);
    lua_rawseti(L, -2, ++n);
  }
  lua_setfield(L, -2, "args");
}

void lh_arguments_push(lua_State *L, const lh_arguments *a) {
  set_field(L, "device", a->device ? a->device : "auto");
  set_field(L, "color", a->color ? a->color : "auto");
  set_field(L, "memory", a->memory);
  set_field(L, "experiment", a->experiment);
  set_devices(L, a->devices);
  set_flag(L, "json", a->json);
  set_flag(L, "force", a->force);
  set_flag(L, "fresh", a->fresh);
  set_flag(L, "help", a->script_help);
  set_words(L, a);
}

void lh_arguments_document(lua_State *L) {
  int n = 0;
  lua_newtable(L);
  for (int i = 0; i < OPTIONS; i++) {
    if (options[i].help == NULL) continue;
    lua_newtable(L);
    set_field(L, "name", options[i].name);
    set_field(L, "value", options[i].value);
    set_field(L, "doc", options[i].help);
    lua_rawseti(L, -2, ++n);
  }
  lua_setfield(L, LUA_REGISTRYINDEX, LH_ARGUMENTS_FIELD);
}

void lh_arguments_set_arg(lua_State *L, const lh_arguments *a) {
  lua_createtable(L, a->argc, 1);
  for (int i = 0; i < a->argc; i++) {
    lua_pushstring(L, a->argv[i]);
    lua_rawseti(L, -2, i - a->script);
  }
  lua_setglobal(L, "arg");
}

void lh_arguments_help(void) {
  printf(
      "usage: llmhost [options] script.lua [key=value | args …]\n"
      "       llmhost -i [script.lua …]\n"
      "options, before or after the script:\n");
  for (int i = 0; i < OPTIONS; i++) {
    const option *o = &options[i];
    char left[64];
    if (o->help == NULL) continue;
    snprintf(left, sizeof left, "%s %s", o->name, o->value ? o->value : "");
    printf("  %-30s %s\n", left, o->help);
  }
  printf("  %-30s run standard input\n", "-");
  printf("  %-30s what that script takes\n", "script.lua --help");
  printf(
      "exit: 0 fine, 1 failed, 2 usage, 3 nothing fitted in memory,\n"
      "      130 interrupted (state saved)\n");
}
