-- Temporary files that killed processes left: `name.tmp.<process id>`, as every
-- file is called until it is whole. No reader ever takes one for a result.
local host = require "host"

local litter = {}

-- Whether the process with this id may still be writing. An id of ours is an
-- earlier process's: ids come again, and we write nothing yet.
local function lives(pid)
  return pid ~= host.process.pid() and host.process.start_time(pid) ~= nil
end

-- Remove them from a folder (nothing happens when there is none). all: those of
-- processes that seem to live, too; the caller holds the folder's lock.
function litter.clear(folder, all)
  for _, name in ipairs(host.file.list(folder) or {}) do
    local pid = name:match "%.tmp%.(%d+)$"
    pid = pid and math.tointeger(pid)
    if pid and (all or not lives(pid)) then
      host.file.remove(folder .. "/" .. name)
    end
  end
end

-- Remove them from a run's folder and its checkpoints.
function litter.clear_run(run, all)
  litter.clear(run, all)
  for _, step in ipairs(host.file.list(run .. "/checkpoints") or {}) do
    litter.clear(run .. "/checkpoints/" .. step, all)
  end
end

-- Remove them from a sweep's folder and its runs.
function litter.clear_sweep(out)
  litter.clear(out)
  for _, name in ipairs(host.file.list(out .. "/runs") or {}) do
    litter.clear_run(out .. "/runs/" .. name)
  end
end

return litter
