-- Losses over some hundred steps on a text, byte by byte, in several
-- precisions from the same weights and batches.
--
--   llmhost tests/device/loss.lua TEXT [key=value …]
--     steps=500   batch=48   d_model=512   layers=8   variants=bf16,fp8
--     A variant is a precision, with +nf4r for 4-bit weights.
local gpu = require "gpu"
local model = require "llm.model"
local program = require "llm.program"

local o = { steps = "500", batch = "48", d_model = "512", layers = "8",
  variants = "bf16,fp8,bf16+nf4r,fp8+nf4r", seed = "42" }
for i = 2, #arg do
  local key, value = arg[i]:match "^([%w_]+)=(.*)$"
  if not o[key or ""] then error("unknown option " .. arg[i]) end
  o[key] = value
end
local STEPS, BATCH = math.tointeger(o.steps), math.tointeger(o.batch)
local SEQ, HELD = 512, 8 -- batches at the end that are never trained on

local file = assert(io.open(arg[1], "rb"))
local text = file:read "a"
file:close()

-- Windows of the text from a counter: inputs and the bytes that follow.
local function batch(first, last, counter)
  local x, y = { dtype = "i32" }, { dtype = "i32" }
  for b = 1, BATCH do
    counter = counter * 6364136223846793005 + 1442695040888963407
    local at = first + (counter >> 33) % (last - first - SEQ - 1)
    local row = { text:byte(at, at + SEQ) }
    y[b] = table.move(row, 2, SEQ + 1, 1, {})
    row[SEQ + 1] = nil
    x[b] = row
  end
  return gpu.tensor(x), gpu.tensor(y)
end

local EDGE = #text * 9 // 10
local function run(variant)
  local precision, storage = variant:match "^(%w+)%+?(%w*)$"
  local t = { lr = 1e-3, weight_decay = .1, clip = 1, warmup = .05,
    final = .1, muon_lr = .01, momentum = .95, optimizer = "muon" }
  local C = math.tointeger(o.d_model)
  local p = gpu.compile(model.transformer { d_model = C, n_heads = C // 64,
    n_layers = math.tointeger(o.layers), d_ff = 4 * C, vocab = 256,
    dropout = .1 }, { batch = BATCH, seq = SEQ, precision = precision,
    recompute = "none", quantize = storage ~= "" and storage or nil,
    optimizer = program.optimizer(t, STEPS),
    seed = math.tointeger(o.seed) })
  local curve, sum = {}, 0
  for i = 1, STEPS do
    local x, y = batch(1, EDGE, i)
    local r = p:step(x, y, i)
    assert(r.finite or r.skipped, "not finite at step " .. i)
    if i % (STEPS // 5) == 0 then
      curve[#curve + 1] = ("%.4f"):format(r.loss)
    end
  end
  for i = 1, HELD do
    local x, y = batch(EDGE, #text, 1000000 + i)
    sum = sum + p:evaluate(x, y).loss
  end
  return sum / HELD, curve
end

local base
for variant in o.variants:gmatch "[^,]+" do
  local loss, curve = run(variant)
  base = base or loss
  print(("%-12s held out %.4f nats (%+.4f, perplexity %+.2f %%), steps %s")
    :format(variant, loss, loss - base, 100 * (math.exp(loss - base) - 1),
      table.concat(curve, " ")))
  io.stdout:flush()
  collectgarbage()
  collectgarbage()
end
