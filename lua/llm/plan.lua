-- What is known of an experiment before it runs: exact memory, batch, counts.
-- Nothing is allocated and no device is touched.
local batch = require "llm.batch"
local fail = require "llm.fail"
local program = require "llm.program"
local size = require "llm.size"

local plan = {}

-- Bytes of the budget; `free` (bytes) stands for "device".
function plan.budget(e, free)
  local text = e.memory.budget
  if text == "device" then return free end
  return size.parse(text) or fail.raise("argument",
    "memory.budget = %s is not a size", tostring(text))
end

-- Plans by batch; of the accumulation only "more than one" matters.
local function memory_of(p)
  local known = {}
  return function(b, a)
    local key = a > 1 and -b or b
    known[key] = known[key] or p:memory(b, math.min(a, 2))
    return known[key]
  end
end

-- A planner of one experiment for a backend profile ("cpu", "cuda"):
-- memory(b, a) -> exact plan, solve(limit) -> batch.solve's, count().
function plan.open(e, build, backend)
  local p = program.compile(e, build, { batch = 1, accumulate =
    e.sequences > 1 and 2 or 1, plan = backend })
  local memory = memory_of(p)
  return {
    program = p,
    memory = memory,
    count = function() return p:count() end,
    solve = function(limit)
      return batch.solve(function(b, a) return memory(b, a).peak end,
        e.sequences, e.train.batch, limit)
    end,
  }
end

-- The row of a dry run: { solved =, memory = plan at the trained batch or
-- nil, count = }.
function plan.predict(e, build, backend, free)
  local planner <close> = setmetatable(plan.open(e, build, backend),
    { __close = function(self) self.program:close() end })
  local budget = plan.budget(e, free)
  if not budget then
    fail.raise("argument", "memory.budget = \"device\" is known on the device "
      .. "only; name a size to plan with, such as memory.budget=24GB")
  end
  local solved = planner.solve(math.floor(e.memory.fraction * budget))
  local out = { solved = solved, budget = budget, count = planner.count() }
  if solved.batch then
    out.memory = planner.memory(solved.batch, solved.accumulate)
  end
  return out
end

return plan
