-- What shells and readers are told: completion in real shells, the manual page,
-- --help of every script, and what was meant by a word that is wrong.
local check = require "check"
local completion = require "llm.completion"
local host = require "host"
local manual = require "llm.manual"
local schema = require "llm.schema"

local program = os.getenv "LLMHOST" or host.process.executable()
local folder = (os.getenv "TMPDIR" or "/tmp") .. "/shell." .. host.process.pid()
assert(host.file.mkdir(folder))

-- Run a command; gives output, errors, exit code.
local function run(command)
  command.stdin, command.stdout, command.stderr = "null", "pipe", "pipe"
  local p <close> = assert(host.process.spawn(command))
  local out, err = {}, {}
  for line in function() return p:read_line(30) end do out[#out + 1] = line end
  for line in function() return p:read_error_line(5) end do
    err[#err + 1] = line
  end
  local status = p:wait(20)
  return table.concat(out, "\n"), table.concat(err, "\n"), status.exit
end

local function has(name)
  local _, _, code = run { "sh", "-c", "command -v " .. name }
  return code == 0
end

-- --- scripts ---------------------------------------------------------------

local scripts = host.file.glob "experiments/*.lua"

check.case("--help of every script, and it does nothing else", function()
  check.truthy(#scripts >= 6, #scripts)
  for _, path in ipairs(scripts) do
    local whole = host.file.realpath(path)
    local out, err, code = run { program, whole, "--help", cwd = folder }
    check.equal(code, 0, path .. ": " .. err)
    check.equal(err, "", path)
    check.equal(out:match "[^\n]*":match "^usage: llmhost ([^ ]*)", path)
    local first = host.file.read(path):match "^%-%- ([^\n]*)"
    check.truthy(out:find("\n" .. first, 1, true), path .. ": no heading")
    for line in out:gmatch "[^\n]+" do
      check.truthy(utf8.len(line) <= 80, path .. ": " .. line)
    end
    check.equal(#host.file.list(folder), 0, path .. " wrote something")
  end
end)

check.case("a sweep's --help has every key with this script's default",
  function()
    local out = run { program, "experiments/train.lua", "--help",
      "profile=full" }
    for _, field in ipairs(schema.fields) do
      if field.where ~= "model" then
        check.truthy(out:find("\n  " .. field.path .. "=", 1, true),
          field.path)
      end
    end
    check.truthy(out:find("train.steps=integer|equal    optimizer steps", 1,
      true), out)
    check.truthy(out:find("; 1250\n", 1, true), out)
    check.truthy(out:find("--dry-run", 1, true))
    check.truthy(out:find("for base; matrix.NAME.KEY", 1, true)
      or out:find("for\n", 1, true), out)
  end)

check.case("--help --json is for programs", function()
  local out = run { program, "experiments/sweep.lua", "--json", "--help" }
  local d = assert(host.json.decode(out))
  check.equal(d.script, "experiments/sweep.lua")
  local found = {}
  for _, key in ipairs(d.keys) do found[key.name] = key end
  check.equal(found["train.recompute"].words[2], "light")
  check.equal(found["train.lr"].default, "0.001")
  check.equal(d.matrix[4], "gqa_fp4")
end)

check.case("every key of every script has a type and a meaning", function()
  for _, path in ipairs(scripts) do
    local out = run { program, path, "--json", "--help" }
    local d = assert(host.json.decode(out), path)
    for _, key in ipairs(d.keys) do
      check.truthy(key.doc ~= "", path .. ": " .. key.name)
      check.truthy(key.type ~= "" and key.default, path .. ": " .. key.name)
    end
    check.truthy(#d.keys > 0 or #d.words > 0, path)
  end
end)

check.case("a user's script: by its heading, or by itself", function()
  local mine = folder .. "/mine.lua"
  assert(host.file.write(mine, "-- Sums words.\n--\n-- n=3 how many\n"
    .. "error 'it ran'\n"))
  local out, _, code = run { program, mine, "--help" }
  check.equal(code, 0)
  check.equal(out, "usage: llmhost " .. mine .. " [key=value …] [options]\n\n"
    .. "Sums words.\n\nn=3 how many\n\n"
    .. "llmhost --help lists the options of the program.")
  out = run { program, mine, "--help", "--json" }
  check.equal(host.json.decode(out).keys[1].name, "n")
  assert(host.file.write(mine, "if ... == '--help' then print 'mine' end"))
  check.equal(run { program, mine, "--help" }, "mine")
  host.file.remove(mine)
end)

check.case("keys of a script that is no sweep", function()
  local mine = folder .. "/mine.lua"
  assert(host.file.write(mine, [[
    local o, rest, flags = require("llm.keys").read({
      { "port", "integer", 8501, "where it listens", { least = 1 } },
      { "open", "boolean", false, "a browser" },
      { "how", "string", "fast", "its way", { words = { "fast", "slow" } } },
    }, { words = { { "FOLDER", "what is read" } },
      flags = { { "--quiet", "says nothing" } } })
    print(o.port, o.open, o.how, rest[1], flags.quiet)]]))
  check.equal(run { program, mine }, "8501\tfalse\tfast\tnil\tnil")
  check.equal(run { program, mine, "x", "port=1", "open=yes", "how=slow",
    "--quiet" }, "1\ttrue\tslow\tx\ttrue")
  for word, wanted in pairs {
    ["prot=1"] = "unknown key 'prot'; did you mean 'port'?",
    ["banana=1"] = "unknown key 'banana'; there is port, open, how",
    ["port=x"] = 'port = "x": expected an integer',
    ["port=0"] = "port = 0: ",
    ["how=fst"] = 'how = "fst": expected fast | slow; did you mean \'fast\'?',
    ["--quite"] = "unknown argument '--quite'; did you mean '--quiet'?" } do
    local _, err, code = run { program, mine, word }
    check.equal(code, 2, err)
    check.truthy(err:find(wanted, 1, true), err)
  end
  local _, err = run { program, mine, "a", "b" }
  check.truthy(err:find("unknown argument 'b' (options of a script are written "
    .. "key=value)", 1, true), err)
  local out = run { program, mine, "--help" }
  check.truthy(out:find("port=integer   where it listens; 8501", 1, true), out)
  check.truthy(out:find("usage: llmhost " .. mine .. " [FOLDER] [key", 1,
    true), out)
  host.file.remove(mine)
end)

check.case("what was meant by a script that is not there", function()
  for word, meant in pairs { sweep = "experiments/sweep.lua",
    ["swep.lua"] = "experiments/sweep.lua",
    ["experiments/chek.lua"] = "experiments/check.lua", help = "--help",
    version = "-v", repl = "-i" } do
    local out, err, code = run { program, word, cwd = folder }
    check.equal(code, 1)
    check.equal(out, "")
    check.equal(err, "llmhost: cannot open " .. word .. ": No such file or "
      .. "directory; did you mean 'llmhost " .. meant .. "'?")
  end
  assert(host.file.write(folder .. "/heads.lua", ""))
  local _, err = run { program, "haeds.lua", cwd = folder }
  check.truthy(err:find("did you mean 'llmhost heads.lua'?", 1, true), err)
  host.file.remove(folder .. "/heads.lua")
  _, err = run { program, "experiments/sweep.lua", "train.minuts=1", "--help" }
  check.truthy(err:find("unknown key 'train.minuts'; did you mean "
    .. "'train.minutes'?", 1, true), err)
end)

-- --- shells ----------------------------------------------------------------

local described = completion.scripts()
local file = { bash = folder .. "/llmhost.bash", zsh = folder .. "/_llmhost",
  fish = folder .. "/llmhost.fish" }
for shell, path in pairs(file) do
  assert(host.file.write(path, completion[shell](described)))
end

-- What Tab offers at the end of `line` in bash, as it calls the function.
local function bash(line)
  local out, err = run { "bash", "-c", [[
    source "$1"; COMP_LINE=$2 COMP_POINT=${#2} COMPREPLY=()
    _llmhost 2>/dev/null; printf '%s\n' "${COMPREPLY[@]}" | sort]], "bash",
    file.bash, line }
  check.equal(err, "", line)
  return (out:gsub("\n", " "))
end

local CASES = {
  ["llmhost --fre"] = "--fresh", ["llmhost --color al"] = "always",
  ["llmhost experiments/swe"] = "experiments/sweep.lua",
  ["llmhost experiments/sweep.lua train.minu"] = "train.minutes=",
  ["llmhost experiments/sweep.lua --dr"] = "--dry-run",
  ["llmhost mine.lua data.sou"] = "data.source=",
}

check.case("bash completes options, scripts, keys, values, files", function()
  if not has "bash" then check.skip("no bash") end
  for line, wanted in pairs(CASES) do check.equal(bash(line), wanted, line) end
  for line, wanted in pairs {
    ["llmhost --device "] = "auto cpu cuda cuda:0",
    ["llmhost --device cuda:"] = "0",
    ["llmhost experiments/sweep.lua train.recompute="] =
      "block light mlp none",
    ["llmhost --device cpu experiments/sweep.lua recompute=m"] = "mlp",
    ["llmhost experiments/sweep.lua data.source=READ"] = "README.md",
    ["llmhost experiments/sweep.lua fp4=t"] = "true" } do
    check.equal(bash(line), wanted, line)
  end
end)

check.case("bash's own Tab inserts it", function()
  if not has "bash" then check.skip("no bash") end
  local terminal = require "terminal"
  if not terminal.available() then check.skip("no terminal") end
  local p <close> = assert(host.process.spawn { "script", "-qec",
    "bash --norc --noprofile -i", "/dev/null", stdin = "pipe",
    env = { TERM = "dumb", PS1 = "$ ", INPUTRC = "/dev/null" } })
  p:write("source " .. file.bash .. "; llmhost() { echo \"<$*>\"; }; "
    .. "echo rea''dy\n")
  local function await(pattern)
    local seen = {}
    while true do
      local line = p:read_line(20)
      if not line then error(table.concat(seen, "\n")) end
      seen[#seen + 1] = line:gsub("\r", "")
      if seen[#seen]:find(pattern) then return seen[#seen] end
    end
  end
  await "^ready$"
  p:write "llmhost experiments/swe\ttrain.recom\tli\t only=x\n"
  check.equal(await "^<", "<experiments/sweep.lua train.recompute=light "
    .. "only=x>")
  p:write "exit\n"
end)

check.case("fish completes the same", function()
  if not has "fish" then check.skip("no fish") end
  for line, wanted in pairs(CASES) do
    local out, err = run { "fish", "--no-config", "-c", "source $argv[1]; "
      .. "complete -C $argv[2]", file.fish, line }
    check.equal(err, "", line)
    check.equal(out:match "^[^\t\n]*", wanted, line)
  end
  local out = run { "fish", "--no-config", "-c", "source $argv[1]; complete "
    .. "-C 'llmhost experiments/sweep.lua train.saved'", file.fish }
  check.truthy(out:find("train.saved=int8\t", 1, true), out)
end)

check.case("zsh completes the same", function()
  if not has "zsh" then check.skip("no zsh") end
  local _, err, code = run { "zsh", "-n", file.zsh }
  check.equal(code, 0, err)
  -- zpty gives zsh's completion a terminal; what it inserts is echoed.
  local out = run { "zsh", "-f", "-c", [[
    zmodload zsh/zpty
    zpty z zsh -f
    zpty -w z "fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -D"
    zpty -w z "PS1=; llmhost() { print -r -- \"<\$*>\" }; print rea''dy"
    zpty -r z text '*ready*'
    zpty -w -n z $'llmhost experiments/swe\ttrain.recom\tli\t --dr\t\n'
    zpty -r z text '*<*>*'; print -r -- $text]], "zsh", folder }
  check.truthy(out:find("<experiments/sweep.lua train.recompute=light "
    .. "--dry-run>", 1, true), out)
end)

-- --- the manual ------------------------------------------------------------

local page = manual.page(described)

check.case("the manual names what --help names", function()
  local help = run { program, "--help" }
  local count = 0
  for option in help:gmatch "\n  (%-%-?%w[%w-]*)" do
    count = count + 1
    check.truthy(page:find("\\fB" .. option:gsub("%-", "\\-"), 1, true),
      option)
  end
  check.truthy(count >= 11, count)
  for _, exit in ipairs(manual.exits) do
    local words = exit[1] .. " " .. exit[2]:match "^[^;]*"
    check.truthy(help:find(exit[1] .. " ", 1, true), words)
  end
  for _, path in ipairs(scripts) do
    check.truthy(page:find(path:gsub("%-", "\\-"), 1, true), path)
  end
  -- Variables are told of twice: here and in the README's table.
  local readme = host.file.read "README.md"
  for _, variable in ipairs(manual.environment) do
    for name in variable[1]:gmatch "[%w_]+" do
      check.truthy(readme:find("`" .. name, 1, true), name)
    end
  end
  for name in readme:gmatch "\n| `([A-Z_]+)[=`]" do
    check.truthy(page:find(name, 1, true), name)
  end
end)

check.case("the manual renders without a warning", function()
  local path = folder .. "/llmhost.1"
  assert(host.file.write(path, page))
  local command
  if has "groff" then
    command = { "groff", "-ww", "-man", "-Tutf8", "-Kutf8", path }
  elseif has "mandoc" then
    command = { "mandoc", "-T", "lint", "-W", "warning", path }
  else
    check.skip("no groff, no mandoc")
  end
  local out, err, code = run(command)
  check.equal(code, 0)
  check.equal(err, "")
  -- In bold a letter is struck twice.
  out = out:gsub(".\b", ""):gsub("\27%[[%d;]*m", "")
  check.truthy(has "mandoc" or out:find("train.recompute=", 1, true), out)
end)

host.file.remove_tree(folder)
check.done()
