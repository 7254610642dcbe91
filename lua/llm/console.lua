-- What a sweep says: one timestamped text on standard output and in the log,
-- and one progress line on standard error. Under --json standard output is the
-- document's alone, and all of this goes to standard error.
local host = require "host"
local narrate = require "llm.narrate"

local console = {}
console.__index = console

-- A console that also appends to the log at `path` (nil: output only).
-- json: standard output belongs to a JSON document.
function console.open(path, json)
  return setmetatable({ path = path, fd = json and 2 or 1,
    stream = json and io.stderr or io.stdout }, console)
end

local COLORS = { good = "green", bad = "red", warn = "yellow",
  head = "bold", dim = "dim" }

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

-- The first `word` of a line in the colour of its mood.
local function painted(line, word, mood, fd)
  local from, to = line:find(" " .. word .. " ", 1, true)
  if not from then return line end
  return line:sub(1, from) .. host.terminal.color(COLORS[mood], word, fd)
    .. line:sub(to)
end

-- A table without time stamps on the terminal, so that it keeps to 80 columns.
-- statuses: by line the status word that is coloured in it.
function console:table(lines, statuses)
  host.terminal.progress()
  for i, line in ipairs(lines) do
    local word = statuses and statuses[i]
    self.stream:write(word and painted(line, word, narrate.mood(word), self.fd)
      or line, "\n")
  end
  self.stream:flush()
  if self.path then
    host.file.append(self.path, table.concat(lines, "\n") .. "\n")
  end
end

function console:stage(number, name)
  self:format("head", "%d/4 %s", number, name)
end

-- Pieces { text, rank } as one line of at most `width` characters: those of the
-- highest rank are left out first.
function console.fit(pieces, width)
  local left = table.move(pieces, 1, #pieces, 1, {})
  while true do
    local texts, last = {}, nil
    for i, piece in ipairs(left) do
      texts[i] = piece[1]
      if not last or piece[2] > left[last][2] then last = i end
    end
    local line = table.concat(texts, "  ")
    if utf8.len(line) <= width or left[last][2] <= 1 then return line end
    table.remove(left, last)
  end
end

-- Show the line of progress: a text, or pieces that are cut to the terminal's
-- width. Where there is no terminal they are all there.
function console:progress(line)
  if type(line) == "table" then
    local width = host.terminal.isatty(2) and host.terminal.width(2) - 1
    line = console.fit(line, width or math.huge)
  end
  host.terminal.progress(line)
end

return console
