-- The folder that a sweep leaves, with figures of our choosing: a journal as
-- the program writes it, and metrics, for readers of both.
local config = require "llm.config"
local host = require "host"
local matrix = require "llm.matrix"

local sweep_folder = {}

local STEPS = 400 -- of a run: enough to rank losses

local MODELS = {
  { name = "small", d_model = 32, n_layers = 1, n_heads = 4, d_ff = 64 },
  { name = "large", d_model = 64, n_layers = 2, n_heads = 4, d_ff = 128 },
}

-- Losses, seconds and megabytes by variant, the larger model's scaled.
local FIGURES = { baseline = { 5.00, 20, 100 }, gqa = { 5.02, 16, 95 },
  fp4 = { 5.20, 22, 70 }, gqa_fp4 = { 5.05, 14, 66 } }

local function figures(e)
  local f = FIGURES[e.variant] or FIGURES.baseline
  local times = e.model == MODELS[2].name and 2 or 1
  return f[1] - .3 * (times - 1) + .001 * e.seed, f[2] * times,
    f[3] * 1e6 * times
end

local function split(bytes)
  return { parameters = bytes // 5, gradients = bytes // 10,
    optimizer = bytes // 5, activations = bytes - 2 * (bytes // 5)
      - 2 * (bytes // 10), scratch = bytes // 10, data = 0 }
end

local function decided(e)
  local _, seconds, bytes = figures(e)
  return { batch = 4, accumulate = 2, steps = STEPS, largest = 6, fastest = 2,
    predicted = bytes, state_per_parameter = 2.5, search_seconds = 1,
    timed_steps = 10, seconds_per_step = seconds / STEPS,
    by_category = split(bytes), candidates = {} }
end

local function result(e, steps)
  local loss, seconds, bytes = figures(e)
  return { status = "ok", count = { parameters = 90000, quantized = 60000 },
    steps_completed = steps or STEPS, training_seconds = seconds,
    step_spread = .02,
    avg_loss = loss - .1, train_accuracy = .2, tokens = 20 * 2048,
    epochs = .5, val_loss = loss, best_val_loss = loss, val_accuracy = .2,
    val_perplexity = math.exp(loss), val_tokens = 2048, evals = {},
    memory = { peak = bytes, current = bytes, predicted = bytes,
      budget = 256000000 }, monitoring = {} }
end

local function metrics(e, steps)
  local loss, seconds = figures(e)
  local lines = {}
  for step = 1, steps do
    local at = { step = step, tokens = 2048 * step,
      seconds = seconds * step / 20 }
    at.loss = loss + 3 * math.exp(-step / 5)
    lines[#lines + 1] = host.json.encode(at) .. "\n"
    if step % 5 == 0 then
      at.loss, at.val_loss = nil, loss + 3 * math.exp(-step / 5) + .1
      lines[#lines + 1] = host.json.encode(at) .. "\n"
    end
  end
  return table.concat(lines)
end

local function listed(list)
  local out = {}
  for i, e in ipairs(list) do
    out[i] = { name = e.name, model = e.model, variant = e.variant,
      seed = e.seed, shape = e.shape, train = e.train, memory = e.memory,
      sequences = e.sequences }
  end
  return out
end

local function append(journal, record) assert(journal:append(record)) end

local function common(list)
  local plans = {}
  for _, e in ipairs(list) do
    local _, _, bytes = figures(e)
    plans[e.name] = { batch = 4, accumulate = 2, peak = bytes,
      by_category = split(bytes), plain = 2 * bytes }
  end
  return plans
end

local VARIANTS = { { name = "baseline" }, { name = "gqa", kv_groups = 4 },
  { name = "fp4", fp4 = true },
  { name = "gqa_fp4", kv_groups = 4, fp4 = true } }

-- The experiments of two models by four variants. words: overrides such as
-- "train.seeds=1,2".
function sweep_folder.experiments(words)
  local list = { "data.vocab=300", "train.seq=64", "train.steps=400",
    "train.tokens_per_step=512" }
  table.move(words or {}, 1, #(words or {}), #list + 1, list)
  return matrix.expand(config.resolve({ profile = "nano", models = MODELS,
    matrix = VARIANTS }, list, "cpu"))
end

-- Write the folder. how: words (see above), profile ("full" is said), change(e)
-- may alter an experiment (its names) before it is written, finished = number
-- of experiments that ended (all), open = the next one runs, status(e) gives
-- status and error of those that failed.
function sweep_folder.write(path, how)
  how = how or {}
  local list = sweep_folder.experiments(how.words)
  for _, e in ipairs(list) do if how.change then how.change(e) end end
  host.file.remove_tree(path)
  assert(host.file.mkdir(path .. "/runs"))
  local j <close> = assert(host.journal.open(path .. "/journal.jsonl"))
  append(j, { type = "sweep", config = {}, files = host.json.object {},
    name = how.name or "chosen", profile = how.profile or "full",
    description = "figures of our choosing", environment = {
      device = "a machine", backend = "cpu", build = "b1",
      date = "2026-01-02T03:04:05+00:00" } })
  append(j, { type = "order", experiments = listed(list) })
  for i, e in ipairs(list) do
    if i <= (how.finished or #list) then
      sweep_folder.finish(path, j, e, how)
    end
  end
  if how.open then sweep_folder.begin(path, j, list[how.finished + 1], 7) end
  if not how.finished then
    append(j, { type = "common", plans = common(list) })
    append(j, { type = "finish", seconds = 321 })
  end
  return list
end

local function write_metrics(path, e, steps)
  if e.name:find "[/%z]" or #e.name > 100 then return end
  assert(host.file.mkdir(path .. "/runs/" .. e.name))
  assert(host.file.write(path .. "/runs/" .. e.name .. "/metrics.jsonl",
    metrics(e, steps)))
end

-- An experiment that has begun and done `steps` steps.
function sweep_folder.begin(path, j, e, steps)
  append(j, { type = "start", name = e.name, mode = "train" })
  append(j, { type = "decided", name = e.name, decided = decided(e) })
  write_metrics(path, e, steps)
end

function sweep_folder.finish(path, j, e, how)
  sweep_folder.begin(path, j, e, 20)
  local status, why
  if how and how.status then status, why = how.status(e) end
  append(j, { type = "end", name = e.name, status = status or "ok",
    error = why, result = not status and result(e, how.steps) or nil })
end

-- A lock file that says this very process holds the folder.
function sweep_folder.hold(path)
  local lock = assert(host.lock(path .. "/lock", 0))
  return lock
end

return sweep_folder
