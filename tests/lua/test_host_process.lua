-- host.process: talking to children, time limits, ends, and orphans.
local check = require "check"
local host = require "host"
local process = host.process

local program = os.getenv "LLMHOST" or process.executable()

local function sh(script, options)
  local command = { "sh", "-c", script }
  for key, value in pairs(options or {}) do command[key] = value end
  return assert(process.spawn(command))
end

-- Wait until a process is gone, or a zombie that nobody waits for.
local function is_gone(pid)
  for _ = 1, 150 do
    local stat = host.file.read("/proc/" .. pid .. "/stat")
    if not stat or stat:match("%) (%a)") == "Z" then return true end
    host.sleep(0.02)
  end
  return false
end

check.case("lines, input, exit code, use", function()
  local p <close> = sh("read x; echo got $x; echo oops >&2; exit 3",
    { stdin = "pipe", stderr = "pipe" })
  check.equal(math.type(p.pid), "integer")
  local none, why = p:read_line(0.05)
  check.equal(none, nil)
  check.equal(why, "timeout")
  check.equal(p:write("hello\n"), true)
  check.equal(p:read_line(5), "got hello")
  check.equal(p:read_error_line(5), "oops")
  none, why = p:read_line(5)
  check.equal(none, nil)
  check.equal(why, "eof")
  local e = p:wait(5)
  check.equal(e.exit, 3)
  check.equal(e.signal, nil)
  check.equal(e.core, false)
  check.truthy(e.max_rss > 100000 and e.user >= 0 and e.system >= 0)
  check.equal(p:kill("TERM"), false)
end)

check.case("a wait with a limit, then a signal", function()
  local p <close> = sh("sleep 60")
  local start = host.clock()
  check.equal(select(2, p:wait(0.1)), "timeout")
  check.truthy(host.clock() - start < 5)
  check.equal(p:kill("INT"), true)
  check.equal(p:wait(5).signal, 2)
end)

check.case("a group ends as one", function()
  local p = sh("sleep 60 & echo $!; wait")
  local grandchild = tonumber(p:read_line(5))
  check.truthy(host.file.exists("/proc/" .. grandchild))
  p:kill("KILL")
  check.equal(p:wait(5).signal, 9)
  check.truthy(is_gone(grandchild))
  p = sh("sleep 60 & echo $!; wait")
  grandchild = tonumber(p:read_line(5))
  p = nil -- collected: killed and reaped
  check.equal(p, nil)
  collectgarbage()
  collectgarbage()
  check.truthy(is_gone(grandchild))
end)

check.case("environment and folder", function()
  local p <close> = sh("echo $FRUIT-$HOME-$PATH; pwd", {
    env = { FRUIT = "pear", HOME = false }, cwd = "/" })
  local first = p:read_line(5)
  check.equal(first, "pear--" .. os.getenv "PATH")
  check.equal(p:read_line(5), "/")
end)

