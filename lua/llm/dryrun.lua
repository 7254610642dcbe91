-- The matrix with everything predicted, as text or JSON. No device is touched.
local columns = require "llm.columns"
local device = require "llm.device"
local host = require "host"
local plan = require "llm.plan"
local resume = require "llm.resume"
local size = require "llm.size"
local state = require "llm.state"

local dryrun = {}

local CATEGORIES = { "parameters", "gradients", "optimizer", "activations",
  "scratch", "data" }

-- Seconds one experiment will train: its time limit, or its steps at the pace
-- an earlier run of the same folder measured; nil when neither is known.
local function seconds_of(e, measured)
  local t = e.train
  if math.type(t.steps) ~= "integer" then return t.minutes * 60 end
  local known = measured[e.name]
  local pace = known and known.decided and known.decided.seconds_per_step
  return pace and pace * t.steps
end

-- One row an experiment: name, parameters, quantized, batch, accumulate,
-- largest, peak, by_category, budget, seconds, or status and error.
function dryrun.rows(sweep)
  local backend = device.plan_backend(sweep.config.profile)
  local folded = state.read(sweep.out .. "/journal.jsonl")
  local measured = folded and folded.experiments or {}
  local free = backend == "cpu" and host.machine().available or nil
  local rows = {}
  for i, e in ipairs(sweep.experiments) do
    local p = plan.predict(e, sweep.build, backend, free)
    local m = p.memory or {}
    rows[i] = { name = e.name, parameters = p.count.parameters,
      quantized = p.count.quantized, batch = p.solved.batch,
      accumulate = p.solved.accumulate, largest = p.solved.largest,
      peak = m.peak, by_category = m.by_category, budget = p.budget,
      limit = p.solved.limit, least = p.solved.least,
      n_kv_heads = e.shape.n_kv_heads,
      state_per_parameter = m.state_per_parameter,
      seconds = seconds_of(e, measured) }
  end
  return rows, backend
end

local function cells_of(row, unit)
  local format = unit == 1e9 and "%.2f" or "%.1f"
  local function part(n) return n and format:format(n / unit) or "-" end
  local cells = { row.name, size.count(row.parameters), row.batch
    and row.batch .. "x" .. row.accumulate or "none", part(row.peak) }
  for _, c in ipairs(CATEGORIES) do
    cells[#cells + 1] = part((row.by_category or {})[c])
  end
  cells[#cells + 1] = row.seconds and size.seconds(row.seconds):gsub(" ", "")
    or "unknown"
  return cells
end

-- Lines of text within 80 columns.
function dryrun.text(sweep, rows, backend)
  local unit, word = 1e6, "MB"
  for _, row in ipairs(rows) do
    if (row.peak or 0) > 2e9 then unit, word = 1e9, "GB" end
  end
  local cells = {}
  for i, row in ipairs(rows) do cells[i] = cells_of(row, unit) end
  local lines = columns.text({ "experiment", "params", "batch", word, "param",
    "grad", "optim", "activ", "scrat", "data", "time" }, cells, { 1 }, " ")
  table.insert(lines, 1, ("%s: profile %s, planned for %s, budget %s (%s of "
    .. "it to fill)"):format(sweep.config.values.name, sweep.config.profile,
    backend, size.bytes(rows[1].budget), size.share(rows[1].limit
      / rows[1].budget)))
  lines[#lines + 1] = ("batch = micro-batch x accumulation; peak and its "
    .. "parts in %s, exact"):format(word)
  return lines
end

local function json_rows(rows)
  return host.json.encode(host.json.array(rows), { indent = 2 })
end

-- The rows that a run would work on.
local function wanted(sweep, rows)
  local list = {}
  for _, row in ipairs(rows) do
    if resume.wanted(sweep.config.values.only, row.name) then
      list[#list + 1] = row
    end
  end
  return list
end

-- Print; gives the exit code: 3 when nothing fits.
function dryrun.run(sweep)
  local rows, backend = dryrun.rows(sweep)
  rows = wanted(sweep, rows)
  if sweep.config.flags.json or host.options.json then
    print(json_rows(rows))
  else
    print(table.concat(dryrun.text(sweep, rows, backend), "\n"))
  end
  for _, row in ipairs(rows) do if row.batch then return 0 end end
  io.stderr:write("nothing fits in the budget\n")
  return 3
end

return dryrun
