-- The dashboard's page: its sources below lua/web/, Chart.js where the
-- distribution put it, and the one file that holds all of it.
local host = require "host"

local page = {}

-- Where Debian and others keep Chart.js 3.
page.CHART_JS = { "/usr/share/javascript/chart.js/chart.min.js",
  "/usr/share/javascript/chart.js/Chart.min.js",
  "/usr/share/nodejs/chart.js/dist/chart.min.js",
  "/usr/share/nodejs/chart.js/dist/Chart.min.js" }

page.SCRIPTS = { "state.js", "draw.js", "figure.js", "table.js",
  "diagrams.js", "design.js", "insights.js", "tabs.js", "main.js" }
page.STYLES = { "page.css", "parts.css" }

local function root() return host.options.root .. "/lua/web/" end

-- The text of a source file; raises when the installation lacks it.
function page.source(name)
  local text, message = host.file.read(root() .. name)
  if not text then error("the dashboard's page: " .. message, 0) end
  return text
end

-- The text of Chart.js, or nil and which package brings it.
function page.chart_js()
  for _, path in ipairs(page.CHART_JS) do
    local text = host.file.read(path)
    -- Version 2, which some systems still have, draws nothing here.
    if text and text:find("v3.", 1, true) then return text end
  end
  return nil, "the dashboard draws with Chart.js 3, which is not here: "
    .. "apt-get install libjs-chart.js"
end

local function joined(names)
  local parts = {}
  for i, name in ipairs(names) do parts[i] = page.source(name) end
  return table.concat(parts, "\n")
end

-- The files the page asks for when it is served: { [path] = { type, text } }.
function page.files(chart_js)
  local html = page.source "page.html"
  local head = '<link rel="stylesheet" href="page.css">\n'
    .. '<script src="chart.js" defer></script>\n'
    .. '<script src="page.js" defer></script>'
  return {
    ["/"] = { "text/html; charset=utf-8",
      (html:gsub("<!%-%- head %-%->", function() return head end)
        :gsub("<!%-%- data %-%->", "")) },
    ["/page.css"] = { "text/css; charset=utf-8", joined(page.STYLES) },
    ["/page.js"] = { "text/javascript; charset=utf-8",
      joined(page.SCRIPTS) },
    ["/chart.js"] = { "text/javascript; charset=utf-8", chart_js },
  }
end

-- JSON that may stand inside a script element.
local function embedded(value)
  return (host.json.encode(value):gsub("[<>&]", { ["<"] = "\\u003c",
    [">"] = "\\u003e", ["&"] = "\\u0026" })
    :gsub("\u{2028}", "\\u2028"):gsub("\u{2029}", "\\u2029"))
end

-- The sources, which hold no closing tag of a script, as an element.
local function script(text)
  return "<script>\n" .. text:gsub("</([sS])", "<\\/%1") .. "\n</script>"
end

local POLICY = '<meta http-equiv="Content-Security-Policy" content="'
  .. "default-src 'none'; script-src 'unsafe-inline'; style-src "
  .. "'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action "
  .. "'none'\">\n"

-- The page as one file that opens from a disk with no network.
function page.standalone(doc, chart_js)
  local parts = { head = POLICY .. "<style>\n" .. joined(page.STYLES)
    .. "\n</style>",
    data = '<script type="application/json" id="data">' .. embedded(doc)
      .. "</script>\n" .. script(chart_js) .. "\n"
      .. script(joined(page.SCRIPTS)) }
  return (page.source "page.html":gsub("<!%-%- (%w+) %-%->", parts))
end

return page
