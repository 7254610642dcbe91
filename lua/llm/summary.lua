-- The table at the end of a sweep, within 80 columns.
local columns = require "llm.columns"
local size = require "llm.size"

local function cell(x, format) return x and format:format(x) or "-" end

-- Lines of text.
return function(results)
  local rows = {}
  for i, r in ipairs(results) do
    local t, m = r.training_stats, r.memory_stats
    rows[i] = { r.name, r.status == "ok" and "ok" or r.status,
      size.count(r.model_stats.total_parameters),
      r.model_stats.optimal_batch_size or "-", t.steps_completed,
      cell(r.evaluation.val_loss, "%.3f"),
      cell(m.peak_memory_gb and 1000 * m.peak_memory_gb, "%.0f"),
      cell(t.training_time_seconds, "%.1f"),
      cell(r.throughput.tokens_per_second, "%.0f") }
  end
  return columns.text({ "experiment", "status", "params", "batch", "steps",
    "val loss", "MB", "s", "tok/s" }, rows, { 1, 2 })
end
