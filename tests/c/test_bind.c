/* Tests the binding's own tools against a plain Lua state: option tables,
 * suggestions, classes, error objects, sizes. */
#include <lualib.h>
#include <stdint.h>
#include <string.h>

#include "../../host/bind/bind.h"
#include "check.h"

typedef struct values {
  int64_t heads;
  double rate;
  bool bias;
  const char *name;
  int mode, model;
} values;

static const char *const modes[] = {"none", "light", "block", NULL};
#define FIELD(f) offsetof(values, f)
static const lh_option list[] = {
    {"heads", LH_INTEGER, FIELD(heads), 1, 64, NULL, "count"},
    {"rate", LH_NUMBER, FIELD(rate), 0, 1e300, NULL, "per step"},
    {"bias", LH_BOOLEAN, FIELD(bias), 0, 0, NULL, "add one"},
    {"name", LH_STRING, FIELD(name), 0, 0, NULL, "for people"},
    {"mode", LH_WORD, FIELD(mode), 0, 0, modes, "how much"},
    {"model", LH_ANY, FIELD(model), 0, 0, NULL, "a table"},
    {NULL, LH_ANY, 0, 0, 0, NULL, NULL}};

static values got;

static int read_options(lua_State *L) {
  got = (values){.heads = 8, .rate = .5, .name = "none given"};
  lua_settop(L, 1);
  lh_options(L, 1, "nn.layer", list, 2, &got);
  if (got.model) lua_getfield(L, got.model, "x");
  return got.model != 0;
}

static int closed_objects;
static void close_thing(void *object) {
  int *thing = object;
  closed_objects += *thing == 0 ? 100 : 1;
}

static int thing_get(lua_State *L);
static const lh_function methods[] = {
    {"get", thing_get, "(self): integer", "Its number.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};
static const lh_class thing_class = {"test.thing", methods, close_thing};

static int thing_get(lua_State *L) {
  int *thing = lh_object_check(L, 1, &thing_class);
  lua_pushinteger(L, *thing);
  return 1;
}

static int new_thing(lua_State *L) {
  lua_settop(L, 1);
  int *thing = lh_object_new(L, &thing_class, sizeof *thing);
  CHECK((uintptr_t)thing % 8 == 0, "alignment of %p", (void *)thing);
  if (lua_toboolean(L, 1)) luaL_error(L, "raised half-way");
  *thing = 42;
  return 1;
}

static lua_State *new_state(void) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  lh_class_new(L, &thing_class);
  lua_register(L, "options", read_options);
  lua_register(L, "thing", new_thing);
  return L;
}

/* Run code; its error as text, or "ok". */
static const char *run(lua_State *L, const char *code) {
  static char text[512];
  lua_settop(L, 0);
  int status = luaL_loadbuffer(L, code, strlen(code), "=script");
  if (status == LUA_OK) status = lua_pcall(L, 0, 1, 0);
  const char *message = status ? luaL_tolstring(L, -1, NULL) : "ok";
  snprintf(text, sizeof text, "%s", message);
  return text;
}

static void expect(lua_State *L, const char *code, const char *wanted) {
  const char *text = run(L, code);
  CHECK(strcmp(text, wanted) == 0, "%s\n# gives %s\n# not   %s", code, text,
        wanted);
}

static void test_options(void) {
  lua_State *L = new_state();
  expect(L, "options()", "ok");
  CHECK(got.heads == 8 && got.rate == .5 && !got.bias && got.model == 0);
  expect(L, "options{3, .25, bias = true, name = 'a', mode = 'block'}", "ok");
  CHECK(got.heads == 3 && got.rate == .25 && got.bias && got.mode == 2);
  expect(L, "options{heads = 4.0, model = {x = 5}}", "ok");
  CHECK(got.heads == 4 && lua_tointeger(L, -1) == 0);
  expect(L, "assert(options{heads = 4, model = {x = 5}} == 5)", "ok");
  lua_close(L);
}

static void test_option_errors(void) {
  lua_State *L = new_state();
  expect(L, "\noptions{head = 4}",
         "script:2: nn.layer: unknown option 'head'; did you mean 'heads'?");
  expect(L, "options{zzz = 1, yyy = 2, qqqqqqqqq = 3}",
         "script:1: nn.layer: unknown option 'qqqqqqqqq'");
  expect(L, "options{heads = 'four'}", "script:1: nn.layer: option 'heads' "
         "must be an integer, got 'four'");
  expect(L, "options{heads = '4'}", "script:1: nn.layer: option 'heads' must "
         "be an integer, got '4'");
  expect(L, "options{heads = 1.5}", "script:1: nn.layer: option 'heads' must "
         "be an integer, got 1.5");
  expect(L, "options{heads = 65}", "script:1: nn.layer: option 'heads' must "
         "be from 1 to 64, got 65");
  expect(L, "options{rate = -1}", "script:1: nn.layer: option 'rate' must be "
         "at least 0, got -1");
  expect(L, "options{rate = 0/0 ~= 0 and 0/0}",
         strstr(run(L, "options{rate = 0/0}"), "-nan")
             ? "script:1: nn.layer: option 'rate' must be at least 0, got -nan"
             : "script:1: nn.layer: option 'rate' must be at least 0, got nan");
  expect(L, "options{bias = 1}", "script:1: nn.layer: option 'bias' must be "
         "true or false, got 1");
  expect(L, "options{name = {}}", "script:1: nn.layer: option 'name' must be "
         "a string, got table");
  expect(L, "options{mode = 'ligth'}", "script:1: nn.layer: option 'mode' must "
         "be none, light or block, got 'ligth'; did you mean 'light'?");
  expect(L, "options{1, 2, 3}",
         "script:1: nn.layer: takes 2 positional values, got [3]");
  expect(L, "options{1, heads = 1}", "script:1: nn.layer: option 'heads' is "
         "given by name and by position");
  expect(L, "options{[true] = 1}", "script:1: nn.layer: an option's name must "
         "be a string, got true");
  expect(L, "options(7)",
         "script:1: nn.layer: expected a table of options, got 7");
  lua_close(L);
}

static void test_error_objects(void) {
  lua_State *L = new_state();
  expect(L,
         "local ok, e = pcall(options, {head = 1})\n"
         "assert(not ok and e.code == 'argument')\n"
         "assert(e.where == nil or e.where:find('^script:1$'))\n"
         "assert(('x' .. e):find('^x') and (e .. 'y'):find('y$'))",
         "ok");
  /* A function of the library is passed over: its caller is named. */
  lua_pushliteral(L, "/opt/top");
  lua_setfield(L, LUA_REGISTRYINDEX, LH_ROOT_FIELD);
  static const char library[] = "\n\nreturn function() options{head = 1} end";
  CHECK(!luaL_loadbuffer(L, library, strlen(library), "@/opt/top/lua/a.lua"));
  lua_call(L, 0, 1);
  lua_setglobal(L, "inner");
  expect(L, "\n\n\n\ninner()",
         "script:5: nn.layer: unknown option 'head'; did you mean 'heads'?");
  lua_close(L);
}

static void test_nearest(void) {
  static const char *const words[] = {"heads", "kv_heads", "rope", "dropout",
                                      "d_ff", NULL};
  static const char *const pairs[][2] = {
      {"head", "heads"}, {"haeds", "heads"}, {"kvheads", "kv_heads"},
      {"drop", "dropout"},   {"dropuot", "dropout"}, {"dff", "d_ff"},
      {"", NULL},        {"banana", NULL},   {"ropes", "rope"}};
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    const char *found = lh_nearest(pairs[i][0], words);
    const char *wanted = pairs[i][1];
    bool same = wanted ? found && !strcmp(found, wanted) : found == NULL;
    CHECK(same, "'%s' gives %s", pairs[i][0], found ? found : "nothing");
  }
  char longest[4000];
  memset(longest, 'x', sizeof longest);
  longest[3999] = 0;
  CHECK(lh_nearest(longest, words) == NULL);
}

