-- The columns of the detailed results: the original's ten, and every other
-- field of the results by its name.
local fields = require "llm.fields"
local size = require "llm.size"

local columns = {}

local function at(r, path)
  for word in path:gmatch "[^.]+" do
    if type(r) ~= "table" then return nil end
    r = r[word]
  end
  return r
end

local function config(r)
  local c = r.config
  return ("%dd %dL %dh"):format(c.d_model, c.n_layers, c.n_heads)
end

local function gqa(r)
  local o = r.optimizations
  return o.use_gqa and ("%d:%d"):format(r.config.n_heads, o.n_kv_heads) or "no"
end

local function batch(r)
  local m = r.model_stats
  return m.optimal_batch_size and ("%d × %d"):format(m.optimal_batch_size,
    m.accumulation_steps)
end

local function format(pattern)
  return function(value) return pattern:format(value) end
end

-- key, title, where its value is, its text, default = shown at first.
local TEN = {
  { "name", "ID", "name" },
  { "shape", "config", "config.d_model", nil, config },
  { "gqa", "GQA", "optimizations.use_gqa", nil, gqa },
  { "fp4", "FP4", "optimizations.use_fp4",
    function(value) return value and "yes" or "no" end },
  { "params", "params", "model_stats.total_parameters", size.count },
  { "batch", "batch", "model_stats.optimal_batch_size", nil, batch },
  { "val_loss", "val loss", "evaluation.val_loss", format "%.4f" },
  { "memory", "memory, GB", "memory_stats.peak_memory_gb", format "%.3f" },
  { "time", "time, s", "training_stats.training_time_seconds",
    format "%.1f" },
  { "speed", "tokens/s", "throughput.tokens_per_second", format "%.0f" },
}

local SPARE = { schema_version = true, experiment_id = true, name = true,
  advice = true, resource_monitoring = true }
local LISTS = { by_category = true, by_category_at_common_batch = true,
  candidates = true }

-- Every scalar field of the results that the ten do not show, by its path.
local function rest()
  local shown, list = {}, { { "error", "error", "error" } }
  for _, c in ipairs(TEN) do shown[c[3]] = not c[5] end
  for _, field in ipairs(fields) do
    if type(field) == "string" and not SPARE[field] then
      list[#list + 1] = { field, field, field }
    elseif type(field) == "table" then
      for i = 2, #field do
        local path = field[1] .. "." .. field[i]
        if not (shown[path] or LISTS[field[i]]) then
          list[#list + 1] = { path, field[i], path }
        end
      end
    end
  end
  return list
end

columns.list = {}
for _, c in ipairs(TEN) do
  columns.list[#columns.list + 1] = { key = c[1], title = c[2], path = c[3],
    text = c[4], whole = c[5], default = true }
end
for _, c in ipairs(rest()) do
  columns.list[#columns.list + 1] = { key = c[1], title = c[2], path = c[3],
    default = false }
end

-- { key, title, path, default, numeric } of every column.
function columns.heads(list)
  local heads = {}
  for i, c in ipairs(columns.list) do
    local numeric = false
    for _, r in ipairs(list) do
      numeric = numeric or type(at(r, c.path)) == "number"
    end
    heads[i] = { key = c.key, title = c.title, path = c.path,
      default = c.default, numeric = numeric and c.key ~= "shape"
        and c.key ~= "batch" }
  end
  return heads
end

-- One row a result: { model, variant, values = {key = value}, texts = {key =
-- text} }; what is not known is absent.
function columns.rows(list)
  local rows = {}
  for i, r in ipairs(list) do
    local row = { model = r.config.model, variant = r.config.variant,
      values = {}, texts = {} }
    for _, c in ipairs(columns.list) do
      local value = at(r, c.path)
      row.values[c.key] = value
      if value ~= nil and c.text then row.texts[c.key] = c.text(value) end
      if c.whole then row.texts[c.key] = c.whole(r) end
    end
    if r.status ~= "ok" then row.texts.val_loss = r.status end
    rows[i] = row
  end
  return rows
end

return columns
