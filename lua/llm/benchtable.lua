-- The bench's table and profiles as lines of at most 100 columns.
local columns = require "llm.columns"
local datasheet = require "llm.datasheet"
local size = require "llm.size"

local benchtable = {}

-- What a trainer with perfect glue would reach: the model's products at the
-- rate of PyTorch's cuBLAS one by one and the best attention, tokens/s at
-- 96 x 512 in bf16 on one H200.
local FLOORS = { H200 = { [512] = 1.86e6, [768] = 788e3, [1024] = 403e3,
  [1280] = 219e3 } }

-- Operations a second that stand for 100 %, and where they are from.
function benchtable.peak(r, precision)
  local promised = datasheet.peak(r.device, precision)
  if promised then return promised, "the data sheet's dense bf16" end
  return r.peak_flops, "a large product, measured"
end

local function floor_of(r, c)
  for word, rates in pairs(FLOORS) do
    if (r.device or ""):find(word, 1, true) and c.batch == 96
      and c.seq == 512 and c.accumulate == 1 and c.vocab == 49152 then
      return rates[c.row.d_model]
    end
  end
end

local function rate(x)
  if not x then return "-" end
  if x >= 1e6 then return ("%.3fM"):format(x / 1e6) end
  if x >= 1e4 then return ("%.1fk"):format(x / 1e3) end
  return ("%.0f"):format(x)
end

local function number(x, format) return x and format:format(x) or "-" end

local function ratio(a, b) return a and b and b > 0 and a / b or nil end

local function percent(x) return x and ("%.1f%%"):format(100 * x) or "-" end

local function gib(x) return number(x and x / 2 ^ 30, "%.2f") end

-- entry: c (configuration), variant, ours and peer (records or nil), note.
local function cells(entry)
  local c, r, p = entry.c, entry.ours or {}, entry.peer or {}
  local peak = benchtable.peak(r, c.precision)
  local flops = ratio(r.model_flops, r.step_seconds)
  local own = r.device and entry.cpu and r.process or r.accounted
  return { ("%dd %dL"):format(c.row.d_model, c.row.n_layers),
    c.batch .. "x" .. c.seq .. (c.accumulate > 1 and "x" .. c.accumulate
      or ""), entry.variant, rate(r.tokens_per_second),
    rate(p.tokens_per_second),
    number(ratio(r.tokens_per_second, p.tokens_per_second), "%.2f"),
    percent(ratio(flops, peak)), percent(r.speed_of_light),
    percent(r.sgemm_share or ratio(r.tokens_per_second, floor_of(r, c))),
    gib(r.accounted),
    gib(r.process), gib(p.peak_memory_bytes),
    number(ratio(own, p.peak_memory_bytes), "%.2f") }
end

-- Lines of the table; entries in order.
function benchtable.lines(entries)
  local rows = {}
  for i, entry in ipairs(entries) do rows[i] = cells(entry) end
  local floor = entries[1].cpu and "sgemm" or "floor"
  local lines = columns.text({ "model", "batch", "variant", "tok/s", "peer",
    "ratio", "MFU", "light", floor, "GiB", "proc", "peer", "ratio" }, rows,
    { 1, 2, 3 }, " ")
  for _, entry in ipairs(entries) do
    if entry.note then lines[#lines + 1] = entry.note end
  end
  return lines
end

-- What the columns are, once under the table.
function benchtable.legend(entry)
  local r, p = entry.ours or {}, entry.peer
  local peak, from = benchtable.peak(r, entry.c.precision)
  local who, whose = "driver, with its context", "max_memory_allocated"
  if entry.cpu then who, whose = "system (VmHWM)", "VmHWM" end
  local lines = { ("GiB: peak by the accountant (= planned); proc: by the %s; "
    .. "peer: PyTorch's %s"):format(who, whose),
    "light: least time of every call at the measured peaks / time of a step" }
  if r.sgemm_flops then
    lines[#lines + 1] = "sgemm: 6·N + 6·L·d·T a token and Newton–Schulz "
      .. "by halves, over the rate of the"
    lines[#lines + 1] = ("  model's own products, timed after every step "
      .. "(here %.1f GFLOP/s)"):format(r.sgemm_flops / 1e9)
  end
  if peak then
    lines[#lines + 1] = ("MFU of %.4g TFLOP/s (%s)"):format(peak / 1e12, from)
  end
  if p then
    lines[#lines + 1] = ("peer: torch %s, the fastest of the settings tried")
      :format(p.torch)
  end
  return lines
end

-- The operators of a record, the `most` longest.
function benchtable.profile(entry, most)
  local r, c = entry.ours, entry.c
  local lines = { ("%s, batch %d, %s: %.2f ms a step, %.2f call by call; "
    .. "peaks %.4g TFLOP/s, %.4g GB/s"):format(c.row.name, c.batch,
    entry.variant, 1e3 * r.step_seconds, 1e3 * r.call_by_call_seconds,
    r.peak_flops / 1e12, r.peak_bandwidth / 1e9) }
  local rows, unit, word = {}, 1e9, "GFLOP/s"
  if r.peak_flops >= 1e13 then unit, word = 1e12, "TFLOP/s" end
  for i = 1, math.min(most, #r.operators) do
    local s = r.operators[i]
    rows[i] = { s.name, ("%.0f"):format(s.calls),
      ("%.3f"):format(1e3 * s.seconds),
      percent(s.seconds / r.call_by_call_seconds),
      ("%.1f"):format(s.flops / s.seconds / unit),
      ("%.1f"):format(s.bytes / s.seconds / 1e9),
      ("%.0f%%"):format(100 * s.light / s.seconds) }
  end
  local text = columns.text({ "operator", "calls", "ms", "share", word,
    "GB/s", "light" }, rows)
  for _, line in ipairs(text) do lines[#lines + 1] = "  " .. line end
  return lines
end

-- One line as soon as a part is known.
function benchtable.progress(what, r)
  return ("%s: %s tokens/s, %.2f ms a step%s, loss %.3f to %.3f"):format(what,
    rate(r.tokens_per_second), 1e3 * r.step_seconds, r.first_step_seconds
    and ", first step after " .. size.seconds(r.first_step_seconds) or "",
    r.first_loss, r.loss)
end

return benchtable
