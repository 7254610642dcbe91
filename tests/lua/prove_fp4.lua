-- What training with 4-bit weights costs: fp4 against the baseline, and the
-- control that fails late, its rounding without the residual; nano's small
-- model, 4 M tokens each, three seeds.
local check = require "check"
local paired = require "paired"

local study = paired.study { name = "fp4", tokens = 4000000, variants = {
  '{ name = "baseline" }', '{ name = "fp4", fp4 = true }',
  '{ name = "stochastic", storage = "nf4_stochastic" }' } }
study:print()

check.case("every run ended", function() study:complete() end)

check.case("more than half of the 4-bit codes changed", function()
  if study.scaled then check.skip "scaled" end
  local moved = study:moved "fp4"
  check.truthy(moved > .5, ("%.1f %% changed"):format(100 * moved))
end)

check.case("perplexity: at most +4 %, surely at most +5 %", function()
  if study.scaled then check.skip "scaled" end
  local p = study:pair "fp4"
  local mean, high = paired.percent(p.mean), paired.percent(p.high)
  check.truthy(mean <= 4, ("the mean is %+.2f %%"):format(mean))
  check.truthy(high <= 5, ("the upper bound is %+.2f %%"):format(high))
end)

study:control("stochastic", 2)

check.done()
