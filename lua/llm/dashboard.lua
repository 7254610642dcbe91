-- The dashboard: a server of its own process over a sweep's folder, and the
-- same page as one file. It reads the journal and the metrics, and writes
-- nothing into the folder it shows.
local charts = require "llm.dashboard.charts"
local compare = require "llm.compare"
local design = require "llm.dashboard.design"
local document = require "llm.dashboard.document"
local folder = require "llm.dashboard.folder"
local host = require "host"
local page = require "llm.dashboard.page"

local dashboard = {}
dashboard.__index = dashboard

local BEAT = 10 -- seconds between signs of life on an idle stream
local LOOK = 1 -- seconds between looks at the folder

-- A dashboard over the folder `path`. sweep: shown while there is no journal.
function dashboard.new(path, sweep)
  return setmetatable({ source = { folder = folder.open(path), sweep = sweep,
    design = design.new(sweep and sweep.build) }, version = 0, files = {} },
    dashboard)
end

-- Read the folder if it changed since; whether it did.
function dashboard:refresh()
  local now = self.source.folder:signature()
  if now == self.signature then return false end
  local began = host.clock()
  self.view = document.view(self.source)
  self.signature = self.source.folder:signature()
  local doc = document.build(self.source, self.view, true)
  self.version = self.version + 1
  doc.version = self.version
  self.text = host.json.encode(doc)
  self.cost = host.clock() - began
  return true
end

-- Names that the page puts one a line.
local function set_of(text)
  if not text then return nil end
  local set = {}
  for word in text:gmatch "[^\n]+" do set[word] = true end
  return set
end

local function options_of(view, list)
  return { curves = view.curves, short = compare.too_short(list) }
end

-- The description of the chart a request names, or nil.
function dashboard:spec(id, query)
  if id == "timeline" then return self:timeline(query.name) end
  local list = document.results(self.view, self.source.design)
  return charts.part(id, list, options_of(self.view, list),
    set_of(query.models), set_of(query.variants))
end

function dashboard:timeline(name)
  for _, row in ipairs(self.source.design:rows(self.view,
    self.view.backend)) do
    if row.name == name and row.batch then
      for _, e in ipairs(self.view.order) do
        local line = e.name == name and self.source.design:timeline(e,
          self.view.backend, row.batch, row.accumulate)
        if line then return charts.timeline(name, line) end
      end
    end
  end
end

local TEXT = "text/plain; charset=utf-8"

function dashboard:svg(id, query)
  local spec = self:spec(id, query)
  if not spec then return 404, TEXT, "no such chart with these filters\n" end
  local bytes, why = charts.svg(spec)
  if not bytes then return 503, TEXT, why .. "\n" end
  return 200, "image/svg+xml", bytes, id .. ".svg"
end

-- The answer to a request: status, type, body and a download's name.
function dashboard:answer(path, query)
  local file = self.files[path]
  if file then return 200, file[1], file[2] end
  if path == "/events" then return "stream" end
  if path == "/data.json" then
    return 200, "application/json", self.text
  end
  local id = path:match "^/charts/([%w_]+)%.svg$"
  if id then return self:svg(id, query) end
  return 404, TEXT, "there is no such page\n"
end

local function event(version)
  return ("event: change\ndata: {\"version\":%d}\n\n"):format(version)
end

-- Serve until interrupted. started(port) is called once it listens. Gives true,
-- or nil and why not.
function dashboard:serve(port, started)
  local chart_js, why = page.chart_js()
  if not chart_js then return nil, why end
  self.files = page.files(chart_js)
  local server <close>, message, code = host.web.serve { port = port,
    handler = function(path, query) return self:answer(path, query) end }
  if not server then return nil, message, code end
  self:refresh()
  if started then started(server:port()) end
  return self:loop(server)
end

function dashboard:loop(server)
  local look, beat = 0, host.clock() + BEAT
  while host.process.interrupted() == 0 do
    local ok, message = server:run(.25)
    if not ok then io.stderr:write("dashboard: ", message, "\n") end
    local now = host.clock()
    if now >= look then
      if self:refresh() then server:send(event(self.version)) end
      look = host.clock() + math.max(LOOK, 4 * (self.cost or 0))
    end
    if now >= beat then
      server:send ": \n\n"
      beat = now + BEAT
    end
  end
  return true
end

-- The page over `path` as one file's text, with every chart as SVG in it; nil
-- and why not.
function dashboard.standalone(path, sweep)
  local chart_js, why = page.chart_js()
  if not chart_js then return nil, why end
  local self = dashboard.new(path, sweep)
  self.view = document.view(self.source)
  local doc = document.build(self.source, self.view, false)
  doc.svgs = host.json.object {}
  local list = document.results(self.view, self.source.design)
  for _, entry in ipairs(doc.any and doc.svg and charts.list or {}) do
    doc.svgs[entry[1]] = charts.svg(charts.build(entry[1], list,
      options_of(self.view, list)))
  end
  for _, line in ipairs(doc.svg and doc.timelines or {}) do
    doc.svgs["timeline " .. line.name] = charts.svg(self:timeline(line.name))
  end
  return page.standalone(doc, chart_js)
end

return dashboard
