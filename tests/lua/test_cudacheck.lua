-- What check.lua says of a GPU, from recorded facts of machines that are not
-- this one: every verdict and its remedy.
local check = require "check"
local cudacheck = require "llm.cudacheck"

-- An H200 as a probe told of it, and changes to that.
local function facts(changes)
  local f = { wanted = true, name = "cuda:0", budget = "24GB",
    cuda = { toolkit = "13.0", runtime = "13.0", driver = "13.0",
      architectures = { "8.0", "9.0" } },
    devices = { { name = "cpu", backend = "cpu", model = "EPYC" },
      { name = "cuda:0", backend = "cuda", model = "NVIDIA H200",
        capability = "9.0", memory = 150.1e9, free = 149.5e9 } },
    peaks = { flops = 7.2e14, bandwidth = 4.1e12, dtype = "bf16" },
    use = { throttled = false, reasons = "" } }
  for key, v in pairs(changes or {}) do f[key] = v end
  return f
end

local function said(f)
  local by_name, all = {}, {}
  for i, x in ipairs(cudacheck.findings(f)) do
    by_name[x.name] = by_name[x.name] or x
    all[i] = x.level .. " " .. x.name .. ": " .. x.text
  end
  return by_name, table.concat(all, "\n")
end

check.case("all is well", function()
  local _, all = said(facts())
  check.equal(all, "pass CUDA: built with CUDA 13.0, runtime 13.0, driver up "
    .. "to 13.0\npass device: cuda:0 NVIDIA H200, compute capability 9.0, "
    .. "150.10 GB, 149.50 GB free\ninfo speed: copies 4.10 TB/s, bf16 "
    .. "products 720 TFLOP/s, measured")
end)

check.case("no plugin: only a failure where a GPU was asked for", function()
  local f = { why = "this build has no CUDA plugin", wanted = true }
  local x = said(f).CUDA
  check.equal(x.level, "fail")
  check.equal(x.text, "this build has no CUDA plugin")
  check.equal(x.fix, "--device cpu runs without it")
  f.wanted = false
  check.equal(said(f).CUDA.level, "info")
end)

local function cuda(changes)
  local c = { toolkit = "13.0", runtime = "13.0", driver = "13.0",
    architectures = { "8.0", "9.0" } }
  for key, v in pairs(changes) do c[key] = v or nil end
  return facts { cuda = c }
end

check.case("driver, runtime and toolkit", function()
  local x = said(cuda { driver = false }).CUDA
  check.equal(x.level, "fail")
  check.truthy(x.text:find("no driver answers", 1, true), x.text)
  x = said(cuda { driver = "12.4" }).CUDA
  check.equal(x.level, "fail")
  check.truthy(x.text:find("driver up to 12.4: too old for this build", 1,
    true), x.text)
  check.equal(x.fix, "update the driver, or build with a CUDA 12 toolkit")
  x = said(cuda { runtime = "13.1" }).CUDA
  check.equal(x.level, "warn")
  check.truthy(x.text:find("another runtime than it was built with", 1, true))
  x = said(cuda { toolkit = "13.2", runtime = "13.2" }).CUDA
  check.equal(x.level, "warn")
  check.truthy(x.text:find("minor-version compatibility", 1, true), x.text)
  check.equal(said(cuda { driver = "14.1" }).CUDA.level, "pass")
end)

check.case("which code runs on which device", function()
  local code = cudacheck.code
  check.equal(code({ "9.0" }, "9.0"), "code")
  check.equal(code({ "8.0" }, "8.9"), "code")
  check.equal(code({ "8.9" }, "8.6"), nil)
  check.equal(code({ "9.0" }, "12.0"), nil) -- one alone brings no PTX
  check.equal(code({ "8.0", "9.0" }, "12.0"), "PTX")
  check.equal(code({ "8.0", "12.0" }, "9.0"), nil)
  check.equal(code({ "10.0", "12.0" }, "12.1"), "code")
end)

check.case("a device without code, with the command that rebuilds", function()
  local f = cuda { architectures = { "8.0" } }
  local x = said(f).device
  check.equal(x.level, "fail")
  check.truthy(x.text:find("this build has code for 8.0 only", 1, true),
    x.text)
  check.equal(x.fix, "make GPU_ARCH=native")
  f.names = { "cuda:1" } -- another is chosen
  check.equal(said(f).other.level, "warn")
  x = said(cuda { architectures = { "8.0", "8.6" } }).device
  check.equal(x.level, "warn")
  check.truthy(x.text:find("compiles for newer ones when it starts", 1, true))
end)

check.case("fp8 wants a device that has it, where it is asked for", function()
  for capability, has in pairs { ["8.0"] = false, ["8.6"] = false,
    ["8.9"] = true, ["9.0"] = true, ["12.0"] = true } do
    check.equal(cudacheck.fp8(capability), has, capability)
  end
  local f = cuda { architectures = { "8.0" } }
  f.devices[2].capability = "8.6"
  check.equal(said(f).fp8, nil)
  f.fp8 = true
  local x = said(f).fp8
  check.equal(x.level, "fail")
  check.equal(x.text, "train.precision = fp8, but cuda:0 has compute "
    .. "capability 8.6: such products begin with 8.9")
  check.equal(x.fix, "train.precision=bf16")
  f.names = { "cuda:1" } -- another is chosen
  check.equal(said(f).fp8, nil)
  check.equal(said(facts { fp8 = true }).fp8, nil)
end)

check.case("every device of --devices counts, and must be there", function()
  local f = facts { names = { "cuda:0", "cuda:1" }, budget = "100GB" }
  f.devices[3] = { name = "cuda:1", backend = "cuda", model = "NVIDIA T4",
    capability = "7.5", memory = 16e9, free = 15e9 }
  local _, all = said(f)
  check.truthy(all:find("pass device: cuda:0", 1, true), all)
  check.truthy(all:find("fail device: cuda:1 NVIDIA T4", 1, true), all)
  check.truthy(all:find("warn budget: memory.budget = 100GB, but cuda:1 has "
    .. "15.00 GB free", 1, true), all)
  f.devices[3] = nil
  _, all = said(f)
  check.truthy(all:find("fail device: cuda:1 is not among the devices here",
    1, true), all)
  check.equal(said(facts { names = { "cuda" } }).device.level, "pass")
end)

check.case("the target, a device that does not answer, a probe that failed",
  function()
    local f = facts()
    f.devices[2].model = "NVIDIA GeForce RTX 5090"
    check.truthy(said(f).device.text:find(", the target", 1, true))
    f.devices[2] = { name = "cuda:0", backend = "cuda", error = "it is busy" }
    local x = said(f).device
    check.equal(x.level .. ": " .. x.text, "fail: cuda:0: it is busy")
    f = facts { problem = "cuda:0 has compute capability 7.5" }
    local _, all = said(f)
    check.truthy(all:find("fail device: cuda:0 has compute capability 7.5", 1,
      true), all)
  end)

check.case("a budget above what is free, lowered clocks, WSL", function()
  local f = facts { budget = "200GB", wsl = true,
    use = { throttled = true, reasons = "heat", celsius = 91 } }
  local by = said(f)
  check.equal(by.budget.level, "warn")
  check.equal(by.budget.text, "memory.budget = 200GB, but cuda:0 has 149.50 "
    .. "GB free; runs take no more than that")
  check.equal(by.clocks.text, "lowered now: heat (91 °C)")
  check.truthy(by.WSL.text:find("spills to host memory", 1, true))
  check.equal(said(facts { budget = "device" }).budget, nil)
end)

check.done()
