-- Whole sweeps of a micro model with the real program: what they write, what
-- is refused, what a failing experiment costs, and continuing after any end.
local check = require "check"
local host = require "host"
local micro = require "micro"

local FOUR = '{ name = "baseline" }, { name = "gqa", kv_groups = 2 }, '
  .. '{ name = "fp4", fp4 = true }, '
  .. '{ name = "gqa_fp4", kv_groups = 2, fp4 = true }'

local root = micro.folder "sweep"
local clean

check.case("a sweep runs and writes everything", function()
  micro.script(root, FOUR)
  local status, out, err = micro.run(root)
  check.equal(status.exit, 0, out .. err)
  local by_name, list = micro.results(root)
  check.equal(#list, 4)
  for i, name in ipairs { "m_baseline", "m_gqa", "m_fp4", "m_gqa_fp4" } do
    local r = list[i]
    check.equal(r.name, name)
    check.equal(r.status, "ok", tostring(r.error))
    check.equal(r.training_stats.steps_completed, 6)
    check.equal(r.training_stats.skipped_steps, 0)
    check.equal(r.training_stats.tokens_processed, 384)
    check.equal(r.memory_stats.peak_memory_gb,
      r.memory_stats.predicted_memory_gb, name .. ": peak against plan")
    local folder = root .. "/out/runs/" .. name
    for _, file in ipairs { "metrics.jsonl", "metrics.csv", "config.json",
      "checkpoints/step-00000006/model.safetensors",
      "checkpoints/step-00000006/training.safetensors",
      "checkpoints/step-00000006/state.json" } do
      check.truthy(host.file.exists(folder .. "/" .. file), file)
    end
  end
  check.truthy(by_name.m_fp4.optimizations.use_fp4)
  check.equal(by_name.m_gqa.optimizations.n_kv_heads, 1)
  for _, file in ipairs { "journal.jsonl", "experiment_log.txt",
    "experiment_report.md" } do
    check.truthy(host.file.exists(root .. "/out/" .. file), file)
  end
  clean = micro.losses(root, "m_baseline")
  check.truthy(clean:find("6:0x", 1, true), clean)
end)

check.case("started again, it repeats nothing and ends the same", function()
  local before = host.file.read(root .. "/out/experiment_results.json")
  local status, out = micro.run(root)
  check.equal(status.exit, 0)
  check.truthy(out:find("4 of 4 are finished already", 1, true), out)
  check.equal(host.file.read(root .. "/out/experiment_results.json"), before)
end)

check.case("another configuration in the same folder is refused", function()
  local status, _, err = micro.run(root, "train.lr=0.5")
  check.truthy(status.exit ~= 0)
  check.truthy(err:find("holds a sweep of another configuration", 1, true),
    err)
  check.truthy(err:find("- train.lr = 0.001", 1, true), err)
  check.truthy(err:find("+ train.lr = 0.5", 1, true), err)
end)

check.case("a changed script is refused by name", function()
  local text = host.file.read(root .. "/sweep.lua")
  host.file.write(root .. "/sweep.lua", text .. "-- one more line\n")
  local status, _, err = micro.run(root)
  host.file.write(root .. "/sweep.lua", text)
  check.truthy(status.exit ~= 0)
  check.truthy(err:find("these files changed: script", 1, true), err)
end)

check.case("usage errors end with code 2 before anything runs", function()
  local status, _, err = micro.run(root, "train.minuts=5")
  check.equal(status.exit, 2, err)
  check.truthy(err:find("did you mean 'train.minutes'?", 1, true), err)
end)

check.case("a sweep that ended before its first experiment makes way",
  function()
    local other = micro.folder "way"
    micro.script(other, FOUR, nil, "steps = 1")
    local status, out, err = micro.run(other, "data.source=nowhere", "--force")
    check.truthy(status.exit ~= 0, out .. err)
    check.truthy(host.file.exists(other .. "/out/journal.jsonl"))
    status, out, err = micro.run(other, "only=m_gqa")
    check.equal(status.exit, 0, out .. err)
    check.equal(micro.results(other).m_gqa.status, "ok")
    host.file.remove_tree(other)
  end)

check.case("--fresh starts over; the last step is evaluated", function()
  local status, out = micro.run(root, "--fresh", "train.steps=5")
  check.equal(status.exit, 0, out)
  local by_name = micro.results(root)
  check.equal(by_name.m_fp4.training_stats.steps_completed, 5)
  local evaluated = {}
  for step in micro.losses(root, "m_fp4"):gmatch "(%d+)=" do
    evaluated[#evaluated + 1] = step
  end
  check.equal(table.concat(evaluated, " "), "3 5") -- two, of five steps
end)

check.case("only=: what it names, no more; a slip is told", function()
  local empty = micro.folder "only"
  micro.script(empty, FOUR)
  local status, out, err = micro.run(empty, "--dry-run", "only=*_gqa,m_fp4")
  check.equal(status.exit, 0, err)
  check.truthy(out:find("m_gqa ", 1, true) and out:find("m_fp4", 1, true), out)
  check.equal(out:find("m_baseline", 1, true), nil)
  for only, why in pairs { m_fp5 = "did you mean 'm_fp4'?",
    ["large_*"] = "there is m_baseline, m_gqa, ",
    [""] = "expected names of experiments" } do
    status, out, err = micro.run(empty, "only=" .. only)
    check.equal(status.exit, 2, out)
    check.truthy(err:find(why, 1, true), err)
  end
  check.equal(host.file.exists(empty .. "/out"), false)
  host.file.remove_tree(empty)
end)

check.case("overrides are told as they are written", function()
  local sweep = require("llm.sweep") { profile = "nano",
    args = { "train.seeds=1,2", "train.minutes=.05", "only=*" } }
  check.equal(table.concat(sweep:overrides(), "\n"), "train.seeds: 42 -> 1,2\n"
    .. "train.minutes: 0.333333 -> 0.05\nonly: none -> *")
end)

check.case("--dry-run touches nothing", function()
  local empty = micro.folder "dry"
  micro.script(empty, FOUR)
  local status, out, err = micro.run(empty, "--dry-run")
  check.equal(status.exit, 0, err)
  check.truthy(out:find("m_gqa_fp4", 1, true), out)
  for line in out:gmatch "[^\n]+" do
    check.truthy(utf8.len(line) <= 80, line)
  end
  check.equal(host.file.exists(empty .. "/out"), false)
  check.equal(host.file.exists(empty .. "/data_cache"), false)
  host.file.remove_tree(empty)
end)

check.case("a run searches in the share of the budget the plan fills",
  function()
    local small = micro.folder "share"
    micro.script(small, '{ name = "a" }')
    local function planned(share)
      local _, out = micro.run(small, "--dry-run", "--json",
        "memory.fraction=" .. share)
      return host.json.decode(out)[1]
    end
    local row = planned(.5)
    check.truthy(row.largest < planned(.9).largest)
    local status, out = micro.run(small, "memory.fraction=0.5")
    check.equal(status.exit, 0, out)
    local searched = micro.results(small).m_a.batch_search
    check.equal(searched.largest, row.largest)
    check.equal(searched.trained, row.batch)
    host.file.remove_tree(small)
  end)

local SHORT = { "--fresh", "train.minutes=0.0005",
  "train.checkpoint_seconds=60" }

local function decisions()
  local out = {}
  for _, r in ipairs(host.journal.read(root .. "/out/journal.jsonl")) do
    if r.type == "decided" then out[#out + 1] = r end
  end
  return out
end

check.case("a time limit becomes a number of steps, journaled once", function()
  micro.script(root, '{ name = "a" }', "", "")
  local status, out, err = micro.run(root, table.unpack(SHORT))
  check.equal(status.exit, 0, out .. err)
  local list = decisions()
  check.equal(#list, 1)
  local d = list[1].decided
  check.truthy(d.timed_steps >= 1 and d.seconds_per_step > 0)
  check.equal(d.steps, math.max(1, math.floor(.03 / d.seconds_per_step)))
  local by_name = micro.results(root)
  check.equal(by_name.m_a.config.total_steps, d.steps)
  check.equal(by_name.m_a.batch_search.trained, 4)
  check.equal(d.left_behind, 0)
end)

check.case("equal steps: all variants take the smallest count", function()
  micro.script(root, FOUR, "", 'steps = "equal"')
  local status, out, err = micro.run(root, table.unpack(SHORT))
  check.equal(status.exit, 0, out .. err)
  local least = math.huge
  for _, r in ipairs(decisions()) do
    least = math.min(least, r.decided.steps)
  end
  local _, list = micro.results(root)
  check.equal(#list, 4)
  for _, r in ipairs(list) do
    check.equal(r.config.total_steps, least, r.name)
  end
end)

host.file.remove_tree(root)
check.done()
