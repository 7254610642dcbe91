-- Generating text: what comes out of the cache is what the whole sequence
-- gives, by PyTorch's stored logits and by the program's own losses; sampling;
-- the window; what is refused.
-- also run with: LLMHOST_THREADS=1
local check = require "check"
local gpu = require "gpu"
local host = require "host"
local nn = gpu.nn

local folder = debug.getinfo(1, "S").source:match "^@(.*)lua/[^/]*$"
  .. "reference/"

-- --- models ---------------------------------------------------------------

local function feed_forward(c)
  if c.gated then
    return { nn.gated { c.d_model, c.d_ff, name = "mlp" } }
  end
  return { nn.linear { c.d_model, c.d_ff, name = "mlp.up" }, nn.silu {},
    nn.linear { c.d_ff, c.d_model, name = "mlp.down" } }
end

local function block(c)
  local d = c.d_model
  return nn.sequential {
    nn.residual { nn.rmsnorm { d, eps = c.eps, name = "attention_norm" },
      nn.attention { d, heads = c.n_heads, kv_heads = c.n_kv_heads,
        rope = c.rope, qk_norm = c.qk_norm, dropout = c.dropout,
        name = "attention" }, nn.dropout { c.dropout or 0 } },
    nn.residual { nn.rmsnorm { d, eps = c.eps, name = "mlp_norm" },
      table.unpack(feed_forward(c)) },
  }
end

local function model(c)
  local embedding = nn.embedding { c.vocab, c.d_model,
    scale = c.embedding_scale, std = c.std, name = "embedding" }
  local blocks = { name = "blocks" }
  for i = 1, c.n_layers do blocks[i] = block(c) end
  return nn.sequential { embedding, nn.sequential(blocks),
    nn.rmsnorm { c.d_model, eps = c.eps, name = "norm" },
    c.tied and nn.head { tied = embedding }
    or nn.head { c.d_model, c.vocab, std = c.std, name = "head" } }
end

local SMALL = { vocab = 61, d_model = 32, n_layers = 2, n_heads = 4,
  n_kv_heads = 4, d_ff = 48, std = .1, dropout = .1, tied = true,
  rope = { fraction = .5, inclusive = true } }

local function small(changes)
  local c = {}
  for key, value in pairs(SMALL) do c[key] = value end
  for key, value in pairs(changes or {}) do c[key] = value end
  return c
end

local SEQ = 24

local function compile(changes, how)
  local o = { batch = 1, seq = SEQ, seed = 5 }
  for key, value in pairs(how or {}) do o[key] = value end
  return gpu.compile(model(small(changes)), o)
end

local function ids_of(count, salt)
  local ids = {}
  for i = 1, count do ids[i] = (i * i * 7 + i * (salt or 3)) % 61 end
  return ids
end

-- --- against the whole sequence -------------------------------------------

-- Largest |a - b| of tensors over rms(b).
local function distance(a, b)
  local d = a - b
  return math.max(d:max():item(), -d:min():item())
    / math.sqrt((b * b):mean():item())
end

-- Feed the B x T reference ids in these pieces, comparing after each.
local function against_reference(name, pieces)
  local tensors, metadata = assert(gpu.load(folder .. name .. ".safetensors"))
  local c = host.json.decode(metadata.config)
  c.eps = c.norm_eps
  c.rope.inverse, c.rope.sense = c.rope.sense > 0, nil
  local m = model(c)
  local batch, seq = tensors.ids.shape[1], tensors.ids.shape[2]
  local p <close> = gpu.compile(m, { batch = batch, seq = seq })
  for _, w in ipairs(m:parameters()) do
    p:assign(w.name, tensors[w.name])
  end
  local g <close> = p:generator { batch = batch, chunk = 8 }
  local at = 0
  for _, n in ipairs(pieces) do
    g:feed(tensors.ids:slice(2, at + 1, at + n))
    at = at + n
    local want = tensors.logits:slice(2, at, at):reshape { batch, c.vocab }
    local error_ = distance(g:logits(), want)
    check.truthy(error_ <= 1e-5, ("%s: logits after %d ids are off by %.2g")
      :format(name, at, error_))
  end
  check.truthy(at <= seq)
end

for _, name in ipairs { "mha", "gqa", "llama" } do
  check.case(name .. ": logits through the cache are PyTorch's", function()
    against_reference(name, { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 })
    against_reference(name, { 7, 1, 2, 1 })
    against_reference(name, { 11 })
  end)
end

