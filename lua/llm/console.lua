-- What a sweep says: one timestamped text on standard output and in the log,
-- and one progress line on standard error.
local host = require "host"

local console = {}
console.__index = console

-- A console that also appends to the log at `path` (nil: output only).
-- quiet: nothing on standard output (--json).
function console.open(path, quiet)
  return setmetatable({ path = path, quiet = quiet, color = "plain" },
    console)
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
    if not self.quiet then
      local shown = mood and host.terminal.color(COLORS[mood], line) or line
      io.stdout:write(stamp:sub(12), "  ", shown, "\n")
    end
  end
  io.stdout:flush()
  if self.path then host.file.append(self.path, table.concat(log)) end
end

function console:format(mood, format, ...)
  self:say(format:format(...), mood)
end

-- A table without time stamps on the terminal, so that it keeps to 80 columns.
function console:table(lines)
  host.terminal.progress()
  if not self.quiet then
    io.stdout:write(table.concat(lines, "\n"), "\n")
    io.stdout:flush()
  end
  if self.path then
    host.file.append(self.path, table.concat(lines, "\n") .. "\n")
  end
end

function console:stage(number, name)
  self:format("head", "%d/4 %s", number, name)
end

function console:progress(text) host.terminal.progress(text) end

return console
