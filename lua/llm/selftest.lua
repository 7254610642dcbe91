-- The self-test that check.lua starts as a process of its own: numbers through
-- the device's operators against plain arithmetic, then tiny models of every
-- layer and storage format that must learn. On a GPU all of it runs on the CPU
-- too, and every loss must be the CPU's. Prints one line; exit code 1 when
-- something is wrong.
local cases = require "llm.selfcases"
local cudacheck = require "llm.cudacheck"
local gpu = require "gpu"
local nn = gpu.nn

local failed, checks, seen = {}, 0, {}
local here = gpu.device()       -- the device under test
local where = here              -- the one in turn
local losses = {}               -- by model, of the CPU
local said = {}                 -- and what it gave beside them

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

-- What no model of the library has: biases, other activations, parts of rows.
local function functions()
  local e = nn.embedding { V, C, name = "embedding" }
  return nn.sequential {
    e, nn.residual { nn.linear { C, C, bias = true } },
    nn.layer { name = "mixed", parameters = { ["w.weight"] = { C, C },
      ["w.bias"] = { C } },
      forward = function(p, x)
        local y = x:matmul(p["w.weight"]) + p["w.bias"]
        local half = C // 2
        local gate = y:slice(3, 1, half):sigmoid()
        return (gate * y:slice(3, half + 1)):cat(gate:tanh(), 3)
          + x:softmax(3) + y:relu()
      end },
    nn.residual { nn.linear { C, C } }, nn.head { tied = e },
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
  for op in ("\n" .. p:listing()):gmatch "\n%s*%d+ %a+ +%a+ +([%w_]+) " do
    seen[op] = true
  end
  return p:evaluate(x, y).loss, p:generate({ 1, 8, 15 }, { max = 8,
    temperature = 0 })
end

-- A model learns, is evaluated, and continues a text through its cache: as far
-- as the CPU's does, and with the ids that the CPU gave.
local function speaks(name, ...)
  local loss, ids = learns(name, ...)
  seen.head_loss, seen.attention_cached = true, true
  local known = said[name] or { loss = loss, ids = ids }
  said[name] = known
  case(name .. ", evaluated", { loss }, { known.loss })
  case(name .. ", continued", ids, known.ids)
end

-- A 4-bit code that falls on the other side moves a loss by more than rounding,
-- and plain momentum at this rate lets a rounding grow.
local EXACT, GROWN, CODES = 1e-4, 1e-2, 2e-2

local function models()
  speaks("f32", original(), { batch = 2, seq = T, optimizer = muon() }, EXACT)
  learns("nf4r", original(), { batch = 2, seq = T, optimizer = muon(),
    quantize = "nf4r", saved = "int8", recompute = "block" }, CODES)
  learns("nf4r, accumulated", original(), { batch = 2, seq = T,
    accumulate = 2, optimizer = muon(), quantize = "nf4r",
    recompute = "mlp" }, CODES)
  learns("gated", llama(), { batch = 2, seq = T, optimizer = sgd() }, GROWN)
  learns("functions", functions(), { batch = 2, seq = T, accumulate = 2,
    optimizer = muon() }, GROWN)
end

-- The levels of NF4 (Dettmers et al. 2023).
local NF4 = { -1, -.6961928, -.52507305, -.3949175, -.28444138, -.18477343,
  -.091050036, 0, .0795803, .1609302, .2461123, .33791524, .44070983,
  .562617, .72295684, 1 }

-- What blocks of 64 numbers are in 4 bits.
local function in_four_bits(list)
  local out = {}
  for first = 1, #list, 64 do
    local most = 0
    for i = first, first + 63 do most = math.max(most, math.abs(list[i])) end
    for i = first, first + 63 do
      local best = NF4[1]
      for _, level in ipairs(NF4) do
        if math.abs(list[i] / most - level) < math.abs(list[i] / most - best)
        then
          best = level
        end
      end
      out[i] = best * most
    end
  end
  return out
end

-- A 4-bit weight takes given values.
local function assigned()
  local p <close> = gpu.compile(nn.sequential { nn.embedding { V, C,
    name = "embedding" }, nn.linear { C, C, name = "square" },
    nn.head { C, V, name = "head" } }, { batch = 2, seq = T,
    precision = "f32", quantize = "nf4r" })
  local name = "square.weight"
  local values = p:parameter(name):reshape { C * C }:table()
  for i = 1, #values do values[i] = (i * 37 % 101 - 50) / 50 + 1e-4 * i end
  p:assign(name, gpu.tensor(values):reshape { C, C })
  case("nf4r_encode", p:parameter(name):reshape { C * C }:table(),
    in_four_bits(values))
end

-- Models in fp8.
local function coded()
  learns("fp8", original(), { batch = 2, seq = T, optimizer = muon(),
    precision = "fp8" }, CODES)
  learns("nf4r, fp8", original(), { batch = 2, seq = T, optimizer = muon(),
    precision = "fp8", quantize = "nf4r" }, CODES)
end

-- What a GPU trains in by default, and its fast products of f32; the CPU's f32
-- losses are the measure.
local function mixed()
  losses.bf16 = losses.f32
  learns("bf16", original(), { batch = 2, seq = T, optimizer = muon(),
    precision = "bf16" }, 3e-2)
  losses.tf32 = losses.f32
  learns("tf32", original(), { batch = 2, seq = T, optimizer = muon(),
    precision = "tf32" }, GROWN)
end

-- Whether the device in turn has fp8: a CPU computes it by hand.
local function has_fp8()
  for _, d in ipairs(gpu.devices()) do
    if d.name == where and d.backend ~= "cpu" then
      return cudacheck.fp8(d.capability)
    end
  end
  return true
end

for _, name in ipairs(here == "cpu" and { "cpu" } or { "cpu", here }) do
  where = gpu.device(name)
  cases.all(case)
  models()
  assigned()
  if has_fp8() then coded() end
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
