-- Numbers of the self-test: each operator that tensors have, against plain
-- arithmetic. `case(name, got, want)` compares two lists and counts.
local gpu = require "gpu"

local selfcases = {}

local ROWS, WIDTH = 9, 7

local function numbers(n, seed)
  local list = {}
  for i = 1, n do
    seed = (1103515245 * seed + 12345) % 2147483648
    list[i] = seed / 1073741824 - 1
  end
  return list
end

local function rows(list, width)
  local out = {}
  for i = 1, #list, width do
    out[#out + 1] = table.move(list, i, i + width - 1, 1, {})
  end
  return out
end

local function flat(t) return t:reshape { t:numel() }:table() end

local function product(a, b, n, k, m)
  local out = {}
  for i = 0, n - 1 do
    for j = 0, m - 1 do
      local sum = 0
      for x = 0, k - 1 do
        sum = sum + a[i * k + x + 1] * b[x * m + j + 1]
      end
      out[#out + 1] = sum
    end
  end
  return out
end

-- f(x, i) of each number.
local function map(list, f)
  local out = {}
  for i, x in ipairs(list) do out[i] = f(x, i) end
  return out
end

local function each_row(list, f) return map(rows(list, WIDTH), f) end

local function sum_of(list)
  local sum = 0
  for _, x in ipairs(list) do sum = sum + x end
  return sum
end

local function sigmoid(x) return 1 / (1 + math.exp(-x)) end

local function softmax(row)
  local powers = map(row, math.exp)
  local sum = sum_of(powers)
  return map(powers, function(x) return x / sum end)
end

-- name, of a tensor, of a number.
local ELEMENTWISE = {
  { "add", function(A) return A + A end, function(x) return 2 * x end },
  { "sub", function(A) return A - A * A end, function(x) return x - x * x end },
  { "mul", function(A) return A * A end, function(x) return x * x end },
  { "div", function(A) return A / (A * A + 1) end,
    function(x) return x / (x * x + 1) end },
  { "affine", function(A) return A * 2 - 3 end,
    function(x) return 2 * x - 3 end },
  { "pow", function(A) return (A + 2) ^ 3 end,
    function(x) return (x + 2) ^ 3 end },
  { "exp", function(A) return A:exp() end, math.exp },
  { "log", function(A) return (A + 2):log() end,
    function(x) return math.log(x + 2) end },
  { "sqrt", function(A) return (A * A):sqrt() end, math.abs },
  { "tanh", function(A) return A:tanh() end,
    function(x) return 2 * sigmoid(2 * x) - 1 end },
  { "sigmoid", function(A) return A:sigmoid() end, sigmoid },
  { "relu", function(A) return A:relu() end,
    function(x) return math.max(x, 0) end },
  { "silu", function(A) return A:silu() end,
    function(x) return x * sigmoid(x) end },
}

local function reductions(case, A, a)
  case("sum", { A:sum():item() }, { sum_of(a) })
  case("mean", { A:mean():item() }, { sum_of(a) / #a })
  case("max", flat(A:max(2)), each_row(a, function(row)
    return math.max(table.unpack(row))
  end))
  case("min", flat(A:min(2)), each_row(a, function(row)
    return math.min(table.unpack(row))
  end))
  case("argmax", flat(A:argmax(2)), each_row(a, function(row)
    local best = 1
    for i, x in ipairs(row) do best = x > row[best] and i or best end
    return best - 1 -- an id
  end))
  local shares = {}
  for _, row in ipairs(rows(a, WIDTH)) do
    table.move(softmax(row), 1, WIDTH, #shares + 1, shares)
  end
  case("softmax", flat(A:softmax(2)), shares)
end

local function shapes(case, A, a)
  local turned = {}
  for j = 1, WIDTH do
    for i = 1, ROWS do turned[#turned + 1] = a[(i - 1) * WIDTH + j] end
  end
  case("transpose", flat(A:transpose(1, 2):clone()), turned)
  case("reshape", A:reshape { WIDTH, ROWS }:table()[2],
    table.move(a, ROWS + 1, 2 * ROWS, 1, {}))
  case("slice", flat(A:slice(1, 2, 3):clone()),
    table.move(a, WIDTH + 1, 3 * WIDTH, 1, {}))
  local twice = table.move(a, 1, #a, #a + 1, table.move(a, 1, #a, 1, {}))
  case("cat", flat(A:cat(A, 1)), twice)
  case("copy", flat(A:clone()), a)
  case("cast", gpu.tensor { 1, 2.5, -3 }:to("bf16"):to("f32"):table(),
    { 1, 2.5, -3 })
  case("fill", gpu.full { 3, value = 7 }:table(), { 7, 7, 7 })
  case("arange", gpu.arange { 3, first = 2, step = .5 }:table(), { 2, 2.5, 3 })
  case("randn", gpu.randn { 4, seed = 1 }:table(),
    { -.302234739, .0596793741, -1.00051713, 1.07262695 })
end

-- The gradient of f's sum over the last of its tensors.
local function gradient(f, ...)
  local list = gpu.grad(function(...) return f(...):sum() end, { ... })
  return flat(list[#list])
end

local function gradients(case, A, a)
  local first = table.move(a, 1, WIDTH, 1, {})
  local row = gpu.tensor(first)
  local function plus(x, y) return x + y end
  case("broadcast", flat(A + row), map(a, function(x, i)
    return x + a[(i - 1) % WIDTH + 1]
  end))
  case("sum_to", gradient(plus, A, row), map(first, function()
    return ROWS
  end))
  case("relu_backward", gradient(function(x) return x:relu() end, A),
    map(a, function(x) return x > 0 and 1 or 0 end))
  case("unslice", gradient(function(x) return x:slice(1, 1, 2) end, A),
    map(a, function(_, i) return i <= 2 * WIDTH and 1 or 0 end))
  -- d(Σ s²)/dx of a row = 2 s (s − Σ s²)
  local shares = softmax(first)
  local squares = sum_of(map(shares, function(s) return s * s end))
  case("softmax_backward", gradient(function(x)
    return x:softmax(2) ^ 2
  end, gpu.tensor { first }), map(shares, function(s)
    return 2 * s * (s - squares)
  end))
end

function selfcases.all(case)
  local a, b = numbers(ROWS * WIDTH, 1), numbers(WIDTH * 11, 2)
  local A = gpu.tensor(rows(a, WIDTH))
  case("matmul", flat(A:matmul(gpu.tensor(rows(b, 11)))),
    product(a, b, ROWS, WIDTH, 11))
  for _, e in ipairs(ELEMENTWISE) do
    case(e[1], flat(e[2](A)), map(a, function(x) return e[3](x) end))
  end
  reductions(case, A, a)
  shapes(case, A, a)
  gradients(case, A, a)
end

return selfcases
