-- The command line of experiments/dashboard.lua.
local dashboard = require "llm.dashboard"
local host = require "host"
local nearest = require "llm.nearest"

local KEYS = { "open", "port", "results", "script" }
local DEFAULT = "experiments/sweep.lua"

local function usage(format, ...)
  io.stderr:write("dashboard: ", format:format(...), "\n")
  return nil
end

local function boolean(text)
  if text == "true" or text == "false" then return text == "true" end
end

local function port_of(text)
  local port = math.tointeger(tonumber(text))
  return port and port >= 0 and port <= 65535 and port or nil
end

local READ = { open = boolean, port = port_of,
  results = function(text) return text ~= "" and text or nil end,
  script = function(text) return text ~= "" and text or nil end }
local WANTED = { open = "true or false", port = "a port from 0 to 65535",
  results = "a folder", script = "a sweep's Lua file" }

-- The words as a table of options, or nil after saying what is wrong.
local function options_of(words)
  local options = { port = 8501, results = "experiment_results" }
  for _, word in ipairs(words) do
    local key, text = word:match "^([%w_]+)=(.*)$"
    if not key then
      return usage("unknown argument '%s'; options are written key=value: %s",
        word, table.concat(KEYS, ", "))
    elseif not READ[key] then
      local near = nearest(key, KEYS)
      return usage("unknown key '%s'%s", key, near and "; did you mean '"
        .. near .. "'?" or "; the keys are " .. table.concat(KEYS, ", "))
    end
    options[key] = READ[key](text)
    if options[key] == nil then
      return usage("%s=%s: expected %s", key, text, WANTED[key])
    end
  end
  return options
end

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

local function explained(message, code, port)
  if tostring(message):find("in use", 1, true) then
    return ("port %d is taken: another dashboard may be running; choose one "
      .. "with port=%d, or port=0 for any"):format(port, port % 65535 + 1)
  end
  return tostring(message), code
end

-- Run with these words; gives the exit code.
return function(words)
  local options = options_of(words)
  if not options then return 2 end
  local sweep, why = sweep_of(options.script)
  if options.script and not sweep then
    usage("script=%s", why)
    return 2
  end
  local self = dashboard.new(options.results, sweep)
  host.process.interrupted()
  local ok, message, code = self:serve(options.port, told(options, self))
  if ok then return 0 end
  io.stderr:write("dashboard: ", explained(message, code, options.port), "\n")
  return 1
end
