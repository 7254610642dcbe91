-- The self-test that check.lua starts as a process of its own: a few numbers
-- through the device's operators against plain arithmetic. Prints one line;
-- exit code 1 when something is wrong.
local gpu = require "gpu"

local failed, done = {}, 0

local function near(a, b)
  return math.abs(a - b) <= 1e-4 * math.max(1, math.abs(b))
end

local function case(name, got, want)
  done = done + 1
  for i, w in ipairs(want) do
    if not (got[i] and near(got[i], w)) then
      failed[#failed + 1] = name
      return
    end
  end
end

local function flat(t) return t:reshape { t:numel() }:table() end

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

local function run()
  local a, b = numbers(63, 1), numbers(77, 2)
  local A, B = gpu.tensor(rows(a, 7)), gpu.tensor(rows(b, 11))
  case("matmul", flat(A:matmul(B)), product(a, b, 9, 7, 11))
  case("add", flat(A + A), map(a, function(x) return 2 * x end))
  case("mul", flat(A * A), map(a, function(x) return x * x end))
  case("exp", flat(A:exp()), map(a, math.exp))
  case("silu", flat(A:silu()), map(a, function(x)
    return x / (1 + math.exp(-x))
  end))
  local sum = 0
  for _, x in ipairs(a) do sum = sum + x end
  case("sum", { A:sum():item() }, { sum })
  local total = flat(A:softmax(2))
  for i = 1, 9 do
    local s = 0
    for j = 1, 7 do s = s + total[(i - 1) * 7 + j] end
    case("softmax", { s }, { 1 })
  end
end

if gpu.selftest then
  local ok, text = gpu.selftest()
  print(text or (ok and "passed" or "failed"))
  os.exit(ok and 0 or 1, true)
end
run()
if #failed > 0 then
  print("wrong: " .. table.concat(failed, ", "))
  os.exit(1, true)
end
print(done .. " operator checks passed")
