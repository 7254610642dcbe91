-- What the results say: figures of every model and variant, which of them are
-- ties, changes paired by model, and findings with the numbers they rest on.
local claims = require "llm.claims"
local compare = require "llm.compare"
local size = require "llm.size"

local insights = {}

local function figure(f)
  return f and { mean = f.mean, spread = f.spread, count = f.count } or nil
end

local function flat(models)
  local list = {}
  for _, m in ipairs(models) do
    for _, v in ipairs(m.variants) do
      if #v.runs > 0 then list[#list + 1] = v end
    end
  end
  return list
end

-- Whether two variants' speeds differ by less than the steps of a run do; nil
-- when that is not known.
local function speed_tie(p)
  if not (p.speed and p.noise) then return nil end
  return math.abs(p.speed) <= p.noise
end

-- Positions in `list` of what is no different from v, by measure.
local function ties(v, list)
  local out = { loss = {}, speed = {}, memory = {} }
  for i, other in ipairs(list) do
    if other ~= v then
      local p = compare.pair(v, other)
      if p.quality and p.quality.tie then table.insert(out.loss, i) end
      if speed_tie(p) then table.insert(out.speed, i) end
      if p.peak == 0 then table.insert(out.memory, i) end
    end
  end
  return out
end

-- One entry a model and variant that has a finished run: its figures over
-- seeds, and the positions (from 1) of the entries it ties with.
function insights.cells(models)
  local list, out = flat(models), {}
  for i, v in ipairs(list) do
    local f = v.figures
    out[i] = { model = v.model, variant = v.variant, runs = #v.runs,
      loss = figure(f.loss), speed = figure(f.speed), memory = figure(f.peak),
      common = figure(f.memory), parameters = figure(f.parameters),
      ties = ties(v, list) }
  end
  return out
end

-- Each variant against its own model's baseline.
function insights.pairs(models)
  local out = {}
  for _, m in ipairs(models) do
    for _, v in ipairs(m.variants) do
      if v ~= m.baseline and #v.runs > 0 and #m.baseline.runs > 0 then
        local p = compare.pair(v, m.baseline)
        local q = p.quality or {}
        out[#out + 1] = { model = m.model, variant = v.variant,
          against = m.baseline.variant,
          memory = p.memory, peak = p.peak, speed = p.speed, noise = p.noise,
          speed_tie = speed_tie(p), perplexity = q.perplexity,
          delta = q.delta, seeds = q.seeds, spread = q.spread, tie = q.tie,
          comparable = p.comparable, why = p.why,
          sentence = compare.sentence(p.quality, true) }
      end
    end
  end
  return out
end

-- Whether losses may be ranked at all, and if not, why.
function insights.quality(list)
  local most, seeds = 0, {}
  for _, r in ipairs(list) do
    if r.status == "ok" then
      most = math.max(most, r.training_stats.epochs or 0)
      seeds[r.environment.seed or 0] = true
    end
  end
  local count = 0
  for _ in pairs(seeds) do count = count + 1 end
  local why
  if compare.too_short(list) then
    why = "these runs are too short to rank quality"
  elseif count < 2 then
    why = "one seed: the seed-to-seed spread is not known, so no difference "
      .. "in loss can be told from chance"
  elseif most > 4 then
    why = ("up to %.1f passes over the text: losses also show how well a "
      .. "model repeats it"):format(most)
  end
  return { ranked = why == nil, why = why, seeds = count, epochs = most }
end

-- --- findings --------------------------------------------------------------

local function add(out, kind, text, rests, about)
  out[#out + 1] = { kind = kind, text = text, rests = rests,
    model = about and about.model, variant = about and about.variant }
end

local function of_claims(models, ranked, out)
  for _, row in ipairs(claims.rows(models, ranked)) do
    local kind = row[5]:find "^holds" and "good"
      or row[5] == "does not hold" and "bad" or "open"
    add(out, kind, ("%s, %s: claimed %s, measured %s \u{2013} %s."):format(
      row[1], row[2], row[3], row[4], row[5]), row[6] .. ".")
  end
end

