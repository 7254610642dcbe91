/* What the files of the gpu module share: its contexts, tensors and symbols. */
#ifndef LH_GPU_H
#define LH_GPU_H

#include "../../kernels/graph/program.h"
#include "bind.h"

/* --- contexts ------------------------------------------------------------ */

/* The current device's context, opened on first use; raises when it cannot be.
 * Owned by the Lua state. */
lk_context *lh_context(lua_State *L);
/* The context of "cpu", "cuda", "cuda:1"; raises for an unknown one. */
lk_context *lh_context_of(lua_State *L, const char *device);
/* "cpu" or "cuda:0" into `text`. */
void lh_context_name(const lk_context *context, char *text, size_t size);
/* The seed of gpu.seed, and a new random stream for an eager draw. */
uint64_t lh_seed(lua_State *L);
int64_t lh_next_stream(lua_State *L);

/* Run `try(L, argument)`; when it reports LK_OOM, collect garbage once and try
 * again. Raises what `context` holds when it fails. */
void lh_retry(lua_State *L, lk_context *context,
              lk_status (*try_)(lua_State *L, void *argument), void *argument);

/* Where the state that runs a compilation is noted while it does, so that a
 * layer's forward is called on it. */
lua_State **lh_compiling(lua_State *L);

/* --- tensors ------------------------------------------------------------- */

typedef struct lh_tensor {
  lk_context *context;
  lk_storage *storage;   /* shared by views */
  lk_tensor t;           /* t.data points into the storage */
} lh_tensor;
extern const lh_class lh_tensor_class;

lh_tensor *lh_tensor_check(lua_State *L, int index);
lh_tensor *lh_tensor_test(lua_State *L, int index);
/* Push a tensor with memory of its own, contents undefined. */
lh_tensor *lh_tensor_new(lua_State *L, lk_context *context, lk_dtype dtype,
                         lk_shape shape);
/* Push a tensor on `storage`, of which it takes a reference. */
lh_tensor *lh_tensor_on(lua_State *L, lk_context *context, lk_storage *storage,
                        lk_tensor t);
/* Copy between host and tensor; raise on failure. */
void lh_tensor_upload(lua_State *L, lh_tensor *tensor, const void *data);
void lh_tensor_download(lua_State *L, const lh_tensor *tensor, void *data);
/* Run a call whose result 0 is the given tensor. */
void lh_fill_by(lua_State *L, lh_tensor *tensor, lk_call call);
/* Set the makers of tensors in the table on top of the stack
 * (tensor_make.c). */
void lh_add_makers(lua_State *L);
/* A shape from the integers 1…n of the table at `index`; raises, naming
 * `who`. Stops at the first missing one. */
lk_shape lh_check_shape(lua_State *L, int index, const char *who);
lk_dtype lh_check_dtype(lua_State *L, const char *word, const char *who);

/* --- symbols: values of a graph that is being built ---------------------- */

/* What all symbols of one building share; `graph` is NULL once it is over. */
typedef struct lh_scope {
  lk_graph *graph;
} lh_scope;

typedef struct lh_symbol {
  lh_scope *scope;       /* kept alive by the symbol's user value 1 */
  lk_value value;
} lh_symbol;
extern const lh_class lh_symbol_class, lh_scope_class;

/* Push a symbol of the scope at stack index `scope`. */
void lh_symbol_push(lua_State *L, int scope, lk_value value);
lh_symbol *lh_symbol_test(lua_State *L, int index);
/* Push a new scope for `graph`; end it by setting its graph to NULL. */
lh_scope *lh_scope_push(lua_State *L, lk_graph *graph);
/* Raise what a user's forward raised while a graph was built, or else what
 * `error` says. */
int lh_raise_build(lua_State *L, const lk_error *error)
    __attribute__((noreturn));
/* Call the function and its `count` arguments on top of the stack while `graph`
 * is being built; the value of the symbol it returns, or LK_NONE with the
 * failure in the graph and the error object kept for lh_raise_build. */
lk_value lh_call_forward(lua_State *L, lk_graph *graph, int count);
/* Raise what the graph of a symbol failed with, if it did. */
void lh_symbol_raise(lua_State *L, const lk_graph *graph);

/* --- calls on either ----------------------------------------------------- */

enum { LH_INFER = -1 };

/* Call `op` on the values at stack indices `in` (0: absent), tensors or symbols
 * of one kind, with result 0 of dtype and shape `preset` (rank LH_INFER:
 * inferred), and push result 0. Raises what the rule says. */
void lh_call(lua_State *L, lk_op op, const int *in, int count, lk_attr attr,
             const lk_tensor *preset);
/* The description of the tensor or symbol at `index`; raises for others. */
lk_tensor lh_operand(lua_State *L, int index);
bool lh_is_operand(lua_State *L, int index);
/* Methods of tensors that symbols share. */
extern const lh_function lh_operand_methods[];
/* x[i], row i from 1: a Lua function (x, i). */
int lh_operand_row(lua_State *L);

/* --- layers and optimizers ----------------------------------------------- */

lk_layer *lh_layer_check(lua_State *L, int index);
lk_layer *lh_layer_test(lua_State *L, int index);
void lh_layer_push(lua_State *L, lk_layer *layer);   /* takes the reference */
/* layer(x), eagerly: a Lua function. */
int lh_layer_call(lua_State *L);
/* Push an empty store that the collector frees. */
lk_store *lh_store_push(lua_State *L);
const lk_optimizer *lh_optimizer_check(lua_State *L, int index);

/* --- openers of the sub-modules: each pushes one table ------------------- */

int lh_open_nn(lua_State *L);
int lh_open_optim(lua_State *L);
int lh_open_quant(lua_State *L) __attribute__((weak));
int lh_open_memory(lua_State *L) __attribute__((weak));
/* Each adds its functions to the module table on top of the stack. */
void lh_add_tensor(lua_State *L);
void lh_add_program(lua_State *L);
void lh_add_grad(lua_State *L);
void lh_add_safetensors(lua_State *L) __attribute__((weak));
void lh_add_device(lua_State *L) __attribute__((weak));
void lh_add_tune(lua_State *L);

/* The program at `index` of a gpu.program; raises unless it is one. */
lk_program *lh_program_check(lua_State *L, int index);

#endif
