-- What each option of 4-bit training costs, and what must fail without its
-- parts: scale search, int8 saved activations, and three controls; nano's
-- small model, 1 M tokens each, three seeds.
local check = require "check"
local paired = require "paired"

local study = paired.study { name = "options", tokens = 1000000, variants = {
  '{ name = "baseline" }',
  '{ name = "fp4", fp4 = true }',
  '{ name = "fp4_search", fp4 = true, scale_search = true }',
  '{ name = "fp4_int8", fp4 = true, train = { saved = "int8" } }',
  '{ name = "baseline_int8", train = { saved = "int8" } }',
  '{ name = "frozen", storage = "nf4_frozen" }',
  '{ name = "nearest", storage = "nf4_nearest" }',
  '{ name = "stochastic", storage = "nf4_stochastic" }' } }
study:print()

check.case("every run ended", function() study:complete() end)

check.case("options against the same without", function()
  study:print_pair("fp4_search", "fp4")
  study:print_pair("fp4_int8", "fp4")
  study:print_pair("baseline_int8", "baseline")
  study:print_pair("fp4_int8", "baseline_int8")
end)

for _, control in ipairs { "frozen", "nearest", "stochastic" } do
  check.case(control .. " is worse than fp4, three times at least", function()
    study:print_pair(control, "fp4")
    if study.scaled then check.skip "scaled" end
    local gap = math.max(study:pair("fp4").mean, .005)
    local worse = study:pair(control).mean
    check.truthy(worse >= 3 * gap, ("its gap is %.4f nats, fp4's %.4f"):format(
      worse, study:pair("fp4").mean))
    check.truthy(study:pair(control, "fp4").low > 0,
      "the 95 % interval of the difference holds 0")
  end)
end

check.done()
