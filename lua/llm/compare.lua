-- Comparisons of results: variants of a model against its own baseline, over
-- seeds. Works on the plain records of results.lua.
local compare = {}

local GETTERS = {
  memory = function(r) return r.memory_stats.memory_at_common_batch_gb end,
  peak = function(r) return r.memory_stats.peak_memory_gb end,
  speed = function(r) return r.throughput.tokens_per_second end,
  loss = function(r) return r.evaluation.val_loss end,
  parameters = function(r) return r.model_stats.total_parameters end,
}

local STEPS_TO_RANK = 200

-- Whether any finished run has too few steps for its loss to rank anything.
function compare.too_short(results)
  for _, r in ipairs(results) do
    if r.status == "ok"
      and r.training_stats.steps_completed < STEPS_TO_RANK then
      return true
    end
  end
  return false
end

local function statistics(runs, get)
  local sum, n, least, most = 0, 0, math.huge, -math.huge
  for _, r in ipairs(runs) do
    local v = get(r)
    if v then
      sum, n = sum + v, n + 1
      least, most = math.min(least, v), math.max(most, v)
    end
  end
  if n == 0 then return nil end
  return { mean = sum / n, spread = most - least, count = n }
end

-- { memory, peak, speed, loss, parameters = { mean, spread, count } or nil }.
local function summarize(runs)
  local out = {}
  for key, get in pairs(GETTERS) do out[key] = statistics(runs, get) end
  return out
end

