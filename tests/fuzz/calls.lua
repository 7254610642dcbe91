-- Random calls of every function and method of `gpu` and `host` with random
-- arguments: whatever comes back, nothing may crash, and errors are objects
-- with a code. Files are touched below the current folder alone.
--
--   cd SCRATCH && llmhost …/calls.lua [COUNT] [SEED]
local docs = require "llm.docs"
local gpu = require "gpu"
local host = require "host"

local COUNT = tonumber(arg[1]) or 10000
local SEED = tonumber(arg[2]) or 1
local BUDGET = 64 << 20

-- What ends processes, waits, reaches other processes or the network, or is
-- only a longer way to do what others do.
local LEFT_OUT = { ["host.process.signal"] = true, ["host.sleep"] = true,
  ["host.process.on_stdin_close"] = true, ["host.fetch"] = true,
  ["host.process:kill"] = true, ["host.process:signal"] = true,
  ["host.web:run"] = true, ["gpu.peaks"] = true, ["host.raise"] = true,
  ["gpu.program:profile"] = true, ["gpu.program:time"] = true,
  ["host.lock"] = true, ["host.terminal.progress"] = true }

-- Seconds when they read this machine's text: called one time in fifty.
local SLOW = { ["host.text.prepare"] = true, ["host.text.corpus"] = true,
  ["host.text.tokenizer"] = true }