-- The loss at every position, by evaluations that count one each, against the
-- logits that come out of the cache.
local function against_losses(p, tolerance)
  local ids = ids_of(SEQ + 1)
  local g <close> = p:generator { chunk = 5 }
  local x = { dtype = "i32", { table.unpack(ids, 1, SEQ) } }
  g:feed { ids[1], ids[2], ids[3], ids[4], ids[5], ids[6] }
  for t = 6, SEQ do
    if t > 6 then g:feed { ids[t] } end
    local y = { dtype = "i32", {} }
    for i = 1, SEQ do y[1][i] = i == t and ids[t + 1] or -1 end
    local want = p:evaluate(gpu.tensor(x), gpu.tensor(y)).loss * SEQ
    local row = g:logits():table()[1]
    local most = math.max(table.unpack(row))
    local sum = 0
    for _, v in ipairs(row) do sum = sum + math.exp(v - most) end
    local got = most + math.log(sum) - row[ids[t + 1] + 1]
    check.near(got, want, tolerance * (1 + want), "position " .. t)
  end
end

local KINDS = {
  { "MHA, half rotary", {} },
  { "GQA", { n_kv_heads = 2 } },
  { "one key/value head", { n_kv_heads = 1 } },
  { "full rotary, the other way", { rope = { inverse = true } } },
  { "no positions", { rope = false } },
  { "QK norm", { qk_norm = true, n_kv_heads = 2 } },
  { "gated, untied", { gated = true, tied = false } },
  { "4-bit weights", { n_kv_heads = 2 }, { quantize = "nf4r" } },
}

for _, kind in ipairs(KINDS) do
  check.case(kind[1] .. ": the cache gives the losses of the whole sequence",
    function()
      local p <close> = compile(kind[2], kind[3])
      against_losses(p, 2e-6)
    end)
end

check.case("a program that trains generates from its newest weights",
  function()
    local p <close> = compile({}, { quantize = "nf4r",
      optimizer = gpu.optim.groups {
        { match = "blocks.*.weight", gpu.optim.muon { lr = .05 } },
        { gpu.optim.adamw { lr = .01 } } } })
    local g <close> = p:generator {}
    local before = g:feed(ids_of(4)):logits()
    local ids = ids_of(SEQ + 1)
    p:step(gpu.tensor { dtype = "i32", { table.unpack(ids, 1, SEQ) } },
      gpu.tensor { dtype = "i32", { table.unpack(ids, 2, SEQ + 1) } })
    local after = g:rewind():feed(ids_of(4)):logits()
    check.truthy(distance(after, before) > 1e-3, "the weights did not change")
    against_losses(p, 2e-6)
  end)

-- --- the cache -------------------------------------------------------------

check.case("bytes of the cache, planned and accounted", function()
  local p <close> = compile { n_kv_heads = 2 }
  p:open()
  local before = gpu.memory.stats()
  local g <close> = p:generator { context = 100 }
  local m, after = g:memory(), gpu.memory.stats()
  check.equal(m.cache, 2 * 2 * 2 * 100 * 8 * 4, "layers, k and v, heads, T, D")
  check.equal(m.cache_plain, 2 * m.cache)
  check.equal(m.heads, 8)
  check.equal(m.kv_heads, 4)
  check.equal(after.current - before.current, m.peak, "as planned")
  check.truthy(after.by_category.activations - before.by_category.activations
    >= m.cache, "caches are activations")
  g:close()
  check.equal(gpu.memory.stats().current, before.current, "all is given back")
end)

check.case("rewinding and sliding compute what feeding does", function()
  local p <close> = compile()
  local a <close> = p:generator { chunk = 4 }
  local b <close> = p:generator {}
  a:feed(ids_of(9)):rewind(3)
  check.equal(a:position(), 3)
  a:feed(ids_of(2, 5))
  b:feed { ids_of(9)[1], ids_of(9)[2], ids_of(9)[3] }:feed(ids_of(2, 5))
  check.truthy(distance(a:logits(), b:logits()) < 1e-5)
  a:slide(2)
  check.equal(a:position(), 2)
  b:rewind():feed(ids_of(2, 5))
  check.truthy(distance(a:logits(), b:logits()) < 1e-5)
end)

-- --- sampling --------------------------------------------------------------

