-- One child process, from the parent's side: started, listened to, ended, and
-- what became of it in one status word.
local channel = require "llm.channel"
local host = require "host"

local child = {}
child.__index = child

local OOM_EXIT = 77 -- the Lua VM's allocator gave up

local function arguments(e, slot)
  local o = host.options
  local argv = { host.process.executable(), "--device", slot,
    "--experiment", e.name }
  if o.memory then
    table.insert(argv, "--memory")
    table.insert(argv, tostring(o.memory))
  end
  argv[#argv + 1] = o.script
  for _, word in ipairs(o.args or {}) do
    if not word:find "^%-%-" then argv[#argv + 1] = word end
  end
  return argv
end

-- Start the experiment `e` on the device `slot`, told `assignment`.
function child.start(e, slot, assignment)
  local spec = arguments(e, slot)
  spec.stdin, spec.stdout, spec.stderr = "pipe", "pipe", "pipe"
  local p, message = host.process.spawn(spec)
  if not p then return nil, message end
  p:write(host.json.encode(assignment) .. "\n")
  local now = host.clock()
  return setmetatable({ e = e, slot = slot, p = p, pid = p.pid, errors = {},
    allowed = e.train.hang_seconds, began = now, heard = now,
    mode = assignment.mode }, child)
end

local function drain(read, p, use)
  while true do
    local line, why = read(p, 0)
    if not line then return why end
    use(line)
  end
end

-- Read what has come; events go to `on_event(child, event)`, other lines to
-- `on_text(child, line)`. True when the child has closed its output.
function child:listen(on_event, on_text)
  drain(self.p.read_error_line, self.p, function(line)
    self.heard = host.clock()
    self.errors[#self.errors + 1] = line
    if #self.errors > 60 then table.remove(self.errors, 1) end
  end)
  local why = drain(self.p.read_line, self.p, function(line)
    self.heard = host.clock()
    local event = channel.parse(line)
    if event then
      self:note(event)
      on_event(self, event)
    else
      on_text(self, line)
    end
  end)
  return why == "eof"
end

function child:note(event)
  if event.event == "result" then self.result = event.result end
  local d = event.event == "decided" and event.decided
  if d then
    self.decided = d
    if d.seconds_per_step then
      self.allowed = math.max(self.allowed, 10 * d.seconds_per_step)
    end
  elseif event.event == "training" then
    self.training_at = host.clock()
  end
end

function child:kill(signal, reason, message)
  if not self.reason then self.reason, self.why = reason, message end
  self.p:kill(signal)
end

-- End a child that gives no sign of life, or trains far past its limit.
function child:watch(now)
  if self.ended then return end
  local silent = now - self.heard
  if silent > self.allowed then
    self:kill("KILL", "hung", ("no sign of life for %.0f s"):format(silent))
  end
  local limit = self.limit_seconds
  if limit and self.training_at and now - self.training_at > limit then
    self:kill("KILL", "timeout",
      ("still training after %.0f s"):format(now - self.training_at))
  end
end

local SIGNALS = { [4] = "ILL", [6] = "ABRT", [7] = "BUS", [8] = "FPE",
  [9] = "KILL", [11] = "SEGV", [15] = "TERM" }

-- Signals that only somebody else sends: the run is continued, not counted as
-- broken.
local FOREIGN = { [2] = true, [9] = true, [15] = true }

local function crash(status, errors)
  local how
  if status.signal then
    how = ("ended by signal %d (%s)"):format(status.signal,
      SIGNALS[status.signal] or "?")
    if status.signal == 9 then
      how = how .. ", perhaps by the system for want of memory"
    end
  else
    how = ("ended with exit code %s and no result"):format(status.exit)
  end
  local last = errors[1]
  return last and how .. "; it said: " .. last or how
end

local function classify(self, status)
  if self.reason then return self.reason, self.why end
  if status.exit == OOM_EXIT then
    return "oom", "the Lua state ran out of memory"
  elseif status.exit == 130 then
    return "interrupted", "stopped by a signal"
  elseif FOREIGN[status.signal] then
    return "interrupted", crash(status, self.errors)
  elseif status.exit == 1 then
    return "error", self.errors[1] or "ended with exit code 1 and no result"
  end
  return "crashed", crash(status, self.errors)
end

-- Reap; gives { status, error, result = what the child measured or nil }.
function child:finish()
  local status = self.p:wait(10)
  if not status then
    self:kill("KILL", "hung", "closed its output but did not end")
    status = self.p:wait(10) or {}
  end
  self.p:close()
  local r = self.result
  if r then return { status = r.status, error = r.error, result = r } end
  local word, why = classify(self, status)
  return { status = word, error = why, stderr = table.concat(self.errors,
    "\n") }
end

return child
