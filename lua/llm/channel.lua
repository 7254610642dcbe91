-- A child's side of the line to its parent: one JSON object a line on standard
-- output, the assignment as the first line of standard input.
local host = require "host"

local channel = {}

-- The assignment, and from here on the end of this process when the parent's
-- side of the pipe closes.
function channel.assignment()
  local line = io.stdin:read "l"
  local assignment = line and host.json.decode(line)
  if not assignment then
    error("an experiment is started by its sweep, not by hand", 0)
  end
  host.process.on_stdin_close()
  return assignment
end

function channel.send(event, fields)
  fields.event = event
  io.stdout:write(host.json.encode(fields), "\n")
  io.stdout:flush()
end

-- The event of a line, or nil when the line is other output.
function channel.parse(line)
  if line:sub(1, 1) ~= "{" then return nil end
  local event = host.json.decode(line)
  return type(event) == "table" and event.event and event or nil
end

return channel
