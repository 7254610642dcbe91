-- experiments/bench.lua as a user runs it, with a small python of our own in
-- PyTorch's place: what it prints, what it hands on, what it says without one.
local check = require "check"
local host = require "host"
local micro = require "micro"

local root = micro.folder "bench"
local TINY = { "only=small", "seq=16", "batch=2", "accumulate=1", "steps=2",
  "warmup=1", "--device", "cpu" }

local function run(python, ...)
  local spec = { host.process.executable(), "experiments/bench.lua", ... }
  table.move(TINY, 1, #TINY, #spec + 1, spec)
  spec.stdin, spec.stdout, spec.stderr = "null", "pipe", "pipe"
  spec.env = { LLMHOST_PYTHON = python }
  return micro.finish(assert(host.process.spawn(spec)))
end

-- A peer that says what it was told: ready, then a rate by its setting.
local PEER = [[#!/bin/sh
echo "$@" >>%s/told
echo ready
read -r go
case "$*" in *--compile*) rate=3000 ;; *) rate=1000 ;; esac
echo "{\"tokens_per_second\": $rate, \"step_seconds\": 0.01, \"torch\":" \
  "\"9.9\", \"peak_memory_bytes\": 1073741824, \"first_loss\": 8, \"loss\": 7}"
]]

local function script(name, text)
  local path = root .. "/" .. name
  assert(host.file.write(path, text))
  os.execute("chmod +x " .. path)
  return path
end

local peer = script("peer", PEER:format(root))

check.case("one table within 100 columns, the best peer, a profile", function()
  local status, out, err = run(peer, "variants=none,fp4", "rows=3")
  check.equal(status.exit, 0, out .. err)
  for line in out:gmatch "[^\n]+" do
    check.truthy(utf8.len(line) <= 100, line)
  end
  check.truthy(out:find("model +batch +variant +tok/s +peer +ratio +MFU +light"
    .. " +sgemm"), out)
  for _, variant in ipairs { "none", "fp4" } do
    local peer_rate, gib = out:match("128d 2L +2x16 +" .. variant
      .. " +%S+ +(%d+) +[%d.]+ +[%d.]+%% +[%d.]+%% +[%d.]+%% +[%d.]+ +[%d.]+ "
      .. "+([%d.]+) ")
    check.equal(peer_rate, "3000", out) -- compile beat eager
    check.equal(gib, "1.00")
  end
  check.equal(select(2, out:gsub("ms a step, [%d.]+ call by call", "")), 2)
  check.truthy(err:find("PyTorch eager: 1000 tokens/s", 1, true), err)
end)

check.case("the peer is told the same model, batch and steps", function()
  local told = host.file.read(root .. "/told")
  check.truthy(told:find("torch_twin.py --json --gate --device cpu --d_model "
    .. "128 --n_layers 2 --n_heads 4 --d_ff 512 --kv_heads 4 --vocab 4096 "
    .. "--batch 2 --seq 16 --accumulate 1 --steps 2 --warmup 1 --dropout 0.1",
    1, true), told)
  check.equal(select(2, told:gsub("\n", "")), 2) -- once for both variants
end)

check.case("--json: every figure, and bad ones of none", function()
  local _, out, err = run(peer, "peer=no", "rows=2", "--json")
  local list = assert(host.json.decode(out), err)
  check.equal(#list, 1)
  local r = list[1].ours
  check.equal(r.planned, r.accounted)
  check.equal(r.tokens, 32)
  check.near(r.tokens_per_second, 32 / r.step_seconds, 1e-6)
  check.truthy(r.first_step_seconds > 0 and r.first_step_seconds < 60)
  check.truthy(r.speed_of_light > 0)
  check.equal(list[1].peer, nil)
  -- 6·N + 6·L·d·T a token; five symmetric steps of 384×128, 128×128, 512×128
  -- and 128×512 in each of two layers.
  local update = 2 * 5 * (3 * 128 ^ 2 * (384 + 128 + 512 + 512) + 4 * 128 ^ 3)
  check.equal(r.necessary_flops, 6 * r.parameters * 32
    + 6 * 2 * 128 * 16 * 32 + update)
  check.near(r.sgemm_share, r.necessary_flops / r.step_seconds
    / r.sgemm_flops, r.sgemm_share) -- a median of ratios
end)

check.case("the products of a step: each matrix three ways", function()
  local sgemm = require "llm.sgemm"
  local tree = require("llm.model").transformer { vocab = 96, d_model = 32,
    n_layers = 3, n_heads = 2, d_ff = 64 }
  local flops, weights = 0, 0
  for _, p in ipairs(sgemm.products(tree, 40)) do
    flops = flops + 2 * p[1] * p[2] * p[3] * p.times
  end
  for _, p in ipairs(tree:parameters()) do
    if #p.shape == 2 then weights = weights + p.shape[1] * p.shape[2] end
  end
  check.equal(flops, 6 * weights * 40)
end)

check.case("without PyTorch ours alone, and which python was asked", function()
  local none = script("none", "#!/bin/sh\necho \"ModuleNotFoundError: No "
    .. "module named 'torch'\" >&2\nexit 1\n")
  local status, out = run(none, "rows=0")
  check.equal(status.exit, 0)
  check.truthy(out:find("no peer: PyTorch was not found", 1, true), out)
  check.truthy(out:find("LLMHOST_PYTHON names the python", 1, true), out)
end)

-- The peer itself, held against the files that an independent model wrote.
local function python(...)
  local spec = { os.getenv "LLMHOST_PYTHON" or "python3", ... }
  spec.stdin, spec.stdout, spec.stderr = "null", "pipe", "pipe"
  return micro.finish(assert(host.process.spawn(spec)), nil, 120)
end

check.case("the peer's loss, gradients and 20 steps are the references'",
  function()
    local found, asked = pcall(python, "-c", "import torch, safetensors")
    if not found or asked.exit ~= 0 then check.skip "PyTorch is not here" end
    for _, name in ipairs { "gqa", "optimizer" } do
      local status, out, err = python("tests/torch_twin.py", "--json",
        "--reference", "tests/reference/" .. name .. ".safetensors")
      check.equal(status.exit, 0, out .. err)
      local r = assert(host.json.decode(out), out)
      check.equal(r.ok, true)
      local worst = r.gradient_relative or r.final_relative
      check.truthy(worst > 0 and worst < 1e-5, name .. ": " .. out)
    end
  end)

check.case("what it refuses", function()
  local function refused(word, text)
    local status, _, err = run(peer, word)
    check.equal(status.exit, 2, err)
    check.truthy(err:find(text, 1, true), err)
  end
  refused("modles=full", "unknown key 'modles'; did you mean 'models'?")
  refused("steps=0", "steps = 0: out of range, at least 1")
  refused("variants=fp5", "variants=fp5 is none of block, fp4")
  refused("peer=jax", "peer=jax is none of autotune")
  refused("models=huge", 'models = "huge": expected auto | nano | full')
end)

host.file.remove_tree(root)
check.done()
