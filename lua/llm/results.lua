-- From the folded journal to the results: one plain record an experiment, with
-- the names of fields.lua, and its JSON.
local advice = require "llm.advice"
local datasheet = require "llm.datasheet"
local fields = require "llm.fields"
local host = require "host"
local size = require "llm.size"
local state = require "llm.state"

local results = {}

local SCHEMA_VERSION = 1

local function config_of(e, d)
  local c, t = e.shape, e.train
  return { model = e.model, variant = e.variant, d_model = c.d_model,
    n_heads = c.n_heads, n_layers = c.n_layers, d_ff = c.d_ff,
    vocab_size = c.vocab, batch_size = d.batch, max_seq_len = t.seq,
    dropout = c.dropout, attention_dropout = c.attention_dropout,
    learning_rate = t.lr, muon_learning_rate = t.muon_lr,
    optimizer = t.optimizer, weight_decay = t.weight_decay,
    warmup = t.warmup, clip = t.clip, total_steps = d.steps,
    minutes = t.minutes }
end

local function optimizations_of(e)
  local c, t = e.shape, e.train
  local gqa = c.n_kv_heads ~= c.n_heads
  return { use_gqa = gqa, use_fp4 = c.storage == "nf4r",
    n_kv_heads = gqa and c.n_kv_heads or nil,
    gradient_checkpointing = t.recompute == "mlp" or t.recompute == "block",
    recompute = t.recompute, storage = c.storage, saved = t.saved }
end

local function model_stats(e, d, r)
  local n = r.count or {}
  return { total_parameters = n.parameters, quantized_parameters = n.quantized,
    quantization_ratio = n.parameters and n.quantized / n.parameters,
    optimal_batch_size = d.batch, optimal_seq_length = e.train.seq,
    accumulation_steps = d.accumulate,
    tokens_per_step = e.train.tokens_per_step,
    state_bytes_per_parameter = d.state_per_parameter }
end

local function training_stats(e, d, r)
  local limited = math.type(e.train.steps) ~= "integer"
  return { training_time_seconds = r.training_seconds,
    nominal_seconds = limited and e.train.minutes * 60 or nil,
    steps_completed = r.steps_completed or 0, avg_loss = r.avg_loss,
    train_accuracy = r.train_accuracy, tokens_processed = r.tokens,
    epochs = r.epochs, search_seconds = d.search_seconds,
    startup_seconds = r.startup_seconds,
    evaluation_seconds = r.eval_seconds, cut_short = r.cut_short or false,
    skipped_steps = r.skipped_steps, loss_scale = r.loss_scale }
end

local function percent(part, whole)
  return part and whole and whole > 0 and 100 * part / whole or nil
end

local function memory_stats(e, d, r, common)
  local m, c = r.memory or {}, common or {}
  local budget = m.budget or size.parse(e.memory.budget)
  return { peak_memory_gb = size.gb(m.peak),
    current_memory_gb = size.gb(m.current),
    predicted_memory_gb = size.gb(d.predicted),
    memory_at_common_batch_gb = size.gb(c.peak), common_batch_size = c.batch,
    process_peak_gb = size.gb(m.process_peak),
    process_rise_gb = size.gb(m.resident_rise),
    driver_start_gb = size.gb(m.driver_start),
    driver_warm_gb = size.gb(m.driver_warm), budget_gb = size.gb(budget),
    memory_utilization = percent(m.peak, budget),
    by_category = d.by_category, by_category_at_common_batch = c.by_category,
    plain_at_common_batch_gb = size.gb(c.plain) }
end

local function mean_of(list, key)
  local sum, n = 0, 0
  for _, x in ipairs(list or {}) do
    if x[key] then sum, n = sum + x[key], n + 1 end
  end
  return n > 0 and sum / n or nil
end

-- The accountant's memory is the same after every step: its last samples do.
local function resources(e, r, memory)
  local power = r.power or {}
  return { avg_gpu_utilization = power.compute,
    avg_memory_utilization = mean_of(r.monitoring, "memory_util"),
    peak_memory_utilization = memory.memory_utilization,
    resource_optimization_applied = e.train.batch == "auto",
    speed_of_light = r.speed_of_light, joules_per_token = r.joules_per_token,
    throttled = r.throttled, throttle_reasons = power.reasons,
    power_capped_share = power.power_capped_share, mean_watts = power.watts,
    peak_celsius = power.celsius }
end

-- The last samples, an empty list of suggestions told from an object.
local function monitoring(list)
  local out = {}
  for i, x in ipairs(list or {}) do
    out[i] = { step = x.step, memory_util = x.memory_util,
      gpu_util = x.gpu_util,
      suggestions = host.json.array(x.suggestions or {}) }
  end
  return out
