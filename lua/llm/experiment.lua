-- One experiment, as its child process runs it: from the assignment on
-- standard input to one result on standard output. Nothing here writes the
-- journal.
local channel = require "llm.channel"
local checkpoint = require "llm.checkpoint"
local data = require "llm.data"
local device = require "llm.device"
local driver = require "llm.driver"
local fail = require "llm.fail"
local gpu = require "gpu"
local host = require "host"
local import = require "llm.import"
local litter = require "llm.litter"
local metrics = require "llm.metrics"
local plan = require "llm.plan"
local program = require "llm.program"
local search = require "llm.search"
local size = require "llm.size"
local trainer = require "llm.trainer"

local experiment = {}

-- The device, its name, and what the driver held when it was open.
local function open_device(e)
  local name = device.name()
  if device.backend(name) ~= "cpu" then
    gpu.device(name)
    if e.train.tune ~= "off" then gpu.tune() end
  end
  return name, driver.memory()
end

-- A program of one sequence, run once: the driver then holds its libraries'
-- code, which no plan counts.
local function warm_up(run)
  local p <close> = program.compile(run.e, run.build, { batch = 1,
    accumulate = run.e.sequences, device = run.device })
  p:time { micro_steps = 1 }
  p:evaluate(run.validation, run.e.train.seq)
end

-- Bytes a run may take: what was asked for, on a GPU never more than is there.
-- "device" is what is free once the driver holds what it needs.
local function budget_of(run, decided)
  local e, here = run.e, run.driver
  if run.backend == "cpu" then return plan.budget(e, here.free) end
  if e.memory.budget == "device" and not decided then
    warm_up(run)
    here = driver.memory()
  end
  local room = driver.room(here)
  local budget = plan.budget(e, room)
  if budget > room then
    channel.send("note", { text = ("memory.budget = %s, but %s has %s free; "
      .. "that is the budget"):format(tostring(e.memory.budget), run.device,
      size.bytes(room)) })
    budget = room
  end
  return budget
end

-- What every part of a run needs to know.
local function prepare(sweep, e, assignment)
  host.process.reset_peak()
  local resident = host.process.memory().resident
  local name, held = open_device(e)
  local text = data.open(assignment.data)
  local run = { e = e, build = sweep.build, device = name,
    backend = device.backend(name), driver = held, text = text,
    resident = resident, baseline = gpu.memory.stats().current,
    loader = data.loader(text.train, e),
    validation = data.validation(text.validation, e) }
  run.budget = budget_of(run, assignment.decided)
  gpu.memory.budget(run.budget)
  return run
end

local function guard(e, decided)
  local t = e.train
  if math.type(t.steps) == "integer" then return nil end
  return decided.seconds_per_step and 1.5 * 60 * t.minutes or nil
end

-- The program with its weights, and the state it stands at.
local function open_program(run, assignment, decided)
  local p = program.compile(run.e, run.build, { batch = decided.batch,
    accumulate = decided.accumulate, steps = decided.steps,
    device = run.device })
  local folder, state = checkpoint.latest(assignment.run, function(message)
    channel.send("note", { text = message })
  end)
  if folder and state.steps == decided.steps
    and state.configuration == assignment.configuration then
    metrics.must(p:load(folder))
    channel.send("note", { text = "continues after step " .. state.step })
  else
    state = trainer.fresh_state()
    if run.e.train.from then
      import.into(p, run.e.train.from, run.e.shape)
      channel.send("note", { text = "starts from " .. run.e.train.from })
    end
  end
  return p, state
end

local function mean(list)
  local sum = 0
  for _, v in ipairs(list) do sum = sum + v end
  return #list > 0 and sum / #list or nil
end

local function memory_of(run, t, decided)
  local stats, own = gpu.memory.stats(), host.process.memory()
  local out = { peak = stats.peak, current = stats.current,
    budget = run.budget, predicted = decided.predicted,
    by_category = stats.by_category, process_peak = own.peak,
    resident_rise = own.peak - run.resident, resident_before = run.resident }
  if run.backend == "cpu" then return out end
  out.process_peak = t.driver.process_peak
  out.driver_start = driver.beyond(run.driver)
  out.driver_warm = driver.beyond(driver.memory())
  out.resident_rise = run.searched and t.driver:fall() or nil
  return out
end

-- What the device is called, and what it computes in.
local function device_of(run)
  local precision = run.e.train.precision
  if precision == "auto" then
    precision = run.backend == "cpu" and "f32" or "bf16"
  end
  for _, d in ipairs(run.backend ~= "cpu" and gpu.devices() or {}) do
    if d.name == run.device then return d.model, precision end
  end
  return nil, precision
end

-- Power and clocks while it trained, into the outcome.
local function add_power(out, t)
  local s = driver.summary(t.state)
  if not s then return end
  out.power, out.throttled = s, s.throttled
  out.joules_per_token = s.watts and out.tokens > 0
    and s.watts * out.training_seconds / out.tokens or nil
