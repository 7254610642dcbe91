/* Makes one allocation of our own code fail, and knows what of it was never
 * freed. Preloaded into llmhost (LD_PRELOAD); what libraries and the Lua VM
 * allocate is passed on. In Lua, package.loadlib(file, "luaopen_alloc") gives:
 *
 *   arm(n, on)  let the n-th allocation from now fail, with `on` every later
 *               one too; 0: none
 *   calls()     allocations since arm
 *   mark()      from here on
 *   left()      { "offset in the program: bytes", … } of blocks that were
 *               allocated since mark and are not freed
 *
 * LLMHOST_FAIL_ALLOC=n arms before main. A freed block is filled with 0xDD, so
 * that a use of it shows. */
#define _GNU_SOURCE
#include <errno.h>
#include <lauxlib.h>
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dlfcn.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t align, size_t size);
void __libc_free(void *block);

/* --- whose call it is --- */

static uintptr_t program_start, program_end;
static _Thread_local int in_lua; /* the Lua VM's allocator is at work */

static int find_program(struct dl_phdr_info *info, size_t size, void *data) {
  (void)size, (void)data;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *p = &info->dlpi_phdr[i];
    if (p->p_type != PT_LOAD || !(p->p_flags & PF_X)) continue;
    program_start = info->dlpi_addr + p->p_vaddr;
    program_end = program_start + p->p_memsz;
  }
  return 1; /* the first is the program */
}

static bool ours(const void *caller) {
  uintptr_t at = (uintptr_t)caller;
  return at >= program_start && at < program_end && !in_lua;
}

static lua_Alloc vm_allocate;

static void *pass_on(void *data, void *block, size_t before, size_t after) {
  in_lua++;
  void *p = vm_allocate(data, block, before, after);
  in_lua--;
  return p;
}

lua_State *lua_newstate(lua_Alloc f, void *data) {
  lua_State *(*next)(lua_Alloc, void *) = NULL;
  *(void **)&next = dlsym(RTLD_NEXT, "lua_newstate");
  vm_allocate = f;
  return next(pass_on, data);
}

/* --- what is allocated: open addressing, by address --- */

enum { SLOTS = 1 << 20 };
typedef struct block {
  void *at;
  uintptr_t caller;
  size_t size;
  long long number;
} block;
static block blocks[SLOTS];
static long long allocated, marked;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static void *const GONE = (void *)1;

static size_t slot_of(const void *at) {
  return (size_t)(((uintptr_t)at >> 4) * 0x9E3779B97F4A7C15u >> 44);
}

static void note(void *at, size_t size, const void *caller) {
  pthread_mutex_lock(&guard);
  size_t i = slot_of(at);
  while (blocks[i].at != NULL && blocks[i].at != GONE) i = (i + 1) % SLOTS;
  blocks[i] = (block){at, (uintptr_t)caller - program_start, size,
                      ++allocated};
  pthread_mutex_unlock(&guard);
}

/* Forget a block; whether it was known. */
static bool forget(const void *at) {
  bool known = false;
  pthread_mutex_lock(&guard);
  for (size_t i = slot_of(at); blocks[i].at != NULL; i = (i + 1) % SLOTS) {
    if (blocks[i].at != at) continue;
    blocks[i].at = GONE;
    known = true;
    break;
  }
  pthread_mutex_unlock(&guard);
  return known;
}

/* --- failing --- */

static atomic_llong calls, fail_at;
static atomic_bool lasting;

/* A debugger's breakpoint: what failed here? */
__attribute__((noinline)) void alloc_failed(void);
void alloc_failed(void) { __asm__ volatile(""); }

static bool fails(void) {
  long long now = atomic_fetch_add(&calls, 1) + 1;
  long long at = atomic_load(&fail_at);
  if (now != at && !(at && lasting && now > at)) return false;
  alloc_failed();
  errno = ENOMEM;
  return true;
}

__attribute__((constructor)) static void begin(void) {
  dl_iterate_phdr(find_program, NULL);
  const char *text = getenv("LLMHOST_FAIL_ALLOC");
  atomic_store(&calls, 0);
  if (text) atomic_store(&fail_at, atoll(text));
}

