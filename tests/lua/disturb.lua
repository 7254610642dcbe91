-- A sweep that is killed or whose disk fails, started again until it ends, and
-- compared with an undisturbed one: bit for bit, but for what time decides.
local host = require "host"
local metrics = require "llm.metrics"
local micro = require "micro"
local results = require "llm.results"
local state = require "llm.state"

local disturb = {}

disturb.NAMES = { "m_plain", "m_fp4" }

-- Plots, a second of drawing, are no part of what is compared.
local SCRIPT = [[
package.preload.plots = function() error "left out" end
return require("llm.sweep") {
  name = "disturbed", profile = "nano",
  models = { { name = "m", d_model = 64, n_layers = 1, n_heads = 2,
    d_ff = 64 } },
  matrix = { { name = "plain" }, { name = "fp4", fp4 = true } },
  train = { steps = 6, seq = 16, tokens_per_step = 64, eval_tokens = 64,
    evaluations = 3, checkpoint_seconds = 0, hang_seconds = 60,
    keep_best = true, batch = 2 },
  memory = { budget = "100MB" },
  search = { candidates = 0, timed_steps = 1 },
  data = { source = "text", vocab = 300, tokens = 2000 },
  out = "out",
}
]]

-- A fresh folder with text and script.
function disturb.folder(name)
  local root = micro.folder(name)
  assert(host.file.write(root .. "/sweep.lua", SCRIPT))
  return root
end

-- Start the sweep, with variables for its environment, and further words.
function disturb.start(root, env, words)
  return assert(host.process.spawn { host.process.executable(), "sweep.lua",
    cwd = root, stdin = "null", stdout = "pipe", stderr = "pipe", env = env,
    table.unpack(words or {}) })
end

-- --- what is compared -------------------------------------------------------

-- Of what a sweep writes, what differs between two undisturbed ones: seconds,
-- what follows from them, and this process's own memory.
local OF_TIME = { "seconds", "per_second", "^time$", "spread", "^paces$",
  "^process_", "^resident", "^fastest$", "^verdict$", "^attempts$", "^date$",
  "model_flops_utilization" }

local function of_time(key)
  for _, pattern in ipairs(OF_TIME) do
    if type(key) == "string" and key:find(pattern) then return true end
  end
  return false
end

local function timeless(v)
  if type(v) ~= "table" then return v end
  local out = {}
  for key, x in pairs(v) do
    if not of_time(key) then out[key] = timeless(x) end
  end
  return out
end

local function text_of(v) return host.json.encode(timeless(v)) end

