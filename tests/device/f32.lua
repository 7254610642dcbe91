-- Runs a Lua test with programs in f32 where it does not say otherwise: what
-- holds a device to stored results of f32.
--
--   llmhost tests/device/f32.lua FILE
local gpu = require "gpu"

local compile = gpu.compile
gpu.compile = function(model, options)
  if options and options.precision == nil and options.plan == nil then
    options.precision = "f32"
  end
  return compile(model, options)
end
dofile(arg[1])