static void test_classes(void) {
  lua_State *L = new_state();
  expect(L, "local t = thing(); assert(t:get() == 42); t:close(); t:close()\n"
         "assert(tostring(t) == 'test.thing (closed)')\nt:get()",
         "script:3: this test.thing is closed");
  CHECK(closed_objects == 1, "%d", closed_objects);
  expect(L, "do local t <close> = thing() end", "ok");
  CHECK(closed_objects == 2, "%d", closed_objects);
  expect(L, "thing().get(io.stdout)",
         "script:1: expected test.thing, got FILE*");
  expect(L, "thing().get()", "script:1: expected test.thing, got nothing");
  expect(L, "thing().close(1)", "script:1: expected test.thing, got 1");
  expect(L, "assert(getmetatable(thing()) == 'test.thing')", "ok");
  run(L, "thing(true)");
  lua_close(L); /* the half-made one is closed with its zeroes */
  CHECK(closed_objects >= 100, "%d", closed_objects);
}

static void test_sizes(void) {
  static const struct { const char *text; int64_t bytes; } good[] = {
      {"24GB", 24000000000}, {"1.5GiB", 1610612736}, {"512 MB", 512000000},
      {"1000", 1000}, {"2kB", 2000}, {"2KiB", 2048}, {"1TB", 1000000000000},
      {".5KiB", 512}, {"7B", 7}, {"0", 0}};
  static const char *const bad[] = {"", "GB", "-1GB", "1gb", "1e9", "0x10",
                                    "nan", "inf", "1GB ", "1.2.3", "9e99TB",
                                    "99999999999999999999", "."};
  int64_t bytes;
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    CHECK(lh_parse_size(good[i].text, &bytes) && bytes == good[i].bytes,
          "'%s' gives %lld", good[i].text, (long long)bytes);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK(!lh_parse_size(bad[i], &bytes), "'%s' is taken", bad[i]);
  }
}

int main(void) {
  RUN(test_options);
  RUN(test_option_errors);
  RUN(test_error_objects);
  RUN(test_nearest);
  RUN(test_classes);
  RUN(test_sizes);
  return check_done();
}
