-- The matrix as a grid: each experiment with its place, its prediction from the
-- exact plan, and how far it is. Plans are arithmetic; no device is touched.
local common = require "llm.common"
local device = require "llm.device"
local host = require "host"
local plan = require "llm.plan"
local program = require "llm.program"

local design = {}
design.__index = design

local POINTS = 96 -- of a timeline

-- A planner that remembers. build = the sweep's own model function, if it has
-- one and it is known.
function design.new(build)
  return setmetatable({ build = build, known = {}, lines = {} }, design)
end

-- Whether the model that the folded journal `s` trained can be planned here:
-- one built by a function of the user's script cannot without that function.
function design:use(s)
  self.blind = (s.sweep or {}).own_model and not self.build
end

local function free_memory() return host.machine().available end

-- { parameters, quantized, batch, accumulate, peak, by_category, budget } or
-- {} where the plan cannot be made.
function design:predict(e, backend)
  local key = e.name .. backend
  if not self.known[key] then
    local ok, p = false, nil
    if not self.blind then
      ok, p = pcall(plan.predict, e, self.build, backend, free_memory())
    end
    local m = ok and p.memory or {}
    self.known[key] = ok and { parameters = p.count.parameters,
      quantized = p.count.quantized, batch = p.solved.batch,
      accumulate = p.solved.accumulate, peak = m.peak,
      by_category = m.by_category, budget = p.budget,
      fits = p.solved.batch ~= nil } or {}
  end
  return self.known[key]
end

local CATEGORIES = { "parameters", "gradients", "optimizer", "activations",
  "scratch", "data" }

local function total(entry)
  local sum = 0
  for _, c in ipairs(CATEGORIES) do sum = sum + (entry[c] or 0) end
  return sum
end

-- Of each of POINTS stretches the instruction where most is live; what lives
-- outside the arena the whole step is added.
local function thinned(list, fixed)
  local out, n = {}, #list
  for b = 1, math.min(POINTS, n) do
    local count = math.min(POINTS, n)
    local from, to = (b - 1) * n // count + 1, b * n // count
    local best = from
    for i = from, to do
      if total(list[i]) > total(list[best]) then best = i end
    end
    local entry = { at = best, op = list[best].op,
      backward = list[best].backward }
    for _, c in ipairs(CATEGORIES) do
      entry[c] = (list[best][c] or 0) + (fixed[c] or 0)
    end
    out[b] = entry
  end
  return out
end

-- Bytes of each category that are held for the whole step.
local function standing(memory)
  local peak, at = -1, {}
  for _, entry in ipairs(memory.timeline) do
    if total(entry) > peak then peak, at = total(entry), entry end
  end
  local fixed = {}
  for _, c in ipairs(CATEGORIES) do
    fixed[c] = math.max(0, (memory.by_category[c] or 0) - (at[c] or 0))
  end
  return fixed
end

local function timeline(e, build, backend, batch, accumulate)
  local p <close> = program.compile(e, build, { batch = batch,
    accumulate = accumulate, plan = backend })
  local memory = p:memory()
  return { batch = batch, accumulate = accumulate, peak = memory.peak,
    instructions = #memory.timeline,
    points = thinned(memory.timeline, standing(memory)) }
end

-- The plan's timeline of one training step at that batch, or nil.
function design:timeline(e, backend, batch, accumulate)
  if not batch or self.blind then return nil end
  local key = ("%s %s %d %d"):format(e.name, backend, batch, accumulate)
  if self.lines[key] == nil then
    local ok, line = pcall(timeline, e, self.build, backend, batch,
      accumulate)
    self.lines[key] = ok and line or false
  end
  return self.lines[key] or nil
end

-- The common-batch plans of a sweep that has not come to write them.
function design:common(s, backend)
  if s.common then return s.common.plans end
  if self.blind or backend ~= device.backend() then return nil end
  local batches, key = common.batches(s.order, s.experiments), {}
  for model, batch in pairs(batches) do key[#key + 1] = model .. batch end
  table.sort(key)
  key = table.concat(key, " ")
  if self.common_key ~= key then
    self.common_key = key
    self.common_plans = common.plans({ experiments = s.order,
      build = self.build }, s.experiments)
  end
  return self.common_plans
end

local function status_of(known, running)
  local word = known.status
  if word == "running" and not running then word = "interrupted" end
  return word or "pending"
end

local function last_of(records)
  for i = #(records or {}), 1, -1 do
    if records[i].loss then return records[i] end
  end
end

local function progress(row, d, records)
  local last = last_of(records)
  row.steps = d.steps
  if not last then return end
  row.step, row.loss = last.step, last.loss
  row.tokens_per_second, row.seconds = last.tokens_per_second, last.seconds
  if row.status == "running" and d.steps and last.step > 0 then
    row.left_seconds = (d.steps - last.step) * last.seconds / last.step
  end
end

-- One row an experiment, in order. view = { order, experiments, running,
-- curves }.
function design:rows(view, backend)
  local rows = {}
  for i, e in ipairs(view.order) do
    local known = view.experiments[e.name] or {}
    local d, p = known.decided or {}, self:predict(e, backend)
    local counted = known.result and known.result.count
    local row = { name = e.name, model = e.model, variant = e.variant,
      seed = e.seed, status = status_of(known, view.running),
      error = known.error, d_model = e.shape.d_model,
      n_layers = e.shape.n_layers, n_heads = e.shape.n_heads,
      n_kv_heads = e.shape.n_kv_heads, d_ff = e.shape.d_ff,
      storage = e.shape.storage, recompute = e.train.recompute,
      seq = e.train.seq, tokens_per_step = e.train.tokens_per_step,
      parameters = counted and counted.parameters or p.parameters,
      batch = d.batch or p.batch, accumulate = d.accumulate or p.accumulate,
      predicted = d.predicted or p.peak, decided = d.batch ~= nil,
      fits = d.batch ~= nil or p.fits, budget = p.budget }
    progress(row, d, view.curves[e.name])
    rows[i] = row
  end
  return rows
end

return design
