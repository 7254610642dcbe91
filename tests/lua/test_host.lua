-- host: clocks, machine, checksums, files, locks, journals, terminal.
local check = require "check"
local host = require "host"
local file = host.file

local folder = (os.getenv "TMPDIR" or "/tmp") .. "/host." .. host.process.pid()
assert(file.mkdir(folder))
local function at(name) return folder .. "/" .. name end

check.case("clocks", function()
  local a, t = host.clock(), host.time()
  host.sleep(0.02)
  local b = host.clock()
  check.truthy(b - a >= 0.02 and b - a < 5)
  check.near(t, os.time(), 2)
  check.truthy(host.date():match
    "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d[+-]%d%d:%d%d$")
  check.equal(#host.date(0), 25)
  check.raises("host.sleep: seconds must be a number, got 'x'",
    host.sleep, "x")
  host.sleep(-1)
end)

check.case("the machine", function()
  local m = host.machine()
  check.truthy(#m.cpu > 0 and #m.os > 0 and #m.kernel > 0)
  check.truthy(m.cores >= 1 and m.threads >= m.cores)
  check.truthy(m.memory > 2 ^ 28 and m.available > 0
    and m.available <= m.memory)
  check.truthy(({ sse2 = 1, avx2 = 1, avx512 = 1, neon = 1, generic = 1 })
    [m.isa])
  check.equal(type(m.wsl), "boolean")
  check.equal(m.hostname, nil)
  local disk = host.disk(folder)
  check.truthy(disk.total > 0 and disk.free <= disk.total)
  local none, message, code = host.disk("/no/such")
  check.equal(none, nil)
  check.equal(code, "io")
  check.truthy(message:find("No such file", 1, true))
end)

check.case("checksums and sizes", function()
  check.equal(host.crc32("123456789"), "cbf43926")
  check.equal(host.crc32(""), "00000000")
  check.equal(host.fnv1a64("foobar"), "85944171f73967e8")
  check.equal(host.size("1.5GiB"), 1610612736)
  check.equal(host.size(7), 7)
  local none, message, code = host.size("12 parsecs")
  check.equal(none, nil)
  check.equal(message,
    "'12 parsecs' is no size; write it like 24GB, 1.5GiB or 512MB")
  check.equal(code, "argument")
end)

check.case("files", function()
  local path = at("a")
  check.equal(file.write(path, "one\0two"), true)
  check.equal(file.read(path), "one\0two")
  check.equal(file.append(path, "!"), true)
  check.equal(file.append(at("new"), "x", true), true)
  check.equal(file.read(path), "one\0two!")
  check.equal(file.size(path), 8)
  check.equal(file.crc32(path), host.crc32("one\0two!"))
  check.near(file.mtime(path), host.time(), 5)
  check.equal(file.exists(path) and file.is_file(path), true)
  check.equal(file.is_directory(path), false)
  check.equal(file.is_directory(folder), true)
  check.equal(file.exists(at("none")), false)
  check.equal(file.rename(path, at("b")), true)
  check.equal(file.exists(path), false)
  check.equal(file.realpath(at("../" .. folder:match("[^/]+$") .. "/b")),
    file.realpath(folder) .. "/b")
  check.equal(file.remove(at("b")), true)
  check.equal(file.remove(at("new")), true)
end)

check.case("folders", function()
  check.equal(file.mkdir(at("t/u/v")), true)
  for _, name in ipairs { "c", "a", "b" } do
    file.write(at("t/" .. name .. ".txt"), name)
  end
  check.equal(table.concat(file.list(at("t")), " "), "a.txt b.txt c.txt u")
  check.equal(#file.glob(at("t/*.txt")), 3)
  check.equal(#file.glob(at("t/*.none")), 0)
  check.equal(file.remove_tree(at("t")), true)
  check.equal(file.exists(at("t")), false)
end)

check.case("world errors: nil, message, code", function()
  local path = at("absent")
  local none, message, code = file.read(path)
  check.equal(none, nil)
  check.equal(message, "cannot open '" .. path
    .. "': No such file or directory")
  check.equal(code, "io")
  check.equal(select(2, file.write("/no/such/x", "")),
    "cannot create '/no/such/x': No such file or directory")
  check.equal(select(2, file.read(folder)),
    "cannot read '" .. folder .. "': not a regular file")
  file.write(path, "0123456789")
  check.equal(select(2, file.read(path, 5)),
    "'" .. path .. "' is larger than 5 bytes")
  check.equal(select(3, file.read(path, 5)), "format")
  check.equal(select("#", file.list(path)), 3)
end)

check.case("programmer errors raise at this line", function()
  local err = check.raises("a path must be a string, got 7", file.read, 7)
  check.equal(err.code, "argument")
  local ok, e = pcall(function() file.write("a\0b", "") end)
  check.equal(ok, false)
  check.equal(e.message, "a path must not hold a zero byte")
  check.truthy(e.where:match("^tests/lua/test_host.lua:%d+$"), e.where)
  check.raises("a path must not be empty", file.read, "")
  check.raises("what is written must be a string, got table",
    file.write, at("x"), {})
end)

check.case("errors raised from libraries", function()
  local ok, e = pcall(function() host.raise("shape", "got %d", 3) end)
  check.equal(ok, false)
  check.equal(e.code, "shape")
  check.equal(e.message, "got 3")
  check.equal(tostring(e), e.where .. ": got 3")
  check.equal(host.nearest("haeds", { "width", "heads" }), "heads")
  check.equal(host.nearest("zzzz", { "width", "heads" }), nil)
end)

check.case("locks", function()
  local path = at("lock")
  local lock = assert(host.lock(path))
  local none, message, code, pid, start = host.lock(path, 0.1)
  check.equal(none, nil)
  check.equal(message, "'" .. path .. "' is held by process " .. pid)
  check.equal(code, "busy")
  check.equal(pid, host.process.pid())
  check.equal(start, host.process.start_time(pid))
  lock:close()
  do
    local again <close> = assert(host.lock(path))
    check.truthy(again)
  end
  check.truthy(host.lock(path))
end)

check.case("journals", function()
  local path = at("journal")
  local j = assert(host.journal.open(path))
  check.equal(j:append { event = "start", n = 1 }, 1)
  check.equal(j:append {}, 2)
  check.equal(j:append { nested = { 1, 2, { a = host.json.null } } }, 3)
  j:close()
  check.raises("this host.journal is closed", j.append, j, {})
  local records, info = host.journal.read(path)
  check.equal(#records, 3)
  check.equal(records[1].event, "start")
  check.equal(records[3].seq, 3)
  check.near(records[2].time, host.time(), 10)
  check.equal(records[3].nested[3].a, host.json.null)
  check.equal(info.torn or #info.damaged > 0 or #info.gaps > 0, false)
end)

check.case("journals: torn, damaged and missing lines", function()
  local path = at("journal")
  local text = file.read(path)
  file.write(path, text .. '{"seq":4,"ti')
  local records, info = host.journal.read(path)
  check.equal(#records, 3)
  check.equal(info.torn, true)
  local j = assert(host.journal.open(path))
  check.equal(j:append { after = "tear" }, 4)
  j:close()
  text = file.read(path)
  file.write(path, (text:gsub('"n":1', '"n":2')))
  records, info = host.journal.read(path)
  check.equal(#records, 3)
  check.equal(table.concat(info.damaged, " "), "1")
  check.equal(#info.gaps, 0)
  file.write(path, (text:gsub("^[^\n]*\n[^\n]*\n", "", 1)))
  records, info = host.journal.read(path)
  check.equal(#records, 2)
  check.equal(table.concat(info.gaps, " "), "1")
  check.equal(select(3, host.journal.read(at("none"))), "io")
end)

check.case("journals: what is no record", function()
  local j <close> = assert(host.journal.open(at("strict")))
  check.raises("a record must be a table, got 'x'", j.append, j, "x")
  check.raises("must not have the field 'seq'", j.append, j, { seq = 1 })
  check.raises("a record must be an object, not an array",
    j.append, j, { 1, 2 })
  check.raises("cannot encode f: a function has no JSON form",
    j.append, j, { f = print })
  check.equal(j:append { fine = true }, 1)
end)

check.case("terminal", function()
  check.truthy(host.terminal.width() >= 20)
  host.options.color = "never"
  check.equal(host.terminal.color("red", "x"), "x")
  host.options.color = "always"
  check.equal(host.terminal.color("red", "x"), "\27[31mx\27[0m")
  check.raises("unknown colour 'gren'; did you mean 'green'?",
    host.terminal.color, "gren", "x")
  host.options.color = nil
end)

-- Every function takes every kind of argument without bringing its process
-- down. In a child, in a folder of its own.
check.case("any arguments", function()
  local path = at("fuzz.lua")
  assert(file.write(path, [[
    local host = require "host"
    local values = { 0, -1, 1e15, 0 / 0, "", "x", "\0", true, {}, print,
      io.stdout, coroutine.create(print), math.mininteger, { 1 },
      { "\0" }, { "true" }, { { "a", {} } }, host.json.null, host.json,
      setmetatable({}, { __index = error, __tostring = error }) }
    local waits = { sleep = true, on_stdin_close = true, lock = true }
    local count = 0
    local function try(f, ...)
      pcall(f, ...)
      count = count + 1
    end
    local function try_module(module)
      for name, f in pairs(module) do
        if type(f) == "function" and not waits[name] then
          try(f)
          for _, a in ipairs(values) do
            try(f, a)
            for _, b in ipairs(values) do try(f, a, b) end
            try(f, a, a, a)
          end
        end
      end
    end
    local objects = { host.process.spawn { "true" },
      host.journal.open "journal", (host.lock "lock") }
    for _, module in ipairs { host, host.file, host.process, host.journal,
      host.terminal, host.json } do
      try_module(module)
    end
    for _, object in ipairs(objects) do
      for _, name in ipairs { "append", "read_line", "read_error_line",
        "write", "wait", "kill", "close_stdin", "close" } do
        local method = object[name]
        for _, a in ipairs(method and values or {}) do
          try(method, a)
          try(method, object, a)
        end
      end
    end
    io.stderr:write("tried ", count, "\n")
    os.exit(count > 10000 and 0 or 1, true)]]))
  assert(file.mkdir(at("fuzz")))
  local p <close> = assert(host.process.spawn {
    os.getenv "LLMHOST" or host.process.executable(), path,
    cwd = at("fuzz"), stdout = "null", stderr = "pipe" })
  local e = p:wait(60)
  local last
  repeat
    local line = p:read_error_line(1)
    last = line or last
  until not line
  check.truthy(e and e.exit == 0, last)
end)

file.remove_tree(folder)
check.done()
