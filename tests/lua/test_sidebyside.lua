-- report.lua A B: two folders of results side by side, from folders with
-- figures of our choosing.
local check = require "check"
local host = require "host"
local micro = require "micro"
local sidebyside = require "llm.sidebyside"
local sweep_folder = require "sweep_folder"

local root = micro.folder "sides"
local a, b = root .. "/a", root .. "/b"

-- B starts as A but for one run that failed; the cases change more.
sweep_folder.write(a)
sweep_folder.write(b, { status = function(e)
  if e.name == "large_fp4" then return "nan", "loss is not a number" end
end })

local function report(...)
  local words = { host.process.executable(), host.options.root
    .. "/experiments/report.lua", ... }
  words.stdin, words.stdout, words.stderr = "null", "pipe", "pipe"
  return micro.finish(assert(host.process.spawn(words)))
end

local function edit(folder, from, to)
  local path = folder .. "/journal.jsonl"
  local records = assert(host.journal.read(path))
  host.file.remove(path)
  local j <close> = assert(host.journal.open(path))
  for _, r in ipairs(records) do
    r.seq, r.time, r.crc = nil, nil, nil
    if r.type == from then to(r) end
    assert(j:append(r))
  end
end

check.case("runs of one name are paired, changes are B against A", function()
  edit(b, "end", function(r)
    if r.result then
      r.result.training_seconds = r.result.training_seconds / 2
      r.result.val_loss = r.result.val_loss + .25
      r.result.memory.peak = r.result.memory.peak * 3 // 4
    end
  end)
  local c = sidebyside.compare(a, b)
  check.equal(#c.pairs, 8)
  local p = c.pairs[1]
  check.equal(p.name, "small_baseline")
  check.near(p.memory, -.25, 1e-9)
  check.near(p.speed, 1, 1e-9)
  check.near(p.loss, .25, 1e-9)
  check.equal(p.same_batch and p.same_schedule, true)
  check.equal(#c.only_a + #c.only_b + #c.environment + #c.config, 0)
end)

check.case("what cannot be compared is marked, and why", function()
  edit(b, "decided", function(r)
    if r.name == "small_gqa" then r.decided.batch = 8 end
    if r.name == "small_fp4" then r.decided.steps = 300 end
  end)
  local c = sidebyside.compare(a, b)
  local lines = table.concat(sidebyside.lines(c), "\n")
  check.equal(c.pairs[2].same_batch, false)
  check.equal(c.pairs[3].same_schedule, false)
  check.truthy(lines:find("-25.0* ", 1, true), lines)
  check.truthy(lines:find("+0.250*", 1, true), lines)
  check.truthy(lines:find("the micro-batches differ", 1, true), lines)
  check.truthy(lines:find("not comparable, schedules or texts", 1, true))
  check.truthy(lines:find("large_fp4: A ok, B nan (loss is not a number)", 1,
    true), lines)
end)

check.case("machines, configurations and runs that one side lacks", function()
  edit(b, "sweep", function(r)
    r.environment.device, r.environment.isa = "another machine", "avx2"
    r.config = host.json.array { "train.lr = 0.002" }
    r.files = { ["llm.batch"] = "1" }
  end)
  edit(b, "order", function(r) r.experiments[8].name = "large_new" end)
  local c = sidebyside.compare(a, b)
  check.equal(table.concat(c.only_a), "large_gqa_fp4")
  check.equal(table.concat(c.only_b), "large_new")
  local text = table.concat(sidebyside.lines(c), "\n")
  for _, words in ipairs { "A: a machine", "B: another machine", "isa",
    "A: none", "+ train.lr = 0.002", "only in A: large_gqa_fp4",
    "Lua files that differ: 1 (llm.batch)" } do
    check.truthy(text:find(words, 1, true), words .. "\n" .. text)
  end
end)

check.case("report.lua A B: 80 columns, JSON, and nothing written", function()
  local before = host.file.read(a .. "/journal.jsonl")
  local status, out, err = report(a, b)
  check.equal(status.exit, 0, err)
  check.truthy(out:find("experiment +MB A MB B"), out)
  for line in out:gmatch "[^\n]+" do
    if line:find "^%l+_" then check.truthy(utf8.len(line) <= 80, line) end
  end
  status, out = report(a, b, "--json")
  check.equal(status.exit, 0)
  local c = assert(host.json.decode(out))
  check.equal(c.pairs[1].name, "small_baseline")
  check.equal(c.b.folder, b)
  check.equal(host.file.read(a .. "/journal.jsonl"), before)
  check.equal(host.file.exists(a .. "/experiment_report.md"), false)
end)

check.case("a folder without a journal is named", function()
  local status, _, err = report(a, root .. "/text")
  check.equal(status.exit, 1)
  check.truthy(err:find(root .. "/text: no journal.jsonl there", 1, true), err)
end)

host.file.remove_tree(root)
check.done()
