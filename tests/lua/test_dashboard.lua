-- The dashboard's data, its page as one file, and its command line, over
-- folders as a sweep leaves them: finished, running, torn, and hostile.
local check = require "check"
local charts = require "llm.dashboard.charts"
local dashboard = require "llm.dashboard"
local host = require "host"
local page = require "llm.dashboard.page"
local sweep_folder = require "sweep_folder"

local root = (os.getenv "TMPDIR" or "/tmp") .. "/llmhost-dashboard-"
  .. host.process.pid()
host.file.remove_tree(root)
assert(host.file.mkdir(root))
local out = root .. "/out"

local function document(path)
  local d = dashboard.new(path or out)
  d:refresh()
  return assert(host.json.decode(d.text)), d
end

local function has_renderer()
  return package.searchpath("chart", package.cpath) ~= nil
end

-- --- what it shows ---------------------------------------------------------

check.case("a finished sweep: rows, charts, insights", function()
  sweep_folder.write(out)
  local doc = document()
  check.equal(doc.status.word, "finished")
  check.equal(doc.status.done, 8)
  check.equal(#doc.rows, 8)
  check.equal(#doc.charts, #charts.list)
  check.equal(doc.rows[3].values.val_loss, 5.242)
  check.equal(doc.rows[3].texts.memory, "0.070")
  check.equal(table.concat(doc.models, " "), "small large")
  check.equal(doc.sweep.seconds, 321)
  check.equal(doc.sweep.length, "400 steps a run")
  check.equal(#doc.timelines, 8)
  check.equal(#doc.design, 8)
end)

check.case("the original's ten columns, and every other field", function()
  local doc = document()
  local shown, all = {}, {}
  for _, c in ipairs(doc.columns) do
    all[c.path] = true
    if c.default then shown[#shown + 1] = c.title end
  end
  check.equal(table.concat(shown, "|"), "ID|config|GQA|FP4|params|batch|"
    .. "val loss|memory, GB|time, s|tokens/s")
  for _, path in ipairs { "status", "error", "training_stats.epochs",
    "memory_stats.process_rise_gb", "environment.seed" } do
    check.truthy(all[path], path)
  end
end)

check.case("a chart's parts say which model and variant they are", function()
  local doc = document()
  for _, chart in ipairs(doc.charts) do
    local tagged = chart.id == "expected_measured"
    for _, list in ipairs { chart.categories or {}, chart.series } do
      for _, part in ipairs(list) do
        tagged = tagged or part.model or part.variant
      end
    end
    check.truthy(tagged, chart.id)
    for _, s in ipairs(chart.series) do
      check.equal(#s.y, chart.categories and #chart.categories or #s.x,
        chart.id .. " " .. s.name)
    end
  end
end)

check.case("changes are paired by model, and equal compare's", function()
  local doc = document()
  local p = doc.pairs[2]
  check.equal(p.model .. " " .. p.variant, "small fp4")
  check.near(p.memory, -.3, 1e-9)
  check.near(p.speed, 20 / 22 - 1, 1e-9)
  check.equal(p.speed_tie, false)
  check.equal(p.seeds, 1)
  check.equal(doc.quality.ranked, false)
  check.equal(doc.quality.why, "one seed: the seed-to-seed spread is not "
    .. "known, so no difference in loss can be told from chance")
end)

check.case("ties: inside the seeds' spread, inside a run's steps", function()
  sweep_folder.write(out, { words = { "train.seeds=1,30" } })
  local doc = document()
  check.equal(doc.quality.ranked, true)
  local base, gqa = doc.cells[1], doc.cells[2]
  check.equal(base.variant .. " " .. gqa.variant, "baseline gqa")
  check.equal(table.concat(base.ties.loss, ","), "2")
  check.equal(table.concat(gqa.ties.loss, ","), "1")
  check.equal(#base.ties.speed, 0)
  local found
  for _, f in ipairs(doc.findings) do
    found = found or f.text == "small gqa: its quality is a tie with the "
      .. "baseline's." and f.rests:find("a tie: inside", 1, true)
  end
  check.truthy(found, "no finding calls the tie a tie")
  for _, chart in ipairs(doc.charts) do
    if chart.id == "loss_tokens" then
      check.equal(#chart.series, 8)
      check.equal(chart.series[1].name, "small_baseline")
      check.equal(#chart.series[1].y, 4, "points of the seeds' mean")
      check.near(chart.series[1].x[4], 40960, 1e-6)
    end
  end
end)

check.case("runs of few steps rank no quality", function()
  sweep_folder.write(out, { steps = 20, words = { "train.seeds=1,2" } })
  local doc = document()
  check.equal(doc.quality.why, "these runs are too short to rank quality")
  for _, claim in ipairs(doc.claims) do
    if claim.what == "perplexity" then
      check.equal(claim.verdict, "not judged")
    end
  end
end)

check.case("a failed run is a gap with its reason", function()
  sweep_folder.write(out, { status = function(e)
    if e.name == "small_fp4" then return "oom", "1 GB more was asked" end
  end })
  local doc = document()
  check.equal(doc.rows[3].texts.val_loss, "oom")
  check.equal(doc.rows[3].values.val_loss, nil)
  check.equal(doc.design[3].error, "1 GB more was asked")
  check.equal(doc.findings[1].text, "small_fp4 ended as \u{201C}oom\u{201D}.")
end)

-- --- while it runs ---------------------------------------------------------

check.case("a running sweep: progress, plans, common memory", function()
  sweep_folder.write(out, { finished = 3, open = true })
  local doc, d = document()
  check.equal(doc.status.word, "stopped")
  local _ <close> = sweep_folder.hold(out)
  check.truthy(d:refresh(), "taking the lock is a change")
  doc = host.json.decode(d.text)
  check.equal(doc.status.word, "running")
  local row = doc.design[4]
  check.equal(row.status, "running")
  check.equal(row.step, 7)
  check.near(row.left_seconds, 393 * .7, 1e-6)
  check.equal(doc.design[5].status, "pending")
  check.equal(doc.rows[4].values.status, "running")
  check.equal(doc.rows[5].values.status, "waiting")
  check.truthy(doc.design[5].parameters > 10000, "no exact count")
  check.truthy(doc.design[5].predicted > 100000, "no plan")
  check.equal(doc.pairs[1].variant, "gqa")
  check.truthy(doc.pairs[1].memory < 0, "no memory at the common batch")
  check.equal(d:refresh(), false)
end)

check.case("half-written last lines are left for later", function()
  sweep_folder.write(out, { finished = 2, open = true })
  local _, d = document()
  for _, file in ipairs { "/journal.jsonl",
    "/runs/small_fp4/metrics.jsonl" } do
    assert(host.file.append(out .. file, '{"step":8,"loss":4.'))
  end
  check.truthy(d:refresh())
  local doc = host.json.decode(d.text)
  check.equal(doc.sweep.torn, true)
  check.equal(doc.design[3].step, 7)
  check.equal(#doc.rows, 8)
end)

check.case("a long run is thinned, its evaluations and end stay", function()
  local list = sweep_folder.write(out, { finished = 0, open = true })
  local lines = {}
  for step = 1, 5000 do
    lines[#lines + 1] = ('{"step":%d,"tokens":%d,"seconds":%d,"%s":%g}\n')
      :format(step, step, step, step % 1000 == 7 and "val_loss" or "loss",
        1 + 1 / step)
  end
  assert(host.file.write(out .. "/runs/" .. list[1].name
    .. "/metrics.jsonl", table.concat(lines)))
  local doc, d = document()
  local curve = d.view.curves[list[1].name]
  check.truthy(#curve < 600, #curve)
  check.equal(doc.design[1].step, 5000)
  local evaluations = 0
  for _, r in ipairs(curve) do
    if r.val_loss then evaluations = evaluations + 1 end
  end
  check.equal(evaluations, 5)
end)

check.case("nothing is written into the folder", function()
  sweep_folder.write(out)
  local function listing()
    local names = {}
    for _, path in ipairs(host.file.glob(out .. "/*")) do
      names[#names + 1] = path .. " " .. tostring(host.file.mtime(path))
    end
    for _, path in ipairs(host.file.glob(out .. "/runs/*/*")) do
      names[#names + 1] = path .. " " .. tostring(host.file.mtime(path))
    end
    return table.concat(names, "\n")
  end
  local before = listing()
  local _, d = document()
  d:answer("/data.json", {})
  dashboard.standalone(out)
  check.equal(listing(), before)
end)

check.case("a journal that is no journal", function()
  sweep_folder.write(out, { finished = 0 })
  assert(host.file.write(out .. "/journal.jsonl", "\0\1garbage\n{}\n[]\n"))
  local doc = document()
  check.equal(doc.status.word, "absent")
  check.equal(#doc.design, 0)
end)

check.case("a model of the user's own is not planned as ours", function()
  sweep_folder.write(out, { finished = 0 })
  local text = host.file.read(out .. "/journal.jsonl")
  local record = host.journal.read(out .. "/journal.jsonl")
  check.truthy(#text > 0)
  host.file.remove(out .. "/journal.jsonl")
  local j <close> = host.journal.open(out .. "/journal.jsonl")
  for _, r in ipairs(record) do
    r.seq, r.time, r.crc = nil, nil, nil
    if r.type == "sweep" then r.own_model = true end
    j:append(r)
  end
  local doc = document()
  check.equal(doc.design[1].predicted, nil)
  check.equal(#doc.timelines, 0)
end)

-- --- hostile names ---------------------------------------------------------

local HOSTILE = { "<script>alert(1)</script>", "../../secret",
  "\"'><img src=x onerror=alert(2)>", "=HYPERLINK(\"http://x\")",
  "]]></title></script><!--", "a\u{2028}b\n|c|`d`", "&lt;b&gt; %s %d",
  "${x} {{y}} \\\"" }

local function hostile()
  local i = 0
  sweep_folder.write(out, { name = HOSTILE[1], change = function(e)
    i = i + 1
    e.name, e.model = HOSTILE[i], HOSTILE[1 + (i - 1) // 4 * 4]
    e.variant = e.variant .. HOSTILE[i]
  end })
end

check.case("hostile names stay text in the document", function()
  hostile()
  assert(host.file.mkdir(root .. "/secret"))
  assert(host.file.write(root .. "/secret/metrics.jsonl",
    '{"step":1,"tokens":1,"seconds":1,"loss":1}\n'))
  local hidden = out .. "/runs/" .. HOSTILE[2] .. "/metrics.jsonl"
  check.truthy(host.file.exists(hidden), "it leads to a file")
  local doc, d = document()
  for i, name in ipairs(HOSTILE) do
    check.equal(doc.rows[i].values.name, name)
  end
  check.equal(d.view.curves["../../secret"], nil)
end)

check.case("hostile names in the page's file", function()
  hostile()
  local html = assert(dashboard.standalone(out))
  check.equal(html:find("<script>alert(1)", 1, true), nil)
  check.equal(html:find("onerror=alert(2)>", 1, true), nil)
  check.equal(html:find("]]></title>", 1, true), nil)
  local data = html:match
    '<script type="application/json" id="data">(.-)</script>'
  check.equal(data:find "[<>&]", nil)
  local doc = assert(host.json.decode(data))
  check.equal(doc.rows[6].values.name, HOSTILE[6])
  check.equal(html:find("\u{2028}", 1, true), nil)
end)

check.case("hostile names in SVG", function()
  if not has_renderer() then check.skip "no chart module" end
  hostile()
  local _, d = document()
  for _, entry in ipairs(charts.list) do
    local status, _, svg = d:answer("/charts/" .. entry[1] .. ".svg", {})
    check.equal(status, 200, entry[1])
    check.equal(svg:find("<script", 1, true), nil, entry[1])
    check.equal(svg:find("<img", 1, true), nil, entry[1])
  end
end)

-- --- requests --------------------------------------------------------------

check.case("only known paths are answered", function()
  sweep_folder.write(out)
  local _, d = document()
  d.files = page.files("chart v3.")
  for _, path in ipairs { "/", "/page.css", "/page.js", "/chart.js",
    "/data.json" } do
    check.equal((d:answer(path, {})), 200, path)
  end
  check.equal(d:answer("/events", {}), "stream")
  for _, path in ipairs { "/../../etc/passwd", "/journal.jsonl", "//",
    "/charts/../page.js", "/charts/nothing.svg", "/data.json/", "",
    "/charts/%2e%2e.svg", "/lua/web/main.js" } do
    local status, _, body = d:answer(path, {})
    check.equal(status, 404, path)
    check.truthy(not body:find "root:", path)
  end
end)

check.case("an SVG of what the filters leave", function()
  if not has_renderer() then check.skip "no chart module" end
  sweep_folder.write(out)
  local _, d = document()
  local status, kind, all, name = d:answer("/charts/throughput.svg", {})
  check.equal(status, 200)
  check.equal(kind, "image/svg+xml")
  check.equal(name, "throughput.svg")
  check.truthy(all:find(">large<", 1, true))
  local code, _, part = d:answer("/charts/throughput.svg",
    { models = "small", variants = "baseline\ngqa" })
  check.equal(code, 200)
  check.truthy(part:find(">small<", 1, true))
  check.equal(part:find(">large<", 1, true), nil)
  check.equal(part:find("gqa_fp4", 1, true), nil)
  -- What is hidden stays what the rest is compared with.
  code, _, part = d:answer("/charts/memory_savings.svg", { models = "small",
    variants = "fp4" })
  check.equal(code, 200)
  check.truthy(part:find("30.0 %", 1, true), part)
  for _, chart in ipairs(charts.list) do
    code, _, part = d:answer("/charts/" .. chart[1] .. ".svg",
      { models = "large", variants = "fp4" })
    check.equal(code, 200, chart[1])
    if chart[1] ~= "expected_measured" then
      check.equal(part:find("small", 1, true), nil, chart[1])
    end
  end
  check.equal((d:answer("/charts/throughput.svg", { models = "none" })), 404)
  local _, _, line = d:answer("/charts/timeline.svg", { name = "small_gqa" })
  check.truthy(line:find("Memory over one training step", 1, true))
  check.equal((d:answer("/charts/timeline.svg", { name = "x" })), 404)
  check.equal((d:answer("/charts/timeline.svg", {})), 404)
end)

check.case("the timeline's peak is the plan's", function()
  sweep_folder.write(out, { finished = 0 })
  local doc = document()
  for i, chart in ipairs(doc.timelines) do
    local most, top = 0, chart.series[#chart.series]
    for _, y in ipairs(top.y) do most = math.max(most, y) end
    local unit = chart.y.label:find "MB" and 1e6 or 1e9
    check.near(most * unit, doc.design[i].predicted,
      1e-5 * doc.design[i].predicted, chart.name)
  end
end)

-- --- the page as one file --------------------------------------------------

check.case("the page alone asks for nothing from elsewhere", function()
  sweep_folder.write(out)
  local html, why = dashboard.standalone(out)
  if not html then check.skip(why) end
  check.equal(html:find("<link rel=\"stylesheet\"", 1, true), nil)
  check.equal(html:find("<script src", 1, true), nil)
  check.truthy(html:find("connect%-src") == nil, "it may connect")
  check.truthy(html:find("default-src 'none'", 1, true))
  local _, count = html:gsub("</script>", "")
  check.equal(count, 3)
end)

check.case("without Chart.js it says which package brings it", function()
  local places = page.CHART_JS
  page.CHART_JS = { root .. "/nothing.js" }
  local text, why = dashboard.standalone(out)
  page.CHART_JS = places
  check.equal(text, nil)
  check.equal(why, "the dashboard draws with Chart.js 3, which is not here: "
    .. "apt-get install libjs-chart.js")
end)

-- --- the command line ------------------------------------------------------

local function start(...)
  local words = { host.process.executable(), host.options.root
    .. "/experiments/dashboard.lua", ... }
  words.stdin, words.stdout, words.stderr = "null", "pipe", "pipe"
  words.cwd = root
  return assert(host.process.spawn(words))
end

-- Exit code and first line of errors.
local function ended(...)
  local p <close> = start(...)
  local line = p:read_error_line(20)
  local status = p:wait(20) or {}
  return status.exit, line
end

check.case("wrong words on the command line", function()
  local code, line = ended "prot=80"
  check.equal(code, 2)
  check.equal(line, "llmhost: unknown key 'prot'; did you mean 'port'?")
  code, line = ended "port=99999"
  check.equal(code, 2)
  check.equal(line, "llmhost: port = 99999: out of range, 0 … 65535")
  code, line = ended "FOLDER"
  check.equal(code, 2)
  check.equal(line, "llmhost: unknown argument 'FOLDER' (options of a "
    .. "script are written key=value)")
  code, line = ended "script=nothing.lua"
  check.equal(code, 2)
  check.truthy(line:find("dashboard: script=nothing.lua: ", 1, true), line)
end)

local function serving(...)
  local p = start(...)
  local lines, line = {}, p:read_line(20)
  while line do
    lines[#lines + 1] = line
    if line:find("http://", 1, true) then break end
    line = p:read_line(20)
  end
  return p, table.concat(lines, "\n"), p:read_error_line(line and 0 or 20)
end

check.case("it starts without results, and says so; a taken port", function()
  local p <close>, text, err = serving("results=nothing", "port=0")
  local port = text:match "http://127.0.0.1:(%d+)/"
  if not port and err then check.skip(err) end
  check.truthy(text:find("nothing: no journal.jsonl there yet", 1, true), text)
  local code, line = ended("port=" .. port)
  check.equal(code, 1)
  check.equal(line, ("dashboard: port %s is taken: another dashboard may be "
    .. "running; choose one with port=%d, or port=0 for any"):format(port,
    tonumber(port) % 65535 + 1))
  p:kill "INT"
  local status = p:wait(10) or {}
  check.equal(status.exit, 130)
end)

host.file.remove_tree(root)
check.done()
