-- A sweep: `require("llm.sweep"){…}` gives an object that a script returns and
-- the host runs. It can plan, run, continue, and give its results.
local config = require "llm.config"
local device = require "llm.device"
local fail = require "llm.fail"
local host = require "host"
local keys = require "llm.keys"
local matrix = require "llm.matrix"
local nearest = require "llm.nearest"

local Sweep = { __name = "llm.sweep" }
Sweep.__index = Sweep

local HOOKS = { "on_start", "on_step", "on_eval", "on_result", "on_finish" }

local function hooks_of(user)
  local hooks = {}
  for _, name in ipairs(HOOKS) do
    if user[name] ~= nil and type(user[name]) ~= "function" then
      fail.raise("argument", "%s is a %s, not a function", name,
        type(user[name]))
    end
    hooks[name] = user[name]
  end
  return hooks
end

-- --memory on the command line is the sweep's budget.
local function apply_memory(resolved)
  local asked = host.options.memory
  if asked then resolved.values["memory.budget"] = asked end
end

-- Every pattern of `only` names something, so that a slip of the finger does
-- not pass for a finished sweep.
local function check_only(only, list)
  local wanted = require("llm.resume").wanted
  if only and not only:find "[^,%s]" then
    fail.raise("usage", "only=: expected names of experiments, by commas")
  end
  for pattern in (only or ""):gmatch "[^,%s]+" do
    local names, found = {}, false
    for i, e in ipairs(list) do
      names[i], found = e.name, found or wanted(pattern, e.name)
    end
    if not found then
      local near = nearest(pattern, names)
      fail.raise("usage", "only=%s names no experiment; %s", pattern, near
        and "did you mean '" .. near .. "'?" or "there is "
        .. table.concat(names, ", ", 1, math.min(#names, 16))
        .. (#names > 16 and " …" or ""))
    end
  end
end

-- The experiments. What only the command line made impossible is its error,
-- not one of the script's.
local function expanded(user, resolved)
  local ok, list = pcall(matrix.expand, resolved)
  if ok then return list end
  if #resolved.taken > 0 and pcall(function()
    matrix.expand(config.resolve(user, {}, device.backend()))
  end) then
    fail.raise("usage", "%s", list.message or list)
  end
  error(list, 0)
end

local function new(user)
  local words = user.args or host.options.args or {}
  local resolved = config.resolve(user, words, device.backend())
  apply_memory(resolved)
  local list = expanded(user, resolved)
  check_only(resolved.values.only, list)
  return setmetatable({
    config = resolved, out = resolved.values.out, build = user.model,
    hooks = hooks_of(user), experiments = list,
  }, Sweep)
end

-- What the prompt shows.
function Sweep:__tostring()
  local names = {}
  for i, e in ipairs(self.experiments) do
    names[i] = i <= 16 and e.name or "…"
    if i > 16 then break end
  end
  return ("sweep '%s' of %d experiments: %s"):format(
    self.config.values.name, #self.experiments, table.concat(names, " "))
end

-- The experiment of that name; raises when there is none.
function Sweep:experiment(name)
  for _, e in ipairs(self.experiments) do
    if e.name == name then return e end
  end
  fail.raise("argument", "no experiment is named '%s'", tostring(name))
end

-- The matrix with everything predicted, one row an experiment; no device is
-- touched.
function Sweep:plan() return (require("llm.dryrun").rows(self)) end

-- Run, or continue, all experiments; gives the exit code.
function Sweep:run() return require("llm.run")(self) end

-- The array of results so far, derived from the journal.
function Sweep:results()
  return require("llm.results").read(self.out)
end

-- Lines about the overrides taken from the command line.
function Sweep:overrides()
  local lines = {}
  for i, o in ipairs(self.config.taken) do
    lines[i] = ("%s: %s -> %s"):format(o.key, keys.shown(o.before),
      keys.shown(o.after))
  end
  return lines
end

-- What the host does with a script that returns a sweep.
function Sweep:__run()
  if host.options.help then return require("llm.usage").sweep(self) end
  if host.options.experiment then
    return require("llm.experiment").run(self, host.options.experiment)
  end
  if self.config.flags["dry-run"] then
    for _, line in ipairs(self:overrides()) do io.stderr:write(line, "\n") end
    return require("llm.dryrun").run(self)
  end
  return self:run()
end

return setmetatable({ grid = matrix.grid },
  { __call = function(_, user) return new(user) end })
