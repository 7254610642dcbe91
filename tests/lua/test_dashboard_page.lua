-- The dashboard's page in a real browser: every tab, filters, sorting, hover,
-- zoom, themes, exports, a narrow screen, a live sweep, a lost server.
local browser = require "browser"
local check = require "check"
local host = require "host"
local micro = require "micro"
local sweep_folder = require "sweep_folder"

local root = micro.folder "page"
local b -- the browser, once there is one
local HOSTILE = "<img src=x onerror=alert(1)>"

-- --- servers ---------------------------------------------------------------

local function serve(folder, port, more)
  local words = { host.process.executable(), host.options.root
    .. "/experiments/dashboard.lua", "results=" .. folder, "port=" .. port,
    more }
  words.cwd, words.stdin, words.stdout, words.stderr = root, "null", "pipe",
    "pipe"
  local p = assert(host.process.spawn(words))
  local line = p:read_line(20)
  while line and not line:find "http://" do line = p:read_line(20) end
  local found = line and line:match "http://127.0.0.1:(%d+)/"
  if not found then check.skip(tostring(p:read_error_line(5))) end
  return p, found
end

local function url(port, hash)
  return ("http://127.0.0.1:%s/%s"):format(port, hash or "")
end

local READY = "return window.dashboard && dashboard.data ? true : false"

local function open(address)
  b:go "about:blank"
  b:go(address)
  b:wait(READY)
end

local function no_complaints()
  check.equal(b:complaints(), "")
end

local function tab(name)
  b:js("document.getElementById('tab-' + arguments[0]).click()", name)
  b:wait("return !document.getElementById('panel-' + arguments[0]).hidden",
    5, name)
end

local function text(selector)
  return b:js("const e = document.querySelector(arguments[0]);"
    .. "return e ? e.textContent : ''", selector)
end

local finished = root .. "/finished"
local server, port

check.case("a browser opens the page", function()
  b = browser.open(root)
  b:view(1280, 900)
  sweep_folder.write(finished, { words = { "train.seeds=1,30" },
    change = function(e)
      if e.name == "large_gqa_fp4_s30" then e.name = HOSTILE end
    end, status = function(e)
      if e.name == HOSTILE then return "oom", HOSTILE end
    end })
  server, port = serve(finished, 0)
  open(url(port))
  check.equal(text "#status", "finished, 16 of 16")
  b:wait "return document.querySelector('#live').textContent === 'live'"
  no_complaints()
end)

if not b then check.done() end

-- --- tabs ------------------------------------------------------------------

local TABS = { "overview", "memory", "performance", "efficiency", "results",
  "insights", "design" }

-- How many colours a figure's canvas shows: something was drawn.
local DRAWN = [=[
  const c = dashboard.figures[arguments[0]].canvas;
  const p = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  const seen = new Set();
  for (let i = 0; i < p.length; i += 4) {
    if (p[i + 3] > 200) seen.add(p[i] << 16 | p[i + 1] << 8 | p[i + 2]);
  }
  return seen.size]=]