end

-- What stands for the choices made by measuring: "heuristic" where the
-- library made them.
local function tuning_hash()
  local t = gpu.tuning()
  return t and t.hash or "heuristic"
end

-- What the parent journals: plain numbers, no judgement.
local function outcome(run, t, decided)
  local s, last = t.state, t.state.evals[#t.state.evals] or {}
  local best = trainer.best(s)
  local model, precision = device_of(run)
  local out = { status = t.status, error = t.message, count = run.count,
    flops = run.flops, steps_completed = s.step,
    training_seconds = s.seconds, eval_seconds = s.eval_seconds,
    step_spread = trainer.spread(s.paces), startup_seconds = run.startup,
    cut_short = s.cut_short, skipped_steps = s.skipped,
    loss_scale = s.loss_scale,
    first_loss = s.first_loss, avg_loss = mean(s.losses),
    train_accuracy = mean(s.accuracies), tokens = s.tokens,
    train_tokens = run.text.train_count,
    epochs = s.tokens / run.text.train_count,
    val_loss = last.val_loss, val_accuracy = last.val_accuracy,
    val_perplexity = last.val_perplexity, val_tokens = last.val_tokens,
    best_val_loss = best < math.huge and best or nil, evals = s.evals,
    device = model, precision = precision, tuning = tuning_hash(),
    memory = memory_of(run, t, decided), monitoring = s.monitoring }
  add_power(out, t)
  return out
end

-- The share of the attainable speed, per cent, and the device's peak; resets
-- the program, so it comes last.
local function profile(p, steps, out)
  if steps == 0 then return end
  local r = p:profile { steps = steps }
  out.speed_of_light = 100 * r.speed_of_light
  out.peak_flops = r.peak_flops
end

local function train(sweep, run, assignment, decided)
  local sampler = driver.sampler()
  local p <close>, state = open_program(run, assignment, decided)
  run.count, run.flops = p:count(), p:flops()
  channel.send("count", { count = run.count })
  decided.guard_seconds = guard(run.e, decided)
  local t = setmetatable({ e = run.e, program = p, state = state,
    loader = run.loader, validation = run.validation,
    metrics = metrics.open(assignment.run, state.step,
      run.e.train.tensorboard),
    run = assignment.run, decided = decided, hooks = sweep.hooks,
    budget = run.budget, configuration = assignment.configuration,
    driver = sampler:over(state) }, trainer)
  run.startup = host.clock() - run.began
    - (assignment.decided and 0 or decided.search_seconds)
  channel.send("training", { step = state.step, steps = decided.steps,
    startup_seconds = run.startup })
  t:train()
  local out = outcome(run, t, decided)
  if out.status == "ok" then profile(p, run.e.train.profile_steps, out) end
  return out
end

local PATIENCE = 10 -- seconds for an earlier process of the run to end

-- The run's lock. A process of an earlier sweep that still holds it after a
-- while is ended, if it is the one that took it.
local function lock_run(folder)
  local path = folder .. "/lock"
  local lock, message, code, pid, start = host.lock(path, PATIENCE)
  if lock then return lock end
  if code == "busy" and pid then
    host.process.signal(pid, start, "KILL")
    lock, message, code = host.lock(path, PATIENCE)
  end
  return lock or fail.raise(code or "error", "%s", tostring(message))
end

local function body(sweep, e, assignment, began)
  local _ <close> = lock_run(assignment.run)
  litter.clear_run(assignment.run, true)
  local run = prepare(sweep, e, assignment)
  run.began = began
  if sweep.hooks.on_start then sweep.hooks.on_start(e) end
  local decided = assignment.decided
  if not decided then
    decided = search.run(run)
    run.searched = true
    channel.send("decided", { decided = decided })
  end
  if assignment.mode == "measure" then return { status = "measured" } end
  return train(sweep, run, assignment, decided)
end

local CODES = { oom = "oom", nan = "nan", disk = "disk", io = "disk",
  interrupted = "interrupted" }

local function failure(err)
  local text = tostring(err)
  local status = CODES[fail.code(err)]
  if text:find("not enough memory", 1, true) then status = "oom" end
  return { status = status or "error", error = text }
end

local function handler(err)
  io.stderr:write(debug.traceback(tostring(err), 2), "\n")
  return err
end

local EXIT = { ok = 0, measured = 0, interrupted = 130 }

-- Run the experiment `name` of `sweep`; gives the process's exit code.
function experiment.run(sweep, name)
  local began = host.clock()
  local assignment = channel.assignment()
  local e = sweep:experiment(name)
  local ok, result = xpcall(body, handler, sweep, e, assignment, began)
  if not ok then result = failure(result) end
  channel.send("result", { result = result })
  return EXIT[result.status] or 1
end

return experiment
