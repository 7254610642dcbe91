-- The program under test on a terminal of its own, by script(1).
local host = require "host"

local terminal = {}

local program = os.getenv "LLMHOST" or host.process.executable()

-- Is script(1) there, and does it get a terminal? (A bare chroot has none.)
function terminal.available()
  local p = host.process.spawn { "script", "-qec", "true", "/dev/null",
    stdin = "null", stdout = "null", stderr = "null" }
  return p and p:wait(20).exit == 0 or false
end

local function quoted(word) return "'" .. word:gsub("'", "'\\''") .. "'" end

-- Run with words; keys = { { pattern, text }… }: each text is typed when a line
-- that matches its pattern was shown after the one before. Gives all that was
-- shown, without carriage returns, and the exit code.
function terminal.run(words, keys, env)
  local command = { "exec", quoted(program) }
  for _, word in ipairs(words) do command[#command + 1] = quoted(word) end
  local p <close> = assert(host.process.spawn { "script", "-qec",
    table.concat(command, " "), "/dev/null", stdin = "pipe", env = env })
  local seen, last = {}, nil
  local function next_line()
    local line, why
    for _ = 1, 20 do
      line, why = p:read_line(1)
      if line or why ~= "timeout" then break end
      -- The end of input is lost on a program that was not reading yet.
      if last == "\4" then p:write(last) end
    end
    if line then seen[#seen + 1] = line:gsub("\r", "") end
    if not line and why == "timeout" then
      error("no more was shown after:\n" .. table.concat(seen, "\n"), 0)
    end
    return line and seen[#seen]
  end
  for _, key in ipairs(keys or {}) do
    local line
    repeat
      line = next_line()
      if not line then
        error("it ended before " .. key[1] .. ":\n"
          .. table.concat(seen, "\n"), 0)
      end
    until line:find(key[1])
    -- A terminal drops what is typed with a control key that a program which
    -- is not reading yet would have to see.
    if key[2]:find "^%c" then host.sleep(.3) end
    p:write(key[2])
    last = key[2]
  end
  repeat until not next_line()
  return table.concat(seen, "\n"), p:wait(20).exit
end

return terminal