local function names_in(folder)
  local names = {}
  for _, name in ipairs(host.file.list(folder) or {}) do
    names[#names + 1] = name:match "[^/]+$"
  end
  table.sort(names)
  return names
end

local function add_checkpoints(into, run)
  for _, name in ipairs(names_in(run .. "/checkpoints")) do
    local folder = run .. "/checkpoints/" .. name
    into[folder] = table.concat(names_in(folder), " ")
    for _, file in ipairs { "model", "training" } do
      local path = ("%s/%s.safetensors"):format(folder, file)
      into[path] = ("%s of %s bytes"):format(host.file.crc32(path),
        host.file.size(path))
    end
    local saved = host.json.decode(host.file.read(folder .. "/state.json")
      or "null")
    saved = state.strip(saved) or {}
    saved.crc32 = nil -- it covers the seconds, too
    into[folder .. "/state.json"] = text_of(saved)
  end
end

-- metrics.csv without its columns of time.
local function csv(path)
  local heads, out = nil, {}
  for line in (host.file.read(path) or ""):gmatch "[^\n]+" do
    local cells, kept = {}, {}
    for cell in (line .. ","):gmatch "([^,]*)," do cells[#cells + 1] = cell end
    heads = heads or cells
    for i, cell in ipairs(cells) do
      if not of_time(heads[i]) then kept[#kept + 1] = cell end
    end
    out[#out + 1] = table.concat(kept, ",")
  end
  return table.concat(out, "\n")
end

-- All that must be the same, by what it is: texts.
function disturb.snapshot(root)
  local out, all = root .. "/out", {}
  all.results = text_of(host.json.decode(
    host.file.read(out .. "/experiment_results.json") or "null"))
  local list = results.read(out)
  all.journal = text_of(host.json.decode(results.encode(list or {})))
  for _, name in ipairs(disturb.NAMES) do
    local run = out .. "/runs/" .. name
    local records = {}
    for i, r in ipairs(metrics.read(run)) do records[i] = text_of(r) end
    all[run .. "/metrics.jsonl"] = table.concat(records, "\n")
    all[run .. "/metrics.csv"] = csv(run .. "/metrics.csv")
    all[run .. "/events"] = tostring(host.file.size(run
      .. "/events.out.tfevents.llmhost"))
    all[run .. "/config.json"] = host.file.read(run .. "/config.json")
    add_checkpoints(all, run)
  end
  local plain = {}
  for key, text in pairs(all) do
    plain[key:gsub("^" .. root:gsub("%p", "%%%0") .. "/", "")] = text
  end
  return plain
end

-- The names of what differs, with the first place where it does.
function disturb.differences(got, want)
  local seen, out = {}, {}
  for _, t in ipairs { got, want } do
    for key in pairs(t) do seen[key] = true end
  end
  for key in pairs(seen) do
    local a, b = got[key] or "(absent)", want[key] or "(absent)"
    if a ~= b then
      local at = 1
      while a:byte(at) == b:byte(at) do at = at + 1 end
      out[#out + 1] = ("%s: %q for %q"):format(key,
        a:sub(math.max(1, at - 40), at + 40),
        b:sub(math.max(1, at - 40), at + 40))
    end
  end
  table.sort(out)
  return out
end

-- --- what must not be left --------------------------------------------------

-- Ids of the processes that run in a folder; by `word`, only those with it
-- among their arguments.
function disturb.processes(root, word)
  local here, found = host.file.realpath(root), {}
  for _, name in ipairs(names_in "/proc") do
    if name:find "^%d+$"
      and host.file.realpath("/proc/" .. name .. "/cwd") == here then
      local line = host.file.read("/proc/" .. name .. "/cmdline") or ""
      if line ~= "" and (not word or line:find(word, 1, true)) then
        found[#found + 1] = math.tointeger(name)
      end
    end
  end
  return found
end

local function temporaries(folder, found)
  for _, name in ipairs(names_in(folder)) do
    local path = folder .. "/" .. name
    if name:find "%.tmp%.%d+$" then found[#found + 1] = path end
    if not name:find "%." then temporaries(path, found) end
    if name:find "^step%-" then temporaries(path, found) end
  end
end

-- What the end of a sweep must not leave: temporary files, processes, locks
-- that are held, journal lines that are damaged, runs that never ended or
-- ended twice. names: of the experiments. A list of texts.
function disturb.leftovers(root, names)
  local found = {}
  temporaries(root, found)
  for _, pid in ipairs(disturb.processes(root)) do
    found[#found + 1] = "process " .. pid
  end
  local locks = { root .. "/out/lock" }
  for _, name in ipairs(names or disturb.NAMES) do
    locks[#locks + 1] = ("%s/out/runs/%s/lock"):format(root, name)
  end
  for _, path in ipairs(locks) do
    local lock = host.lock(path, 0)
    if lock then lock:close() else found[#found + 1] = path .. " is held" end
  end
  local records, info = host.journal.read(root .. "/out/journal.jsonl")
  if #info.damaged > 0 then found[#found + 1] = "damaged journal lines" end
  local over = {}
  for i, r in ipairs(records) do
    if r.seq ~= i then found[#found + 1] = "journal: seq " .. r.seq end
    if r.type == "start" and over[r.name] then
      found[#found + 1] = r.name .. " ran again after its end"
    elseif r.type == "end" and r.status == "ok" then
      over[r.name] = true
    end
  end
  for _, name in ipairs(names or disturb.NAMES) do
    if not over[name] then found[#found + 1] = name .. " has no end" end
  end
  return found
end

-- --- the campaign of kills --------------------------------------------------

local function kill(pid)
  local start = host.process.start_time(pid)
  return start and host.process.signal(pid, start, "KILL") or false
end

-- Kill who ("child", "parent" or "both") of the sweep `p`; gives how many were
-- there to be killed.
local function kill_one(p, root, who)
  local children = who ~= "parent" and disturb.processes(root, "--experiment")
    or {}
  local n = 0
  if who == "child" and #children == 0 then return 0 end
  if who ~= "child" then
    p:kill "KILL"
    n = n + 1
  end
  for _, pid in ipairs(children) do
    if kill(pid) then n = n + 1 end
  end
  return n
end

local WHO = { "child", "parent", "both" }

-- Start the sweep in `root` and kill once after `delay` seconds, unless it has
-- ended by then. Gives the kills made and how the sweep ended, with its output.
local function attempt(root, delay, who)
  local p = disturb.start(root)
  local began, killed, ended = host.clock(), 0, nil
  while host.clock() - began < delay and not ended do
    ended = p:wait(math.min(.05, delay))
    while p:read_line(0) do end
    while p:read_error_line(0) do end
  end
  while not ended and killed == 0 do
    killed = kill_one(p, root, who)
    if killed == 0 then ended = p:wait(.01) end
  end
  local status, out, err = micro.finish(p)
  return killed, ended or status, out .. err
end

local function add(list, more)
  for _, text in ipairs(more) do list[#list + 1] = text end
end

-- Start and kill a sweep in `root` again and again, at most `left` times, and
-- then let it end.
local function torment(root, left, sums)
  local status, text
  repeat
    local delay = left > 0 and math.random() * sums.span or math.huge
    local who = WHO[math.random(#WHO)]
    local n
    n, status, text = attempt(root, delay, who)
    left, sums.starts = left - 1, sums.starts + 1
    if n > 0 then
      sums.kills, sums[who] = sums.kills + 1, sums[who] + 1
      sums.processes = sums.processes + n
    elseif status.exit ~= 0 and left < -3 then
      return add(sums.differences, { "never ends well: " .. text })
    end
  until status.exit == 0
end

-- Run sweeps until `count` kills were made, each sweep killed up to `most`
-- times and then left to end; what is random follows from `seed`. told(sums):
-- progress. Gives { kills, processes (killed), sweeps, starts, child, parent,
-- both (kills of each), differences, leftovers (lists), seconds }.
function disturb.kills(count, most, seed, told)
  math.randomseed(seed, 0)
  local began, whole = host.clock(), disturb.folder "undisturbed"
  local status, out, err = micro.finish(disturb.start(whole))
  assert(status.exit == 0, out .. err)
  local want = disturb.snapshot(whole)
  local sums = { kills = 0, processes = 0, sweeps = 0, starts = 0,
    child = 0, parent = 0, both = 0, differences = {}, leftovers = {},
    span = host.clock() - began }
  host.file.remove_tree(whole)
  while sums.kills < count do
    local root = disturb.folder "killed"
    sums.sweeps = sums.sweeps + 1
    torment(root, math.random(most), sums)
    add(sums.leftovers, disturb.leftovers(root))
    add(sums.differences, disturb.differences(disturb.snapshot(root), want))
    if told then told(sums) end
    host.file.remove_tree(root)
  end
  sums.seconds = host.clock() - began
  return sums
end

-- --- the campaign of faults -------------------------------------------------

-- Who may be meant, as LLMHOST_FAIL_WRITE names a process.
local SIDES = { parent = "!--experiment", child = "--experiment" }
-- What a call's failure looks like to the program.
local WORDS = { ENOSPC = "No space left on device",
  EIO = "Input/output error", torn = "No space left on device" }
-- One experiment of three steps has every kind of file.
local SMALL = { "only=m_fp4", "train.steps=3", "train.evaluations=1" }

-- Every output call of an undisturbed small sweep: { who, n, call }, and its
-- folder.
local function calls_of()
  local root = disturb.folder "calls"
  local status, out, err = micro.finish(disturb.start(root,
    { LLMHOST_FAIL_LOG = root .. "/calls" }, SMALL))
  assert(status.exit == 0, out .. err)
  local list, first = {}, nil
  for pid, n, call in host.file.read(root .. "/calls"):gmatch
    "(%d+) (%d+) pass (%a+)[^\n]*\n" do
    first = first or pid
    list[#list + 1] = { who = pid == first and "parent" or "child",
      n = math.tointeger(n), call = call }
  end
  return list, root
end

-- Each call with each kind of fault that it can have.
local function faults_of(calls)
  local list = {}
  for _, c in ipairs(calls) do
    for _, kind in ipairs(c.call == "write"
      and { "ENOSPC", "EIO", "torn", "short" } or { "ENOSPC", "EIO" }) do
      list[#list + 1] = { who = c.who, n = c.n, call = c.call, kind = kind }
    end
  end
  return list
end

local function shuffle(list)
  for i = #list, 2, -1 do
    local j = math.random(i)
    list[i], list[j] = list[j], list[i]
  end
end

-- What is wrong with how a sweep ended that a fault stopped; nil when nothing.
local function unclear(root, fault, status, text)
  if status.exit ~= 1 then return "exit " .. tostring(status.exit) end
  if not text:find(WORDS[fault.kind] or "?", 1, true) then
    return "the message does not say why"
  end
  local s = state.read(root .. "/out/journal.jsonl")
  local known = s and s.experiments.m_fp4
  if fault.who == "child" and known.status ~= "disk" then
    return "journaled as " .. known.status
  end
end

-- Whether a difference is an older checkpoint that could not be removed.
local function is_kept(text)
  return text:find "^out/runs/m_fp4/checkpoints/step%-"
    and text:find(' for "(absent)"', 1, true) ~= nil
end

-- Let one call fail; when that stops the sweep, start it again.
local function fault_one(fault, want, sums)
  local root = disturb.folder "faulted"
  local label = ("%s call %d (%s) %s: "):format(fault.who, fault.n,
    fault.call, fault.kind)
  local function put(list, text) table.insert(list, label .. text) end
  local status, out, err = micro.finish(disturb.start(root, {
    LLMHOST_FAIL_WRITE = ("%d:%s@%s"):format(fault.n, fault.kind,
      SIDES[fault.who]) }, SMALL))
  if status.exit == 0 then
    sums.absorbed = sums.absorbed + 1
  else
    sums.stopped = sums.stopped + 1
    local wrong = unclear(root, fault, status, out .. err)
    if wrong then put(sums.unclear, wrong .. ": " .. out:sub(-300) .. err) end
    status, out, err = micro.finish(disturb.start(root, nil, SMALL))
    if status.exit ~= 0 then put(sums.differences, out .. err) end
  end
  for _, text in ipairs(disturb.leftovers(root, { "m_fp4" })) do
    put(sums.leftovers, text)
  end
  for _, text in ipairs(disturb.differences(disturb.snapshot(root), want)) do
    if fault.call == "remove" and is_kept(text) then
      sums.kept = sums.kept + 1
    else
      put(sums.differences, text)
    end
  end
  host.file.remove_tree(root)
end

-- Let up to `count` (nil: all) output calls of a small sweep fail, each once
-- and alone; the order is drawn from `seed`. told(sums): progress. Gives
-- { calls, faults (there could be), runs, absorbed, stopped, kept (files of
-- older checkpoints whose removal failed), unclear, differences, leftovers
-- (lists), seconds }.
function disturb.faults(count, seed, told)
  math.randomseed(seed, 0)
  local began = host.clock()
  local calls, whole = calls_of()
  local want, list = disturb.snapshot(whole), faults_of(calls)
  host.file.remove_tree(whole)
  shuffle(list)
  local sums = { calls = #calls, faults = #list, runs = 0, absorbed = 0,
    stopped = 0, kept = 0, unclear = {}, differences = {}, leftovers = {} }
  for i = 1, math.min(count or #list, #list) do
    fault_one(list[i], want, sums)
    sums.runs = i
    if told then told(sums) end
  end
  sums.seconds = host.clock() - began
  return sums
end

return disturb
