-- What is exported here, loaded by transformers and by gguf-py on this machine:
-- the same logits, the same tokens. Skipped where they are not installed;
-- LLMHOST_PYTHON names the Python to ask, else python3.
local check = require "check"
local checkpoint = require "llm.checkpoint"
local export = require "llm.export"
local gpu = require "gpu"
local host = require "host"
local model = require "llm.model"
local saved = require "llm.saved"

local scratch = (os.getenv "TMPDIR" or "/tmp") .. "/peers"
assert(host.file.mkdir(scratch))
local reference = debug.getinfo(1, "S").source:match "^@(.*)lua/[^/]*$"
  .. "reference/"
local PYTHON = os.getenv "LLMHOST_PYTHON" or "python3"

-- Run Python with these words; its exit status and what it said.
local function python(...)
  local spec = { PYTHON, ... }
  spec.stdin, spec.stdout, spec.stderr = "null", "null", "pipe"
  local p = host.process.spawn(spec)
  if not p then return 127, "" end
  local out = {}
  for _ = 1, 2000 do
    local line, why = p:read_error_line(100)
    if not line and why == "eof" then break end
    out[#out + 1] = line
  end
  local status = p:wait(100) or {}
  p:close()
  return status.exit or 127, table.concat(out, "\n")
end

local function need(module)
  if python("-c", "import sys; from importlib.util import find_spec as f; "
    .. "sys.exit(not (f('torch') and f('safetensors') and f('" .. module
    .. "')))") ~= 0 then
    check.skip(module .. " is not installed")
  end
end

local IDS = {}
for i = 1, 40 do IDS[i] = i * i * 7 % 320 end

-- A run with one checkpoint, of a model trained for two steps.
local function trained(tied)
  local run = scratch .. "/runs/" .. tostring(tied)
  local shape = model.complete { preset = "llama", vocab = 320, d_model = 64,
    n_layers = 3, n_heads = 8, n_kv_heads = 2, d_ff = 96, seq = 40,
    rope_base = 20000, tied = tied, storage = "f32" }
  local p <close> = gpu.compile(model.transformer(shape), { seq = 40, seed = 5,
    optimizer = gpu.optim.groups { { gpu.optim.adamw { lr = .01 } } } })
  local x = gpu.tensor { dtype = "i32", IDS }
  for _ = 1, 2 do p:step(x, x) end
  assert(host.file.mkdir(run .. "/checkpoints"))
  assert(host.file.write(run .. "/config.json",
    host.json.encode { name = "trained", shape = shape }))
  checkpoint.save(p, run, { step = 2 })
  return run
end

-- Export such a run to `to`; gives its own logits at the last position.
local function exported(tied, to)
  local s = saved.open(trained(tied))
  export.write(s, to, { dtype = "f32",
    tokenizer = reference .. "llama/tokenizer.json" })
  local p <close> = saved.compile(s, {})
  local g <close> = p:generator {}
  return g:feed(IDS):logits()
end

local function far(a, b)
  local d = a - b
  return math.max(d:max():item(), -d:min():item())
end

local function compare(how, module, suffix)
  need(module)
  for _, tied in ipairs { true, false } do
    local to = scratch .. "/" .. tostring(tied) .. suffix
    local mine = exported(tied, to)
    local out = to .. ".logits"
    local status, said = python(reference .. "llama_peers.py", how, to,
      table.concat(IDS, ","), out)
    check.equal(status, 0, said)
    local theirs = assert(gpu.load(out)).logits
    local worst = far(mine, theirs:slice(1, #IDS, #IDS))
    check.truthy(worst <= 1e-4, "logits are off by " .. worst)
    check.truthy(mine:max():item() > .01, "logits that say something")
  end
end

check.case("transformers loads the folder: the same logits", function()
  compare("folder", "transformers", "")
end)

check.case("gguf-py loads the file: the same logits", function()
  compare("gguf", "gguf", ".gguf")
end)

check.case("transformers' tokenizer gives our ids", function()
  need "transformers"
  local to = scratch .. "/words"
  exported(true, to)
  local status, said = python(reference .. "llama_peers.py", "encode", to,
    reference .. "text/train.txt", to .. ".ids")
  check.equal(status, 0, said)
  local tok = host.text.tokenizer { file = to .. "/tokenizer.json" }
  local lines = host.file.read(reference .. "text/train.txt") .. "\n"
  local theirs = host.file.read(to .. ".ids"):gmatch "[^\n]+"
  local count = 0
  for line in lines:gmatch "([^\n]*)\n" do
    check.equal(table.concat(tok:encode(line), ","),
      (theirs():gsub("[%[%] ]", "")), line)
    count = count + 1
  end
  check.truthy(count > 100 and not theirs(), "all lines")
end)

check.done()
