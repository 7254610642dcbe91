-- Layers written in Lua out of operators: they train like built-in ones, bit
-- patterns aside; and what goes wrong in them is said at the user's line.
local check = require "check"
local gpu = require "gpu"
local nn = gpu.nn

local V, C, F, H, B, T = 31, 24, 40, 3, 2, 12

-- A gated feed-forward, as nn.gated computes it.
local function gated()
  return nn.layer {
    parameters = {
      gate_up = { 2 * F, C, std = .1 }, down = { C, F, std = .1 },
    },
    forward = function(p, x)
      local both = x:matmul(p.gate_up, { transpose_b = true })
      local gate, up = both:slice(3, 1, F), both:slice(3, F + 1)
      return (gate:silu() * up):matmul(p.down, { transpose_b = true })
    end,
  }
end

-- Causal attention, as nn.attention without rotary positions computes it.
local function attention()
  local D = C // H
  return nn.layer {
    parameters = { qkv = { 3 * C, C, std = .1 }, out = { C, C, std = .1 } },
    forward = function(p, x)
      local b, t = x.shape[1], x.shape[2]
      local qkv = x:matmul(p.qkv, { transpose_b = true })
      local function heads(first)
        return qkv:slice(3, first, first + C - 1):reshape { b, t, H, D }
          :transpose(2, 3)
      end
      local q, k, v = heads(1), heads(C + 1), heads(2 * C + 1)
      local scores = q:matmul(k, { transpose_b = true }) * D ^ -.5
      local mixed = scores:softmax { causal = true }:matmul(v)
      return mixed:transpose(2, 3):reshape { b, t, C }
        :matmul(p.out, { transpose_b = true })
    end,
  }
end

local function model(body)
  return nn.sequential { nn.embedding { V, C, std = .5, name = "embedding" },
    nn.residual { nn.rmsnorm { C, name = "before" }, body },
    nn.rmsnorm { C, name = "after" }, nn.head { C, V, std = .2 } }
end

local function batch(seed)
  local x, y = {}, {}
  for i = 1, B do
    x[i], y[i] = {}, {}
    for j = 1, T do
      seed = (seed * 1103515245 + 12345) % 2147483648
      x[i][j] = seed // 65536 % V
      y[i][j] = (x[i][j] * 7 + 3) % V
    end
  end
  x.dtype, y.dtype = "i32", "i32"
  return gpu.tensor(x), gpu.tensor(y)
end

local function compile(body, options)
  local o = { batch = B, seq = T, seed = 3, optimizer = gpu.optim.groups {
    { match = "*.qkv*", gpu.optim.muon { lr = .01 } },
    { gpu.optim.adamw { lr = .003 } }, clip = 1 } }
  for key, value in pairs(options or {}) do o[key] = value end
  return gpu.compile(model(body), o)
end

local function distance(a, b)
  return (a - b):norm():item() / b:norm():item()
end

-- Same weights, then loss, gradients and ten steps side by side. `names` maps
-- the user's parameters to the built-in layer's.
local function agree(user, builtin, names)
  local u <close> = compile(user)
  local b <close> = compile(builtin)
  local map = { ["embedding.weight"] = "embedding.weight",
    ["before.weight"] = "before.weight", ["after.weight"] = "after.weight",
    ["head.weight"] = "head.weight" }
  for mine, theirs in pairs(names) do map[mine] = theirs end
  for mine, theirs in pairs(map) do
    u:assign(mine, b:parameter(theirs))
  end
  local x, y = batch(1)
  local du, db = u:gradients(x, y), b:gradients(x, y)
  check.near(du.loss, db.loss, 1e-6 * db.loss, "loss")
  for mine, theirs in pairs(map) do
    local d = distance(du[mine], db[theirs])
    check.truthy(d < 1e-5, ("gradient of %s is off by %.3g"):format(mine, d))
  end
  for step = 1, 10 do
    local ru, rb = u:step(x, y, step), b:step(x, y, step)
    check.near(ru.loss, rb.loss, 2e-4 * rb.loss, "step " .. step)
  end
end

check.case("a gated feed-forward in Lua is nn.gated", function()
  agree(gated(), nn.gated { C, F, std = .1 }, {
    ["custom.gate_up"] = "gated.gate_up.weight",
    ["custom.down"] = "gated.down.weight" })
end)

check.case("an attention in Lua is nn.attention", function()
  agree(attention(), nn.attention { C, heads = H, std = .1 }, {
    ["custom.qkv"] = "attention.qkv.weight",
    ["custom.out"] = "attention.out.weight" })
end)

check.case("a layer in Lua trains with 4-bit weights", function()
  local p <close> = compile(gated(), { quantize = "nf4r",
    optimizer = gpu.optim.groups { { match = "custom.*",
      gpu.optim.muon { lr = .02 } }, { gpu.optim.adamw { lr = .01 } } } })
  check.equal(p:count().quantized, 2 * F * C, "down is too small")
  local x, y = batch(1)
  local first = p:step(x, y).loss
  local last
  for _ = 1, 40 do last = p:step(x, y).loss end
  check.truthy(last < first / 2, ("%.3g to %.3g"):format(first, last))
end)

