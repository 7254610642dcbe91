-- The Markdown report of a sweep, from its results and folded journal.
local causes = require "llm.causes"
local claims = require "llm.claims"
local columns = require "llm.columns"
local compare = require "llm.compare"
local size = require "llm.size"

local report = {}

local function number(x, format) return x and format:format(x) or "–" end

-- "209.3 MB", "17.84 GB": four digits whatever the model's size.
local function memory_text(gb)
  return gb and size.bytes(math.floor(gb * 1e9 + .5)) or "–"
end

local function head_of(results, s, out)
  local sweep, r = s.sweep or {}, results[1]
  local env = r.environment
  out:line("# %s", sweep.description and sweep.description ~= ""
    and sweep.description or sweep.name or "Sweep")
  out:line("")
  out:line("- date: %s", s.date or s.began_text or "unknown")
  out:line("- device: %s (%s), precision %s, build %s",
    env.device or "unknown", env.backend or "?", env.precision or "?",
    env.build or "?")
  out:line("- profile: %s; memory budget %s GB; %d tokens an optimizer step",
    sweep.profile or "?", number(r.memory_stats.budget_gb, "%.3g"),
    r.model_stats.tokens_per_step)
  if s.data then
    local revision = s.data.revision
    out:line("- text: %s%s, %s training tokens, %s held out, vocabulary %d",
      s.data.source, revision and " (revision " .. revision .. ")" or "",
      size.count(s.data.train.count),
      size.count(s.data.validation.count), s.data.vocab)
  end
  if sweep.notes and sweep.notes ~= "" then out:line("- %s", sweep.notes) end
  out:line("")
end

local function row_of(r)
  local c, o, m = r.config, r.optimizations, r.memory_stats
  return { r.name, ("%dd %dL %dh"):format(c.d_model, c.n_layers, c.n_heads),
    o.use_gqa and ("%d:%d"):format(c.n_heads, o.n_kv_heads) or "no",
    o.use_fp4 and "yes" or "no", size.count(r.model_stats.total_parameters),
    r.model_stats.optimal_batch_size and ("%d × %d"):format(
      r.model_stats.optimal_batch_size, r.model_stats.accumulation_steps)
      or "–",
    r.status == "ok" and number(r.evaluation.val_loss, "%.4f") or r.status,
    memory_text(m.peak_memory_gb),
    number(r.training_stats.training_time_seconds, "%.1f s"),
    number(r.throughput.tokens_per_second, "%.0f") }
end

local function throttled_lines(results, out)
  for _, r in ipairs(results) do
    local u = r.resource_utilization
    if u.throttled then
      out:line("**%s** ran with lowered clocks (%s): do not compare its speed.",
        r.name, u.throttle_reasons ~= "" and u.throttle_reasons
        or "reason unknown")
      out:line("")
    end
  end
end

-- Whether the power limit, which is no fault, set the clocks.
local function power_line(results, out)
  local runs, at_limit, watts, n = 0, 0, 0, 0
  for _, r in ipairs(results) do
    local u = r.resource_utilization
    if u.power_capped_share then
      runs = runs + 1
      if u.power_capped_share > .5 then at_limit = at_limit + 1 end
    end
    if u.mean_watts then watts, n = watts + u.mean_watts, n + 1 end
  end
  if runs == 0 then return end
  out:line("%d of %d runs were held by the device's power limit most of the "
    .. "time%s; none of that is a fault.", at_limit, runs,
    n > 0 and (" (%.0f W on average)"):format(watts / n) or "")
  out:line("")
end

local function results_table(results, out)
  local rows = {}
  for i, r in ipairs(results) do rows[i] = row_of(r) end
  out:line("## Results")
  out:line("")
  out:add(columns.markdown({ "ID", "config", "GQA", "FP4", "params",
    "batch", "val loss", "memory", "time", "tokens/s" }, rows, { 1, 2, 3, 4 }))
  out:line("")
  out:line("Batch is micro-batch × accumulation. Memory is the peak of the "
    .. "run by the accountant. Tokens/s leave out start-up, search and "
    .. "evaluation.")
  out:line("")
  power_line(results, out)
  throttled_lines(results, out)
end

local function best(results, get, lower)
  local found, value
  for _, r in ipairs(results) do
    local v = r.status == "ok" and get(r)
    if v and (not value or (lower and v < value)
      or (not lower and v > value)) then
      found, value = r, v
    end
  end
  return found, value
end

local function best_lines(results, out)
  local function line(what, show, get, lower)
    local r, v = best(results, get, lower)
    if r then
      out:line("- %s: %s, %s", what, r.name,
        type(show) == "string" and show:format(v) or show(v))
    end
  end
  out:line("## Best")
  out:line("")
  line("lowest validation loss" .. (compare.too_short(results)
    and " (runs too short to rank)" or ""), "%.4f nats",
    function(r) return r.evaluation.val_loss end, true)
  line("highest throughput", "%.0f tokens/s",
    function(r) return r.throughput.tokens_per_second end)
  line("least memory", memory_text,
    function(r) return r.memory_stats.peak_memory_gb end, true)
  out:line("")
end

local function against_baseline(models, out)
  local rows = {}
  for _, m in ipairs(models) do
    for _, v in ipairs(m.variants) do
      if v ~= m.baseline and #v.runs > 0 and #m.baseline.runs > 0 then
        local p = compare.pair(v, m.baseline)
        rows[#rows + 1] = { m.model, v.variant, size.change(p.memory),
          size.change(p.peak), size.change(p.speed) .. (p.noise
            and (" ± %.0f %%"):format(100 * p.noise) or " ± ?"),
          size.change(p.parameters), compare.sentence(p.quality, false) }
      end
    end
  end
  out:line("## Against the own baseline")
  out:line("")
  if #rows == 0 then
    out:line("No pair of a variant and its baseline finished.")
  else
    out:add(columns.markdown({ "model", "variant", "memory, common batch",
      "memory, as run", "tokens/s", "parameters", "val loss, as run" }, rows,
      { 1, 2 }))
    out:line("")
    out:line("± is how much the steps of one run differ in time.")
  end
  out:line("")
