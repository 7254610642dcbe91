-- NF4R learns its 4-bit weights, and what must fail without it does: a decoder
-- on an artificial language (the next token follows from the two before it,
-- four times out of five), 300 steps at a constant rate, two seeds.
local check = require "check"
local gpu = require "gpu"
local nn = gpu.nn

local V, C, F, B, T, STEPS = 48, 64, 256, 16, 32, 300

local function block()
  return nn.sequential {
    nn.residual { nn.rmsnorm { C }, nn.attention { C, heads = 4,
      rope = { fraction = .5, inclusive = true }, name = "attention" } },
    nn.residual { nn.rmsnorm { C }, nn.linear { C, F, name = "mlp.up" },
      nn.silu {}, nn.linear { F, C, name = "mlp.down" } } }
end

local function model()
  local e = nn.embedding { V, C, scale = 8, name = "embedding" }
  return nn.sequential { e, nn.sequential { name = "blocks", block(),
    block() }, nn.rmsnorm { C }, nn.head { tied = e } }
end

local function dice(seed)
  return function(sides)
    seed = (seed * 1103515245 + 12345) % 2147483648
    return seed // 65536 % sides
  end
end

local follows = {}
do
  local roll = dice(99)
  for i = 0, 8 * V - 1 do follows[i] = roll(V) end
end

local function batch(number)
  local roll = dice(number * 7919 + 17)
  local x, y = { dtype = "i32" }, { dtype = "i32" }
  for i = 1, B do
    local a, b = roll(V), roll(V)
    x[i], y[i] = {}, {}
    for j = 1, T do
      local n = roll(10) < 8 and follows[a % 8 * V + b] or roll(V)
      x[i][j], y[i][j] = b, n
      a, b = b, n
    end
  end
  return gpu.tensor(x), gpu.tensor(y)
end

local function codes(p)
  return gpu.quant.nf4(p:parameter "blocks.1.mlp.up.weight").codes:table()
end

-- The share of codes that differ, [F][C] each.
local function changed(a, b)
  local n, count = 0, 0
  for i, row in ipairs(a) do
    for j, code in ipairs(row) do
      count = count + 1
      if code ~= b[i][j] then n = n + 1 end
    end
  end
  return n / count
end

local function heldout(p)
  local loss = 0
  for i = 1, 8 do
    local x, y = batch(100000 + i)
    loss = loss + p:evaluate(x, y).loss / 8
  end
  return loss
end

-- Held-out loss after training, and the share of changed codes.
local function train(format, seed)
  local p <close> = gpu.compile(model(), { batch = B, seq = T, seed = seed,
    quantize = format, optimizer = gpu.optim.groups {
      { match = "blocks.*.weight", gpu.optim.muon { lr = .015 } },
      { gpu.optim.adamw { lr = .003 } }, clip = 1 } })
  local before = codes(p)
  for i = 1, STEPS do
    local x, y = batch(i)
    p:step(x, y, i)
  end
  return heldout(p), changed(before, codes(p))
end

local loss, moved = {}, {}
local function measure(format)
  loss[format], moved[format] = 0, 0
  for seed = 1, 2 do
    local l, m = train(format, seed)
    loss[format] = loss[format] + l / 2
    moved[format] = moved[format] + m / 2
  end
  print(("# %-14s held-out loss %.4f, codes changed %.0f %%"):format(format,
    loss[format], 100 * moved[format]))
end

check.case("the baseline and NF4R learn", function()
  measure "f32"
  measure "nf4r"
  check.truthy(loss.f32 < 2, "the baseline reached " .. loss.f32)
  check.truthy(loss.nf4r - loss.f32 < .04, "NF4R's gap is "
    .. loss.nf4r - loss.f32)
  check.truthy(moved.nf4r > .5, "codes changed: " .. moved.nf4r)
end)

for _, control in ipairs { "nf4_nearest", "nf4_stochastic", "nf4_frozen" } do
  check.case(control .. " fails as it must", function()
    measure(control)
    local gap = math.max(loss.nf4r - loss.f32, .005)
    local worse = loss[control] - loss.f32
    check.truthy(worse >= 3 * gap, ("its gap is %.4f, NF4R's %.4f"):format(
      worse, gap))
  end)
end

check.done()
