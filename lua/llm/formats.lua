-- Every quantized format on the weights of a trained run: bytes, error, and
-- what the validation loss would be had they only been rounded at the end.
local checkpoint = require "llm.checkpoint"
local data = require "llm.data"
local fail = require "llm.fail"
local gpu = require "gpu"
local host = require "host"
local program = require "llm.program"
local state = require "llm.state"

local formats = {}

-- { word of gpu.quant, its options, label }
formats.list = {
  { "int8", {}, "int8" },
  { "e4m3", {}, "e4m3" },
  { "int4", {}, "int4" },
  { "nf4", {}, "nf4" },
  { "nf4", { search = true }, "nf4, searched scale" },
  { "nf4", { double = true }, "nf4, double" },
  { "fp4", {}, "fp4 (bitsandbytes)" },
  { "nvfp4", {}, "nvfp4" },
  { "mxfp4", {}, "mxfp4" },
}

-- The quantizable parameters of a model, by name.
local function weights_of(e, build, p)
  local list = {}
  for _, row in ipairs(program.model(e, build):parameters()) do
    if row.quantizable then
      list[#list + 1] = { name = row.name, value = p:parameter(row.name) }
    end
  end
  return list
end

-- The program is left with rounded weights. Sums are over all weights.
local function row_of(format, p, weights, evaluate)
  local row = { label = format[3], bytes = 0, max = 0 }
  local error, power, count = 0, 0, 0
  for _, w in ipairs(weights) do
    local q <close> = gpu.quant[format[1]](w.value, format[2])
    local e = gpu.quant.error(w.value, q)
    local n = w.value:numel()
    row.bytes = row.bytes + q:bytes()
    row.max = math.max(row.max, e.max)
    error, count = error + e.mse * n, count + n
    power = power + (e.relative > 0 and e.mse / e.relative * n or 0)
    p:assign(w.name, q:dequantize())
  end
  row.bits = 8 * row.bytes / count
  row.relative = power > 0 and error / power or 0
  row.loss = evaluate()
  return row
end

-- Rows { label, bytes, bits, relative, max, loss } of the newest checkpoint of
-- the experiment `name`, on the CPU, and the loss and bytes of the weights as
-- they are; `tokens` of validation text are looked at.
function formats.measure(sweep, name, tokens)
  local e = sweep:experiment(name)
  local s = assert(state.read(sweep.out .. "/journal.jsonl"))
  local folder, at = checkpoint.latest(sweep.out .. "/runs/" .. name)
  if not folder or not s.data then
    fail.raise("error", "%s/runs/%s has no checkpoint", sweep.out, name)
  end
  local copy = setmetatable({ train = setmetatable({ precision = "f32" },
    { __index = e.train }) }, { __index = e })
  local p <close> = program.compile(copy, sweep.build, { batch = 1,
    accumulate = 1, steps = at.steps, device = "cpu" })
  assert(p:load(folder))
  local text = data.open(s.data)
  local function evaluate()
    return p:evaluate(data.validation(text.validation, e), tokens).loss
  end
  local out = { loss = evaluate(), bytes = 0 }
  local weights = weights_of(e, sweep.build, p)
  for _, w in ipairs(weights) do out.bytes = out.bytes + w.value:bytes() end
  for i, format in ipairs(formats.list) do
    out[i] = row_of(format, p, weights, evaluate)
  end
  return out
end

-- The table as lines of text.
function formats.lines(t)
  local lines = { ("%-20s %6s %9s %10s %9s"):format("format", "bits", "MB",
    "rel. MSE", "val loss") }
  local function add(label, bits, bytes, relative, loss)
    lines[#lines + 1] = ("%-20s %6.3f %9.3f %10s %9.4f"):format(label, bits,
      bytes / 1e6, relative, loss)
  end
  add("f32, as trained", 32, t.bytes, "0", t.loss)
  for _, r in ipairs(t) do
    add(r.label, r.bits, r.bytes, ("%.2e"):format(r.relative), r.loss)
  end
  return lines
end

-- Measure and print; the hook on_finish of experiments/quantize.lua.
function formats.report(sweep, name, tokens)
  local json = host.options.json or sweep.config.flags.json
  local out = json and io.stderr or io.stdout
  out:write(("\nEvery format on the linear weights of %s, rounded after "
    .. "training:\n"):format(name))
  local measured = formats.measure(sweep, name, tokens)
  out:write(table.concat(formats.lines(measured), "\n"), "\n")
end

return formats
