-- What the parent of a sweep asks a process of its own, since it touches no
-- device itself: the CUDA plugin, the devices, what the one of --device
-- attains and how hot it is. Prints one line of JSON.
local gpu = require "gpu"
local host = require "host"

local facts = {}
facts.cuda, facts.why = gpu.cuda()
facts.devices = gpu.devices()

local ok, problem = pcall(function()
  facts.name = gpu.device()
  if facts.name == "cpu" then return end
  facts.peaks = gpu.peaks()
  facts.use = gpu.utilization(true)
end)
if not ok then
  local text = tostring(problem)
  pcall(function() text = problem.message end)
  facts.problem = text
end
io.stdout:write(host.json.encode(facts), "\n")
