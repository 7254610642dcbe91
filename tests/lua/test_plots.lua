-- Charts: valid files, the right colours in the right places, and no input
-- that hangs or kills the renderer.
local check = require "check"
local png = require "png"

local has_chart, chart = pcall(require, "chart")
local plots = require "plots"
local style = require "plots.style"
local tidy = require "plots.tidy"

local function case(name, body)
  check.case(name, function()
    if not has_chart then check.skip("chart.so is not built") end
    body()
  end)
end

-- ------------------------------------------------------------------ fixtures

local VARIANTS = { "baseline", "gqa", "fp4", "gqa_fp4" }

-- One experiment as experiment_results.json has it.
local function experiment(model, i, variant, k, seed)
  local memory = 0.1 * i * (1 - 0.1 * k)
  local name = model .. "_" .. variant .. (seed and "_s" .. seed or "")
  return {
    name = name, status = "ok", experiment_id = name,
    config = { d_model = 64 * i, n_layers = i, n_heads = 4 },
    optimizations = { use_gqa = k % 2 == 1, use_fp4 = k >= 2, n_kv_heads = 1 },
    model_stats = { total_parameters = 1e6 * i, optimal_batch_size = 8,
      tokens_per_step = 8192 },
    training_stats = { training_time_seconds = 20, steps_completed = 100,
      epochs = 1.5 },
    evaluation = { val_loss = 5 - 0.3 * i + 0.05 * k + (seed or 0) * 0.001 },
    memory_stats = { peak_memory_gb = memory, budget_gb = 0.5,
      memory_at_common_batch_gb = memory,
      by_category = { parameters = memory * 4e8, activations = memory * 6e8 } },
    throughput = { tokens_per_second = 40000 / i * (1 + 0.1 * k) },
    environment = { device = "test", seed = seed },
  }
end

local function curve(loss)
  local records = {}
  for step = 1, 40 do
    records[step] = { step = step, tokens = step * 8192, seconds = step / 2,
      loss = loss + 5 / step, val_loss = step % 10 == 0 and loss or nil }
  end
  return records
end

