-- What experiments/dashboard.lua does: find the sweep, serve, or say why not.
local dashboard = require "llm.dashboard"
local host = require "host"

local DEFAULT = "experiments/sweep.lua"

-- The script's sweep, loaded without this command's own words; nil and why.
local function sweep_of(path)
  local asked = path
  path = path or DEFAULT
  if not asked and not host.file.is_file(path) then
    path = host.options.root .. "/" .. DEFAULT
  end
  local words = host.options.args
  host.options.args = {}
  local ok, sweep = pcall(function()
    return assert(loadfile(path, "t"))()
  end)
  host.options.args = words
  if ok and type(sweep) == "table" and sweep.experiments then return sweep end
  return nil, ("%s: %s"):format(path, ok and "it returns no sweep"
    or tostring(sweep))
end

local function browser(address)
  local p = host.process.spawn { "xdg-open", address, stdin = "null",
    stdout = "null", stderr = "null", die_with_parent = false }
  if not p then
    io.stderr:write("dashboard: no xdg-open here; open ", address, "\n")
  end
  return p
end

local function told(options, self)
  return function(port)
    local address = ("http://127.0.0.1:%d/"):format(port)
    if not self.view.journal then
      io.stdout:write(options.results, ": no journal.jsonl there yet; the ",
        "page shows the experiments that would run, and follows a sweep once ",
        "one writes there: llmhost experiments/sweep.lua\n")
    end
    io.stdout:write("dashboard of ", options.results, ": ", address,
      "  (Ctrl-C ends it)\n")
    io.stdout:flush()
    if options.open then options.process = browser(address) end
  end
end

local function explained(message, port)
  if tostring(message):find("in use", 1, true) then
    return ("port %d is taken: another dashboard may be running; choose one "
      .. "with port=%d, or port=0 for any"):format(port, port % 65535 + 1)
  end
  return tostring(message)
end

-- Run with these options (results, port, open, script); gives the exit code.
return function(options)
  local sweep, why = sweep_of(options.script)
  if options.script and not sweep then
    io.stderr:write("dashboard: script=", why, "\n")
    return 2
  end
  local self = dashboard.new(options.results, sweep)
  host.process.interrupted()
  local ok, message = self:serve(options.port, told(options, self))
  if ok then return 0 end
  io.stderr:write("dashboard: ", explained(message, options.port), "\n")
  return 1
end
