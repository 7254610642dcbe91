-- Every way an experiment can end, beside one that must not notice.
local check = require "check"
local host = require "host"
local micro = require "micro"

local root = micro.folder "failures"

local HOOKS = [[
  on_step = function(e, r)
    if r.step < 2 then return end
    if e.variant == "raises" then error("a planted error") end
    if e.variant == "exits" then os.exit(9) end
    if e.variant == "aborts" then
      local process = require("host").process
      local pid = process.pid()
      process.signal(pid, process.start_time(pid), "QUIT")
      require("host").sleep(5)
    end
    while e.variant == "hangs" do end
  end,
]]

local MATRIX = '{ name = "fine" }, { name = "raises" }, { name = "exits" }, '
  .. '{ name = "aborts" }, { name = "hangs" }, '
  .. '{ name = "big", memory = { budget = "100KB" } }, '
  .. '{ name = "diverges", optimizer = "sgd", lr = 1e4, diverge = 1.5 }, '
  .. '{ name = "last", ["train.saved"] = "int8" }'

local by_name, text

check.case("the sweep goes on past every failure", function()
  micro.script(root, MATRIX, HOOKS)
  local status, out, err = micro.run(root)
  check.equal(status.exit, 1, out .. err)
  text = out
  by_name = micro.results(root)
  check.equal(by_name.m_fine.status, "ok")
  check.equal(by_name.m_last.status, "ok")
end)

local function failed(variant, status, words)
  check.case(variant .. " is recorded as " .. status, function()
    local r = by_name["m_" .. variant]
    check.truthy(r, "no result")
    check.equal(r.status, status, tostring(r.error))
    check.truthy(r.error:find(words, 1, true), r.error)
    check.truthy(text:find(status, 1, true), "not in the log")
  end)
end

failed("raises", "error", "a planted error")
failed("exits", "crashed", "exit code 9")
failed("aborts", "crashed", "ended by signal 3")
failed("hangs", "hung", "no sign of life")
failed("big", "oom", "does not fit: a micro-batch of 1 needs")

check.case("divergence is caught at its step", function()
  local status = by_name.m_diverges.status
  check.truthy(status == "diverged" or status == "nan", status)
  check.truthy(by_name.m_diverges.error:find("step", 1, true))
end)

check.case("the report names them", function()
  local report = host.file.read(root .. "/out/experiment_report.md")
  check.truthy(report:find("| m_hangs | hung |", 1, true))
end)

check.case("failures are not run again, --retry runs them again", function()
  local _, out = micro.run(root)
  check.truthy(out:find("8 of 8 are finished already", 1, true), out)
  local status, again = micro.run(root, "--retry", "only=m_exits")
  check.truthy(status.exit ~= 0)
  check.truthy(again:find("m_exits: crashed", 1, true), again)
end)

check.case("the others are unchanged to the bit", function()
  local alone = micro.folder "alone"
  micro.script(alone, '{ name = "fine" }')
  local status, out, err = micro.run(alone)
  check.equal(status.exit, 0, out .. err)
  check.equal(micro.losses(root, "m_fine"), micro.losses(alone, "m_fine"))
  host.file.remove_tree(alone)
end)

-- Start the child of `m_last` by hand, with the n-th write made to fail.
local function child_with_failing_write(n)
  local s = require("llm.state").read(root .. "/out/journal.jsonl")
  local folder = ("%s/hand%d"):format(root, n)
  host.file.mkdir(folder)
  for _, part in ipairs { "train", "validation" } do
    s.data[part].path = host.file.realpath(root .. "/" .. s.data[part].path)
  end
  local p = host.process.spawn { host.process.executable(), "--experiment",
    "m_last", "sweep.lua", cwd = root, stdin = "pipe", stdout = "pipe",
    stderr = "pipe", env = { LLMHOST_FAIL_WRITE = tostring(n) } }
  p:write(host.json.encode { run = folder, data = s.data, mode = "train",
    decided = s.experiments.m_last.decided, configuration = "x" } .. "\n")
  local _, out = micro.finish(p)
  local result = out:match '([^\n]*"event":"result"[^\n]*)'
  return result and host.json.decode(result).result, folder
end

check.case("a failing disk ends the run as disk, whatever the write",
  function()
    local failures = 0
    for n = 1, 200, 9 do
      local r, folder = child_with_failing_write(n)
      check.truthy(r, "no result with write " .. n)
      if r.status == "ok" then break end
      failures = failures + 1
      check.equal(r.status, "disk", tostring(r.error))
      local latest, state = require("llm.checkpoint").latest(folder)
      check.truthy(not latest or state.step >= 1)
      host.file.remove_tree(folder)
    end
    check.truthy(failures > 1, "only " .. failures .. " writes failed")
  end)

check.case("nothing fits: exit code 3", function()
  local none = micro.folder "none"
  micro.script(none, '{ name = "a" }')
  local status = micro.run(none, "memory.budget=50KB")
  check.equal(status.exit, 3)
  micro.script(none, '{ name = "a" }, { name = "b" }')
  status = micro.run(none, "--fresh", "memory.budget=50KB", "only=m_b")
  check.equal(status.exit, 3, "of those that were to run")
  host.file.remove_tree(none)
end)

host.file.remove_tree(root)
check.done()
