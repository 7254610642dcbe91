-- performance.lua: throughput and validation loss of every model and variant,
-- the loss in two views: at each run's end, and at equal tokens.
local style = require "plots.style"
local tidy = require "plots.tidy"

-- One series a variant over the models; `value(cell)` -> mean, spread or
-- nil, reason.
local function by_variant(view, value)
  local colors, list = style.colors(view.variants), {}
  for _, variant in ipairs(view.variants) do
    local series = { name = variant, color = colors[variant], y = {},
      spread = {}, notes = {} }
    for i, model in ipairs(view.models) do
      local mean, spread = value(view.at[model][variant])
      series.y[i] = mean or false
      series.spread[i] = mean and spread or false
      series.notes[i] = not mean and spread or false
    end
    list[#list + 1] = series
  end
  return list
end

local function field(...)
  local path = { ... }
  return function(cell)
    local mean, spread = tidy.mean(cell, table.unpack(path))
    if not mean then return nil, tidy.reason(cell) end
    return mean, spread
  end
end

-- Did all of a model's runs that ended well take the same number of steps of
-- the same size?
local function one_schedule(view, model)
  local first
  for _, run in ipairs(view.runs) do
    if run.ok and run.model == model then
      local steps = tidy.number(run.result, "training_stats",
        "steps_completed")
      local size = tidy.number(run.result, "model_stats", "tokens_per_step")
      if not steps or not size then return false end
      first = first or { steps, size }
      if steps ~= first[1] or size ~= first[2] then return false end
    end
  end
  return true
end

local function models(view, comparable)
  local list = {}
  for i, model in ipairs(view.models) do
    list[i] = { label = model, note = comparable and not comparable[model]
      and "not comparable: schedules differ" or nil }
  end
  return list
end

-- The loss where a model's runs followed one schedule; elsewhere nothing, and
-- the category says why.
local function equal_tokens(view)
  local comparable = {}
  for _, model in ipairs(view.models) do
    comparable[model] = one_schedule(view, model)
  end
  local series = by_variant(view, function(cell)
    if cell and not comparable[cell.model] then return nil end
    return field("evaluation", "val_loss")(cell)
  end)
  for _, s in ipairs(series) do
    for i, model in ipairs(view.models) do
      if not comparable[model] then s.notes[i] = false end
    end
  end
  return series, models(view, comparable)
end

local function loss_panel(title, categories, series)
  return {
    kind = "bars", dots = true, values = #categories <= 5, digits = 4,
    title = title, y = { label = "Validation loss (nats per token)" },
    categories = categories, series = series,
  }
end

return function(view)
  local series, categories = equal_tokens(view)
  return {
    title = "Throughput and quality",
    subtitle = tidy.setting(view), note = tidy.caveats(view), columns = 3,
    panels = {
      {
        kind = "bars", values = true, value_format = "si", digits = 3,
        title = "Throughput", categories = models(view),
        y = { label = "Tokens per second", format = "si" },
        series = by_variant(view, field("throughput", "tokens_per_second")),
      },
      loss_panel("Loss at each run's end (equal time)", models(view),
        by_variant(view, field("evaluation", "val_loss"))),
      loss_panel("Loss at equal tokens", categories, series),
    },
  }
end
