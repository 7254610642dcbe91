/* What every binding file uses: error objects, option tables, argument
 * checkers, classes, and function lists that carry their documentation. */
#ifndef LH_BIND_H
#define LH_BIND_H

#include <lua.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../kernels/base/status.h"

/* --- errors ----------------------------------------------------------------
 * Programmer errors raise an error object: a table with `code` (the status
 * word), `message` and `where` ("script.lua:12"), whose __tostring gives
 * "script.lua:12: message". The position is that of the innermost Lua function
 * which is not part of the library (chunk names below lua/ and [C] are passed
 * over), so that the user's own line is named. World errors (files, system
 * calls) return nil, message, code instead. */
int lh_raise(lua_State *L, lk_status code, const char *format, ...)
    __attribute__((noreturn, format(printf, 3, 4)));
/* Raise what `error` says. */
int lh_raise_error(lua_State *L, const lk_error *error)
    __attribute__((noreturn));
/* Push nil, message, code; returns 3, so `return lh_world_error(L, &e)`. */
int lh_world_error(lua_State *L, const lk_error *error);
/* Raise unless `status` is LK_OK. */
void lh_check(lua_State *L, lk_status status, const lk_error *error);
/* Raise an error object with any code word and message. */
int lh_raise_text(lua_State *L, const char *code, const char *message)
    __attribute__((noreturn));
/* Registry field: the folder that holds lua/ and experiments/ (no slash at its
 * end). Chunks below its lua/ and plots/ are the library's; unset, none is. */
#define LH_ROOT_FIELD "llmhost.root"

/* --- option tables ------------------------------------------------------- */
typedef enum lh_type {
  LH_INTEGER,  /* int64_t  */
  LH_NUMBER,   /* double   */
  LH_BOOLEAN,  /* bool     */
  LH_STRING,   /* const char *, valid while the table is on the stack */
  LH_WORD,     /* int: the position in `words`, a NULL-ended list */
  LH_ANY       /* int: absolute index of the value pushed on the stack, or 0;
                  the caller checks it (tables, functions, userdata) */
} lh_type;

typedef struct lh_option {
  const char *name;         /* NULL ends a list */
  lh_type type;
  size_t offset;            /* into the struct that is filled */
  double least, most;       /* numbers: inclusive range, ignored if equal */
  const char *const *words; /* LH_WORD */
  const char *doc;          /* one line, with unit and default */
} lh_option;

/* Fill `out` (already holding the defaults) from the options table at `index`.
 * Positional values [1], [2], … go to the first `positional` options of the
 * list; positional < 0 leaves them to the caller. An absent table (none or
 * nil) leaves the defaults. Raises, naming `who` (e.g. "nn.linear"): an unknown
 * key with the nearest known one, a wrong type, a value out of range with the
 * range. */
void lh_options(lua_State *L, int index, const char *who,
                const lh_option *options, int positional, void *out);

/* The nearest of `words` (NULL-ended) to `word` by edit distance; NULL when
 * none is near enough to be meant. */
const char *lh_nearest(const char *word, const char *const *words);

/* --- functions with documentation ---------------------------------------- */
typedef struct lh_function {
  const char *name;        /* NULL ends a list */
  lua_CFunction function;
  const char *signature;   /* LuaLS style: "(path: string): string|nil" */
  const char *doc;         /* one or two sentences */
  const lh_option *options;/* of its options table, or NULL */
} lh_function;

/* Set every function of the list in the table on top of the stack, and record
 * the list under `module` ("host.file") for help() and the generated stubs:
 * registry field "llmhost.docs"[module] = array of {name, signature, doc,
 * options = {{name, type, doc}…}}. */
void lh_register(lua_State *L, const char *module, const lh_function *list);
/* Only the second half: record the documentation. An entry whose signature is
 * no "(…)" is a field of that type, and has no function. */
void lh_document(lua_State *L, const char *module, const lh_function *list);

/* --- classes ---------------------------------------------------------------
 * Userdata is pushed closed (zeroed) and only then opened, so that a raise in
 * between leaks nothing; __gc, __close and :close() all call the class's close
 * function, which must accept a closed object. */
typedef struct lh_class {
  const char *name;                 /* "gpu.tensor": metatable and messages */
  const lh_function *methods;       /* and metamethods (names with "__") */
  void (*close)(void *object);      /* release; called at most once */
} lh_class;

/* Create the class's metatable (once per state), and record the methods under
 * the class's name. An `__index` in the list finds the table of methods in its
 * upvalue 1; without one that table is the __index. */
void lh_class_new(lua_State *L, const lh_class *class_);
/* Add more methods and metamethods to a class that exists. */
void lh_class_add(lua_State *L, const lh_class *class_,
                  const lh_function *list);
/* Push a zeroed object of `size` bytes with the class's metatable and one user
 * value (lua_setiuservalue) for a Lua value it must keep alive. */
void *lh_object_new(lua_State *L, const lh_class *class_, size_t size);
/* The object at `index`, or raise "expected gpu.tensor, got …"; raises on a
 * closed object, too. */
void *lh_object_check(lua_State *L, int index, const lh_class *class_);
/* The object at `index`, or NULL when it is something else or closed. */
void *lh_object_test(lua_State *L, int index, const lh_class *class_);
/* Push a box: *box is free()d when it is collected, so that memory is not lost
 * when a push to Lua raises. Free it earlier by hand and set *box to NULL. */
void **lh_box_new(lua_State *L);

/* The integer at `index`; raises "<what> must be from 1 to 8, got 9". */
int64_t lh_check_integer(lua_State *L, int index, const char *what,
                         int64_t least, int64_t most);

/* The path at `index`: a string that is not empty and holds no zero byte, or
 * raise. */
const char *lh_check_path(lua_State *L, int index);

/* The value at `index` as an error message shows it: strings quoted and cut,
 * numbers and booleans as they are, everything else by its type's name. Pushes
 * the text, valid while it is on the stack. */
const char *lh_show(lua_State *L, int index);

/* Parse "24GB", "1.5GiB", "512MB", "1000" (bytes); false if malformed. */
int lh_parse_size(const char *text, int64_t *bytes);

#endif
