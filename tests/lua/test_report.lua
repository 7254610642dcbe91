-- Results, comparisons, claims and the report's statements, from journals with
-- known figures.
local check = require "check"
local claims = require "llm.claims"
local compare = require "llm.compare"
local config = require "llm.config"
local host = require "host"
local matrix = require "llm.matrix"
local report = require "llm.report"
local results = require "llm.results"

-- Figures of one finished run, changed by `more`.
local function outcome(more)
  local r = { status = "ok",
    count = { parameters = 1000000, quantized = 800000 },
    steps_completed = 50, training_seconds = 20, eval_seconds = 2,
    skipped_steps = 2, loss_scale = 16384,
    startup_seconds = .3, step_spread = .02, first_loss = 8, avg_loss = 5,
    train_accuracy = .2,
    tokens = 50 * 8192, epochs = 1.5, val_loss = 5.1, best_val_loss = 5.05,
    val_accuracy = .19, val_perplexity = math.exp(5.1), val_tokens = 8192,
    evals = { { step = 25, tokens = 204800, val_loss = 5.3 },
      { step = 50, tokens = 409600, val_loss = 5.1 } },
    memory = { peak = 800000000, current = 700000000, predicted = 800000000,
      budget = 1000000000, process_peak = 900000000,
      resident_rise = 820000000 },
    monitoring = { { step = 50, memory_util = 80, suggestions = {} } } }
  for k, v in pairs(more or {}) do r[k] = v end
  return r
end

local function decided(more)
  local d = { batch = 32, accumulate = 1, steps = 50, largest = 40,
    fastest = 8, predicted = 800000000, state_per_parameter = 2.58,
    search_seconds = 3, timed_steps = 10, seconds_per_step = .4,
    candidates = { { batch = 32, tokens_per_second = 20480,
      verdict = "trains" } },
    by_category = { parameters = 1, gradients = 2, optimizer = 3,
      activations = 4, scratch = 5, data = 6 } }
  for k, v in pairs(more or {}) do d[k] = v end
  return d
end

local function plan_of(state_mb, activations_mb)
  local by = { parameters = state_mb * 500000, gradients = state_mb * 250000,
    optimizer = state_mb * 250000, activations = activations_mb * 1000000,
    scratch = 0, data = 0 }
  return { batch = 8, accumulate = 4, by_category = by,
    peak = (state_mb + activations_mb) * 1000000 }
end

-- The folded journal of one model, four variants, one run a seed.
local function journal(change, words)
  local all = config.resolve({ profile = "full", models = {
    { name = "m", d_model = 64, n_layers = 2, n_heads = 4, d_ff = 128 } } },
    words or {}, "cpu")
  local s = { order = matrix.expand(all), experiments = {}, damaged = 0,
    sweep = { name = "t", profile = "full", environment = {
      device = "a machine", backend = "cpu", build = "b1" } },
    common = { plans = {} } }
  local plans = { baseline = plan_of(40, 60), gqa = plan_of(38, 58),
    fp4 = plan_of(10, 60), gqa_fp4 = plan_of(9, 58) }
  for _, e in ipairs(s.order) do
    s.experiments[e.name] = { status = "ok", decided = decided(),
      result = outcome() }
    s.common.plans[e.name] = plans[e.variant]
    change(e, s.experiments[e.name])
  end
  return s
end

local function keep() end

-- Every field of the interface, in its words.
local FIELDS = {
  config = "d_model n_heads n_layers d_ff batch_size max_seq_len",
  optimizations = "use_gqa use_fp4 n_kv_heads gradient_checkpointing "
    .. "recompute storage saved",
  model_stats = "total_parameters quantized_parameters quantization_ratio "
    .. "optimal_batch_size optimal_seq_length accumulation_steps "
    .. "tokens_per_step state_bytes_per_parameter",
  training_stats = "training_time_seconds nominal_seconds steps_completed "
    .. "avg_loss train_accuracy tokens_processed epochs tokens_to_loss "
    .. "search_seconds startup_seconds skipped_steps loss_scale",
  evaluation = "val_loss best_val_loss val_accuracy val_perplexity "
    .. "val_tokens",
  memory_stats = "peak_memory_gb current_memory_gb predicted_memory_gb "
    .. "memory_at_common_batch_gb process_peak_gb budget_gb "
    .. "memory_utilization by_category",
  resource_utilization = "avg_gpu_utilization avg_memory_utilization "
    .. "peak_memory_utilization resource_optimization_applied speed_of_light "
    .. "joules_per_token throttled",
  throughput = "steps_per_second tokens_per_second model_flops_utilization",
  batch_search = "candidates largest fastest trained",
  environment = "device backend precision build seed tuning",
}

