/* The classes of host.text, for the binding files that take their objects. */
#ifndef LH_BIND_TEXT_H
#define LH_BIND_TEXT_H

#include <lua.h>

#include "../text/corpus.h"
#include "../text/loader.h"
#include "../text/tokenizer.h"
#include "../text/tokens.h"

/* The object behind the argument at `index`, or raise. Borrowed: alive as long
 * as the Lua object is, and not closed. */
lh_tokenizer *lh_tokenizer_check(lua_State *L, int index);
lh_corpus *lh_corpus_check(lua_State *L, int index);
lh_tokens *lh_tokens_check(lua_State *L, int index);
lh_loader *lh_loader_check(lua_State *L, int index);

/* Push an object that takes over the caller's reference, found in *slot; *slot
 * is NULL afterwards. The slot must lie where a raise cannot lose it (in a
 * Lua object), since pushing may raise. */
void lh_tokenizer_push(lua_State *L, lh_tokenizer **slot);
void lh_tokens_push(lua_State *L, lh_tokens **slot);

/* For a failed call: raise LK_ARGUMENT, since the caller's values are wrong;
 * give nil, message, code for everything else. */
int lh_text_failed(lua_State *L, const lk_error *error);

/* Threads to use where an option says 0. */
int lh_text_threads(int64_t wanted);

/* Create the classes and set the functions of text_data.c in the table on top
 * of the stack; part of lh_open_text. */
void lh_open_text_data(lua_State *L);

#endif
