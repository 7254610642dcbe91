-- The scripts of experiments/, run as users run them.
local check = require "check"
local gpu = require "gpu"
local host = require "host"
local micro = require "micro"

local root = micro.folder "experiments"

local function run(script, ...)
  local spec = { host.process.executable(), script, ... }
  spec.cwd, spec.stdin, spec.stdout, spec.stderr = root, "null", "pipe", "pipe"
  spec.env = { HF_HUB_OFFLINE = "1" }
  return micro.finish(assert(host.process.spawn(spec)))
end

check.case("check.lua: findings, a self-test, the next command", function()
  local status, out, err = run("experiments/check.lua", "data.source=text",
    "only=small_*")
  check.equal(status.exit, 0, out .. err)
  for _, want in ipairs { "memory", "disk", "self-test", "operators used",
    "CUDA", "next: llmhost experiments/sweep.lua data.source=text "
    .. "'only=small_*'" } do
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

check.case("check.lua: a precision that needs a GPU fails before any run",
  function()
    if gpu.device() ~= "cpu" then check.skip "a GPU is here" end
    for _, word in ipairs { "bf16", "fp16", "tf32" } do
      local status, out = run("experiments/check.lua", "data.source=text",
        "train.precision=" .. word)
      check.equal(status.exit, 1)
      check.truthy(out:find("train.precision = " .. word .. " needs a GPU; "
        .. "the cpu computes in f32", 1, true), out)
    end
    check.equal(run("experiments/check.lua", "data.source=text",
      "train.precision=fp8").exit, 0)
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

check.case("the full profile without the hub: what else there is", function()
  if not host.libraries().curl then check.skip "no libcurl" end
  local status, _, err = run("experiments/sweep.lua", "profile=full",
    "--force", "--device", "cpu")
  check.equal(status.exit, 1, err)
  check.truthy(err:find("hf:HuggingFaceTB/smollm-corpus/cosmopedia-v2/train is "
    .. "not in the cache as far as it is wanted, and HF_HUB_OFFLINE is set", 1,
    true), err)
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

local SMALL = { "data.source=text", "data.vocab=300", "data.tokens=3000",
  "train.tokens_per_step=1024", "train.batch=2", "train.eval_tokens=1024" }

local function run_small(script, ...)
  local words = table.move(SMALL, 1, #SMALL, 1, {})
  for _, word in ipairs { ... } do words[#words + 1] = word end
  return run(script, table.unpack(words))
end

check.case("custom.lua: the other architecture has other parameters",
  function()
    local _, out = run("experiments/custom.lua", "--dry-run", "--json",
      "profile=full")
    local rows = assert(host.json.decode(out))
    local C, F = 1024, 4096 * 2 // 3 // 16 * 16
    check.equal(rows[1].parameters, 49152 * C + 24 * 12 * C * C + 24 * 2 * C
      + C)
    check.equal(rows[2].parameters, 2 * 49152 * C + C
      + 24 * (4 * C * C + 3 * C * F + 2 * C + 2 * 64))
    local status, text, err = run_small("experiments/custom.lua",
      "train.steps=2", "models.192d-4L.d_model=32", "models.192d-4L.d_ff=64")
    check.equal(status.exit, 0, text .. err)
  end)

check.case("memory.lua: less kept, less memory; recompute keeps the bits",
  function()
    local status, out, err = run_small("experiments/memory.lua",
      "train.steps=2", "models.small.d_model=32", "models.small.d_ff=64")
    check.equal(status.exit, 0, out .. err)
    local list = host.json.decode(host.file.read(root
      .. "/memory_results/experiment_results.json"))
    check.equal(#list, 8)
    for i = 3, 8 do
      check.truthy(list[i].memory_stats.by_category.activations
        < list[i - 2].memory_stats.by_category.activations
        or i == 8, list[i].name)
      check.equal(list[i].evaluation.val_loss,
        list[i - 2].evaluation.val_loss, list[i].name)
    end
  end)

check.case("quantize.lua: every format's bits, error and loss", function()
  local status, out, err = run_small("experiments/quantize.lua",
    "only=small_baseline", "train.steps=8", "models.small.d_model=64",
    "models.small.d_ff=128")
  check.equal(status.exit, 0, out .. err)
  local seen = {}
  for line in out:gmatch "[^\n]+" do
    local label, bits, error, loss = line:match(
      "^(%S.-)%s+([%d.]+)%s+[%d.]+%s+([%d.e-]+)%s+([%d.]+)$")
    if label then
      seen[label] = { tonumber(bits), tonumber(error), tonumber(loss) }
    end
  end
  local exact = seen["f32, as trained"]
  check.truthy(exact, out)
  check.near(seen.nf4[1], 4.5, 1e-3)
  check.near(seen.nf4[2], .0084, .0004)
  check.near(seen.int8[3], exact[3], 2e-3)
  check.truthy(seen.nf4[2] < seen.int4[2] and seen.int8[2] < seen.nf4[2])
end)

host.file.remove_tree(root)
check.done()
