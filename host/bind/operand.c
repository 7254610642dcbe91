/* The methods that tensors and symbols share: arithmetic, reductions, shapes,
 * products, and the model operators. */
#include <string.h>

#include "gpu.h"

/* --- arithmetic ---------------------------------------------------------- */

static int affine(lua_State *L, int x, double scale, double value) {
  lh_call(L, LK_OP_affine, (int[]){x}, 1,
          LK_ATTRS(.scale = scale, .value = value), NULL);
  return 1;
}

static int binary(lua_State *L, lk_op op) {
  lh_call(L, op, (int[]){1, 2}, 2, LK_ATTRS(0), NULL);
  return 1;
}

static bool is_number(lua_State *L, int i) {
  return lua_type(L, i) == LUA_TNUMBER;
}

static int operand_add(lua_State *L) {
  if (is_number(L, 1)) return affine(L, 2, 1, lua_tonumber(L, 1));
  if (is_number(L, 2)) return affine(L, 1, 1, lua_tonumber(L, 2));
  return binary(L, LK_OP_add);
}

static int operand_sub(lua_State *L) {
  if (is_number(L, 1)) return affine(L, 2, -1, lua_tonumber(L, 1));
  if (is_number(L, 2)) return affine(L, 1, 1, -lua_tonumber(L, 2));
  return binary(L, LK_OP_sub);
}

static int operand_mul(lua_State *L) {
  if (is_number(L, 1)) return affine(L, 2, lua_tonumber(L, 1), 0);
  if (is_number(L, 2)) return affine(L, 1, lua_tonumber(L, 2), 0);
  return binary(L, LK_OP_mul);
}

static int operand_div(lua_State *L) {
  if (is_number(L, 2)) return affine(L, 1, 1 / lua_tonumber(L, 2), 0);
  if (!is_number(L, 1)) return binary(L, LK_OP_div);
  lh_call(L, LK_OP_pow, (int[]){2}, 1, LK_ATTRS(.value = -1), NULL);
  return affine(L, lua_gettop(L), lua_tonumber(L, 1), 0);
}

static int operand_pow(lua_State *L) {
  lh_call(L, LK_OP_pow, (int[]){1}, 1,
          LK_ATTRS(.value = luaL_checknumber(L, 2)), NULL);
  return 1;
}

static int operand_negative(lua_State *L) { return affine(L, 1, -1, 0); }

/* --- elementwise --------------------------------------------------------- */

#define UNARY(name)                                               \
  static int operand_##name(lua_State *L) {                       \
    lh_call(L, LK_OP_##name, (int[]){1}, 1, LK_ATTRS(0), NULL);   \
    return 1;                                                     \
  }
UNARY(exp)
UNARY(log)
UNARY(sqrt)
UNARY(tanh)
UNARY(sigmoid)
UNARY(relu)
#undef UNARY

static int operand_silu(lua_State *L) {
  lh_call(L, LK_OP_silu, (int[]){1, 0}, 2, LK_ATTRS(0), NULL);
  return 1;
}

static int operand_gated_silu(lua_State *L) {
  lh_call(L, LK_OP_gated_silu, (int[]){1, 0}, 2, LK_ATTRS(0), NULL);
  return 1;
}

/* --- reductions ---------------------------------------------------------- */

/* A dimension, from 1, negative from the end; as an attribute, from 0. */
static int64_t check_dim(lua_State *L, int index, int rank) {
  int64_t dim = luaL_checkinteger(L, index);
  if (dim < 0) dim += rank + 1;
  if (dim < 1 || dim > rank)
    lh_raise(L, LK_SHAPE, "there is no dimension %d: the tensor has %d",
             (int)luaL_checkinteger(L, index), rank);
  return dim - 1;
}

static int reduce(lua_State *L, lk_op op) {
  int rank = lh_operand(L, 1).shape.rank;
  lk_attr attr = {.dim = -1};
  if (!lua_isnoneornil(L, 2)) attr.dim = check_dim(L, 2, rank);
  if (lua_istable(L, 3)) {
    lua_getfield(L, 3, "keep");
    attr.keep = lua_toboolean(L, -1);
    lua_pop(L, 1);
  }
  lh_call(L, op, (int[]){1}, 1, attr, NULL);
  return 1;
}

static int operand_sum(lua_State *L) { return reduce(L, LK_OP_sum); }
static int operand_mean(lua_State *L) { return reduce(L, LK_OP_mean); }
static int operand_max(lua_State *L) { return reduce(L, LK_OP_max); }
static int operand_min(lua_State *L) { return reduce(L, LK_OP_min); }

