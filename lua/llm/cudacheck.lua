-- Findings about CUDA from facts alone: what a probe (probe.lua) told of the
-- plugin and the devices, and what the sweep wants. Nothing is looked up here.
local size = require "llm.size"

local cudacheck = {}

local REBUILD = "make GPU_ARCH=native"

local function finding(level, name, text, fix)
  return { level = level, name = name, text = text, fix = fix }
end

-- "13.0" as 13, 0.
local function parts_of(version)
  local major, minor = version:match "^(%d+)%.(%d+)$"
  return math.tointeger(major), math.tointeger(minor)
end

-- Toolkit, runtime and driver: whether they go together.
local function versions(c, wanted)
  local text = ("built with CUDA %s, runtime %s"):format(c.toolkit,
    c.runtime or "?")
  if not c.driver then
    return finding(wanted and "fail" or "info", "CUDA", text
      .. "; no driver answers", wanted and "install NVIDIA's driver, or "
      .. "--device cpu runs without it" or nil)
  end
  text = text .. ", driver up to " .. c.driver
  local need, need_minor = parts_of(c.runtime or c.toolkit)
  local have, have_minor = parts_of(c.driver)
  if have < need then
    return finding("fail", "CUDA", text .. ": too old for this build",
      ("update the driver, or build with a CUDA %d toolkit"):format(have))
  elseif c.runtime and c.runtime ~= c.toolkit then
    return finding("warn", "CUDA", text .. ": another runtime than it was "
      .. "built with", "make clean all")
  elseif have == need and have_minor < need_minor then
    return finding("warn", "CUDA", text .. ": runs by minor-version "
      .. "compatibility, without code for newer devices", "update the driver")
  end
  return finding("pass", "CUDA", text)
end

-- Whether code for compute capability `built` runs on `has`, both "9.0".
local function runs_on(built, has)
  local a, b = parts_of(built)
  local c, d = parts_of(has)
  return a == c and b <= d
end

-- Whether one of the architectures runs on a capability; the newest of several
-- is also there as PTX, which newer devices compile at the first start.
function cudacheck.code(architectures, capability)
  local newest = { 0, 0 }
  for _, built in ipairs(architectures) do
    if runs_on(built, capability) then return "code" end
    local a, b = parts_of(built)
    if a > newest[1] or a == newest[1] and b > newest[2] then
      newest = { a, b }
    end
  end
  local c, d = parts_of(capability)
  local newer = c > newest[1] or c == newest[1] and d > newest[2]
  return #architectures > 1 and newer and "PTX" or nil
end

-- Whether a compute capability has products of e4m3, which precision fp8 is.
function cudacheck.fp8(capability)
  local major, minor = parts_of(capability)
  return major > 8 or major == 8 and minor >= 9
end

local function fp8(f, d)
  if not f.fp8 or not d.capability or cudacheck.fp8(d.capability) then
    return nil
  end
  return finding("fail", "fp8", ("train.precision = fp8, but %s has compute "
    .. "capability %s: such products begin with 8.9"):format(d.name,
    d.capability), "train.precision=bf16")
end

local function device(d, architectures, chosen, target)
  local name = chosen[d.name] and "device" or "other"
  if d.error then
    return finding(name == "device" and "fail" or "warn", name,
      d.name .. ": " .. d.error)
  end
  local text = ("%s %s, compute capability %s, %s, %s free%s"):format(d.name,
    d.model, d.capability, size.bytes(d.memory), size.bytes(d.free),
    d.model:find(target or "RTX 5090", 1, true) and ", the target" or "")
  local code = cudacheck.code(architectures, d.capability)
  local built = table.concat(architectures, " ")
  if not code then
    return finding(name == "device" and "fail" or "warn", name, ("%s; this "
      .. "build has code for %s only"):format(text, built), REBUILD)
  elseif code == "PTX" then
    return finding("warn", name, ("%s; this build has code for %s and "
      .. "compiles for newer ones when it starts"):format(text, built),
      REBUILD)
  end
  return finding("pass", name, text)
end

local function budget(f, d)
  local text, asked = f.budget, size.parse(f.budget or "")
  if not (asked and d.free) or asked <= d.free then return nil end
  return finding("warn", "budget", ("memory.budget = %s, but %s has %s free; "
    .. "runs take no more than that"):format(text, d.name,
    size.bytes(d.free)), "memory.budget=device, or end what else uses it")
end

local function speed(peaks)
  return finding("info", "speed", ("copies %.2f TB/s, %s products %.0f "
    .. "TFLOP/s, measured"):format(peaks.bandwidth / 1e12, peaks.dtype,
    peaks.flops / 1e12))
end

local function clocks(use)
  if not use.throttled then return nil end
  return finding("warn", "clocks", ("lowered now: %s%s"):format(use.reasons,
    use.celsius and (" (%.0f °C)"):format(use.celsius) or ""),
    "see to its cooling and power; runs are marked")
end

local function wsl(f)
  if not f.wsl then return nil end
  return finding("warn", "WSL", "the driver spills to host memory instead of "
    .. "failing: runs are kept within what is free, other programs are not")
end

-- The devices that were asked for as a set, and those of them that are absent.
local function chosen_of(f)
  local chosen, absent, here = {}, {}, {}
  for _, d in ipairs(f.devices or {}) do here[d.name] = true end
  for _, name in ipairs(f.names or { f.name }) do
    if name == "cuda" then name = "cuda:0" end
    chosen[name] = true
    if not here[name] and not f.problem then absent[#absent + 1] = name end
  end
  return chosen, absent
end

-- facts: cuda or why, devices, name, peaks, use, problem (of the probe); wsl,
-- names (of --devices, or the one of --device), wanted (a GPU), budget
-- (memory.budget as written), fp8 (an experiment asks for it), target (a card's
-- name). Gives a list of findings.
function cudacheck.findings(f)
  if not f.cuda then
    return { finding(f.wanted and "fail" or "info", "CUDA",
      f.why or "not found", f.wanted and "--device cpu runs without it"
      or nil) }
  end
  local chosen, absent = chosen_of(f)
  local list = { versions(f.cuda, f.wanted) }
  local function add(x) if x then list[#list + 1] = x end end
  for _, d in ipairs(f.devices or {}) do
    if d.backend ~= "cpu" then
      add(device(d, f.cuda.architectures, chosen, f.target))
      add(chosen[d.name] and budget(f, d))
      add(chosen[d.name] and fp8(f, d))
    end
  end
  add(f.problem and finding("fail", "device", f.problem, REBUILD))
  for _, name in ipairs(absent) do
    add(finding("fail", "device", name .. " is not among the devices here",
      "llmhost -v lists them"))
  end
  add(f.peaks and speed(f.peaks))
  add(f.use and clocks(f.use))
  add(wsl(f))
  return list
end

return cudacheck
