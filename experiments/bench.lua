-- How fast does this machine train, beside PyTorch, and where does the time
-- go? For each model and batch, in turn: ours, then the peer (the same model in
-- PyTorch, tests/torch_twin.py, where torch is found), then one table and the
-- operators that take the time.
--
--   llmhost experiments/bench.lua [key=value …] [--json]
--     models=nano only=small batch=8 variants=none,fp4 peer=no
local bench = require "llm.bench"
local benchtable = require "llm.benchtable"
local device = require "llm.device"
local host = require "host"
local keys = require "llm.keys"
local peer = require "llm.peer"
local profile = require "llm.profile"

local CPU = device.backend() == "cpu"

local o = keys.read {
  { "models", "string", "auto", "nano or full, the sweep's four models; by "
    .. "device", { words = { "auto", "nano", "full" } } },
  { "only", "string", "", "some of them, by commas" },
  { "batch", "string", "", "micro-batches, by commas; by device and models" },
  { "seq", "integer", 0, "context; 0: by models", { least = 0 } },
  { "accumulate", "integer", 0, "micro-batches of a step; 0: by device",
    { least = 0 } },
  { "steps", "integer", CPU and 3 or 20, "timed", { least = 1 } },
  { "warmup", "integer", CPU and 2 or 5, "steps before", { least = 1 } },
  { "variants", "string", "none", "rows of a model, by commas: none light "
    .. "block int8 fp8 fp4 fp4-light fp4-int8 fp4-fp8" },
  { "peer", "string", CPU and "eager,compile" or "stream", "ways to run "
    .. "PyTorch, by commas, the fastest counts: eager compile graphs autotune "
    .. "chunked cudnn stream; no: ours alone" },
  { "together", "integer", 1, "peers that compile at once", { least = 1 } },
  { "rows", "integer", 12, "operators of a profile; 0: no profile",
    { least = 0 } },
  { "precision", "string", "auto", "arithmetic" },
  { "tune", "string", "auto", "a GPU's algorithms chosen by measuring, once; "
    .. "off", { words = { "auto", "off" } } },
  { "dropout", "string", "0.1", "share of activations dropped" },
  { "head_chunk", "integer", 0, "rows of logits at a time; 0: by device",
    { least = 0 } },
  { "fuse_group", "integer", 0, "matrices orthogonalized at once; 0: by device",
    { least = 0 } },
  { "after", "string", "", "nothing is timed before this file exists" },
  { "child", "string", "", "", { hidden = true } },
}

local function usage(...) host.raise("usage", "bench: " .. ...) end

