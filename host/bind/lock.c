/* host.lock(path, seconds): a lock file, closed by :close(), <close> or the
 * collector. */
#include "../sys/lock.h"

#include "bind.h"
#include "modules.h"

static void close_lock(void *object) {
  lh_lock *lock = object;
  if (lock->fd > 0) lh_lock_release(lock); /* 0: never opened */
}

static const lh_class lock_class = {
    .name = "host.lock", .methods = NULL, .close = close_lock};

/* nil, message, "busy", pid, start */
static int push_busy(lua_State *L, const lh_holder *holder,
                     const lk_error *error) {
  lua_pushnil(L);
  lua_pushstring(L, error->message);
  lua_pushstring(L, "busy");
  if (holder->pid == 0) return 3;
  lua_pushinteger(L, holder->pid);
  lua_pushinteger(L, holder->start);
  return 5;
}

static int take_lock(lua_State *L) {
  const char *path = lh_check_path(L, 1);
  double seconds = luaL_optnumber(L, 2, 0);
  lk_error error;
  bool busy;
  lh_holder holder;
  lh_lock *lock = lh_object_new(L, &lock_class, sizeof *lock);
  lk_status status = lh_lock_take(lock, path, seconds, &busy, &holder, &error);
  if (status == LK_OK) return 1;
  return busy ? push_busy(L, &holder, &error) : lh_world_error(L, &error);
}

static const lh_function functions[] = {
    {"lock", take_lock,
     "(path: string, seconds?: number): userdata|nil, string?, string?, "
     "integer?, integer?",
     "Take a lock file, waiting at most so long. If another holds it: nil, "
     "message, \"busy\", its pid and start time.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL}};

int lh_open_lock(lua_State *L) {
  lh_class_new(L, &lock_class);
  lh_document(L, "host", functions);
  lua_pushcfunction(L, take_lock);
  return 1;
}
