-- The program's parts: versions, optional libraries and what each adds, CUDA,
-- and the self-test, which runs in a process of its own.
local device = require "llm.device"
local host = require "host"

local parts = {}

local function gpu_version()
  local ok, gpu = pcall(require, "gpu")
  return ok and gpu.version or {}
end

-- The build in words, for results and logs.
function parts.build()
  local v = gpu_version()
  if type(v) ~= "table" then return tostring(v) end
  return tostring(v.build or v.version or host.version)
end

local function info(name, text)
  return { level = "info", name = name, text = text }
end

-- Findings about compiler and library versions.
function parts.versions()
  local list = { info("llmhost", host.version .. ", " .. _VERSION) }
  local v = gpu_version()
  if type(v) ~= "table" then return list end
  for _, key in ipairs { "build", "compiler", "blas", "isa" } do
    if v[key] then list[#list + 1] = info(key, tostring(v[key])) end
  end
  for _, library in ipairs(v.libraries or {}) do
    list[#list + 1] = info(library.name, tostring(library.version))
  end
  return list
end

-- name, files of which one must be there, what it adds, Debian package.
local OPTIONAL = {
  { "zlib", { "/usr/lib/*/libz.so*" }, ".gz corpora", "zlib1g-dev" },
  { "zstd", { "/usr/lib/*/libzstd.so*" }, ".zst corpora", "libzstd-dev" },
  { "libcurl", { "/usr/lib/*/libcurl.so*" }, "text from the hub (hf:)",
    "libcurl4-openssl-dev" },
  { "microhttpd", { "/usr/lib/*/libmicrohttpd.so*" }, "the dashboard",
    "libmicrohttpd-dev" },
  { "libedit", { "/usr/lib/*/libedit.so*" }, "line editing at the prompt",
    "libedit-dev" },
}

local function present(patterns)
  for _, pattern in ipairs(patterns) do
    local found = host.file.glob(pattern)
    if found and #found > 0 then return true end
  end
  return false
end

local function optional(name, there, gives, package_)
  return { level = there and "pass" or "info", name = name,
    text = there and "present: " .. gives or "absent: without it no " .. gives,
    fix = not there and "apt-get install " .. package_ .. " && make" or nil }
end

-- Findings about optional parts.
function parts.optional()
  local list = { optional("plots",
    package.searchpath("chart", package.cpath) ~= nil, "charts",
    "libplot-dev libstb-dev") }
  for _, p in ipairs(OPTIONAL) do
    list[#list + 1] = optional(p[1], present(p[2]), p[3], p[4])
  end
  return list
end

local function built_for_cuda()
  for _, word in ipairs(gpu_version().backends or {}) do
    if word == "cuda" then return true end
  end
  return package.searchpath("llmhost_cuda", package.cpath) ~= nil
end

-- Whether CUDA can be used, and what was found of it, in words.
function parts.cuda()
  local driver = host.file.read("/proc/driver/nvidia/version")
  local built = built_for_cuda()
  if not driver and not host.file.exists "/dev/dxg" then
    return false, "driver not found" .. (built and "" or
      "; this build has no CUDA backend")
  elseif not built then
    return false, "a driver is here, but this build has no CUDA backend: "
      .. "install CUDA >= 12.8, then make"
  end
  return true, driver and driver:match "[^\n]*" or "WSL driver"
end

-- Run the operators' self-test on the sweep's device in a child; ok, text.
function parts.selftest()
  local began = host.clock()
  local p, message = host.process.spawn { host.process.executable(),
    "--device", device.name(), host.options.root .. "/lua/llm/selftest.lua",
    stdout = "pipe", stdin = "null", stderr = "pipe" }
  if not p then return false, tostring(message) end
  local text, line = nil, p:read_line(60)
  while line do
    text, line = line, p:read_line(60)
  end
  local status = p:wait(5) or {}
  local said = p:read_error_line(0)
  p:close()
  if status.exit == 0 and text then
    return true, ("%s (%.1f s)"):format(text, host.clock() - began)
  end
  return false, text or said or "it ended without a word"
end

return parts
