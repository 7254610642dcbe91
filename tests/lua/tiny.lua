-- Tiny programs that train: compile, run, and compare what they save.
local gpu = require "gpu"
local host = require "host"
local model = require "llm.model"

local tiny = {}

local SHAPE = { vocab = 61, d_model = 32, n_layers = 2, n_heads = 4,
  n_kv_heads = 2, d_ff = 64, dropout = .1 }

local function shape(changes)
  local c = {}
  for key, value in pairs(SHAPE) do c[key] = value end
  for key, value in pairs(changes or {}) do c[key] = value end
  return c
end

local OPTIMIZERS = {
  muon = function()
    return { { match = "blocks.*.weight", gpu.optim.muon { lr = .02 } },
      { gpu.optim.adamw { lr = .003 } } }
  end,
  adamw = function() return { { gpu.optim.adamw { lr = .003 } } } end,
  sgd = function() return { { gpu.optim.sgd { lr = .1, momentum = .9 } } } end,
}

-- how: optimizer (a name; false: none), quantize, accumulate, shape, seed.
function tiny.compile(how)
  local groups
  if how.optimizer ~= false then
    groups = OPTIMIZERS[how.optimizer or "muon"]()
    groups.clip = .5
    groups.schedule = gpu.optim.cosine { warmup = .2, final = .1, steps = 20 }
    groups = gpu.optim.groups(groups)
  end
  return gpu.compile(model.transformer(shape(how.shape)), { batch = 2,
    seq = 16, optimizer = groups, quantize = how.quantize,
    accumulate = how.accumulate, seed = how.seed or 3 })
end

function tiny.batch(n)
  local ids, targets = { dtype = "i32" }, { dtype = "i32" }
  for b = 1, 2 do
    ids[b], targets[b] = {}, {}
    for t = 1, 16 do
      ids[b][t] = (b * 7 + t * 5 + n * n * 11) % 61
      targets[b][t] = (ids[b][t] * 3 + 1) % 61
    end
  end
  return gpu.tensor(ids), gpu.tensor(targets)
end

-- As many steps as from first to last, on the batches of these numbers; the
-- bits of what they gave, as text.
function tiny.run(p, first, last)
  local out = {}
  for n = first, last do
    local x, y = tiny.batch(n)
    local r = p:step(x, y)
    out[#out + 1] = ("%a %a %a"):format(r.loss, r.grad_norm, r.lr)
  end
  return table.concat(out, "\n")
end

-- Whether two folders hold the same checkpoint.
function tiny.same_files(a, b)
  for _, name in ipairs { "model.safetensors", "training.safetensors" } do
    local left = assert(host.file.read(a .. "/" .. name))
    if left ~= host.file.read(b .. "/" .. name) then return false end
  end
  return true
end

return tiny
