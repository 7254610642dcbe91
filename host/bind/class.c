/* Classes: userdata that is pushed closed, opened later, and closed once,
 * by :close(), <close>, or the collector. */
#include "bind.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What stands before every object. 16 bytes, so that the object keeps the
 * alignment Lua gives. */
typedef struct header {
  bool closed;
  char padding[15];
} header;

/* The header at `index` if it is of the class, closed or not; else NULL. */
static header *test_header(lua_State *L, int index, const lh_class *class_) {
  return luaL_testudata(L, index, class_->name);
}

void *lh_object_new(lua_State *L, const lh_class *class_, size_t size) {
  header *h = lua_newuserdatauv(L, sizeof *h + size, 1);
  memset(h, 0, sizeof *h + size);
  luaL_setmetatable(L, class_->name);
  return h + 1;
}

void *lh_object_test(lua_State *L, int index, const lh_class *class_) {
  header *h = test_header(L, index, class_);
  return h && !h->closed ? h + 1 : NULL;
}

void *lh_object_check(lua_State *L, int index, const lh_class *class_) {
  header *h = test_header(L, index, class_);
  if (h == NULL) {
    lh_raise(L, LK_ARGUMENT, "expected %s, got %s", class_->name,
             lh_show(L, index));
  }
  if (h->closed) {
    lh_raise(L, LK_ARGUMENT, "this %s is closed", class_->name);
  }
  return h + 1;
}

/* :close(), __close and __gc. The class is upvalue 1. */
static int close_object(lua_State *L) {
  const lh_class *class_ = lua_touserdata(L, lua_upvalueindex(1));
  header *h = test_header(L, 1, class_);
  if (h == NULL) {
    lh_raise(L, LK_ARGUMENT, "expected %s, got %s", class_->name,
             lh_show(L, 1));
  }
  if (h->closed) return 0;
  h->closed = true;
  if (class_->close) class_->close(h + 1);
  return 0;
}

static int object_tostring(lua_State *L) {
  const lh_class *class_ = lua_touserdata(L, lua_upvalueindex(1));
  header *h = test_header(L, 1, class_);
  lua_pushfstring(L, h && h->closed ? "%s (closed)" : "%s: %p",
                  class_->name, (void *)h);
  return 1;
}

/* Set field `name` of the table below the top's `count` to a closure that
 * knows the class. */
static void set_closure(lua_State *L, const lh_class *class_,
                        lua_CFunction function, const char *name) {
  lua_pushlightuserdata(L, (void *)class_);
  lua_pushcclosure(L, function, 1);
  lua_setfield(L, -2, name);
}

/* Metamethods go to the metatable (below the top), methods to the table on
 * top; __index gets that table as its upvalue. */
static void set_method(lua_State *L, const lh_function *f) {
  bool meta = strncmp(f->name, "__", 2) == 0;
  if (strcmp(f->name, "__index") == 0) {
    lua_pushvalue(L, -1);
    lua_pushcclosure(L, f->function, 1);
  } else {
    lua_pushcfunction(L, f->function);
  }
  lua_setfield(L, meta ? -3 : -2, f->name);
}

/* Document the methods, and the close() that every class has. */
static void document(lua_State *L, const lh_class *class_) {
  static const lh_function own[] = {
      {"close", NULL, "(self)", "Free what it holds now rather than when it is "
       "collected.", NULL},
      {NULL, NULL, NULL, NULL, NULL}};
  bool told = false;
  for (const lh_function *f = class_->methods; f->name; f++) {
    told = told || strcmp(f->name, "close") == 0;
  }
  lh_document(L, class_->name, class_->methods);
  if (!told) lh_document(L, class_->name, own);
}

void lh_class_new(lua_State *L, const lh_class *class_) {
  luaL_checkstack(L, 12, NULL);
  if (!luaL_newmetatable(L, class_->name)) {
    lua_pop(L, 1);
    return;
  }
  set_closure(L, class_, object_tostring, "__tostring");
  lua_newtable(L);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "__index");
  for (const lh_function *f = class_->methods; f && f->name; f++) {
    set_method(L, f);
  }
  set_closure(L, class_, close_object, "close");
  lua_pop(L, 1);
  set_closure(L, class_, close_object, "__gc");
  set_closure(L, class_, close_object, "__close");
  /* Hands off: a script that took __gc could call it on anything. */
  lua_pushstring(L, class_->name);
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
  if (class_->methods) document(L, class_);
}

void lh_class_add(lua_State *L, const lh_class *class_,
                  const lh_function *list) {
  luaL_getmetatable(L, class_->name);
  lua_getfield(L, -1, "__index");
  if (lua_iscfunction(L, -1)) lua_getupvalue(L, -1, 1);
  else lua_pushvalue(L, -1);
  lua_remove(L, -2);
  for (const lh_function *f = list; f->name; f++) set_method(L, f);
  lua_pop(L, 2);
  lh_document(L, class_->name, list);
}

/* --- boxes --------------------------------------------------------------- */

static int free_box(lua_State *L) {
  void **box = lua_touserdata(L, 1);
  free(*box);
  *box = NULL;
  return 0;
}

void **lh_box_new(lua_State *L) {
  void **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  if (luaL_newmetatable(L, "llmhost.box")) {
    lua_pushcfunction(L, free_box);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return box;
}