#define CALLER __builtin_return_address(0)

void *malloc(size_t size) {
  bool mine = ours(CALLER);
  if (mine && fails()) return NULL;
  void *p = __libc_malloc(size);
  if (mine && p) note(p, size, CALLER);
  return p;
}

void *calloc(size_t count, size_t size) {
  bool mine = ours(CALLER);
  if (mine && fails()) return NULL;
  void *p = __libc_calloc(count, size);
  if (mine && p) note(p, count * size, CALLER);
  return p;
}

void *realloc(void *old, size_t size) {
  bool mine = ours(CALLER);
  if (mine && fails()) return NULL;
  bool known = mine && old && forget(old);
  void *p = __libc_realloc(old, size);
  if (mine && p) note(p, size, CALLER);
  if (known && p == NULL) note(old, 0, CALLER);
  return p;
}

int posix_memalign(void **p, size_t align, size_t size) {
  bool mine = ours(CALLER);
  if (mine && fails()) return ENOMEM;
  *p = __libc_memalign(align, size);
  if (mine && *p) note(*p, size, CALLER);
  return *p ? 0 : ENOMEM;
}

void free(void *p) {
  if (p && forget(p)) memset(p, 0xDD, malloc_usable_size(p));
  __libc_free(p);
}

static char *copy(const char *text, size_t size, const void *caller) {
  bool mine = ours(caller);
  if (mine && fails()) return NULL;
  char *p = __libc_malloc(size + 1);
  if (p == NULL) return NULL;
  memcpy(p, text, size);
  p[size] = '\0';
  if (mine) note(p, size + 1, caller);
  return p;
}

char *strdup(const char *text) { return copy(text, strlen(text), CALLER); }

char *strndup(const char *text, size_t most) {
  return copy(text, strnlen(text, most), CALLER);
}

static int print(char **out, const char *format, va_list list,
                 const void *caller) {
  va_list again;
  va_copy(again, list);
  int size = vsnprintf(NULL, 0, format, again);
  va_end(again);
  *out = size < 0 ? NULL : copy("", 0, caller);
  if (*out == NULL) return -1;
  char *p = __libc_malloc((size_t)size + 1);
  bool known = forget(*out);
  __libc_free(*out);
  *out = p;
  if (known && p) note(p, (size_t)size + 1, caller);
  return p ? vsnprintf(p, (size_t)size + 1, format, list) : -1;
}

int vasprintf(char **out, const char *format, va_list list) {
  return print(out, format, list, CALLER);
}

int asprintf(char **out, const char *format, ...) {
  va_list list;
  va_start(list, format);
  int size = print(out, format, list, CALLER);
  va_end(list);
  return size;
}

FILE *open_memstream(char **text, size_t *size) {
  FILE *(*next)(char **, size_t *) = NULL;
  if (ours(CALLER) && fails()) return NULL;
  *(void **)&next = dlsym(RTLD_NEXT, "open_memstream");
  return next(text, size);
}

/* --- for Lua --- */

static int l_arm(lua_State *L) {
  atomic_store(&calls, 0);
  atomic_store(&lasting, lua_toboolean(L, 2));
  atomic_store(&fail_at, luaL_checkinteger(L, 1));
  return 0;
}

static int l_calls(lua_State *L) {
  lua_pushinteger(L, atomic_load(&calls));
  return 1;
}

static int l_mark(lua_State *L) {
  (void)L;
  marked = allocated;
  return 0;
}

static int l_left(lua_State *L) {
  lua_newtable(L);
  lua_Integer n = 0;
  for (size_t i = 0; i < SLOTS; i++) {
    block b = blocks[i];
    if (b.at == NULL || b.at == GONE || b.number <= marked) continue;
    lua_pushfstring(L, "%p: %I bytes", (void *)(b.caller), (lua_Integer)b.size);
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

int luaopen_alloc(lua_State *L) {
  static const luaL_Reg functions[] = {{"arm", l_arm}, {"calls", l_calls},
    {"mark", l_mark}, {"left", l_left}, {NULL, NULL}};
  luaL_newlib(L, functions);
  lua_pushinteger(L, (lua_Integer)program_start);
  lua_setfield(L, -2, "start");
  return 1;
}
