-- What a driver's samples become in a run's state, its result and the report,
-- with the samples of a GPU put in by hand.
local check = require "check"
local driver = require "llm.driver"
local gpu = require "gpu"
local host = require "host"

local now, time, asked = {}, 100, 0
local stats, utilization, clock = gpu.memory.stats, gpu.utilization, host.clock

function host.clock() return time end

-- The readings from here on, a second after those before.
local function play(free, accounted, use)
  now, time = { device_free = free, current = accounted }, time + 1
  gpu.memory.stats = function(device)
    if device ~= false then
      asked = asked + 1
      return now
    end
    return { current = now.current }
  end
  gpu.utilization = function() return use end
end

check.case("memory: what a run takes, from outside", function()
  play(100e9, 1e9, { process_memory = 1.6e9, throttled = false,
    power_capped = false, reasons = "" })
  local m = driver.memory()
  check.near(driver.beyond(m), .6e9, 1)
  check.near(driver.room(m), 101e9, 1)
  local state = {}
  local s = driver.sampler():over(state)
  play(81e9, 20e9, { process_memory = 20.7e9, throttled = true, watts = 700,
    compute = 90, celsius = 80, power_capped = true, reasons = "heat" })
  s:sample()
  play(85e9, 16e9, { process_memory = 16.7e9, throttled = false, watts = 500,
    compute = 70, celsius = 70, power_capped = true, reasons = "" })
  s:sample()
  check.near(s:fall(), 20e9, 1) -- 19 GB fell, 1 GB was held before
  check.near(s.process_peak, 20.7e9, 1)
  local sum = driver.summary(state)
  check.equal(sum.throttled, true)
  check.equal(sum.throttled_share, .5)
  check.equal(sum.power_capped_share, 1.0)
  check.equal(sum.watts, 600.0)
  check.equal(sum.compute, 80.0)
  check.equal(sum.celsius, 80)
  check.equal(sum.reasons, "heat")
end)

check.case("the device is asked twice a second, and at the end", function()
  play(100e9, 0, nil)
  local s = driver.sampler():over {}
  play(80e9, 20e9, nil)
  asked = 0
  for _ = 1, 100 do -- 16 steps a second
    local _, told = s:sample()
    check.equal(told.current, 20e9)
    time = time + .0625
  end
  check.equal(asked, 13)
  play(79e9, 20e9, nil)
  check.near(s:fall(), 21e9, 1)
  check.equal(asked, 14)
end)

check.case("means are over all of a run's steps, not its last", function()
  local state = {}
  play(1, 1, nil)
  local s = driver.sampler():over(state)
  for step = 1, 100 do
    play(1, 1, { compute = step <= 50 and 20 or 100, throttled = false,
      power_capped = false, reasons = "" })
    s:sample()
  end
  local sum = driver.summary(state)
  check.equal(sum.compute, 60.0)
  check.equal(sum.watts, nil) -- never known
end)

check.case("a continued run adds to what its checkpoint held", function()
  local state = { samples = { count = 3, watts = 300, throttled = 1,
    power_capped = 0, reasons = { "heat" } } }
  play(1, 1, { watts = 500, compute = 90, throttled = false,
    power_capped = false, reasons = "slowdown, heat" })
  driver.sampler():over(state):sample()
  local sum = driver.summary(state)
  check.equal(sum.samples, 4)
  check.equal(sum.watts, 200.0)
  check.equal(sum.reasons, "heat, slowdown")
  check.equal(sum.compute, nil) -- the checkpoint's steps had none
end)

check.case("where nothing is known nothing is claimed", function()
  play(5e9, 1e6, nil)
  local state = {}
  local s = driver.sampler():over(state)
  local use, same = s:sample()
  check.equal(use, nil)
  check.equal(same, now)
  check.equal(driver.summary(state), nil)
  check.equal(driver.beyond(driver.memory()), nil)
end)

gpu.memory.stats, gpu.utilization, host.clock = stats, utilization, clock
check.done()
