-- How fast does this machine train, and where does the time go? For each model:
-- tokens/s, the rate of the model's own work beside a large matrix product's,
-- the speed-of-light share, and the operators that take the time.
--
--   llmhost experiments/bench.lua [key=value …]
--     models=nano   the sweep's four small models; full: its large ones
--     only=small    one of them        batch=8   seq=256   accumulate=4
--     storage=f32   or nf4r            steps=3   rows=12 operators
local gpu = require "gpu"
local host = require "host"
local profile = require "llm.profile"
local model = require "llm.model"
local program = require "llm.program"

local o = { models = "nano", only = "", batch = 8, seq = 256, accumulate = 4,
  storage = "f32", steps = 3, rows = 12 }

for _, word in ipairs(host.options.args or {}) do
  local key, value = word:match "^([%w_]+)=(.*)$"
  if o[key or ""] == nil then
    local known = {}
    for name in pairs(o) do known[#known + 1] = name end
    table.sort(known)
    host.raise("usage", "bench: '%s' is none of %s", word,
      table.concat(known, "=, ") .. "=")
  end
  o[key] = type(o[key]) == "number" and math.tointeger(value) or value
  if type(o[key]) ~= "string" and o[key] < 1 then
    host.raise("usage", "bench: %s must be a whole number from 1", key)
  end
end

local OPTIMIZER = { optimizer = "muon", lr = 1e-3, weight_decay = .1,
  muon_lr = .01, momentum = .95, clip = 1, warmup = .05, final = .1 }

local function compile(c)
  local shape = { vocab = c.vocab, dropout = .1 }
  for key, value in pairs(c.row) do shape[key] = value end
  return gpu.compile(model.transformer(shape), { batch = o.batch, seq = o.seq,
    accumulate = o.accumulate, quantize = o.storage ~= "f32" and o.storage
    or nil, optimizer = program.optimizer(OPTIMIZER, 1000), seed = 42 })
end

-- The calls of a profile by operator and pass, the longest first.
local function by_operator(rows)
  local sums, list = {}, {}
  for _, row in ipairs(rows) do
    local name = row.op .. (row.pass == "forward" and "" or ", " .. row.pass)
    local s = sums[name]
    if not s then
      s = { name = name, seconds = 0, flops = 0, bytes = 0, light = 0 }
      sums[name], list[#list + 1] = s, s
    end
    local runs = row.runs / o.steps
    s.seconds = s.seconds + row.seconds * runs
    s.flops = s.flops + row.flops * runs
    s.bytes = s.bytes + row.bytes * runs
    s.light = s.light + row.speed_of_light * row.seconds * runs
  end
  table.sort(list, function(a, b)
    if a.seconds ~= b.seconds then return a.seconds > b.seconds end
    return a.name < b.name
  end)
  return list
end

local function print_profile(rows)
  print(("  %-28s %10s %7s %8s %6s %6s"):format("operator", "ms a step",
    "share", "GFLOP/s", "GB/s", "light"))
  for i, s in ipairs(by_operator(rows)) do
    if i > o.rows then break end
    print(("  %-28s %10.2f %5.1f %% %8.1f %6.1f %4.0f %%"):format(s.name,
      1e3 * s.seconds, 100 * s.seconds / rows.seconds,
      s.flops / s.seconds / 1e9, s.bytes / s.seconds / 1e9,
      100 * s.light / s.seconds))
  end
end

local function measure(c)
  local p <close> = compile(c)
  local work, tokens = p:flops(), o.batch * o.seq * o.accumulate
  local rows = p:profile { steps = o.steps }
  local flops = work.model * o.accumulate + work.update
  print(("%s: %.0f tokens/s, %.1f ms a step of %d tokens, %.1f GFLOP/s")
    :format(c.row.name, tokens / rows.seconds, 1e3 * rows.seconds, tokens,
      flops / rows.seconds / 1e9))
  print(("  %.0f %% of a large matrix product's %.1f GFLOP/s; speed of light "
    .. "%.0f %%; copies reach %.1f GB/s"):format(
    100 * flops / rows.seconds / rows.peak_flops, rows.peak_flops / 1e9,
    100 * rows.speed_of_light, rows.peak_bandwidth / 1e9))
  print_profile(rows)
end

print("device " .. gpu.device() .. ", " .. tostring(gpu.version.build))
for _, row in ipairs(profile[o.models].models) do
  if o.only == "" or row.name == o.only then
    measure { row = row, vocab = o.models == "full" and 49152 or 4096 }
  end
end
