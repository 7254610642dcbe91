-- Runs the parts of tests/faults/alloc.lua, each in a process of its own, and
-- goes on behind a crash; makes allocations fail before main as well.
local check = require "check"
local host = require "host"
local micro = require "micro"

local allocfail = {}

allocfail.PARTS = { "files", "json", "journal", "processes", "tensors",
  "gradients", "program", "generate", "text", "jsonl", "prepare" }

-- The preloaded library of the program under test; skips where it is not for
-- it (under a sanitizer, which has an allocator of its own).
local function library()
  local path = host.process.executable():match "^(.*)/" .. "/tests/alloc.so"
  if path:find "/[at]san/" or not host.file.exists(path) then
    check.skip("needs the release build and its tests/alloc.so")
  end
  return path
end

-- Every `stride`-th allocation of a part fails. Gives { calls, runs, errors,
-- wrong = {texts} }; a crash is one of the wrong.
function allocfail.part(part, stride)
  local path, from = library(), 1
  local folder = micro.folder("alloc-" .. part)
  local all = { calls = 0, runs = 0, errors = 0, wrong = {} }
  repeat
    local at, over
    local p = assert(host.process.spawn { host.process.executable(),
      "tests/faults/alloc.lua", path, folder, part, tostring(from),
      tostring(stride), stdin = "null", stdout = "pipe", stderr = "pipe",
      env = { LD_PRELOAD = path } })
    local status, out, err = micro.finish(p, function(line)
      at = line:match "^at (%d+)" or at
      if line:find "^wrong" then all.wrong[#all.wrong + 1] = line end
      over = over or line:find "^done"
    end, 600)
    local calls, runs, errors = out:match "done (%d+) (%d+) (%d+)"
    if over then
      all.calls, all.runs = tonumber(calls), all.runs + tonumber(runs)
      all.errors = all.errors + tonumber(errors)
    else
      all.wrong[#all.wrong + 1] = ("crash at %s: signal %s, exit %s: %s")
        :format(at, status.signal, status.exit, err)
      from = (at or math.huge) + stride
    end
  until over or not at
  host.file.remove_tree(folder)
  return all
end

local OOM = 3 -- exit code of an error with that code
local STARTUP = "local calls = package.loadlib(%q, 'luaopen_alloc')().calls "
  .. "print(require('gpu').tensor { 1, 2 }:sum():item(), calls())"

-- The n-th allocation of a program that does next to nothing fails, for every
-- `stride`-th n. Gives the same.
function allocfail.startup(stride)
  local path, all = library(), { calls = 0, runs = 0, errors = 0, wrong = {} }
  local n = 0 -- nothing fails: the count
  while n <= all.calls do
    local p = assert(host.process.spawn { host.process.executable(), "-e",
      STARTUP:format(path), stdin = "null",
      stdout = "pipe", stderr = "pipe", env = { LD_PRELOAD = path,
        LLMHOST_FAIL_ALLOC = tostring(n) } })
    local status, out, err = micro.finish(p)
    all.runs = all.runs + 1
    local said = err:find "memory" ~= nil
    local calls = out:match "^3%.0\t(%d+)$"
    if status.exit == 0 and calls then
      all.calls = math.max(all.calls, tonumber(calls))
    elseif status.exit == OOM or (status.exit or 0) > 0 and said then
      all.errors = all.errors + 1
    else
      all.wrong[#all.wrong + 1] = ("startup %d: exit %s, signal %s: %s%s")
        :format(n, status.exit, status.signal, out, err)
    end
    n = n == 0 and 1 or n + stride
  end
  return all
end

-- All of it as cases; every `stride`-th allocation fails.
function allocfail.cases(stride)
  local function one(name, run)
    check.case("failing allocations: " .. name, function()
      local all = run()
      print(("# %s: %d allocations, %d failures, %d errors, %d wrong")
        :format(name, all.calls, all.runs, all.errors, #all.wrong))
      check.equal(table.concat(all.wrong, "\n"), "")
      check.truthy(all.errors > 0 or name == "json", "nothing failed")
    end)
  end
  for _, part in ipairs(allocfail.PARTS) do
    one(part, function() return allocfail.part(part, stride) end)
  end
  one("startup", function() return allocfail.startup(stride) end)
end

return allocfail
