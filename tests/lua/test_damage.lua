-- Checkpoints, locks and journals of a run that were damaged on the disk: what
-- is told, what is used instead, and that the bits stay.
local check = require "check"
local disturb = require "disturb"
local host = require "host"
local micro = require "micro"

local WORDS = { "only=m_fp4", "train.steps=3", "train.evaluations=1",
  "train.keep_best=false" }
local NAMES = { "m_fp4" }
local FILES = { "model.safetensors", "training.safetensors", "state.json" }

local whole = disturb.folder "whole"
local want

local function run(root)
  local status, out, err = micro.finish(disturb.start(root, nil, WORDS))
  return status, out .. err
end

check.case("the undisturbed run keeps two checkpoints", function()
  local status, text = run(whole)
  check.equal(status.exit, 0, text)
  want = disturb.snapshot(whole)
  check.equal(table.concat(host.file.list(whole
    .. "/out/runs/m_fp4/checkpoints"), " "), "step-00000002 step-00000003")
end)

-- A copy of the finished sweep whose last record, the end of its experiment
-- and what followed, is gone: as if the parent had been killed just then.
local function unfinished(name)
  local root = disturb.folder(name)
  assert(os.execute(("cp -r '%s/out' '%s/data_cache' '%s/'"):format(whole,
    whole, root)))
  local path, kept = root .. "/out/journal.jsonl", {}
  for line in host.file.read(path):gmatch "[^\n]*\n" do
    if line:find('"type":"end"', 1, true) and line:find("m_fp4", 1, true) then
      break
    end
    kept[#kept + 1] = line
  end
  assert(host.file.write(path, table.concat(kept)))
  return root, root .. "/out/runs/m_fp4"
end

local DAMAGE = {
  flipped = function(path)
    local data = host.file.read(path)
    local at = #data // 2
    host.file.write(path, data:sub(1, at - 1)
      .. string.char(data:byte(at) ~ 1) .. data:sub(at + 1))
  end,
  truncated = function(path)
    local data = host.file.read(path)
    host.file.write(path, data:sub(1, #data // 2))
  end,
  missing = function(path) host.file.remove(path) end,
}
local HOW = { "flipped", "missing", "truncated" }

-- The sweep goes on from `from` (nil: from the start) to the same bits.
local function goes_on(root, from, told)
  local status, text = run(root)
  check.equal(status.exit, 0, text)
  if told then
    check.truthy(text:find(told, 1, true), text)
    check.truthy(text:find("it is not used", 1, true), text)
  end
  if from then
    check.truthy(text:find("continues after step " .. from, 1, true), text)
  else
    check.truthy(not text:find("continues after", 1, true), text)
  end
  check.equal(table.concat(disturb.differences(disturb.snapshot(root), want),
    "\n"), "")
  check.equal(table.concat(disturb.leftovers(root, NAMES), "\n"), "")
  host.file.remove_tree(root)
end

check.case("undamaged, the newer one is used", function()
  goes_on(unfinished "undamaged", 3)
end)

for _, file in ipairs(FILES) do
  for _, how in ipairs(HOW) do
    check.case(("the newer one's %s %s: the older is used"):format(file, how),
      function()
        local root, folder = unfinished "newer"
        DAMAGE[how](folder .. "/checkpoints/step-00000003/" .. file)
        goes_on(root, 2, "step-00000003: ")
      end)
  end
end

check.case("both damaged: the run starts over", function()
  local root, folder = unfinished "both"
  DAMAGE.flipped(folder .. "/checkpoints/step-00000002/model.safetensors")
  DAMAGE.truncated(folder .. "/checkpoints/step-00000003/state.json")
  goes_on(root, nil, "step-00000002: model.safetensors is damaged (CRC)")
end)

check.case("temporary files of dead processes are cleared", function()
  local root, folder = unfinished "litter"
  for _, path in ipairs { root .. "/out/journal.jsonl.tmp.99999999",
    folder .. "/metrics.csv.tmp.99999999", root .. "/data_cache/x.tmp.99999999",
    folder .. "/checkpoints/step-00000002/state.json.tmp.99999999" } do
    assert(host.file.write(path, "half"))
  end
  goes_on(root, 3)
end)

check.case("a run's lock held by an orphan: it is ended, the run goes on",
  function()
    local root, folder = unfinished "orphan"
    local p = assert(host.process.spawn { host.process.executable(), "-e", ([[
      local host = require "host"
      local lock <close> = assert(host.lock(%q .. "/lock", 0))
      print "held"
      io.stdout:flush()
      host.sleep(100)]]):format(folder), stdout = "pipe" })
    check.equal(p:read_line(10), "held")
    goes_on(root, 3)
    check.equal((p:wait(5) or {}).signal, 9)
  end)

check.case("a lock file of a dead process stops nothing", function()
  local root, folder = unfinished "stale"
  for _, path in ipairs { root .. "/out/lock", folder .. "/lock" } do
    assert(host.file.write(path, "99999999 1\n"))
  end
  goes_on(root, 3)
end)

check.case("a second sweep in the folder is refused while one runs", function()
  local root = unfinished "busy"
  local lock <close> = assert(host.lock(root .. "/out/lock", 0))
  local status, text = run(root)
  check.equal(status.exit, 1)
  check.truthy(text:find("a sweep is running there (process "
    .. host.process.pid() .. ")", 1, true), text)
  lock:close()
  host.file.remove_tree(root)
end)

check.case("a torn last journal line counts for nothing", function()
  local root = unfinished "torn"
  local path = root .. "/out/journal.jsonl"
  host.file.append(path, '{"seq":99,"type":"end","name":"m_fp4","sta')
  goes_on(root, 3)
end)

check.case("a changed text is refused by name", function()
  local root = unfinished "text"
  local s = require("llm.state").read(root .. "/out/journal.jsonl")
  DAMAGE.flipped(root .. "/" .. s.data.train.path)
  local status, text = run(root)
  check.equal(status.exit, 1)
  check.truthy(text:find("is not the token file this sweep began with", 1,
    true), text)
  host.file.remove_tree(root)
end)

host.file.remove_tree(whole)
check.done()