local function words_of(text, known, what)
  local list = {}
  for word in text:gmatch "[^,%s]+" do
    if known and not known[word] then
      local names = {}
      for name in pairs(known) do names[#names + 1] = name end
      table.sort(names)
      usage(("%s=%s is none of %s"):format(what, word,
        table.concat(names, ", ")))
    end
    list[#list + 1] = word
  end
  return list
end

-- What depends on the models: the sweep's own sizes.
local function settle()
  if o.models == "auto" then o.models = CPU and "nano" or "full" end
  if not profile[o.models] or not profile[o.models].models then
    usage("models=" .. o.models .. " is none of " .. table.concat(
      profile.names, ", "))
  end
  local nano = o.models == "nano"
  o.seq = o.seq > 0 and o.seq or nano and 256 or 512
  o.accumulate = o.accumulate > 0 and o.accumulate
    or not CPU and 1 or nano and 4 or 8
  if o.batch == "" then o.batch = not CPU and "96,24" or nano and "8" or "4" end
  o.vocab = nano and 4096 or 49152
end

local function configuration(row, batch, variant)
  local c = { row = row, vocab = o.vocab, batch = batch, seq = o.seq,
    accumulate = o.accumulate, dropout = tonumber(o.dropout),
    precision = o.precision, steps = o.steps, warmup = o.warmup,
    profile = o.rows > 0 and 3 or 0, tune = o.tune ~= "off",
    head_chunk = o.head_chunk > 0 and o.head_chunk or nil,
    fuse_group = o.fuse_group > 0 and o.fuse_group or nil }
  for key, value in pairs(bench.variants[variant]) do c[key] = value end
  return c
end

-- Everything to measure, in order; the first of a model and batch has the peer.
local function entries_of()
  local list, chosen = {}, {}
  for _, name in ipairs(words_of(o.only)) do chosen[name] = true end
  for _, row in ipairs(profile[o.models].models) do
    if not next(chosen) or chosen[row.name] then
      for _, batch in ipairs(words_of(o.batch)) do
        batch = math.tointeger(batch)
        if not batch or batch < 1 then usage "batch must be whole numbers" end
        for i, variant in ipairs(words_of(o.variants, bench.variants,
          "variants")) do
          list[#list + 1] = { c = configuration(row, batch, variant),
            variant = variant, first = i == 1, cpu = CPU,
            name = ("%s, %d, %s"):format(row.name, batch, variant) }
        end
      end
    end
  end
  if #list == 0 then usage("only=" .. o.only .. " names no model") end
  return list
end

local function say(text)
  io.stderr:write(text, "\n")
  io.stderr:flush()
end

-- Ours, in a process of its own: its memory and its start are part of it.
local function ours(entry)
  local c = entry.c
  c.began = host.clock()
  local p = assert(host.process.spawn { host.process.executable(), "--device",
    device.name(), host.options.script, "child=" .. host.json.encode(c),
    stdin = "null", stdout = "pipe", stderr = "pipe" })
  local last
  for text in function() return p:read_line(600) end do last = text end
  local said = p:read_error_line(0)
  p:wait(10)
  p:close()
  local r = last and host.json.decode(last)
  if type(r) ~= "table" then
    entry.note = ("%s: %s"):format(entry.name, said or last or "no result")
    say(entry.note)
    return
  end
  entry.ours = r
  say(benchtable.progress(entry.name, r))
  if r.throttled then
    entry.note = entry.name .. ": the device lowered its clocks (" .. r.reasons
      .. ")"
  end
end

local absent -- why no peer can be had at all

local function keep_best(entry, r)
  say(benchtable.progress(entry.name .. ", PyTorch " .. r.setting, r))
  entry.peers = entry.peers or {}
  entry.peers[#entry.peers + 1] = r
  if not entry.peer
    or r.tokens_per_second > entry.peer.tokens_per_second then
    entry.peer = r
  end
end

local LIMIT = 900 -- seconds a peer may compile

-- Start the peers of some entries and wait until all are compiled and idle.
local function prepare(entries, settings)
  for _, entry in ipairs(entries) do
    entry.waiting = {}
    for _, setting in ipairs(entry.first and not absent and settings or {}) do
      local job = { setting = setting }
      job.peer, job.why = peer.start(entry.c, setting, device.name())
      entry.waiting[#entry.waiting + 1] = job
    end
  end
  for _, entry in ipairs(entries) do
    for _, job in ipairs(entry.waiting) do
      job.ok = job.peer and true
      if job.ok then job.ok, job.why = job.peer:ready(LIMIT) end
      if job.why and job.why:find("No module named", 1, true) then
        absent = job.why
      end
    end
  end
end

-- The peers of an entry, one after the other.
local function time_peers(entry)
  for _, job in ipairs(entry.waiting) do
    local r = nil
    if job.ok then r, job.why = job.peer:time(LIMIT) end
    if r then keep_best(entry, r)
    else say(("%s, PyTorch %s: %s"):format(entry.name, job.setting,
      job.why)) end
  end
  entry.waiting = nil
end

local function wait_for(path)
  while path ~= "" and not host.file.exists(path) do host.sleep(.2) end
end

-- Entries until `count` peers are theirs.
local function group_from(entries, at, settings, count)
  local group, peers = {}, 0
  repeat
    group[#group + 1] = entries[at]
    peers = peers + (entries[at].first and #settings or 0)
    at = at + 1
  until not entries[at] or entries[at].first and peers + #settings > count
  return group, at
end

-- Everything in turn, the peers of a group ready before its first turn.
local function run(entries)
  local settings = o.peer ~= "no"
    and words_of(o.peer, peer.settings, "peer") or {}
  local at = 1
  while entries[at] do
    local group, next_at = group_from(entries, at, settings, o.together)
    at = next_at
    prepare(group, settings)
    wait_for(o.after)
    for _, entry in ipairs(group) do
      ours(entry)
      time_peers(entry)
    end
  end
  local last
  for _, entry in ipairs(entries) do -- variants share their model's peer
    if entry.first then last = entry.peer end
    entry.peer = last
  end
end

local function print_all(entries)
  print(("device %s: %s, %s"):format(device.name(),
    (entries[1].ours or {}).device or "?", tostring(require("gpu").version
    .build)))
  for _, line in ipairs(benchtable.lines(entries)) do print(line) end
  for _, line in ipairs(benchtable.legend(entries[1])) do print(line) end
  if absent then
    print("no peer: PyTorch was not found (" .. absent
      .. "); LLMHOST_PYTHON names the python that has it")
  end
  for _, entry in ipairs(entries) do
    if entry.ours and entry.ours.operators then
      print("")
      for _, line in ipairs(benchtable.profile(entry, o.rows)) do
        print(line)
      end
    end
  end
end

if o.child ~= "" then
  local c = assert(host.json.decode(o.child))
  print(host.json.encode(bench.measure(c)))
else
  settle()
  local entries = entries_of()
  run(entries)
  if host.options.json then
    print(host.json.encode(host.json.array(entries), { indent = 2 }))
  else
    print_all(entries)
  end
end