check.case("poll tells who is ready", function()
  local slow <close> = sh("sleep 60")
  local quick <close> = sh("exit 0")
  local talker <close> = sh("sleep 0.3; echo hi; sleep 60")
  local ready = process.poll({ slow, quick, talker }, 5)
  check.equal(#ready, 1)
  check.equal(ready[1], quick)
  check.equal(quick:wait().exit, 0)
  ready = process.poll({ slow, quick, talker }, 5)
  check.equal(#ready, 1)
  check.equal(ready[1], talker)
  check.equal(talker:read_line(0), "hi")
  check.equal(#process.poll({ slow, quick, talker }, 0.05), 0)
  check.equal(#process.poll({}, 0.01), 0)
end)

check.case("errors", function()
  local none, message, code = process.spawn { "no-such-program-here" }
  check.equal(none, nil)
  check.equal(message, "cannot start 'no-such-program-here': "
    .. "No such file or directory")
  check.equal(code, "io")
  check.raises("host.process.spawn: unknown option 'stdot'; did you mean "
    .. "'stdout'?", process.spawn, { "true", stdot = "pipe" })
  check.raises("option 'stdout' must be pipe, null or inherit, got 'pip'",
    process.spawn, { "true", stdout = "pip" })
  check.raises("host.process.spawn: no program is named", process.spawn, {})
  check.raises("expected host.process, got 1", process.poll, { 1 })
  local p <close> = sh("exit 0", { stdin = "null" })
  check.equal(select(2, p:write("x")), "the process has no open input")
  check.raises("unknown signal 'BANG'", p.kill, p, "BANG")
end)

check.case("a child that no longer reads", function()
  local p <close> = sh("exec <&-; sleep 60", { stdin = "pipe" })
  host.sleep(0.1)
  local done, message, code = p:write(("x"):rep(200000))
  check.equal(done, nil)
  check.equal(message, "cannot write to process " .. p.pid .. ": Broken pipe")
  check.equal(code, "io")
end)

check.case("memory and its peak", function()
  local before = process.memory()
  check.truthy(before.resident > 1e6 and before.peak >= before.resident - 1e6)
  local block = ("x"):rep(64 * 2 ^ 20)
  check.truthy(process.memory().peak >= before.resident + #block)
  block = nil
  check.equal(block, nil)
  collectgarbage()
  if process.reset_peak() then
    local after = process.memory()
    check.truthy(after.peak < after.resident + 16 * 2 ^ 20)
  end
end)

-- --- children that are llmhost ---

local function script(text, options)
  local command = { program, "-e", text }
  for key, value in pairs(options or {}) do command[key] = value end
  return assert(process.spawn(command))
end

check.case("what dies with -9 takes its children along", function()
  local p <close> = script([[
    local host = require "host"
    local p = host.process.spawn { "sleep", "60" }
    print(p.pid)
    io.stdout:flush()
    host.sleep(60)]])
  local grandchild = tonumber(p:read_line(5))
  check.truthy(host.file.exists("/proc/" .. grandchild))
  p:kill("KILL")
  p:wait(5)
  check.truthy(is_gone(grandchild))
end)

check.case("a child ends when its control pipe closes", function()
  local p <close> = script([[
    local host = require "host"
    host.process.on_stdin_close()
    print "ready"
    io.stdout:flush()
    while true do end]], { stdin = "pipe" })
  check.equal(p:read_line(5), "ready")
  p:write("words are ignored\n")
  check.equal(select(2, p:wait(0.1)), "timeout")
  p:close_stdin()
  check.equal(p:wait(5).exit, 130)
end)

local counter = [[
  local host = require "host"
  print "ready"
  io.stdout:flush()
  while host.process.interrupted() == 0 do host.sleep(30) end
  print("seen", host.process.interrupted())
  io.stdout:flush()]]

check.case("the first signal asks, and ends a sleep", function()
  for _, name in ipairs { "INT", "TERM" } do
    local p <close> = script(counter)
    check.equal(p:read_line(5), "ready")
    p:kill(name)
    check.equal(p:read_line(5), "seen\t1")
    check.equal(p:wait(5).exit, 130)
  end
end)

check.case("the second signal ends at once", function()
  if process.executable():find("/tsan/", 1, true) then
    check.skip("the thread sanitizer holds signals back in a loop of no calls")
  end
  local p <close> = script(counter .. " while true do end")
  check.equal(p:read_line(5), "ready")
  p:kill("INT")
  check.equal(p:read_line(5), "seen\t1")
  check.equal(select(2, p:wait(0.1)), "timeout")
  p:kill("INT")
  check.equal(p:wait(5).exit, 130)
end)

check.case("a signal only to the process that is meant", function()
  local p <close> = sh("sleep 60")
  local start = process.start_time(p.pid)
  check.equal(process.signal(p.pid, start + 1, "KILL"), false)
  check.equal(select(2, p:wait(0.05)), "timeout")
  check.equal(process.signal(p.pid, start, "KILL"), true)
  check.equal(p:wait(5).signal, 9)
  check.equal(process.start_time(p.pid), nil)
end)

-- Each output call of one atomic write fails in turn: the old content stays.
check.case("a write that fails keeps the old file", function()
  local folder = (os.getenv "TMPDIR" or "/tmp") .. "/fail." .. process.pid()
  local path = folder .. "/file"
  assert(host.file.mkdir(folder))
  local failed, n = 0, 0
  repeat
    n = n + 1
    assert(host.file.write(path, "old"))
    local p <close> = script(string.format([[
      local ok, message, code = require("host").file.write(%q, "new")
      print(ok, code, message)]], path), { env = { LLMHOST_FAIL_WRITE = n } })
    local line = p:read_line(10)
    p:wait(5)
    if line:find("^nil") then
      failed = failed + 1
      check.truthy(line:find("^nil\tdisk\tcannot .*: No space left on device$"),
        line)
      local text = host.file.read(path)
      check.truthy(text == "old" or (text == "new" and line:find("cannot sync",
        1, true)), text)
      check.equal(#host.file.list(folder), 1)
    end
  until not line:find("^nil")
  check.truthy(failed >= 5, failed .. " calls failed")
  check.equal(host.file.read(path), "new")
  host.file.remove_tree(folder)
end)

-- The output calls of a text run in a process of its own, in order, each with
-- the last part of its path, without process numbers.
local function calls_of(text)
  local log = (os.getenv "TMPDIR" or "/tmp") .. "/calls." .. process.pid()
  local p <close> = script(text, { env = { LLMHOST_FAIL_LOG = log } })
  check.equal(p:wait(10).exit, 0)
  local calls = {}
  for line in assert(host.file.read(log)):gmatch "[^\n]+" do
    local call, path = line:match " pass (%w+) (.*)$"
    calls[#calls + 1] = call .. " " .. path:match "[^/]*$":gsub("%.%d+$", "")
  end
  host.file.remove(log)
  return table.concat(calls, ", ")
end

check.case("what lasts is synced, and in this order", function()
  local folder = (os.getenv "TMPDIR" or "/tmp") .. "/sync." .. process.pid()
  assert(host.file.mkdir(folder))
  check.equal(calls_of(([[assert(require("host").file.write(%q, "new"))]])
    :format(folder .. "/file")), "open file.tmp, write file, sync file, "
    .. "close file, rename file, sync sync")
  check.equal(calls_of(([[local j = require("host").journal.open(%q)
    assert(j:append { a = 1 })]]):format(folder .. "/j")),
    "open j, sync sync, write j, sync j")
  host.file.remove_tree(folder)
end)

check.case("the program's path is known after it was replaced", function()
  local copy = (os.getenv "TMPDIR" or "/tmp") .. "/copy." .. host.process.pid()
  local cp <close> = assert(host.process.spawn { "cp",
    host.process.executable(), copy })
  check.equal(cp:wait(20).exit, 0)
  local p <close> = assert(host.process.spawn { copy, "-e",
    "local e = require('host').process.executable os.remove(e()) "
    .. "print(e())" })
  check.equal(p:read_line(20), host.file.realpath(copy) or copy)
end)

check.done()