local function of_memory(models, out)
  for _, m in ipairs(models) do
    local a = compare.find(m, "gqafp4")
    local all = a and compare.causes(a, m.baseline)
    local gqa = compare.find(m, "gqa")
    local part = gqa and compare.causes(gqa, m.baseline)
    if all and part then
      add(out, "info", ("%s: of the %.1f MB that both techniques save, GQA "
        .. "alone gives %.1f MB and 4-bit storage the other %.1f MB."):format(
        m.model, all.total / 1e6, part.total / 1e6,
        (all.total - part.total) / 1e6), ("Exact plans at micro-batch %d: "
        .. "weights %.1f, gradients %.1f, optimizer %.1f, activations %.1f, "
        .. "scratch %.1f MB saved."):format(
        a.all[1].memory_stats.common_batch_size or 0, all.parameters / 1e6,
        all.gradients / 1e6, all.optimizer / 1e6, all.activations / 1e6,
        all.scratch / 1e6), { model = m.model })
    end
  end
end

-- Where nothing can be ranked one finding a model says so.
local function unranked(models, quality, out)
  for _, m in ipairs(models) do
    local rests = {}
    for _, v in ipairs(m.variants) do
      local p = v ~= m.baseline and #v.runs > 0 and #m.baseline.runs > 0
        and compare.pair(v, m.baseline)
      if p and p.quality then
        rests[#rests + 1] = ("%s %s (%s)"):format(v.variant,
          compare.sentence(p.quality, false), p.comparable and "equal tokens"
            or "equal time; " .. p.why)
      end
    end
    if #rests > 0 then
      add(out, "open", m.model .. ": no quality can be told from the "
        .. "baseline's: " .. quality.why .. ".", table.concat(rests, "; ")
        .. ".", { model = m.model })
    end
  end
end

local function of_quality(models, out)
  for _, m in ipairs(models) do
    for _, v in ipairs(m.variants) do
      local p = v ~= m.baseline and #v.runs > 0 and #m.baseline.runs > 0
        and compare.pair(v, m.baseline)
      local q = p and p.quality
      if q then
        local rests = ("Equal time: %s. Equal tokens: %s."):format(
          compare.sentence(q, false), p.comparable
            and compare.sentence(q, true) or p.why)
        local word
        if p.comparable and q.tie == false then
          word = q.delta < 0 and "better than the baseline's"
            or "worse than the baseline's"
        elseif p.comparable and q.tie then
          word = "a tie with the baseline's"
        end
        add(out, word and "info" or "open", ("%s %s: its quality %s."):format(
          m.model, v.variant, word and "is " .. word
            or "cannot be told from the baseline's"), rests, v)
      end
    end
  end
end

local function of_predictions(list, out)
  local n, worst = 0, 0
  for _, r in ipairs(list) do
    local m = r.memory_stats
    if r.status == "ok" and m.peak_memory_gb and m.predicted_memory_gb then
      n = n + 1
      worst = math.max(worst,
        math.abs(m.peak_memory_gb - m.predicted_memory_gb))
    end
  end
  if n > 0 then
    add(out, worst == 0 and "good" or "info", ("The memory plan was met by "
      .. "all %d runs to within %s."):format(n, size.bytes(1e9 * worst)),
      "Predicted before anything was allocated, against the accountant's "
      .. "peak; \u{201C}predicted_memory_gb\u{201D} and "
      .. "\u{201C}peak_memory_gb\u{201D} of the results.")
  end
end

local function of_failures(list, out)
  for _, r in ipairs(list) do
    if r.status ~= "ok" and r.error and r.error ~= "not finished" then
      add(out, "bad", ("%s ended as \u{201C}%s\u{201D}."):format(r.name,
        r.status), r.error, { model = r.config.model,
        variant = r.config.variant })
    end
  end
end

-- Findings { kind = good | bad | open | info, text, rests, model?, variant? }.
function insights.findings(list, models, quality)
  local out = {}
  of_failures(list, out)
  of_claims(models, quality.ranked, out)
  of_memory(models, out)
  if quality.ranked then of_quality(models, out)
  else unranked(models, quality, out) end
  of_predictions(list, out)
  return out
end

-- Advice, with the runs it is for and the figure each of them rests on.
function insights.advice(list)
  local out, by_text = {}, {}
  for _, r in ipairs(list) do
    for _, text in ipairs(r.advice or {}) do
      local rests, what = text:match "^(.-): (.*)$"
      what = what or text
      local entry = by_text[what]
      if not entry then
        entry = { text = what, runs = {} }
        by_text[what], out[#out + 1] = entry, entry
      end
      entry.runs[#entry.runs + 1] = { name = r.name, rests = rests,
        model = r.config.model, variant = r.config.variant }
    end
  end
  return out
end

return insights