check.case("every tab shows what it should, drawn", function()
  check.equal(b:js("return [...document.querySelectorAll('[role=tab]')]"
    .. ".map((t) => t.id.slice(4)).join(' ')"), table.concat(TABS, " "))
  for _, name in ipairs(TABS) do
    tab(name)
    check.equal(b:js "return location.hash", "#tab=" .. name)
  end
  local figures = b:js "return Object.keys(dashboard.figures)"
  check.equal(#figures, 14)
  for _, id in ipairs(figures) do
    local figure = b:js("const f = dashboard.figures[arguments[0]];"
      .. "return f.empty.hidden ? 'drawn' : f.empty.textContent", id)
    check.equal(figure, "drawn", id)
    check.truthy(b:js(DRAWN, id) > 3, id .. " is blank")
  end
  for _, want in ipairs { "Grouped-query attention", "4-bit weights",
    "Expected beside measured" } do
    check.truthy(text("#panel-overview"):find(want, 1, true), want)
  end
  check.truthy(text("#panel-insights"):find("Best quality", 1, true))
  check.equal(b:js("return document.querySelectorAll("
    .. "'#panel-design .cell').length"), 16)
  no_complaints()
end)

check.case("hostile names are text, and run nothing", function()
  tab "results"
  check.equal(b:js "return document.querySelectorAll('main img').length", 0)
  check.truthy(text("#results"):find(HOSTILE, 1, true))
  b:js [[const s = document.createElement("script");
    s.textContent = "window.hacked = 1"; document.body.append(s);]]
  check.equal(b:js "return window.hacked === undefined", true)
  check.truthy(b:complaints():find("Content Security Policy", 1, true),
    "no policy stopped it")
end)

-- --- filters, sorting, search ----------------------------------------------

check.case("filters leave a part, and the address keeps them", function()
  tab "performance"
  b:click "#sidebar fieldset:nth-of-type(1) label:nth-of-type(2) input"
  check.equal(text ".count", "8 of 16 shown")
  check.equal(b:js("return dashboard.figures.throughput.chart.data.labels"
    .. ".join()"), "small")
  check.truthy(b:js("return location.hash"):find("without-models=large", 1,
    true))
  b:js "location.reload()"
  b:wait(READY)
  check.equal(text ".count", "8 of 16 shown")
  b:click "#sidebar [aria-label='no variants']"
  check.equal(text ".count", "0 of 16 shown")
  check.equal(text "#chart-throughput .empty", "No data with these filters.")
  b:click "#sidebar [aria-label='all variants']"
  b:click "#sidebar [aria-label='all models']"
  check.equal(text ".count", "16 of 16 shown")
  no_complaints()
end)

local function column(key)
  return b:js([[const i = dashboard.data.columns.filter((c) => c.default)
    .findIndex((c) => c.key === arguments[0]);
    return [...document.querySelectorAll("#results tbody tr")].map((r) =>
      r.children[i].textContent).join(" ")]], key)
end

check.case("a heading sorts, twice downwards, missing values last", function()
  tab "results"
  local before = column "speed"
  b:click "#results [data-key=speed]"
  local up = {}
  for word in column "speed":gmatch "%S+" do up[#up + 1] = tonumber(word) end
  check.equal(#up, 15)
  for i = 2, 15 do check.truthy(up[i] >= up[i - 1], "not sorted") end
  check.truthy(column "speed":find "–$", "the failed run is not last")
  check.equal(b:js("return document.querySelector('#results "
    .. "[data-key=speed]').parentNode.getAttribute('aria-sort')"),
    "ascending")
  b:click "#results [data-key=speed]"
  check.truthy(tonumber(column("speed"):match "%S+") == up[15])
  check.truthy(column "speed":find "–$", "the failed run is not last")
  b:click "#results [data-key=speed]"
  check.equal(column "speed", before)
end)

check.case("search looks everywhere or in one column", function()
  b:type("#search", "fp4:yes speed>2500 small")
  local names = column "name"
  check.truthy(names:find "small_gqa_fp4_s1", names)
  check.equal(select(2, names:gsub("%S+", "")), 2)
  b:js "const s = document.getElementById('search'); s.value = '';"
  b:type("#search", "zebra")
  check.truthy(text("#panel-results [role=status]"):find("0 of 16 runs: no "
    .. "data with these filters", 1, true))
  b:js [[const s = document.getElementById("search"); s.value = "";
    s.dispatchEvent(new Event("input"));]]
  check.equal(select(2, column "params":gsub("%S+", "")), 16)
end)

check.case("the chooser shows any other column", function()
  b:js [[const label = [...document.querySelectorAll(".picks label")].find(
    (l) => l.textContent === "training_stats.epochs");
    label.querySelector("input").click();]]
  check.truthy(b:js("return [...document.querySelectorAll('#results thead "
    .. "th')].some((h) => h.textContent === 'epochs')"))
  b:js "document.querySelector('.picks button').click()"
  check.equal(b:js("return document.querySelectorAll('#results thead "
    .. "th').length"), 10)
end)

-- --- charts ----------------------------------------------------------------

local BOX = [=[const f = dashboard.figures[arguments[0]];
  f.node.scrollIntoView({ block: "center" });
  const r = f.canvas.getBoundingClientRect(), a = f.chart.chartArea;
  return [r.left + a.left, r.top + a.top, a.right - a.left,
    a.bottom - a.top]]=]

local function place(id, x, y)
  local box = b:js(BOX, id)
  return { math.floor(box[1] + x * box[3]), math.floor(box[2] + y * box[4]) }
end

check.case("hover tells the figures", function()
  tab "performance"
  b:mouse { place("throughput", .2, .5), place("throughput", .22, .6) }
  b:wait "return dashboard.figures.throughput.chart.tooltip.opacity > 0"
  local lines = b:js("const t = dashboard.figures.throughput.chart.tooltip;"
    .. "return t.title.concat(...t.body.map((x) => x.lines)).join('; ')")
  check.equal(lines, "small; baseline: 2.05k ± 0; gqa: 2.56k ± 0; "
    .. "fp4: 1.86k ± 0; gqa_fp4: 2.93k ± 0")
end)

check.case("a legend's chip hides its series", function()
  local visible = "return dashboard.figures.throughput.chart"
    .. ".isDatasetVisible(1)"
  check.equal(b:js(visible), true)
  b:click "#chart-throughput .chip:nth-child(2)"
  check.equal(b:js(visible), false)
  check.equal(b:js("return document.querySelector('#chart-throughput "
    .. ".chip:nth-child(2)').getAttribute('aria-pressed')"), "false")
  b:click "#chart-throughput .chip:nth-child(2)"
  check.equal(b:js(visible), true)
end)

check.case("dragging zooms, Reset shows all again", function()
  local range = "const x = dashboard.figures.loss_tokens.chart.scales.x;"
    .. "return x.max - x.min"
  local whole = b:js(range)
  b:mouse({ place("loss_tokens", .3, .2), place("loss_tokens", .5, .5),
    place("loss_tokens", .6, .8) }, true)
  local part = b:js(range)
  check.near(part / whole, .3, .03)
  b:click "#chart-loss_tokens [aria-label^='Reset zoom']"
  check.equal(b:js(range), whole)
  b:click "#chart-loss_tokens [aria-label^='Zoom in']"
  check.near(b:js(range) / whole, .6, .01)
  b:click "#chart-loss_tokens [aria-label^='Reset zoom']"
end)

local function export(id, kind)
  b:click(("#chart-%s [aria-label^='Save %s']"):format(id, kind))
  return b:downloaded(id .. "." .. kind:lower())
end

check.case("charts leave as PNG, SVG and CSV", function()
  check.equal(export("throughput", "PNG"):sub(1, 8), "\137PNG\r\n\26\n")
  local csv = export("throughput", "CSV")
  check.equal(csv:match "^[^\r]*", "group,label,baseline,gqa,fp4,gqa_fp4")
  check.truthy(csv:find(",small,2048,2560,1861", 1, true), csv)
  if b:js "return dashboard.data.svg" then
    local svg = export("throughput", "SVG")
    check.truthy(svg:find("<svg", 1, true) and svg:find(">Throughput<", 1,
      true), svg:sub(1, 300))
    -- Three of the four variants are left: as on the screen, so in the file.
    b:click "#sidebar fieldset:nth-of-type(2) label:nth-of-type(3) input"
    svg = export("throughput", "SVG")
    b:click "#sidebar [aria-label='all variants']"
    check.truthy(svg:find(">gqa_fp4<", 1, true) and svg:find(">baseline<", 1,
      true) and not svg:find(">fp4<", 1, true), svg:sub(1, 300))
  end
  no_complaints()
end)

check.case("the table leaves as CSV, JSON and Markdown", function()
  tab "results"
  local function save(kind, name)
    b:click("[aria-label='Save the table as " .. kind .. "']")
    return b:downloaded(name)
  end
  local csv = save("CSV", "results.csv")
  check.equal(csv:match "^[^\r]*", 'ID,config,GQA,FP4,params,batch,val loss,'
    .. '"memory, GB","time, s",tokens/s')
  check.equal(select(2, csv:gsub("\r\n", "")), 17)
  check.truthy(csv:find(HOSTILE .. ",64d 2L 4h,4:1,yes,,4 × 2,oom,,,\r\n", 1,
    true), csv)
  check.truthy(csv:find("small_fp4_s1,32d 1L 4h,no,yes,90000,4 × 2,5.201,"
    .. "0.07,22,1861.8", 1, true), csv)
  local list = assert(host.json.decode(save("JSON", "results.json")))
  check.equal(#list, 16)
  check.equal(list[1]["evaluation.val_loss"], 5.001)
  check.equal(list[16].name, HOSTILE)
  local md = save("Markdown", "results.md")
  check.truthy(md:find("&lt;img src=x onerror=alert(1)&gt;", 1, true), md)
end)

check.case("a spreadsheet gets no formula", function()
  check.equal(b:js("return dashboard.csv([['=1+1', '@x', '+1', '-2', -2, "
    .. "'a,b', 'q\"q', '\\tx']])"), "'=1+1,'@x,'+1,'-2,-2,\"a,b\",\"q\"\"q\","
    .. "'\tx\r\n")
end)

-- --- insights --------------------------------------------------------------

check.case("weights move the recommendation; ties are called ties", function()
  tab "insights"
  check.truthy(text("[data-best=loss]"):find("Tie: large ", 1, true),
    text "[data-best=loss]")
  check.truthy(text("[data-best=loss]"):find("inside the seed-to-seed "
    .. "spread", 1, true))
  local function weigh(...)
    b:js([=[[0, 1, 2].forEach((i) => {
      const w = document.getElementById("weight-" + i);
      w.value = arguments[i]; w.dispatchEvent(new Event("input")); })]=], ...)
    return text "#advised"
  end
  check.equal(weigh(100, 0, 0), "gqa_fp4")
  check.equal(weigh(0, 0, 100), "Nothing to weigh") -- a pair lacks a seed
  b:click "#sidebar fieldset:nth-of-type(2) label:nth-of-type(4) input"
  check.equal(text "#advised", "baseline")
  b:click "#sidebar [aria-label='all variants']"
  check.truthy(b:js("return location.hash"):find("weights=0%2C0%2C100", 1,
    true))
  no_complaints()
end)

-- --- themes, keys, narrow screens ------------------------------------------

check.case("both themes, chosen or the system's", function()
  local function ground()
    return b:js "return getComputedStyle(document.body).backgroundColor"
  end
  local light = ground()
  b:view(1280, 900, "dark")
  b:wait "return document.documentElement.dataset.theme === 'dark'"
  check.truthy(ground() ~= light)
  tab "memory"
  check.truthy(b:js(DRAWN, "memory_usage") > 3)
  b:js [[const t = document.getElementById("theme"); t.value = "light";
    t.dispatchEvent(new Event("change"))]]
  check.equal(ground(), light)
  b:js [[const t = document.getElementById("theme"); t.value = "auto";
    t.dispatchEvent(new Event("change"))]]
  b:view(1280, 900)
  no_complaints()
end)

check.case("arrows walk the tabs, Back returns", function()
  tab "overview"
  b:js "document.getElementById('tab-overview').focus()"
  b:type("#tab-overview", "\u{E014}")
  check.equal(b:js "return document.activeElement.id", "tab-memory")
  check.equal(b:js("return document.querySelectorAll('[role=tab]"
    .. "[aria-selected=true]').length"), 1)
  b:type("#tab-memory", "\u{E010}")
  check.equal(b:js "return document.activeElement.id", "tab-design")
  b:js "history.back()"
  b:wait "return !document.getElementById('panel-memory').hidden"
end)

check.case("every control has a name, every chart a text", function()
  for _, name in ipairs(TABS) do tab(name) end
  check.equal(b:js [[return [...document.querySelectorAll(
    "button, input, select, canvas, svg:not([aria-hidden])")].filter((e) => {
      const label = e.getAttribute("aria-label") || e.textContent.trim()
        || (e.labels && e.labels.length && e.labels[0].textContent.trim());
      return !label;
    }).map((e) => e.outerHTML.slice(0, 80)).join("\n")]], "")
  b:js "document.querySelector('#chart-throughput details').open = true"
  b:wait("return document.querySelectorAll('#chart-throughput table tr')"
    .. ".length === 3")
end)

check.case("390 pixels: nothing is wider than the screen", function()
  b:view(390, 800)
  for _, name in ipairs(TABS) do
    tab(name)
    check.equal(b:js "return document.documentElement.scrollWidth", 390, name)
  end
  check.equal(b:js("return getComputedStyle(document.getElementById("
    .. "'sidebar')).display"), "none")
  b:click "#menu"
  check.equal(b:js("return getComputedStyle(document.getElementById("
    .. "'sidebar')).display"), "block")
  b:view(1280, 900)
  no_complaints()
end)

-- --- live ------------------------------------------------------------------

check.case("a lost server is found again, with what is new", function()
  server:close()
  b:wait "return document.querySelector('#live').textContent !== 'live'"
  sweep_folder.write(finished, { finished = 4, open = true })
  server = serve(finished, port)
  b:wait("return document.querySelector('#status').textContent.startsWith("
    .. "'stopped before its end, 4 of 8')", 15)
  b:wait "return document.querySelector('#live').textContent === 'live'"
  b:complaints() -- the browser tells of the refused connections
end)

check.case("a sweep fills the open page", function()
  server:close()
  micro.script(root, '{ name = "baseline" }, { name = "gqa", kv_groups = 2 }')
  server, port = serve(root .. "/out", 0, "script=sweep.lua")
  b:go "about:blank"
  b:complaints()
  open(url(port))
  check.equal(text "#status", "no results yet")
  check.equal(b:js("return [...document.querySelectorAll('[role=tab]')]"
    .. ".map((t) => t.textContent).join()"),
    "Experiment Design,Techniques,Getting Started")
  check.truthy(text("#panel-design"):find("predicted", 1, true))
  tab "techniques"
  tab "start"
  check.truthy(text("#panel-start"):find("experiments/check.lua", 1, true))
  no_complaints()
  local sweep = micro.start(root)
  b:wait("return document.querySelector('#status').dataset.word === "
    .. "'running'", 30)
  local status, out, err = micro.finish(sweep)
  check.equal(status.exit, 0, out .. err)
  b:wait("return document.querySelector('#status').textContent === "
    .. "'finished, 2 of 2'", 15)
  check.equal(text "[role=tab]", "Overview")
  check.truthy(host.file.exists(root .. "/out/dashboard.html"),
    "the sweep wrote no dashboard.html")
  no_complaints()
end)

check.case("the page as a file needs no server", function()
  b:go "about:blank"
  server:close()
  b:complaints()
  open("file://" .. root .. "/out/dashboard.html#tab=memory")
  check.equal(text "#live", "saved")
  check.equal(b:js "return dashboard.state.tab", "memory")
  for _, name in ipairs(TABS) do tab(name) end
  check.truthy(b:js(DRAWN, "memory_usage") > 3)
  if b:js "return dashboard.data.svg" then
    tab "memory"
    check.truthy(export("memory_usage", "SVG"):find("<svg", 1, true))
    check.truthy(export("timeline", "SVG"):find("<svg", 1, true))
  end
  tab "results"
  b:click "#results [data-key=speed]"
  check.truthy(b:js("return location.hash"):find("sort=speed", 1, true))
  no_complaints()
end)

b:close()
if server then server:close() end
host.file.remove_tree(root)
check.done()
