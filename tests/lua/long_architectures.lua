-- The plugin that `make GPU_ARCH=all` left has code for every architecture of
-- ours that this nvcc knows. `make test-long` builds it before this runs.
local check = require "check"
local gpu = require "gpu"

local OURS = { "8.0", "8.6", "8.9", "9.0", "10.0", "12.0" }

local function output(command)
  local pipe <close> = assert(io.popen(command .. " 2>/dev/null"))
  return pipe:read "a"
end

-- What nvcc lists, as capabilities: { ["9.0"] = true, … }.
local function known()
  local list, set = "", {}
  for _, nvcc in ipairs { "nvcc", "/usr/local/cuda/bin/nvcc",
    "\"$CUDA_HOME\"/bin/nvcc" } do
    if list == "" then list = output(nvcc .. " --list-gpu-arch") end
  end
  for major, minor in list:gmatch "compute_(%d+)(%d)%f[^%d]" do
    set[major .. "." .. minor] = true
  end
  return next(set) and set
end

check.case("code for every architecture", function()
  local plugin, why = gpu.cuda()
  local set = known()
  if not plugin or not set then check.skip(why or "no nvcc") end
  local wanted = {}
  for _, a in ipairs(OURS) do
    if set[a] then wanted[#wanted + 1] = a end
  end
  check.equal(table.concat(plugin.architectures, " "),
    table.concat(wanted, " "), "built with make GPU_ARCH=all?")
end)

check.done()
