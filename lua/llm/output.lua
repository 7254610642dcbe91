-- Everything a sweep leaves behind, written again from its journal at any
-- time: results, report, plots, and the list of them.
local host = require "host"
local metrics = require "llm.metrics"
local report = require "llm.report"
local results = require "llm.results"
local size = require "llm.size"
local state = require "llm.state"
local summary = require "llm.summary"

local output = {}

local function write(out, name, text, written)
  local path = out .. "/" .. name
  local ok, message = host.file.write(path, text)
  if not ok then error(path .. ": " .. tostring(message), 0) end
  written[#written + 1] = { path = path, bytes = #text }
end

local function curves_of(out, list)
  local curves = {}
  for _, r in ipairs(list) do
    curves[r.name] = state.strip(metrics.read(out .. "/runs/" .. r.name))
  end
  return curves
end

local function image_names(files)
  local names = {}
  for _, file in ipairs(files) do
    local name = file.path:match "([^/]+%.png)$"
    if name then names[#names + 1] = name end
  end
  return names
end

-- Draw the plots; a missing plot module costs only the plots.
local function draw(out, list, con)
  local ok, plots = pcall(require, "plots")
  if not ok then
    con:say("plots: not drawn: " .. tostring(plots):match "[^\n]*", "warn")
    return {}
  end
  local drawn, files, why = pcall(plots.write, list, out,
    curves_of(out, list))
  if not drawn or not files then
    con:say("plots: not drawn: " .. tostring(files or why), "bad")
    return {}
  end
  return files
end

-- The dashboard's page as one file; what it lacks costs only the page.
local function page(out, con, written)
  local ok, text, why = pcall(function()
    return require("llm.dashboard").standalone(out)
  end)
  if ok and text then return write(out, "dashboard.html", text, written) end
  con:say("dashboard.html: not written: " .. tostring(why or text), "warn")
end

local function told(con, files)
  for _, file in ipairs(files) do
    con:format(nil, "wrote %s (%s)", file.path, size.bytes(file.bytes))
  end
end

local function environment_date(s)
  return s.sweep and s.sweep.environment and s.sweep.environment.date
end

-- Write the results alone, as an interrupted sweep leaves them; gives them, {}
-- when there are none.
function output.write_results(out)
  local list = host.file.exists(out .. "/journal.jsonl") and results.read(out)
  if list then
    host.file.write(out .. "/experiment_results.json", results.encode(list))
  end
  return list or {}
end

-- The results as one JSON document on standard output.
function output.print(list)
  io.stdout:write(results.encode(list))
  io.stdout:flush()
end

-- Write results, report and plots of the folder `out`; tell `con`. Gives the
-- results.
function output.write(out, con)
  local list, s = results.read(out)
  if not list then error(s, 0) end
  s.date = environment_date(s)
  local written = {}
  write(out, "experiment_results.json", results.encode(list), written)
  local images = draw(out, list, con)
  con:stage(3, "report")
  write(out, "experiment_report.md",
    report.text(list, s, image_names(images)), written)
  page(out, con, written)
  told(con, written)
  con:stage(4, "plots")
  told(con, images)
  con:table(summary(list))
  con:format(nil, "in the browser: llmhost experiments/dashboard.lua%s",
    out == "experiment_results" and "" or " results=" .. out)
  return list
end

return output
