-- From an experiment to its model, optimizer and compiled program: the one
-- place that knows how a configuration's words become options of `gpu`.
local gpu = require "gpu"
local model = require "llm.model"

local program = {}

local function adamw(t)
  return gpu.optim.adamw { lr = t.lr, betas = { .9, .999 }, eps = 1e-8,
    weight_decay = t.weight_decay }
end

-- Muon for the 2-D weights of blocks, AdamW for the rest; or AdamW or SGD for
-- all. The schedule is over `steps` optimizer steps.
function program.optimizer(t, steps)
  local groups = { clip = t.clip > 0 and t.clip or nil,
    schedule = gpu.optim.cosine { warmup = t.warmup, final = t.final,
      steps = steps } }
  if t.optimizer == "sgd" then
    groups[1] = { gpu.optim.sgd { lr = t.lr, momentum = t.momentum } }
  elseif t.optimizer == "adamw" then
    groups[1] = { adamw(t) }
  else
    groups[1] = { match = "blocks.*.weight",
      gpu.optim.muon { lr = t.muon_lr, momentum = t.momentum } }
    groups[2] = { adamw(t) }
  end
  return gpu.optim.groups(groups)
end

local function storage(c)
  if c.storage == "f32" then return nil end
  return c.scale_search and { c.storage, search = true } or c.storage
end

local PRECISION = { fp16 = "f16" }

-- The layer tree of an experiment: its own function's, or the transformer.
function program.model(e, build)
  return (build or model.transformer)(e.shape)
end

-- Compile. how: batch, accumulate, steps (of the schedule), and either
-- plan = "cpu" | "cuda" (arithmetic only) or a device.
function program.compile(e, build, how)
  local t = e.train
  return gpu.compile(program.model(e, build), {
    batch = how.batch, accumulate = how.accumulate, seq = t.seq,
    recompute = how.recompute or t.recompute,
    precision = PRECISION[t.precision] or t.precision,
    saved = how.saved or t.saved, quantize = storage(e.shape),
    optimizer = program.optimizer(t, how.steps or 1000), seed = e.seed,
    plan = how.plan, device = how.device, head_chunk = how.head_chunk,
  })
end

return program
