-- Makes the seeds of the fuzzers with the program's own writers:
--   build/llmhost tests/fuzz/seeds.lua tests/fuzz/seeds
-- Whatever a fuzzer finds goes beside them by hand.
local gpu = require "gpu"
local host = require "host"

local root = assert(arg[1], "usage: seeds.lua FOLDER")
local scratch = root .. "/scratch"

local function put(target, name, bytes)
  assert(host.file.mkdir(root .. "/" .. target))
  assert(host.file.write(("%s/%s/%s"):format(root, target, name), bytes))
end

local function read(path) return assert(host.file.read(path)) end

local TEXT = ("the model reads a line of text and learns what comes next, "
  .. "1 2 345 \u{e9}\u{4e2d} {x = [1]}\n"):rep(6)

-- --- json -------------------------------------------------------------------
put("json", "empty", "{}")
put("json", "nested", '[[[{"a":[1,2.5e-3,-0,true,false,null]}]]]')
put("json", "strings", [[{"\u00e9\ud83d\ude00":"\"\\\/\b\f\n\r\t","":""}]])
put("json", "deep", ("["):rep(64) .. ("]"):rep(64))

-- --- tokenizers -------------------------------------------------------------
assert(host.file.mkdir(scratch))
assert(host.file.write(scratch .. "/text.txt", TEXT))
local tok = assert(host.text.tokenizer { vocab = 280,
  train = assert(host.text.corpus { source = scratch .. "/text.txt" }) })
assert(tok:save(scratch .. "/tokenizer.json"))
put("tokenizer", "trained", read(scratch .. "/tokenizer.json"))
put("tokenizer", "small", [[{"model":{"type":"BPE","vocab":{"a":0,"b":1,
"ab":2,"<|endoftext|>":3},"merges":["a b"]},"added_tokens":[{"id":3,"content":
"<|endoftext|>","special":true}],"pre_tokenizer":{"type":"ByteLevel",
"add_prefix_space":false,"use_regex":true},"decoder":{"type":"ByteLevel"}}]])
put("tokenizer", "pairs", [==[{"model":{"type":"BPE","vocab":{"a":0,"b":1,
"ab":2},"merges":[["a","b"]]},"pre_tokenizer":{"type":"Sequence",
"pretokenizers":[{"type":"Digits","individual_digits":true},{"type":
"ByteLevel","add_prefix_space":false}]}}]==])
put("merges", "three", "#version: 0.2\n\u{120} t\nh e\n\u{120}t he\n")
put("merges", "none", "#version: 0.2\n")
put("merges", "crlf", "#version: 0.2\r\nt h\r\n\r\nth e\r\n")

-- --- token files: the first byte is the harness's ---------------------------
assert(host.file.mkdir(scratch .. "/two"))
for _, name in ipairs { "a", "b" } do
  assert(host.file.write(scratch .. "/two/" .. name .. ".txt", TEXT .. name))
end
local text = assert(host.text.prepare { source = scratch .. "/two",
  vocab = 280, validation = .2, cache = scratch .. "/cache", tokens = 100 })
put("tokens", "own", "\1" .. read(text.train_path))
put("tokens", "validation", "\0" .. read(text.validation_path))
put("tokens", "llmc", "\2" .. string.pack("<i4i4i4", 20240520, 1, 3)
  .. ("\0"):rep(256 * 4 - 12) .. string.pack("<I2I2I2", 1, 2, 3))
put("tokens", "nanogpt", "\2" .. string.pack("<I2I2I2I2", 7, 8, 9, 10))

-- --- jsonl ------------------------------------------------------------------
local rows = '{"text":"one"}\n\n{"id":2,"text":"tw\\u00f6"}\n{"text":null}\n'
local function packed(tool)
  local path = scratch .. "/rows"
  assert(host.file.write(path, rows))
  local pipe = assert(io.popen(tool .. " -c " .. path))
  local bytes = pipe:read "a"
  pipe:close()
  return bytes
end
put("jsonl", "plain", "\0" .. rows)
put("jsonl", "gzip", "\1" .. packed "gzip -n")
put("jsonl", "zstd", "\2" .. packed "zstd -q")

-- --- safetensors, checkpoints -----------------------------------------------
assert(gpu.save(scratch .. "/a.safetensors", { b = gpu.zeros { 2, 3 },
  a = gpu.ones { 1, dtype = "bf16" }, ["\u{e9}"] = gpu.zeros { 4,
    dtype = "i32" } }, { format = "pt" }))
put("safetensors", "three", "\1" .. read(scratch .. "/a.safetensors"))
put("safetensors", "exact", "\0" .. read(scratch .. "/a.safetensors"))
assert(gpu.save(scratch .. "/b.safetensors", {}))
put("safetensors", "empty", "\0" .. read(scratch .. "/b.safetensors"))

local nn = gpu.nn
local e = nn.embedding { 16, 8, name = "embedding" }
local p <close> = gpu.compile(nn.sequential { e,
  nn.linear { 8, 128, name = "blocks.up" },
  nn.linear { 128, 8, name = "blocks.down" }, nn.rmsnorm { 8 },
  nn.head { tied = e } }, { batch = 1, seq = 4, quantize = "nf4r",
  optimizer = gpu.optim.groups { { match = "blocks.*",
    gpu.optim.muon { lr = .01 } }, { gpu.optim.adamw { lr = .1 } } } })
assert(host.file.mkdir(scratch .. "/p"))
p:open()
assert(p:save(scratch .. "/p"))
put("checkpoint", "model", "\0" .. read(scratch .. "/p/model.safetensors"))
put("checkpoint", "training", "\1" .. read(scratch
  .. "/p/training.safetensors"))
put("checkpoint", "swapped", "\0" .. read(scratch
  .. "/p/training.safetensors"))

-- --- journal ----------------------------------------------------------------
do
  local j <close> = assert(host.journal.open(scratch .. "/journal.jsonl"))
  j:append { type = "sweep", name = "\u{e9}\n" }
  j:append { type = "end", status = "ok", list = { 1, 2, 3 } }
end
local journal = read(scratch .. "/journal.jsonl")
put("journal", "two", "\1" .. journal)
put("journal", "torn", "\0" .. journal:sub(1, -10))
put("journal", "damaged", "\0" .. journal:gsub("ok", "OK"))

host.file.remove_tree(scratch)
