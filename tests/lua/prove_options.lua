-- What each option of 4-bit training costs, and what must fail without its
-- parts: scale search, int8 saved activations, two controls that fail early;
-- nano's small model, 1 M tokens each, three seeds.
local check = require "check"
local paired = require "paired"

local study = paired.study { name = "options", tokens = 1000000, variants = {
  '{ name = "baseline" }',
  '{ name = "fp4", fp4 = true }',
  '{ name = "fp4_search", fp4 = true, scale_search = true }',
  '{ name = "fp4_int8", fp4 = true, train = { saved = "int8" } }',
  '{ name = "baseline_int8", train = { saved = "int8" } }',
  '{ name = "frozen", storage = "nf4_frozen" }',
  '{ name = "nearest", storage = "nf4_nearest" }' } }
study:print()

check.case("every run ended", function() study:complete() end)

check.case("options against the same without", function()
  study:print_pair("fp4_search", "fp4")
  study:print_pair("fp4_int8", "fp4")
  study:print_pair("baseline_int8", "baseline")
  study:print_pair("fp4_int8", "baseline_int8")
end)

study:control("frozen", 3)
study:control("nearest", 3)

check.done()
