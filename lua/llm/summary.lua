-- The table at the end of a sweep, within 80 columns.
local columns = require "llm.columns"
local size = require "llm.size"

local WIDTH = 80

local function cell(x, format) return x and format:format(x) or "-" end

local function count(n) return n and size.count(n) or "-" end

local HEAD = { "experiment", "status", "params", "batch", "steps", "val loss",
  "MB", "s", "tok/s" }

local function row_of(r)
  local t, m = r.training_stats, r.memory_stats
  return { r.name, r.status == "ok" and "ok" or r.status,
    count(r.model_stats.total_parameters),
    r.model_stats.optimal_batch_size or "-",
    r.status == "skipped" and "-" or t.steps_completed,
    cell(r.evaluation.val_loss, "%.3f"),
    cell(m.peak_memory_gb and 1000 * m.peak_memory_gb, "%.0f"),
    cell(t.training_time_seconds, (t.training_time_seconds or 0) < 1000
      and "%.1f" or "%.0f"),
    cell(r.throughput.tokens_per_second, "%.0f") }
end

-- Lines of text, and by line the status word it holds.
return function(results)
  local rows, statuses = {}, {}
  for i, r in ipairs(results) do
    rows[i], statuses[i + 2] = row_of(r), r.status
  end
  return columns.within(WIDTH, HEAD, rows, { 1, 2 }), statuses
end
