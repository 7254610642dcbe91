-- Errors of this library: objects with `code`, `message` and `where`, placed
-- at the line of the user's file that caused them.
local fail = {}

local Failure = { __name = "llm.error" }
Failure.__index = Failure
function Failure.__tostring(e)
  return e.where and e.where .. ": " .. e.message or e.message
end

local function library(source)
  return source:find("^@.*lua/llm/[%w_]+%.lua$") ~= nil
end

-- "script.lua:12" of the innermost Lua function outside lua/llm, or nil.
local function user_line()
  for level = 3, 60 do
    local info = debug.getinfo(level, "Sl")
    if not info then return nil end
    if info.what ~= "C" and info.currentline > 0
      and not library(info.source) then
      return info.short_src .. ":" .. info.currentline
    end
  end
end

-- Codes whose message says all: no line of a script, no traceback.
local PLAIN = { usage = true, world = true, interrupted = true }

-- Raise `format % …` with `code` ("usage", "argument", "oom", …; "world" for
-- what is wrong outside: files, servers).
function fail.raise(code, format, ...)
  local message = select("#", ...) > 0 and format:format(...) or format
  error(setmetatable({ code = code, message = message,
    where = not PLAIN[code] and user_line() or nil }, Failure), 0)
end

-- The code of any error value; "error" when it has none.
function fail.code(e)
  local ok, code = pcall(function() return e.code end)
  return ok and type(code) == "string" and code or "error"
end

return fail
