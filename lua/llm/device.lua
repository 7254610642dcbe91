-- Which device a sweep will use, said without opening one.
local host = require "host"

local device = {}

local function has_nvidia()
  return host.file.exists "/dev/nvidiactl" or host.file.exists "/dev/dxg"
end

local function built_for_cuda()
  local gpu = require "gpu"
  for _, backend in ipairs(gpu.version and gpu.version.backends or {}) do
    if backend == "cuda" then return true end
  end
  return false
end

-- "cpu", or "cuda:0" and the like, of --device.
function device.name()
  local asked = host.options.device or "auto"
  if asked ~= "auto" then return asked end
  local several = host.options.devices
  if several and several[1] then return several[1] end
  return has_nvidia() and built_for_cuda() and "cuda:0" or "cpu"
end

-- "cpu" or "cuda".
function device.backend(name)
  return (name or device.name()):match "^%a+"
end

-- One slot for every device experiments may run on at once.
function device.slots()
  local asked = host.options.devices or {}
  return #asked > 0 and table.move(asked, 1, #asked, 1, {})
    or { device.name() }
end

-- The backend profile that a dry run plans for: the device asked for; the
-- full profile is a GPU's.
function device.plan_backend(profile)
  local asked = host.options.device or "auto"
  if asked ~= "auto" then return device.backend(asked) end
  return profile == "full" and "cuda" or device.backend()
end

return device
