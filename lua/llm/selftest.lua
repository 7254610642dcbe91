-- The self-test that check.lua starts as a process of its own: numbers through
-- the device's operators against plain arithmetic, then tiny models of every
-- layer and storage format that must learn. On a GPU all of it runs on the CPU
-- too, and every loss must be the CPU's. Prints one line; exit code 1 when
-- something is wrong.
local gpu = require "gpu"
local nn = gpu.nn

local failed, checks, seen = {}, 0, {}
local here = gpu.device()       -- the device under test
local where = here              -- the one in turn
local losses = {}               -- by model, of the CPU

local function near(a, b)
  return math.abs(a - b) <= 1e-4 * math.max(1, math.abs(b))
end

local function case(name, got, want)
  checks, seen[name] = checks + 1, true
  for i, w in ipairs(want) do
    if not (got[i] and near(got[i], w)) then
      failed[#failed + 1] = name .. " on " .. where
      return
    end
  end
end

-- --- numbers ---------------------------------------------------------------

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

local function map(list, f)
  local out = {}
  for i, x in ipairs(list) do out[i] = f(x) end
  return out
end

local function each_row(list, f)
  local out = {}
  for i, row in ipairs(rows(list, WIDTH)) do out[i] = f(row) end
  return out
end

local function sum_of(list)
  local sum = 0
  for _, x in ipairs(list) do sum = sum + x end
  return sum
end

local function elementwise(A, a)
  case("add", flat(A + A), map(a, function(x) return 2 * x end))
  case("sub", flat(A - A * A), map(a, function(x) return x - x * x end))
  case("mul", flat(A * A), map(a, function(x) return x * x end))
  case("div", flat(A / (A * A + 1)), map(a, function(x)
    return x / (x * x + 1)
  end))
  case("exp", flat(A:exp()), map(a, math.exp))
  case("sqrt", flat((A * A):sqrt()), map(a, math.abs))
  case("silu", flat(A:silu()), map(a, function(x)
    return x / (1 + math.exp(-x))
  end))
end

local function reductions(A, a)
  case("sum", { A:sum():item() }, { sum_of(a) })
  case("mean", { A:mean():item() }, { sum_of(a) / #a })
  case("max", flat(A:max(2)), each_row(a, function(row)
    return math.max(table.unpack(row))
  end))
  case("min", flat(A:min(2)), each_row(a, function(row)
    return math.min(table.unpack(row))
  end))
  case("softmax", flat(A:softmax(2):sum(2)), each_row(a, function()
    return 1
  end))
end

local function shapes(A, a)
  local turned = {}
  for j = 1, WIDTH do
    for i = 1, ROWS do turned[#turned + 1] = a[(i - 1) * WIDTH + j] end
  end
  case("transpose", flat(A:transpose(1, 2):clone()), turned)
  case("slice", flat(A:slice(1, 2, 3):clone()),
    table.move(a, WIDTH + 1, 3 * WIDTH, 1, {}))
  local twice = table.move(a, 1, #a, #a + 1, table.move(a, 1, #a, 1, {}))
  case("cat", flat(A:cat(A, 1)), twice)
end

local function arithmetic()
  local a, b = numbers(ROWS * WIDTH, 1), numbers(WIDTH * 11, 2)
  local A = gpu.tensor(rows(a, WIDTH))
  case("matmul", flat(A:matmul(gpu.tensor(rows(b, 11)))),
    product(a, b, ROWS, WIDTH, 11))
  elementwise(A, a)
  reductions(A, a)
  shapes(A, a)
end

-- --- models that must learn --------------------------------------------------

local V, C, T = 64, 32, 16

local function original()
  return require("llm.model").transformer { vocab = V, d_model = C,
    n_layers = 2, n_heads = 4, n_kv_heads = 2, d_ff = 64, dropout = .05 }
end

local function llama()
  return nn.sequential {
    nn.embedding { V, C, name = "embedding" },
    nn.residual { nn.rmsnorm { C }, nn.attention { C, heads = 4,
      qk_norm = true, rope = { base = 10000, fraction = 1 } } },
    nn.residual { nn.rmsnorm { C }, nn.gated { C, 64 } },
    nn.rmsnorm { C, name = "norm" },
    nn.head { C, V, name = "head" },
  }
end

local function muon()
  return gpu.optim.groups { { match = "blocks.*.weight",
    gpu.optim.muon { lr = .02 } }, { gpu.optim.adamw { lr = .01 } },
    clip = 1 }
end

local function sgd() return gpu.optim.groups { { gpu.optim.sgd { lr = .5,
  momentum = .9 } } } end

local function batch()
  local x, y = {}, {}
  for i = 1, 2 do
    x[i], y[i] = {}, {}
    for t = 1, T do
      x[i][t], y[i][t] = (7 * t + i) % V, (7 * t + 7 + i) % V
    end
  end
  return gpu.tensor { x, dtype = "i32" }, gpu.tensor { y, dtype = "i32" }
end

-- The losses of `name` beside the CPU's: within `most` of them.
local function same_as_cpu(name, got, most)
  local want = losses[name]
  if where == "cpu" or not want then
    losses[name] = got
    return
  end
  checks = checks + 1
  for step, loss in ipairs(got) do
    local off = math.abs(loss / want[step] - 1)
    if not (off <= most) then
      failed[#failed + 1] = ("%s: loss of step %d is off the CPU's by %.2g")
        :format(name, step, off)
      return
    end
  end
end

-- most: how far a loss may be from the CPU's, relatively.
local function learns(name, model, options, most)
  options.precision = options.precision or "f32"
  local p <close> = gpu.compile(model, options)
  local x, y = batch()
  local got, last = {}, nil
  for step = 1, 12 do
    last = p:step(x, y, step)
    got[step] = last.loss
  end
  checks = checks + 1
  if not (last.finite and last.loss < got[1] - .2) then
    failed[#failed + 1] = ("%s does not learn on %s (%.3f to %.3f)"):format(
      name, where, got[1], last.loss)
  end
  same_as_cpu(name, got, most)
  for op in p:listing():gmatch "\n%s*%d+ %a+ +%a+ +([%w_]+) " do
    seen[op] = true
  end
end

-- A 4-bit code that falls on the other side moves a loss by more than rounding,
-- and plain momentum at this rate lets a rounding grow.
local EXACT, GROWN, CODES = 1e-4, 1e-2, 2e-2

local function models()
  learns("f32", original(), { batch = 2, seq = T, optimizer = muon() }, EXACT)
  learns("nf4r", original(), { batch = 2, seq = T, optimizer = muon(),
    quantize = "nf4r", saved = "int8", recompute = "block" }, CODES)
  learns("nf4r, accumulated", original(), { batch = 2, seq = T,
    accumulate = 2, optimizer = muon(), quantize = "nf4r",
    recompute = "mlp" }, CODES)
  learns("gated", llama(), { batch = 2, seq = T, optimizer = sgd() }, GROWN)
end

-- What a GPU trains in by default; the CPU's f32 losses are the measure.
local function mixed()
  losses.bf16 = losses.f32
  learns("bf16", original(), { batch = 2, seq = T, optimizer = muon(),
    precision = "bf16" }, 3e-2)
end

for _, name in ipairs(here == "cpu" and { "cpu" } or { "cpu", here }) do
  where = gpu.device(name)
  arithmetic()
  models()
  if name ~= "cpu" then mixed() end
end
if #failed > 0 then
  print("wrong: " .. table.concat(failed, ", "))
  os.exit(1, true)
end
local used, all = 0, gpu.operators()
for _, op in ipairs(all) do if seen[op] then used = used + 1 end end
print(("%d checks passed, %d of %d operators used%s"):format(checks, used,
  #all, here ~= "cpu" and ", " .. here .. " = cpu" or ""))