check.case("results carry every field of the interface", function()
  local text = results.encode(results.build(journal(keep)))
  local list = assert(host.json.decode(text))
  check.equal(#list, 4)
  for _, r in ipairs(list) do
    for _, name in ipairs { "schema_version", "experiment_id", "name",
      "status", "resource_monitoring", "advice" } do
      check.truthy(r[name] ~= nil, name)
    end
    check.equal(r.error, nil)
    for group, words in pairs(FIELDS) do
      for word in words:gmatch "%S+" do
        check.truthy(type(r[group]) == "table" and r[group][word] ~= nil,
          group .. "." .. word)
      end
    end
  end
  check.equal(list[1].name, "m_baseline")
  check.equal(list[1].optimizations.n_kv_heads, host.json.null)
  check.equal(list[2].optimizations.n_kv_heads, 1)
  check.equal(list[1].memory_stats.peak_memory_gb, .8)
  check.equal(list[1].throughput.tokens_per_second, 20480)
  check.equal(list[1].resource_utilization.throttled, host.json.null)
end)

check.case("a GPU's utilization is the run's mean, not its last steps'",
  function()
    local r = results.build(journal(function(_, k)
      k.result = outcome { power = { compute = 60.5, watts = 500 },
        monitoring = { { step = 50, gpu_util = 100, memory_util = 80 } } }
    end))[1].resource_utilization
    check.equal(r.avg_gpu_utilization, 60.5)
    check.equal(r.avg_memory_utilization, 80.0)
    check.equal(r.mean_watts, 500)
  end)

check.case("units: micro-steps a second, GB = 10^9, per cent", function()
  local r = results.build(journal(function(_, k)
    k.decided = decided { batch = 8, accumulate = 4 }
  end))[1]
  check.equal(r.throughput.steps_per_second, 10)
  check.equal(r.memory_stats.memory_utilization, 80)
  check.equal(r.model_stats.quantization_ratio, .8)
  check.equal(r.training_stats.nominal_seconds, 1800)
end)

check.case("error is there if and only if the status is not ok", function()
  local list = results.build(journal(function(e, k)
    if e.variant == "fp4" then
      k.status, k.error, k.result, k.decided = "oom", "too big", nil, nil
    elseif e.variant == "gqa" then
      k.status = "running"
    end
  end))
  check.equal(list[1].error, nil)
  check.equal(list[2].status, "interrupted")
  check.equal(list[2].error, "not finished")
  check.equal(list[3].status, "oom")
  check.equal(list[3].error, "too big")
  check.truthy(results.encode(list):find('"error": "too big"', 1, true))
end)

check.case("tokens to loss: first reach of the model's worst end", function()
  local list = results.build(journal(function(e, k)
    if e.variant == "gqa" then k.result = outcome { val_loss = 5.35 } end
  end))
  check.equal(list[1].training_stats.tokens_to_loss, 204800)
  list = results.build(journal(keep)) -- the worst end itself is reached
  check.equal(list[1].training_stats.tokens_to_loss, 409600)
end)

check.case("memory is compared at the common batch", function()
  local m = compare.models(results.build(journal(keep)))[1]
  local p = compare.pair(m.by_variant.fp4, m.baseline)
  check.near(p.memory, -.30, 1e-9)
  check.near(p.peak, 0, 1e-9)
  local causes = compare.causes(m.by_variant.gqa_fp4, m.baseline)
  check.near(causes.total, 33e6, 1)
  check.near(causes.activations, 2e6, 1)
  check.near(causes.parameters, 15.5e6, 1)
end)

check.case("equal tokens needs one schedule", function()
  local m = compare.models(results.build(journal(function(e, k)
    if e.variant == "gqa" then
      k.decided = decided { steps = 60 }
    elseif e.variant == "fp4" then
      k.result = outcome { cut_short = true }
    end
  end)))[1]
  local ok, why = compare.same_schedule(m.by_variant.gqa, m.baseline)
  check.equal(ok, false)
  check.equal(why, "not comparable: schedules differ (60 steps of 98304 "
    .. "against 50 steps of 98304)")
  check.equal((compare.same_schedule(m.by_variant.fp4, m.baseline)), false)
  check.equal((compare.same_schedule(m.by_variant.gqa_fp4, m.baseline)), true)
end)

local function by_seed(losses)
  return function(e, k)
    local list = losses[e.variant]
    if list then k.result = outcome { val_loss = list[e.seed] } end
  end
end

check.case("a difference inside the seeds' spread is a tie", function()
  local s = journal(by_seed { baseline = { 5.0, 5.1, 5.06 },
    gqa = { 5.02, 5.11, 5.08 }, fp4 = { 5.3, 5.33, 5.29 } },
    { "train.seeds=1,2,3" })
  local m = compare.models(results.build(s))[1]
  local p = compare.pair(m.by_variant.gqa, m.baseline).quality
  check.truthy(p.tie)
  check.truthy(compare.sentence(p, true):find(
    "(a tie: inside the seed-to-seed spread of 0.1000)", 1, true))
  p = compare.pair(m.by_variant.fp4, m.baseline).quality
  check.equal(p.tie, false)
  check.truthy(compare.sentence(p, true):find("beyond the seed-to-seed", 1,
    true))
end)

check.case("differences are paired by seed, with a 95 % interval", function()
  local s = journal(by_seed { baseline = { 5, 5.1, 5.06 },
    fp4 = { 5.03, 5.12, 5.1 } }, { "train.seeds=1,2,3" })
  local m = compare.models(results.build(s))[1]
  local p = compare.paired(m.by_variant.fp4, m.baseline)
  check.equal(p.count, 3)
  check.near(p.of[2], .02, 1e-12)
  check.near(p.mean, .03, 1e-12)
  check.near(p.deviation, .01, 1e-12)
  check.near(p.low, .03 - 4.303 * .01 / 1.7320508, 1e-9) -- t of 2 degrees
  check.near(p.high, .054843, 1e-6)
  table.remove(m.baseline.runs, 1) -- seed 1 has no partner then
  p = compare.paired(m.by_variant.fp4, m.baseline)
  check.equal(p.count, 2)
  check.near(p.high, .03 + 12.706 * .01, 1e-9) -- deviation .02/sqrt 2
  m.baseline.runs = {}
  check.equal(compare.paired(m.by_variant.fp4, m.baseline), nil)
  check.equal(compare.interval({ 7 }).low, nil)
end)

check.case("one seed ranks nothing", function()
  local m = compare.models(results.build(journal(keep)))[1]
  local text = compare.sentence(compare.pair(m.by_variant.fp4,
    m.baseline).quality, true)
  check.truthy(text:find("one seed: the seed-to-seed spread is not known", 1,
    true), text)
end)

local function row(rows, name, what)
  for _, r in ipairs(rows) do
    if r[1] == name and r[2] == what then return r end
  end
end

check.case("claims: holds, better, does not hold, and why", function()
  local s = journal(function(e, k)
    local loss = { baseline = 5, gqa = 5.02, fp4 = 5.2, gqa_fp4 = 5.05 }
    local pace = { gqa = 16, fp4 = 22, gqa_fp4 = 14 }
    k.result = outcome { val_loss = loss[e.variant] + e.seed * .001,
      training_seconds = pace[e.variant] or 20 }
  end, { "train.seeds=1,2" })
  s.common.plans.m_fp4_s1 = plan_of(10, 20)
  s.common.plans.m_fp4_s2 = plan_of(10, 20)
  local models = compare.models(results.build(s))
  local rows = claims.rows(models)
  check.equal(row(rows, "FP4", "memory")[4], "-70.0 %")
  check.equal(row(rows, "FP4", "memory")[5], "holds")
  check.equal(row(rows, "GQA", "memory")[5], "does not hold")
  check.equal(row(rows, "GQA", "speed")[5], "holds")
  check.equal(row(rows, "FP4", "speed")[5], "does not hold")
  check.equal(row(rows, "GQA + FP4", "speed")[5], "holds (better)")
  check.equal(row(rows, "GQA", "perplexity")[5], "holds")
  check.equal(row(rows, "FP4", "perplexity")[5], "does not hold")
  check.equal(row(rows, "GQA", "memory")[6], "weights, gradients and "
    .. "optimizer are 40 % of the baseline's peak and change by -5.0 %; "
    .. "activations change by -3.3 %; fewer key/value heads take only 0.0 % "
    .. "of the parameters")
end)

check.case("a speed inside its own noise is not judged", function()
  local function speed(spread)
    local s = journal(function(e, k)
      k.result = outcome { training_seconds = e.variant == "gqa" and 17 or 20 }
      k.result.step_spread = spread
    end)
    return row(claims.rows(compare.models(results.build(s))), "GQA", "speed")
  end
  check.equal(speed(.05)[5], "holds")
  check.equal(speed(.3)[5], "not judged")
  check.equal(speed(.3)[6], "steps of one run differ by 30 %")
  check.equal(speed(nil)[6], "fewer than 3 steps in a run")
end)

check.case("claims about quality are not judged on thin ground", function()
  local function perplexity(s, counts)
    return row(claims.rows(compare.models(results.build(s)), counts), "FP4",
      "perplexity")
  end
  local two = { "train.seeds=1,2" }
  check.equal(perplexity(journal(keep))[6],
    "one seed: the seed-to-seed spread is not known")
  check.equal(perplexity(journal(keep, two), false)[6],
    "runs too short to rank quality")
  check.equal(perplexity(journal(function(_, k)
    k.result = outcome { epochs = 9 }
  end, two))[6], "9.0 epochs over the corpus")
  check.equal(perplexity(journal(function(e, k)
    if e.variant == "fp4" then k.decided = decided { steps = 7 } end
  end, two))[6], "schedules differ between the variants")
  check.equal(perplexity(journal(keep, two))[5], "holds (better)")
end)

check.case("the report says what failed and shows every section", function()
  local s = journal(function(e, k)
    if e.variant == "gqa" then
      k.status, k.error, k.result = "crashed", "ended by signal 6 (ABRT)", nil
    end
  end)
  local text = report.text(results.build(s), s, { "a.png" })
  for _, want in ipairs { "## Results", "## Best",
    "## Against the own baseline", "## Quality at equal time",
    "## Quality at equal tokens", "## Savings by cause",
    "## The original's claims", "## Failures", "## Plots",
    "| m_gqa | crashed | ended by signal 6 (ABRT) |", "![a.png](a.png)",
    "- device: a machine (cpu)", "- m gqa: not finished" } do
    check.truthy(text:find(want, 1, true), want)
  end
  check.truthy(not text:find("nan", 1, true), "a NaN in the report")
end)

check.case("memory from outside is near the plan: 2 % + 64 MiB", function()
  local rise = { baseline = 883100000, gqa = 883200000, fp4 = 716900000,
    gqa_fp4 = 716800000 }
  local s = journal(function(e, k)
    k.result.memory.resident_rise = rise[e.variant]
  end)
  local text = report.text(results.build(s), s)
  check.truthy(text:find("resident rise is within 2 % + 64 MiB of the plan "
    .. "in 2 of 4 runs.", 1, true), text)
end)

check.case("a report of nothing but failures", function()
  local s = journal(function(_, k)
    k.status, k.error, k.result, k.decided = "error", "no", nil, nil
  end)
  s.common = nil
  local text = report.text(results.build(s), s)
  check.truthy(text:find("No pair of a variant and its baseline finished", 1,
    true))
end)

check.case("advice knows what the batch search already did", function()
  local advice = require "llm.advice"
  check.equal(advice { memory_share = 43, largest = true }[1], "memory 43 % "
    .. "of the budget: a larger model would fit, no larger micro-batch of this "
    .. "step")
  check.equal(advice { memory_share = 43 }[1], "memory 43 % of the budget: a "
    .. "larger model or micro-batch would fit")
  check.equal(#advice { memory_share = 80, largest = true }, 0)
end)

check.case("memory keeps its digits in a report of small models", function()
  local s = journal(keep)
  local text = report.text(assert(results.build(s)), s)
  check.truthy(text:find("| 800.0 MB |", 1, true), text)
  check.truthy(text:find("- least memory: m_baseline, 800.0 MB", 1, true), text)
end)

check.case("no sign before nothing", function()
  local size = require "llm.size"
  check.equal(size.change(-.0004), "0.0 %")
  check.equal(size.change(.0004), "0.0 %")
  check.equal(size.change(-.0006), "-0.1 %")
  check.equal(size.change(.123), "+12.3 %")
end)

check.case("a GPU's runs: device, driver, power, lowered clocks", function()
  local s = journal(function(e, known)
    local r = known.result
    local hot = e.variant == "fp4"
    r.device, r.precision = "NVIDIA H200", "bf16"
    r.flops, r.peak_flops = { model = 4e14 }, 8e14
    r.memory.driver_start, r.memory.driver_warm = 5.4e8, hot and 5.9e8 or 5.6e8
    r.throttled, r.joules_per_token = hot, .001
    r.power = { throttled = hot, throttled_share = hot and .25 or 0,
      power_capped_share = hot and .1 or 1, reasons = hot and "heat" or "",
      watts = 650, celsius = 70 }
  end)
  s.sweep.environment.backend = "cuda"
  local list = assert(results.build(s))
  local r = list[1]
  check.equal(r.environment.device, "NVIDIA H200")
  check.equal(r.environment.precision, "bf16")
  check.equal(r.memory_stats.driver_start_gb, .54)
  check.equal(r.resource_utilization.mean_watts, 650)
  check.near(r.throughput.model_flops_utilization, 4e14 * 50 / 20 / 989e12,
    1e-9) -- of the data sheet, not of what was measured
  local text = report.text(list, s, {})
  local function has(words) check.truthy(text:find(words, 1, true), text) end
  has "device: NVIDIA H200 (cuda), precision bf16"
  has "The fall of the device's free memory is within 2 % + 64 MiB"
  has "the driver held 0.56 to 0.59 GB for context"
  has "3 of 4 runs were held by the device's power limit most of the time"
  has "**m_fp4** ran with lowered clocks (heat): do not compare its speed."
  local json = host.json.decode(results.encode(list))
  check.equal(#json[1].resource_monitoring[1].suggestions, 0)
  check.truthy(results.encode(list):find('"suggestions": []', 1, true))
end)

check.done()
