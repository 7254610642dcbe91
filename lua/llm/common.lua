-- Memory of every experiment at one micro-batch common to its model's
-- variants, from exact plans: the fair comparison, as runs that each fill the
-- budget would show no saving.
local device = require "llm.device"
local plan = require "llm.plan"
local program = require "llm.program"

local common = {}

-- The least trained batch of each model's experiments; 1 when none trained.
function common.batches(experiments, known)
  local batches = {}
  for _, e in ipairs(experiments) do
    local d = known[e.name] and known[e.name].decided
    if d then
      batches[e.model] = math.min(batches[e.model] or d.batch, d.batch)
    end
  end
  return batches
end

-- The same model with nothing made again and whole logits, as a plain trainer
-- would have it; nil where the compiler cannot plan it.
local function plain_peak(e, build, backend, batch, accumulate)
  local ok, peak = pcall(function()
    local p <close> = program.compile(e, build, { batch = batch,
      accumulate = accumulate, plan = backend, recompute = "none",
      saved = "native", head_chunk = "all" })
    return p:memory().peak
  end)
  return ok and peak or nil
end

local function plan_of(e, build, backend, batch)
  local accumulate = e.sequences // batch
  local planner = plan.open(e, build, backend)
  local memory = planner.memory(batch, accumulate)
  planner.program:close()
  return { batch = batch, accumulate = accumulate, peak = memory.peak,
    by_category = memory.by_category,
    plain = plain_peak(e, build, backend, batch, accumulate) }
end

-- { name = { batch, accumulate, peak, by_category, plain } }.
function common.plans(sweep, known)
  local batches = common.batches(sweep.experiments, known)
  local backend, plans = device.backend(), {}
  for _, e in ipairs(sweep.experiments) do
    local ok, result = pcall(plan_of, e, sweep.build, backend,
      batches[e.model] or 1)
    if ok then plans[e.name] = result end
  end
  return plans
end

return common
