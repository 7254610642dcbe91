-- table.lua: the results as a table, the original's ten columns.
local style = require "plots.style"
local tidy = require "plots.tidy"

local NONE = "\u{2013}"

local function config(run)
  local c = run.result.config
  local d, layers = tidy.number(c, "d_model"), tidy.number(c, "n_layers")
  if not d or not layers then return NONE end
  local text = string.format("%.0fd-%.0fL", d, layers)
  local heads = tidy.number(c, "n_heads")
  return heads and string.format("%s-%.0fH", text, heads) or text
end

local function gqa(run)
  if not run.gqa then return NONE end
  local kv = tidy.number(run.result, "optimizations", "n_kv_heads")
  return kv and string.format("%.0f kv", kv) or "yes"
end

local function plus_minus(mean, spread, format)
  if not mean then return NONE end
  local text = string.format(format, mean)
  if not spread then return text end
  return text .. " \u{B1} " .. string.format(format, spread)
end

local function memory_text(mean)
  if not mean then return NONE end
  local unit, divisor = style.memory_unit(mean)
  return style.digits(mean / divisor) .. " " .. unit
end

local columns = {
  { title = "ID" }, { title = "Config" },
  { title = "GQA", align = "centre" }, { title = "FP4", align = "centre" },
  { title = "Params", align = "right" }, { title = "Batch", align = "right" },
  { title = "Val loss", align = "right" },
  { title = "Memory", align = "right" }, { title = "Time", align = "right" },
  { title = "Tokens/s", align = "right" },
}

-- Measured values of a cell and how "best" is told, by column.
local measured = {
  { column = 7, path = { "evaluation", "val_loss" }, best = math.min },
  { column = 8, path = { "memory_stats", "peak_memory_gb" }, best = math.min },
  { column = 10, path = { "throughput", "tokens_per_second" },
    best = math.max },
}

local function row_of(cell)
  local run = cell.runs[1]
  for _, other in ipairs(cell.runs) do
    if other.ok and not run.ok then run = other end
  end
  local params = tidy.number(run.result, "model_stats", "total_parameters")
  local batch = tidy.mean(cell, "model_stats", "optimal_batch_size")
  local loss, spread = tidy.mean(cell, "evaluation", "val_loss")
  local seconds = tidy.mean(cell, "training_stats", "training_time_seconds")
  local speed = tidy.mean(cell, "throughput", "tokens_per_second")
  local row = {
    cell.model .. "_" .. cell.variant, config(run), gqa(run),
    run.fp4 and "yes" or NONE, params and style.si(params) or NONE,
    batch and string.format("%.4g", batch) or NONE,
    plus_minus(loss, spread, "%.3f"),
    memory_text(tidy.mean(cell, "memory_stats", "peak_memory_gb")),
    seconds and style.duration(seconds) or NONE,
    speed and style.si(speed) or NONE,
  }
  if not run.ok then
    row[7] = { text = run.status, color = style.alert, bold = true }
  end
  return row
end

-- Print the best value of each measured column bold and green.
local function mark_best(view, rows)
  for _, m in ipairs(measured) do
    local best
    for _, cell in ipairs(view.cells) do
      local value = tidy.mean(cell, table.unpack(m.path))
      if value then best = best and m.best(best, value) or value end
    end
    for i, cell in ipairs(view.cells) do
      if best and tidy.mean(cell, table.unpack(m.path)) == best then
        rows[i][m.column] = { text = rows[i][m.column], bold = true,
          color = style.good }
      end
    end
  end
end

return function(view)
  local rows, caveats = {}, tidy.caveats(view,
    "\u{B1} is one standard deviation, differences inside it are ties")
  for i, cell in ipairs(view.cells) do
    rows[i] = row_of(cell)
    local before = view.cells[i - 1]
    rows[i].rule = before ~= nil and before.model ~= cell.model
  end
  mark_best(view, rows)
  return {
    title = "Results", subtitle = tidy.setting(view),
    note = "Best loss, memory and speed of all in bold."
      .. (caveats and " " .. caveats or ""),
    panels = { { kind = "table", table_columns = columns, rows = rows } },
  }
end
