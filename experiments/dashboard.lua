-- The interactive dashboard over a sweep's results, in a browser of this
-- machine; while a sweep runs the page follows it.
--
--   llmhost experiments/dashboard.lua [results=FOLDER] [port=8501] [open=true]
--                                     [script=experiments/sweep.lua]
--
-- results  the folder to show (experiment_results)
-- port     on 127.0.0.1 (8501); 0: any free one
-- open     open the browser (false)
-- script   the sweep whose matrix is shown while the folder holds no journal
--          (experiments/sweep.lua)
return setmetatable({}, { __run = function()
  return require("llm.dashboard.command")(require("host").options.args or {})
end })
