-- The interactive dashboard over a sweep's results, in a browser of this
-- machine; while a sweep runs the page follows it.
--
--   llmhost experiments/dashboard.lua [results=FOLDER] [port=8501] [open=true]
local keys = require "llm.keys"

local o = keys.read {
  { "results", "string", "experiment_results", "the folder to show" },
  { "port", "integer", 8501, "on 127.0.0.1; 0: any free one",
    { least = 0, most = 65535 } },
  { "open", "boolean", false, "open it in the browser" },
  { "script", "string", nil, "the sweep whose matrix is shown while the "
    .. "folder holds no journal; default: experiments/sweep.lua" },
}

return setmetatable({}, { __run = function()
  return require("llm.dashboard.command")(o)
end })