end

-- MFU is of the data sheet's bf16 peak where the device has one there, else of
-- a large product's measured rate.
local function throughput(d, r)
  local s = r.training_seconds
  if not (s and s > 0) then return {} end
  local model = r.flops and r.flops.model
  local per = model and model * d.accumulate * r.steps_completed / s
  local peak = datasheet.peak(r.device, r.precision) or r.peak_flops
  return { steps_per_second = r.steps_completed * d.accumulate / s,
    tokens_per_second = r.tokens / s, step_spread = r.step_spread,
    model_flops_per_second = per,
    model_flops_utilization = per and peak and per / peak }
end

local function searched(d)
  return { candidates = d.candidates or {}, largest = d.largest,
    fastest = d.fastest, trained = d.batch, timed_steps = d.timed_steps,
    seconds_per_step = d.seconds_per_step }
end

local function environment(s, e, r)
  local env = s.sweep.environment or {}
  return { device = r.device or env.device, backend = env.backend,
    precision = r.precision or e.train.precision, build = env.build,
    seed = e.seed, tuning = r.tuning }
end

local function record(s, e)
  local known = s.experiments[e.name] or {}
  local d, r = known.decided or {}, known.result or {}
  local common = s.common and s.common.plans[e.name]
  local status = known.status or "interrupted"
  if status == "running" then status = "interrupted" end
  local memory = memory_stats(e, d, r, common)
  local used = resources(e, r, memory)
  return { schema_version = SCHEMA_VERSION, experiment_id = e.name,
    name = e.name, status = status,
    error = status ~= "ok" and (known.error or "not finished") or nil,
    config = config_of(e, d), optimizations = optimizations_of(e),
    model_stats = model_stats(e, d, r),
    training_stats = training_stats(e, d, r),
    evaluation = { val_loss = r.val_loss, best_val_loss = r.best_val_loss,
      val_accuracy = r.val_accuracy, val_perplexity = r.val_perplexity,
      val_tokens = r.val_tokens },
    memory_stats = memory, resource_utilization = used,
    resource_monitoring = monitoring(r.monitoring),
    throughput = throughput(d, r), batch_search = searched(d),
    advice = advice { memory_share = memory.memory_utilization,
      largest = e.train.batch == "auto",
      device_share = used.avg_gpu_utilization,
      speed_of_light = used.speed_of_light },
    environment = environment(s, e, r), evals = r.evals or {} }
end

local function worst_loss(list)
  local worst = {}
  for _, r in ipairs(list) do
    local loss, model = r.evaluation.val_loss, r.config.model
    if r.status == "ok" and loss then
      worst[model] = math.max(worst[model] or loss, loss)
    end
  end
  return worst
end

-- tokens_to_loss: tokens until the validation loss first reached what the
-- worst of the model's finished experiments ended with.
local function add_tokens_to_loss(list)
  local worst = worst_loss(list)
  for _, r in ipairs(list) do
    local target = worst[r.config.model]
    for _, point in ipairs(r.evals) do
      if target and point.val_loss <= target then
        r.training_stats.tokens_to_loss = point.tokens
        break
      end
    end
    r.evals = nil
  end
end

-- The results of a folded journal, in experiment order; nil and why when it
-- holds no sweep.
function results.build(s)
  if not (s.sweep and s.order) then
    return nil, "the journal holds no sweep"
  end
  local list = {}
  for i, e in ipairs(s.order) do list[i] = record(s, e) end
  add_tokens_to_loss(list)
  return list
end

-- Results of a folder's journal, and the folded journal.
function results.read(out)
  local s, message = state.read(out .. "/journal.jsonl")
  if not s then return nil, message end
  local list, why = results.build(s)
  if not list then return nil, out .. ": " .. why end
  return list, s
end

local LISTS = { candidates = true }

local function ordered(r, layout)
  local pairs_, null = {}, host.json.null
  for _, field in ipairs(layout) do
    local name = type(field) == "table" and field[1] or field
    local v = r[name]
    if type(field) == "table" then
      v = ordered(v or {}, table.move(field, 2, #field, 1, {}))
    elseif type(v) == "table" and (v[1] or LISTS[name]
      or next(v) == nil) then
      v = host.json.array(v)
    elseif v == nil then
      v = null
    end
    pairs_[#pairs_ + 1] = { name, v }
    if name == "status" and r.error then
      pairs_[#pairs_ + 1] = { "error", r.error }
    end
  end
  return host.json.ordered(pairs_)
end

-- The JSON text of a list of results.
function results.encode(list)
  local out = {}
  for i, r in ipairs(list) do out[i] = ordered(r, fields) end
  return host.json.encode(host.json.array(out), { indent = 2 }) .. "\n"
end

return results
