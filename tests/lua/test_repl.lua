-- The prompt: what it reads, how it prints, completion, history, Ctrl-C, on a
-- terminal, on a dumb one, and over a pipe.
local check = require "check"
local host = require "host"
local terminal = require "terminal"

local program = os.getenv "LLMHOST" or host.process.executable()
local folder = (os.getenv "TMPDIR" or "/tmp") .. "/repl." .. host.process.pid()
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

-- The prompt over a pipe: output, errors, exit code.
local function piped(input, ...)
  local p <close> = assert(host.process.spawn { program, "-i", stdin = "pipe",
    stderr = "pipe", ... })
  p:write(input)
  p:close_stdin()
  local out, err = read_all(p, "read_line"), read_all(p, "read_error_line")
  return out, err, p:wait(20).exit
end

local function expect(input, out, err)
  local got_out, got_err, code = piped(input)
  check.equal(got_err, err or "", input)
  check.equal(got_out, out, input)
  check.equal(code, 0)
end

-- --- over a pipe -----------------------------------------------------------

check.case("results are printed without return", function()
  expect("1 + 1\n3, 4\n'x'\nlocal z\nnil\n=5\n", "2\n3\t4\nx\nnil\n5")
  expect("type(host), type(host.clock)\ntype(gpu)\n", "table\tfunction\ntable")
  expect("x = 4\nx\n", "4")
end)

check.case("a chunk of several lines", function()
  expect("for i = 1, 2 do\n  print(i)\nend\n", "1\n2")
  expect("{\n1,\n\n2 }\n", "{ 1, 2 }")
  expect("#{\n1\n}\n(function()\nreturn 7\nend)()\n", "1\n7")
  expect("x = [[\na\n]]\nx\n", "a\n")
  local _, err = piped "f(\n"
  check.truthy(err:find("stdin:1: unexpected symbol near <eof>", 1, true), err)
end)

check.case("errors show the user's frames alone", function()
  expect("error 'a'\n) (\n1\n", "1", "stdin:1: a\n"
    .. "stdin:1: unexpected symbol near ')'")
  expect("local function f() error 'deep' end f()\n", "", "stdin:1: deep\n"
    .. "  stdin:1: in f\n  stdin:1: in main chunk")
  expect("gpu.nn.linear{ biass = true }\n", "", "stdin:1: nn.linear: unknown "
    .. "option 'biass'; did you mean 'bias'?")
  expect("nosuch.field\n1 -- told\n", "1", "stdin:1: attempt to index a nil "
    .. "value (global 'nosuch')")
  -- llm.sweep's own frames are passed over.
  local _, err = piped "require('llm.sweep'){ modells = {} }\n"
  check.equal(err, "stdin:1: unknown key 'modells'; did you mean 'models'?")
  expect("error {}\nerror(setmetatable({}, { __tostring = function() return "
    .. "'told' end }))\n", "", "(error object is a table value)\ntold")
end)

check.case("exit and quit leave, unless they are variables", function()
  expect("1\nexit\n2\n", "1")
  expect("1\nquit\n2\n", "1")
  expect("exit = 5\nexit\n2\n", "5\n2")
end)

check.case("after a script", function()
  local path = folder .. "/first.lua"
  assert(host.file.write(path, "y = 42"))
  local p <close> = assert(host.process.spawn { program, "-i", path,
    stdin = "pipe" })
  p:write "y\n"
  p:close_stdin()
  check.equal(read_all(p, "read_line"), "42")
  assert(host.file.write(path, "help = 'mine' local gpu = 1"))
  local q <close> = assert(host.process.spawn { program, "-i", path,
    stdin = "pipe" })
  q:write "help\ntype(gpu)\n"
  q:close_stdin()
  check.equal(read_all(q, "read_line"), "mine\ntable")
end)

