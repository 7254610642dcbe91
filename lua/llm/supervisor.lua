-- The parent of a sweep: starts children, watches them, and alone writes the
-- journal. It never touches a device.
local child = require "llm.child"
local device = require "llm.device"
local fail = require "llm.fail"
local host = require "host"
local narrate = require "llm.narrate"
local size = require "llm.size"
local state = require "llm.state"

local supervisor = {}
supervisor.__index = supervisor

-- self.sweep, journal (open), console, state (folded journal), out, data
-- (record), configuration (hash).
function supervisor.new(fields)
  fields.running, fields.interrupts = {}, 0
  return setmetatable(fields, supervisor)
end

-- Append a record to an open journal; raises when it did not reach the disk.
function supervisor.record(journal, record)
  local ok, message = journal:append(record)
  if not ok then fail.raise("world", "journal: %s", tostring(message)) end
end

function supervisor:write(record) supervisor.record(self.journal, record) end

local function budget_of(e)
  return size.parse(e.memory.budget)
end

function supervisor:assignment(job)
  local known = self.state.experiments[job.e.name]
  local run = self.out .. "/runs/" .. job.e.name
  return { name = job.e.name, run = run, data = self.data, mode = job.mode,
    decided = known and known.decided or nil,
    configuration = self.configuration }
end

-- The folder of a run, with what it is: true, or nil and why not.
local function make_folder(run, e)
  local ok, message = host.file.mkdir(run)
  if not ok then return nil, message end
  return host.file.write(run .. "/config.json",
    host.json.encode({ name = e.name, shape = e.shape, train = e.train,
      memory = e.memory, seed = e.seed }, { indent = 2 }) .. "\n")
end

-- An experiment that could not be started; its device is free again.
function supervisor:unstarted(job, slot, status, message)
  self.free[#self.free + 1] = slot
  self:ended({ e = job.e, mode = job.mode },
    { status = status, error = message })
end

function supervisor:start(job, slot)
  local e, assignment = job.e, self:assignment(job)
  self:write { type = "start", name = e.name, mode = job.mode, device = slot }
  local ok, why = make_folder(assignment.run, e)
  if not ok then return self:unstarted(job, slot, "disk", why) end
  local c, message = child.start(e, slot, assignment)
  if not c then return self:unstarted(job, slot, "error", message) end
  c.budget, c.index = budget_of(e), e.index
  if assignment.decided then self:pinned(c, assignment.decided) end
  self.console:format(nil, "%s: starts%s (%s, %s, seed %d)", e.name,
    self.several and " on " .. slot or "", e.model, e.variant, e.seed)
  self.running[#self.running + 1] = c
end

function supervisor:pinned(c, d)
  c.steps = d.steps
  c.allowed = math.max(c.allowed, 10 * (d.seconds_per_step or 0))
  if math.type(c.e.train.steps) ~= "integer" and d.seconds_per_step then
    c.limit_seconds = 2 * (1.5 * 60 * c.e.train.minutes)
      + 60 + c.allowed
  end
end

function supervisor:event(c, ev)
  if ev.event == "decided" then
    self:write { type = "decided", name = c.e.name, decided = ev.decided }
    local known = self.state.experiments[c.e.name] or { name = c.e.name }
    known.decided = state.strip(ev.decided)
    self.state.experiments[c.e.name] = known
    self:pinned(c, ev.decided)
  elseif ev.event == "step" then
    c.stepped = true
    self.console:progress(narrate.progress(c, ev, { index = c.e.index,
      count = self.count }))
  end
  narrate.event(c, ev, function(text, mood) self.console:say(text, mood) end)
end

function supervisor:ended(c, outcome)
  local name = c.e.name
  if outcome.status == "measured" then return end
  self:write { type = "end", name = name, status = outcome.status,
    error = outcome.error, result = outcome.result }
  local known = self.state.experiments[name] or { name = name }
  known.status, known.error = outcome.status, outcome.error
  known.result = outcome.result and state.strip(outcome.result)
  self.state.experiments[name] = known
  narrate.finished(name, outcome, function(text, mood)
    self.console:say(text, mood)
  end)
  if outcome.stderr and outcome.stderr ~= "" then
    host.file.write(self.out .. "/runs/" .. name .. "/stderr.txt",
      outcome.stderr .. "\n")
  end
  if self.sweep.hooks.on_result then
    self.sweep.hooks.on_result(c.e, known)
  end
end

local function on_text(self)
  return function(c, line) self.console:say(c.e.name .. ": " .. line) end
end

-- A first signal is passed on once, a second one ends the children at once.
function supervisor:signals()
  local count = host.process.interrupted()
  if count > self.interrupts then
    self.interrupts, self.stopping = count, true
    self.console:say(count == 1
      and "interrupted: stopping at the next step, saving" or "stopping now",
      "warn")
    for _, c in ipairs(self.running) do
      c.p:kill(count == 1 and "TERM" or "KILL")
    end
  end
end

-- The progress line of a child that has not come to its first step.
function supervisor:wait_line(c)
  local now = host.clock()
  if c.stepped or now - (c.lined or 0) < 1 then return end
  c.lined = now
  self.console:progress(narrate.waiting(c, { index = c.e.index,
    count = self.count }, now - c.began))
end

function supervisor:turn()
  local handles = {}
  for i, c in ipairs(self.running) do handles[i] = c.p end
  host.process.poll(handles, .2)
  self:signals()
  local still = {}
  for _, c in ipairs(self.running) do
    local over = c:listen(function(k, ev) self:event(k, ev) end,
      on_text(self))
    c:watch(host.clock())
    self:wait_line(c)
    if over then
      self.free[#self.free + 1] = c.slot
      self:ended(c, c:finish())
    else
      still[#still + 1] = c
    end
  end
  self.running = still
end

-- Run jobs ({ e, mode }) in order, one a device at a time.
function supervisor:run(jobs)
  self.free = device.slots()
  self.several = #self.free > 1
  local next_job = 1
  while next_job <= #jobs or #self.running > 0 do
    self:signals()
    while not self.stopping and next_job <= #jobs and #self.free > 0 do
      self:start(jobs[next_job], table.remove(self.free, 1))
      next_job = next_job + 1
    end
    if #self.running == 0 and self.stopping then break end
    if #self.running > 0 then self:turn() end
  end
end

return supervisor
