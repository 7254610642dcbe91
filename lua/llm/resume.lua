-- Starting, continuing or starting over: the folder's lock, the sweep's
-- identity, and which experiments are left to do.
local device = require "llm.device"
local fail = require "llm.fail"
local fingerprint = require "llm.fingerprint"
local host = require "host"
local state = require "llm.state"

local resume = {}

-- A flag of the script's words or of the program's options.
function resume.flag(sweep, name)
  return sweep.config.flags[name] or host.options[name]
end

function resume.identity(sweep)
  return { config = fingerprint.lines(sweep.config, device.backend()),
    files = fingerprint.files() }
end

local function refuse(sweep, lines, files)
  local told = table.concat(lines, "\n  ")
  if #lines == 0 then
    told = "these files changed: " .. table.concat(files, ", ")
  end
  fail.raise("usage", "%s holds a sweep of another configuration:\n  %s\n"
    .. "--fresh starts over, --force continues all the same, out=FOLDER "
    .. "keeps both", sweep.out, told)
end

-- The folded journal that this run continues; raises when it is of another
-- sweep (--force: continues all the same). One that ended before its first
-- experiment, as without a network, has nothing to keep: it makes way.
function resume.state(sweep, path, now)
  local s, message = state.read(path)
  if not s then fail.raise("error", "%s: %s", path, tostring(message)) end
  if not s.sweep or resume.flag(sweep, "force") then return s end
  local lines, files = fingerprint.diff(s.sweep, now)
  if #lines == 0 and #files == 0 then return s end
  if next(s.experiments) then refuse(sweep, lines, files) end
  resume.start_over(sweep)
  return assert(state.read(path))
end

-- The folder's lock; raises when another sweep runs there.
function resume.lock(sweep)
  local lock, message, code, pid = host.lock(sweep.out .. "/lock", 0)
  if lock then return lock end
  if code == "busy" then
    fail.raise("error", "%s: a sweep is running there%s", sweep.out,
      pid and " (process " .. pid .. ")" or "")
  end
  fail.raise("error", "%s/lock: %s", sweep.out, tostring(message))
end

local MINE = { "journal.jsonl", "experiment_log.txt",
  "experiment_results.json", "experiment_report.md", "dashboard.html", "runs" }

-- Remove what an earlier sweep left in the folder; raises where that cannot be
-- done, for what stays would be continued.
function resume.start_over(sweep)
  for _, name in ipairs(MINE) do
    local ok, message, code = host.file.remove_tree(sweep.out .. "/" .. name)
    if not ok then fail.raise(code, "%s", message) end
  end
end

-- Whether `only` (names with *, by commas; nil: all) names the experiment.
function resume.wanted(only, name)
  if not only then return true end
  for pattern in only:gmatch "[^,%s]+" do
    local lua = pattern:gsub("[%^%$%(%)%%%.%[%]%+%-%?]", "%%%0")
      :gsub("%*", ".*")
    if name:find("^" .. lua .. "$") then return true end
  end
  return false
end

local function pending(sweep, s, name)
  local known = s.experiments[name]
  if resume.flag(sweep, "retry") and known and known.status ~= "ok" then
    return true
  end
  return not state.finished(s, name)
end

-- Jobs left to do, and the experiments that `only` leaves out.
function resume.jobs(sweep, s)
  local jobs, skipped = {}, {}
  for _, e in ipairs(sweep.experiments) do
    local known = s.experiments[e.name]
    local left = pending(sweep, s, e.name)
    if left and resume.wanted(sweep.config.values.only, e.name) then
      jobs[#jobs + 1] = { e = e, mode = "train" }
    elseif left and not (known and known.status == "skipped") then
      skipped[#skipped + 1] = e
    end
  end
  return jobs, skipped
end

return resume
