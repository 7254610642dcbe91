-- What a GPU's driver knows of a run, beside what the accountant counts: its
-- memory, power, heat and clocks, sampled while it trains. On a CPU, and where
-- the management library is absent, nothing is known and nothing fails.
local gpu = require "gpu"
local host = require "host"

local driver = {}
driver.__index = driver

-- { accounted, free (bytes of the device), process (what the driver counts as
-- this process's; nil where it cannot tell) }, as of now.
function driver.memory()
  local stats, use = gpu.memory.stats(), gpu.utilization(true)
  return { accounted = stats.current, free = stats.device_free,
    process = use and use.process_memory }
end

-- Bytes that the driver holds for this process beyond the accountant: context,
-- libraries, recorded graphs; nil where that is not known.
function driver.beyond(m)
  return m.process and m.process - m.accounted or nil
end

-- What a run may take at most of a device where `m` was read: what is free, and
-- what it has already.
function driver.room(m) return m.free + m.accounted end

-- A sampler, made before what it watches takes memory.
function driver.sampler()
  return setmetatable({ began = driver.memory() }, driver)
end

-- Sum into `state`, a plain table that checkpoints keep: what belongs to the
-- whole run and not to this process. Gives itself.
function driver:over(state)
  state.samples = state.samples or { count = 0, compute = 0, watts = 0,
    throttled = 0, power_capped = 0, reasons = {} }
  self.sums = state.samples
  return self
end

local function add_reasons(list, text)
  for word in text:gmatch "[^,]+" do
    word = word:match "^%s*(.-)%s*$"
    local known = false
    for _, w in ipairs(list) do known = known or w == word end
    if not known then list[#list + 1] = word end
  end
end

-- Seconds between two questions to the device itself: a driver takes its time
-- to answer. gpu.utilization() keeps the same distance.
local PAUSE = .5

-- The accountant's statistics; `device`: with what the device has free.
function driver:look(device)
  local stats = gpu.memory.stats(device)
  if device then
    self.looked = host.clock()
    self.least_free = math.min(self.least_free or math.huge,
      stats.device_free)
  end
  return stats
end

-- sum + x; nil, for good, once one of them was not known.
local function added(sum, x) return sum and x and sum + x or nil end

-- Take one sample; gives gpu.utilization()'s table or nil, and the statistics
-- of the accountant.
function driver:sample()
  local stats = self:look(not self.looked
    or host.clock() - self.looked >= PAUSE)
  local use = gpu.utilization()
  if not use then return nil, stats end
  local s = self.sums
  s.count = s.count + 1
  s.compute, s.watts = added(s.compute, use.compute), added(s.watts, use.watts)
  s.celsius = use.celsius and math.max(s.celsius or 0, use.celsius)
  if use.throttled then s.throttled = s.throttled + 1 end
  if use.power_capped then s.power_capped = s.power_capped + 1 end
  add_reasons(s.reasons, use.reasons)
  if use.process_memory then
    self.process_peak = math.max(self.process_peak or 0, use.process_memory)
  end
  return use, stats
end

-- How far the device's free memory fell, to now, below what it was when the
-- sampler was made, plus what the accountant held then: a run's memory as the
-- device saw it. Right as long as nobody else uses the device.
function driver:fall()
  local m = self.began
  self:look(true)
  return m.free + m.accounted - self.least_free
end

-- For the result: { throttled (boolean), throttled_share, power_capped_share,
-- reasons, celsius, compute (percent) and watts (means over the run) }, or nil
-- when nothing was sampled.
function driver.summary(state)
  local s = state.samples
  if not s or s.count == 0 then return nil end
  return { samples = s.count, throttled = s.throttled > 0,
    throttled_share = s.throttled / s.count,
    power_capped_share = s.power_capped / s.count,
    reasons = table.concat(s.reasons, ", "), celsius = s.celsius,
    compute = s.compute and s.compute / s.count,
    watts = s.watts and s.watts / s.count }
end

return driver