check.case("greedy is the largest logit; a seed is a text", function()
  local p <close> = compile()
  local g <close> = p:generator {}
  g:feed(ids_of(5))
  check.equal(g:sample { temperature = 0 }, g:logits():argmax(2):item())
  local function text(o) return table.concat(p:generate(ids_of(5), o), " ") end
  local one = text { max = 15, seed = 1 }
  check.equal(one, text { max = 15, seed = 1 })
  check.truthy(one ~= text { max = 15, seed = 2 }, "another seed")
  check.equal(text { max = 15, temperature = 0 },
    text { max = 15, top_k = 1, seed = 9 })
  check.equal(text { max = 15, top_p = 1e-6, seed = 4 },
    text { max = 15, temperature = 0 })
end)

-- How often each id is drawn, of `count` draws.
local function frequencies(g, count, o)
  local seen = {}
  for seed = 1, count do
    o.seed = seed
    local id = g:sample(o)
    seen[id] = (seen[id] or 0) + 1
  end
  return seen
end

-- Probabilities of the ids at this temperature, most probable first.
local function ranked(g, temperature)
  local row, sum, list = g:logits():table()[1], 0, {}
  for i, v in ipairs(row) do
    list[i] = { id = i - 1, p = math.exp(v / temperature) }
    sum = sum + list[i].p
  end
  for _, x in ipairs(list) do x.p = x.p / sum end
  table.sort(list, function(a, b) return a.p > b.p end)
  return list
end

check.case("draws follow the probabilities", function()
  local p <close> = compile()
  local g <close> = p:generator {}
  g:feed(ids_of(5))
  local count, squares = 6000, 0
  local seen = frequencies(g, count, { temperature = 1.5 })
  local list = ranked(g, 1.5)
  for _, x in ipairs(list) do
    local want = count * x.p
    squares = squares + ((seen[x.id] or 0) - want) ^ 2 / want
  end
  -- chi squared with 60 degrees of freedom: 124 has a chance of 2e-6
  check.truthy(squares < 124, "chi squared is " .. squares)
end)

check.case("top_k and top_p draw from the most probable alone", function()
  local p <close> = compile()
  local g <close> = p:generator {}
  g:feed(ids_of(5))
  local list, allowed = ranked(g, 2), {}
  for i = 1, 7 do allowed[list[i].id] = true end
  local seen = frequencies(g, 600, { temperature = 2, top_k = 7 })
  for id in pairs(seen) do check.truthy(allowed[id], "top_k: " .. id) end
  local share, kinds = 0, 0
  allowed = {}
  for _, x in ipairs(list) do
    if share >= .6 then break end
    share, kinds, allowed[x.id] = share + x.p, kinds + 1, true
  end
  seen = frequencies(g, 3000, { temperature = 2, top_p = .6 })
  local drawn = 0
  for id in pairs(seen) do
    check.truthy(allowed[id], "top_p: " .. id)
    drawn = drawn + 1
  end
  check.equal(drawn, kinds, "every id of the nucleus is drawn")
end)

