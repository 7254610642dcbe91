/* host.web: a loopback web server whose answers a Lua function gives. */
#include "../web/http.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bind.h"
#include "modules.h"

typedef struct server {
  lh_http *http;
  lua_State *L;    /* while run() waits */
  int handler;     /* stack index of the handler meanwhile */
  bool failed;     /* the handler raised; its message is on the stack */
} server;

static void close_server(void *object) {
  lh_http_close(((server *)object)->http);
}

static const lh_function methods[];
static const lh_class server_class = {"host.web", methods, close_server};

/* --- a request for Lua ---------------------------------------------------- */

static void push_query(lua_State *L, const lh_http_request *request) {
  lua_createtable(L, 0, request->pairs);
  for (int i = 0; i < request->pairs; i++) {
    lua_pushstring(L, request->pair[i].value);
    lua_setfield(L, -2, request->pair[i].name);
  }
}

static void copy_field(char *to, size_t room, const char *text) {
  snprintf(to, room, "%s", text ? text : "");
}

static void set_body(lh_http_reply *reply, const char *text, size_t size) {
  reply->body = malloc(size + 1);
  if (reply->body == NULL) {
    reply->status = 503;
    return;
  }
  memcpy(reply->body, text, size);
  reply->size = (int64_t)size;
}

static void set_error(lh_http_reply *reply, int status, const char *text) {
  reply->status = status;
  copy_field(reply->type, sizeof reply->type, "text/plain; charset=utf-8");
  set_body(reply, text, strlen(text));
}

/* The handler's results from `at` on: "stream", or status, type, body and a
 * file name. */
static void read_reply(lua_State *L, int at, lh_http_reply *reply) {
  size_t size;
  if (lua_type(L, at) == LUA_TSTRING &&
      strcmp(lua_tostring(L, at), "stream") == 0) {
    reply->stream = true;
    return;
  }
  const char *body = lua_tolstring(L, at + 2, &size);
  if (!lua_isinteger(L, at) || body == NULL) {
    set_error(reply, 500, "the handler gave no answer\n");
    return;
  }
  reply->status = (int)lua_tointeger(L, at);
  copy_field(reply->type, sizeof reply->type, lua_tostring(L, at + 1));
  copy_field(reply->filename, sizeof reply->filename,
             lua_tostring(L, at + 3));
  set_body(reply, body, size);
}

/* Called by the server inside run(): handler(path, query). What it raises is
 * kept for run() to give; the browser hears that it failed. */
static void handle(void *data, const lh_http_request *request,
                   lh_http_reply *reply) {
  server *s = data;
  lua_State *L = s->L;
  int top = lua_gettop(L);
  luaL_checkstack(L, 16, "web server");
  lua_pushvalue(L, s->handler);
  lua_pushstring(L, request->path);
  push_query(L, request);
  if (lua_pcall(L, 2, 4, 0) == LUA_OK) {
    read_reply(L, top + 1, reply);
    lua_settop(L, top);
    return;
  }
  set_error(reply, 500, "the dashboard failed here; its console says why\n");
  if (s->failed) lua_settop(L, top);  /* the first one is told */
  s->failed = true;
}

/* --- the class ------------------------------------------------------------ */

static int server_run(lua_State *L) {
  server *s = lh_object_check(L, 1, &server_class);
  double seconds = luaL_checknumber(L, 2);
  lk_error error;
  lua_settop(L, 2);
  lua_getiuservalue(L, 1, 1);
  s->L = L;
  s->handler = 3;
  s->failed = false;
  lk_status status = lh_http_run(s->http, seconds, &error);
  if (status != LK_OK) return lh_world_error(L, &error);
  if (s->failed) {
    luaL_tolstring(L, 4, NULL);
    lua_pushnil(L);
    lua_insert(L, -2);
    lua_pushstring(L, "error");
    return 3;
  }
  lua_pushboolean(L, 1);
  return 1;
}

static int server_send(lua_State *L) {
  server *s = lh_object_check(L, 1, &server_class);
  size_t size;
  const char *text = luaL_checklstring(L, 2, &size);
  lua_pushinteger(L, lh_http_send(s->http, text, (int64_t)size));
  return 1;
}

static int server_port(lua_State *L) {
  server *s = lh_object_check(L, 1, &server_class);
  lua_pushinteger(L, lh_http_port(s->http));
  return 1;
}

static const lh_function methods[] = {
    {"run", server_run, "(self, seconds: number): true|nil, string?, string?",
     "Answer what comes, for at most so long; gives back earlier after an "
     "answer or a signal. What the handler raised is the message.", NULL},
    {"send", server_send, "(self, text: string): integer",
     "Send text down every event stream; the number of streams.", NULL},
    {"port", server_port, "(self): integer", "The port it listens on.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

/* --- serve ---------------------------------------------------------------- */

typedef struct serve_options {
  int64_t port;
  int handler;
} serve_options;

#define AT(name) offsetof(serve_options, name)
static const lh_option serve_list[] = {
    {"port", LH_INTEGER, AT(port), 0, 65535, NULL,
     "port on 127.0.0.1; 0: any free one (8501)"},
    {"handler", LH_ANY, AT(handler), 0, 0, NULL,
     "function(path, query): status, type, body, filename? or \"stream\""},
    {NULL, LH_ANY, 0, 0, 0, NULL, NULL}};

static int web_serve(lua_State *L) {
  serve_options o = {.port = 8501};
  lk_error error;
  lua_settop(L, 1);
  lh_options(L, 1, "host.web.serve", serve_list, 0, &o);
  if (o.handler == 0 || !lua_isfunction(L, o.handler)) {
    lh_raise(L, LK_ARGUMENT, "host.web.serve: handler must be a function");
  }
  server *s = lh_object_new(L, &server_class, sizeof *s);
  lua_pushvalue(L, o.handler);
  lua_setiuservalue(L, -2, 1);
  if (lh_http_open(&s->http, (int)o.port, handle, s, &error) != LK_OK) {
    return lh_world_error(L, &error);
  }
  return 1;
}

static const lh_function functions[] = {
    {"serve", web_serve,
     "(options: table): host.web|nil, string?, string?",
     "A web server on the loopback address that answers GET and HEAD of its "
     "own pages with what the handler gives.", serve_list},
    {NULL, NULL, NULL, NULL, NULL}};

int lh_open_web(lua_State *L) {
  lh_class_new(L, &server_class);
  lua_newtable(L);
  lh_register(L, "host.web", functions);
  return 1;
}
