-- The command line: options, exit codes, error texts.
local check = require "check"
local host = require "host"
local terminal = require "terminal"

local program = os.getenv "LLMHOST" or host.process.executable()
local folder = (os.getenv "TMPDIR" or "/tmp") .. "/cli." .. host.process.pid()
assert(host.file.mkdir(folder))

local function read_all(p, method)
  local lines = {}
  while true do
    local line, why = p[method](p, 20)
    if not line then
      if why == "timeout" then error("no end of output") end
      return table.concat(lines, "\n")
    end
    lines[#lines + 1] = line
  end
end

-- Run with words; options: input, env, cwd. Gives output, errors, exit code.
local function run(words, options)
  options = options or {}
  local command = { program, table.unpack(words) }
  command.stdin = options.input and "pipe" or "null"
  command.stderr = "pipe"
  command.env = options.env
  command.cwd = options.cwd
  local p <close> = assert(host.process.spawn(command))
  if options.input then
    p:write(options.input)
    p:close_stdin()
  end
  local out, err = read_all(p, "read_line"), read_all(p, "read_error_line")
  local e = p:wait(20)
  return out, err, e.exit or ("signal " .. e.signal)
end

local function file(name, text)
  local path = folder .. "/" .. name
  assert(host.file.write(path, text))
  return path
end

local function expect(words, out, err, code, options)
  local got_out, got_err, got_code = run(words, options)
  local note = table.concat(words, " ")
  check.equal(got_err, err, note)
  check.equal(got_out, out, note)
  check.equal(got_code, code, note)
end

check.case("-e, -l and - as in lua(1)", function()
  expect({ "-e", "print(1 + 1)" }, "2", "", 0)
  expect({ "-eprint(1)", "-e", "print(2)" }, "1\n2", "", 0)
  expect({ "-l", "host", "-e", "print(type(host.clock))" }, "function", "", 0)
  expect({ "-", "a", "b" }, "a\tb", "", 0, { input = "print(...)" })
  expect({}, "5", "", 0, { input = "print(5)" })
end)

check.case("nothing is global but the standard libraries", function()
  expect({ "-e", "print(gpu, host)" }, "nil\tnil", "", 0)
end)

check.case("a script's words and the host's options", function()
  local path = file("words.lua", [[
    local o = require("host").options
    print(table.concat({...}, " "))
    print(table.concat(arg, " "), arg[0] == o.script)
    print(table.concat(o.args, " "))
    print(o.device, o.devices and table.concat(o.devices, "+"), o.memory,
      o.color, o.json, o.force, o.fresh, o.experiment)]])
  expect({ path }, "\n\ttrue\n\nauto\tnil\tnil\tauto\tfalse\tfalse\tfalse\tnil",
    "", 0)
  expect({ "--device", "cpu", "--devices=cuda:0,cuda:1", "--memory", "24GB",
    "--color=never", "--json", "--force", "--experiment", "x_1", path, "k=v",
    "--fresh", "--dry-run", "w" },
    "k=v --fresh --dry-run w\nk=v --fresh --dry-run w\ttrue\n"
    .. "k=v --dry-run w\n"
    .. "cpu\tcuda:0+cuda:1\t24GB\tnever\ttrue\ttrue\ttrue\tx_1", "", 0)
  expect({ path, "--", "--json" }, "-- --json\n-- --json\ttrue\n--json\n"
    .. "auto\tnil\tnil\tauto\tfalse\tfalse\tfalse\tnil", "", 0)
end)

check.case("devices by name, or by number after a cuda:N", function()
  local code = 'print(table.concat(require "host".options.devices, "+"))'
  for list, names in pairs { ["cuda:0,1"] = "cuda:0+cuda:1",
    ["cuda:2,0,cuda:1,10"] = "cuda:2+cuda:0+cuda:1+cuda:10",
    ["cpu,cuda:3"] = "cpu+cuda:3", ["cuda:1"] = "cuda:1" } do
    expect({ "--devices", list, "-e", code }, names, "", 0)
  end
end)

local hint = "\nllmhost: 'llmhost --help' lists the options"

check.case("usage errors are exit 2", function()
  expect({ "--frsh" }, "", "llmhost: unknown option '--frsh'; did you mean "
    .. "'--fresh'?" .. hint, 2)
  expect({ "-z" }, "", "llmhost: unknown option '-z'; did you mean '-v'?"
    .. hint, 2)
  expect({ "--bananas" }, "", "llmhost: unknown option '--bananas'" .. hint, 2)
  expect({ "--device" }, "", "llmhost: option '--device' needs a value: "
    .. "auto|cpu|cuda[:N]" .. hint, 2)
  expect({ "--json=1" }, "", "llmhost: option '--json' takes no value"
    .. hint, 2)
  for _, bad in ipairs { "gpu", "cuda:", "cuda:x", "cuda1", "cpu:0", "" } do
    expect({ "--device", bad, "x.lua" }, "", "llmhost: option '--device' must "
      .. "be auto|cpu|cuda[:N], got '" .. bad .. "'", 2)
  end
  expect({ "--memory", "lots" }, "", "llmhost: option '--memory' must be "
    .. "24GB|device, got 'lots'", 2)
  expect({ "--color", "blue" }, "", "llmhost: option '--color' must be "
    .. "auto|always|never, got 'blue'", 2)
  for _, bad in ipairs { "cuda:0,", "0,1", "cpu,1", "cuda,1", "cuda:0,1x",
    "cuda:0,cpu,1", "cuda:0,,1", "cuda:0,1000", "" } do
    expect({ "--devices", bad }, "", "llmhost: option '--devices' must "
      .. "be cuda:0,1, got '" .. bad .. "'", 2)
  end
end)

check.case("--help and -v", function()
  local out, err, code = run { "--help" }
  check.equal(code, 0)
  check.equal(err, "")
  for _, word in ipairs { "usage: llmhost", "--device auto|cpu|cuda[:N]",
    "--memory", "--fresh", "-e code", "130 interrupted" } do
    check.truthy(out:find(word, 1, true), word)
  end
  check.equal(out:find("--experiment", 1, true), nil)
  out, err, code = run { "-v" }
  check.equal(err, "")
  check.equal(code, 0)
  check.truthy(out:find("^llmhost %d+%.%d+%.%d+\nLua 5%.4"), out)
  check.truthy(out:find("BLAS: ", 1, true) and out:find("devices: ", 1, true))
end)

check.case("-v says why there is no CUDA, or names its devices", function()
  local line = run { "-v" }:match "\ndevices: ([^\n]*)"
  local driver = host.file.exists "/dev/nvidiactl"
    or host.file.exists "/dev/dxg"
  if not driver then
    check.equal(line, "cpu (no CUDA: no NVIDIA device)")
  else
    check.truthy(line:find "^cpu cuda:0" or line:find "^cpu %(no CUDA: .+%)$",
      line)
  end
end)

check.case("errors name the script's line, with a traceback", function()
  local path = file("raise.lua", "local x = nil\n\nprint(x.y)\n")
  local out, err, code = run { path }
  check.equal(out, "")
  check.equal(code, 1)
  check.equal(err:match("[^\n]*"), "llmhost: " .. path .. ":3: attempt to "
    .. "index a nil value (local 'x')")
  check.truthy(err:find("\nstack traceback:\n\t", 1, true))
end)

check.case("an error object's position is the user's line", function()
  -- host.json is a Lua file of the library: it is passed over.
  local path = file("object.lua",
    "local host = require 'host'\nlocal function f(v)\n"
    .. "  local s = host.json.encode(v)\n  return s\nend\nf { a = print }\n")
  local _, err, code = run { path }
  check.equal(code, 1)
  check.equal(err:match("[^\n]*"), "llmhost: " .. path
    .. ":3: cannot encode a: a function has no JSON form")
  local path2 = file("spawn.lua", "\n\nrequire('host').process.spawn { }\n")
  _, err = run { path2 }
  check.equal(err:match("[^\n]*"), "llmhost: " .. path2
    .. ":3: host.process.spawn: no program is named")
end)

check.case("other error values", function()
  local _, err, code = run { "-e", "error({})" }
  check.equal(err:match("[^\n]*"), "llmhost: (error object is a table value)")
  check.equal(code, 1)
  _, err = run { "-e", "error(setmetatable({}, {__tostring = function() "
    .. "return 'told' end}))" }
  check.equal(err:match("[^\n]*"), "llmhost: told")
  _, err, code = run { "-e", "local function f() return f() + 1 end f()" }
  check.truthy(err:find("stack overflow", 1, true), err)
  check.equal(code, 1)
end)

check.case("exit codes of raised words", function()
  local text = "require('host').raise('%s', 'x')"
  check.equal(select(3, run { "-e", text:format("oom") }), 3)
  check.equal(select(3, run { "-e", text:format("interrupted") }), 130)
  check.equal(select(3, run { "-e", text:format("shape") }), 1)
  check.equal(select(3, run { "-e", "os.exit(7)" }), 7)
end)

check.case("a script that cannot be loaded", function()
  expect({ "/no/such.lua" }, "", "llmhost: cannot open /no/such.lua: "
    .. "No such file or directory", 1)
  local path = file("syntax.lua", "x = = 1")
  expect({ path }, "", "llmhost: " .. path
    .. ":1: unexpected symbol near '='", 1)
  path = file("binary.lua", string.dump(function() return 1 end))
  expect({ path }, "", "llmhost: " .. path .. ": attempt to load a binary "
    .. "chunk (mode is 't')", 1)
end)

check.case("what a script returns is run", function()
  local function returns(body)
    return file("run.lua", "print 'made'\nreturn setmetatable({}, { __run = "
      .. "function(self) print('run', type(self)) " .. body .. " end })")
  end
  expect({ returns "" }, "made\nrun\ttable", "", 0)
  expect({ returns "return 3" }, "made\nrun\ttable", "", 3)
  expect({ returns "return true" }, "made\nrun\ttable", "", 0)
  expect({ returns "return false" }, "made\nrun\ttable", "", 1)
  local _, err, code = run { returns "error 'broken'" }
  check.truthy(err:find(":2: broken", 1, true), err)
  check.equal(code, 1)
  local path = file("plain.lua", "return { 1 }, 2")
  expect({ path }, "", "", 0)
  -- require does not run it
  expect({ "-e", "package.path = '" .. folder .. "/?.lua' require 'run'" },
    "made", "", 0)
end)

check.case("the VM's memory limit ends the process as such", function()
  local _, err, code = run({ "-e", "local s = ('x'):rep(2^28)" },
    { env = { LLMHOST_LUA_MEMORY = "50MB" } })
  check.equal(code, 77)
  check.truthy(err:find("^llmhost: out of memory: Lua holds %d+ MB and asks "
    .. "for 268 MB more; its limit is 50 MB$"), err)
  check.equal(select(3, run({ "-e", "local t = {} while true do t[#t + 1] = "
    .. "{} end" }, { env = { LLMHOST_LUA_MEMORY = "50MB" } })), 77)
  check.equal(select(3, run({ "-e", "for i = 1, 1e5 do local t = {i} end" },
    { env = { LLMHOST_LUA_MEMORY = "10MB" } })), 0)
end)

check.case("numbers keep their point in every locale", function()
  expect({ "-e", "print(1.5, tonumber('2.5'))" }, "1.5\t2.5", "", 0,
    { env = { LC_ALL = "de_DE.UTF-8" } })
end)

local on_terminal = terminal.run
local has_script = terminal.available()

check.case("colours and progress on a terminal", function()
  if not has_script then check.skip("no script(1) or no terminal") end
  local code = "local t = require('host').terminal t.progress('half') "
    .. "t.progress() io.write(t.color('red', 'x'))"
  local shown, plain = "half\27[K\27[K\27[31mx\27[0m", "half\27[K\27[Kx"
  local env = { TERM = "xterm", NO_COLOR = false }
  check.equal(on_terminal({ "-e", code }, nil, env), shown)
  check.equal(on_terminal({ "--color", "never", "-e", code }, nil, env), plain)
  env.NO_COLOR = "1"
  check.equal(on_terminal({ "-e", code }, nil, env), plain)
  check.equal(on_terminal({ "--color=always", "-e", code }, nil, env), shown)
end)

check.case("progress without a terminal: lines, not often", function()
  local code = "local t = require('host').terminal t.progress('one') "
    .. "t.progress('two') t.progress() io.write(t.color('red', 'x'))"
  expect({ "-e", code }, "x", "one", 0)
end)

check.case("bare llmhost on a terminal says what to do next", function()
  if not has_script then check.skip("no script(1) or no terminal") end
  local out, code = on_terminal {}
  check.equal(code, 0)
  check.truthy(out:find("next: llmhost experiments/check.lua$"), out)
end)

check.case("libraries are found from any folder", function()
  expect({ "-e", "print(type(require('host').json.encode))" }, "function", "",
    0, { cwd = "/" })
  local out = run({ "-e", "print(require('host').options.root)" },
    { cwd = "/" })
  check.truthy(host.file.is_directory(out .. "/lua/host"), out)
end)

check.case("standard output that is full is a failure", function()
  if not host.file.exists("/dev/full") then check.skip("no /dev/full") end
  local p <close> = host.process.spawn { "sh", "-c", program
    .. " -e 'print(1)' > /dev/full" }
  check.equal(p:wait(10).exit, 1)
end)

host.file.remove_tree(folder)
check.done()