/* Indices come back 1-based. */
static int operand_argmax(lua_State *L) {
  reduce(L, LK_OP_argmax);
  return 1;
}

static int operand_norm(lua_State *L) {
  lua_settop(L, 1);
  lh_call(L, LK_OP_mul, (int[]){1, 1}, 2, LK_ATTRS(0), NULL);
  lh_call(L, LK_OP_sum, (int[]){2}, 1, LK_ATTRS(.dim = -1), NULL);
  lh_call(L, LK_OP_sqrt, (int[]){3}, 1, LK_ATTRS(0), NULL);
  return 1;
}

static const lh_option softmax_options[] = {
    {"causal", LH_BOOLEAN, offsetof(lk_attr, causal), 0, 0, NULL,
     "row r of the last two dimensions sees columns 1…r"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};

static int operand_softmax(lua_State *L) {
  lk_attr attr = {0};
  int rank = lh_operand(L, 1).shape.rank;
  int options = lua_istable(L, 2) ? 2 : 3;
  if (options == 3 && !lua_isnoneornil(L, 2) &&
      check_dim(L, 2, rank) != rank - 1)
    lh_raise(L, LK_SHAPE, "softmax: only over the last dimension; transpose "
             "first");
  lh_options(L, options, "softmax", softmax_options, 0, &attr);
  lh_call(L, LK_OP_softmax, (int[]){1}, 1, attr, NULL);
  return 1;
}

/* --- shapes -------------------------------------------------------------- */

static int operand_reshape(lua_State *L) {
  lk_tensor x = lh_operand(L, 1);
  int64_t count = lk_shape_count(x.shape), known = 1;
  luaL_checktype(L, 2, LUA_TTABLE);
  int open = -1;
  lk_tensor y = {.dtype = x.dtype};
  for (int i = 1; lua_rawgeti(L, 2, i) != LUA_TNIL && i <= LK_MAX_RANK; i++) {
    int64_t n = luaL_checkinteger(L, -1);
    lua_pop(L, 1);
    if (n == -1 && open < 0) open = i - 1;
    else known *= n;
    y.shape.dim[y.shape.rank++] = n;
  }
  if (open >= 0 && known > 0) y.shape.dim[open] = count / known;
  lh_call(L, LK_OP_reshape, (int[]){1}, 1, LK_ATTRS(0), &y);
  return 1;
}

static int operand_transpose(lua_State *L) {
  int rank = lh_operand(L, 1).shape.rank;
  lk_attr attr = {.dim = rank - 2, .other = rank - 1};
  if (rank < 2) lh_raise(L, LK_SHAPE, "transpose: needs two dimensions");
  if (!lua_isnoneornil(L, 2)) {
    attr.dim = check_dim(L, 2, rank);
    attr.other = check_dim(L, 3, rank);
  }
  lh_call(L, LK_OP_transpose, (int[]){1}, 1, attr, NULL);
  return 1;
}

static int slice(lua_State *L, int x, int64_t dim, int64_t first,
                 int64_t last) {
  lk_tensor t = lh_operand(L, x);
  int64_t size = t.shape.dim[dim];
  if (first < 0) first += size + 1;
  if (last < 0) last += size + 1;
  if (first < 1 || last > size || first > last)
    lh_raise(L, LK_SHAPE, "slice: %d…%d is not within 1…%d", (int)first,
             (int)last, (int)size);
  t.data = NULL;
  t.shape.dim[dim] = last - first + 1;
  lh_call(L, LK_OP_slice, (int[]){x}, 1,
          LK_ATTRS(.dim = dim, .first = first - 1), &t);
  return 1;
}

static int operand_slice(lua_State *L) {
  int rank = lh_operand(L, 1).shape.rank;
  int64_t first = luaL_checkinteger(L, 3);
  return slice(L, 1, check_dim(L, 2, rank), first, luaL_optinteger(L, 4, -1));
}

int lh_operand_row(lua_State *L) {
  lk_tensor t = lh_operand(L, 1);
  if (t.shape.rank == 0) lh_raise(L, LK_SHAPE, "a scalar has no rows");
  int64_t i = luaL_checkinteger(L, 2);
  slice(L, 1, 0, i, i);
  lk_tensor row = {.dtype = t.dtype, .shape = {.rank = t.shape.rank - 1}};
  for (int d = 0; d < row.shape.rank; d++)
    row.shape.dim[d] = t.shape.dim[d + 1];
  lh_call(L, LK_OP_reshape, (int[]){lua_gettop(L)}, 1, LK_ATTRS(0), &row);
  return 1;
}

static int operand_cat(lua_State *L) {
  int rank = lh_operand(L, 1).shape.rank;
  int64_t dim = lua_isnoneornil(L, 3) ? 0 : check_dim(L, 3, rank);
  lh_call(L, LK_OP_cat, (int[]){1, 2}, 2, LK_ATTRS(.dim = dim), NULL);
  return 1;
}

static int operand_clone(lua_State *L) {
  lh_call(L, LK_OP_copy, (int[]){1}, 1, LK_ATTRS(0), NULL);
  return 1;
}

/* --- products and model operators ---------------------------------------- */

static const lh_option matmul_options[] = {
    {"transpose_a", LH_BOOLEAN, offsetof(lk_attr, transpose_a), 0, 0, NULL,
     "use the first matrix transposed"},
    {"transpose_b", LH_BOOLEAN, offsetof(lk_attr, transpose_b), 0, 0, NULL,
     "use the second matrix transposed"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};

static int operand_matmul(lua_State *L) {
  lk_attr attr = {0};
  lh_options(L, 3, "matmul", matmul_options, 0, &attr);
  lh_call(L, LK_OP_matmul, (int[]){1, 2}, 2, attr, NULL);
  return 1;
}

/* x [.., C] as rows [N, C] at the top of the stack; returns x's shape. */
static lk_shape push_rows(lua_State *L, int x) {
  lk_tensor t = lh_operand(L, x);
  if (t.shape.rank == 0) lh_raise(L, LK_SHAPE, "a scalar has no rows");
  int64_t columns = t.shape.dim[t.shape.rank - 1];
  int64_t rows = columns ? lk_shape_count(t.shape) / columns : 0;
  lk_tensor flat = {.dtype = t.dtype, .shape = lk_shape_of(rows, columns)};
  lh_call(L, LK_OP_reshape, (int[]){x}, 1, LK_ATTRS(0), &flat);
  return t.shape;
}

/* The value on top of the stack, [N, C], with the leading dimensions of
 * `shape`. */
static int return_rows(lua_State *L, lk_shape shape) {
  lk_tensor y = lh_operand(L, -1);
  y.data = NULL;
  shape.dim[shape.rank - 1] = y.shape.dim[1];
  y.shape = shape;
  lh_call(L, LK_OP_reshape, (int[]){lua_gettop(L)}, 1, LK_ATTRS(0), &y);
  return 1;
}

static int operand_rmsnorm(lua_State *L) {
  double eps = luaL_optnumber(L, 3, 0x1p-23);
  lk_shape shape = push_rows(L, 1);
  lh_call(L, LK_OP_rmsnorm, (int[]){lua_gettop(L), 2}, 2,
          LK_ATTRS(.eps = eps), NULL);
  return return_rows(L, shape);
}


static const lh_option rope_options[] = {
    {"heads", LH_INTEGER, offsetof(lk_attr, heads), 1, 4096, NULL,
     "query heads in a row"},
    {"kv_heads", LH_INTEGER, offsetof(lk_attr, kv_heads), 1, 4096, NULL,
     "key heads and value heads in a row"},
    {"width", LH_INTEGER, offsetof(lk_attr, width), 2, 1024, NULL,
     "head width"},
    {"inverse", LH_BOOLEAN, offsetof(lk_attr, inverse), 0, 0, NULL,
     "rotate the other way"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};

/* x:rope(table, {heads, kv_heads, width}) on a fused qkv. */
static int operand_rope(lua_State *L) {
  lk_attr a = {0};
  lh_options(L, 3, "rope", rope_options, 0, &a);
  lk_shape shape = push_rows(L, 1);
  lh_call(L, LK_OP_rope, (int[]){lua_gettop(L), 2}, 2, a, NULL);
  return return_rows(L, shape);
}

static const lh_option attention_options[] = {
    {"heads", LH_INTEGER, offsetof(lk_attr, heads), 1, 4096, NULL,
     "query heads in a row"},
    {"kv_heads", LH_INTEGER, offsetof(lk_attr, kv_heads), 1, 4096, NULL,
     "key heads and value heads in a row"},
    {"scale", LH_NUMBER, offsetof(lk_attr, scale), 0, 0, NULL,
     "factor on q·k; 1/√width otherwise"},
    {NULL, 0, 0, 0, 0, NULL, NULL}};

/* x:attention{heads, kv_heads} on a fused qkv [B, T, (H + 2K) D]. */
static int operand_attention(lua_State *L) {
  lk_attr a = {0};
  lh_options(L, 2, "attention", attention_options, 0, &a);
  lk_tensor x = lh_operand(L, 1);
  if (x.shape.rank != 3)
    lh_raise(L, LK_SHAPE, "attention: needs [batch, positions, channels]");
  if (a.heads == 0) lh_raise(L, LK_ARGUMENT, "attention: needs heads");
  if (a.kv_heads == 0) a.kv_heads = a.heads;
  a.batch = x.shape.dim[0];
  a.seq = x.shape.dim[1];
  a.width = x.shape.dim[2] / (a.heads + 2 * a.kv_heads);
  if (a.scale == 0 && a.width) a.scale = 1 / __builtin_sqrt((double)a.width);
  lk_shape shape = push_rows(L, 1);
  lh_call(L, LK_OP_attention, (int[]){lua_gettop(L), 0}, 2, a, NULL);
  return return_rows(L, shape);
}

#define OP1(name, doc) {#name, operand_##name, "(self): gpu.tensor", doc, NULL}
#define DIM "(self, dim?: integer, options?: {keep: boolean}): gpu.tensor"
const lh_function lh_operand_methods[] = {
    OP1(exp, "e^x"), OP1(log, "Natural logarithm."), OP1(sqrt, "√x"),
    OP1(tanh, "Hyperbolic tangent."), OP1(sigmoid, "1 / (1 + e^-x)"),
    OP1(relu, "max(x, 0)"), OP1(silu, "x · sigmoid(x)"),
    OP1(gated_silu, "silu of the first half of the last dimension times the "
        "second half."),
    OP1(clone, "A copy with memory of its own."),
    OP1(norm, "√Σ x²"),
    {"sum", operand_sum, DIM, "The sum, of all or along a dimension.", NULL},
    {"mean", operand_mean, DIM, "The mean, of all or along a dimension.",
     NULL},
    {"max", operand_max, DIM, "The largest value.", NULL},
    {"min", operand_min, DIM, "The smallest value.", NULL},
    {"argmax", operand_argmax, "(self, dim?: integer): gpu.tensor",
     "i32: the first position of the largest value, from 0.", NULL},
    {"softmax", operand_softmax,
     "(self, dim?: integer, options?: {causal: boolean}): gpu.tensor",
     "Softmax over the last dimension.", softmax_options},
    {"reshape", operand_reshape, "(self, shape: integer[]): gpu.tensor",
     "The same elements under another shape, without a copy; -1 once for what "
     "is left.", NULL},
    {"transpose", operand_transpose,
     "(self, i?: integer, j?: integer): gpu.tensor",
     "Dimensions i and j exchanged; the last two by default.", NULL},
    {"slice", operand_slice,
     "(self, dim: integer, first: integer, last?: integer): gpu.tensor",
     "A copy of first…last along dim.", NULL},
    {"cat", operand_cat,
     "(self, other: gpu.tensor, dim?: integer): gpu.tensor",
     "Both, one after the other along dim.", NULL},
    {"matmul", operand_matmul,
     "(self, other: gpu.tensor, options?: table): gpu.tensor",
     "Matrix product of the last two dimensions.", matmul_options},
    {"rmsnorm", operand_rmsnorm,
     "(self, weight: gpu.tensor, eps?: number): gpu.tensor",
     "x / √(mean x² + eps) · weight over the last dimension.", NULL},
    {"rope", operand_rope,
     "(self, table: gpu.tensor, options: table): gpu.tensor",
     "Rotary positions on the q and k heads of a fused qkv.", rope_options},
    {"attention", operand_attention,
     "(self, options: {heads: integer, kv_heads: integer}): gpu.tensor",
     "Causal attention on a fused qkv.", attention_options},
    {"__add", operand_add, NULL, NULL, NULL},
    {"__sub", operand_sub, NULL, NULL, NULL},
    {"__mul", operand_mul, NULL, NULL, NULL},
    {"__div", operand_div, NULL, NULL, NULL},
    {"__pow", operand_pow, NULL, NULL, NULL},
    {"__unm", operand_negative, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL}};
