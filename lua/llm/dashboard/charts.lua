-- Every chart of the dashboard as data: the description that plots/ draws as
-- SVG and the page draws on a canvas, with tags that tell which model and
-- variant each part belongs to, so that the page can filter it.
local claims = require "llm.claims"
local compare = require "llm.compare"
local loss_chart = require "plots.loss"
local memory_chart = require "plots.memory"
local performance_chart = require "plots.performance"
local scatter_chart = require "plots.efficiency"
local style = require "plots.style"
local tidy = require "plots.tidy"

local charts = {}

-- --- tags ------------------------------------------------------------------

local function tag_cells(panel, view)
  for i, cell in ipairs(view.cells) do
    panel.categories[i].model = cell.model
    panel.categories[i].variant = cell.variant
  end
end

local function tag_models(panel, view)
  for i, model in ipairs(view.models) do
    if panel.categories and panel.categories[i] then
      panel.categories[i].model = model
    end
  end
  for _, s in ipairs(panel.series) do s.variant = s.name end
end

local function tag_curves(panel, view)
  local cells = {}
  for _, cell in ipairs(view.cells) do
    cells[cell.model .. "_" .. cell.variant] = cell
  end
  for _, s in ipairs(panel.series) do
    local cell = cells[s.name] or cells[s.name:gsub(" %(training%)$", "")]
    if cell then s.model, s.variant = cell.model, cell.variant end
  end
end

local function tag_discs(panel)
  for _, s in ipairs(panel.series) do
    s.variant, s.models = s.name, s.notes
  end
end

-- One panel of a description as a description of its own.
local function alone(spec, index, title)
  local panel = spec.panels[index]
  panel.title = nil
  return { title = title, subtitle = spec.subtitle, note = spec.note,
    legend = spec.legend, panels = { panel } }
end

-- --- memory ----------------------------------------------------------------

local function usage(view)
  local spec = memory_chart.usage(view)
  tag_cells(spec.panels[1], view)
  return spec
end

local function savings(view)
  local spec = memory_chart.savings(view)
  tag_models(spec.panels[1], view)
  return spec
end