check.case("each, stop and max end a text", function()
  local p <close> = compile()
  local all = p:generate(ids_of(3), { max = 12, seed = 3 })
  check.equal(#all, 12)
  local told = {}
  local some = p:generate(ids_of(3), { max = 12, seed = 3,
    each = function(id)
      told[#told + 1] = id
      if #told == 4 then return false end
    end })
  check.equal(#some, 4)
  check.equal(told[4], all[4])
  local first = 1
  while all[first] ~= all[5] do first = first + 1 end
  check.equal(#p:generate(ids_of(3), { max = 12, seed = 3, stop = all[5] }),
    first - 1)
  check.equal(#p:generate(ids_of(3), { max = 0 }), 0)
end)

check.case("a full cache slides on, or ends the text", function()
  local p <close> = compile()
  check.equal(#p:generate(ids_of(3), { max = 70, context = 16 }), 70)
  check.equal(#p:generate(ids_of(3), { max = 70, context = 16,
    slide = false }), 14)
  check.equal(#p:generate(ids_of(50), { max = 5, context = 16 }), 5)
  local g <close> = p:generator { context = 16 }
  local ids = p:generate(ids_of(3), { max = 30, context = 16,
    temperature = 0 })
  g:feed(ids_of(3))
  for i = 1, 30 do
    check.equal(g:sample { temperature = 0 }, ids[i], "id " .. i)
    if g:position() == 16 then g:slide(8) end
    g:feed { ids[i] }
  end
end)

check.case("a batch: every sequence its own text", function()
  local p <close> = compile()
  local g <close> = p:generator { batch = 3 }
  g:feed(ids_of(4))
  local rows = g:logits():table()
  for b = 2, 3 do
    for v = 1, 61 do check.equal(rows[b][v], rows[1][v]) end
  end
  local out = { {}, {}, {} }
  for _ = 1, 8 do
    local ids = g:sample { seed = 4, temperature = 2 }
    for b = 1, 3 do table.insert(out[b], ids:table()[b][1]) end
    g:feed(ids)
  end
  local a, b = table.concat(out[1], " "), table.concat(out[2], " ")
  check.truthy(a ~= b and b ~= table.concat(out[3], " "))
  check.equal(table.concat(p:generate(ids_of(4), { max = 8, seed = 4,
    temperature = 2 }), " "), a, "the first is what one alone gives")
end)

-- --- what is refused -------------------------------------------------------

check.case("errors say what is wrong", function()
  local p <close> = compile()
  local g <close> = p:generator { context = 8 }
  check.raises("there are no logits before an id was fed", g.logits, g)
  check.raises("there are no logits before an id was fed", g.sample, g)
  check.raises("generate: 9 ids after 0 do not fit a context of 8", g.feed, g,
    ids_of(9))
  check.raises("generate: id 61 is none of the vocabulary's 61", g.feed, g,
    { 3, 61 })
  check.raises("an id must be from 0 to 2147483647, got -1", g.feed, g, { -1 })
  check.raises("generate: no ids to feed", g.feed, g, {})
  check.raises("ids are a list of integers or i32 [1, n], got nothing",
    g.feed, g)
  check.raises("cannot go back to position 3 of 0", g.rewind, g, 3)
  check.raises("cannot keep 1 of 0 ids", g.slide, g, 1)
  g:feed { 1 }
  check.raises("unknown option 'temprature'; did you mean 'temperature'?",
    g.sample, g, { temprature = 1 })
  check.raises("top_p", g.sample, g, { top_p = 0 })
  check.raises("temperature", g.sample, g, { temperature = -1 })
  check.raises("no ids to feed", p.generate, p, {})
  check.raises("this program was compiled with plan = 'cuda'", function()
    local plan <close> = compile({}, { plan = "cuda" })
    plan:generator {}
  end)
end)

check.case("weights that are no numbers are told, not sampled", function()
  local p <close> = compile()
  p:assign("norm.weight", (gpu.zeros { 32 } / gpu.zeros { 32 }))
  local g <close> = p:generator {}
  g:feed { 1 }
  local e = check.raises("the logit of token 0 is not a number", g.sample, g)
  check.equal(e.code, "nan")
end)

check.case("a generator whose program is closed says so", function()
  local p = compile()
  local g <close> = p:generator {}
  p:close()
  check.raises("the program of this generator is closed", g.feed, g, { 1 })
  check.raises("the program of this generator is closed", g.memory, g)
  local q = compile()
  check.raises("", q.generate, q, ids_of(3), { max = 5,
    each = function() q:close() end })
end)

-- Attention without positions, of one head, out of operators: a layer that
-- looks back where no cache of ours shows anything.
local function looking_back(c)
  local embedding = nn.embedding { 61, c, std = .3, name = "embedding" }
  local own = nn.layer { name = "own",
    parameters = { q = { c, c, std = .3 }, v = { c, c, std = .3 } },
    forward = function(p, x)
      local scores = x:matmul(p.q):matmul(x, { transpose_b = true })
      return scores:softmax { causal = true }:matmul(x:matmul(p.v))
    end }
  return nn.sequential { embedding, nn.residual { own },
    nn.residual { nn.attention { c, heads = 2, rope = true,
      name = "attention" } },
    nn.rmsnorm { c }, nn.head { tied = embedding } }
end

check.case("layers written in Lua see the whole text, without a cache",
  function()
    local p <close> = gpu.compile(looking_back(16), { seq = SEQ, seed = 3 })
    against_losses(p, 2e-6)
    local g <close> = p:generator {}
    check.equal(g:memory().cache, 0)
    check.equal(g:memory().heads, 0)
    check.equal(#p:generate(ids_of(3), { max = 40, context = 16 }), 40)
  end)

check.case("a budget without room for the cache is an oom", function()
  local p <close> = compile()
  p:open()
  collectgarbage()
  local before = gpu.memory.stats().current
  gpu.memory.budget(before + 1000)
  local e = check.raises("budget", p.generator, p, { context = 100 })
  gpu.memory.budget(false)
  check.equal(e.code, "oom")
  check.equal(gpu.memory.stats().current, before)
end)

check.done()
