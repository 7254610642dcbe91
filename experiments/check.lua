-- Can this machine run the sweep? Versions, device, memory, disk, data, a
-- self-test, the time it will take. Exit code 1 when something is missing.
--
--   llmhost experiments/check.lua [profile=nano|full]
local check = require "llm.check"
local host = require "host"
local sweep = require "llm.sweep"

local COLORS = { ["ok  "] = "green", warn = "yellow", FAIL = "red" }

-- The first word of a line in the colour of what it says.
local function painted(line)
  local color = COLORS[line:sub(1, 4)]
  return color and host.terminal.color(color, line:sub(1, 4)) .. line:sub(5)
    or line
end

-- The sweep that was checked: with the keys that were given here.
local function next_command()
  local words = { "llmhost experiments/sweep.lua" }
  for _, word in ipairs(host.options.args or {}) do
    if word:find "^[%w_.]+=" then
      words[#words + 1] = word:find "[^%w_.,:/=%-]"
        and "'" .. word:gsub("'", "'\\''") .. "'" or word
    end
  end
  return table.concat(words, " ")
end

local function main()
  local s = sweep { name = "check" }
  if host.options.help then return require("llm.usage").sweep(s) end
  local report = check.full(s)
  if host.options.json or s.config.flags.json then
    print(host.json.encode(report, { indent = 2 }))
  else
    for _, line in ipairs(check.lines(report)) do print(painted(line)) end
    print(report.failed and "some of it must be mended first"
      or "next: " .. next_command())
  end
  return report.failed and 1 or 0
end

return setmetatable({}, { __run = main })
