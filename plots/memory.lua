-- memory.lua: where memory goes, and what each variant saves of it.
local style = require "plots.style"
local tidy = require "plots.tidy"

local memory = {}

local function series_names(view)
  local colors, names = {}, {}
  local known = {}
  for _, entry in ipairs(style.categories) do
    names[#names + 1], colors[entry[1]] = entry[1], entry[2]
    known[entry[1]] = true
  end
  local extra = {}
  for _, run in ipairs(view.runs) do
    local stats = run.result.memory_stats
    local split = type(stats) == "table" and stats.by_category
    for name in pairs(type(split) == "table" and split or {}) do
      if type(name) == "string" and not known[name] then
        known[name] = true
        extra[#extra + 1] = name
      end
    end
  end
  table.sort(extra)
  for i, name in ipairs(extra) do
    names[#names + 1] = name
    colors[name] = style.others[i % #style.others + 1]
  end
  return names, colors
end

-- A cell's bytes of one category in GB.
local function category_gb(cell, name)
  local bytes = tidy.mean(cell, "memory_stats", "by_category", name)
  return bytes and bytes / 1e9
end

local function split_known(cell, names)
  for _, name in ipairs(names) do
    if category_gb(cell, name) then return true end
  end
  return false
end

-- One series a category that somebody uses, and one for peaks not split.
local function piles(view, divisor)
  local names, colors = series_names(view)
  local list, whole = {}, { name = "not split", color = 0x8A8A8A, y = {} }
  local any_whole = false
  for _, name in ipairs(names) do
    local series, used = { name = name, color = colors[name], y = {} }, false
    for i, cell in ipairs(view.cells) do
      local value = category_gb(cell, name)
      series.y[i] = value and value / divisor or false
      used = used or (value or 0) > 0
    end
    if used then list[#list + 1] = series end
  end
  for i, cell in ipairs(view.cells) do
    local peak = tidy.mean(cell, "memory_stats", "peak_memory_gb")
    local missing = peak and not split_known(cell, names)
    whole.y[i] = missing and peak / divisor or false
    any_whole = any_whole or missing
  end
  if any_whole then list[#list + 1] = whole end
  return list
end

local function categories(view)
  local list = {}
  for i, cell in ipairs(view.cells) do
    local shown = tidy.mean(cell, "memory_stats", "peak_memory_gb")
      or split_known(cell, (series_names(view)))
    list[i] = {
      label = cell.variant, group = cell.model,
      note = not shown and tidy.reason(cell) or nil,
    }
  end
  return list
end

local function budget_line(view, unit, divisor)
  local budget = tidy.budget(view)
  if not budget then return nil end
  local text = string.format("budget %.4g %s", budget / divisor, unit)
  if budget / divisor >= 10000 then
    text = string.format("budget %.4g GB", budget)
  end
  return { value = budget / divisor, label = text, color = style.alert }
end

memory.budget_line = budget_line

-- Peak of each experiment as it ran, piled up by category.
function memory.usage(view)
  local unit, divisor = style.memory_unit(
    tidy.most(view, "memory_stats", "peak_memory_gb"))
  return {
    title = "Peak memory by category",
    subtitle = "each experiment at the batch it trained with \u{B7} "
      .. tidy.setting(view),
    panels = { {
      kind = "bars", stacked = true, values = true, digits = 3,
      y = { label = "Peak memory (" .. unit .. ")" },
      categories = categories(view), series = piles(view, divisor),
      references = { budget_line(view, unit, divisor) },
    } },
  }
end

-- What a variant saves of its model's baseline, in percent; nil and why not.
local function saving(row)
  return function(cell)
    local base = tidy.mean(row.baseline, "memory_stats",
      "memory_at_common_batch_gb")
    local own = tidy.mean(cell, "memory_stats", "memory_at_common_batch_gb")
    if not own then return nil, tidy.reason(cell) end
    if not base or base <= 0 then return nil, "no baseline" end
    return 100 * (1 - own / base)
  end
end

function memory.savings(view)
  local colors, list, models = style.colors(view.variants), {}, {}
  for i, model in ipairs(view.models) do models[i] = { label = model } end
  for _, variant in ipairs(view.variants) do
    local series = { name = variant, color = colors[variant], y = {},
      notes = {} }
    for i, model in ipairs(view.models) do
      local row = view.at[model]
      local value, why = saving(row)(row[variant])
      series.y[i], series.notes[i] = value or false, why or false
    end
    if variant ~= "baseline" then list[#list + 1] = series end
  end
  return {
    title = "Memory saved against the model's own baseline",
    subtitle = "planned peak at one micro-batch common to a model's variants "
      .. "\u{B7} " .. tidy.setting(view),
    panels = { {
      kind = "bars", values = true, value_format = "percent", digits = 3,
      empty = "no data: nothing to set against a baseline",
      y = { label = "Memory saved", format = "percent" },
      x = { label = "Model" },
      categories = #list > 0 and models or nil, series = list,
    } },
  }
end

return memory
