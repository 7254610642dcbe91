-- Where a sweep stands: its journal, folded.
local host = require "host"

local state = {}

-- Statuses after which an experiment is not run again.
state.FINISHED = { ok = true, nan = true, diverged = true, oom = true,
  timeout = true, hung = true, crashed = true, error = true }
state.WORDS = { "ok", "nan", "diverged", "oom", "timeout", "hung", "crashed",
  "error", "interrupted", "disk", "skipped" }

local function entry(s, name)
  local e = s.experiments[name]
  if not e then
    e = { name = name, attempts = 0, search_seconds = 0 }
    s.experiments[name] = e
  end
  return e
end

local FOLD = {
  sweep = function(s, r) s.sweep = r; s.began = s.began or r.time end,
  order = function(s, r) s.order = r.experiments end,
  data = function(s, r) s.data = r end,
  common = function(s, r) s.common = r end,
  check = function(s, r) s.check = r end,
  start = function(s, r)
    local e = entry(s, r.name)
    e.attempts, e.status = e.attempts + 1, "running"
  end,
  decided = function(s, r) entry(s, r.name).decided = r.decided end,
  ["end"] = function(s, r)
    local e = entry(s, r.name)
    e.status, e.error, e.result = r.status, r.error, r.result
  end,
  again = function(s, r) entry(s, r.name).status = nil end,
  finish = function(s, r) s.finish = r end,
}

local function strip(v)
  if v == host.json.null then return nil end
  if type(v) ~= "table" then return v end
  local out = {}
  for key, x in pairs(v) do
    if x ~= host.json.null then out[key] = strip(x) end
  end
  return out
end

-- Plain tables without JSON nulls.
state.strip = strip

-- The folded journal at `path`: { sweep, data, order, common, experiments =
-- {name = {status, attempts, decided, result, error}}, damaged = n, torn }.
-- An absent journal is an empty one.
function state.read(path)
  local s = { experiments = {}, damaged = 0 }
  if not host.file.exists(path) then return s end
  local records, info = host.journal.read(path)
  if not records then return nil, info end
  for _, record in ipairs(records) do
    record = strip(record)
    local fold = FOLD[record.type]
    if fold then fold(s, record) end
  end
  s.torn, s.damaged = info.torn, #(info.damaged or {})
  return s
end

function state.finished(s, name)
  local e = s.experiments[name]
  return e ~= nil and state.FINISHED[e.status] == true
end

return state
