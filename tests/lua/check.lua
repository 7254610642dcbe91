-- A Lua test: named cases, one result line each (`ok - name`, `not ok - name`,
-- `skip - name: reason`), counted by the runner.
--
--   local check = require "check"
--   check.case("addition", function() check.equal(1 + 1, 2) end)
--   check.done()
local check = {}
local failed = 0
local SKIP = {}

function check.skip(reason) error(setmetatable({reason = reason}, SKIP)) end

function check.case(name, body)
  local ok, err = xpcall(body, function(e)
    if getmetatable(e) == SKIP then return e end
    return debug.traceback(tostring(e), 2)
  end)
  if ok then
    print("ok - " .. name)
  elseif getmetatable(err) == SKIP then
    print("skip - " .. name .. ": " .. err.reason)
  else
    failed = failed + 1
    print("# " .. tostring(err):gsub("\n", "\n# "))
    print("not ok - " .. name)
  end
  io.stdout:flush()
end

local function show(v)
  return type(v) == "string" and string.format("%q", v) or tostring(v)
end

function check.equal(got, want, note)
  if got ~= want then
    error((note and note .. ": " or "") .. "got " .. show(got) .. ", want "
      .. show(want), 2)
  end
end

function check.near(got, want, tolerance, note)
  if not (math.abs(got - want) <= tolerance) then
    error(string.format("%sgot %.9g, want %.9g within %g",
      note and note .. ": " or "", got, want, tolerance), 2)
  end
end

function check.truthy(value, note)
  if not value then error(note or "got " .. show(value), 2) end
end

-- What a shell command prints, by lines.
function check.lines_of(command)
  local pipe = assert(io.popen(command))
  local lines = {}
  for line in pipe:lines() do lines[#lines + 1] = line end
  pipe:close()
  return lines
end

-- The call must raise, and the message must contain `text` (plain).
function check.raises(text, f, ...)
  local ok, err = pcall(f, ...)
  if ok then error("no error; wanted one with " .. show(text), 2) end
  local message = tostring(err)
  if not message:find(text, 1, true) then
    error("error " .. show(message) .. " lacks " .. show(text), 2)
  end
  return err
end

function check.done() os.exit(failed == 0 and 0 or 1, true) end

return check
