-- Sweeps on token files that other programs wrote: llm.c's and nanoGPT's.
local check = require "check"
local host = require "host"
local micro = require "micro"
local tokenfiles = require "llm.tokenfiles"

local root = micro.folder "tokens"
micro.script(root, '{ name = "baseline" }', nil, "steps = 2")

local function ids(count, from)
  local out = {}
  for i = 1, count do out[i] = string.pack("<I2", (i * 7 + from) % 300) end
  return table.concat(out)
end

local function put(name, data)
  assert(host.file.write(root .. "/" .. name, data))
end

local function llmc(data, count)
  return string.pack("<i4i4i4", 20240520, 1, count) .. ("\0"):rep(1012) .. data
end

local function sweep(...) return micro.run(root, "--fresh", ...) end

check.case("names", function()
  for _, name in ipairs { "train.bin", "a/b.tokens" } do
    check.equal(tokenfiles.is(name), true, name)
  end
  for _, name in ipairs { "text", "a.txt", "system", "*.bin", "hf:a/b:c.bin",
    "x.bin.gz" } do
    check.equal(tokenfiles.is(name), false, name)
  end
  put("a_train_000001.bin", "")
  put("a_val_000001.bin", "")
  check.equal(tokenfiles.held_out(root .. "/a_train_000001.bin"),
    root .. "/a_val_000001.bin")
  check.equal(tokenfiles.held_out "nothing.bin", nil)
end)

check.case("nanoGPT's train.bin and val.bin", function()
  put("train.bin", ids(3000, 0))
  put("val.bin", ids(400, 5))
  local status, out, err = sweep "data.source=train.bin"
  check.equal(status.exit, 0, out .. err)
  check.truthy(out:find("token files: train.bin, val.bin", 1, true), out)
  local s = require("llm.state").read(root .. "/out/journal.jsonl")
  check.equal(s.data.train.count, 3000)
  check.equal(s.data.validation.count, 400)
  check.equal(s.data.vocab, 300)
  local tokens = assert(host.text.tokens { root .. "/" .. s.data.train.path })
  check.equal(table.concat(tokens:get(1, 3), " "), "7 14 21")
end)

check.case("llm.c's give the same run, bit for bit", function()
  local before = micro.losses(root, "m_baseline")
  put("lc_train.bin", llmc(ids(3000, 0), 3000))
  put("lc_val.bin", llmc(ids(400, 5), 400))
  local status, out, err = sweep "data.source=lc_train.bin"
  check.equal(status.exit, 0, out .. err)
  check.equal(micro.losses(root, "m_baseline"), before)
end)

check.case("what is wrong is said before anything runs", function()
  local function refused(want, ...)
    local status, out, err = sweep(...)
    check.equal(status.exit, 1)
    check.truthy((out .. err):find(want, 1, true), out .. err)
  end
  put("alone_train.bin", ids(300, 0))
  refused("alone_train.bin: no file of held-out tokens beside it",
    "data.source=alone_train.bin")
  refused("no such file: none.bin", "data.source=none.bin")
  put("big_train.bin", ids(300, 0) .. string.pack("<I2", 300))
  put("big_val.bin", ids(300, 0))
  refused("big_train.bin': it holds id 300, outside the vocabulary of 300 "
    .. "(data.vocab is 300)", "data.source=big_train.bin")
  put("cut_train.bin", llmc(ids(300, 0), 301))
  put("cut_val.bin", llmc(ids(300, 0), 300))
  refused("its length is not the one llm.c's header says",
    "data.source=cut_train.bin")
end)

host.file.remove_tree(root)
check.done()
