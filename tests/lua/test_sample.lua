-- sample.lua, export.lua and train.lua from=: on runs of a micro sweep, as a
-- user would start them; whole characters; finding what was meant.
local check = require "check"
local host = require "host"
local micro = require "micro"
local sample = require "llm.sample"
local saved = require "llm.saved"

local LLMHOST = host.file.realpath(os.getenv "LLMHOST")
local SCRIPTS = host.file.realpath(host.options.root .. "/experiments")
local root = micro.folder "sample"

-- Run a script of experiments/ in the folder; exit code, output, errors.
local function script(name, ...)
  local spec = { LLMHOST, SCRIPTS .. "/" .. name, ... }
  spec.cwd, spec.stdin, spec.stdout, spec.stderr = root, "null", "pipe", "pipe"
  local status, out, err = micro.finish(assert(host.process.spawn(spec)))
  return status.exit, out, err
end

-- --- characters ------------------------------------------------------------

check.case("characters are whole, bytes of none become U+FFFD", function()
  local function both(bytes, last)
    local text, left = sample.characters(bytes, last)
    return text .. "|" .. left
  end
  check.equal(both "plain", "plain|")
  check.equal(both "na\xC3", "na|\xC3")
  check.equal(both "na\xC3\xAFve", "na\xC3\xAFve|")
  check.equal(both "\xF0\x9F\x99", "|\xF0\x9F\x99")
  check.equal(both("\xF0\x9F\x99", true), ("\u{FFFD}"):rep(3) .. "|")
  check.equal(both "a\xFFb", "a\u{FFFD}b|")
  check.equal(both "\xC3(", "\u{FFFD}(|")
  check.equal(both "\xE4\xBD\xA0\xE5\xA5", "\u{4F60}|\xE5\xA5")
  check.equal(both "\x80", "\u{FFFD}|")
end)

