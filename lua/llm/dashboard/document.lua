-- Everything the dashboard's page shows, as one JSON document: computed here,
-- drawn there.
local charts = require "llm.dashboard.charts"
local columns = require "llm.dashboard.columns"
local compare = require "llm.compare"
local claims = require "llm.claims"
local device = require "llm.device"
local host = require "host"
local insights = require "llm.dashboard.insights"
local results = require "llm.results"
local size = require "llm.size"
local style = require "plots.style"

local document = {}
local array = host.json.array

-- --- status ----------------------------------------------------------------

local function counts(rows)
  local n = { total = #rows, done = 0, ok = 0, failed = 0 }
  for _, row in ipairs(rows) do
    if row.status == "ok" then
      n.ok, n.done = n.ok + 1, n.done + 1
    elseif row.status ~= "pending" and row.status ~= "running"
      and row.status ~= "interrupted" then
      n.failed, n.done = n.failed + 1, n.done + 1
    end
  end
  return n
end

local TEXT = { absent = "no results yet", running = "running",
  finished = "finished", stopped = "stopped before its end" }

local function status_of(view, rows)
  local n = counts(rows)
  local word = not view.journal and "absent" or view.running and "running"
    or n.done == n.total and "finished" or "stopped"
  n.word, n.text, n.now = word, TEXT[word], array {}
  for _, row in ipairs(rows) do
    if row.status == "running" then
      n.now[#n.now + 1] = { name = row.name, step = row.step,
        steps = row.steps, loss = row.loss, left_seconds = row.left_seconds,
        tokens_per_second = row.tokens_per_second }
    end
  end
  return n
end

-- --- the sweep's card ------------------------------------------------------

-- How long a run trains, as it was asked for: "20.0 s a run", "100 steps a
-- run"; nil when there are no runs.
local function length_of(order)
  local found
  for _, e in ipairs(order) do
    local t = e.train or {}
    local text = math.type(t.steps) == "integer" and t.steps .. " steps"
      or t.minutes and size.seconds(t.minutes * 60) or "unknown"
    if found and found ~= text then return "differs from run to run" end
    found = text
  end
  return found and found .. " a run"
end

local function card(s, first, order)
  local w, env = s.sweep or {}, (s.sweep or {}).environment or {}
  return { name = w.name, description = w.description, notes = w.notes,
    profile = w.profile, target_gpu = w.target_gpu, device = env.device,
    backend = env.backend, build = env.build, date = env.date,
    seconds = s.finish and s.finish.seconds,
    budget = first and first.budget,
    length = length_of(order),
    tokens_per_step = first and first.tokens_per_step,
    seq = first and first.seq, experiments = s.order and #s.order,
    damaged = s.damaged, torn = s.torn, text = s.data and s.data.source,
    tokens = s.data and s.data.train and s.data.train.count,
    vocab = s.data and s.data.vocab }
end

-- --- charts as JSON --------------------------------------------------------

local function short(value)
  if type(value) ~= "number" then return value end
  if math.type(value) == "integer" then return value end
  return tonumber(("%.6g"):format(value))
end

local function numbers(list)
  if not list then return nil end
  local out = {}
  for i, value in ipairs(list) do out[i] = short(value) or false end
  return array(out)
end

local function css(color) return color and ("#%06x"):format(color) end

local function series_of(s)
  return { name = s.name, color = css(s.color), dash = s.dash,
    marker = s.marker, width = s.width, x = numbers(s.x), y = numbers(s.y),
    spread = numbers(s.spread), area = numbers(s.area),
    notes = s.notes and array(table.move(s.notes, 1, #s.notes, 1, {})),
    model = s.model, variant = s.variant,
    models = s.models and array(table.move(s.models, 1, #s.models, 1, {})) }
end

local function mapped(list, f)
  if not list then return nil end
  local out = {}
  for i, item in ipairs(list) do out[i] = f(item) end
  return array(out)
end

local function reference_of(r)
  return { value = r.value, label = r.label, color = css(r.color),
    vertical = r.vertical }
end

local function axis_of(a)
  return a and { label = a.label, format = a.format, log = a.log,
    min = a.min, max = a.max }
end

-- A description as the page takes it.
local function chart_of(spec)
  local p = spec.panels[1]
  return { title = spec.title, subtitle = spec.subtitle, note = spec.note,
    kind = p.kind, x = axis_of(p.x), y = axis_of(p.y), stacked = p.stacked,
    dots = p.dots, empty = p.empty, area_label = p.area_label,
    categories = mapped(p.categories, function(c) return c end),
    series = mapped(p.series, series_of),
    references = mapped(p.references, reference_of) }
end

local function all_charts(list, options)
  local out = {}
  for i, entry in ipairs(charts.list) do
    local chart = chart_of(charts.build(entry[1], list, options))
    chart.id, chart.tab, chart.caption = entry[1], entry[2], entry[4]
    out[i] = chart
  end
  return array(out)
end

local function timelines(view, rows, design)
  local out = {}
  for _, e in ipairs(view.order) do
    local row
    for _, r in ipairs(rows) do if r.name == e.name then row = r end end
    local line = row.batch and design:timeline(e, view.backend, row.batch,
      row.accumulate)
    if line then
      local chart = chart_of(charts.timeline(e.name, line))
      chart.model, chart.variant, chart.name = e.model, e.variant, e.name
      out[#out + 1] = chart
    end
  end
  return array(out)
end

-- --- the whole -------------------------------------------------------------

local function once(rows, key)
  local list, seen = array {}, {}
  for _, row in ipairs(rows) do
    if not seen[row[key]] then
      seen[row[key]], list[#list + 1] = true, row[key]
    end
  end
  return list
end

local function colored(variants)
  local colors, out = style.colors(variants), {}
  for i, name in ipairs(variants) do
    out[i] = { name = name, color = css(colors[name]) }
  end
  return array(out)
end

local function claim_rows(models, ranked)
  return mapped(claims.rows(models, ranked), function(row)
    return { technique = row[1], what = row[2], claimed = row[3],
      measured = row[4], verdict = row[5], why = row[6] }
  end)
end

local function finished_any(list)
  for _, r in ipairs(list or {}) do if r.status == "ok" then return true end end
  return false
end

local function add_results(doc, view, list)
  local models = compare.models(list)
  local quality = insights.quality(list)
  doc.columns = array(columns.heads(list))
  doc.rows = array(columns.rows(list))
  doc.charts = all_charts(list, { curves = view.curves,
    short = compare.too_short(list) })
  doc.cells = array(insights.cells(models))
  for _, cell in ipairs(doc.cells) do
    for _, key in ipairs { "loss", "speed", "memory" } do
      cell.ties[key] = array(cell.ties[key])
    end
  end
  doc.pairs, doc.quality = array(insights.pairs(models)), quality
  doc.findings = array(insights.findings(list, models, quality))
  doc.advice = array(insights.advice(list))
  doc.claims = claim_rows(models, quality.ranked)
end

local function expected_rows()
  local function range(r)
    return ("%+.0f … %+.0f %%"):format(100 * r[1], 100 * r[2])
  end
  return mapped(claims.CLAIMED, function(c)
    return { name = c.name, memory = range(c.memory), speed = range(c.speed),
      quality = range(c.quality) }
  end)
end

-- What is there to show: the folder's journal, or the script's own matrix when
-- there is none. source = { folder, design, sweep = of the script or nil }.
function document.view(source)
  local read = source.folder:read()
  local s, sweep = read.state, source.sweep
  local view = { state = s, curves = read.curves, why = read.why,
    running = read.running, journal = s.order ~= nil,
    experiments = s.experiments, order = s.order or {}, path =
      source.folder.path }
  if not s.order and sweep then
    view.order = sweep.experiments
    view.backend = device.plan_backend(sweep.config.profile)
    s.sweep = s.sweep or { name = sweep.config.values.name,
      description = sweep.config.values.description,
      target_gpu = sweep.config.values.target_gpu,
      profile = sweep.config.profile }
  end
  view.backend = view.backend or ((s.sweep or {}).environment or {}).backend
    or device.backend()
  return view
end

-- Experiments that have not ended are told apart by whether they have begun.
local function name_open(list, view)
  for _, r in ipairs(list) do
    local known = view.experiments[r.name]
    if r.status == "interrupted" and not (known and known.status) then
      r.status = "waiting"
    elseif r.status == "interrupted" and known.status == "running"
      and view.running then
      r.status = "running"
    end
  end
end

-- The list of results that a view's journal gives, with memory compared at the
-- common batch also while the sweep still runs; {} when there are none.
function document.results(view, design)
  if not view.journal then return {} end
  local s = view.state
  local plans = design:common(s, view.backend)
  s.common = plans and { plans = plans } or nil
  local list = results.build(s) or {}
  name_open(list, view)
  return list
end

-- The document. live = false for the page that stands alone.
function document.build(source, view, live)
  local design = source.design
  design:use(view.state)
  local list = document.results(view, design)
  local rows = design:rows(view, view.backend)
  local doc = { live = live, generated = host.date(), path = view.path,
    status = status_of(view, rows),
    sweep = card(view.state, rows[1], view.order),
    design = array(rows), models = once(rows, "model"),
    variants = colored(once(rows, "variant")), expected = expected_rows(),
    timelines = timelines(view, rows, design), why = view.why,
    svg = package.searchpath("chart", package.cpath) ~= nil,
    any = finished_any(list) }
  if doc.any then add_results(doc, view, list) end
  return doc
end

return document
