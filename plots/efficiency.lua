-- efficiency.lua: memory against speed, a disc an experiment, its area the
-- number of parameters. Up and to the left is better.
local memory = require "plots.memory"
local style = require "plots.style"
local tidy = require "plots.tidy"

-- A log axis once the slowest is lost beside the fastest.
local function spread_out(view)
  local low, high = math.huge, 0
  for _, cell in ipairs(view.cells) do
    local speed = tidy.mean(cell, "throughput", "tokens_per_second")
    if speed and speed > 0 then
      low, high = math.min(low, speed), math.max(high, speed)
    end
  end
  return high > 10 * low
end

local function discs(view, divisor)
  local colors, list = style.colors(view.variants), {}
  for _, variant in ipairs(view.variants) do
    local s = { name = variant, color = colors[variant], marker = "circle",
      x = {}, y = {}, area = {}, notes = {} }
    for _, model in ipairs(view.models) do
      local cell = view.at[model][variant]
      local x = tidy.mean(cell, "memory_stats", "peak_memory_gb")
      local y = tidy.mean(cell, "throughput", "tokens_per_second")
      if x and y then
        local n = #s.x + 1
        s.x[n], s.y[n], s.notes[n] = x / divisor, y, model
        s.area[n] = tidy.mean(cell, "model_stats", "total_parameters") or false
      end
    end
    list[#list + 1] = s
  end
  return list
end

local function missing(view)
  local list = {}
  for _, cell in ipairs(view.cells) do
    if not (tidy.mean(cell, "memory_stats", "peak_memory_gb")
        and tidy.mean(cell, "throughput", "tokens_per_second")) then
      list[#list + 1] = string.format("%s %s (%s)", cell.model, cell.variant,
        tidy.reason(cell))
    end
  end
  return #list > 0 and "Not shown: " .. table.concat(list, ", ") .. "." or nil
end

return function(view)
  local unit, divisor = style.memory_unit(
    tidy.most(view, "memory_stats", "peak_memory_gb"))
  local budget = memory.budget_line(view, unit, divisor)
  if budget then budget.vertical = true end
  return {
    title = "Memory against speed",
    subtitle = "up and to the left is better \u{B7} " .. tidy.setting(view),
    note = missing(view),
    panels = { {
      kind = "scatter", area_label = "parameters", area_format = "si",
      x = { label = "Peak memory (" .. unit .. ")" },
      y = { label = "Tokens per second", format = "si",
        log = spread_out(view) },
      series = discs(view, divisor), references = { budget },
    } },
  }
end
