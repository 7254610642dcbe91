-- The program's parts: versions, optional libraries and what each adds; the
-- probe of the devices and the self-test, which run in processes of their own.
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

-- name, as host.libraries calls it, what it adds, Debian package.
local OPTIONAL = {
  { "zlib", "zlib", ".gz corpora", "zlib1g-dev" },
  { "zstd", "zstd", ".zst corpora", "libzstd-dev" },
  { "libcurl", "curl", "text from the hub (hf:)", "libcurl4-openssl-dev" },
  { "microhttpd", "microhttpd", "the dashboard", "libmicrohttpd-dev" },
  { "libedit", "edit", "line editing at the prompt", "libedit-dev" },
}

local function optional(name, there, gives, package_)
  local version = there and there ~= true and there ~= "present"
    and " (" .. there .. ")" or ""
  return { level = there and "pass" or "info", name = name,
    text = there and "present: " .. gives .. version
      or "absent: without it no " .. gives,
    fix = not there and "apt-get install " .. package_ .. " && make" or nil }
end

-- Findings about optional parts.
function parts.optional()
  local list = { optional("plots",
    package.searchpath("chart", package.cpath) ~= nil, "charts",
    "libplot-dev libstb-dev") }
  local built = host.libraries()
  for _, p in ipairs(OPTIONAL) do
    list[#list + 1] = optional(p[1], built[p[2]], p[3], p[4])
  end
  return list
end

-- Start a script of this library on the sweep's device; its last line and how
-- it ended, or nil and why it did not start.
local function ask(script)
  local p, message = host.process.spawn { host.process.executable(),
    "--device", device.name(), host.options.root .. "/lua/llm/" .. script,
    stdout = "pipe", stdin = "null", stderr = "pipe" }
  if not p then return nil, tostring(message) end
  local text, line = nil, p:read_line(60)
  while line do
    text, line = line, p:read_line(60)
  end
  local status = p:wait(5) or {}
  local said = p:read_error_line(0)
  p:close()
  return { text = text, ok = status.exit == 0 and text ~= nil,
    why = text or said or "it ended without a word" }
end

-- What is known of CUDA and the devices: probe.lua's table, or at least `why`.
-- A machine without a driver is not asked unless `always`.
function parts.probe(always)
  local driver = host.file.exists "/proc/driver/nvidia/version"
    or host.file.exists "/dev/dxg"
  if not (driver or always) then return { why = "driver not found" } end
  local answer, message = ask "probe.lua"
  local facts = answer and answer.ok and host.json.decode(answer.text)
  if type(facts) ~= "table" then
    return { why = message or answer.why }
  end
  return facts
end

-- Run the operators' self-test on the sweep's device in a child; ok, text.
function parts.selftest()
  local began = host.clock()
  local answer, message = ask "selftest.lua"
  if not answer then return false, message end
  if not answer.ok then return false, answer.why end
  return true, ("%s (%.1f s)"):format(answer.text, host.clock() - began)
end

return parts
