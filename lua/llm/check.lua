-- Whether this machine can run a sweep: a list of findings, each pass, warn,
-- fail or info, with the command that fixes it.
local config = require "llm.config"
local cudacheck = require "llm.cudacheck"
local data = require "llm.data"
local device = require "llm.device"
local host = require "host"
local hub = require "llm.hub"
local parts = require "llm.parts"
local size = require "llm.size"
local tokenfiles = require "llm.tokenfiles"

local check = {}

local GB = 1e9
-- { pass, warn } bytes: at least pass is fine, under warn fails.
local NEEDS = {
  nano = { memory = { 2 * GB, 1 * GB }, disk = { 2 * GB, .2 * GB } },
  full = { memory = { 32 * GB, 8 * GB }, disk = { 10 * GB, 1 * GB } },
}
local WARN = { memory = 16 * GB, disk = 5 * GB }

local function level(got, need, warn)
  if got >= need[1] then return "pass" end
  if got < need[2] then return "fail" end
  return got < (warn or need[1]) and "warn" or "pass"
end

local function finding(level_, name, text, fix)
  return { level = level_, name = name, text = text, fix = fix }
end

-- A plain record of what results depend on; goes into the journal.
function check.environment()
  local m = host.machine()
  local backend = device.backend()
  return { device = backend == "cpu" and m.cpu or device.name(),
    backend = backend, build = parts.build(), date = host.date(),
    cores = m.cores, memory = m.memory, os = m.os, kernel = m.kernel,
    isa = m.isa }
end

local function memory(profile)
  local m = host.machine()
  local word = level(m.memory, NEEDS[profile].memory,
    profile == "full" and WARN.memory)
  return finding(word, "memory", ("%s, %s available; the %s profile wants %s")
    :format(size.bytes(m.memory), size.bytes(m.available), profile,
    size.bytes(NEEDS[profile].memory[1])),
    word == "fail" and "profile=nano needs less" or nil)
end

local function disk(profile, out)
  local d, message = host.disk(host.file.exists(out) and out or ".")
  if not d then return finding("warn", "disk", message) end
  local word = level(d.free, NEEDS[profile].disk,
    profile == "full" and WARN.disk)
  return finding(word, "disk", ("%s free; the %s profile wants %s"):format(
    size.bytes(d.free), profile, size.bytes(NEEDS[profile].disk[1])),
    word == "fail" and "free some space, or out=FOLDER on another disk" or nil)
end

local function machine()
  local m = host.machine()
  return finding("info", "machine", ("%s, %d cores, %s, %s%s"):format(m.cpu,
    m.cores, m.isa, m.os, m.wsl and ", WSL" or ""))
end

local function asks(sweep, precision)
  for _, e in ipairs(sweep.experiments) do
    if e.train.precision == precision then return true end
  end
  return false
end

-- What each run would fail with, or nil.
local function precision(sweep)
  if device.backend() ~= "cpu" then return nil end
  for _, word in ipairs { "tf32", "bf16", "fp16" } do
    if asks(sweep, word) then
      return finding("fail", "precision", ("train.precision = %s needs a GPU; "
        .. "the cpu computes in f32"):format(word), "train.precision=auto")
    end
  end
end

-- Findings about CUDA; `always`: also where there is no driver.
local function cuda(sweep, always)
  local facts = parts.probe(always)
  facts.wsl = host.machine().wsl
  facts.wanted = device.backend() == "cuda"
  facts.names = device.slots()
  facts.budget = sweep.config.values["memory.budget"]
  facts.fp8 = asks(sweep, "fp8")
  return cudacheck.findings(facts)
end

local NO_CURL = "install libcurl4-openssl-dev and build again, or "
  .. "data.source=PATH, or data.source=system"

-- What of a name on the hub is here, and whether the rest can be had.
local function from_hub(name, what, there, settings)
  if there then
    return finding("pass", name, what .. ": " .. there)
  elseif not host.libraries().curl then
    return finding("fail", name, what .. " lies on the hub, and this build has "
      .. "no libcurl", NO_CURL)
  elseif settings.offline then
    return finding("fail", name, what .. " is not here, and HF_HUB_OFFLINE is "
      .. "set", "data.source=PATH, or data.source=system")
  end
  return finding("info", name, what .. " will be fetched from "
    .. settings.endpoint)
end

