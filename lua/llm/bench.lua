-- One configuration timed in this process: a model of a profile trained on
-- random tokens, its memory, its operators. Gives a plain record.
local driver = require "llm.driver"
local gpu = require "gpu"
local host = require "host"
local model = require "llm.model"
local program = require "llm.program"
local sgemm = require "llm.sgemm"

local bench = {}

-- What can be asked for beside the plain run (nothing made again), by name.
bench.variants = {
  none = {},
  light = { recompute = "light" },
  block = { recompute = "block" },
  int8 = { saved = "int8" },
  fp8 = { precision = "fp8" },
  fp4 = { storage = "nf4r" },
  ["fp4-light"] = { storage = "nf4r", recompute = "light" },
  ["fp4-int8"] = { storage = "nf4r", recompute = "light", saved = "int8" },
  ["fp4-fp8"] = { storage = "nf4r", precision = "fp8" },
}

local OPTIMIZER = { optimizer = "muon", lr = 1e-3, weight_decay = .1,
  muon_lr = .01, momentum = .95, clip = 1, warmup = .05, final = .1 }

local function layers(c)
  local shape = { vocab = c.vocab, dropout = c.dropout }
  for key, value in pairs(c.row) do shape[key] = value end
  return model.transformer(shape)
end

local function compile(c, tree)
  return gpu.compile(tree, { batch = c.batch, seq = c.seq,
    accumulate = c.accumulate, quantize = c.storage,
    recompute = c.recompute or "none", saved = c.saved, precision = c.precision,
    head_chunk = c.head_chunk, fuse_group = c.fuse_group,
    optimizer = program.optimizer(OPTIMIZER, 1000), seed = 42 })
end

-- Ids of one micro-batch in host memory, where a loader has them.
local function random_ids(c, seed)
  local rows, state = { dtype = "i32" }, seed
  for b = 1, c.batch do
    local row = {}
    for t = 1, c.seq do
      state = state * 6364136223846793005 + 1442695040888963407
      row[t] = (state >> 33) % c.vocab
    end
    rows[b] = row
  end
  return gpu.tensor(rows)
end

-- The calls of a profile by operator and pass, the longest first.
function bench.by_operator(rows, steps)
  local sums, list = {}, {}
  for _, row in ipairs(rows) do
    local name = row.op .. (row.pass == "forward" and "" or ", " .. row.pass)
    local s = sums[name]
    if not s then
      s = { name = name, calls = 0, seconds = 0, flops = 0, bytes = 0,
        light = 0 }
      sums[name], list[#list + 1] = s, s
    end
    local runs = row.runs / steps
    s.calls = s.calls + runs
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

local function median(list)
  table.sort(list)
  local n = #list
  return n % 2 == 1 and list[n // 2 + 1]
    or (list[n // 2] + list[n // 2 + 1]) / 2
end

-- Steps after `c.warmup` ones: the seconds of each, first and last loss.
-- `after(seconds)` is called after each step that counts.
local function time_steps(p, c, x, y, out, after)
  local seconds = {}
  for i = 1, c.warmup + c.steps do
    local r = p:step(x, y, i)
    if not (r.finite or r.skipped) then
      error("step " .. i .. " is not finite", 0)
    end
    if i == 1 then
      out.first_loss = r.loss
      out.first_step_seconds = c.began and host.clock() - c.began
    end
    if i > c.warmup then
      seconds[#seconds + 1] = r.seconds
      after(r.seconds)
    end
    out.loss = r.loss
  end
  return seconds
end

-- `ids`: bytes of the batch, on a CPU counted beside the program's.
local function memory_of(p, ids, out)
  local stats, here = gpu.memory.stats(), driver.memory()
  out.planned, out.accounted = p:memory().peak, stats.peak
  if gpu.device() == "cpu" then out.accounted = stats.peak - ids end
  if gpu.device() == "cpu" then
    out.process = host.process.memory().peak
  else
    out.process, out.beyond = here.process, driver.beyond(here)
  end
end

-- A function for after each step that counts: the memory that the first took
-- and, on a CPU, the share of sgemm: the step's necessary work a second over
-- the rate of the model's own products, timed here, where both met the same
-- machine.
local function after_step(p, c, tree, ids, out)
  local products = gpu.device() == "cpu"
    and sgemm.products(tree, c.batch * c.seq)
  local shares, rates = {}, {}
  out.necessary_flops = products and p:flops().model * c.accumulate
    + sgemm.update_flops(tree) or nil
  return function(seconds)
    if not out.planned then memory_of(p, ids, out) end
    if not products then return end
    rates[#rates + 1] = sgemm.rate(products)
    shares[#shares + 1] = out.necessary_flops / seconds / rates[#rates]
    out.sgemm_share = median { table.unpack(shares) }
    out.sgemm_flops = median { table.unpack(rates) }
  end
end

local function add_profile(p, c, out)
  local rows = p:profile { steps = c.profile }
  out.peak_flops, out.peak_bandwidth = rows.peak_flops, rows.peak_bandwidth
  out.least_seconds = rows.speed_of_light * rows.seconds
  out.speed_of_light = out.least_seconds / out.step_seconds
  out.call_by_call_seconds = rows.seconds
  out.operators = bench.by_operator(rows, c.profile)
end

local function device_model()
  local name = gpu.device()
  for _, d in ipairs(gpu.devices()) do
    if d.name == name then return d.model end
  end
end

-- c: row (of a profile), vocab, batch, seq, accumulate, dropout, steps, warmup,
-- tune (choose algorithms by measuring), profile (steps; 0: none), began (clock
-- at the start of the process, or nil), and what a variant sets. The record's
-- memory is in bytes.
function bench.measure(c)
  local device = gpu.device()
  gpu.device "cpu"
  local x, y = random_ids(c, 1), random_ids(c, 2)
  gpu.device(device)
  if c.tune then gpu.tune() end
  local out = { device = device_model(), tokens = c.batch * c.seq
    * c.accumulate }
  local tree = layers(c)
  local p <close> = compile(c, tree)
  local seconds = time_steps(p, c, x, y, out,
    after_step(p, c, tree, x:bytes() + y:bytes(), out))
  out.step_seconds = median(seconds)
  out.step_seconds_min, out.step_seconds_max = seconds[1], seconds[#seconds]
  out.tokens_per_second = out.tokens / out.step_seconds
  out.model_flops = p:flops().model * c.accumulate
  out.parameters = p:count().parameters
  out.tuning = (gpu.tuning() or {}).hash
  local use = gpu.utilization()
  if use then out.throttled, out.reasons = use.throttled, use.reasons end
  if c.profile > 0 then add_profile(p, c, out) end
  return out
end

return bench
