-- Every function of `gpu` and `host`, called at random (tests/fuzz/calls.lua);
-- longer runs are made by hand: COUNT and SEED are its arguments.
local check = require "check"
local host = require "host"

local scratch = (os.getenv("TMPDIR") or "/tmp") .. "/llmhost-calls-"
  .. host.process.pid()

check.case("5000 random calls: no crash, and errors are objects", function()
  assert(host.file.mkdir(scratch))
  local here = host.file.realpath "tests/fuzz/calls.lua"
  local p = assert(host.process.spawn { host.process.executable(), here,
    "5000", "7", cwd = scratch, stdin = "null", stdout = "pipe",
    stderr = "pipe" })
  local out, err = {}, {}
  for line in function() return p:read_line(60) end do out[#out + 1] = line end
  for line in function() return p:read_error_line(5) end do
    err[#err + 1] = line
  end
  local status = p:wait(10) or {}
  check.equal(status.exit, 0, ("%s; last call %s; signal %s"):format(
    table.concat(err, "\n"), host.file.read(scratch .. "/last-call"),
    tostring(status.signal)))
  check.truthy((out[#out] or ""):find "^5000 calls of %d+ functions",
    out[#out])
end)

host.file.remove_tree(scratch)
check.done()
