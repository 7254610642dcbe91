/* host.fetch: one HTTP(S) GET, gone on with step by step, so that scripts show
 * progress and stop between the steps. */
#include "../sys/fetch.h"

#include "../version.h"
#include "bind.h"
#include "modules.h"

enum { STEP_MOST = 60 }; /* seconds */

typedef struct fetch_object {
  lh_fetch *fetch;
} fetch_object;

static void close_fetch(void *object) {
  lh_fetch_close(((fetch_object *)object)->fetch);
}

static const lh_function methods[];
static const lh_class fetch_class = {"host.fetch", methods, close_fetch};

static lh_fetch *check_fetch(lua_State *L) {
  return ((fetch_object *)lh_object_check(L, 1, &fetch_class))->fetch;
}

#define AT(name) offsetof(lh_fetch_request, name)
static const lh_option option_list[] = {
    {"url", LH_STRING, AT(url), 0, 0, NULL, "http:// or https:// address"},
    {"token", LH_STRING, AT(token), 0, 0, NULL,
     "bearer token, for the address's own origin alone"},
    {"path", LH_STRING, AT(path), 0, 0, NULL,
     "file for the body; otherwise it is kept in memory"},
    {"offset", LH_INTEGER, AT(offset), 0, 9e15, NULL,
     "bytes that the file holds already (0)"},
    {"etag", LH_STRING, AT(etag), 0, 0, NULL,
     "the ETag of what they are of; without it the file starts over"},
    {"authorities", LH_STRING, AT(authorities), 0, 0, NULL,
     "file of certificates to trust; otherwise the system's"},
    {"most", LH_INTEGER, AT(most), 1, 1e9, NULL,
     "bytes of a body in memory (64 MiB)"},
    {"connect", LH_NUMBER, AT(connect), 0.001, 3600, NULL,
     "seconds to wait for a connection (20)"},
    {"idle", LH_NUMBER, AT(idle), 0.001, 3600, NULL,
     "seconds to wait for a byte (60)"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};
#undef AT

static int start_fetch(lua_State *L) {
  lh_fetch_request r = {.agent = "llmhost/" LH_VERSION, .most = 64 << 20,
                        .connect = 20, .idle = 60};
  lk_error e;
  lh_options(L, 1, "host.fetch", option_list, 1, &r);
  if (r.url == NULL) lh_raise(L, LK_ARGUMENT, "host.fetch: give a url");
  fetch_object *o = lh_object_new(L, &fetch_class, sizeof *o);
  lk_status status = lh_fetch_open(&r, &o->fetch, &e);
  if (status == LK_ARGUMENT) lh_raise_error(L, &e);
  return status == LK_OK ? 1 : lh_world_error(L, &e);
}

static int fetch_wait(lua_State *L) {
  lh_fetch *f = check_fetch(L);
  double seconds = luaL_checknumber(L, 2);
  bool done;
  lk_error e;
  if (!(seconds >= 0 && seconds <= STEP_MOST))
    lh_raise(L, LK_ARGUMENT, "seconds must be from 0 to %d", STEP_MOST);
  if (lh_fetch_wait(f, seconds, &done, &e) == LK_OK) {
    lua_pushboolean(L, done);
    return 1;
  }
  lua_pushnil(L);
  lua_pushstring(L, e.message);
  lua_pushstring(L, lh_fetch_failure(f));
  return 3;
}

static int fetch_progress(lua_State *L) {
  int64_t got, total;
  lh_fetch_progress(check_fetch(L), &got, &total);
  lua_pushinteger(L, got);
  if (total >= 0) lua_pushinteger(L, total);
  else lua_pushnil(L);
  return 2;
}

static int fetch_answer(lua_State *L) {
  lh_fetch *f = check_fetch(L);
  int64_t size;
  const char *body = lh_fetch_body(f, &size), *name, *value;
  lua_newtable(L);
  lua_pushinteger(L, lh_fetch_status(f));
  lua_setfield(L, -2, "status");
  lua_pushlstring(L, body, (size_t)size);
  lua_setfield(L, -2, "body");
  lua_newtable(L);
  for (int64_t i = 0; lh_fetch_header_at(f, i, &name, &value); i++) {
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
  }
  lua_setfield(L, -2, "headers");
  return 1;
}

static const lh_function methods[] = {
    {"wait", fetch_wait, "(seconds: number): boolean|nil, string?, string?",
     "Go on for at most so long; true when the answer is there, whatever its "
     "status. Or nil, message, and offline, cut, timeout, untrusted, refused, "
     "disk or io.",
     NULL},
    {"progress", fetch_progress, "(): integer, integer|nil",
     "Bytes so far, and of all; nil when the server does not say.", NULL},
    {"answer", fetch_answer, "(): table",
     "status, headers (names in lower case), body (empty when it went to a "
     "file).", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static const lh_function functions[] = {
    {"fetch", start_fetch,
     "(options: table): userdata|nil, string?, string?",
     "Start a GET. Redirects are followed, never from https to http; proxies "
     "come from the usual variables. Needs libcurl.", option_list},
    {NULL, NULL, NULL, NULL, NULL}};

int lh_open_fetch(lua_State *L) {
  lh_class_new(L, &fetch_class);
  lh_document(L, "host", functions);
  lua_pushcfunction(L, start_fetch);
  return 1;
}
