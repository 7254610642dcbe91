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

-- A name of at most `most` characters, its middle left out.
local function shortened(name, most)
  if #name <= most then return name end
  local head = (most - 1) // 2
  return name:sub(1, head) .. "…" .. name:sub(#name - (most - 2 - head))
end

local function widest(lines)
  local most = 0
  for _, line in ipairs(lines) do
    most = math.max(most, utf8.len(line) or #line)
  end
  return most
end

-- Lines of text, and by line the status word it holds.
return function(results)
  local rows, statuses, longest = {}, {}, 0
  for i, r in ipairs(results) do
    rows[i], statuses[i + 2] = row_of(r), r.status
    longest = math.max(longest, #r.name)
  end
  local lines = columns.text(HEAD, rows, { 1, 2 })
  local over = widest(lines) - WIDTH
  if over > 0 then
    local most = math.max(#HEAD[1], longest - over)
    for _, row in ipairs(rows) do row[1] = shortened(row[1], most) end
    lines = columns.text(HEAD, rows, { 1, 2 })
  end
  return lines, statuses
end
