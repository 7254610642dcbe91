-- Stopped or killed at any moment, a sweep ends with the same bits.
local check = require "check"
local host = require "host"
local micro = require "micro"

local SLOW = 'on_step = function() require("host").sleep(.15) end,'
local TWO = '{ name = "a" }, { name = "b", fp4 = true }'
local NAMES = { "m_a", "m_b" }

local function outcome(root)
  local by_name, all = micro.results(root), {}
  for i, name in ipairs(NAMES) do
    local r = by_name[name]
    all[i] = ("%s %s %a %a %s"):format(name, r.status,
      r.training_stats.avg_loss, r.evaluation.val_loss,
      micro.losses(root, name))
  end
  return table.concat(all, "\n")
end

local whole = micro.folder "whole"
local want

check.case("the undisturbed run", function()
  micro.script(whole, TWO, SLOW)
  local status, out, err = micro.run(whole)
  check.equal(status.exit, 0, out .. err)
  want = outcome(whole)
end)

-- Wait until `m_a` has the checkpoint of a step; gives the run's folder.
local function checkpointed(root, step)
  local run = root .. "/out/runs/m_a"
  local path = ("%s/checkpoints/step-%08d/state.json"):format(run, step)
  local limit = host.clock() + 20
  while not host.file.exists(path) do
    check.truthy(host.clock() < limit, "no checkpoint came")
    host.sleep(.02)
  end
  return run
end

-- Stop the sweep when `m_a` has a checkpoint, by `how(p)`; then continue.
local function disturbed(name, how, code)
  check.case(name, function()
    local root = micro.folder "stopped"
    micro.script(root, TWO, SLOW)
    local p = micro.start(root)
    checkpointed(root, 2)
    how(p, root)
    local status = micro.finish(p)
    if code then check.equal(status.exit, code) end
    local again, out, err = micro.run(root)
    check.equal(again.exit, 0, out .. err)
    check.equal(outcome(root), want)
    check.truthy(out:find("continues after step", 1, true), out)
    host.file.remove_tree(root)
  end)
end

disturbed("TERM: stops, saves, continues to the same bits",
  function(p) p:kill "TERM" end, 130)
disturbed("INT, the same", function(p) p:kill "INT" end, 130)
disturbed("parent killed", function(p) p:kill "KILL" end)

local function child_of(root)
  for _, line in ipairs(host.file.list "/proc") do
    local command = line:find "^%d+$"
      and host.file.read("/proc/" .. line .. "/cmdline")
    if command and command:find("--experiment", 1, true) then
      local cwd = host.file.realpath("/proc/" .. line .. "/cwd")
      if cwd == host.file.realpath(root) then return math.tointeger(line) end
    end
  end
end

check.case("child killed: the sweep goes on, a restart continues the child",
  function()
    local root = micro.folder "child"
    micro.script(root, TWO, SLOW)
    local p = micro.start(root)
    checkpointed(root, 2)
    local pid = child_of(root)
    host.process.signal(pid, host.process.start_time(pid), "KILL")
    local status = micro.finish(p)
    check.equal(status.exit, 1)
    local by_name = micro.results(root)
    check.equal(by_name.m_a.status, "interrupted")
    check.equal(by_name.m_b.status, "ok")
    local again, out = micro.run(root)
    check.equal(again.exit, 0, out)
    check.equal(outcome(root), want)
    host.file.remove_tree(root)
  end)

check.case("a damaged checkpoint is told, the older one is used", function()
  local root = micro.folder "damaged"
  micro.script(root, TWO, SLOW)
  local p = micro.start(root)
  local folder = checkpointed(root, 3) .. "/checkpoints/"
  p:kill "KILL"
  micro.finish(p)
  local names = host.file.list(folder)
  table.sort(names)
  local path = folder .. names[#names]:match "[^/]+$" .. "/model.safetensors"
  local data = host.file.read(path)
  local flipped = string.char(data:byte(#data) ~ 1)
  host.file.write(path, data:sub(1, #data - 1) .. flipped)
  local again, out = micro.run(root)
  check.equal(again.exit, 0, out)
  check.truthy(out:find("model.safetensors is damaged (CRC)", 1, true), out)
  check.equal(outcome(root), want)
  host.file.remove_tree(root)
end)

host.file.remove_tree(whole)
check.done()