math.randomseed(SEED)
local random = math.random
local function pick(list) return list[random(#list)] end

-- --- what there is to call ---------------------------------------------------
local function sorted_pairs(t)
  local keys = docs.sorted(t)
  local i = 0
  return function()
    i = i + 1
    return keys[i], t[keys[i]]
  end
end

-- { name, call(arguments…), options } of everything documented.
local function targets()
  local list = {}
  for path, entries in sorted_pairs(docs.registered()) do
    local module = docs.module(path)
    for _, entry in ipairs(entries) do
      local f = module and rawget(module, entry.name)
      local name = path .. (f and "." or ":") .. entry.name
      if not LEFT_OUT[name] and type(f or entry.name) ~= "table" then
        list[#list + 1] = { name = name, f = f, method = entry.name,
          class = not f and path or nil, options = entry.options }
      end
    end
  end
  return list
end

-- --- arguments ---------------------------------------------------------------
local function layer()
  local nn = gpu.nn
  return pick { nn.linear { random(8), random(8) }, nn.rmsnorm { random(8) },
    nn.embedding { random(8), random(8) } }
end

local function small_program()
  local nn = gpu.nn
  local e = nn.embedding { 8, 4, name = "embedding" }
  return gpu.compile(nn.sequential { e, nn.attention { 4, heads = 1,
    name = "blocks.1" }, nn.rmsnorm { 4 }, nn.head { tied = e } },
    { batch = random(2), seq = 4, accumulate = random(2),
      optimizer = gpu.optim.adamw { lr = .1 } })
end

local DTYPES = { "f32", "bf16", "f16", "i32", "i8", "u8", "e4m3", "u4" }
local FILES = { "a", "b.txt", "c.jsonl", "d.safetensors", "e/f",
  "tokenizer.json", "merges.txt", "", "none/there" }
local WORDS = { "", "f32", "cpu", "cuda:0", "block", "nf4r", "*", "a.b",
  "%d%s", "\0", "\u{e9}", ("x"):rep(300), "1GB", "-1", "weight", "none" }
local NUMBERS = { 0, 1, 2, 3, 4, 5, 7, 8, 16, -1, -2, 64, 1 << 20, 1 << 31,
  1 << 40, 1 << 53, math.maxinteger, math.mininteger, .5, -.5, 1e-9, 1e300,
  0 / 0, 1 / 0, -1 / 0, 1.0, 2.0 }

local function tensor()
  local shape = {}
  for i = 1, random(0, 4) do shape[i] = random(0, 5) end
  shape.dtype = pick(DTYPES)
  local ok, t = pcall(pick { gpu.zeros, gpu.ones, gpu.randn }, shape)
  return ok and t or nil -- the budget may be anything now
end

local held = {} -- objects that earlier calls gave, by class and all together

local function hold(v)
  if type(v) ~= "userdata" then return end
  local class = (getmetatable(v) or {}).__name
  if not class then return end
  local list = held[class] or {}
  held[class] = list
  list[#list < 6 and #list + 1 or random(6)] = v
end

local value

local function options_table(t)
  local out = {}
  for _ = 1, random(0, 3) do out[#out + 1] = value(2) end
  for _ = 1, random(0, 3) do
    local o = t.options and #t.options > 0 and pick(t.options)
    local name = type(o) == "table" and o.name or pick(WORDS)
    out[name or "x"] = value(2)
  end
  return out
end

local function object()
  local classes = docs.sorted(held)
  return #classes > 0 and pick(held[pick(classes)]) or tensor()
end

local MAKERS = {
  function() return nil end,
  function() return random() < .5 end,
  function() return pick(NUMBERS) end,
  function() return random(0, 5) end,
  function() return random(1, 3) end,
  function() return pick(WORDS) end,
  function() return pick(FILES) end,
  tensor, tensor, layer, object, object,
  function() return function(...) return ... end end,
  function() return coroutine.create(print) end,
}

function value(depth, t)
  local n = random(#MAKERS + (depth < 2 and 3 or 1))
  if n <= #MAKERS then return MAKERS[n]() end
  if depth > 2 then return {} end
  return options_table(t or {})
end

local function arguments(t)
  local list = { n = random(0, 4) }
  for i = 1, list.n do list[i] = value(1, t) end
  if t.options and random() < .6 then
    list.n = math.max(list.n, 1)
    list[list.n] = options_table(t)
  end
  return list
end

-- --- calling -----------------------------------------------------------------
local function self_of(class)
  local list = held[class]
  return list and random() < .95 and pick(list) or value(1)
end

local function method(t)
  local self = self_of(t.class)
  return function(...) return self[t.method](self, ...) end
end

local LUA_OWN = { "attempt to", "bad argument", "stack overflow",
  "not enough memory", "cannot resume", "no value", "wrong number",
  "protected metatable", "table expected" }

-- An error is an object with a code, or Lua's own about a value of the wrong
-- kind.
local function proper(err)
  if type(err) == "table" or type(err) == "userdata" then
    return type(err.code) == "string"
  end
  err = tostring(err)
  for _, words in ipairs(LUA_OWN) do
    if err:find(words, 1, true) then return true end
  end
end

local function check(t, ok, ...)
  if not ok and not proper((...)) then
    error(("%s raised %s: %s"):format(t.name, type((...)),
      tostring((...))), 0)
  end
  if ok then for i = 1, math.min(select("#", ...), 3) do
    hold((select(i, ...)))
  end end
  return ok
end

local function refresh()
  held = {}
  collectgarbage()
  gpu.memory.budget(BUDGET)
  for _ = 1, 4 do hold(tensor()) end
  hold(layer())
  hold(small_program())
  hold(gpu.optim.adamw { lr = .1 })
  hold(gpu.quant.nf4(gpu.randn { 8, 16 }))
  local corpus = host.text.corpus { source = "text" }
  if corpus then
    hold(corpus)
    hold(host.text.tokenizer { train = corpus, vocab = 270 })
  end
  hold(host.process.spawn { "true" })
end

local function run()
  local list, good, last = targets(), {}, io.open("last-call", "w")
  host.file.mkdir("text")
  for i = 1, 3 do
    host.file.write(("text/%d.txt"):format(i), ("one two %d\n"):rep(40):format(
      i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i,
      i, i, i, i, i, i, i, i, i, i, i, i, i, i, i, i))
  end
  local answered = 0
  for i = 1, COUNT do
    if i % 500 == 1 then refresh() end
    local t = pick(list)
    while SLOW[t.name] and random(50) > 1 do t = pick(list) end
    if i % 16 == 0 then
      last:seek("set")
      last:write(("%-60s %d\n"):format(t.name, i))
    end
    local f = t.f or method(t)
    local list_ = arguments(t)
    if check(t, pcall(f, table.unpack(list_, 1, list_.n))) then
      answered, good[t.name] = answered + 1, true
    end
  end
  local reached = #docs.sorted(good)
  print(("%d calls of %d functions, seed %d: %d answered, by %d of them; the "
    .. "rest raised proper errors"):format(COUNT, #list, SEED, answered,
    reached))
end

run()
