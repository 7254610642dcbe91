-- The batch solver and the policy around it, on memory functions with known
-- answers.
local batch = require "llm.batch"
local check = require "check"

check.case("largest: every limit, against counting up", function()
  local function need(b) return 100 + 7 * b end
  for limit = 90, 400 do
    local want = 0
    for b = 1, 30 do if need(b) <= limit then want = b end end
    check.equal(batch.largest(need, limit, 30), want, "limit " .. limit)
  end
end)

check.case("largest asks few plans", function()
  local function count(shape)
    local asked = 0
    local b = batch.largest(function(n)
      asked = asked + 1
      return shape(n)
    end, shape(777), 65536)
    check.equal(b, 777)
    return asked
  end
  check.truthy(count(function(n) return 1000 + 37 * n end) <= 6)
  check.truthy(count(function(n) return n + n // 64 * 64 end) <= 12)
  check.truthy(count(function(n) return n * n end) < 60)
  check.equal(batch.largest(function() return 5 end, 9, 40), 40)
end)

check.case("trained: the largest divisor that fits with its accumulation",
  function()
    -- accumulation costs 50: gradients are kept
    local function memory(b, a) return 10 * b + (a > 1 and 50 or 0) end
    check.equal(batch.trained(memory, 32, 1000), 32)
    check.equal(batch.trained(memory, 32, 319), 16)
    check.equal(batch.trained(memory, 32, 130), 8)
    check.equal(batch.trained(memory, 12, 111), 6)
    local none, least = batch.trained(memory, 32, 59)
    check.equal(none, nil)
    check.equal(least, 60)
  end)

check.case("solve: pinned, auto, nothing fits", function()
  local function memory(b) return 10 * b end
  local s = batch.solve(memory, 32, "auto", 100)
  check.equal(s.batch, 8)
  check.equal(s.accumulate, 4)
  check.equal(s.largest, 10)
  s = batch.solve(memory, 32, 4, 100)
  check.equal(s.batch, 4)
  s = batch.solve(memory, 32, 16, 100)
  check.equal(s.batch, nil)
  check.equal(s.least, 160)
end)

check.case("candidates are smaller divisors, about a quarter apart", function()
  check.equal(table.concat(batch.candidates(192, 96, 3), " "), "24 6 1")
  check.equal(table.concat(batch.candidates(32, 8, 2), " "), "2")
  check.equal(#batch.candidates(32, 1, 3), 0)
  check.equal(#batch.candidates(192, 192, 0), 0)
end)

check.case("timed steps: ten, unless they are dear", function()
  check.equal(batch.timed_steps(10, .01, 2), 10)
  check.equal(batch.timed_steps(10, .5, 2), 4)
  check.equal(batch.timed_steps(10, 1.5, 2), 2)
  check.equal(batch.timed_steps(10, 5, 2), 1)
end)

check.case("the fastest is the smallest batch within 1 % of the best",
  function()
    local list = { { batch = 96, tokens_per_second = 1000 },
      { batch = 24, tokens_per_second = 995 },
      { batch = 6, tokens_per_second = 900 }, { batch = 1 } }
    check.equal(batch.judge(list, 96), 24)
    check.equal(list[1].verdict, "trains")
    check.equal(list[2].verdict, "fastest")
    check.equal(list[3].verdict, "fits")
    check.equal(list[4].verdict, "fits, not timed")
  end)

check.done()
