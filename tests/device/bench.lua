-- Tokens per second of the sweep's four models on the current device, and
-- where the time goes.
--
--   llmhost tests/device/bench.lua [key=value …]
--     models=512,768   batch=96,24   steps=20   profile=96   precision=bf16
--     recompute=none   quantize=nf4r   head_chunk=0   fuse_group=0
--     attention=off: two linear layers in its place
--     tune=FILE: algorithms chosen by measuring, kept there
local gpu = require "gpu"
local model = require "llm.model"
local program = require "llm.program"

local SIZES = { ["512"] = { 512, 8, 8 }, ["768"] = { 768, 12, 12 },
  ["1024"] = { 1024, 16, 16 }, ["1280"] = { 1280, 20, 20 } }

local o = { models = "512,768,1024,1280", batch = "96,24", steps = "20",
  profile = "", precision = "bf16", recompute = "none", quantize = "",
  head_chunk = "0", fuse_group = "0", saved = "native", dropout = "0.1",
  vocab = "49152", attention = "on", tune = "" }
for _, word in ipairs(arg) do
  local key, value = word:match "^([%w_]+)=(.*)$"
  if not o[key or ""] then error("unknown option " .. word) end
  o[key] = value
end

local function random_ids(batch, seed)
  local rows, state = {}, seed
  for b = 1, batch do
    local row = {}
    for t = 1, 512 do
      state = (state * 6364136223846793005 + 1442695040888963407)
      row[t] = (state >> 33) % tonumber(o.vocab)
    end
    rows[b] = row
  end
  rows.dtype = "i32"
  return gpu.tensor(rows)
end

-- The transformer, or the same with qkv and o projections alone.
local function build(c)
  if o.attention == "on" then return model.transformer(c) end
  local nn, C, p = gpu.nn, c.d_model, c.dropout
  local embedding = nn.embedding { c.vocab, C, name = "embedding" }
  local blocks = { name = "blocks" }
  for i = 1, c.n_layers do
    blocks[i] = nn.sequential {
      nn.residual { nn.rmsnorm { C }, nn.linear { C, 3 * C },
        nn.linear { 3 * C, C }, nn.dropout { p } },
      nn.residual { nn.rmsnorm { C }, nn.linear { C, c.d_ff }, nn.silu {},
        nn.dropout { p }, nn.linear { c.d_ff, C }, nn.dropout { p } },
    }
  end
  return nn.sequential { embedding, nn.dropout { p }, nn.sequential(blocks),
    nn.rmsnorm { C }, nn.dropout { p }, nn.head { tied = embedding } }
end

local function compile(size, batch)
  local c, t = SIZES[size], { lr = 1e-3, weight_decay = .1, clip = 1,
    warmup = .05, final = .1, muon_lr = .01, momentum = .95,
    optimizer = "muon" }
  return gpu.compile(build { d_model = c[1], n_layers = c[2],
    n_heads = c[3], d_ff = 4 * c[1], vocab = tonumber(o.vocab),
    dropout = tonumber(o.dropout) }, {
    batch = batch, seq = 512, precision = o.precision,
    recompute = o.recompute, saved = o.saved,
    quantize = o.quantize ~= "" and o.quantize or nil,
    head_chunk = tonumber(o.head_chunk) > 0 and math.tointeger(o.head_chunk)
      or nil,
    fuse_group = tonumber(o.fuse_group) > 0 and math.tointeger(o.fuse_group)
      or nil,
    optimizer = program.optimizer(t, 1000), seed = 42 })
end

local function median(x)
  table.sort(x)
  return x[#x // 2 + 1]
end

-- One line a kind of call: share of the time, speed against the peaks.
local function print_profile(p)
  local r, sums, names = p:profile { steps = 3 }, {}, {}
  for _, row in ipairs(r) do
    local name = row.op .. (row.pass == "forward" and "" or "." .. row.pass)
    local s = sums[name]
    if not s then
      s = { name = name, seconds = 0, flops = 0, bytes = 0, calls = 0 }
      sums[name], names[#names + 1] = s, s
    end
    local runs = row.runs / 3
    s.calls = s.calls + runs
    s.seconds = s.seconds + row.seconds * runs
    s.flops = s.flops + row.flops * runs
    s.bytes = s.bytes + row.bytes * runs
  end
  table.sort(names, function(a, b)
    if a.seconds ~= b.seconds then return a.seconds > b.seconds end
    return a.name < b.name
  end)
  print(("  profile: %.2f ms call by call, speed of light %.1f %%, peaks "
    .. "%.0f TFLOP/s %.2f TB/s"):format(r.seconds * 1e3,
    r.speed_of_light * 100, r.peak_flops / 1e12, r.peak_bandwidth / 1e12))
  for i = 1, math.min(#names, 26) do
    local s = names[i]
    print(("  %-28s %4d calls %8.3f ms %5.1f %% %7.1f TFLOP/s %6.2f TB/s")
      :format(s.name, s.calls, s.seconds * 1e3, 100 * s.seconds / r.seconds,
        s.flops / s.seconds / 1e12, s.bytes / s.seconds / 1e12))
  end
end

local function run(size, batch)
  local p = compile(size, batch)
  local x, y = random_ids(batch, 1), random_ids(batch, 2)
  local start = os.clock()
  local first = p:step(x, y, 1)
  local seconds = {}
  for i = 1, math.tointeger(o.steps) + 5 do
    local r = p:step(x, y, i + 1)
    if i > 5 then seconds[#seconds + 1] = r.seconds end
    if not (r.finite or r.skipped) then error "not finite" end
    if i == math.tointeger(o.steps) + 5 then first.last = r.loss end
  end
  local s = median(seconds)
  local c = SIZES[size]
  local memory, count = p:memory(), p:count()
  local flops = 6 * count.parameters + 6 * c[2] * c[1] * 512
  local rate = batch * 512 / s
  print(("%4s x %-3d %-4s %9.0f tokens/s  %7.3f ms (%.3f … %.3f)  MFU %4.1f"
    .. " %%  planned %.2f GiB  loss %.4f %.4f"):format(size, batch, o.precision,
    rate, s * 1e3, seconds[1] * 1e3, seconds[#seconds] * 1e3,
    rate * flops / 989e12 * 100, memory.peak / 2^30, first.loss, first.last))
  io.stdout:flush()
  if ("," .. o.profile .. ","):find("," .. batch .. ",", 1, true) then
    print_profile(p)
  end
  return start
end

if o.tune ~= "" then gpu.tune(o.tune) end
for size in o.models:gmatch "[^,]+" do
  for batch in o.batch:gmatch "[^,]+" do
    local ok, message = pcall(run, size, math.tointeger(batch))
    if not ok then print(size, batch, tostring(message)) end
    collectgarbage()
    collectgarbage()
  end
end