-- Models in order, each { model, variants = { { variant, runs (ok ones), all,
-- figures } … }, baseline = the first of them, or the one of that name }.
function compare.models(results)
  local models, by_model = {}, {}
  for _, r in ipairs(results) do
    local name, variant = r.config.model, r.config.variant
    local m = by_model[name]
    if not m then
      m = { model = name, variants = {}, by_variant = {} }
      by_model[name], models[#models + 1] = m, m
    end
    local v = m.by_variant[variant]
    if not v then
      v = { model = name, variant = variant, runs = {}, all = {},
        optimizations = r.optimizations }
      m.by_variant[variant], m.variants[#m.variants + 1] = v, v
    end
    v.all[#v.all + 1] = r
    if r.status == "ok" then v.runs[#v.runs + 1] = r end
  end
  for _, m in ipairs(models) do
    m.baseline = m.by_variant.baseline or m.variants[1]
    for _, v in ipairs(m.variants) do v.figures = summarize(v.runs) end
  end
  return models
end

local function ratio(a, b)
  return a and b and b.mean ~= 0 and a.mean / b.mean - 1 or nil
end

-- What a run's schedule is, in words: runs whose words are the same, and not
-- "cut short", trained one schedule.
function compare.schedule(r)
  return ("%s steps of %s%s"):format(r.config.total_steps,
    r.model_stats.tokens_per_step,
    r.training_stats.cut_short and ", cut short" or "")
end

local function schedules(v)
  local seen, list = {}, {}
  for _, r in ipairs(v.runs) do
    local word = compare.schedule(r)
    if not seen[word] then seen[word], list[#list + 1] = true, word end
  end
  return list
end

-- Whether two variants ran one schedule; if not, why they are not comparable.
function compare.same_schedule(a, b)
  local x, y = schedules(a), schedules(b)
  if #x == 0 or #y == 0 then return false, "not finished" end
  if #x == 1 and #y == 1 and x[1] == y[1]
    and not x[1]:find("cut short", 1, true) then
    return true
  end
  return false, "not comparable: schedules differ (" .. table.concat(x, " / ")
    .. " against " .. table.concat(y, " / ") .. ")"
end

local function quality(a, b)
  local x, y = a.figures.loss, b.figures.loss
  if not (x and y) then return nil end
  local q = { delta = x.mean - y.mean,
    perplexity = math.exp(x.mean - y.mean) - 1,
    seeds = math.min(x.count, y.count) }
  if q.seeds >= 2 then
    q.spread = math.max(x.spread, y.spread)
    q.tie = math.abs(q.delta) <= q.spread
  end
  return q
end

-- The largest step-to-step spread of the runs of both; nil when any is unknown.
local function noise(a, b)
  local most = 0
  for _, list in ipairs { a.runs, b.runs } do
    for _, r in ipairs(list) do
      if not r.throughput.step_spread then return nil end
      most = math.max(most, r.throughput.step_spread)
    end
  end
  return most
end

-- Student's t that 97.5 % stay below, by degrees of freedom; the last for more.
local T = { 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262,
  2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086 }

-- Of a list of numbers: { mean, count } and, from two on, deviation (of the
-- sample) and low and high, the mean's 95 % interval; nil for none.
function compare.interval(list)
  local n, sum, square = #list, 0, 0
  if n == 0 then return nil end
  for _, v in ipairs(list) do sum = sum + v end
  local out = { mean = sum / n, count = n }
  if n == 1 then return out end
  for _, v in ipairs(list) do square = square + (v - out.mean) ^ 2 end
  out.deviation = math.sqrt(square / (n - 1))
  local half = T[math.min(n - 1, #T)] * out.deviation / math.sqrt(n)
  out.low, out.high = out.mean - half, out.mean + half
  return out
end

-- The interval of the differences in validation loss, a - b, of runs with the
-- same seed; nil when none is in both. Its `of` = { seed = difference }.
function compare.paired(a, b)
  local losses, list, of = {}, {}, {}
  for _, r in ipairs(b.runs) do
    losses[r.environment.seed] = r.evaluation.val_loss
  end
  for _, r in ipairs(a.runs) do
    local seed, loss = r.environment.seed, r.evaluation.val_loss
    if loss and losses[seed] then
      of[seed] = loss - losses[seed]
      list[#list + 1] = of[seed]
    end
  end
  local out = compare.interval(list)
  if out then out.of = of end
  return out
end

-- One variant against another: ratios minus one (memory at the common batch,
-- peak, speed, parameters), noise of the speed, quality { delta, perplexity,
-- seeds, spread, tie }, comparable (one schedule) and why not.
function compare.pair(a, b)
  local f, g = a.figures, b.figures
  local out = { variant = a.variant, memory = ratio(f.memory, g.memory),
    peak = ratio(f.peak, g.peak), speed = ratio(f.speed, g.speed),
    parameters = ratio(f.parameters, g.parameters), noise = noise(a, b),
    quality = quality(a, b) }
  out.comparable, out.why = compare.same_schedule(a, b)
  return out
end

-- The sentence about a quality difference.
function compare.sentence(q, allow)
  if not q then return "no figure" end
  local text = ("%+.4f nats, perplexity %+.1f %%"):format(q.delta,
    100 * q.perplexity)
  if not allow then return text end
  if q.seeds < 2 then
    return text .. " (one seed: the seed-to-seed spread is not known)"
  elseif q.tie then
    return text .. (" (a tie: inside the seed-to-seed spread of %.4f)")
      :format(q.spread)
  end
  return text .. (" (beyond the seed-to-seed spread of %.4f)"):format(q.spread)
end

local CATEGORIES = { "parameters", "gradients", "optimizer", "activations",
  "scratch", "data" }
compare.CATEGORIES = CATEGORIES

-- Bytes by category at the common batch of a variant's first run, or nil.
function compare.categories(v)
  local r = v.all[1]
  return r and r.memory_stats.by_category_at_common_batch
end

-- Where a saving comes from: { category = bytes saved, total = … }, or nil.
function compare.causes(v, base)
  local a, b = compare.categories(v), compare.categories(base)
  if not (a and b) then return nil end
  local out, total = {}, 0
  for _, c in ipairs(CATEGORIES) do
    out[c] = (b[c] or 0) - (a[c] or 0)
    total = total + out[c]
  end
  out.total = total
  return out
end

local function technique(v)
  local o = v.optimizations
  return (o.use_gqa and "gqa" or "") .. (o.use_fp4 and "fp4" or "")
end

-- "gqa", "fp4", "gqafp4" or "".
compare.technique = technique

-- The variant of a model that uses exactly that technique and nothing else.
function compare.find(m, word)
  for _, v in ipairs(m.variants) do
    if technique(v) == word then return v end
  end
end

return compare
