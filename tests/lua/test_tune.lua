-- Choices by measuring where there is nothing to choose, and a configuration's
-- word about them.
local check = require "check"
local gpu = require "gpu"

check.case("a cpu has nothing to tune", function()
  if gpu.device() ~= "cpu" then check.skip "the device is a GPU" end
  local path, why = gpu.tune()
  check.equal(path, nil)
  check.equal(why, "there is nothing to tune on the cpu")
  local t, reason = gpu.tuning()
  check.equal(t, nil)
  check.equal(reason, "the libraries choose")
end)

-- A product whose shape no other test has is measured once, and a second
-- program of the same shape takes what was noted: the same bits.
local function keeps(x, y, options)
  local path = os.tmpname()
  os.remove(path)
  check.equal(gpu.tune(path), path)
  local first = x:matmul(y, options)
  local t = gpu.tuning()
  check.truthy(t.known >= 1 and t.measured == t.known, t.known)
  check.equal(t.error, nil)
  gpu.tune(false)
  check.equal(gpu.tuning(), nil)
  gpu.tune(path)
  check.equal(gpu.tuning().hash, t.hash)
  check.equal(gpu.tuning().measured, 0)
  check.truthy(x:matmul(y, options):equal(first))
  gpu.tune(false)
  os.remove(path)
  os.remove(path .. ".lock")
end

check.case("a gpu keeps what it measured", function()
  if gpu.device() == "cpu" then check.skip "no GPU" end
  keeps(gpu.randn { 208, 336, seed = 1 }, gpu.randn { 336, 112, seed = 2 })
end)

-- Long enough to be measured back to back, its sums offered in parts.
check.case("a gpu keeps what it measured back to back", function()
  if gpu.device() == "cpu" then check.skip "no GPU" end
  keeps(gpu.randn { 16640, 496, seed = 1 }, gpu.randn { 16640, 528, seed = 2 },
    { transpose_a = true })
end)

check.case("train.tune is auto or off", function()
  local config = require "llm.config"
  check.raises("train.tune", config.resolve, {}, { "train.tune=perhaps" },
    "cpu")
end)

check.done()
