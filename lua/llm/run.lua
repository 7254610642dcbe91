-- A sweep from check to plots: the four stages, and the end.
local check = require "llm.check"
local common = require "llm.common"
local config = require "llm.config"
local console = require "llm.console"
local data = require "llm.data"
local device = require "llm.device"
local fail = require "llm.fail"
local host = require "host"
local litter = require "llm.litter"
local output = require "llm.output"
local resume = require "llm.resume"
local size = require "llm.size"
local supervisor = require "llm.supervisor"

-- Of a line of the check, by its first word.
local CHECK_MOODS = { FAIL = "bad", warn = "warn" }

local EXIT = { failed = 1, nothing_fits = 3, interrupted = 130 }

-- train.steps = "equal": measure all of a model's variants, then give each the
-- smallest count of steps.
local function equalize(boss, jobs)
  local known, measure, least = boss.state.experiments, {}, {}
  for _, job in ipairs(jobs) do
    if not (known[job.e.name] and known[job.e.name].decided) then
      measure[#measure + 1] = { e = job.e, mode = "measure" }
    end
  end
  boss:run(measure)
  for _, e in ipairs(boss.sweep.experiments) do
    local d = known[e.name] and known[e.name].decided
    if d then
      least[e.model] = math.min(least[e.model] or d.steps, d.steps)
    end
  end
  for _, job in ipairs(jobs) do
    local d = known[job.e.name] and known[job.e.name].decided
    if d and d.steps ~= least[job.e.model] then
      d.steps = least[job.e.model]
      boss:write { type = "decided", name = job.e.name, decided = d }
    end
  end
end

local function told_data(con, record, seconds)
  con:format(nil, "data: %s: %s training and %s validation tokens, "
    .. "vocabulary %d (%s)", record.source, size.count(record.train.count),
    size.count(record.validation.count), record.vocab,
    size.seconds(seconds))
end

local function text_of(sweep, s, journal, con)
  if s.data then
    local same, path = data.unchanged(s.data)
    if same then return s.data end
    fail.raise("error", "%s is not the token file this sweep began with; "
      .. "--fresh starts over", path)
  end
  local began = host.clock()
  local record = data.prepare(config.section(sweep.config.values, "data"),
    sweep.config.profile, data.amount(sweep.experiments, device.backend(),
      host.machine().cores), data.held_out(sweep.experiments),
    function(text) con:say(text, "warn") end)
  record.type = "data"
  supervisor.record(journal, record)
  told_data(con, record, host.clock() - began)
  for _, text in ipairs(record.messages or {}) do con:say(text, "warn") end
  return record
end

local function names(sweep)
  local list = {}
  for i, e in ipairs(sweep.experiments) do
    list[i] = { name = e.name, model = e.model, variant = e.variant,
      seed = e.seed, shape = e.shape, train = e.train, memory = e.memory,
      sequences = e.sequences }
  end
  return list
end

local function begin(sweep, s, journal, now)
  if not s.sweep then
    supervisor.record(journal, { type = "sweep", config = now.config,
      files = now.files, name = sweep.config.values.name,
      profile = sweep.config.profile,
      description = sweep.config.values.description,
      notes = sweep.config.values.notes,
      target_gpu = sweep.config.values.target_gpu,
      own_model = sweep.build ~= nil,
      device = device.name(), environment = check.environment() })
  end
  supervisor.record(journal, { type = "order", experiments = names(sweep) })
end

local function checked(sweep, con)
  con:stage(1, "check")
  local report = check.quick(sweep)
  for _, line in ipairs(check.lines(report)) do
    con:say(line, CHECK_MOODS[line:sub(1, 4)])
  end
  if report.failed and not resume.flag(sweep, "force") then
    con:say("the check failed; --force goes on all the same", "bad")
    return false
  end
  return true
end

local function experiments(sweep, s, journal, con, now)
  con:stage(2, "experiments")
  local boss = supervisor.new { sweep = sweep, journal = journal,
    console = con, state = s, out = sweep.out, count = #sweep.experiments,
    data = text_of(sweep, s, journal, con),
    configuration = host.fnv1a64(table.concat(now.config, "\n")) }
  local jobs, skipped = resume.jobs(sweep, s)
  for _, e in ipairs(skipped) do
    boss:ended({ e = e }, { status = "skipped",
      error = "not named by only=" .. sweep.config.values.only })
  end
  if #skipped > 0 then
    con:format("dim", "%d skipped: not named by only=%s", #skipped,
      sweep.config.values.only)
  end
  local done = #sweep.experiments - #jobs - #skipped
  if done > 0 then
    con:format(nil, "%d of %d are finished already", done,
      #sweep.experiments)
  end
  local total = sweep.config.values["train.steps"]
  if total == "equal" then equalize(boss, jobs) end
  boss:run(jobs)
  return boss
end

local function exit_code(sweep, boss)
  if boss.stopping then return EXIT.interrupted end
  local good, bad, oom = 0, 0, 0
  for _, e in ipairs(sweep.experiments) do
    local status = (boss.state.experiments[e.name] or {}).status
    if status == "ok" then good = good + 1
    elseif status == "oom" then oom = oom + 1
    elseif status ~= "skipped" then bad = bad + 1 end
  end
  if oom > 0 and good + bad == 0 then return EXIT.nothing_fits end
  bad = bad + oom
  return bad > 0 and EXIT.failed or 0
end

-- The end of a sweep; gives its results.
local function finish(sweep, boss, con, began)
  if boss.stopping then
    local list = output.write_results(sweep.out)
    con:say("stopped; the same command continues", "warn")
    return list
  end
  boss:write { type = "common",
    plans = common.plans(sweep, boss.state.experiments) }
  boss:write { type = "finish", seconds = host.clock() - began }
  local list = output.write(sweep.out, con)
  con:format("good", "total time %s", size.seconds(host.clock() - began))
  return list
end

local function hooks(sweep, boss)
  local f = sweep.hooks.on_finish
  if f and not boss.stopping then f(sweep) end
end

-- The journal, open; raises when it cannot be written.
local function opened(path)
  local journal, message = host.journal.open(path)
  return journal or fail.raise("world", "%s", tostring(message))
end

-- Run, or continue, the sweep; gives the exit code.
return function(sweep)
  local began, fresh = host.clock(), resume.flag(sweep, "fresh")
  local made, message = host.file.mkdir(sweep.out)
  if not made then fail.raise("world", "%s", message) end
  local _ <close> = resume.lock(sweep)
  litter.clear_sweep(sweep.out)
  litter.clear(sweep.config.values["data.cache"])
  local now = resume.identity(sweep)
  if fresh then resume.start_over(sweep) end
  local path = sweep.out .. "/journal.jsonl"
  local s = resume.state(sweep, path, now)
  local con = console.open(sweep.out .. "/experiment_log.txt",
    resume.flag(sweep, "json"))
  for _, line in ipairs(sweep:overrides()) do con:say(line) end
  local json = resume.flag(sweep, "json")
  if not checked(sweep, con) then
    if json then output.print(output.write_results(sweep.out)) end
    return EXIT.failed
  end
  local journal <close> = opened(path)
  begin(sweep, s, journal, now)
  local boss = experiments(sweep, s, journal, con, now)
  local list = finish(sweep, boss, con, began)
  if json then output.print(list) end
  hooks(sweep, boss)
  return exit_code(sweep, boss)
end
