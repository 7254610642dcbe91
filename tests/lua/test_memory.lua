-- gpu.memory, gpu.devices, gpu.utilization, of the CPU (test_devices.lua has
-- a GPU's).
local check = require "check"
local gpu = require "gpu"

gpu.device "cpu"

local CATEGORIES = { "parameters", "gradients", "optimizer", "activations",
  "scratch", "data" }

check.case("tensors are counted under data", function()
  gpu.memory.trim()
  local before = gpu.memory.stats()
  local t = gpu.zeros { 1000, 25 }
  local s = gpu.memory.stats()
  check.equal(s.current, before.current + 100000)
  check.equal(s.by_category.data, before.by_category.data + 100000)
  check.equal(s.allocations, before.allocations + 1)
  t:close()
  check.equal(gpu.memory.stats().current, before.current)
end)

check.case("categories sum to the whole", function()
  local keep = gpu.zeros { 100 }
  local s, sum, peak = gpu.memory.stats(), 0, 0
  for _, name in ipairs(CATEGORIES) do
    sum = sum + s.by_category[name]
    peak = peak + s.peak_by_category[name]
  end
  check.equal(sum, s.current)
  check.equal(peak, s.peak)
  check.truthy(keep:numel() == 100)
end)

check.case("the peak stays until it is reset", function()
  gpu.memory.trim()
  local before = gpu.memory.stats().current
  gpu.zeros { 250000 }:close()
  check.truthy(gpu.memory.stats().peak >= before + 1000000)
  gpu.memory.reset_peak()
  check.equal(gpu.memory.stats().peak, before)
end)

check.case("the device is described", function()
  local s = gpu.memory.stats()
  check.truthy(s.device_total > 2 ^ 28, tostring(s.device_total))
  check.truthy(s.device_free > 0 and s.device_free <= s.device_total)
  check.equal(s.budget, nil)
  local without = gpu.memory.stats(false)
  check.equal(without.device_total, nil)
  check.equal(without.device_free, nil)
  check.equal(without.current, s.current)
end)

check.case("a budget is a full device", function()
  gpu.memory.trim()
  check.equal(gpu.memory.budget(), nil)
  check.equal(gpu.memory.budget "1.5MB", 1500000)
  check.equal(gpu.memory.stats().budget, 1500000)
  check.equal(gpu.memory.budget(), 1500000)
  local e = check.raises("out of memory: 8.0 MB requested", gpu.zeros,
    { 1000, 2000 })
  check.equal(e.code, "oom")
  check.truthy(e.message:find("budget 1.5 MB (data)", 1, true), e.message)
  local t = gpu.zeros { 1000, 300 }
  check.equal(t:bytes(), 1200000)
  t:close()
  check.equal(gpu.memory.budget(2 ^ 30), 1 << 30) -- a float is fine
  check.equal(gpu.memory.budget "2GiB", 2 << 30)
  check.equal(gpu.memory.budget(false), nil)
  check.truthy(gpu.zeros { 1000, 2000 })
end)

check.case("what is no budget", function()
  for _, bad in ipairs { "24 bananas", "", 0, -1, 0 / 0, math.huge, {}, true,
    "0GB" } do
    check.raises("is no size; write it like \"24GB\"", gpu.memory.budget, bad)
  end
  check.equal(gpu.memory.budget(), nil)
end)

check.case("garbage is collected before a budget fails", function()
  gpu.memory.trim()
  gpu.memory.budget(gpu.memory.stats().current + 1500000)
  collectgarbage "stop"
  for _ = 1, 20 do gpu.zeros { 250000 } end
  collectgarbage "restart"
  gpu.memory.budget(false)
end)

check.case("trim frees what was dropped and says how much", function()
  gpu.memory.trim()
  local before = gpu.memory.stats().current
  collectgarbage "stop"
  for _ = 1, 10 do gpu.zeros { 1000 } end
  check.equal(gpu.memory.stats().current, before + 40000)
  check.equal(gpu.memory.trim(), 40000)
  collectgarbage "restart"
  check.equal(gpu.memory.stats().current, before)
end)

check.case("devices", function()
  local list = gpu.devices()
  check.truthy(#list >= 1)
  check.equal(list[1].name, "cpu")
  check.equal(list[1].backend, "cpu")
  check.truthy(#list[1].model > 0 and #list[1].capability > 0)
  check.truthy(list[1].memory >= list[1].free and list[1].free > 0)
  for _, device in ipairs(list) do
    check.equal(gpu.device(device.name), device.name)
  end
  gpu.device "cpu"
end)

check.case("utilization of a cpu is not known", function()
  local use, reason = gpu.utilization()
  check.equal(use, nil)
  check.equal(reason, "cpu has no counter of its utilization")
end)

check.case("peaks: a product's and a copy's rate, measured", function()
  local p = gpu.peaks()
  check.equal(p.dtype, "f32")
  check.truthy(p.flops > 1e8 and p.flops < 1e16, tostring(p.flops))
  check.truthy(p.bandwidth > 1e8 and p.bandwidth < 1e14,
    tostring(p.bandwidth))
end)

check.case("time_product: seconds, and nothing stays allocated", function()
  local before = gpu.memory.stats().current
  local small = gpu.time_product { 64, 64, 64, runs = 1 }
  local large = gpu.time_product { 512, 512, 512, transpose_a = true,
    transpose_b = true }
  check.truthy(small > 0 and large > small, small .. ", " .. large)
  check.equal(gpu.memory.stats().current, before)
  check.raises("time_product: give m, n and k", gpu.time_product, { 4, 4 })
  check.raises("did you mean 'runs'?", gpu.time_product, { 4, 4, 4, run = 1 })
end)

check.case("what the CUDA plugin is, or why there is none", function()
  local cuda, why = gpu.cuda()
  if not cuda then
    check.truthy(why == "this build has no CUDA plugin"
      or why:find("llmhost_cuda.so", 1, true)
      or why:find("cannot open shared object", 1, true), why)
    return
  end
  check.truthy(cuda.toolkit:find "^1%d%.%d$", cuda.toolkit)
  check.equal(cuda.runtime, cuda.toolkit)
  check.truthy(#cuda.architectures >= 1)
  for _, a in ipairs(cuda.architectures) do
    check.truthy(a:find "^%d+%.%d$", a)
  end
end)

check.done()
