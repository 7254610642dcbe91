-- Runs a part of the program again and again under alloc.so, each time with
-- another allocation failing, alone and with all after it: from FROM, every
-- STRIDE-th, until none is left.
--
--   LD_PRELOAD=alloc.so llmhost alloc.lua alloc.so FOLDER PART FROM STRIDE
--
-- Writes `at N` before each run (what follows a crash is what it was), a line
-- `wrong N: …` for what is not a clean end, and `done CALLS RUNS ERRORS`.
local gpu = require "gpu"
local host = require "host"
local tiny = require "tiny"

local alloc = assert(package.loadlib(arg[1], "luaopen_alloc"))()
local folder, part = arg[2], arg[3]
local from, stride = math.tointeger(tonumber(arg[4])),
  math.tointeger(tonumber(arg[5]))

-- What a call gave, or its failure raised as an error with its code.
local function must(ok, message, code, ...)
  if ok == nil or ok == false then
    error({ code = code, message = tostring(message) }, 0)
  end
  return ok, message, code, ...
end

-- --- the parts: each gives a text that is the same every time -------------

local parts = {}

function parts.files()
  local file, at = host.file, folder .. "/files"
  must(file.mkdir(at .. "/a/b"))
  must(file.write(at .. "/a/one", "one"))
  must(file.append(at .. "/a/one", " two", true))
  must(file.rename(at .. "/a/one", at .. "/a/two"))
  local out = must(file.read(at .. "/a/two")) .. must(file.crc32(at
    .. "/a/two")) .. #must(file.list(at)) .. #must(file.glob(at .. "/a/*"))
  must(file.realpath(at))
  must(file.remove_tree(at))
  return out
end

function parts.json()
  local v = must(host.json.decode('{"a":[1,2.5,"x\\u00e9"],"b":{"c":null}}'))
  return must(host.json.encode(v, { indent = 2 }))
end

function parts.journal()
  local path = folder .. "/journal"
  host.file.remove(path)
  local j <close> = must(host.journal.open(path))
  for i = 1, 3 do must(j:append { type = "x", i = i }) end
  local records = must(host.journal.read(path))
  return #records .. "," .. records[3].i
end

function parts.processes()
  local _ <close> = must(host.lock(folder .. "/lock", 0))
  local p <close> = must(host.process.spawn { "/bin/echo", "hello",
    stdout = "pipe", stderr = "pipe" })
  local line, why = p:read_line(10)
  must(p:wait(10))
  return line or error({ code = why, message = "no line" }, 0)
end

function parts.tensors()
  local a = gpu.tensor { { 1, 2 }, { 3, 4 } }
  local b = a:matmul(a) + a
  local path = folder .. "/t.safetensors"
  must(gpu.save(path, { a = a, b = b }))
  local t = must(gpu.load(path))
  return ("%a"):format(t.b:sum():item())
end

function parts.program()
  local at = folder .. "/program"
  must(host.file.mkdir(at))
  local p <close> = must(tiny.compile { quantize = "nf4r", accumulate = 2 })
  local out = tiny.run(p, 1, 2)
  local x, y = tiny.batch(3)
  out = ("%s %a"):format(out, p:evaluate(x, y).loss)
  must(p:save(at))
  must(p:load(at))
  return out .. tiny.run(p, 3, 3) .. p:memory().peak
end

function parts.generate()
  local p <close> = must(tiny.compile { optimizer = false })
  return table.concat(p:generate({ 1, 2, 3 }, { max = 6, seed = 3 }), ",")
end

function parts.gradients()
  local a, b = gpu.tensor { { 1, 2 }, { 3, 4 } }, gpu.tensor { { 5, 6 } }
  local d = gpu.grad(function(x, y) return (x * y):tanh():sum() end, { a, b })
  return ("%a %a"):format(d[1]:sum():item(), d[2]:sum():item())
end

local function texts()
  local at = folder .. "/texts"
  if host.file.exists(at) then return at end
  assert(host.file.mkdir(at))
  for i = 1, 6 do
    local words = {}
    for k = 1, 400 do words[k] = ("w%d"):format(k * i * 7919 % 97) end
    assert(host.file.write(("%s/%d.txt"):format(at, i),
      table.concat(words, " ")))
  end
  return at
end

function parts.text()
  local text, path = host.text, folder .. "/tokenizer.json"
  local corpus = must(text.corpus { source = texts(), validation = .2 })
  local t = must(text.tokenizer { train = corpus, vocab = 280 })
  must(t:save(path))
  local again = must(text.tokenizer { file = path })
  local ids = must(again:encode "w1 w2 w35 and more")
  return again:decode(ids) .. table.concat(ids, ",")
end

function parts.prepare()
  local cache = folder .. "/cache"
  host.file.remove_tree(cache)
  local r = must(host.text.prepare { source = texts(), vocab = 280,
    validation = .2, cache = cache })
  local tokens = must(host.text.tokens { r.train_path })
  local l = must(host.text.loader(tokens, { batch = 2, seq = 8, seed = 1 }))
  return table.concat(tokens:get(1, 20), ",") .. tostring(l ~= nil)
end

function parts.jsonl()
  local path = folder .. "/rows.jsonl"
  if not host.file.exists(path .. ".gz") then
    local row = '{"text":"w1 w2 \\u00e9 and some more"}\n'
    assert(host.file.write(path, row:rep(50)))
    assert(os.execute("gzip -k " .. path))
  end
  local out = {}
  for i, name in ipairs { path, path .. ".gz" } do
    local corpus <close> = must(host.text.corpus { source = name })
    out[i] = corpus:count() .. " " .. corpus:bytes()
  end
  return table.concat(out, ",")
end

-- --- the loop ---------------------------------------------------------------

local function collect()
  collectgarbage()
  collectgarbage()
  gpu.memory.trim()
end

local function clean(err)
  if type(err) == "table" or type(err) == "userdata" then
    local ok, code = pcall(function() return err.code end)
    if ok and code == "oom" then return true end
  end
  local text = type(err) == "table" and err.message or tostring(err)
  return text:find "out of memory" or text:find "not enough memory"
    or text:find "Cannot allocate memory"
end

local function say(format, ...)
  io.stdout:write(format:format(...), "\n")
  io.stdout:flush()
end

local function describe(err)
  if type(err) ~= "table" then return tostring(err) end
  return ("%s (%s)"):format(err.message, err.code)
end

local body = parts[part]
local want = body()
collect()
assert(body() == want, "not the same twice")
collect()
alloc.mark()
alloc.arm(0)
body()
local calls = alloc.calls()
collect()
for _, text in ipairs(alloc.left()) do say("wrong 0: left %s", text) end

local runs, errors = 0, 0
local function try(n, lasting)
  alloc.mark()
  alloc.arm(n, lasting)
  local ok, got = pcall(body)
  alloc.arm(0)
  runs, errors = runs + 1, errors + (ok and 0 or 1)
  if ok and got ~= want then
    say("wrong %d: another result: %s", n, got)
  elseif not ok and not clean(got) then
    say("wrong %d: %s", n, describe(got))
  end
  collect()
  for _, text in ipairs(alloc.left()) do say("wrong %d: left %s", n, text) end
end

for n = from, calls, stride do
  say("at %d", n)
  try(n, false)
  try(n, true)
end
local ok, got = pcall(body)
if not ok or got ~= want then
  say("wrong 0: no longer works: %s", describe(got))
end
say("done %d %d %d", calls, runs, errors)
