-- The batch search of one experiment, in its child: arithmetic on exact plans,
-- then one training and one evaluation step at the batch that will train, the
-- time of warmed micro-steps, and a few smaller batches for comparison.
local batch = require "llm.batch"
local channel = require "llm.channel"
local fail = require "llm.fail"
local gpu = require "gpu"
local host = require "host"
local plan = require "llm.plan"
local program = require "llm.program"
local size = require "llm.size"

local search = {}

local function candidate(run, b, fields)
  local c = { batch = b, accumulate = math.max(1, run.e.sequences // b) }
  c.bytes = run.planner.memory(b, c.accumulate).peak
  c.memory_share = c.bytes / run.budget
  for key, v in pairs(fields) do c[key] = v end
  return c
end

-- One training step and one evaluation step at `b`, in a program of its own
-- that leaves nothing behind. Gives its seconds.
local function verify(run, p)
  local began = host.clock()
  local r = p:step(run.loader, 1)
  p:evaluate(run.validation, run.e.train.seq)
  return host.clock() - began, r
end

-- Median seconds of up to `n` warmed micro-steps, and of one update; a
-- micro-step takes about `each` seconds, all together at most about `cap`.
local function measure(p, n, each, cap)
  n = batch.timed_steps(n, each, cap)
  local began = host.clock()
  local times = p:time { micro_steps = n }
  return times, n, host.clock() - began
end

local function with_program(run, b, use)
  local p <close> = program.compile(run.e, run.build, { batch = b,
    accumulate = run.e.sequences // b, device = run.device })
  return use(p)
end

local function time_trained(run, solved)
  local e, limit = run.e, run.e.train.minutes * 60
  return with_program(run, solved.batch, function(p)
    local verified, first = verify(run, p)
    local times, n, seconds = measure(p, e.search.timed_steps,
      first.seconds / solved.accumulate, e.search.timing_share * limit)
    local step = times.micro * solved.accumulate + times.update
    return { seconds_per_step = step, micro_seconds = times.micro,
      update_seconds = times.update, timed_steps = n, timed_seconds = seconds,
      verified_seconds = verified,
      tokens_per_second = e.train.tokens_per_step / step }
  end)
end

-- Rate of a smaller batch, or nil when it would cost more than `left` seconds.
local function time_candidate(run, b, rate, update, left)
  local e = run.e
  local each = b * e.train.seq / rate
  if 4 * each > left then return nil end
  return with_program(run, b, function(p)
    local warm = p:time { micro_steps = 1 }
    local times = measure(p, 3, warm.micro, left / 2)
    return e.train.tokens_per_step
      / (times.micro * (e.sequences // b) + update)
  end)
end

local function time_others(run, solved, timed, list)
  local e = run.e
  local left = e.search.share * e.train.minutes * 60
  for _, b in ipairs(batch.candidates(e.sequences, solved.batch,
    e.search.candidates)) do
    local began = host.clock()
    local rate = time_candidate(run, b, timed.tokens_per_second,
      timed.update_seconds, left)
    left = left - (host.clock() - began)
    list[#list + 1] = candidate(run, b, { tokens_per_second = rate })
  end
end

local function steps_of(e, timed)
  local t = e.train
  if math.type(t.steps) == "integer" then return t.steps end
  return math.max(1, math.floor(t.minutes * 60 / timed.seconds_per_step))
end

local function solve(run)
  local solved = run.planner.solve(run.limit)
  if not solved.batch then
    fail.raise("oom", "does not fit: %s needs %s, and %s of the budget of %s "
      .. "is %s", run.e.train.batch == "auto" and "a micro-batch of 1"
      or "train.batch = " .. run.e.train.batch, size.bytes(solved.least),
      size.share(run.e.memory.fraction), size.bytes(run.budget),
      size.bytes(run.limit))
  end
  return solved
end

local function decide(run, solved, timed, list)
  local memory = run.planner.memory(solved.batch, solved.accumulate)
  local fastest = batch.judge(list, solved.batch)
  local pinned = run.e.train.batch ~= "auto"
  local decided = { batch = solved.batch, accumulate = solved.accumulate,
    steps = steps_of(run.e, timed), largest = solved.largest,
    fastest = fastest, pinned = pinned, candidates = list,
    predicted = memory.peak, by_category = memory.by_category,
    state_per_parameter = memory.state_per_parameter }
  for key, v in pairs(timed) do decided[key] = v end
  return decided
end

-- run: e, build, device, budget (bytes), loader, validation. Gives what
-- is journaled; sends each candidate to the parent. Raises oom.
function search.run(run)
  local began = host.clock()
  run.limit = math.floor(run.e.memory.fraction * run.budget)
  run.planner = plan.open(run.e, run.build, run.backend)
  local solved = solve(run)
  local timed = time_trained(run, solved)
  local list = { candidate(run, solved.batch,
    { tokens_per_second = timed.tokens_per_second, verified = true }) }
  if run.e.train.batch == "auto" then time_others(run, solved, timed, list) end
  if solved.largest > solved.batch then
    table.insert(list, 1, candidate(run, solved.largest,
      { verdict = "largest, by plan", accumulate = 1 }))
  end
  local decided = decide(run, solved, timed, list)
  run.planner.program:close()
  decided.left_behind = gpu.memory.stats().current - run.baseline
  decided.search_seconds = host.clock() - began
  for _, c in ipairs(list) do channel.send("candidate", { candidate = c }) end
  return decided
end

return search
