-- The training loop of one experiment, in its child: steps, the evaluation
-- grid, checkpoints, and every way a run can end early.
local channel = require "llm.channel"
local checkpoint = require "llm.checkpoint"
local driver = require "llm.driver"
local gpu = require "gpu"
local host = require "host"

local trainer = {}
trainer.__index = trainer

-- The steps after which an evaluation is made: every `every`, and the last.
function trainer.grid(t, steps)
  return t.eval_every or math.max(1, math.ceil(steps / t.evaluations))
end

-- How many last steps the reported training loss is the mean of.
function trainer.tail(steps) return math.max(1, math.ceil(steps / 10)) end

local PACES = 200 -- last steps whose seconds are kept

-- Skipped steps in a row that end a run: from fp16's first loss scale, 65536,
-- it has then fallen to 2^-8, where a gradient that overflows is no number.
trainer.SKIPS = 24

-- How much a step's time varies: (upper - lower quartile) / median, all of the
-- range below 8 steps; nil below 3.
function trainer.spread(paces)
  local n = #paces
  if n < 3 then return nil end
  local list = table.move(paces, 1, n, 1, {})
  table.sort(list)
  local cut = n < 8 and 0 or n // 4
  return (list[n - cut] - list[1 + cut]) / list[(n + 1) // 2]
end

-- self: e, program, loader, validation, metrics, run (folder), decided, hooks,
-- state (of a checkpoint, or a fresh one), driver (a sampler, made before the
-- program took memory, or nil).
function trainer.fresh_state()
  return { step = 0, tokens = 0, seconds = 0, eval_seconds = 0,
    skipped = 0, skipped_in_row = 0, losses = {}, accuracies = {},
    evals = {}, monitoring = {}, paces = {} }
end

local function finite(x)
  return type(x) == "number" and x == x and math.abs(x) < math.huge
end

local function number(x) return finite(x) and x or nil end

local function perplexity(loss)
  return finite(loss) and loss < 700 and math.exp(loss) or nil
end

local function keep_last(list, v, count)
  list[#list + 1] = v
  while #list > count do table.remove(list, 1) end
end

function trainer:evaluate()
  local s, began = self.state, host.clock()
  local r = self.program:evaluate(self.validation, self.e.train.eval_tokens)
  s.eval_seconds = s.eval_seconds + host.clock() - began
  local record = { step = s.step, tokens = s.tokens, seconds = s.seconds,
    val_loss = r.loss, val_accuracy = r.accuracy,
    val_perplexity = perplexity(r.loss), val_tokens = r.tokens }
  if not finite(r.loss) then return self:stop("nan", "validation loss is "
    .. tostring(r.loss) .. " after step " .. s.step) end
  s.evals[#s.evals + 1] = record
  self.metrics:add(record)
  self.metrics:flush()
  channel.send("eval", record)
  self:hook("on_eval", record)
  if self.e.train.keep_best and record.val_loss <= trainer.best(s) then
    checkpoint.save(self.program, self.run, self:saved(), "best")
  end
end

-- The least validation loss so far.
function trainer.best(s)
  local best = math.huge
  for _, r in ipairs(s.evals) do best = math.min(best, r.val_loss) end
  return best
end

function trainer:hook(name, record)
  local f = self.hooks[name]
  if f and f(self.e, record) == false then self.asked_to_stop = true end
end

function trainer:stop(status, message)
  self.status, self.message = status, message
end

function trainer:saved()
  local s = self.state
  s.batch, s.accumulate = self.decided.batch, self.decided.accumulate
  s.steps, s.configuration = self.decided.steps, self.configuration
  s.build = tostring(gpu.version)
  return s
end

function trainer:save()
  local s, began = self.state, host.clock()
  self.metrics:flush()
  checkpoint.save(self.program, self.run, self:saved())
  self.saved_at, self.saved_step = host.clock(), s.step
  channel.send("checkpoint", { step = s.step,
    seconds = host.clock() - began })
end

-- `largest`: of the micro-batches that divide the step none larger fits.
local function suggestions(share, largest)
  if share > .95 then return { "memory nearly full: a smaller micro-batch" } end
  if share < .7 then
    return { largest and "memory to spare: a larger model"
      or "memory to spare: a larger micro-batch" }
  end
  return {}
end

function trainer:monitor(step)
  local use, stats = self.driver:sample()
  self.device_share = use and use.compute
  local share = stats.current / self.budget
  keep_last(self.state.monitoring, { step = step, memory_util = 100 * share,
    gpu_util = use and use.compute or nil,
    suggestions = suggestions(share, self.e.train.batch == "auto") }, 5)
  return stats
end

-- What one step gave, put in the state, the metrics and on the line. A skipped
-- step's numbers that are none are left out.
function trainer:record(r)
  local s, d = self.state, self.decided
  s.step, s.tokens = s.step + 1, s.tokens + r.tokens
  s.seconds = s.seconds + r.seconds
  keep_last(s.paces, r.seconds, PACES)
  local loss = number(r.loss)
  s.first_loss, s.loss_scale = s.first_loss or loss, r.loss_scale
  local tail = trainer.tail(d.steps)
  keep_last(s.losses, loss, tail)
  keep_last(s.accuracies, r.accuracy, tail)
  local stats = self:monitor(s.step)
  local record = { step = s.step, tokens = s.tokens, seconds = s.seconds,
    loss = loss, accuracy = r.accuracy, perplexity = perplexity(r.loss),
    lr = r.lr * self.e.train.lr, grad_norm = number(r.grad_norm),
    loss_scale = r.loss_scale, skipped = r.skipped or nil,
    tokens_per_second = r.tokens / r.seconds, memory = stats.current }
  self.metrics:add(record)
  local due = host.clock() - (self.told or 0) > .25 or s.step == d.steps
  if loss and due then
    self.told = host.clock()
    self.metrics:flush()
    local told = { device_share = self.device_share }
    for key, v in pairs(record) do told[key] = v end
    channel.send("step", told)
  end
  self:hook("on_step", record)
end

-- Counts the steps that fp16 skipped: their gradients were not finite, the
-- loss scale halved, nothing else changed. False after too many in a row.
function trainer:skip(r)
  local s = self.state
  s.skipped = (s.skipped or 0) + 1
  s.skipped_in_row = (s.skipped_in_row or 0) + 1
  channel.send("note", { text = ("step %d is skipped: its gradients are not "
    .. "finite at loss scale %g"):format(s.step, r.loss_scale) })
  if s.skipped_in_row < trainer.SKIPS then return true end
  self:stop("nan", ("gradients are not finite in %d steps in a row up to step "
    .. "%d, whatever the loss scale (down to %g): try a smaller train.lr, or "
    .. "train.precision = bf16"):format(trainer.SKIPS, s.step, r.loss_scale))
  return false
end

-- One optimizer step; false when the run is over.
function trainer:step()
  local s = self.state
  local r = self.program:step(self.loader, s.step + 1)
  if r.skipped then
    self:record(r)
    return self:skip(r)
  end
  s.skipped_in_row = 0
  if r.finite == false or not finite(r.loss) then
    self:stop("nan", ("loss is %s, gradient norm %s at step %d"):format(
      tostring(r.loss), tostring(r.grad_norm), s.step + 1))
    return false
  end
  self:record(r)
  local most = self.e.train.diverge * s.first_loss
  if r.loss > most then
    self:stop("diverged", ("loss %.4g at step %d is more than %g times the "
      .. "first, %.4g"):format(r.loss, s.step, self.e.train.diverge,
      s.first_loss))
    return false
  end
  return true
end

function trainer:interrupted()
  if host.process.interrupted() > 0 then
    self:save()
    self:stop("interrupted", "stopped by a signal after step "
      .. self.state.step)
    return true
  end
end

-- Whether the wall clock (1.5 x the time limit) cuts the run short.
function trainer:late()
  local limit = self.decided.guard_seconds
  if limit and self.state.seconds > limit then
    self.state.cut_short = true
    return true
  end
  return self.asked_to_stop
end

-- Train from the state's step to the last. Sets self.status.
function trainer:train()
  local s, d = self.state, self.decided
  local every = trainer.grid(self.e.train, d.steps)
  self.saved_at = host.clock()
  self.driver = self.driver or driver.sampler():over(s)
  while s.step < d.steps and not self.status do
    if self:interrupted() or not self:step() then break end
    local last = s.step == d.steps or self:late()
    if last or s.step % every == 0 then self:evaluate() end
    if last then break end
    if host.clock() - self.saved_at >= self.e.train.checkpoint_seconds then
      self:save()
    end
  end
  self.metrics:flush()
  if not self.status then
    if self.saved_step ~= s.step then self:save() end
    self.status = "ok"
  end
end

return trainer
