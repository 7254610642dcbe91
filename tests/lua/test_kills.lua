-- A few random kills and a few failing writes of a small sweep; long_kills
-- has the campaign.
local check = require "check"
local disturb = require "disturb"

check.case("killed at random, the sweep ends with the same bits", function()
  local s = disturb.kills(4, 4, 7)
  check.equal(table.concat(s.differences, "\n"), "")
  check.equal(table.concat(s.leftovers, "\n"), "")
  check.truthy(s.kills >= 4 and s.starts > s.sweeps)
end)

check.case("a failing write costs no bit and says so", function()
  local s = disturb.faults(4, 7)
  check.equal(table.concat(s.unclear, "\n"), "")
  check.equal(table.concat(s.differences, "\n"), "")
  check.equal(table.concat(s.leftovers, "\n"), "")
  check.truthy(s.calls > 100 and s.stopped > 0)
end)

check.done()
