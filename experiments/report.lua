-- Results, report and plots again, from the journal of a finished or running
-- sweep. Two folders are set side by side: memory, speed and loss of every run
-- that both hold, and where machines and configurations differ; that writes
-- nothing.
--
--   llmhost experiments/report.lua [FOLDER]     default: experiment_results
--   llmhost experiments/report.lua A B
local console = require "llm.console"
local host = require "host"
local keys = require "llm.keys"
local output = require "llm.output"
local sidebyside = require "llm.sidebyside"

local WORDS = { { "FOLDER", "a sweep's results; experiment_results" },
  { "OTHER", "results to set beside these" } }

-- Whether the folder holds a journal; says so if it does not.
local function holds(folder)
  if host.file.exists(folder .. "/journal.jsonl") then return true end
  io.stderr:write(folder, ": no journal.jsonl there; a sweep writes it: ",
    "llmhost experiments/sweep.lua\n")
  return false
end

local function compare(a, b)
  local c = sidebyside.compare(a, b)
  io.stdout:write(host.options.json and sidebyside.encode(c)
    or table.concat(sidebyside.lines(c), "\n") .. "\n")
  return 0
end

local function main()
  local _, words = keys.read({}, { words = WORDS })
  local folder, other = words[1] or "experiment_results", words[2]
  if not holds(folder) or other and not holds(other) then return 1 end
  if other then return compare(folder, other) end
  local list = output.write(folder, console.open(nil, host.options.json))
  if host.options.json then output.print(list) end
  return 0
end

return setmetatable({}, { __run = main })
