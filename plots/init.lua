-- init.lua: which charts there are, and how a sweep's charts get written.
--
--   local plots = require "plots"
--   for _, file in ipairs(plots.write(results, "experiment_results")) do
--     print(file.path, file.bytes)
--   end
local tidy = require "plots.tidy"

local plots = {}

-- name, what makes its description from a view, and its size in pixels (the
-- height may follow from the view).
plots.charts = {
  { name = "memory_usage_comparison",
    build = require("plots.memory").usage, width = 1200, height = 700 },
  { name = "memory_savings",
    build = require("plots.memory").savings, width = 1200, height = 700 },
  { name = "performance_comparison",
    build = require "plots.performance", width = 1400, height = 700 },
  { name = "loss_curves",
    build = require "plots.loss", width = 1200, height = 700 },
  { name = "efficiency_scatter",
    build = require "plots.efficiency", width = 1200, height = 700 },
  { name = "results_table", build = require "plots.table", width = 1200,
    height = function(view) return 158 + 30 * (#view.cells + 1) end },
}

-- The renderer, or nil and why there is none.
function plots.renderer()
  local ok, chart = pcall(require, "chart")
  if ok then return chart end
  return nil, "no plots: the module chart.so is missing; install libplot-dev "
    .. "and libstb-dev, then run make"
end

local function find(name)
  for _, chart in ipairs(plots.charts) do
    if chart.name == name then return chart end
  end
  error("plots: no chart named " .. tostring(name), 3)
end

-- One chart as the bytes of a "png" or "svg" file, or nil and why not.
-- options: curves = { [name] = { {step, tokens, seconds, loss, val_loss} } }
-- (as recorded), scale = 1 (PNG pixels a unit), size = {width, height} instead
-- of the usual.
function plots.render(results, name, format, options)
  options = options or {}
  local entry, view = find(name), tidy.view(results)
  local renderer, why = plots.renderer()
  if not renderer then return nil, why end
  local size, height = options.size or {}, entry.height
  if type(height) == "function" then height = height(view) end
  local spec = entry.build(view, {
    curves = options.curves or results.curves })
  return renderer.render(spec, {
    format = format, width = size[1] or entry.width,
    height = size[2] or math.max(320, math.min(height, 8000)),
    scale = options.scale,
  })
end

-- Write every chart as PNG and SVG into `folder`. Gives an array of
-- { path =, bytes = }, or nil, message, code of the first that failed.
-- `curves` as in plots.render; without any they are read from folder/runs/.
function plots.write(results, folder, curves)
  local host = require "host"
  local written = {}
  local renderer, why = plots.renderer()
  if not renderer then return nil, why, "missing" end
  curves = curves or results.curves
    or require("plots.curves").read(results, folder)
  for _, entry in ipairs(plots.charts) do
    for _, format in ipairs{ "png", "svg" } do
      local bytes = plots.render(results, entry.name, format,
        { curves = curves })
      local path = folder .. "/" .. entry.name .. "." .. format
      local ok, message, code = host.file.write(path, bytes)
      if not ok then return nil, message, code end
      written[#written + 1] = { path = path, bytes = #bytes }
    end
  end
  return written
end

return plots
