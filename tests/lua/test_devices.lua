-- Several devices, and what only a GPU shows: one experiment a device at a
-- time, the same bits in every run, memory as the driver sees it, running out
-- of it, and how soon the first step is made. Cases that need a GPU are
-- skipped without one.
local check = require "check"
local gpu = require "gpu"
local host = require "host"
local micro = require "micro"

local TWO = '{ name = "a" }, { name = "b", fp4 = true }'

-- The devices of CUDA, `count` of them at least.
local function need_gpus(count)
  local list = {}
  for _, d in ipairs(gpu.devices()) do
    if d.backend == "cuda" then list[#list + 1] = d end
  end
  if #list >= count then return list end
  check.skip(#list > 0 and ("%d GPUs are wanted, %d here"):format(count, #list)
    or select(2, gpu.cuda()) or "no CUDA device")
end

local function need_gpu() return need_gpus(1)[1] end

local function outcome(root)
  local by_name, all = micro.results(root), {}
  for i, name in ipairs { "m_a", "m_b" } do
    local r = by_name[name]
    all[i] = ("%s %s %a %s"):format(name, r.status, r.evaluation.val_loss
      or 0, micro.losses(root, name))
  end
  return table.concat(all, "\n"), by_name
end

-- Where the runs of a sweep were started.
local function places(root)
  local names = {}
  for _, r in ipairs(host.journal.read(root .. "/out/journal.jsonl")) do
    if r.type == "start" then names[#names + 1] = r.name .. " " .. r.device end
  end
  return table.concat(names, ", ")
end

-- A sweep of two in a folder of its own; its outcome, results, folder, output.
local function sweep(name, ...)
  local root = micro.folder(name)
  micro.script(root, TWO)
  local status, out, err = micro.run(root, ...)
  check.equal(status.exit, 0, out .. err)
  local text, by_name = outcome(root)
  return text, by_name, root, out
end

-- The order in which experiments started and ended.
local function order(root)
  local list = {}
  for _, r in ipairs(host.journal.read(root .. "/out/journal.jsonl")) do
    if r.type == "start" or r.type == "end" then
      list[#list + 1] = r.type .. " " .. r.name
    end
  end
  return table.concat(list, ", ")
end

local function two_slots(device)
  local alone, _, first = sweep("alone", "--device", device)
  check.equal(order(first), "start m_a, end m_a, start m_b, end m_b")
  local both, _, second, out = sweep("both", "--devices", device .. ","
    .. device)
  check.truthy(order(second):find("^start m_a, start m_b, end"),
    order(second))
  check.equal(both, alone)
  check.equal(places(second), ("m_a %s, m_b %s"):format(device, device))
  check.truthy(out:find("m_b: starts on " .. device .. " (", 1, true), out)
  host.file.remove_tree(first)
  host.file.remove_tree(second)
end

check.case("two slots run two experiments at once, with the same bits",
  function() two_slots "cpu" end)

check.case("two slots on one GPU", function()
  need_gpu()
  two_slots "cuda:0"
end)

check.case("two GPUs: each run has the bits of one alone on its GPU",
  function()
    need_gpus(2)
    local zero, _, first = sweep("zero", "--device", "cuda:0")
    local one, _, second = sweep("gpu-one", "--device", "cuda:1")
    local both, _, third = sweep("gpus", "--devices", "cuda:0,1")
    check.equal(places(third), "m_a cuda:0, m_b cuda:1")
    check.truthy(order(third):find "^start m_a, start m_b, end")
    check.equal(both, zero:match "^[^\n]*" .. "\n" .. one:match "[^\n]*$")
    for _, root in ipairs { first, second, third } do
      host.file.remove_tree(root)
    end
  end)

local STEP = [[
local gpu, host = require "gpu", require "host"
local model, program = require "llm.model", require "llm.program"
local p = gpu.compile(model.transformer { vocab = 49152, d_model = 512,
  n_layers = 8, n_heads = 8, d_ff = 2048, dropout = .1 }, { batch = 24,
  seq = 512, optimizer = program.optimizer({ optimizer = "muon", lr = 1e-3,
  weight_decay = .1, muon_lr = .01, momentum = .95, clip = 1, warmup = .05,
  final = .1 }, 1000) })
gpu.device "cpu"
local x = gpu.zeros { 24, 512, dtype = "i32" }
local r = p:step(x, x, 1)
print(r.finite, r.loss)
]]

check.case("from the start of the program to its first step: 2 s", function()
  need_gpu()
  local least = math.huge
  for _ = 1, 2 do -- the first also reads the libraries from disk
    local began = host.clock()
    local p = assert(host.process.spawn { host.process.executable(), "-e",
      STEP, stdin = "null", stdout = "pipe", stderr = "pipe" })
    local status, out, err = micro.finish(p)
    check.equal(status.exit, 0, err)
    check.truthy(out:find("^true"), out)
    print(("# %.2f s"):format(host.clock() - began))
    least = math.min(least, host.clock() - began)
  end
  check.truthy(least < 2, ("%.2f s"):format(least))
end)

check.case("memory as the driver sees it", function()
  need_gpu()
  local _, by_name, root = sweep("driver", "--device", "cuda:0",
    "memory.budget=2GB")
  for _, name in ipairs { "m_a", "m_b" } do
    local m = by_name[name].memory_stats
    check.equal(m.peak_memory_gb, m.predicted_memory_gb, name)
    check.truthy(m.process_rise_gb, "no outside figure")
    check.near(m.process_rise_gb, m.predicted_memory_gb,
      .02 * m.predicted_memory_gb + .067, name)
    print(("# %s: driver %s GB at the start, %s warm, process %s"):format(name,
      m.driver_start_gb, m.driver_warm_gb, m.process_peak_gb))
    if m.driver_start_gb then
      check.truthy(m.driver_start_gb > 0 and m.driver_start_gb < 3)
      check.truthy(m.driver_warm_gb >= m.driver_start_gb)
      check.truthy(m.process_peak_gb > m.peak_memory_gb)
    end
  end
  host.file.remove_tree(root)
end)

check.case("the budget is never more than what is free", function()
  local d = need_gpu()
  local _, by_name, root, out = sweep("budget", "--device", "cuda:0",
    "memory.budget=900TB")
  check.truthy(out:find("memory.budget = 900TB, but cuda:0 has", 1, true),
    out)
  check.truthy(by_name.m_a.memory_stats.budget_gb <= d.memory / 1e9)
  host.file.remove_tree(root)
  _, by_name, root = sweep("device", "--device", "cuda:0",
    "memory.budget=device")
  check.truthy(by_name.m_a.memory_stats.budget_gb < d.memory / 1e9)
  host.file.remove_tree(root)
end)

local function free() return gpu.memory.stats().device_free end

check.case("out of memory is an error and leaves nothing behind", function()
  local d = need_gpu()
  gpu.device(d.name)
  gpu.memory.trim()
  gpu.zeros { 1000 }:close()
  local before, current = free(), gpu.memory.stats().current
  for _ = 1, 5 do
    local e = check.raises("out of memory", gpu.zeros,
      { d.memory // 4 + (1 << 20) })
    check.equal(e.code, "oom")
  end
  gpu.memory.budget(current + 2 ^ 20)
  check.raises("budget", gpu.zeros, { 1 << 20 })
  gpu.memory.budget(false)
  check.equal(gpu.memory.stats().current, current)
  check.near(free(), before, 2 ^ 24)
  check.equal((gpu.ones { 1000 }:sum()):item(), 1000.0)
  gpu.device "cpu"
end)

check.case("two runs on a GPU have the same bits", function()
  need_gpu()
  local one, _, first = sweep("one", "--device", "cuda:0")
  local two, _, second = sweep("two", "--device", "cuda:0")
  check.equal(one, two)
  host.file.remove_tree(first)
  host.file.remove_tree(second)
end)

check.done()
