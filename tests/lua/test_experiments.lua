-- The scripts of experiments/, run as users run them.
local check = require "check"
local host = require "host"
local micro = require "micro"

local root = micro.folder "experiments"

local function run(script, ...)
  local spec = { host.process.executable(), script, ... }
  spec.cwd, spec.stdin, spec.stdout, spec.stderr = root, "null", "pipe", "pipe"
  return micro.finish(assert(host.process.spawn(spec)))
end

check.case("check.lua: findings, a self-test, the next command", function()
  local status, out, err = run("experiments/check.lua", "data.source=text")
  check.equal(status.exit, 0, out .. err)
  for _, want in ipairs { "memory", "disk", "self-test", "operators used",
    "CUDA", "next: llmhost experiments/sweep.lua" } do
    check.truthy(out:find(want, 1, true), want .. " in " .. out)
  end
end)

check.case("check.lua: what is missing fails, with what mends it", function()
  local status, out = run("experiments/check.lua", "data.source=nowhere",
    "data.tokenizer=none.json")
  check.equal(status.exit, 1)
  check.truthy(out:find("FAIL  data       no such file or folder: nowhere", 1,
    true), out)
  check.truthy(out:find("-> data.source=PATH", 1, true), out)
  check.truthy(out:find("FAIL  tokenizer  no such file: none.json", 1, true))
end)

check.case("check.lua --json", function()
  local _, out = run("experiments/check.lua", "--json")
  local report = assert(host.json.decode(out))
  check.truthy(#report.findings > 5)
end)

check.case("sweep.lua --dry-run: both profiles, 16 rows, 80 columns",
  function()
    for _, profile in ipairs { "nano", "full" } do
      local began = host.clock()
      local status, out, err = run("experiments/sweep.lua", "--dry-run",
        "profile=" .. profile)
      check.equal(status.exit, 0, err)
      check.truthy(host.clock() - began < 10, "too slow")
      local rows = 0
      for line in out:gmatch "[^\n]+" do
        check.truthy(utf8.len(line) <= 80, line)
        if line:find("^%l+_%l+") then rows = rows + 1 end
      end
      check.equal(rows, 16)
    end
    check.equal(host.file.exists(root .. "/experiment_results"), false)
  end)

check.case("sweep.lua --dry-run --json: exact rows", function()
  local _, out = run("experiments/sweep.lua", "--dry-run", "--json",
    "profile=full")
  local rows = assert(host.json.decode(out))
  check.equal(#rows, 16)
  for _, row in ipairs(rows) do
    local sum = 0
    for _, bytes in pairs(row.by_category) do sum = sum + bytes end
    check.equal(sum, row.peak, row.name)
    check.truthy(row.peak <= .85 * 24e9)
    check.equal(192 % row.batch, 0)
  end
  local block = 512 * (4 * 512 + 2 * 2048 + 2)
  check.equal(rows[1].parameters, 49152 * 512 + 8 * block + 512)
  check.equal(rows[1].quantized, 0)
  check.equal(rows[3].quantized, 8 * 512 * (4 * 512 + 2 * 2048))
end)

check.case("the full profile says that it needs text", function()
  local status, _, err = run("experiments/sweep.lua", "profile=full",
    "--force", "--device", "cpu")
  check.equal(status.exit, 2, err)
  check.truthy(err:find("data.source=system", 1, true), err)
end)

check.case("report.lua without a journal", function()
  local status, _, err = run("experiments/report.lua", "elsewhere")
  check.equal(status.exit, 1)
  check.truthy(err:find("elsewhere: no journal.jsonl there", 1, true), err)
end)

check.case("train.lua, short; report.lua gives its results again", function()
  local status, out, err = run("experiments/train.lua", "train.steps=4",
    "train.eval_every=2", "train.tokens_per_step=1024", "train.batch=2",
    "train.eval_tokens=1024", "data.source=text", "data.vocab=300",
    "models.base.d_model=32", "models.base.d_ff=64", "data.tokens=3000")
  check.equal(status.exit, 0, out .. err)
  local folder = root .. "/train_results"
  local results = host.file.read(folder .. "/experiment_results.json")
  check.truthy(host.file.exists(folder
    .. "/runs/base_baseline/checkpoints/best/state.json"))
  host.file.remove(folder .. "/experiment_results.json")
  status, out, err = run("experiments/report.lua", "train_results")
  check.equal(status.exit, 0, out .. err)
  check.equal(host.file.read(folder .. "/experiment_results.json"), results)
end)

host.file.remove_tree(root)
check.done()
