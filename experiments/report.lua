-- Results, report and plots again, from the journal of a finished or running
-- sweep.
--
--   llmhost experiments/report.lua [FOLDER]     default: experiment_results
local console = require "llm.console"
local host = require "host"
local keys = require "llm.keys"
local output = require "llm.output"

local function main()
  local _, words = keys.read({}, { words = { { "FOLDER",
    "a sweep's results; experiment_results" } } })
  local folder = words[1] or "experiment_results"
  if not host.file.exists(folder .. "/journal.jsonl") then
    io.stderr:write(folder, ": no journal.jsonl there; a sweep writes it: ",
      "llmhost experiments/sweep.lua\n")
    return 1
  end
  local list = output.write(folder, console.open(nil, host.options.json))
  if host.options.json then output.print(list) end
  return 0
end

return setmetatable({}, { __run = main })