local function data_of(sweep)
  local d = config.section(sweep.config.values, "data")
  return d, sweep.config.profile, hub.settings(d.cache)
end

local function packed(path)
  local kind = path:match "%.(%a+)$"
  local library = ({ gz = "zlib", zst = "zstd" })[kind]
  if not library or host.libraries()[library] then return nil end
  return finding("fail", "data", ("%s: this build has no %s"):format(path,
    library), "unpack it, or install " .. library
    .. "'s development package and build again")
end

local function token_file(path)
  local held, tried = tokenfiles.held_out(path)
  if not host.file.is_file(path) then
    return finding("fail", "data", "no such file: " .. path,
      "data.source=PATH")
  elseif not held then
    return finding("fail", "data", path .. ": no file of held-out tokens "
      .. "beside it", "put one there: " .. (tried[1]
      or "train.bin and val.bin"))
  end
  return finding("pass", "data", ("token files: %s, %s"):format(path, held))
end

local function source(sweep)
  local d, profile, settings = data_of(sweep)
  local s = data.source(d, profile)
  if hub.is(s) then
    settings.field = d.field
    return from_hub("data", s, hub.present(s, settings), settings)
  elseif tokenfiles.is(s) then
    return token_file(s)
  elseif s == "system" or s == "-" or s:find "[*?]" then
    return finding("pass", "data", "source: " .. s)
  elseif host.file.exists(s) then
    return packed(s) or finding("pass", "data", "source: " .. s)
  end
  return finding("fail", "data", "no such file or folder: " .. s,
    "data.source=PATH")
end

local function tokenizer(sweep)
  local d, profile, settings = data_of(sweep)
  local t = data.tokenizer(d, profile)
  if not t then
    return finding("pass", "tokenizer", "trained on the corpus")
  elseif hub.is(t) then
    return from_hub("tokenizer", t, hub.has_tokenizer(t, settings)
      and "in the cache", settings)
  elseif host.file.exists(t) then
    return finding("pass", "tokenizer", t)
  end
  return finding("fail", "tokenizer", "no such file: " .. t,
    "data.tokenizer=train")
end

-- Seconds a sweep will take: training, and what comes with it.
function check.estimate(sweep)
  local total = 0
  for _, e in ipairs(sweep.experiments) do
    if math.type(e.train.steps) == "integer" then return nil end
    total = total + e.train.minutes * 60
      * (1.25 + e.search.share + e.search.timing_share) + 3
  end
  return total / #device.slots()
end

local function time(sweep)
  local seconds = check.estimate(sweep)
  return finding("info", "time", seconds
    and ("about %s for %d experiments"):format(size.seconds(seconds),
      #sweep.experiments) or "not known: steps are given, no time")
end

local function selftest()
  local ok, text = parts.selftest()
  return finding(ok and "pass" or "fail", "self-test", text,
    not ok and "make test says more" or nil)
end

local function append(list, more)
  return table.move(more, 1, #more, #list + 1, list)
end

local function report_of(sweep, always)
  local profile = sweep.config.profile
  local list = append({ machine(), memory(profile),
    disk(profile, sweep.out) }, cuda(sweep, always))
  list[#list + 1] = precision(sweep)
  append(list, { source(sweep), tokenizer(sweep), selftest(), time(sweep) })
  local report = { findings = list, failed = false }
  for _, f in ipairs(list) do
    report.failed = report.failed or f.level == "fail"
  end
  return report
end

-- What a sweep looks at before it starts.
function check.quick(sweep) return report_of(sweep, false) end

-- Everything: the program's parts and versions, too.
function check.full(sweep)
  local report = report_of(sweep, true)
  for i, f in ipairs(parts.versions()) do
    table.insert(report.findings, i, f)
  end
  for _, f in ipairs(parts.optional()) do
    report.findings[#report.findings + 1] = f
  end
  return report
end

local MARK = { pass = "ok  ", warn = "warn", fail = "FAIL", info = "    " }

-- Lines of text: one a finding, one more for what mends it.
function check.lines(report)
  local lines = {}
  for _, f in ipairs(report.findings) do
    lines[#lines + 1] = ("%s  %-10s %s"):format(MARK[f.level], f.name, f.text)
    if f.fix then lines[#lines + 1] = (" "):rep(17) .. "-> " .. f.fix end
  end
  return lines
end

return check