local function results(seeds)
  local list = { curves = {} }
  for i, model in ipairs{ "small", "medium", "large", "xlarge" } do
    for k, variant in ipairs(VARIANTS) do
      for s = 1, seeds or 1 do
        local r = experiment(model, i, variant, k - 1, seeds and 40 + s)
        list[#list + 1] = r
        list.curves[r.name] = curve(r.evaluation.val_loss)
      end
    end
  end
  return list
end

-- Fail unless `text` is one well-formed SVG element.
local function check_svg(text)
  check.truthy(utf8.len(text), "not UTF-8")
  local body = text:match("^<%?xml [^>]*%?>%s*(<svg.*</svg>)%s*$")
  check.truthy(body, "no <svg> element")
  local open = {}
  for slash, name, rest in body:gmatch("<(/?)(%a+)([^<>]*)>") do
    if slash == "/" then
      check.equal(table.remove(open), name, "closed element")
    elseif rest:sub(-1) ~= "/" then
      open[#open + 1] = name
    end
    local left = rest:gsub("%s[%w:-]+=\"[^\"<&]*\"", "")
    check.truthy(left == "" or left == "/", "attributes: " .. rest)
  end
  check.equal(#open, 0, "open elements")
  local plain = body:gsub("<[^<>]*>", ""):gsub("&%a+;", "")
  check.truthy(not plain:find("[<>&]"), "loose markup")
  check.truthy(not text:find("nan") and not text:find("inf"),
    "a number that is none")
end

local function render_both(spec, options)
  options = options or { width = 320, height = 200 }
  options.format = "svg"
  check_svg(chart.render(spec, options))
  options.format = "png"
  local bytes = chart.render(spec, options)
  local image = png.open(bytes)
  check.equal(image.width, options.width * (options.scale or 1))
  check.equal(image.height, options.height * (options.scale or 1))
  return bytes
end

local function bars(y, more)
  local panel = { kind = "bars", series = { { color = 0x0072B2, y = y } },
    categories = {} }
  for i = 1, math.max(#y, 1) do panel.categories[i] = { label = "c" .. i } end
  for key, value in pairs(more or {}) do panel[key] = value end
  return { panels = { panel } }
end

local function lines(x, y, more)
  local panel = { kind = "lines", series = { { color = 0xD55E00, x = x, y = y,
    marker = "square" } } }
  for key, value in pairs(more or {}) do panel[key] = value end
  return { panels = { panel } }
end

-- ------------------------------------------------------------ the six charts

case("every chart is a valid PNG and SVG", function()
  local all = results()
  all[3].status, all[3].memory_stats = "oom", nil
  for _, entry in ipairs(plots.charts) do
    local image = png.open(plots.render(all, entry.name, "png"))
    check.equal(image.width, entry.width, entry.name)
    check.truthy(image.height >= 320, entry.name)
    local svg = plots.render(all, entry.name, "svg")
    check_svg(svg)
    if entry.name ~= "loss_curves" then
      check.truthy(svg:find("oom", 1, true), entry.name .. " shows no gap")
    end
  end
end)

case("pixels are antialiased and in the palette", function()
  local bytes = plots.render(results(), "memory_savings", "png",
    { size = { 300, 200 } })
  local colors, kinds = png.decode(bytes).colors(), 0
  for _ in pairs(colors) do kinds = kinds + 1 end
  check.truthy(kinds > 40, kinds .. " colours: not antialiased")
  for _, variant in ipairs{ "gqa", "fp4", "gqa_fp4" } do
    check.truthy((colors[style.variants[variant]] or 0) > 50, variant)
  end
  check.truthy(colors[0xFFFFFF] > 20000, "no white ground")
end)

case("a bar is as tall as its value", function()
  local function height(value)
    local spec = bars({ value }, { y = { max = 10 } })
    local image = png.decode(chart.render(spec, { width = 200, height = 300 }))
    local n = 0
    for y = 0, 299 do
      if image.pixel(110, y) == 0x0072B2 then n = n + 1 end
    end
    return n
  end
  local whole = height(10)
  check.truthy(whole > 200, "bar of " .. whole .. " pixels")
  check.near(height(5) / whole, 0.5, 0.01)
  check.near(height(2.5) / whole, 0.25, 0.01)
end)

case("bands join without a seam", function()
  local spec = lines({ 0, 1 }, { 0, 1 })
  spec.panels[1].series[1].width = 10
  spec.panels[1].series[1].marker = nil
  local image = png.decode(chart.render(spec, { width = 300, height = 300 }))
  for y = 100, 200 do  -- 128 is where one band ends
    local found = 0
    for x = 0, 299 do
      if image.pixel(x, y) == 0xD55E00 then found = found + 1 end
    end
    check.truthy(found >= 8 and found <= 16, "row " .. y .. ": " .. found)
  end
end)

case("the same input gives the same bytes", function()
  for _, entry in ipairs(plots.charts) do
    for _, format in ipairs{ "png", "svg" } do
      local options = { size = { 400, 300 } }
      check.equal(plots.render(results(3), entry.name, format, options),
        plots.render(results(3), entry.name, format, options), entry.name)
    end
  end
end)

case("scale multiplies pixels", function()
  render_both(bars{ 1, 2 }, { width = 200, height = 150, scale = 2 })
end)

case("no results, no fields, wrong types", function()
  local odd = { {}, { name = 3, status = false }, "text", { name = "a_gqa",
    status = "ok", memory_stats = { by_category = "none", budget_gb = 1 / 0 },
    evaluation = { val_loss = 0 / 0 }, throughput = 7, config = {} } }
  for _, list in ipairs{ {}, { {} }, odd } do
    list.curves = { a_gqa = { 1, {}, { loss = "x", tokens = 1 } } }
    for _, entry in ipairs(plots.charts) do
      local size = { size = { 300, 200 } }
      check_svg(plots.render(list, entry.name, "svg", size))
      png.open(plots.render(list, entry.name, "png", size))
    end
  end
  local svg = plots.render({ curves = {} }, "efficiency_scatter", "svg")
  check.truthy(svg:find("no data", 1, true), "does not say: no data")
end)

-- ------------------------------------------------------ numbers and texts

case("NaN, infinite, huge and negative values", function()
  local nan, inf = 0 / 0, math.huge
  local odd = { nan, inf, -inf, 1e300, -1e300, 1e29, -1e29, 1e-320, -5, 0,
    false, "text", {} }
  for _, kind in ipairs{ "stacked", "dots", "values" } do
    render_both(bars(odd, { [kind] = true, values = true }))
    for _, v in ipairs(odd) do render_both(bars({ v }, { [kind] = true })) end
  end
  for _, log in ipairs{ true, false } do
    render_both(lines(odd, odd, { y = { log = log }, x = { log = log } }))
    render_both(lines({ 1, 2, 3 }, { 1e-30, 1, 1e30 }, { y = { log = log } }))
    local s = { { x = odd, y = odd, area = odd, notes = { "a", "b" } } }
    render_both{ panels = { { kind = "scatter", series = s,
      area_label = "area", x = { log = log } } } }
  end
  render_both(bars({ 1, 2 }, { y = { min = nan, max = -inf },
    references = { { value = inf, label = "a" }, { value = nan } } }))
end)

case("a missing value leaves a gap, not a zero", function()
  local svg = chart.render(lines({ 1, 2, 3, 4, 5 }, { 1, 2, 0 / 0, 2, 1 }),
    { format = "svg" })
  local _, strokes = svg:gsub('stroke="#d55e00"', "")
  check.equal(strokes, 2, "strokes")
  svg = chart.render(lines({ 1, 2, 3, 4, 5 }, { 1, 2, 0, 2, 1 },
    { y = { log = true } }), { format = "svg" })
  _, strokes = svg:gsub('stroke="#d55e00"', "")
  check.equal(strokes, 2, "strokes about what a logarithm has no place for")
  svg = chart.render(bars({ 1, false, 3 }), { format = "svg" })
  local _, drawn = svg:gsub('<polygon fill="#0072b2"', "")
  check.equal(drawn, 2, "bars")
end)

case("names: long, UTF-8, damaged, markup", function()
  local names = { ("long"):rep(4000), "Größe → µ ≤ 5 ∞", "日本語 モデル",
    "\xFF\xC0\x80\xED", "a\0b\27[0m\n\t", "<b>&amp;\"'</b>",
    "back\\slash \\sp\\#H1000", "", "%s%n" }
  for _, name in ipairs(names) do
    render_both{ title = name, subtitle = name, note = name, panels = {
      { kind = "bars", title = name, x = { label = name },
        y = { label = name }, categories = { { label = name, group = name } },
        series = { { name = name, y = { 1 }, notes = { name } } },
        references = { { value = 1, label = name } } },
      { kind = "table", table_columns = { { title = name } },
        rows = { { name }, { { text = name, bold = true } } } },
      { kind = "scatter", series = { { x = { 1 }, y = { 1 },
        notes = { name } } } } } }
  end
end)

case("many panels, series and points on a small page", function()
  local x, y, spec = {}, {}, { panels = {}, columns = 4 }
  for i = 1, 5000 do x[i], y[i] = i, math.sin(i / 50) * i end
  for i = 1, 12 do spec.panels[i] = lines(x, y).panels[1] end
  render_both(spec, { width = 64, height = 64 })
  render_both(lines(x, y), { width = 64, height = 900 })
  local cells = {}
  for i = 1, 300 do cells[i] = i % 7 end
  render_both(bars(cells, { values = true }))
end)

case("numbers on axes read well", function()
  local function has(spec, ...)
    local svg = chart.render(spec, { format = "svg" })
    for _, text in ipairs{ ... } do
      check.truthy(svg:find(">" .. text .. "</text>", 1, true),
        "no tick " .. text)
    end
  end
  has(bars({ 0.43 }), "0.00", "0.05", "0.45")
  has(bars({ 90 }, { y = { format = "percent" } }), "0 %", "80 %")
  has(bars({ 2.1e6 }, { y = { format = "si" } }), "0", "500k", "1M", "2M")
  has(lines({ 0, 4e9 }, { 1, 1000 }, { y = { log = true },
    x = { format = "si" } }), "1", "10", "100", "1000", "1G", "3G")
  has(bars({ 12345 }, { values = true, digits = 3, value_format = "si" }),
    "12.3k")
  has(bars({ 999960 }, { values = true, digits = 3, value_format = "si" }),
    "1M")
  has(bars({ -3, 5 }), "-3", "0", "5")
end)

case("a line far off the scale becomes an arrow", function()
  local function drawn(budget)
    local svg = chart.render(bars({ 10 }, { references = { {
      value = budget, label = "limit", color = 0x123456 } } }),
      { format = "svg" })
    return svg:find("stroke%-dasharray") ~= nil, svg:find(">10</text>") ~= nil
  end
  check.equal(drawn(20), true)
  local dashed, scaled = drawn(1000)
  check.equal(dashed, false)
  check.truthy(scaled, "the axis was stretched")
end)

-- ----------------------------------------------------------------- errors

case("errors name what is wrong", function()
  local function bad(text, spec, options)
    check.raises(text, chart.render, spec, options)
  end
  bad("table expected, got nil")
  bad("chart: unknown key 'titel' in the chart", { titel = "x" })
  bad("chart: title must be a string, not a number", { title = 5 })
  bad("chart: panels[1].kind is missing", { panels = { {} } })
  bad("chart: panels[2].kind: no 'pie' here",
    { panels = { { kind = "bars" }, { kind = "pie" } } })
  bad("chart: panels[1] must be a table, not a boolean", { panels = { true } })
  bad("chart: panels[1].series[1].x must be a table, not a number",
    { panels = { { kind = "lines", series = { { x = 1, y = {} } } } } })
  bad("chart: unknown key 'colour' in panels[1].series[1]",
    { panels = { { kind = "bars", series = { { colour = 1 } } } } })
  local many = {}
  for i = 1, 13 do many[i] = { kind = "bars" } end
  bad("chart: panels has 13 entries, at most 12 fit", { panels = many })
  bad("chart: format must be \"png\" or \"svg\"", {}, { format = "gif" })
  bad("chart: width must be a whole number from 64 to 8000", {}, { width = 8 })
  bad("chart: width must be a whole number from 64 to 8000", {},
    { width = 0 / 0 })
  bad("chart: unknown key 'dpi' in options", {}, { dpi = 300 })
  bad("pixels at scale 4 are too many", {},
    { width = 8000, height = 8000, scale = 4 })
  check.raises("no chart named pie", plots.render, {}, "pie", "png")
end)

-- ---------------------------------------------------------------- the data

check.case("names split into model and variant", function()
  local function split(name, seed)
    local view = tidy.view{ { name = name, environment = { seed = seed } } }
    return view.runs[1].model .. "|" .. view.runs[1].variant
  end
  check.equal(split("small_baseline"), "small|baseline")
  check.equal(split("small_gqa_fp4"), "small|gqa_fp4")
  check.equal(split("my_gqa_model_fp4_s42", 42), "my_gqa_model|fp4")
  check.equal(split("small_gqa_s7"), "small|gqa")
  check.equal(split("1024d-24L_wide"), "1024d-24L|wide")
  check.equal(split("alone"), "alone|run")
  local run = tidy.view{ { name = "a_b_c", config = { model = "a",
    variant = "b_c" } } }.runs[1]
  check.equal(run.model .. "|" .. run.variant, "a|b_c")
end)

check.case("seeds become mean and standard deviation", function()
  local list = results(3)
  list[3].status = "nan"
  local cell = tidy.view(list).at.small.baseline
  local mean, spread, n = tidy.mean(cell, "evaluation", "val_loss")
  check.equal(n, 2)
  check.near(mean, 4.7 + 0.0415, 1e-9)
  check.near(spread, 0.001 / math.sqrt(2), 1e-9)
  check.equal(tidy.reason(cell), "nan")
end)

check.case("curves of several seeds are averaged step by step", function()
  local list = { curves = { m_gqa_s1 = { { step = 1, tokens = 10, loss = 4 },
    { step = 2, tokens = 20, loss = 3 } },
    m_gqa_s2 = { { step = 1, tokens = 10, loss = 6 } } } }
  for seed = 1, 2 do
    list[seed] = { name = "m_gqa_s" .. seed, status = "ok",
      environment = { seed = seed } }
  end
  local spec = require "plots.loss"(tidy.view(list), list)
  local series = spec.panels[1].series
  check.equal(#series, 1)
  check.equal(table.concat(series[1].x, " "), "10.0")
  check.equal(table.concat(series[1].y, " "), "5.0")
end)

check.case("sixteen variants have sixteen colours", function()
  local names, seen = { "baseline", "gqa", "fp4", "gqa_fp4" }, {}
  for i = 5, 16 do names[i] = "own" .. i end
  local colors = style.colors(names)
  for _, name in ipairs(names) do
    check.equal(seen[colors[name]], nil, name)
    seen[colors[name]] = name
  end
end)

check.case("savings are against the model's own baseline", function()
  local spec = require("plots.memory").savings(tidy.view(results()))
  local series = spec.panels[1].series
  check.equal(#series, 3)
  check.equal(series[1].name, "gqa")
  for i = 1, 4 do check.near(series[1].y[i], 10, 1e-6) end
  for i = 1, 4 do check.near(series[3].y[i], 30, 1e-6) end
  local list = results()
  list[1].status = "oom"
  spec = require("plots.memory").savings(tidy.view(list))
  check.equal(spec.panels[1].series[1].y[1], false)
  check.equal(spec.panels[1].series[1].notes[1], "no baseline")
end)

check.case("losses of unlike schedules are not set side by side", function()
  local list = results()
  list[2].training_stats.steps_completed = 90
  local spec = require "plots.performance"(tidy.view(list))
  local panel = spec.panels[3]
  check.equal(panel.categories[1].note, "not comparable: schedules differ")
  check.equal(panel.categories[2].note, nil)
  for _, series in ipairs(panel.series) do
    check.equal(series.y[1], false)
    check.truthy(series.y[2], "comparable losses are missing")
  end
end)

check.case("more than four epochs are said in the note", function()
  local list = results()
  check.equal(tidy.caveats(tidy.view(list)), nil)
  list[1].training_stats.epochs = 6.5
  check.truthy(tidy.caveats(tidy.view(list)):find("6.5 passes", 1, true))
end)

-- --------------------------------------------------------------- the files

case("plots.write writes every chart", function()
  local host = require "host"
  local folder = (os.getenv("TMPDIR") or "/tmp") .. "/plots_test"
  check.truthy(host.file.mkdir(folder .. "/runs/small_baseline"))
  check.truthy(host.file.write(folder .. "/runs/small_baseline/metrics.jsonl",
    '{"step":1,"tokens":10,"seconds":1,"loss":5}\n'
    .. '{"step":2,"tokens":20,"seconds":2,"loss":4,"val_loss":4.5}\n{"st'))
  local list = results()
  list.curves = nil
  local files = assert(plots.write(list, folder))
  check.equal(#files, 2 * #plots.charts)
  for _, file in ipairs(files) do
    local text = host.file.read(file.path)
    check.equal(#text, file.bytes, file.path)
    if file.path:match("%.png$") then png.open(text) else check_svg(text) end
  end
  local curves = require("plots.curves").read(list, folder)
  check.equal(#curves.small_baseline, 2)
  local none, message = plots.write(list, folder .. "/absent/folder")
  check.equal(none, nil)
  check.truthy(type(message) == "string" and #message > 0, "no message")
  host.file.remove_tree(folder)
end)

check.done()