check.case("a writer puts characters together from their bytes", function()
  local out = {}
  local file = { write = function(_, s) out[#out + 1] = s end,
    flush = function() end }
  local write = sample.writer(file, false)
  for byte in ("h\u{E9}\u{1F642}!\xF0\x9F"):gmatch "." do write(byte) end
  write()
  check.equal(table.concat(out), "h\u{E9}\u{1F642}!\u{FFFD}\u{FFFD}")
  for _, s in ipairs(out) do check.truthy(utf8.len(s), "half a character") end
  out = {}
  write = sample.writer(file, true)
  write "a\27[2Jb\tc\n\u{9B}d"
  check.equal(table.concat(out), "a\u{FFFD}[2Jb\tc\n\u{FFFD}d",
    "a terminal gets no control characters")
end)

check.case("the cache in words", function()
  local function text(cache, heads, kv)
    return sample.cache_text({ cache = cache, heads = heads, kv_heads = kv,
      layers = 2 }, 512)
  end
  check.equal(text(1048576, 16, 8),
    "KV cache 1.0 MB for 512 tokens (4 of 8 heads: half)")
  check.equal(text(8192, 16, 16),
    "KV cache 8.2 kB for 512 tokens (8 of 8 heads: all heads)")
  check.equal(text(8192, 10, 4),
    "KV cache 8.2 kB for 512 tokens (2 of 5 heads: 40 %)")
end)

-- --- on runs ---------------------------------------------------------------

check.case("text from runs with f32 and 4-bit weights", function()
  micro.script(root, '{ name = "gqa", kv_groups = 2 }, '
    .. '{ name = "fp4", fp4 = true }', 'preset = "llama",')
  local status, out, err = micro.run(root, "models.m.d_model=48",
    "train.steps=60", "train.lr=0.01", "train.checkpoint_seconds=100")
  check.equal(status.exit, 0, out .. err)
  for name, words in pairs { m_gqa = "(1 of 2 heads: half)",
    m_fp4 = "(2 of 2 heads: all heads)" } do
    local exit, text, told = script("sample.lua", name, "prompt=the model",
      "tokens=30", "seed=7")
    check.equal(exit, 0, told)
    check.equal(text:sub(1, 9), "the model")
    check.truthy(utf8.len(text), "not UTF-8")
    check.truthy(told:find(name .. " after step 60, out/runs/", 1, true), told)
    check.truthy(told:find("tokens/s", 1, true), told)
    check.truthy(told:find("for 16 tokens " .. words, 1, true), told)
    check.truthy(told:find("the context of 16 tokens is full", 1, true), told)
    local _, again = script("sample.lua", "out/runs/" .. name,
      "prompt=the model", "tokens=30", "seed=7")
    check.equal(again, text, "a seed is a text")
    local _, other = script("sample.lua", "out/runs/" .. name,
      "prompt=the model", "tokens=30", "seed=8")
    check.truthy(other ~= text, "another seed")
  end
end)

check.case("bytes of the cache are layers, heads, positions, width", function()
  local _, _, told = script("sample.lua", "m_gqa", "tokens=2", "context=100")
  -- 2 (keys, values) x 1 layer x 1 head x 100 positions x 24 x 4 bytes
  check.truthy(told:find("KV cache 19.2 kB for 100 tokens", 1, true), told)
end)

check.case("without a name, the newest checkpoint; no prompt; no sliding",
  function()
    local exit, _, told = script("sample.lua", "tokens=40", "slide=false",
      "temperature=2")
    check.equal(exit, 0, told)
    check.truthy(told:find("after step 60, out/runs/m_", 1, true), told)
    local count = tonumber(told:match "(%d+) tokens, ")
    check.truthy(count <= 16, "the context has 16 tokens, not " .. count)
  end)

check.case("a long prompt is cut to what the context can take", function()
  local _, out, told = script("sample.lua", "m_gqa", "tokens=3",
    "prompt=" .. ("the model reads text "):rep(9))
  check.truthy(told:find("its last 8 are read", 1, true), told)
  check.truthy(out:find("the model reads text the", 1, true))
end)

local function refused(text, name, ...)
  local exit, _, told = script(name, ...)
  check.truthy(exit ~= 0, "no failure")
  check.truthy(told:find(text, 1, true), told)
end

check.case("errors name what to do", function()
  refused("nothing: there is no such folder, and no run of that name below "
    .. "this one has a checkpoint; train one first: llmhost "
    .. "experiments/train.lua", "sample.lua", "nothing")
  refused("text: neither a checkpoint (state.json), nor a run, nor a folder of "
    .. "results (journal.jsonl), nor a Llama", "sample.lua", "text")
  refused("did you mean 'temperature'?", "sample.lua", "temprature=1")
  refused("tokens = 0: out of range", "sample.lua", "tokens=0")
  refused("export: where to? to=FOLDER or to=FILE.gguf", "export.lua")
  refused("its weights are f32; storage=nf4r is for a Llama folder",
    "sample.lua", "m_gqa", "storage=nf4r")
  host.file.mkdir(root .. "/none/runs/x")
  host.file.write(root .. "/none/journal.jsonl", "")
  refused("none: no checkpoint there", "sample.lua", "none")
end)

check.case("a damaged checkpoint is not used", function()
  local s = saved.open(root .. "/out/runs/m_gqa")
  local path = s.folder .. "/model.safetensors"
  local whole = host.file.read(path)
  host.file.write(path, whole:sub(1, -9) .. "damaged!")
  refused("model.safetensors is damaged (CRC)", "sample.lua", s.folder)
  host.file.write(path, whole)
end)

check.case("evaluate.lua arrives at the loss that the run reported",
  function()
    local results = micro.results(root)
    for _, name in ipairs { "m_gqa", "m_fp4" } do
      local exit, out, told = script("evaluate.lua", name, "tokens=64")
      check.equal(exit, 0, told)
      local want = results[name].evaluation.val_loss
      check.truthy(out:find(("loss %.4f, perplexity %.2f"):format(want,
        math.exp(want)), 1, true), out .. " not " .. want)
    end
    local exit, out, told = script("evaluate.lua", "m_gqa",
      "text=text/01.txt", "seq=8", "batch=3")
    check.equal(exit, 0, told)
    check.truthy(out:find("m_gqa on text/01.txt: loss ", 1, true), out)
    refused("text=none.txt: data source 'none.txt' does not exist",
      "evaluate.lua", "m_gqa", "text=none.txt")
    host.file.write(root .. "/short.txt", "short")
    refused("short.txt: ", "evaluate.lua", "m_gqa", "text=short.txt")
    local _, _, why = script("evaluate.lua", "m_gqa", "text=short.txt")
    check.truthy(why:find("tokens are too few for samples of 16", 1, true), why)
    check.equal(why:find("traceback", 1, true), nil, why)
  end)

check.case("a model that a script builds: script= names it", function()
  local own = micro.folder "sample-own"
  micro.script(own, '{ name = "own" }', [[
    model = function(c)
      local nn = require("gpu").nn
      local e = nn.embedding { c.vocab, c.d_model, name = "embedding" }
      return nn.sequential { e, nn.residual { nn.layer { name = "mix",
        parameters = { w = { c.d_model, c.d_model } },
        forward = function(p, x) return x:matmul(p.w):silu() end } },
        nn.rmsnorm { c.d_model }, nn.head { tied = e } }
    end,]], "steps = 2")
  local status, out, err = micro.run(own)
  check.equal(status.exit, 0, out .. err)
  local was = root
  root = own
  refused("a model that a script builds itself needs script=", "sample.lua",
    "m_own")
  refused("script=text/01.txt", "sample.lua", "m_own", "script=text/01.txt")
  local exit, text, told = script("sample.lua", "m_own", "script=sweep.lua",
    "tokens=20", "prompt=the")
  root = was
  check.equal(exit, 0, told)
  check.truthy(utf8.len(text) and #text > 4, text)
  check.truthy(told:find("no KV cache", 1, true), told)
  host.file.remove_tree(own)
end)

-- --- out and in again ------------------------------------------------------

check.case("an exported run writes what the run wrote", function()
  local _, want = script("sample.lua", "m_gqa", "prompt=a", "tokens=12")
  local exit, out, told = script("export.lua", "m_gqa", "to=hf")
  check.equal(exit, 0, told)
  check.truthy(out:find("m_gqa: wrote hf (f32, ", 1, true), out)
  local _, got = script("sample.lua", "hf", "prompt=a", "tokens=12",
    "context=16")
  check.equal(got, want)
  check.equal(script("export.lua", "m_fp4", "to=m.gguf", "dtype=f16"), 0)
  check.equal(host.file.read(root .. "/m.gguf", 1 << 24):sub(1, 4), "GGUF")
  refused("is a file", "export.lua", "m_gqa", "to=sweep.lua")
end)

check.case("training goes on from a Llama folder", function()
  local exit, out, told = script("train.lua", "from=hf", "data.source=text",
    "data.tokens=2000", "steps=2", "seq=16", "tokens_per_step=64", "batch=2",
    "eval_tokens=64", "eval_every=1", "train.lr=0", "muon_lr=0", "--force",
    "memory.budget=100MB", "search.candidates=0", "out=further")
  check.equal(exit, 0, out .. told)
  local list = host.json.decode(host.file.read(root
    .. "/further/experiment_results.json"))
  local before = micro.results(root).m_gqa.evaluation.val_loss
  local after = list[1].evaluation.val_loss
  -- at a rate of zero the weights are the run's; the held-out text differs
  check.near(after, before, .25, "loss of the imported model")
  check.truthy(before < math.log(300) - 1, "the run learned something: "
    .. before)
  check.equal(list[1].config.d_model, 48)
  check.equal(list[1].optimizations.n_kv_heads, 1)
end)

check.case("a folder without a tokenizer is not trained on", function()
  host.file.remove(root .. "/hf/tokenizer.json")
  refused("from=hf: no tokenizer.json there", "train.lua", "from=hf",
    "--dry-run")
end)

host.file.remove_tree(root)
check.done()