check.case("tables: sorted keys, bounded depth and length", function()
  expect("{ 3, b = 1, a = { c = { d = { 1 } } }, [false] = 0, [2.5] = 'x' }\n",
    '{ 3, [2.5] = "x", a = { c = { d = { … } } }, b = 1, [false] = 0 }')
  expect("t = { ['end'] = 1, ['a b'] = print, n = 'l\\n\\0' } t.t = t\n"
    .. "({ t })[1].t == t\nt['a b'] = nil\nt\n", "true\n"
    .. [[{ ["end"] = 1, n = "l\n\0", t = { the same again } }]])
  local out = piped "local t = {} for i = 1, 100 do t[i] = i end return t\n"
  check.truthy(out:find("40, … 60 more\n}", 1, true), out)
  expect("{ t = gpu.zeros{ 40, 50 }, s = gpu.zeros{ 2 } }\n",
    "{ s = tensor[2] f32 cpu: 0, 0, t = tensor[40, 50] f32 cpu }")
  for line in out:gmatch "[^\n]+" do check.truthy(#line <= 80, line) end
  expect("setmetatable({ 1 }, { __tostring = function() return 'me' end })\n"
    .. "{}\ngpu.nn.linear\n", "me\n{}\nfunction gpu.nn.linear")
end)

check.case("a tensor: shape, place, range, corners", function()
  expect("gpu.tensor{ { 1, 2 }, { 3, 6 } }\n",
    "tensor[2, 2] f32 cpu, 16 B; min 1, mean 3, max 6\n  1  2\n  3  6")
  expect("gpu.arange{ 100 }:reshape{ 10, 10 }\n",
    "tensor[10, 10] f32 cpu, 400 B; min 0, mean 49.5, max 99\n"
    .. "   0   1   2  …   7   8   9\n  10  11  12  …  17  18  19\n"
    .. "  20  21  22  …  27  28  29\n   …\n  70  71  72  …  77  78  79\n"
    .. "  80  81  82  …  87  88  89\n  90  91  92  …  97  98  99")
  expect("gpu.full{ 2, 1, 3, value = 2, dtype = 'bf16' }\n",
    "tensor[2, 1, 3] bf16 cpu, 12 B; min 2, mean 2, max 2\n  [1, :, :]\n"
    .. "  2  2  2")
  expect("gpu.tensor{ 3, 1, dtype = 'i32' }\ngpu.full{ value = 3 }\n",
    "tensor[2] i32 cpu, 8 B; min 1, mean 2, max 3\n  3  1\n"
    .. "tensor[] f32 cpu, 4 B: 3")
end)

check.case("printing a large tensor takes little memory beside it", function()
  -- 16 MB: what the device held at most beyond it is rows, not a copy.
  expect("t = gpu.zeros{ 2000, 2000 }\ngpu.memory.reset_peak()\n"
    .. "b = gpu.memory.stats().current\nt\n"
    .. "gpu.memory.stats().peak - b < 200000\n",
    "tensor[2000, 2000] f32 cpu, 16.0 MB; min 0, mean 0, max 0\n"
    .. ("  0  0  0  …  0  0  0\n"):rep(3) .. "  …\n"
    .. ("  0  0  0  …  0  0  0\n"):rep(3) .. "true")
end)

check.case("a sweep", function()
  expect("require('llm.sweep'){ name = 'n', profile = 'nano', models = "
    .. "{ { name = 'a', d_model = 8, n_layers = 1, n_heads = 2, d_ff = 8 } }, "
    .. "matrix = { { name = 'b' }, { name = 'c', fp4 = true } } }\n",
    "sweep 'n' of 2 experiments: a_b a_c")
end)

check.case("layers and programs", function()
  local out = piped("m = gpu.nn.linear{ 4, 8 }\nm\n"
    .. "m = gpu.nn.transformer{ vocab = 16, d_model = 8, n_layers = 1, "
    .. "n_heads = 2, d_ff = 8 }\ngpu.compile(m, { batch = 1, seq = 4 })\n")
  check.truthy(out:find("^layer of 32 parameters\n  [^\n]*weight %[8, 4%]\n"),
    out)
  check.truthy(out:find("\nprogram of %d+ parameters, peak [%d.]+ kB\n"), out)
end)

check.case("help: functions, names, modules, objects, keys", function()
  local out, err = piped("help(gpu.nn.linear)\nhelp 'gpu.nn.linear'\n")
  check.equal(err, "")
  local text = "gpu.nn.linear(options: table): gpu.layer\n"
    .. "  nn.linear{C_in, C_out}: x wᵀ.\noptions:\n"
  check.equal(out:sub(1, #text), text)
  check.equal(out:sub(1, #out // 2), out:sub(#out // 2 + 2), "twice the same")
  check.truthy(out:find("\n  bias boolean         add a bias; false\n", 1,
    true), out)
  for code, wanted in pairs {
    ["help()"] = "gpu computes, host does everything around it",
    ["help(gpu.nn)"] = "\n  linear       nn.linear{C_in, C_out}",
    ["help(gpu.randn{ 2 })"] = "\n  matmul      Matrix product",
    ["help(gpu.randn{ 2 }.matmul)"] = "gpu.tensor:matmul(self, other",
    ["help 'matmul'"] = "gpu.tensor:matmul(self, other",
    ["help 'gpu.tensor.shape'"] = "gpu.tensor:shape: integer[]",
    ["help 'train.lr'"] = "train.lr: number, default 0.001\n  AdamW's rate",
    ["help 'matmol'"] = "'matmol'; did you mean 'matmul'?",
    ["help(function(a, b) end)"] = "function(a, b), stdin:1",
    ["help 'llm.sweep'"] = "llm.sweep: A sweep: `require",
    ["help(require 'llm.sweep')"] = "llm.sweep: A sweep: `require",
    ["help(1)"] = "a number; help \"NAME\" looks a name up",
    ["help"] = "help(), help(gpu.nn.linear)" } do
    out = piped(code .. "\n")
    check.truthy(out:find(wanted, 1, true), code .. ": " .. out)
  end
end)

check.case("no escape codes over a pipe", function()
  local out, err = piped("gpu.randn{ 3 }\nerror 'x'\nhelp()\n{ a = 1 }\n")
  check.equal((out .. err):find "\27", nil)
end)

check.case("every function has a text of at most 80 columns", function()
  local help, docs = require "llm.help", require "llm.docs"
  require "gpu"
  local count = 0
  for _, e in ipairs(docs.all()) do
    local text = help.text((e.name:gsub(":", ".")))
    check.truthy(text:find(e.leaf, 1, true), e.name)
    for line in text:gmatch "[^\n]+" do
      check.truthy(utf8.len(line) <= 80 or not line:find " .* ", line)
    end
    count = count + 1
  end
  check.truthy(count > 120, count)
end)

-- --- completion, by its own function ---------------------------------------

local complete = require "llm.complete"

local function names(text)
  local _, list = complete.names(text)
  local out = {}
  for i, c in ipairs(list) do out[i] = c.name .. c.tail end
  return table.concat(out, " ")
end

check.case("what may stand there", function()
  gpu, host_, t_ = require "gpu", host, nil -- luacheck: ignore
  rawset(_G, "tensor_", require("gpu").zeros { 2 })
  for text, wanted in pairs {
    ["gp"] = "gpu", ["gpu.nn.li"] = "linear", ["whi"] = "while",
    ["x = gpu.nn.linear{ bi"] = "bias = ",
    ["gpu.nn.linear{ 4, 8,\n  bi"] = "bias = ",
    ["gpu.compile(m, { recomp"] = "recompute = ",
    ["gpu.compile(m, { recompute = 'l"] = "light'",
    ["tensor_:matm"] = "matmul", ["tensor_.sha"] = "shape",
    ["tensor_:sha"] = "", ["tensor_[1]:softm"] = "softmax",
    ["gpu.randn{ 2, 2 }:softm"] = "softmax",
    ["tensor_:softmax(1, { ca"] = "causal = ",
    ["gpu.compile(m, {}):listi"] = "listing",
    ["require 'llm.swee"] = "llm.sweep'",
    ["require('llm.sweep'){ train = { min"] = "minutes = ",
    ["gpu.randn{ 3, 4, se"] = "seed = ",
    ["gpu.zeros{ 3, som"] = "", ["gpu.zeros{ 3, tonum"] = "tonumber",
    ["require('llm.sweep'){ models = { { d_mod"] = "d_model = ",
    ["help 'gpu.nn.atte"] = "gpu.nn.attention'",
    ["('x'):re"] = "rep reverse", ["-- gp"] = "", ["3.g"] = "",
    ["f().g"] = "", ["nothing.here"] = "", ["'tests/lua/che"] =
      "tests/lua/check.lua'" } do
    check.equal(names(text), wanted, text)
  end
  check.equal(names "gpu.nn.dropout{ ", "name =  p = ")
  rawset(_G, "tensor_", nil)
end)

check.case("completion computes nothing", function()
  local asked = {}
  rawset(_G, "trap_", setmetatable({}, { __index = function(_, key)
    asked[#asked + 1] = key
  end, __call = function() asked[#asked + 1] = "call" end }))
  for _, text in ipairs { "trap_.x.", "trap_.x", "trap_().", "trap_{ a" } do
    names(text)
  end
  check.equal(#asked, 0)
  rawset(_G, "trap_", nil)
end)

-- --- on a terminal ---------------------------------------------------------

local has_terminal = terminal.available()
local edits = host.file.read("build/config.mk", 1 << 20)
edits = edits and edits:find("HAVE_EDIT", 1, true)

local function session(keys, env)
  if not has_terminal then check.skip("no script(1) or no terminal") end
  local whole = { TERM = "xterm", XDG_STATE_HOME = folder .. "/state",
    NO_COLOR = "1", HOME = folder }
  for key, value in pairs(env or {}) do whole[key] = value end
  return terminal.run({ "-i" }, keys, whole)
end

local function need_editing()
  if not edits then check.skip("a build without libedit") end
end

check.case("Tab completes, and lists what it cannot", function()
  need_editing()
  local out = session { { "^llmhost", "gpu.nn.lin\t\n" },
    { "^function gpu.nn.linear", "gpu.nn.line\t{ 4, 8, bi\ttrue }:count()\n" },
    { "^40$", "gpu.nn.r\t" }, { "^residual  rmsnorm$", "\3" },
    { "%^C", "'do' .. 'ne'\n" },
    { "^done", "\4" } }
  check.truthy(out:find("done", 1, true), out)
end)

check.case("history across runs: private, searched, bounded", function()
  need_editing()
  session { { "^llmhost", "'first ' .. 'run'\n" }, { "^first run",
    " 'kept ' .. 'out'\n" }, { "^kept out", "\4" } }
  local path = folder .. "/state/llmhost/history"
  local text = assert(host.file.read(path))
  check.equal(text:match "([^\n]*)\n$", "'first ' .. 'run'")
  check.equal(text:find("kept", 1, true), nil)
  local p <close> = assert(host.process.spawn { "stat", "-c", "%a", path,
    folder .. "/state/llmhost" })
  check.equal(read_all(p, "read_line"), "600\n700")
  local out = session { { "^llmhost", "\27[A\n" }, { "^first run",
    "1 + 40\n" }, { "^41", "\18first\n\n" }, { "^first run", "\4" } }
  check.truthy(out:find("first run", 1, true), out)
  local lines = {}
  for i = 1, 5000 do lines[i] = "x" .. i .. " = " .. ("0"):rep(40) end
  assert(host.file.write(path, table.concat(lines, "\n") .. "\n"))
  session { { "^llmhost", "'cut'\n" }, { "^cut", "\4" } }
  text = assert(host.file.read(path))
  check.equal(select(2, text:gsub("\n", "")), 1001)
  check.truthy(text:find "^x4001 = 0" and text:find "\n'cut'\n$")
end)

check.case("Ctrl-C drops the line and ends what runs", function()
  for _, term in ipairs { "xterm", "dumb" } do
    local out = session({ { "^llmhost", "print 'read' while true do end\n" },
      { "read$", "\3" }, { "interrupted", "for i = 1, 2 do\nprint('on')\n" },
      { "on", "\3" }, { "%^C", "'still ' .. 'here'\n" },
      { "still here$", "\4" } }, { TERM = term })
    check.truthy(out:find("interrupted\n", 1, true), out)
    check.equal(out:find("\non\n", 1, true), nil, "the loop ran")
  end
end)

check.case("Ctrl-C ends native work between two operators", function()
  local out = session({ { "^llmhost", "m = gpu.nn.transformer{ vocab = 64, "
    .. "d_model = 64, n_layers = 4, n_heads = 4, d_ff = 256 }\n"
    .. "p = gpu.compile(m, { batch = 8, seq = 64, accumulate = 100000, "
    .. "optimizer = gpu.optim.adamw{} })\n"
    .. "x = gpu.tensor{ dtype = 'i32', (function() local t = {} for i = 1, "
    .. "512 do t[i] = 1 end return table.unpack(t) end)() }:reshape{ 8, 64 }\n"
    .. "print 'goes' p:step(x, x) print 'ended'\n" },
    { "goes$", "\3" }, { "interrupted", "'still ' .. 'here'\n" },
    { "still here$", "\4" } }, { TERM = "dumb" })
  check.truthy(out:find("interrupted", 1, true), out)
  check.equal(out:find("\nended\n", 1, true), nil)
end)

check.case("Ctrl-C ends the reading of text", function()
  local code = "c = host.text.corpus{ source = 'system' } print 'goes' "
    .. "for i = 1, 1000 do t, why = host.text.tokenizer{ train = c, "
    .. "vocab = 60000 } if not t then break end end print('ended', why)\n"
  local out = session({ { "^llmhost", code }, { "goes$", "\3" },
    { "interrupted", "'still ' .. 'here'\n" }, { "still here$", "\4" } },
    { TERM = "dumb" })
  check.truthy(out:find("interrupted", 1, true), out)
end)

check.case("a dumb terminal gets no escape codes", function()
  local out = session({ { "^llmhost", "gpu.zeros{ 2 }\n" },
    { "^  0  0", "error 'x'\n" }, { "stdin:1: x", "for i = 1, 1 do\n" },
    { "for i", "print 'in' end\n" }, { "in$", "\4" } },
    { TERM = "dumb", NO_COLOR = false })
  check.equal(out:find "\27", nil, out)
  check.truthy(out:find(">> ", 1, true), out)
end)

check.case("colours of errors obey NO_COLOR", function()
  local keys = { { "^llmhost", "error 'x'\n" }, { "stdin:1: x", "\4" } }
  check.truthy(session(keys, { NO_COLOR = false }):find(
    "\27[31mstdin:1: x\27[0m", 1, true))
  check.equal(session(keys):find("\27[31m", 1, true), nil)
end)

host.file.remove_tree(folder)
check.done()
