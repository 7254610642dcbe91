-- The original's claimed ranges beside what was measured, with a verdict and
-- the reason, computed from the same figures.
local compare = require "llm.compare"
local size = require "llm.size"

local claims = {}

-- Ratios minus one; quality is the change of perplexity.
local CLAIMED = {
  { technique = "fp4", name = "FP4", memory = { -.75, -.60 },
    speed = { .10, .20 }, quality = { .02, .05 } },
  { technique = "gqa", name = "GQA", memory = { -.40, -.25 },
    speed = { .15, .25 }, quality = { .01, .03 } },
  { technique = "gqafp4", name = "GQA + FP4", memory = { -.80, -.70 },
    speed = { .20, .35 }, quality = { .03, .07 } },
}
claims.CLAIMED = CLAIMED

local function mean(list)
  local sum = 0
  for _, v in ipairs(list) do sum = sum + v end
  return #list > 0 and sum / #list or nil
end

-- Means over the models of what a technique changed.
local function measured(models, word)
  local memory, speed, ppl = {}, {}, {}
  local out = { parameters = {}, state = {}, activations = {}, share = {} }
  for _, m in ipairs(models) do
    local v = compare.find(m, word)
    if v and v ~= m.baseline then
      local p = compare.pair(v, m.baseline)
      memory[#memory + 1], speed[#speed + 1] = p.memory, p.speed
      out.parameters[#out.parameters + 1] = p.parameters
      out.noise = p.noise and math.max(out.noise or 0, p.noise)
        or math.huge
      claims.collect(out, v, m.baseline)
      if p.quality then -- a pair that has not finished says nothing
        ppl[#ppl + 1] = p.quality.perplexity
        out.comparable = out.comparable ~= false and p.comparable
        out.seeds = math.min(out.seeds or math.huge, p.quality.seeds)
      end
      out.epochs = claims.most_epochs(v, m.baseline, out.epochs)
    end
  end
  out.memory, out.speed, out.quality = mean(memory), mean(speed), mean(ppl)
  for _, key in ipairs { "parameters", "state", "activations", "share" } do
    out[key] = mean(out[key])
  end
  return out
end

local function state_bytes(c)
  return (c.parameters or 0) + (c.gradients or 0) + (c.optimizer or 0)
end

function claims.collect(out, v, base)
  local a, b = compare.categories(v), compare.categories(base)
  if not (a and b) then return end
  local total = 0
  for _, c in ipairs(compare.CATEGORIES) do total = total + (b[c] or 0) end
  table.insert(out.state, state_bytes(a) / state_bytes(b) - 1)
  table.insert(out.share, state_bytes(b) / total)
  if (b.activations or 0) > 0 then
    table.insert(out.activations, a.activations / b.activations - 1)
  end
end

function claims.most_epochs(v, base, most)
  for _, list in ipairs { v.runs, base.runs } do
    for _, r in ipairs(list) do
      most = math.max(most or 0, r.training_stats.epochs or 0)
    end
  end
  return most
end

local function percent(x)
  return x and size.change(x) or "not known"
end

local function why_memory(m, word)
  if not m.share then return "no plan at a common batch" end
  local text = ("weights, gradients and optimizer are %.0f %% of the "
    .. "baseline's peak and change by %s; activations change by %s"):format(
    100 * m.share, percent(m.state), percent(m.activations))
  if word == "gqa" then
    text = text .. "; fewer key/value heads take only "
      .. percent(m.parameters) .. " of the parameters"
  end
  return text
end

local function why_speed(m, word)
  if word == "gqa" then
    return "parameters, and so the arithmetic, change by "
      .. percent(m.parameters)
  end
  local text = "4-bit weights save no arithmetic: they are expanded before "
    .. "each product"
  if word == "gqafp4" then
    text = text .. "; GQA changes the parameters by " .. percent(m.parameters)
  end
  return text
end

local function verdict(kind, range, got)
  if not got then return "not measured" end
  local holds
  if kind == "speed" then holds = got >= range[1]
  else holds = got <= range[2] end
  if not holds then return "does not hold" end
  local better = kind == "speed" and got > range[2]
    or kind ~= "speed" and got < range[1]
  return better and "holds (better)" or "holds"
end

local function judged_quality(m)
  if not m.quality then return "not measured", "no pair finished" end
  if not m.comparable then
    return "not judged", "schedules differ between the variants"
  elseif m.epochs and m.epochs > 4 then
    return "not judged", ("%.1f epochs over the corpus"):format(m.epochs)
  elseif (m.seeds or 0) < 2 then
    return "not judged", "one seed: the seed-to-seed spread is not known"
  end
  return nil
end

-- A speed inside the noise of its own measurement is not judged.
local function judged_speed(m)
  if not m.speed then return "not measured", "no pair finished" end
  if (m.noise or math.huge) == math.huge then
    return "not judged", "fewer than 3 steps in a run"
  elseif m.noise >= math.abs(m.speed) then
    return "not judged", ("steps of one run differ by %.0f %%"):format(
      100 * m.noise)
  end
  return nil
end

local function range_text(range)
  return ("%+.0f … %+.0f %%"):format(100 * range[1], 100 * range[2])
end

local LABEL = { memory = "memory", speed = "speed", quality = "perplexity" }

local function judge(claim, kind, m, quality_counts)
  local word = verdict(kind, claim[kind], m[kind])
  if kind == "memory" then return word, why_memory(m, claim.technique) end
  if kind == "speed" then
    local unjudged, reason = judged_speed(m)
    return unjudged or word, reason or why_speed(m, claim.technique)
  end
  local unjudged, reason = judged_quality(m)
  if quality_counts == false and not unjudged then
    unjudged, reason = "not judged", "runs too short to rank quality"
  end
  return unjudged or word, reason or "mean over models, equal tokens"
end

-- Rows { technique, what, claimed, measured, verdict, why }, and the same as
-- numbers in technique, kind, range, value, for the techniques that were run.
-- quality_counts = false: the runs were too short.
function claims.rows(models, quality_counts)
  local rows = {}
  for _, claim in ipairs(CLAIMED) do
    local m = measured(models, claim.technique)
    for _, kind in ipairs { "memory", "speed", "quality" } do
      if m.memory or m.speed then
        local word, why = judge(claim, kind, m, quality_counts)
        rows[#rows + 1] = { claim.name, LABEL[kind], range_text(claim[kind]),
          percent(m[kind]), word, why, kind = kind, range = claim[kind],
          value = m[kind], technique = claim.technique }
      end
    end
  end
  return rows
end

return claims