-- Piles of the categories at the common micro-batch, divided by `unit` bytes.
local function common_piles(view, unit)
  local list = {}
  for _, entry in ipairs(style.categories) do
    local s = { name = entry[1], color = entry[2], y = {} }
    for i, cell in ipairs(view.cells) do
      local bytes
      for _, run in ipairs(cell.runs) do
        bytes = bytes or tidy.number(run.result, "memory_stats",
          "by_category_at_common_batch", entry[1])
      end
      s.y[i] = bytes and bytes / unit or false
    end
    list[#list + 1] = s
  end
  return list
end

local function any(series)
  for _, s in ipairs(series) do
    for _, y in ipairs(s.y) do if y then return true end end
  end
  return false
end

local function cell_names(view)
  local list = {}
  for i, cell in ipairs(view.cells) do
    list[i] = { label = cell.variant, group = cell.model }
  end
  return list
end

local function at_common(view)
  local word, unit = style.memory_unit(tidy.most(view, "memory_stats",
    "peak_memory_gb"))
  local series = common_piles(view, unit * 1e9)
  local panel = { kind = "bars", stacked = true, values = true, digits = 3,
    y = { label = "Planned peak (" .. word .. ")" },
    categories = cell_names(view), series = any(series) and series or {},
    empty = "no data: no plan at a common micro-batch",
    references = { memory_chart.budget_line(view, word, unit) } }
  tag_cells(panel, view)
  return { title = "Planned memory at the common micro-batch",
    subtitle = "one micro-batch for all of a model's variants \u{B7} "
      .. tidy.setting(view), panels = { panel } }
end

-- Where a model's memory goes, as shares: its baseline at the common batch.
local function shares(view)
  local categories, cells = {}, {}
  for _, model in ipairs(view.models) do
    local row = view.at[model]
    local cell = row.baseline or row[view.variants[1]]
    if cell then
      cells[#cells + 1] = cell
      categories[#categories + 1] = { label = model, model = model }
    end
  end
  local series = common_piles({ cells = cells }, 1)
  for i = 1, #cells do
    local sum = 0
    for _, s in ipairs(series) do sum = sum + (s.y[i] or 0) end
    for _, s in ipairs(series) do
      s.y[i] = s.y[i] and sum > 0 and 100 * s.y[i] / sum or false
    end
  end
  return { title = "Where a baseline's memory goes",
    subtitle = "share of the planned peak at the common micro-batch",
    panels = { { kind = "bars", stacked = true, categories = categories,
      y = { label = "Share of the peak", format = "percent", min = 0,
        max = 100 },
      empty = "no data: no plan at a common micro-batch",
      series = any(series) and series or {} } } }
end

-- The timeline of one step (design:timeline) as piled-up lines.
function charts.timeline(name, line)
  local word, unit = style.memory_unit(line.peak / 1e9)
  local series, sums = {}, {}
  for _, entry in ipairs(style.categories) do
    local s = { name = entry[1], color = entry[2], width = 1.5, x = {},
      y = {} }
    for i, point in ipairs(line.points) do
      sums[i] = (sums[i] or 0) + (point[entry[1]] or 0)
      s.x[i], s.y[i] = point.at, sums[i] / (unit * 1e9)
    end
    series[#series + 1] = s
  end
  return { title = "Memory over one training step",
    subtitle = ("%s, micro-batch %d \u{D7} %d, from the plan; each line is "
      .. "drawn on top of those before it"):format(name, line.batch,
      line.accumulate),
    panels = { { kind = "lines", series = series,
      x = { label = "Instruction of the step" },
      y = { label = "Live memory (" .. word .. ")", min = 0 } } } }
end

-- --- speed and quality -----------------------------------------------------

local function performance(index, title)
  return function(view)
    local spec = performance_chart(view)
    local out = alone(spec, index, title)
    tag_models(out.panels[1], view)
    return out
  end
end

local MEANS = "differences inside the seeds' spread are ties"

local function perplexity(view)
  local spec = performance_chart(view)
  local out = alone(spec, 2, "Perplexity at each run's end")
  local panel = out.panels[1]
  for _, s in ipairs(panel.series) do
    s.spread = nil
    for i, y in ipairs(s.y) do s.y[i] = y and math.exp(y) or false end
  end
  panel.y = { label = "Validation perplexity", log = true }
  out.note = tidy.caveats(view, MEANS)
  tag_models(panel, view)
  return out
end

local function losses(index, title)
  return function(view, options)
    local out = alone(loss_chart(view, options), index, title)
    tag_curves(out.panels[1], view)
    return out
  end
end

local function memory_speed(view)
  local spec = scatter_chart(view)
  tag_discs(spec.panels[1])
  return spec
end

local function quality_series(view)
  local colors, list = style.colors(view.variants), {}
  for _, variant in ipairs(view.variants) do
    local s = { name = variant, color = colors[variant], marker = "circle",
      x = {}, y = {}, area = {}, notes = {} }
    for _, model in ipairs(view.models) do
      local cell = view.at[model][variant]
      local x = tidy.mean(cell, "throughput", "tokens_per_second")
      local y = tidy.mean(cell, "evaluation", "val_loss")
      if x and y then
        local n = #s.x + 1
        s.x[n], s.y[n], s.notes[n] = x, y, model
        s.area[n] = tidy.mean(cell, "model_stats", "total_parameters") or false
      end
    end
    list[#list + 1] = s
  end
  return list
end

-- A log axis once the slowest would be lost beside the fastest.
local function spread_out(series)
  local low, high = math.huge, 0
  for _, s in ipairs(series) do
    for _, x in ipairs(s.x) do
      low, high = math.min(low, x), math.max(high, x)
    end
  end
  return high > 10 * low
end

local function quality_speed(view)
  local series = quality_series(view)
  local panel = { kind = "scatter", area_label = "parameters",
    area_format = "si", series = series,
    x = { label = "Tokens per second", format = "si",
      log = spread_out(series) },
    y = { label = "Validation loss (nats per token)" } }
  tag_discs(panel)
  return { title = "Quality against speed",
    note = tidy.caveats(view, MEANS),
    subtitle = "down and to the right is better \u{B7} "
      .. tidy.setting(view), panels = { panel } }
end

-- --- expected beside measured ----------------------------------------------

local LABEL = { memory = "memory", speed = "speed", quality = "perplexity" }

local function measured_of(view, options)
  local list = {}
  for i, run in ipairs(view.runs) do list[i] = run.result end
  local found = {}
  for _, row in ipairs(claims.rows(compare.models(list),
    not options.short)) do
    found[row.technique .. row.kind] = row.value
  end
  return found
end

local function expected(view, options)
  local found, categories = measured_of(view, options), {}
  local least = { name = "claimed, from", color = 0xC9CDD3, y = {} }
  local most = { name = "claimed, to", color = 0x8D95A1, y = {} }
  local got = { name = "measured", color = 0xD55E00, y = {} }
  for _, claim in ipairs(claims.CLAIMED) do
    for _, kind in ipairs { "memory", "speed", "quality" } do
      local value = found[claim.technique .. kind]
      local i = #categories + 1
      categories[i] = { label = LABEL[kind], group = claim.name }
      least.y[i], most.y[i] = 100 * claim[kind][1], 100 * claim[kind][2]
      got.y[i] = value and 100 * value or false
    end
  end
  return { title = "Expected and measured",
    subtitle = "change against the own baseline, mean over the models",
    panels = { { kind = "bars", categories = categories,
      y = { label = "Change", format = "percent" },
      series = { least, most, got } } } }
end

-- --- the list --------------------------------------------------------------

-- id, tab, builder, a sentence on how to read it.
charts.list = {
  { "expected_measured", "overview", expected, "What the original claims, "
    .. "beside what was measured here. Less memory and lower perplexity are "
    .. "below zero, more speed above." },
  { "memory_shares", "overview", shares, "Only the part that is weights, "
    .. "gradients and optimizer state can shrink by storing weights in four "
    .. "bits." },
  { "memory_usage", "memory", usage, "The peak of each run at the batch it "
    .. "trained with. The line is the budget." },
  { "memory_common", "memory", at_common, "The fair comparison: one "
    .. "micro-batch for all variants of a model, from exact plans." },
  { "memory_savings", "memory", savings, "What each variant saves of its own "
    .. "model's baseline at the common micro-batch." },
  { "throughput", "performance", performance(1, "Throughput"),
    "Training tokens per second, without start-up, search and evaluation." },
  { "loss_end", "performance", performance(2,
    "Loss at each run's end (equal time)"), "Each run's end, whatever its "
    .. "number of steps." },
  { "loss_equal", "performance", performance(3, "Loss at equal tokens"),
    "Only models whose variants ran one schedule are shown." },
  { "perplexity", "performance", perplexity,
    "e to the power of the validation loss; lower is better." },
  { "loss_tokens", "performance", losses(1, "Loss against tokens"),
    "Colour tells the variant, dash and marker the model." },
  { "loss_time", "performance", losses(2, "Loss against time"),
    "The same losses over training time." },
  { "memory_speed", "efficiency", memory_speed, "Up and to the left is "
    .. "better: more tokens per second from less memory. The area of a disc "
    .. "is its number of parameters." },
  { "quality_speed", "efficiency", quality_speed, "Down and to the right is "
    .. "better: a lower loss at more tokens per second. The area of a disc is "
    .. "its number of parameters." },
}

charts.by_id = {}
for _, c in ipairs(charts.list) do charts.by_id[c[1]] = c end

-- The description of a chart. options: curves, short (runs too short to rank).
function charts.build(id, list, options)
  local entry = charts.by_id[id]
  return entry and entry[3](tidy.view(list), options or {})
end

-- --- what the filters leave -------------------------------------------------

local BY_POINT = { "x", "y", "spread", "area", "notes", "models" }

local function indices(list, keep)
  local out = {}
  for i, item in ipairs(list) do if keep(item) then out[#out + 1] = i end end
  return out
end

local function picked(list, places)
  local out = {}
  for i, place in ipairs(places) do out[i] = list[place] end
  return out
end

local function with_points(s, places)
  local out = {}
  for key, value in pairs(s) do out[key] = value end
  for _, key in ipairs(BY_POINT) do
    if type(s[key]) == "table" then out[key] = picked(s[key], places) end
  end
  return out
end

local function filter_panel(panel, shown)
  local series = picked(panel.series, indices(panel.series, shown))
  local places = panel.categories and indices(panel.categories, shown)
  if places then panel.categories = picked(panel.categories, places) end
  for i, s in ipairs(series) do
    local own = places or s.models and indices(s.models, function(model)
      return shown { model = model }
    end)
    series[i] = own and with_points(s, own) or s
  end
  panel.series = series
  return #series > 0 and not (places and #places == 0)
end

-- The description of a chart, less what filters hide: sets of the models and
-- variants that are shown, nil for all. As the page does, the parts that stay
-- are those of the whole: compared with the same baseline, in the same
-- colours. nil when nothing is left.
function charts.part(id, list, options, models, variants)
  local spec = charts.build(id, list, options)
  if not spec then return nil end
  local function shown(item)
    return not (models and item.model and not models[item.model])
      and not (variants and item.variant and not variants[item.variant])
  end
  local left = false
  for _, panel in ipairs(spec.panels) do
    left = filter_panel(panel, shown) or left
  end
  if spec.legend then
    local names, view = {}, tidy.view(list)
    for _, name in ipairs(view.models) do names[name] = { model = name } end
    for _, name in ipairs(view.variants) do
      names[name] = { variant = name }
    end
    spec.legend = picked(spec.legend, indices(spec.legend, function(entry)
      return shown(names[entry.name] or {})
    end))
  end
  return left and spec or nil
end

local TAGS = { model = true, variant = true, models = true }

local function untagged(list)
  local out = {}
  for i, item in ipairs(list or {}) do
    out[i] = {}
    for key, value in pairs(item) do
      if not TAGS[key] then out[i][key] = value end
    end
  end
  return out
end

-- A description as SVG by plots/, or nil and why not.
function charts.svg(spec)
  local renderer, why = require("plots").renderer()
  if not renderer then return nil, why end
  local plain = { title = spec.title, subtitle = spec.subtitle,
    note = spec.note, legend = spec.legend, panels = {} }
  for i, panel in ipairs(spec.panels) do
    local copy = {}
    for key, value in pairs(panel) do copy[key] = value end
    copy.categories = panel.categories and untagged(panel.categories)
    copy.series = untagged(panel.series)
    plain.panels[i] = copy
  end
  return renderer.render(plain, { format = "svg", width = 1200, height = 700 })
end

return charts