check.case("recompute and Lua layers give the same bits", function()
  local losses = {}
  for _, mode in ipairs { "none", "block" } do
    local p <close> = compile(attention(), { recompute = mode })
    local x, y = batch(2)
    for step = 1, 3 do losses[mode] = p:step(x, y, step).loss end
  end
  check.equal(losses.block, losses.none)
end)

check.case("gradients by the operators' rules match differences", function()
  local a = gpu.randn { 3, 5, seed = 1 }
  local b = gpu.randn { 3, 5, seed = 2 }
  local function f(x, y)
    local z = ((x * y):tanh() + x:sigmoid() * 2 - (y ^ 2 + 1):log()):exp()
    return (z / (y * y + 3)):sum(2):sqrt()
  end
  local d = gpu.grad(f, { a, b })
  local function total(x, y)
    return f(x, y):sum():item()
  end
  for k, t in ipairs { a, b } do
    local e = 1e-2
    local direction = gpu.randn { 3, 5, seed = 10 + k }
    local up, down = t + direction * e, t - direction * e
    local slope = k == 1 and (total(up, b) - total(down, b)) / (2 * e)
      or (total(a, up) - total(a, down)) / (2 * e)
    local want = (d[k] * direction):sum():item()
    check.near(slope, want, 2e-3 * math.abs(want) + 1e-4, "input " .. k)
  end
end)

check.case("gradients of what is joined and cut", function()
  local a, b = gpu.randn { 3, 5, seed = 1 }, gpu.randn { 3, 2, seed = 2 }
  local w, v = gpu.randn { 3, 7, seed = 3 }, gpu.randn { 2, 3, seed = 4 }
  local d = gpu.grad(function(x, y, z) return (x:cat(y, 2) * z):sum() end,
    { a, b, w })
  check.truthy(d[1]:equal(w:slice(2, 1, 5)), "the first part")
  check.truthy(d[2]:equal(w:slice(2, 6, 7)), "the second part")
  d = gpu.grad(function(x, z)
    return (x:slice(2, 3, 4):transpose() * z):sum()
  end, { a, v })
  check.truthy(d[1]:equal(gpu.zeros { 3, 2 }:cat(v:transpose(), 2)
    :cat(gpu.zeros { 3, 1 }, 2)), "what was cut out")
end)

check.case("a gradient that values share is not added to in place", function()
  local x, w = gpu.randn { 3, 3, seed = 1 }, gpu.randn { 3, 3, seed = 2 }
  local c = gpu.randn { 3, 3, seed = 3 }
  local d = gpu.grad(function(a, b, z)
    local h = a * 1 -- inside: what is given gathers its gradient elsewhere
    local y, m = h * 2, h:matmul(b)
    return ((h + y) * z + m):sum()
  end, { x, w, c })
  local want = gpu.ones { 3, 3 }:matmul(w, { transpose_b = true }) + c * 3
  check.truthy(distance(d[1], want) < 1e-6)
end)

check.case("a layer is a function of tensors, too", function()
  local layer = nn.linear { 4, 2 }
  local y = layer(gpu.ones { 1, 3, 4 })
  check.equal(table.concat(y.shape, "x"), "1x3x2")
  check.truthy(y:equal(layer(gpu.ones { 1, 3, 4 })), "the seed decides")
end)

check.case("mistakes in forward are said at the user's line", function()
  local bad = nn.layer { parameters = { w = { 5, 5 } },
    forward = function(p, x) return x:matmul(p.w) end }
  local e = check.raises("matmul: ", compile, bad)
  check.truthy(tostring(e):find("test_layers.lua:%d+"), tostring(e))
  check.raises("forward must return what it computed", compile,
    nn.layer { forward = function() return 3 end })
  check.raises("a tensor cannot enter a layer's forward", compile,
    nn.layer { forward = function(_, x) return x + gpu.ones { C } end })
  local kept
  compile(nn.layer { forward = function(_, x)
    kept = x
    return x
  end }):close()
  check.raises("belongs to a layer's forward that has ended", function()
    return kept + 1
  end)
end)

check.case("options are checked, with the nearest name", function()
  check.raises("unknown option 'head'; did you mean 'heads'?", nn.attention,
    { 8, head = 2 })
  check.raises("kv_heads = 3 must divide heads = 4", nn.attention,
    { 8, heads = 4, kv_heads = 3 })
  check.raises("entry 2 is a number, not a layer", nn.sequential,
    { nn.silu {}, 7 })
  check.raises("tied must be an embedding, got linear", nn.head,
    { tied = nn.linear { 2, 2 } })
  check.raises("no group takes parameter embedding.weight", gpu.compile,
    model(gated()), { optimizer = gpu.optim.groups {
      { match = "custom*", gpu.optim.adamw {} } } })
  check.raises("'nf5' is not a storage format", gpu.compile, model(gated()),
    { quantize = "nf5" })
end)

check.done()
