-- A sweep's folder as the dashboard sees it: read again when it changed, never
-- written. Half-written last lines are what a reader of a live file meets.
local host = require "host"
local state = require "llm.state"

local folder = {}
folder.__index = folder

-- The folder at `path`, which need not exist.
function folder.open(path)
  return setmetatable({ path = path, files = {}, names = {} }, folder)
end

-- A name that is one plain part of a path; others are not looked up.
function folder.is_plain(name)
  return type(name) == "string" and name ~= "" and #name < 200
    and not name:find "[/%z]" and name ~= "." and name ~= ".."
end

local function stamp(path)
  local size = host.file.size(path)
  if not size then return "-" end
  return size .. ":" .. tostring(host.file.mtime(path))
end

function folder:metrics_path(name)
  return self.path .. "/runs/" .. name .. "/metrics.jsonl"
end

-- A text that differs whenever a file the dashboard shows did change.
function folder:signature()
  local parts = { stamp(self.path .. "/journal.jsonl"),
    stamp(self.path .. "/lock"), tostring(self:running()) }
  for _, name in ipairs(self.names) do
    parts[#parts + 1] = stamp(self:metrics_path(name))
  end
  return table.concat(parts, " ")
end

-- Is the process that holds the folder's lock alive, and the one that took it?
function folder:running()
  local text = host.file.read(self.path .. "/lock", 64) or ""
  local pid, start = text:match "^(%d+) (%-?%d+)"
  local stat = pid and host.file.read("/proc/" .. pid .. "/stat", 4096)
  local rest = stat and stat:match "^.*%) (.*)$"
  if not rest then return false end
  local fields = {}
  for word in rest:gmatch "%S+" do fields[#fields + 1] = word end
  return fields[1] ~= "Z" and fields[20] == start
end

-- Records of whole lines; what follows the last good one is left for later.
local function parse(text)
  local records = {}
  for line in text:gmatch "([^\n]+)\n" do
    local record = host.json.decode(line)
    if type(record) == "table" then
      records[#records + 1] = state.strip(record)
    end
  end
  return records
end

local MOST = 512 -- training records kept of a run

-- Long runs thinned: of the training records those at every 2^k-th step (so
-- that the seeds of one experiment keep the same steps) and the last; all
-- evaluations.
local function thinned(records)
  local every = 1
  while #records / every > MOST do every = 2 * every end
  if every == 1 then return records end
  local out = {}
  for i, r in ipairs(records) do
    if r.val_loss or i == #records or (r.step or 0) % every == 0 then
      out[#out + 1] = r
    end
  end
  return out
end

local function curve(self, name)
  if not folder.is_plain(name) then return nil end
  local path = self:metrics_path(name)
  local mark, known = stamp(path), self.files[name]
  if mark == "-" then return nil end
  if not known or known.mark ~= mark then
    known = { mark = mark,
      records = thinned(parse(host.file.read(path) or "")) }
    self.files[name] = known
  end
  return known.records
end

local function names_of(s)
  local names = {}
  for _, e in ipairs(s.order or {}) do
    if folder.is_plain(e.name) then names[#names + 1] = e.name end
  end
  return names
end

-- What is there: { state = folded journal, curves = {name = records}, running,
-- why = why the journal cannot be read }.
function folder:read()
  local s, message = state.read(self.path .. "/journal.jsonl")
  local out = { state = s or { experiments = {} }, curves = {},
    running = self:running(), why = message }
  if not s then return out end
  self.names = names_of(s)
  for _, name in ipairs(self.names) do out.curves[name] = curve(self, name) end
  return out
end

return folder
