-- What a sweep says: one timestamped text on standard output and in the log,
-- and one progress line on standard error. Under --json standard output is the
-- document's alone, and all of this goes to standard error.
local host = require "host"

local console = {}
console.__index = console

-- A console that also appends to the log at `path` (nil: output only).
-- json: standard output belongs to a JSON document.
function console.open(path, json)
  return setmetatable({ path = path, fd = json and 2 or 1,
    stream = json and io.stderr or io.stdout }, console)
end

local COLORS = { good = "green", bad = "red", warn = "yellow",
  head = "bold" }

-- One line or several. mood: good, bad, warn, head or nil.
function console:say(text, mood)
  local stamp = host.date():gsub("T", " "):sub(1, 19)
  host.terminal.progress()
  local log = {}
  for line in (text .. "\n"):gmatch "(.-)\n" do
    log[#log + 1] = stamp .. "  " .. line .. "\n"
    local shown = mood and host.terminal.color(COLORS[mood], line, self.fd)
      or line
    self.stream:write(stamp:sub(12), "  ", shown, "\n")
  end
  self.stream:flush()
  if self.path then host.file.append(self.path, table.concat(log)) end
end

function console:format(mood, format, ...)
  self:say(format:format(...), mood)
end

-- A table without time stamps on the terminal, so that it keeps to 80 columns.
function console:table(lines)
  host.terminal.progress()
  self.stream:write(table.concat(lines, "\n"), "\n")
  self.stream:flush()
  if self.path then
    host.file.append(self.path, table.concat(lines, "\n") .. "\n")
  end
end

function console:stage(number, name)
  self:format("head", "%d/4 %s", number, name)
end

function console:progress(text) host.terminal.progress(text) end

return console
