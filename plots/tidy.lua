-- tidy.lua: what charts ask of experiment_results.json. Fields may be missing,
-- null or of a wrong type anywhere: all of that reads as "unknown".
local tidy = {}

-- Follow keys; the number at the end, or nil when it is none or not finite.
function tidy.number(value, ...)
  for _, key in ipairs{ ... } do
    if type(value) ~= "table" then return nil end
    value = value[key]
  end
  if math.type(value) and value == value and math.abs(value) < 1e30 then
    return value
  end
  return nil
end

function tidy.text(value, ...)
  for _, key in ipairs{ ... } do
    if type(value) ~= "table" then return nil end
    value = value[key]
  end
  return type(value) == "string" and value or nil
end

local function flag(value, key)
  return type(value) == "table" and value[key] == true
end

local known = { "gqa_fp4", "baseline", "gqa", "fp4" }  -- longest end first

local function ends_with(text, tail)
  return #text > #tail and text:sub(-#tail) == tail
end

-- "small_gqa_fp4_s43" -> "small", "gqa_fp4". A variant of a matrix of the
-- user's own is what follows the last underscore.
local function split_name(name, result)
  if tidy.number(result, "environment", "seed") then
    local seed = string.format("_s%d",
      math.floor(tidy.number(result, "environment", "seed")))
    if ends_with(name, seed) then name = name:sub(1, -#seed - 1) end
  else
    name = name:gsub("_s%d+$", "")
  end
  for _, variant in ipairs(known) do
    if ends_with(name, "_" .. variant) then
      return name:sub(1, -#variant - 2), variant
    end
  end
  local model, variant = name:match("^(.+)_([^_]+)$")
  return model or name, variant or "run"
end

local function run_of(result, index)
  local name = tidy.text(result, "name") or "experiment " .. index
  local model, variant = split_name(name, result)
  local status = tidy.text(result, "status") or "unknown"
  return {
    name = name, result = result, status = status, ok = status == "ok",
    model = tidy.text(result, "config", "model") or model,
    variant = tidy.text(result, "config", "variant") or variant,
    gqa = flag(result.optimizations, "use_gqa"),
    fp4 = flag(result.optimizations, "use_fp4"),
  }
end

local function add_once(list, seen, name)
  if not seen[name] then
    seen[name] = true
    list[#list + 1] = name
  end
end

-- Runs grouped into cells, one a model and variant (its seeds together):
-- { runs, cells, models, variants, at = {[model] = {[variant] = cell}} },
-- everything in the order of the results.
function tidy.view(results)
  local view = { runs = {}, cells = {}, models = {}, variants = {}, at = {} }
  local seen_models, seen_variants = {}, {}
  for i, result in ipairs(results) do
    if type(result) == "table" then
      local run = run_of(result, i)
      view.runs[#view.runs + 1] = run
      add_once(view.models, seen_models, run.model)
      add_once(view.variants, seen_variants, run.variant)
      local row = view.at[run.model] or {}
      view.at[run.model] = row
      if not row[run.variant] then
        row[run.variant] = {
          model = run.model, variant = run.variant, runs = {},
        }
        view.cells[#view.cells + 1] = row[run.variant]
      end
      table.insert(row[run.variant].runs, run)
    end
  end
  return view
end

-- Mean, sample standard deviation (nil for one value) and number of the
-- field over a cell's runs that ended well; nil when there is none.
function tidy.mean(cell, ...)
  local sum, values = 0, {}
  for _, run in ipairs(cell and cell.runs or {}) do
    local value = run.ok and tidy.number(run.result, ...)
    if value then
      values[#values + 1] = value
      sum = sum + value
    end
  end
  if #values == 0 then return nil end
  local mean, squares = sum / #values, 0
  for _, value in ipairs(values) do squares = squares + (value - mean) ^ 2 end
  local spread = #values > 1 and math.sqrt(squares / (#values - 1)) or nil
  return mean, spread, #values
end

-- Why a cell has no value: its first status that is not ok, else "unknown".
function tidy.reason(cell)
  if not cell then return "not run" end
  for _, run in ipairs(cell.runs) do
    if not run.ok then return run.status end
  end
  return "not known"
end

-- The largest value of the field over all cells; 0 when there is none.
function tidy.most(view, ...)
  local most = 0
  for _, cell in ipairs(view.cells) do
    most = math.max(most, tidy.mean(cell, ...) or 0)
  end
  return most
end

-- The budget in GB, if all runs that name one name the same.
function tidy.budget(view)
  local budget
  for _, run in ipairs(view.runs) do
    local value = tidy.number(run.result, "memory_stats", "budget_gb")
    if value and value > 0 then
      if budget and math.abs(budget - value) > 1e-9 * budget then return nil end
      budget = value
    end
  end
  return budget
end

-- "AMD EPYC 7R13 · 15 of 16 experiments ok", for subtitles.
function tidy.setting(view)
  local ok, device = 0, nil
  for _, run in ipairs(view.runs) do
    if run.ok then ok = ok + 1 end
    device = device or tidy.text(run.result, "environment", "device")
  end
  local count = string.format("%d of %d experiments ok", ok, #view.runs)
  return device and device .. " \u{B7} " .. count or count
end

-- What every chart of quality must say: several seeds (and `how` they are
-- shown), many epochs. nil when there is nothing to say.
function tidy.caveats(view, how)
  local notes, seeds, epochs = {}, 1, 0
  for _, cell in ipairs(view.cells) do seeds = math.max(seeds, #cell.runs) end
  for _, run in ipairs(view.runs) do
    epochs = math.max(epochs,
      tidy.number(run.result, "training_stats", "epochs") or 0)
  end
  if seeds > 1 then
    notes[#notes + 1] = string.format("Mean of up to %d seeds; %s.", seeds,
      how or "whiskers are \u{B1} one standard deviation, differences inside "
      .. "them are ties")
  end
  if epochs > 4 then
    notes[#notes + 1] = string.format("Up to %.1f passes over the text (more "
      .. "than 4): losses say little about quality.", epochs)
  end
  return #notes > 0 and table.concat(notes, " ") or nil
end

return tidy