end

local function quality_lines(models, out, equal)
  for _, m in ipairs(models) do
    for _, v in ipairs(m.variants) do
      if v ~= m.baseline then
        local p = compare.pair(v, m.baseline)
        local text = not p.quality and "not finished"
          or (equal and not p.comparable and p.why)
          or compare.sentence(p.quality, true)
        out:line("- %s %s: %s", m.model, v.variant, text)
      end
    end
  end
  out:line("")
end

local function quality(results, models, out)
  out:line("## Quality at equal time")
  out:line("")
  out:line("Each run's end, whatever its number of steps.")
  if compare.too_short(results) then
    out:line("Runs this short show memory and speed; they cannot rank "
      .. "quality.")
  end
  local most = 0
  for _, r in ipairs(results) do
    most = math.max(most, r.training_stats.epochs or 0)
  end
  if most > 4 then
    out:line("**Past 4 epochs** (up to %.1f): losses also show how well a "
      .. "model repeats its text.", most)
  end
  out:line("")
  quality_lines(models, out, false)
  out:line("## Quality at equal tokens")
  out:line("")
  out:line("Runs of one schedule with the same number of steps.")
  out:line("")
  quality_lines(models, out, true)
end

local function claim_table(results, models, out)
  local rows = claims.rows(models, not compare.too_short(results))
  if #rows == 0 then return end
  out:line("## The original's claims")
  out:line("")
  out:add(columns.markdown({ "technique", "what", "claimed", "measured",
    "verdict", "why" }, rows, { 1, 2, 3, 4, 5, 6 }))
  out:line("")
end

-- Who counted a run's memory besides the accountant, and what it counted.
local COUNTED = {
  cpu = "The process's own resident rise",
  cuda = "The fall of the device's free memory",
}

local function beyond_line(results, out)
  local least, most = math.huge, 0
  for _, r in ipairs(results) do
    local b = r.memory_stats.driver_warm_gb
    if b then least, most = math.min(least, b), math.max(most, b) end
  end
  if most > 0 then
    out:line("Beyond that the driver held %.2f to %.2f GB for context, "
      .. "libraries and recorded graphs.", least, most)
  end
end

local function checks(results, out)
  out:line("## Memory: predicted and measured")
  out:line("")
  local rows, within = {}, 0
  for _, r in ipairs(results) do
    local m = r.memory_stats
    if r.status == "ok" and m.peak_memory_gb and m.predicted_memory_gb then
      local bound = .02 * m.predicted_memory_gb + .067108864
      if m.process_rise_gb
        and math.abs(m.process_rise_gb - m.predicted_memory_gb) <= bound then
        within = within + 1
      end
      rows[#rows + 1] = { r.name, ("%.6f"):format(m.predicted_memory_gb),
        ("%.6f"):format(m.peak_memory_gb), ("%.0f"):format(1e9
          * (m.peak_memory_gb - m.predicted_memory_gb)),
        number(m.process_rise_gb, "%.3f"),
        number(r.model_stats.state_bytes_per_parameter, "%.2f") }
    end
  end
  out:add(columns.markdown({ "run", "plan, GB", "accountant, GB",
    "difference, bytes", "seen from outside, GB",
    "state, bytes/quantized weight" }, rows))
  out:line("")
  out:line("%s is within 2 %% + 64 MiB of the plan in %d of %d runs.",
    COUNTED[results[1].environment.backend] or COUNTED.cpu, within, #rows)
  beyond_line(results, out)
  out:line("")
end

local function failures(results, out)
  local rows = {}
  for _, r in ipairs(results) do
    if r.status ~= "ok" then
      rows[#rows + 1] = { r.name, r.status, r.error or "" }
    end
  end
  out:line("## Failures")
  out:line("")
  if #rows == 0 then out:line("None: %d of %d ok.", #results, #results)
  else out:add(columns.markdown({ "run", "status", "reason" }, rows,
    { 1, 2, 3 })) end
  out:line("")
end

local function advice(results, out)
  local lines = {}
  for _, r in ipairs(results) do
    for _, text in ipairs(r.advice or {}) do
      lines[#lines + 1] = ("- %s: %s"):format(r.name, text)
    end
  end
  if #lines == 0 then return end
  out:line("## Advice")
  out:line("")
  for _, line in ipairs(lines) do out:line("%s", line) end
  out:line("")
end

local function plots(names, out)
  if not names or #names == 0 then return end
  out:line("## Plots")
  out:line("")
  for _, name in ipairs(names) do out:line("![%s](%s)", name, name) end
  out:line("")
end

local function writer()
  local parts = {}
  return { add = function(_, text) parts[#parts + 1] = text end,
    line = function(_, format, ...)
      parts[#parts + 1] = (select("#", ...) > 0 and format:format(...)
        or format) .. "\n"
    end,
    text = function() return table.concat(parts) end }
end

-- The report's text. s = folded journal; images = names of PNG files.
function report.text(results, s, images)
  local out, models = writer(), compare.models(results)
  head_of(results, s, out)
  results_table(results, out)
  best_lines(results, out)
  against_baseline(models, out)
  quality(results, models, out)
  causes(models, out)
  claim_table(results, models, out)
  checks(results, out)
  failures(results, out)
  advice(results, out)
  plots(images, out)
  return out:text()
end

return report
