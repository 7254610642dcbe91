-- The whole model against PyTorch: loss and every gradient of three models, and
-- twenty optimizer steps, from the stored files of tests/reference.
local check = require "check"
local gpu = require "gpu"
local host = require "host"
local nn = gpu.nn

local folder = debug.getinfo(1, "S").source:match "^@(.*)lua/[^/]*$"
  .. "reference/"

local function block(c)
  local d, p = c.d_model, 0
  local rope = { base = c.rope.base, fraction = c.rope.fraction,
    inclusive = c.rope.inclusive, inverse = c.rope.sense > 0 }
  local attention = nn.residual { nn.rmsnorm { d, eps = c.eps,
    name = "attention_norm" }, nn.attention { d, heads = c.n_heads,
    kv_heads = c.n_kv_heads, rope = rope, name = "attention" },
    nn.dropout { p } }
  local norm = nn.rmsnorm { d, eps = c.eps, name = "mlp_norm" }
  if c.gated then
    return nn.sequential { attention, nn.residual { norm,
      nn.gated { d, c.d_ff, name = "mlp" } } }
  end
  return nn.sequential { attention, nn.residual { norm,
    nn.linear { d, c.d_ff, name = "mlp.up" }, nn.silu {},
    nn.linear { c.d_ff, d, name = "mlp.down" } } }
end

local function model(c)
  local embedding = nn.embedding { c.vocab, c.d_model,
    scale = c.embedding_scale, name = "embedding" }
  local blocks = { name = "blocks" }
  for i = 1, c.n_layers do blocks[i] = block(c) end
  return nn.sequential { embedding, nn.sequential(blocks),
    nn.rmsnorm { c.d_model, eps = c.eps, name = "norm" },
    c.tied and nn.head { tied = embedding }
    or nn.head { c.d_model, c.vocab, name = "head" } }
end

-- The fields of model.Config under the names used above.
local function configuration(metadata)
  local c = host.json.decode(metadata.config)
  c.eps = c.norm_eps
  return c
end

local function optimizer(steps)
  return gpu.optim.groups { { match = "blocks.*.weight",
    gpu.optim.muon { lr = .01, momentum = .95 } },
    { gpu.optim.adamw { lr = .001, betas = { .9, .999 }, eps = 1e-8,
      weight_decay = .1 } },
    schedule = gpu.optim.cosine { warmup = .05, final = .1, steps = steps },
    clip = 1 }
end

local function assign(program, m, tensors)
  for _, p in ipairs(m:parameters()) do
    program:assign(p.name, assert(tensors[p.name], p.name))
  end
end

local function relative(got, want)
  return (got - want):norm():item() / want:norm():item()
end

local function compare_gradients(name, recompute)
  local tensors, metadata = assert(gpu.load(folder .. name .. ".safetensors"))
  local c = configuration(metadata)
  local m = model(c)
  local ids = tensors.ids
  local p <close> = gpu.compile(m, { batch = ids.shape[1], seq = ids.shape[2],
    optimizer = optimizer(20), recompute = recompute })
  assign(p, m, tensors)
  local got = p:gradients(ids, tensors.targets)
  local want = tonumber(metadata.loss)
  check.near(got.loss, want, 1e-5 * want, "loss")
  local evaluated = p:evaluate(ids, tensors.targets).loss
  check.near(evaluated, want, 1e-5 * want, "evaluation")
  for _, w in ipairs(m:parameters()) do
    local error_ = relative(got[w.name], tensors["grad." .. w.name])
    check.truthy(error_ <= 1e-4, ("gradient of %s is off by %.3g"):format(
      w.name, error_))
  end
  return p:count().parameters
end

for _, name in ipairs { "mha", "gqa", "llama" } do
  for _, recompute in ipairs { "none", "block" } do
    check.case(("%s: loss and gradients as PyTorch's, recompute %s"):format(
      name, recompute), function() compare_gradients(name, recompute) end)
  end
end

check.case("twenty steps of Muon and AdamW as PyTorch's", function()
  local tensors, metadata = assert(gpu.load(folder .. "optimizer.safetensors"))
  local c = configuration(metadata)
  local m = model(c)
  local batch, seq = tensors.ids.shape[2], tensors.ids.shape[3]
  local steps = tensors.ids.shape[1]
  local p <close> = gpu.compile(m, { batch = batch, seq = seq,
    optimizer = optimizer(steps) })
  assign(p, m, tensors)
  local losses, norms = tensors.losses:table(), tensors.grad_norms:table()
  local factors = tensors.lr_factors:table()
  for i = 1, steps do
    local r = p:step(tensors.ids[i], tensors.targets[i], i)
    check.near(r.loss, losses[i], 1e-4 * losses[i], "loss of step " .. i)
    check.near(r.grad_norm, norms[i], 1e-3 * norms[i], "norm of step " .. i)
    check.near(r.lr, factors[i], 1e-6, "rate of step " .. i)
  end
  for _, w in ipairs(m:parameters()) do
    local error_ = relative(p:parameter(w.name), tensors["final." .. w.name])
    check.truthy(error_ <= 3e-5, ("%s is off by %.3g at the end"):format(
      w.name, error_))
  end
end)

check.done()
