-- Loss scaling as a run sees it: skipped steps are recorded, told and counted,
-- they are no NaN, too many in a row end the run, and a checkpoint keeps count.
-- The rule itself and what a skip leaves alone: tests/c/test_scaling.c.
local channel = require "llm.channel"
local check = require "check"
local checkpoint = require "llm.checkpoint"
local gpu = require "gpu"
local model = require "llm.model"
local narrate = require "llm.narrate"
local tiny = require "tiny"
local trainer = require "llm.trainer"

local NAN, INF = 0 / 0, math.huge

-- What a program gives for a step: "." a good one, "s" skipped, "o" skipped
-- for a forward pass that overflowed, "n" not finite without scaling.
local function result_of(kind, n)
  local r = { loss = 5 - n / 100, accuracy = .5, grad_norm = 1, lr = 1,
    tokens = 64, seconds = .5, finite = true, skipped = false,
    loss_scale = 2 ^ 16 }
  if kind == "." then return r end
  r.finite, r.grad_norm = false, INF
  r.skipped = kind ~= "n"
  if kind ~= "s" then r.loss = NAN end
  return r
end

-- A run over a script of such steps, from `state` on; the trainer, its records,
-- notes and saved states.
local function run(script, state)
  local t = { records = {}, notes = {}, saved_states = {} }
  channel.send = function(event, fields)
    if event == "note" then table.insert(t.notes, fields.text) end
    if event == "step" then -- what the line needs is there
      narrate.progress({ e = { name = "m" } }, fields, { index = 1, count = 1 })
    end
  end
  checkpoint.save = function(_, _, s)
    table.insert(t.saved_states, { step = s.step, skipped = s.skipped,
      skipped_in_row = s.skipped_in_row })
  end
  t.e = { train = { lr = .001, diverge = 3, batch = 1, evaluations = 1,
    eval_tokens = 64, checkpoint_seconds = 0 } }
  t.program = {
    step = function(_, _, n) return result_of(script:sub(n, n), n) end,
    evaluate = function() return { loss = 4, accuracy = .5, tokens = 64 } end }
  t.metrics = { flush = function() end,
    add = function(_, record) table.insert(t.records, record) end }
  t.driver = { sample = function() return nil, { current = 1 } end }
  t.decided = { steps = #script, batch = 1, accumulate = 1 }
  t.state, t.hooks, t.budget = state or trainer.fresh_state(), {}, 1
  setmetatable(t, trainer):train()
  return t
end

check.case("skipped steps are recorded, told, counted", function()
  local t = run "ss..o."
  check.equal(t.status, "ok")
  check.equal(t.state.step, 6)
  check.equal(t.state.tokens, 6 * 64)
  check.equal(t.state.skipped, 3)
  check.equal(t.state.skipped_in_row, 0)
  check.equal(t.state.loss_scale, 65536)
  check.equal(#t.notes, 3)
  check.equal(t.notes[3],
    "step 5 is skipped: its gradients are not finite at loss scale 65536")
  local first, good, over = t.records[1], t.records[3], t.records[5]
  check.equal(first.skipped, true)
  check.equal(first.loss, 4.99)
  check.equal(first.grad_norm, nil)
  check.equal(first.loss_scale, 65536)
  check.equal(good.skipped, nil)
  check.equal(good.grad_norm, 1)
  check.equal(over.loss, nil)
  check.equal(over.perplexity, nil)
end)

check.case("a loss that is none counts nowhere", function()
  local t = run "o...................o"
  check.equal(t.status, "ok")
  check.equal(t.state.first_loss, 4.98)
  check.equal(#t.state.losses, 3) -- of 21 steps the last, finite ones
  for _, loss in ipairs(t.state.losses) do check.truthy(loss == loss) end
end)

check.case("without scaling it is a NaN as ever", function()
  local t = run "..n."
  check.equal(t.status, "nan")
  check.equal(t.state.step, 2)
  check.truthy(t.message:find("gradient norm inf at step 3", 1, true),
    t.message)
end)

check.case("too many in a row end the run", function()
  local most = ("s"):rep(trainer.SKIPS - 1)
  check.equal(run(most .. "." .. most .. ".").status, "ok")
  local t = run("." .. most .. "s..")
  check.equal(t.status, "nan")
  check.equal(t.state.step, 1 + trainer.SKIPS)
  check.equal(t.message, "gradients are not finite in 24 steps in a row up to "
    .. "step 25, whatever the loss scale (down to 65536): try a smaller "
    .. "train.lr, or train.precision = bf16")
end)

check.case("what a run ends with says how many", function()
  local function finished(change)
    local r, text = { avg_loss = 4, val_loss = 4, training_seconds = 1,
      tokens = 64, memory = { peak = 1, budget = 2 } }, nil
    for key, v in pairs(change) do r[key] = v end
    narrate.finished("m", { status = "ok", result = r },
      function(line) text = line end)
    return text
  end
  check.truthy(finished { skipped_steps = 3 }:find(", 3 steps skipped", 1,
    true))
  check.equal(finished { skipped_steps = 0 }:find "skipped", nil)
  check.truthy(finished { avg_loss = false }:find("ok: loss ?,", 1, true))
end)

check.case("a resumed run counts on", function()
  local most = ("s"):rep(trainer.SKIPS - 1)
  local state
  local t = run(most)
  for _, s in ipairs(t.saved_states) do
    check.equal(s.skipped, s.step)
    check.equal(s.skipped_in_row, s.step)
  end
  state = t.state
  t = run(most .. "s.", state)
  check.equal(t.status, "nan")
  check.equal(t.state.skipped, trainer.SKIPS)
  state = trainer.fresh_state() -- as of before there were such counts
  state.skipped, state.skipped_in_row = nil, nil
  check.equal(run("s.", state).state.skipped, 1)
end)

-- The 4-bit row of a sweep as a GPU would compile it.
local function planned(precision, fuse, accumulate)
  return gpu.compile(model.transformer { vocab = 61, d_model = 32,
    n_layers = 2, n_heads = 4, d_ff = 64 }, { plan = "cuda", seq = 16,
    precision = precision, quantize = "nf4r", fuse = fuse,
    accumulate = accumulate or 1,
    optimizer = gpu.optim.groups { { match = "blocks.*.weight",
      gpu.optim.muon {} }, { gpu.optim.adamw {} } } })
end

check.case("4-bit weights in f16 are not fused unless asked", function()
  local p <close> = planned "f16"
  check.equal(p:memory().fused, false)
  local q <close> = planned "bf16"
  check.equal(q:memory().fused, true)
  check.truthy(p:memory().state_per_parameter
    > q:memory().state_per_parameter + 3.9, "gradients that wait are state")
  check.raises("fused updates need bf16 or f32", planned, "f16", true)
  local sums <close> = planned("f16", nil, 2) -- in f32
  local short <close> = planned("bf16", nil, 2)
  check.truthy(sums:memory().state_per_parameter
    > short:memory().state_per_parameter + 1.9)
end)

check.case("a program that does not scale says so", function()
  local p <close> = tiny.compile {}
  local x, y = tiny.batch(1)
  local r = p:step(x, y)
  check.equal(r.skipped, false)
  check.equal(r.loss_scale, nil)
  check.equal(r.finite, true)
end)

check.done()
